//! RAS capability structure (section 8.2.4.17): a component's CXL.cachemem error registers.

use crate::register::{Register, RegisterBlock};

/// Bytes of the structure: the registers, then a header log of 64 bytes.
pub(super) const LEN: u64 = 0x58;

/// Offsets (table 8-26).
const UNCORRECTABLE_STATUS: u64 = 0x00;
const UNCORRECTABLE_MASK: u64 = 0x04;
const CORRECTABLE_STATUS: u64 = 0x0c;
const CORRECTABLE_MASK: u64 = 0x10;
const CONTROL: u64 = 0x14;
const HEADER_LOG: u64 = 0x18;
/// Dwords of the header log.
const HEADER_DWORDS: usize = 16;

/// Every uncorrectable error there is: bits 0 to 11 and 14 to 16.
const UNCORRECTABLE: u32 = 0x0001_cfff;
/// Every correctable error there is: bits 0 to 6.
const CORRECTABLE: u32 = 0x0000_007f;
/// First error pointer, in bits 5:0 of Error Capabilities and Control.
const FIRST_ERROR_MASK: u32 = 0x3f;

pub(super) static REGISTERS: [Register; 6] = [
    // Uncorrectable Error Status (8.2.4.17.1), Mask (8.2.4.17.2), Severity (8.2.4.17.3).
    Register::write_one_to_clear(UNCORRECTABLE_STATUS, UNCORRECTABLE),
    Register::read_write(UNCORRECTABLE_MASK, UNCORRECTABLE, UNCORRECTABLE),
    Register::read_write(0x08, UNCORRECTABLE, UNCORRECTABLE),
    // Correctable Error Status (8.2.4.17.4) and Mask (8.2.4.17.5).
    Register::write_one_to_clear(CORRECTABLE_STATUS, CORRECTABLE),
    Register::read_write(CORRECTABLE_MASK, CORRECTABLE, CORRECTABLE),
    // Error Capabilities and Control (8.2.4.17.6): no first error, one header at a time.
    Register::read_only(CONTROL, 0),
];

/// Errors of which nothing is lost; the value is the bit (8.2.4.17.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CorrectableError {
    /// ECC of CXL.cache data.
    CacheDataEcc = 0,
    /// ECC of CXL.mem data.
    MemDataEcc = 1,
    /// More CRC errors than the threshold.
    CrcThreshold = 2,
    /// More link retries than the threshold.
    RetryThreshold = 3,
    /// Poison came over CXL.cache.
    CachePoison = 4,
    /// Poison came over CXL.mem.
    MemPoison = 5,
    /// The physical layer's own.
    Physical = 6,
}

/// Errors that lose something; the value is the bit (8.2.4.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UncorrectableError {
    /// Parity of CXL.cache data.
    CacheDataParity = 0,
    /// Parity of a CXL.cache address.
    CacheAddressParity = 1,
    /// Parity of CXL.cache byte enables.
    CacheByteEnableParity = 2,
    /// ECC of CXL.cache data.
    CacheDataEcc = 3,
    /// Parity of CXL.mem data.
    MemDataParity = 4,
    /// Parity of a CXL.mem address.
    MemAddressParity = 5,
    /// Parity of CXL.mem byte enables.
    MemByteEnableParity = 6,
    /// ECC of CXL.mem data.
    MemDataEcc = 7,
    /// More link initializations than the threshold.
    ReinitThreshold = 8,
    /// A field with a reserved encoding.
    ReservedEncoding = 9,
    /// Poison from the peer.
    PoisonReceived = 10,
    /// A buffer overflowed.
    ReceiverOverflow = 11,
    /// The component's own.
    Internal = 14,
    /// IDE, sending.
    IdeTransmit = 15,
    /// IDE, receiving.
    IdeReceive = 16,
}

impl CorrectableError {
    /// All of them, with the names by which emulators of CXL call them.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("cache-data-ecc", Self::CacheDataEcc),
        ("mem-data-ecc", Self::MemDataEcc),
        ("crc-threshold", Self::CrcThreshold),
        ("retry-threshold", Self::RetryThreshold),
        ("cache-poison-received", Self::CachePoison),
        ("mem-poison-received", Self::MemPoison),
        ("physical", Self::Physical),
    ];
}

