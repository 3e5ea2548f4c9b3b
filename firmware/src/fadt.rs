//! Fixed ACPI Description Table (ACPI 6.5 section 5.2.9) and FACS (5.2.10).

use acpi_tables::sdt::{GenericAddress, Sdt};

use crate::machine::Chipset;
use crate::table::table;

/// Written to the reset port: full reset, and go (bits 1 and 2 of the reset control register 0xCF9).
pub const RESET_VALUE: u8 = 0x06;

const REVISION: u8 = 6;
const MINOR_REVISION: u8 = 5;
const LENGTH: u32 = 276;

/// Offsets of the fields that are not zero (ACPI 6.5 table 5.9).
mod offset {
    pub const DSDT: usize = 40;
    pub const PREFERRED_PM_PROFILE: usize = 45;
    pub const SCI_INT: usize = 46;
    pub const PM1A_EVT_BLK: usize = 56;
    pub const PM1A_CNT_BLK: usize = 64;
    pub const PM_TMR_BLK: usize = 76;
    pub const PM1_EVT_LEN: usize = 88;
    pub const PM1_CNT_LEN: usize = 89;
    pub const PM_TMR_LEN: usize = 91;
    pub const P_LVL2_LAT: usize = 96;
    pub const P_LVL3_LAT: usize = 98;
    pub const IAPC_BOOT_ARCH: usize = 109;
    pub const FLAGS: usize = 112;
    pub const RESET_REG: usize = 116;
    pub const RESET_VALUE: usize = 128;
    pub const FADT_MINOR_VERSION: usize = 131;
    pub const X_FIRMWARE_CTRL: usize = 132;
    pub const X_DSDT: usize = 140;
    pub const X_PM1A_EVT_BLK: usize = 148;
    pub const X_PM1A_CNT_BLK: usize = 172;
    pub const X_PM_TMR_BLK: usize = 208;
}

/// Fixed feature flags (ACPI 6.5 table 5.10). PWR_BUTTON stays 0: the power button is a fixed feature.
mod flags {
    pub const WBINVD: u32 = 1 << 0;
    pub const PROC_C1: u32 = 1 << 2;
    /// No sleep button among the fixed features.
    pub const SLP_BUTTON: u32 = 1 << 5;
    /// The clock's alarm does not wake the machine.
    pub const FIX_RTC: u32 = 1 << 6;
    pub const RESET_REG_SUP: u32 = 1 << 10;
    pub const HEADLESS: u32 = 1 << 12;
}

/// IA-PC boot architecture flags (ACPI 6.5 table 5.11). The 8042 bit stays 0, so does "no CMOS clock".
mod boot_arch {
    pub const LEGACY_DEVICES: u16 = 1 << 0;
    pub const VGA_NOT_PRESENT: u16 = 1 << 2;
}

/// Enterprise server (ACPI 6.5 table 5.9).
const PROFILE_ENTERPRISE_SERVER: u8 = 4;
/// Above 100 µs and 1000 µs: there is no C2 and no C3.
const NO_C2: u16 = 0x0FFF;
const NO_C3: u16 = 0x0FFF;
/// Bytes of the register blocks.
const PM1_EVT_LEN: u8 = 4;
const PM1_CNT_LEN: u8 = 2;
const PM_TMR_LEN: u8 = 4;

/// The FADT of a machine whose DSDT and FACS are at the given addresses, both below 4 GiB.
pub(crate) fn fadt(chipset: &Chipset, facs: u64, dsdt: u32) -> Sdt {
    let mut fadt = table(b"FACP", REVISION, LENGTH);
    fadt.write_u32(offset::DSDT, dsdt);
    fadt.write_u8(offset::PREFERRED_PM_PROFILE, PROFILE_ENTERPRISE_SERVER);
    fadt.write_u16(offset::SCI_INT, u16::from(chipset.sci));
    // SMI_CMD stays 0: there is no legacy mode to leave.
    fadt.write_u32(offset::PM1A_EVT_BLK, u32::from(chipset.pm1a_event));
    fadt.write_u32(offset::PM1A_CNT_BLK, u32::from(chipset.pm1a_control));
    fadt.write_u32(offset::PM_TMR_BLK, u32::from(chipset.pm_timer));
    fadt.write_u8(offset::PM1_EVT_LEN, PM1_EVT_LEN);
    fadt.write_u8(offset::PM1_CNT_LEN, PM1_CNT_LEN);
    fadt.write_u8(offset::PM_TMR_LEN, PM_TMR_LEN);
    fadt.write_u16(offset::P_LVL2_LAT, NO_C2);
    fadt.write_u16(offset::P_LVL3_LAT, NO_C3);
    fadt.write_u16(
        offset::IAPC_BOOT_ARCH,
        boot_arch::LEGACY_DEVICES | boot_arch::VGA_NOT_PRESENT,
    );
    fadt.write_u32(
        offset::FLAGS,
        flags::WBINVD
            | flags::PROC_C1
            | flags::SLP_BUTTON
            | flags::FIX_RTC
            | flags::RESET_REG_SUP
            | flags::HEADLESS,
    );
    fadt.write(
        offset::RESET_REG,
        GenericAddress::io_port_address::<u8>(chipset.reset),
    );
    fadt.write_u8(offset::RESET_VALUE, RESET_VALUE);
    fadt.write_u8(offset::FADT_MINOR_VERSION, MINOR_REVISION);
    fadt.write_u64(offset::X_FIRMWARE_CTRL, facs);
    fadt.write_u64(offset::X_DSDT, u64::from(dsdt));
    fadt.write(
        offset::X_PM1A_EVT_BLK,
        GenericAddress::io_port_address::<u32>(chipset.pm1a_event),
    );
    fadt.write(
        offset::X_PM1A_CNT_BLK,
        GenericAddress::io_port_address::<u16>(chipset.pm1a_control),
    );
    fadt.write(
        offset::X_PM_TMR_BLK,
        GenericAddress::io_port_address::<u32>(chipset.pm_timer),
    );
    fadt
}
