//! Virtual Switch command set (section 7.6.7.2), opcodes 0x5200 to 0x5203. There is one virtual switch, the host's, whose virtual
//! bridge `n` is wired to physical port `n`: bound to it, as from power-on, it is the port that the host sees; unbound it is one
//! with nothing behind it. What is behind an unbound port keeps its power, and answers the fabric manager.
//!
//! The host is told as of a card that comes and goes: a port is bound by a Managed Hot-Add (sections 7.6.6.5 and 9.9), whose
//! button is pressed for a slot that is off, and unbound as the option of the command says.
//!
//! When a port has been bound or unbound the informational event log says so, and Background Operation Status with the interrupt
//! at the end of a background operation.

use super::{Action, Binding, Port, Switch, UnbindOption};
use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Input, Reply, Request, ReturnCode};

/// The number of the only virtual switch.
pub(super) const VCS_ID: u8 = 0;

/// Get Virtual CXL Switch Info (section 7.6.7.2.1).
pub(super) struct GetVirtualSwitchInfo;

pub(super) struct InfoRequest {
    start: u8,
    limit: u8,
    switches: Vec<u8>,
}

impl Request for InfoRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [start, limit, count] = input.array()?;
        let switches = (0..count).map(|_| input.u8()).collect::<Option<_>>()?;
        Some(Self {
            start,
            limit,
            switches,
        })
    }
}

/// A virtual switch with some of its virtual bridges.
struct Info {
    upstream: u8,
    vppbs: u8,
    list: Vec<Port>,
}

/// How a bridge is bound (table 7-34): its status, and port and logical device where it is.
pub(super) fn encode_binding(port: &Port) -> [u8; 3] {
    const UNBOUND: u8 = 0;
    const IN_PROGRESS: u8 = 1;
    const BOUND_PORT: u8 = 2;
    const BOUND_LD: u8 = 3;
    const NO_LD: u8 = 0xff;
    match (port.binding, port.logical_devices()) {
        (Binding::Unbound, _) => [UNBOUND, 0, NO_LD],
        (Binding::BeingBound | Binding::Unbinding, _) => [IN_PROGRESS, 0, NO_LD],
        (Binding::Bound, Some((_, own))) => [BOUND_LD, port.id, own],
        (Binding::Bound, None) => [BOUND_PORT, port.id, NO_LD],
    }
}

impl Info {
    fn encode(&self, output: &mut Vec<u8>) {
        const ENABLED: u8 = 1;
        output.extend([VCS_ID, ENABLED, self.upstream, self.vppbs]);
        for port in &self.list {
            output.extend(encode_binding(port));
            output.push(0);
        }
    }
}

pub(super) struct InfoList(Vec<Info>);

impl Reply for InfoList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.0.len() as u8, 0, 0, 0]);
        for info in &self.0 {
            info.encode(output);
        }
    }
}

impl Command<Switch> for GetVirtualSwitchInfo {
    const OPCODE: u16 = 0x5200;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = InfoRequest;
    type Reply = InfoList;

    fn run(
        switch: &mut Switch,
        request: InfoRequest,
        _: &mut Vec<Effect>,
    ) -> Result<InfoList, ReturnCode> {
        let InfoRequest {
            start,
            limit,
            switches,
        } = request;
        // Each is asked for once.
        if limit == 0 || switches != [VCS_ID] {
            return Err(ReturnCode::InvalidInput);
        }
        let list = switch.downstream().copied();
        let info = Info {
            upstream: switch.config.upstream,
            vppbs: switch.downstream().count() as u8,
            list: list.skip(start.into()).take(limit.into()).collect(),
        };
        Ok(InfoList(vec![info]))
    }
}

/// The port that a bridge of a virtual switch is wired to.
fn wired_to(switch: &Switch, vcs: u8, bridge: u8) -> Result<Port, ReturnCode> {
    if vcs != VCS_ID {
        return Err(ReturnCode::InvalidInput);
    }
    let port = switch.downstream().nth(bridge.into());
    port.copied().ok_or(ReturnCode::InvalidInput)
}

/// Bind vPPB (section 7.6.7.2.2).
pub(super) struct BindVppb;

