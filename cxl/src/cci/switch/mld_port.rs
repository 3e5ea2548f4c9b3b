//! MLD Port command set (section 7.6.7.3), opcodes 0x5300 and 0x5301.

use super::physical::RegisterAccess;
use super::{Action, Attached, Switch};
use crate::Effect;
use crate::cci::tunnel::{self, Target, TunnelRequest};
use crate::mailbox::{Command, CommandEffects, Input, Request, ReturnCode};

/// Tunnel Management Command (section 7.6.7.3.1). Besides the devices with several logical devices that the section is for, it
/// reaches every memory device behind a port, each at its own interface: there is no other way to that here.
pub(super) struct Tunnel;

impl Command<Switch> for Tunnel {
    const OPCODE: u16 = tunnel::OPCODE;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = TunnelRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        request: TunnelRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let (target, message) = request.open()?;
        let Target::Number(port) = target else {
            return Err(ReturnCode::InvalidInput);
        };
        let state = switch.downstream_port(port)?;
        match state.attached {
            Some(Attached::SingleLogicalDevice | Attached::LogicalDevices { .. }) => {}
            _ => return Err(ReturnCode::InvalidInput),
        }
        if state.link.width == 0 {
            // Whoever holds it in reset, or has switched it off, may let it go.
            return Err(ReturnCode::RetryRequired);
        }
        let message = message.to_bytes();
        switch.ask_for(Action::Tunnel { port, message });
        Ok(())
    }
}

/// Send LD CXL.io Configuration Request (section 7.6.7.3.2), to the logical device that the host has.
pub(super) struct SendLdConfiguration;

pub(super) struct LdRequest {
    port: u8,
    access: RegisterAccess,
    ld: u16,
    data: u32,
}

impl Request for LdRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let port = input.u8()?;
        let access = RegisterAccess::decode(input)?;
        let ld = input.u16()?;
        let _reserved = input.u16()?;
        Some(Self {
            port,
            access,
            ld,
            data: input.u32()?,
        })
    }
}

impl Command<Switch> for SendLdConfiguration {
    const OPCODE: u16 = 0x5301;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    type Request = LdRequest;
    type Reply = ();

    fn run(switch: &mut Switch, request: LdRequest, _: &mut Vec<Effect>) -> Result<(), ReturnCode> {
        let LdRequest {
            port,
            access,
            ld,
            data,
        } = request;
        let state = switch.downstream_port(port)?;
        let own = state.logical_devices().map(|(_, own)| u16::from(own));
        if own != Some(ld) {
            return Err(ReturnCode::InvalidInput);
        }
        if state.link.width == 0 {
            return Err(ReturnCode::RetryRequired);
        }
        switch.ask_for(access.action(port, true, data)?);
        Ok(())
    }
}
