//! CXL link capability structure (section 8.2.4.19): the CXL.cachemem link layer.

use crate::register::Register;

/// Bytes of the structure.
pub(super) const LEN: u64 = 0x38;

/// Link version supported 2 (CXL 2.0 and later), in bits 3:0 and, as received, in bits 7:4.
const VERSION: u32 = 0x22;
/// LL_Init_State 11b: the link layer is initialised, bits 4:3.
const INITIALISED: u32 = 0b11 << 3;
/// LL_Init_Stall and LL_Crd_Stall, bits 2:1. LL_Reset (bit 0) would take a link down that is none.
const STALLS: u32 = 0b110;
/// Credits per message class, bits 9:0, 19:10 and 29:20; two more classes in the high dword.
const CREDITS_LOW: u32 = 0x3fff_ffff;
const CREDITS_HIGH: u32 = 0x000f_ffff;

/// Offsets as in table 8-29. All registers are 64 bits wide.
pub(super) static REGISTERS: [Register; 5] = [
    // Link Layer Capability (8.2.4.19.1).
    Register::read_only(0x00, VERSION),
    // Link Layer Control and Status (8.2.4.19.2).
    Register::read_write(0x08, INITIALISED, STALLS),
    // Link Layer Rx Credit Control (8.2.4.19.3).
    Register::read_write(0x10, 0, CREDITS_LOW),
    Register::read_write(0x14, 0, CREDITS_HIGH),
    // Link Layer Defeature (8.2.4.19.7): bit 0 disables multi-data headers.
    Register::read_write(0x30, 0, 1),
];