pub(super) struct BindRequest {
    vcs: u8,
    bridge: u8,
    port: u8,
    ld: u16,
}

impl Request for BindRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [vcs, bridge, port, _reserved] = input.array()?;
        Some(Self {
            vcs,
            bridge,
            port,
            ld: input.u16()?,
        })
    }
}

impl Command<Switch> for BindVppb {
    const OPCODE: u16 = 0x5201;
    const EFFECTS: CommandEffects = CommandEffects::BACKGROUND;
    type Request = BindRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        request: BindRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        /// What is behind the port is bound as a whole.
        const NO_LD: u16 = 0xffff;
        let port = wired_to(switch, request.vcs, request.bridge)?;
        let ld = port
            .logical_devices()
            .map_or(NO_LD, |(_, own)| u16::from(own));
        if (request.port, request.ld) != (port.id, ld) || port.binding == Binding::Bound {
            return Err(ReturnCode::InvalidInput);
        }
        if switch.is_changing() {
            return Err(ReturnCode::Busy);
        }
        switch.ask_for(Action::Bind { port: port.id });
        Ok(())
    }
}

/// Unbind vPPB (section 7.6.7.2.3).
pub(super) struct UnbindVppb;

pub(super) struct UnbindRequest {
    vcs: u8,
    bridge: u8,
    option: u8,
}

impl Request for UnbindRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [vcs, bridge, option] = input.array()?;
        Some(Self {
            vcs,
            bridge,
            option: option & 0xf,
        })
    }
}

impl Command<Switch> for UnbindVppb {
    const OPCODE: u16 = 0x5202;
    const EFFECTS: CommandEffects = CommandEffects::BACKGROUND;
    type Request = UnbindRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        request: UnbindRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let option = match request.option {
            0 => UnbindOption::LinkDown,
            1 => UnbindOption::ManagedHotRemove,
            2 => UnbindOption::SurpriseHotRemove,
            _ => return Err(ReturnCode::InvalidInput),
        };
        let port = wired_to(switch, request.vcs, request.bridge)?;
        match port.binding {
            Binding::Unbound => return Err(ReturnCode::InvalidInput),
            // Who has waited long enough for a host may go on without it (section 7.6.6.7).
            Binding::BeingBound | Binding::Unbinding
                if option == UnbindOption::SurpriseHotRemove => {}
            _ if switch.is_changing() => return Err(ReturnCode::Busy),
            Binding::Bound | Binding::BeingBound | Binding::Unbinding => {}
        }
        let port = port.id;
        switch.ask_for(Action::Unbind { port, option });
        Ok(())
    }
}

/// Generate AER Event (section 7.6.7.2.4): a virtual bridge meets an error that is not its own.
pub(super) struct GenerateAerEvent;

pub(super) struct AerEventRequest {
    vcs: u8,
    bridge: u8,
    error: u32,
    header: [u32; 4],
}

impl AerEventRequest {
    /// The error: its bit in a status register, and which of the two registers.
    const BIT: u32 = 0x1f;
    const UNCORRECTABLE: u32 = 1 << 31;
    /// Dwords of the header that the log of a port has no room for.
    const MORE_HEADER: usize = 4;
}

impl Request for AerEventRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [vcs, bridge, _, _] = input.array()?;
        let error = input.u32()?;
        let mut header = [0; 4];
        for dword in &mut header {
            *dword = input.u32()?;
        }
        for _ in 0..Self::MORE_HEADER {
            input.u32()?;
        }
        Some(Self {
            vcs,
            bridge,
            error,
            header,
        })
    }
}

impl Command<Switch> for GenerateAerEvent {
    const OPCODE: u16 = 0x5203;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = AerEventRequest;
    type Reply = ();

    fn run(
        switch: &mut Switch,
        request: AerEventRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let AerEventRequest {
            vcs,
            bridge,
            error,
            header,
        } = request;
        let port = wired_to(switch, vcs, bridge)?.id;
        switch.ask_for(Action::Error {
            port,
            uncorrectable: error & AerEventRequest::UNCORRECTABLE != 0,
            bit: (error & AerEventRequest::BIT) as u8,
            header,
        });
        Ok(())
    }
}
