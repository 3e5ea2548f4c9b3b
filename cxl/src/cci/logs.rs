//! Logs command set (section 8.2.9.5) of an interface whose only log is that of its commands.

use std::marker::PhantomData;

use super::CommandSet;
use crate::Effect;
use crate::mailbox::logs::{Bytes, COMMAND_EFFECTS_LOG, GetLogRequest};
use crate::mailbox::{Command, CommandEffects, Reply, ReturnCode, effects_log};

/// Get Supported Logs (section 8.2.9.5.1) of an interface with the commands `S`.
pub(super) struct GetSupportedLogs<S>(PhantomData<S>);

/// The size of the Command Effects Log.
pub(super) struct SupportedLogs(u32);

impl Reply for SupportedLogs {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        output.extend(COMMAND_EFFECTS_LOG);
        output.extend(self.0.to_le_bytes());
    }
}

impl<D: 'static, S: CommandSet<D>> Command<D> for GetSupportedLogs<S> {
    const OPCODE: u16 = 0x0400;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = SupportedLogs;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<SupportedLogs, ReturnCode> {
        let log = effects_log(device, S::entries());
        Ok(SupportedLogs(log.len() as u32))
    }
}

/// Get Log (section 8.2.9.5.2).
pub(super) struct GetLog<S>(PhantomData<S>);

impl<D: 'static, S: CommandSet<D>> Command<D> for GetLog<S> {
    const OPCODE: u16 = 0x0401;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = GetLogRequest;
    type Reply = Bytes;

    fn run(
        device: &mut D,
        request: GetLogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Bytes, ReturnCode> {
        if request.uuid != COMMAND_EFFECTS_LOG {
            return Err(ReturnCode::InvalidLog);
        }
        let log = effects_log(device, S::entries());
        Bytes::of(&log, request.offset, request.len)
    }
}