impl UncorrectableError {
    /// All of them, with the names by which emulators of CXL call them.
    pub const NAMES: [(&'static str, Self); 15] = [
        ("cache-data-parity", Self::CacheDataParity),
        ("cache-address-parity", Self::CacheAddressParity),
        ("cache-be-parity", Self::CacheByteEnableParity),
        ("cache-data-ecc", Self::CacheDataEcc),
        ("mem-data-parity", Self::MemDataParity),
        ("mem-address-parity", Self::MemAddressParity),
        ("mem-be-parity", Self::MemByteEnableParity),
        ("mem-data-ecc", Self::MemDataEcc),
        ("reinit-threshold", Self::ReinitThreshold),
        ("rsvd-encoding", Self::ReservedEncoding),
        ("poison-received", Self::PoisonReceived),
        ("receiver-overflow", Self::ReceiverOverflow),
        ("internal", Self::Internal),
        ("cxl-ide-tx", Self::IdeTransmit),
        ("cxl-ide-rx", Self::IdeReceive),
    ];
}

/// An error that a component has found on CXL.cache or CXL.mem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// Nothing is lost.
    Correctable(CorrectableError),
    /// Something is lost.
    Uncorrectable {
        /// What happened.
        error: UncorrectableError,
        /// Header of the message at fault, zeros if there was none.
        header: [u32; HEADER_DWORDS],
    },
}

/// The registers and the header log.
#[derive(Debug)]
pub(super) struct Ras {
    registers: RegisterBlock,
    header: [u32; HEADER_DWORDS],
}

impl Ras {
    pub fn new() -> Self {
        Self {
            registers: RegisterBlock::new(&REGISTERS),
            header: [0; HEADER_DWORDS],
        }
    }

    /// Logs an error. True if the component is to report it as an internal error of its PCI function (section 12.2): it is
    /// not masked.
    pub fn log(&mut self, error: ProtocolError) -> bool {
        let (status, mask, bit) = match error {
            ProtocolError::Correctable(error) => {
                (CORRECTABLE_STATUS, CORRECTABLE_MASK, 1 << error as u8)
            }
            ProtocolError::Uncorrectable { error, .. } => {
                (UNCORRECTABLE_STATUS, UNCORRECTABLE_MASK, 1 << error as u8)
            }
        };
        let logged = self.registers.read(status);
        let masked = self.registers.read(mask) & bit != 0;
        if let ProtocolError::Uncorrectable { error, header } = error {
            let first = self.registers.read(CONTROL) & FIRST_ERROR_MASK;
            // The first error keeps the log until software has cleared its bit.
            if !masked && logged >> first & 1 == 0 {
                self.header = header;
                self.registers.set(CONTROL, u32::from(error as u8));
            }
        }
        self.registers.set(status, logged | bit);
        !masked
    }

    /// The names of the errors that were logged and not cleared, correctable ones last.
    pub fn logged(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (uncorrectable, correctable) = (
            self.registers.read(UNCORRECTABLE_STATUS),
            self.registers.read(CORRECTABLE_STATUS),
        );
        let uncorrectable = UncorrectableError::NAMES
            .iter()
            .filter(|(_, error)| uncorrectable >> *error as u8 & 1 != 0)
            .map(|(name, _)| *name);
        let correctable = CorrectableError::NAMES
            .iter()
            .filter(|(_, error)| correctable >> *error as u8 & 1 != 0)
            .map(|(name, _)| *name);
        (uncorrectable.collect(), correctable.collect())
    }

    pub fn read(&self, offset: u64) -> u32 {
        let in_log = offset.checked_sub(HEADER_LOG).map(|offset| offset / 4);
        match in_log.and_then(|index| usize::try_from(index).ok()) {
            Some(index) => self.header.get(index).copied().unwrap_or(0),
            None => self.registers.read(offset),
        }
    }

