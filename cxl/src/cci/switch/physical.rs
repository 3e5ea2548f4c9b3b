//! Physical Switch command set (section 7.6.7.1), opcodes 0x5100 to 0x5103.

use super::{Action, Attached, Binding, Port, PortControl, Switch};
use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};

/// Bytes of a bit for each port, or each virtual switch, there can be.
const BITMASK_LEN: usize = 32;

/// Identify Switch Device (section 7.6.7.1.1).
pub(super) struct IdentifySwitchDevice;

pub(super) struct SwitchIdentity {
    ingress: u8,
    ports: Vec<u8>,
    vppbs: u16,
    bound: u16,
    decoders: u8,
}

fn bitmask(bits: &[u8]) -> [u8; BITMASK_LEN] {
    let mut mask = [0; BITMASK_LEN];
    for bit in bits {
        mask[usize::from(bit / 8)] |= 1 << (bit % 8);
    }
    mask
}

impl Reply for SwitchIdentity {
    fn encode(&self, output: &mut Vec<u8>) {
        let virtual_switches = [super::virtual_switch::VCS_ID];
        output.extend([self.ingress, 0, self.ports.len() as u8]);
        output.push(virtual_switches.len() as u8);
        output.extend(bitmask(&self.ports));
        output.extend(bitmask(&virtual_switches));
        output.extend(self.vppbs.to_le_bytes());
        output.extend(self.bound.to_le_bytes());
        output.push(self.decoders);
    }
}

impl Command<Switch> for IdentifySwitchDevice {
    const OPCODE: u16 = 0x5100;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = SwitchIdentity;

    fn run(switch: &mut Switch, _: (), _: &mut Vec<Effect>) -> Result<SwitchIdentity, ReturnCode> {
        Ok(SwitchIdentity {
            ingress: switch.config.upstream,
            ports: switch.ports.iter().map(|port| port.id).collect(),
            vppbs: switch.downstream().count() as u16,
            bound: switch.downstream().filter(is_bound).count() as u16,
            decoders: switch.config.decoders,
        })
    }
}

/// Its bridge is bound to it, if not for long any more.
fn is_bound(port: &&Port) -> bool {
    matches!(port.binding, Binding::Bound | Binding::Unbinding)
}

/// Get Physical Port State (section 7.6.7.1.2).
pub(super) struct GetPhysicalPortState;

pub(super) struct PortList(Vec<u8>);

impl Request for PortList {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let count = input.u8()?;
        let ports = (0..count).map(|_| input.u8());
        Some(Self(ports.collect::<Option<_>>()?))
    }
}

pub(super) struct PortStates(Vec<(u8, Option<Port>)>);

impl PortStates {
    const HEADER_LEN: usize = 4;
    const BLOCK_LEN: usize = 16;
}

/// What a port is used for.
const BINDING: u8 = 1;
const UNBINDING: u8 = 2;
const DOWNSTREAM: u8 = 3;
const UPSTREAM: u8 = 4;
const INVALID_PORT: u8 = 0xf;

fn device_type(attached: Attached) -> u8 {
    match attached {
        Attached::Nothing => 0,
        Attached::Type2 | Attached::Switch => 3,
        Attached::SingleLogicalDevice => 4,
        Attached::LogicalDevices { .. } => 5,
    }
}

pub(super) fn encode_port(port: &Port, output: &mut Vec<u8>) {
    /// As a mode, and as the bit of it: flits of 68 bytes, and virtual hierarchies.
    const MODE_68B_VH: u8 = 2;
    const SUPPORTS_68B_VH: u8 = 1 << 1;
    let mode = match port.link.width {
        0 => 0,
        _ => MODE_68B_VH,
    };
    let state = match (port.attached, port.binding) {
        (None, _) => UPSTREAM,
        (_, Binding::BeingBound) => BINDING,
        (_, Binding::Unbinding) => UNBINDING,
        _ => DOWNSTREAM,
    };
    output.extend([port.id, state, mode, 0]);
    output.extend([port.attached.map_or(0, device_type), SUPPORTS_68B_VH]);
    port.link.encode(output);
    output.extend(u16::from(port.link.flags()).to_le_bytes());
    // Besides the one that every port can have.
    let (logical_devices, _) = port.logical_devices().unwrap_or((1, 0));
    output.push(logical_devices.saturating_sub(1));
}

