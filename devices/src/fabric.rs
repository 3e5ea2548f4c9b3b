//! What the command of a fabric manager in a switch's mailbox does to the functions around it.

use cxl::cci::{Action, Attached, Binding, Port, PortControl, PortRegisters, UnbindOption};
use cxl::mailbox::ReturnCode;
use cxl::memdev::fabric::Sharing;
use pci::{AerError, Function, Hierarchy, NodeId, Parent, ResetKind};

use crate::{Device, DownstreamPort, Effect};

/// Effects with the functions that pushed them.
type Effects = Vec<(NodeId, Effect)>;

/// Runs the command that waits in the mailbox of a switch, which is `cci`, and completes it.
#[must_use]
pub fn run_switch_command(hierarchy: &mut Hierarchy<Device>, cci: NodeId) -> Effects {
    let mut out = Effects::new();
    let Some(upstream) = upstream_port(hierarchy, cci) else {
        return out;
    };
    let ports = ports(hierarchy, upstream);
    let begun = hierarchy.with(cci, &mut out, |device, out| match device {
        Device::SwitchCci(cci) => cci.execute(ports, out),
        _ => None,
    });
    if let Some(action) = begun.flatten() {
        let result = perform(hierarchy, upstream, action, &mut out);
        hierarchy.with(cci, &mut out, |device, out| {
            if let Device::SwitchCci(cci) = device {
                cci.complete(result, out);
            }
        });
    }
    out
}

/// Takes the link below a port down, or lets it train again: what is behind it is reset, as when its cable is pulled.
#[must_use]
pub fn set_link_down(hierarchy: &mut Hierarchy<Device>, port: NodeId, down: bool) -> Effects {
    let control = match down {
        true => PortControl::AssertPerst,
        false => PortControl::DeassertPerst,
    };
    let mut out = Effects::new();
    self::control(hierarchy, port, control, &mut out);
    out
}

/// Lets the mailbox of the switch that `port` belongs to, if it has one, see how its ports are now.
#[must_use]
pub fn tell_switch(hierarchy: &mut Hierarchy<Device>, port: NodeId) -> Effects {
    let mut out = Effects::new();
    let Some(Parent::Bridge(upstream)) = hierarchy.parent(port) else {
        return out;
    };
    let siblings = hierarchy
        .parent(upstream)
        .map(|above| hierarchy.children(above));
    let is_cci = |node: &NodeId| matches!(hierarchy.get(*node), Some(Device::SwitchCci(_)));
    let Some(cci) = siblings.into_iter().flatten().copied().find(is_cci) else {
        return out;
    };
    let ports = ports(hierarchy, upstream);
    hierarchy.with(cci, &mut out, |device, out| {
        if let Device::SwitchCci(cci) = device {
            cci.observe(ports, out);
        }
    });
    out
}

/// The upstream port beside a mailbox.
fn upstream_port(hierarchy: &Hierarchy<Device>, cci: NodeId) -> Option<NodeId> {
    let siblings = hierarchy.children(hierarchy.parent(cci)?);
    let is_upstream = |node: &NodeId| matches!(hierarchy.get(*node), Some(Device::UpstreamPort(_)));
    siblings.iter().copied().find(is_upstream)
}

/// The ports of a switch.
fn ports(hierarchy: &Hierarchy<Device>, upstream: NodeId) -> Vec<Port> {
    let first = match hierarchy.get(upstream) {
        Some(Device::UpstreamPort(port)) => Some(Port {
            id: crate::upstream_port::PORT_NUMBER,
            link: port.link_state(),
            attached: None,
            binding: Binding::Bound,
            registers: PortRegisters::default(),
        }),
        _ => None,
    };
    let downstream = downstream_ports(hierarchy, upstream).map(|(node, port)| {
        let attached = attached(hierarchy, node);
        Port {
            id: port.port_number(),
            link: port.link_state(attached != Attached::Nothing),
            attached: Some(attached),
            binding: port.binding(),
            registers: port.registers(),
        }
    });
    first.into_iter().chain(downstream).collect()
}

fn downstream_ports(
    hierarchy: &Hierarchy<Device>,
    upstream: NodeId,
) -> impl Iterator<Item = (NodeId, &DownstreamPort)> {
    let children = hierarchy.children(upstream).iter();
    children.filter_map(|node| match hierarchy.get(*node)? {
        Device::DownstreamPort(port) => Some((*node, &**port)),
        _ => None,
    })
}

/// What is behind a downstream port.
fn attached(hierarchy: &Hierarchy<Device>, port: NodeId) -> Attached {
    match behind(hierarchy, port).and_then(|node| hierarchy.get(node)) {
        None => Attached::Nothing,
        Some(Device::Type3(device)) => match device.memdev().sharing() {
            Sharing::LogicalDevices { count, own } => Attached::LogicalDevices { count, own },
            Sharing::None | Sharing::Heads { .. } => Attached::SingleLogicalDevice,
        },
        Some(Device::UpstreamPort(_)) => Attached::Switch,
        // Nothing else can be plugged in.
        Some(_) => Attached::Type2,
    }
}

/// Function 0 of what is behind a port.
fn behind(hierarchy: &Hierarchy<Device>, port: NodeId) -> Option<NodeId> {
    hierarchy.children(port).first().copied()
}

