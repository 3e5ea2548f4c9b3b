//! Advanced Error Reporting (6.2, 7.8.4).

use crate::Bdf;
use crate::config::{ConfigSpace, Retention};
use crate::express::{DEVICE_CONTROL, DEVICE_STATUS, DevicePortType};
use crate::spec::{capability, command, extended, header};
use crate::structure::Structure;

/// Bytes of the capability without and with the registers of a root port (7.8.4).
const LENGTH: u16 = 0x2c;
const ROOT_LENGTH: u16 = 0x38;

/// 32 bits each, a bit an error: RW1C, RW, RW (7.8.4.2 to 7.8.4.4).
const UNCORRECTABLE_STATUS: u16 = 0x04;
const UNCORRECTABLE_MASK: u16 = 0x08;
const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
/// 32 bits each, a bit an error: RW1C, RW (7.8.4.5, 7.8.4.6).
const CORRECTABLE_STATUS: u16 = 0x10;
const CORRECTABLE_MASK: u16 = 0x14;
/// 32 bits: first error pointer in 4:0, ECRC generation and check (7.8.4.7).
const CONTROL: u16 = 0x18;
const FIRST_ERROR_MASK: u32 = 0x1f;
const ECRC_CAPABLE: u32 = 1 << 5 | 1 << 7;
const ECRC_ENABLE: u32 = 1 << 6 | 1 << 8;
/// Four dwords of the header of the packet that failed (7.8.4.8).
const HEADER_LOG: u16 = 0x1c;
/// 32 bits: interrupt enables of the three severities (7.8.4.9).
const ROOT_COMMAND: u16 = 0x2c;
const ROOT_COMMAND_WRITABLE: u32 = 7;
/// 32 bits, RW1C; interrupt message number in 31:27 (7.8.4.10).
const ROOT_STATUS: u16 = 0x30;
const ROOT_CORRECTABLE: u32 = 1 << 0;
const ROOT_CORRECTABLE_MULTIPLE: u32 = 1 << 1;
const ROOT_UNCORRECTABLE: u32 = 1 << 2;
const ROOT_UNCORRECTABLE_MULTIPLE: u32 = 1 << 3;
const ROOT_FIRST_FATAL: u32 = 1 << 4;
const ROOT_NON_FATAL: u32 = 1 << 5;
const ROOT_FATAL: u32 = 1 << 6;
const ROOT_STATUS_BITS: u32 = 0x7f;
const INTERRUPT_SHIFT: u32 = 27;
/// 16 bits each: requester of the first correctable and of the first uncorrectable error (7.8.4.11).
const SOURCE_CORRECTABLE: u16 = 0x34;
const SOURCE_UNCORRECTABLE: u16 = 0x36;

/// Errors that are the same as if they had not been; the value is the bit (7.8.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CorrectableError {
    Receiver = 0,
    BadTlp = 6,
    BadDllp = 7,
    ReplayRollover = 8,
    ReplayTimeout = 12,
    AdvisoryNonFatal = 13,
    /// What CXL.cachemem reports correctable protocol errors as.
    Internal = 14,
}

impl CorrectableError {
    const ALL: [Self; 7] = [
        Self::Receiver,
        Self::BadTlp,
        Self::BadDllp,
        Self::ReplayRollover,
        Self::ReplayTimeout,
        Self::AdvisoryNonFatal,
        Self::Internal,
    ];
    const BITS: u32 = 1 << 0 | 7 << 6 | 7 << 12;
    /// Masked until software knows of them: advisory and internal (7.8.4.6).
    const MASK_RESET: u32 = 3 << 13;
}

/// Errors that lose something; the value is the bit (7.8.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UncorrectableError {
    DataLinkProtocol = 4,
    PoisonedTlp = 12,
    FlowControl = 13,
    CompletionTimeout = 14,
    CompleterAbort = 15,
    UnexpectedCompletion = 16,
    ReceiverOverflow = 17,
    MalformedTlp = 18,
    Ecrc = 19,
    UnsupportedRequest = 20,
    AcsViolation = 21,
    /// What CXL.cachemem reports uncorrectable protocol errors as.
    Internal = 22,
}

