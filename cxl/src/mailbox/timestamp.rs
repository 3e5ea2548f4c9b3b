//! Timestamp (section 8.2.9.4), opcodes 0x0300 and 0x0301.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;

/// Get Timestamp (section 8.2.9.4.1).
pub(super) struct GetTimestamp;

/// ns since 1970.
pub(super) struct Timestamp(u64);

impl Reply for Timestamp {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.0.to_le_bytes());
    }
}

impl Request for Timestamp {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.u64()?))
    }
}

impl Command for GetTimestamp {
    const OPCODE: u16 = 0x0300;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Timestamp;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Timestamp, ReturnCode> {
        Ok(Timestamp(memdev.timestamp()))
    }
}

/// Set Timestamp (section 8.2.9.4.2).
pub(super) struct SetTimestamp;

impl Command for SetTimestamp {
    const OPCODE: u16 = 0x0301;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = Timestamp;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        Timestamp(timestamp): Timestamp,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.set_timestamp(timestamp);
        Ok(())
    }
}