/// Does what a command asks for. Gives its output payload.
fn perform(
    hierarchy: &mut Hierarchy<Device>,
    upstream: NodeId,
    action: Action,
    out: &mut Effects,
) -> Result<Vec<u8>, ReturnCode> {
    let (Action::Control { port, .. }
    | Action::Configuration { port, .. }
    | Action::Bind { port }
    | Action::Unbind { port, .. }
    | Action::Error { port, .. }
    | Action::Tunnel { port, .. }) = action;
    let port = downstream_ports(hierarchy, upstream)
        .find(|(_, model)| model.port_number() == port)
        .map(|(node, _)| node)
        .ok_or(ReturnCode::InvalidInput)?;
    match action {
        Action::Control { control, .. } => {
            self::control(hierarchy, port, control, out);
            Ok(Vec::new())
        }
        Action::Configuration {
            behind,
            register,
            enables,
            data,
            ..
        } => {
            let node = match behind {
                true => reachable(hierarchy, port)?,
                false => port,
            };
            let read = configure(hierarchy, node, register, enables, data, out);
            Ok(read.to_le_bytes().to_vec())
        }
        Action::Bind { .. } => {
            with_port(hierarchy, port, out, DownstreamPort::bind);
            Err(ReturnCode::BackgroundStarted)
        }
        Action::Unbind { option, .. } => {
            unbind(hierarchy, port, option, out)?;
            Err(ReturnCode::BackgroundStarted)
        }
        Action::Error {
            uncorrectable,
            bit,
            header,
            ..
        } => {
            let error = AerError::of_bit(uncorrectable, bit, header);
            let error = error.ok_or(ReturnCode::InvalidInput)?;
            with_port(hierarchy, port, out, |port, out| port.report(error, out));
            Ok(Vec::new())
        }
        Action::Tunnel { message, .. } => {
            let node = reachable(hierarchy, port)?;
            let answer = hierarchy.with(node, out, |device, out| match device {
                Device::Type3(device) => device.receive(&message, out),
                _ => Err(ReturnCode::InvalidInput),
            });
            answer.unwrap_or(Err(ReturnCode::InternalError))
        }
    }
}

fn with_port<R>(
    hierarchy: &mut Hierarchy<Device>,
    port: NodeId,
    out: &mut Effects,
    call: impl FnOnce(&mut DownstreamPort, &mut Vec<Effect>) -> R,
) -> Option<R> {
    let result = hierarchy.with(port, out, |device, out| match device {
        Device::DownstreamPort(port) => Some(call(port, out)),
        _ => None,
    });
    result.flatten()
}

/// Begins to unbind a port. A host without hot-plug at it would not learn of that.
fn unbind(
    hierarchy: &mut Hierarchy<Device>,
    port: NodeId,
    option: UnbindOption,
    out: &mut Effects,
) -> Result<(), ReturnCode> {
    let binding = with_port(hierarchy, port, out, |port, out| {
        port.slot()?;
        port.unbind(option, out);
        Some(port.binding())
    });
    let binding = binding.flatten().ok_or(ReturnCode::Unsupported)?;
    if binding == Binding::Unbound {
        hierarchy.reset_below(port, ResetKind::Conventional, out);
    }
    Ok(())
}

/// What is behind a port, unless software keeps the port from passing anything on: that of the host, of a port that it has.
fn reachable(hierarchy: &Hierarchy<Device>, port: NodeId) -> Result<NodeId, ReturnCode> {
    let passes = |device: &Device| match device {
        Device::DownstreamPort(port) if !port.is_hosts() => !port.link_state(true).in_reset,
        device => device.config().is_secondary_reachable(),
    };
    if !hierarchy.get(port).is_some_and(passes) {
        return Err(ReturnCode::RetryRequired);
    }
    behind(hierarchy, port).ok_or(ReturnCode::InvalidInput)
}

fn control(
    hierarchy: &mut Hierarchy<Device>,
    port: NodeId,
    control: PortControl,
    out: &mut Effects,
) {
    hierarchy.with(port, out, |device, out| match (device, control) {
        (Device::DownstreamPort(port), PortControl::AssertPerst) => port.hold(true, out),
        (Device::DownstreamPort(port), PortControl::DeassertPerst) => port.hold(false, out),
        // The bridge is the host's.
        (Device::DownstreamPort(port), PortControl::Reset) if !port.is_hosts() => {}
        (device, PortControl::Reset) => device.reset(ResetKind::SecondaryBus, out),
        _ => {}
    });
    match control {
        PortControl::AssertPerst => hierarchy.reset_below(port, ResetKind::Conventional, out),
        PortControl::DeassertPerst => {}
        PortControl::Reset => hierarchy.reset_below(port, ResetKind::SecondaryBus, out),
    }
}

/// Writes the enabled bytes of a dword, or reads it; gives what was read.
fn configure(
    hierarchy: &mut Hierarchy<Device>,
    node: NodeId,
    register: u16,
    enables: u8,
    data: Option<u32>,
    out: &mut Effects,
) -> u32 {
    const ALL: u8 = 0xf;
    let Some(data) = data.map(u32::to_le_bytes) else {
        let mut data = [0; 4];
        if let Some(device) = hierarchy.get(node) {
            device.config_read(register, &mut data);
        }
        return u32::from_le_bytes(data);
    };
    if enables == ALL {
        hierarchy.function_write(node, register, &data, out);
    } else {
        for (lane, byte) in (0..).zip(data) {
            if enables >> lane & 1 != 0 {
                hierarchy.function_write(node, register + lane, &[byte], out);
            }
        }
    }
    0
}
