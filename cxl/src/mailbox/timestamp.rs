//! Timestamp (section 8.2.9.4), opcodes 0x0300 and 0x0301.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::Effect;

/// A component with a clock that the host sets.
pub(crate) trait Timed {
    /// ns since 1970 as the host set it, or 0 if it has not.
    fn timestamp(&self) -> u64;
    /// Sets it.
    fn set_timestamp(&mut self, timestamp: u64);
}

/// Get Timestamp (section 8.2.9.4.1).
pub(crate) struct GetTimestamp;

/// ns since 1970.
pub(crate) struct Timestamp(u64);

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

impl<D: Timed> Command<D> for GetTimestamp {
    const OPCODE: u16 = 0x0300;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Timestamp;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<Timestamp, ReturnCode> {
        Ok(Timestamp(device.timestamp()))
    }
}

/// Set Timestamp (section 8.2.9.4.2).
pub(crate) struct SetTimestamp;

impl<D: Timed> Command<D> for SetTimestamp {
    const OPCODE: u16 = 0x0301;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = Timestamp;
    type Reply = ();

    fn run(
        device: &mut D,
        Timestamp(timestamp): Timestamp,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        device.set_timestamp(timestamp);
        Ok(())
    }
}