impl UncorrectableError {
    const ALL: [Self; 12] = [
        Self::DataLinkProtocol,
        Self::PoisonedTlp,
        Self::FlowControl,
        Self::CompletionTimeout,
        Self::CompleterAbort,
        Self::UnexpectedCompletion,
        Self::ReceiverOverflow,
        Self::MalformedTlp,
        Self::Ecrc,
        Self::UnsupportedRequest,
        Self::AcsViolation,
        Self::Internal,
    ];
    const BITS: u32 = 1 << 4 | 0x7ff << 12;
    /// Masked until software knows of it: internal (7.8.4.3).
    const MASK_RESET: u32 = 1 << 22;
    /// Fatal at reset: data link, flow control, overflow, malformed, internal (7.8.4.4).
    const SEVERITY_RESET: u32 = 1 << 4 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 22;
}

/// An error that a function has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AerError {
    Correctable(CorrectableError),
    Uncorrectable {
        error: UncorrectableError,
        /// Header of the packet at fault, zeros if there was none.
        header: [u32; 4],
    },
}

impl AerError {
    /// The uncorrectable error with this bit and header, or the correctable one with this bit; `None` if there is none.
    pub fn of_bit(uncorrectable: bool, bit: u8, header: [u32; 4]) -> Option<Self> {
        if uncorrectable {
            let mut all = UncorrectableError::ALL.into_iter();
            let error = all.find(|error| *error as u8 == bit)?;
            return Some(Self::Uncorrectable { error, header });
        }
        let mut all = CorrectableError::ALL.into_iter();
        all.find(|error| *error as u8 == bit).map(Self::Correctable)
    }
}

/// The message that a function sends to its root port (2.2.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMessage {
    Correctable,
    NonFatal,
    Fatal,
}

impl ErrorMessage {
    /// The bit that belongs to it in device control, device status and root error command alike.
    const fn bit(self) -> u16 {
        match self {
            Self::Correctable => 1 << 0,
            Self::NonFatal => 1 << 1,
            Self::Fatal => 1 << 2,
        }
    }
}

/// The Advanced Error Reporting capability of one function. All its state is in configuration space.
#[derive(Clone, Copy, Debug)]
pub struct Aer {
    offset: u16,
}

impl Aer {
    /// Adds the capability. A root port gets the root error registers, with `interrupt` (0 to 31) as the message number.
    pub fn new(config: &mut ConfigSpace, port_type: DevicePortType, interrupt: u8) -> Self {
        let is_root = port_type == DevicePortType::RootPort;
        let mut registers = Structure::new(if is_root { ROOT_LENGTH } else { LENGTH });
        let uncorrectable = UncorrectableError::BITS;
        let correctable = CorrectableError::BITS;
        registers
            .u32(UNCORRECTABLE_STATUS, 0, 0, uncorrectable)
            .u32(
                UNCORRECTABLE_MASK,
                UncorrectableError::MASK_RESET,
                uncorrectable,
                0,
            )
            .u32(
                UNCORRECTABLE_SEVERITY,
                UncorrectableError::SEVERITY_RESET,
                uncorrectable,
                0,
            )
            .u32(CORRECTABLE_STATUS, 0, 0, correctable)
            .u32(
                CORRECTABLE_MASK,
                CorrectableError::MASK_RESET,
                correctable,
                0,
            )
            .u32(CONTROL, ECRC_CAPABLE, ECRC_ENABLE, 0);
        if is_root {
            let message = u32::from(interrupt & 0x1f) << INTERRUPT_SHIFT;
            registers
                .u32(ROOT_COMMAND, 0, ROOT_COMMAND_WRITABLE, 0)
                .u32(ROOT_STATUS, message, 0, ROOT_STATUS_BITS);
        }
        let offset = registers.add_extended_to(config, extended::AER, 2);
        config.retain(
            offset + UNCORRECTABLE_STATUS,
            LENGTH - UNCORRECTABLE_STATUS,
            Retention::Sticky,
        );
        if is_root {
            config.retain(
                offset + ROOT_STATUS,
                ROOT_LENGTH - ROOT_STATUS,
                Retention::Sticky,
            );
        }
        Self { offset }
    }

