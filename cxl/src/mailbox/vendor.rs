//! The vendor range, opcodes 0xC000 to 0xFFFF: a table that each device model brings along, and the commands of our own
//! devices, with which a driver's developer gets at what a healthy device does not do by itself.

use super::{Command, CommandEffects, Entry, Input, Request, ReturnCode};
use crate::Effect;
use crate::event::{Event, EventFlags, EventKind, Severity};
use crate::memdev::Memdev;

/// First opcode of the range.
pub const FIRST_OPCODE: u16 = 0xc000;

/// The vendor commands of our memory expanders.
pub static EXPANDER: [Entry; 2] = [Entry::of::<FailNext>(), Entry::of::<LogEvent>()];

/// The next command, whichever it is, returns this code and does nothing.
pub struct FailNext;

/// The code.
pub struct FailRequest(u16);

impl Request for FailRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.u16()?))
    }
}

impl Command for FailNext {
    const OPCODE: u16 = 0xc000;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = FailRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        FailRequest(code): FailRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let code = ReturnCode::error(code).ok_or(ReturnCode::InvalidInput)?;
        memdev.fail_next(code);
        Ok(())
    }
}

/// Logs an event record of the host's making.
pub struct LogEvent;

/// Log, reserved (7), UUID and data of the record.
pub struct LogEventRequest {
    log: u8,
    uuid: [u8; 16],
    data: [u8; EventKind::DATA_LEN],
}

impl Request for LogEventRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [log, _reserved @ ..]: [u8; 8] = input.array()?;
        Some(Self {
            log,
            uuid: input.array()?,
            data: input.array()?,
        })
    }
}

impl Command for LogEvent {
    const OPCODE: u16 = 0xc001;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_LOG;
    type Request = LogEventRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        LogEventRequest { log, uuid, data }: LogEventRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let event = Event {
            severity: Severity::from_log(log).ok_or(ReturnCode::InvalidInput)?,
            flags: EventFlags::default(),
            related: 0,
            maintenance_class: 0,
            kind: EventKind::Raw { uuid, data },
        };
        memdev.log_event(&event, effects);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench};
    use super::*;
    use crate::Error;

    fn with_vendor_commands() -> Bench {
        let mut bench = bench();
        bench.memdev.add_vendor_commands(&EXPANDER).unwrap();
        bench
    }

    #[test]
    fn every_error_of_the_table_can_be_had() {
        let mut bench = with_vendor_commands();
        for code in 2..=0x1e_u16 {
            bench.run(0xc000, &code.to_le_bytes()).unwrap();
            let error = bench.run(0x4000, &[]).unwrap_err();
            assert_eq!(error as u16, code);
            assert!(bench.run(0x4000, &[]).is_ok(), "once");
        }
        for code in [0, 1, 0x1f, 0xffff_u16] {
            let result = bench.run(0xc000, &code.to_le_bytes());
            assert_eq!(result, Err(ReturnCode::InvalidInput));
        }
    }

    #[test]
    fn a_record_of_any_type_can_be_logged() {
        let mut bench = with_vendor_commands();
        let record = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &[0xab; 16], &[0xcd; 80]].concat();
        assert_eq!(bench.run(0xc001, &record), Ok(vec![]));
        let records = bench.run(0x0100, &[3]).unwrap();
        assert_eq!(records[0x20..0x30], [0xab; 16]);
        assert_eq!(records[0x20 + 48..], [0xcd; 80]);
        let no_log = [&[4][..], &record[1..]].concat();
        assert_eq!(bench.run(0xc001, &no_log), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn a_device_without_the_table_has_no_vendor_commands() {
        let mut bench = bench();
        assert_eq!(bench.run(0xc000, &[4, 0]), Err(ReturnCode::Unsupported));
    }

    #[test]
    fn vendor_commands_are_in_the_command_effects_log() {
        let mut bench = with_vendor_commands();
        let size = |bench: &mut Bench| bench.run(0x0400, &[]).unwrap()[24];
        let with = size(&mut bench);
        assert_eq!(size(&mut super::super::tests::bench()) + 2 * 4, with);
    }

    #[test]
    fn a_vendor_command_with_a_standard_opcode_is_refused() {
        static WRONG: [Entry; 1] = [Entry::of::<super::super::identify::Identify>()];
        let result = bench().memdev.add_vendor_commands(&WRONG);
        assert_eq!(result, Err(Error::VendorOpcode(0x4000)));
    }
}