    pub fn write(&mut self, offset: u64, value: u32) {
        self.registers.write(offset, value);
    }

    /// What was logged is sticky: it outlives every reset, so that software can read after one why it had to make it.
    pub fn reset(&mut self) {
        let sticky = [UNCORRECTABLE_STATUS, CORRECTABLE_STATUS, CONTROL];
        let logged = sticky.map(|offset| (offset, self.registers.read(offset)));
        self.registers.reset();
        for (offset, value) in logged {
            self.registers.set(offset, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncorrectable(error: UncorrectableError, dword: u32) -> ProtocolError {
        ProtocolError::Uncorrectable {
            error,
            header: [dword; HEADER_DWORDS],
        }
    }

    fn unmasked() -> Ras {
        let mut ras = Ras::new();
        ras.write(UNCORRECTABLE_MASK, 0);
        ras.write(CORRECTABLE_MASK, 0);
        ras
    }

    #[test]
    fn each_error_has_its_bit() {
        for (name, error) in CorrectableError::NAMES {
            let mut ras = unmasked();
            assert!(ras.log(ProtocolError::Correctable(error)), "{name}");
            assert_eq!(ras.read(CORRECTABLE_STATUS), 1 << error as u8);
            assert_eq!(ras.read(CORRECTABLE_STATUS) & !CORRECTABLE, 0);
            assert_eq!(ras.logged(), (vec![], vec![name]));
        }
        for (name, error) in UncorrectableError::NAMES {
            let mut ras = unmasked();
            assert!(ras.log(uncorrectable(error, 7)), "{name}");
            assert_eq!(ras.read(UNCORRECTABLE_STATUS), 1 << error as u8);
            assert_eq!(ras.read(UNCORRECTABLE_STATUS) & !UNCORRECTABLE, 0);
            assert_eq!(ras.read(CONTROL), u32::from(error as u8));
            assert_eq!([ras.read(HEADER_LOG), ras.read(0x54)], [7, 7]);
            assert_eq!(ras.logged(), (vec![name], vec![]));
        }
    }

    #[test]
    fn a_masked_error_is_seen_but_not_told() {
        let mut ras = Ras::new();
        assert!(!ras.log(ProtocolError::Correctable(CorrectableError::MemDataEcc)));
        assert!(!ras.log(uncorrectable(UncorrectableError::MemDataEcc, 7)));
        assert_eq!(ras.read(CORRECTABLE_STATUS), 0b10);
        assert_eq!(ras.read(UNCORRECTABLE_STATUS), 1 << 7);
        assert_eq!([ras.read(CONTROL), ras.read(HEADER_LOG)], [0, 0]);
    }

    #[test]
    fn the_first_error_keeps_the_header_log_until_it_is_cleared() {
        let mut ras = unmasked();
        ras.log(uncorrectable(UncorrectableError::MemDataParity, 1));
        ras.log(uncorrectable(UncorrectableError::Internal, 2));
        assert_eq!([ras.read(CONTROL), ras.read(HEADER_LOG)], [4, 1]);
        ras.write(UNCORRECTABLE_STATUS, 1 << 4);
        assert_eq!(ras.read(UNCORRECTABLE_STATUS), 1 << 14);
        ras.log(uncorrectable(UncorrectableError::MemDataEcc, 3));
        assert_eq!([ras.read(CONTROL), ras.read(HEADER_LOG)], [7, 3]);
    }

    #[test]
    fn what_was_logged_outlives_a_reset() {
        let mut ras = unmasked();
        ras.log(uncorrectable(UncorrectableError::MemDataEcc, 3));
        ras.log(ProtocolError::Correctable(CorrectableError::Physical));
        ras.reset();
        let logged = [
            UNCORRECTABLE_STATUS,
            CORRECTABLE_STATUS,
            CONTROL,
            HEADER_LOG,
        ];
        assert_eq!(logged.map(|at| ras.read(at)), [1 << 7, 1 << 6, 7, 3]);
        assert_eq!(ras.read(CORRECTABLE_MASK), CORRECTABLE, "masks are not");
    }
}