    /// Logs an error and gives the message to send to the root port, if software wants one (6.2.5).
    pub fn report(&self, config: &mut ConfigSpace, error: AerError) -> Option<ErrorMessage> {
        let (status, mask, bit) = match error {
            AerError::Correctable(error) => {
                (CORRECTABLE_STATUS, CORRECTABLE_MASK, 1u32 << error as u8)
            }
            AerError::Uncorrectable { error, .. } => (
                UNCORRECTABLE_STATUS,
                UNCORRECTABLE_MASK,
                1u32 << error as u8,
            ),
        };
        let message = match error {
            AerError::Correctable(_) => ErrorMessage::Correctable,
            _ if config.u32(self.offset + UNCORRECTABLE_SEVERITY) & bit != 0 => ErrorMessage::Fatal,
            _ => ErrorMessage::NonFatal,
        };
        let masked = config.u32(self.offset + mask) & bit != 0;
        if let AerError::Uncorrectable { error, header } = error
            && !masked
        {
            self.log_first(config, error, header);
        }
        config.set_u32(self.offset + status, config.u32(self.offset + status) | bit);

        let express = config.find_capability(capability::PCI_EXPRESS)?;
        let detected = config.u16(express + DEVICE_STATUS) | message.bit();
        config.set_u16(express + DEVICE_STATUS, detected);
        // SERR# Enable stands for both uncorrectable enables (6.2.6).
        let serr = config.u16(header::COMMAND) & command::SERR_ENABLE != 0;
        let enabled = config.u16(express + DEVICE_CONTROL) & message.bit() != 0
            || serr && message != ErrorMessage::Correctable;
        (enabled && !masked).then_some(message)
    }

    /// Points at an error and keeps its header, unless the one pointed at has not been cleared yet (6.2.4.2).
    fn log_first(&self, config: &mut ConfigSpace, error: UncorrectableError, header: [u32; 4]) {
        let control = config.u32(self.offset + CONTROL);
        let first = control & FIRST_ERROR_MASK;
        if config.u32(self.offset + UNCORRECTABLE_STATUS) >> first & 1 != 0 {
            return;
        }
        config.set_u32(
            self.offset + CONTROL,
            control & !FIRST_ERROR_MASK | u32::from(error as u8),
        );
        for (register, dword) in (self.offset + HEADER_LOG..).step_by(4).zip(header) {
            config.set_u32(register, dword);
        }
    }