impl Reply for PortStates {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.0.len() as u8, 0, 0, 0]);
        for (id, port) in &self.0 {
            match port {
                Some(port) => encode_port(port, output),
                None => {
                    let mut block = [0; Self::BLOCK_LEN];
                    block[..2].copy_from_slice(&[*id, INVALID_PORT]);
                    output.extend(block);
                }
            }
        }
    }
}

impl Command<Switch> for GetPhysicalPortState {
    const OPCODE: u16 = 0x5101;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = PortList;
    type Reply = PortStates;

    fn run(
        switch: &mut Switch,
        PortList(ports): PortList,
        _: &mut Vec<Effect>,
    ) -> Result<PortStates, ReturnCode> {
        let len = PortStates::HEADER_LEN + PortStates::BLOCK_LEN * ports.len();
        if len > PAYLOAD_SIZE {
            return Err(ReturnCode::InvalidInput);
        }
        let state = |id| (id, switch.port(id).copied());
        Ok(PortStates(ports.into_iter().map(state).collect()))
    }
}

/// Physical Port Control (section 7.6.7.1.3).
pub(super) struct PhysicalPortControl;

pub(super) struct ControlRequest {
    port: u8,
    control: u8,
}

impl Request for ControlRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [port, control] = input.array()?;
        Some(Self { port, control })
    }
}

impl Command<Switch> for PhysicalPortControl {
    const OPCODE: u16 = 0x5102;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    type Request = ControlRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        request: ControlRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let port = switch.downstream_port(request.port)?;
        let control = match (request.control, port.link.in_reset) {
            (0, false) => PortControl::AssertPerst,
            (1, true) => PortControl::DeassertPerst,
            (2, _) => PortControl::Reset,
            // Nothing else is defined, and a signal is not asserted twice.
            _ => return Err(ReturnCode::InvalidInput),
        };
        let port = request.port;
        switch.ask_for(Action::Control { port, control });
        Ok(())
    }
}

/// A register and what to do to it.
#[derive(Clone, Copy)]
pub(super) struct RegisterAccess {
    register: u16,
    enables: u8,
    writes: bool,
}

impl RegisterAccess {
    /// Bits 7:0 register number, 11:8 extended register number, 15:12 first dword byte enables, 23 write.
    pub(super) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [register, extended, kind]: [u8; 3] = input.array()?;
        Some(Self {
            register: u16::from_le_bytes([register, extended & 0xf]),
            enables: extended >> 4,
            writes: kind & 0x80 != 0,
        })
    }

    /// The action on a port, or on what is behind it. A register number names a dword.
    pub(super) fn action(self, port: u8, behind: bool, data: u32) -> Result<Action, ReturnCode> {
        if !self.register.is_multiple_of(4) {
            return Err(ReturnCode::InvalidInput);
        }
        Ok(Action::Configuration {
            port,
            behind,
            register: self.register,
            enables: self.enables,
            data: self.writes.then_some(data),
        })
    }
}

/// Send PPB CXL.io Configuration Request (section 7.6.7.1.4), to the port of a device with several logical devices. A port that
/// is bound as a whole is its host's, and so are the registers of one that is not bound: those of its bridge.
pub(super) struct SendPpbConfiguration;

pub(super) struct PpbRequest {
    port: u8,
    access: RegisterAccess,
    data: u32,
}

impl Request for PpbRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            port: input.u8()?,
            access: RegisterAccess::decode(input)?,
            data: input.u32()?,
        })
    }
}

impl Command<Switch> for SendPpbConfiguration {
    const OPCODE: u16 = 0x5103;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    type Request = PpbRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        PpbRequest { port, access, data }: PpbRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let has_logical_devices = switch.downstream_port(port)?.logical_devices().is_some();
        if !has_logical_devices {
            return Err(ReturnCode::InvalidInput);
        }
        switch.ask_for(access.action(port, false, data)?);
        Ok(())
    }
}
