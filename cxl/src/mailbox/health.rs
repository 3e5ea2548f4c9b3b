//! Health and shutdown state (section 8.2.9.9.3), opcodes 0x4200, 0x4203 and 0x4204.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::health::HealthInfo;

/// Get Health Info (section 8.2.9.9.3.1).
pub(super) struct GetHealthInfo;

impl Reply for HealthInfo {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.bytes());
    }
}

impl Command for GetHealthInfo {
    const OPCODE: u16 = 0x4200;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = HealthInfo;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<HealthInfo, ReturnCode> {
        Ok(memdev.health())
    }
}

/// Get Shutdown State (section 8.2.9.9.3.4).
pub(super) struct GetShutdownState;

/// Bit 0: dirty.
pub(super) struct ShutdownState(u8);

impl ShutdownState {
    const DIRTY: u8 = 1;
}

impl Reply for ShutdownState {
    fn encode(&self, output: &mut Vec<u8>) {
        output.push(self.0);
    }
}

impl Request for ShutdownState {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.u8()?))
    }
}

impl Command for GetShutdownState {
    const OPCODE: u16 = 0x4203;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = ShutdownState;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<ShutdownState, ReturnCode> {
        Ok(ShutdownState(u8::from(memdev.shutdown_dirty())))
    }
}

/// Set Shutdown State (section 8.2.9.9.3.5).
pub(super) struct SetShutdownState;

impl Command for SetShutdownState {
    const OPCODE: u16 = 0x4204;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = ShutdownState;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        ShutdownState(state): ShutdownState,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.set_shutdown_dirty(state & ShutdownState::DIRTY != 0, effects);
        Ok(())
    }
}