    /// A root port takes a message from a function below or from itself. True if it is to send the interrupt that
    /// [`new`](Self::new) was given (6.2.6).
    pub fn receive(&self, config: &mut ConfigSpace, message: ErrorMessage, source: Bdf) -> bool {
        let mut status = config.u32(self.offset + ROOT_STATUS);
        let (first, multiple, register) = match message {
            ErrorMessage::Correctable => (
                ROOT_CORRECTABLE,
                ROOT_CORRECTABLE_MULTIPLE,
                SOURCE_CORRECTABLE,
            ),
            _ => (
                ROOT_UNCORRECTABLE,
                ROOT_UNCORRECTABLE_MULTIPLE,
                SOURCE_UNCORRECTABLE,
            ),
        };
        if status & first != 0 {
            status |= multiple;
        } else {
            status |= first;
            if message == ErrorMessage::Fatal {
                status |= ROOT_FIRST_FATAL;
            }
            config.set_u16(self.offset + register, source.bits());
        }
        status |= match message {
            ErrorMessage::Correctable => 0,
            ErrorMessage::NonFatal => ROOT_NON_FATAL,
            ErrorMessage::Fatal => ROOT_FATAL,
        };
        config.set_u32(self.offset + ROOT_STATUS, status);
        config.u16(self.offset + ROOT_COMMAND) & message.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::express::{ExpressConfig, PciExpress};
    use crate::testing::{LINK, ids, read_u32, rule, walk, write_u16, write_u32};
    use crate::{Effect, ResetKind};

    fn endpoint() -> (ConfigSpace, u16, Aer) {
        let mut config = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
        let express = PciExpress::new(&mut config, ExpressConfig::endpoint(LINK));
        let aer = Aer::new(&mut config, DevicePortType::Endpoint, 0);
        (config, express.offset(), aer)
    }

    fn root_port() -> (ConfigSpace, Aer) {
        let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        let aer = Aer::new(&mut config, DevicePortType::RootPort, 3);
        (config, aer)
    }

    const UNSUPPORTED: AerError = AerError::Uncorrectable {
        error: UncorrectableError::UnsupportedRequest,
        header: [1, 2, 3, 4],
    };

    #[test]
    fn every_bit_of_a_status_register_is_an_error() {
        let all = |uncorrectable, bits: u32| {
            for bit in 0..32 {
                let error = AerError::of_bit(uncorrectable, bit, [7; 4]);
                assert_eq!(error.is_some(), bits >> bit & 1 != 0, "{bit}");
                match error {
                    Some(AerError::Correctable(error)) => assert_eq!(error as u8, bit),
                    Some(AerError::Uncorrectable { error, .. }) => assert_eq!(error as u8, bit),
                    None => {}
                }
            }
        };
        all(true, UncorrectableError::BITS);
        all(false, CorrectableError::BITS);
    }

    #[test]
    fn registers_follow_their_access_rules() {
        let common = [
            rule("uncorrectable status", 0x04, 0, 0, 0x007f_f010),
            rule("uncorrectable mask", 0x08, 0x0040_0000, 0x007f_f010, 0),
            rule("uncorrectable severity", 0x0c, 0x0046_2010, 0x007f_f010, 0),
            rule("correctable status", 0x10, 0, 0, 0x0000_71c1),
            rule("correctable mask", 0x14, 0x6000, 0x0000_71c1, 0),
            rule("control", 0x18, 0xa0, 0x140, 0),
            rule("header log 0", 0x1c, 0, 0, 0),
            rule("header log 3", 0x28, 0, 0, 0),
        ];
        let (mut config, _, aer) = endpoint();
        walk(&mut config, aer.offset, &common);
        assert_eq!(read_u32(&config, aer.offset), 0x0002_0001);
        let (mut config, aer) = root_port();
        walk(&mut config, aer.offset, &common);
        walk(
            &mut config,
            aer.offset,
            &[
                rule("root error command", 0x2c, 0, 7, 0),
                rule("root error status", 0x30, 0x1800_0000, 0, 0x7f),
                rule("error sources", 0x34, 0, 0, 0),
            ],
        );
    }

    #[test]
    fn an_error_is_logged_and_reported_if_enabled() {
        let (mut config, express, aer) = endpoint();
        assert_eq!(
            aer.report(&mut config, UNSUPPORTED),
            None,
            "reporting is off at reset"
        );
        assert_eq!(
            read_u32(&config, aer.offset + UNCORRECTABLE_STATUS),
            1 << 20
        );
        assert_eq!(read_u32(&config, aer.offset + CONTROL) & 0x1f, 20);
        assert_eq!(read_u32(&config, aer.offset + HEADER_LOG + 12), 4);
        assert_eq!(config.u16(express + DEVICE_STATUS), 2);

        write_u16(&mut config, express + DEVICE_CONTROL, 0xf);
        assert_eq!(
            aer.report(&mut config, UNSUPPORTED),
            Some(ErrorMessage::NonFatal)
        );
        write_u32(&mut config, aer.offset + UNCORRECTABLE_SEVERITY, 1 << 20);
        assert_eq!(
            aer.report(&mut config, UNSUPPORTED),
            Some(ErrorMessage::Fatal)
        );
        let correctable = AerError::Correctable(CorrectableError::BadTlp);
        assert_eq!(
            aer.report(&mut config, correctable),
            Some(ErrorMessage::Correctable)
        );
        assert_eq!(read_u32(&config, aer.offset + CORRECTABLE_STATUS), 1 << 6);
        write_u16(&mut config, express + DEVICE_CONTROL, 0);
        write_u16(&mut config, header::COMMAND, command::SERR_ENABLE);
        assert_eq!(
            aer.report(&mut config, UNSUPPORTED),
            Some(ErrorMessage::Fatal),
            "SERR# will do"
        );
        assert_eq!(
            aer.report(&mut config, correctable),
            None,
            "but not for correctable errors"
        );
    }

    #[test]
    fn a_masked_error_is_seen_but_not_told() {
        let (mut config, express, aer) = endpoint();
        write_u16(&mut config, express + DEVICE_CONTROL, 0xf);
        let internal = AerError::Uncorrectable {
            error: UncorrectableError::Internal,
            header: [9; 4],
        };
        assert_eq!(aer.report(&mut config, internal), None);
        assert_eq!(
            read_u32(&config, aer.offset + UNCORRECTABLE_STATUS),
            1 << 22
        );
        assert_eq!(read_u32(&config, aer.offset + HEADER_LOG), 0);
        let advisory = AerError::Correctable(CorrectableError::AdvisoryNonFatal);
        assert_eq!(aer.report(&mut config, advisory), None);
    }

    #[test]
    fn the_first_error_keeps_the_header_log_until_cleared() {
        let (mut config, _, aer) = endpoint();
        let other = |header| AerError::Uncorrectable {
            error: UncorrectableError::CompleterAbort,
            header,
        };
        aer.report(&mut config, UNSUPPORTED);
        aer.report(&mut config, other([7; 4]));
        assert_eq!(read_u32(&config, aer.offset + HEADER_LOG), 1);
        write_u32(&mut config, aer.offset + UNCORRECTABLE_STATUS, 1 << 20);
        aer.report(&mut config, other([8; 4]));
        assert_eq!(read_u32(&config, aer.offset + HEADER_LOG), 8);
        assert_eq!(read_u32(&config, aer.offset + CONTROL) & 0x1f, 15);
    }

    #[test]
    fn a_log_survives_all_but_a_conventional_reset() {
        let (mut config, _, aer) = endpoint();
        aer.report(&mut config, UNSUPPORTED);
        for kind in [ResetKind::FunctionLevel, ResetKind::SecondaryBus] {
            config.reset(kind);
            assert_eq!(
                read_u32(&config, aer.offset + UNCORRECTABLE_STATUS),
                1 << 20,
                "{kind:?}"
            );
            assert_eq!(read_u32(&config, aer.offset + HEADER_LOG), 1, "{kind:?}");
        }
        config.reset(ResetKind::Conventional);
        assert_eq!(read_u32(&config, aer.offset + UNCORRECTABLE_STATUS), 0);
    }

    #[test]
    fn a_root_port_keeps_the_first_source_and_interrupts_if_enabled() {
        let (mut config, aer) = root_port();
        let (first, second) = (Bdf::new(0x21, 0, 0), Bdf::new(0x22, 0, 0));
        assert!(!aer.receive(&mut config, ErrorMessage::Fatal, first));
        let mut out: Vec<Effect> = Vec::new();
        config.write(aer.offset + ROOT_COMMAND, &[0x3], &mut out);
        assert!(aer.receive(&mut config, ErrorMessage::NonFatal, second));
        assert!(aer.receive(&mut config, ErrorMessage::Correctable, second));
        assert!(
            !aer.receive(&mut config, ErrorMessage::Fatal, second),
            "not enabled"
        );
        assert_eq!(read_u32(&config, aer.offset + ROOT_STATUS), 3 << 27 | 0x7d);
        assert_eq!(
            read_u32(&config, aer.offset + SOURCE_CORRECTABLE),
            0x2100_2200
        );
        aer.receive(&mut config, ErrorMessage::Correctable, first);
        assert_eq!(read_u32(&config, aer.offset + ROOT_STATUS), 3 << 27 | 0x7f);
        write_u32(&mut config, aer.offset + ROOT_STATUS, u32::MAX);
        assert_eq!(read_u32(&config, aer.offset + ROOT_STATUS), 3 << 27);
    }
}
