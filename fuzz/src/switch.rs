//! A switch with its mailbox, and what a fabric manager asks of it.

use cxl::cci::Message;
use devices::{
    Device, DownstreamPort, DownstreamPortConfig, DownstreamPortKind, Effect, Part, UpstreamPort,
    UpstreamPortConfig, run_switch_command, tell_switch,
};
use pci::{Function, Hierarchy, NodeId};

use crate::input::Input;
use crate::type3::{LINK, PERFORMANCE, expander_of};

/// Ports of the switch: a single expander, one of four logical devices, one of two heads, and nothing.
const PORTS: u8 = 4;
/// Command sets of a switch, and of what is behind its ports.
const SETS: [u8; 6] = [0x51, 0x51, 0x52, 0x53, 0x04, 0x00];
const SETS_BEHIND: [u8; 7] = [0x54, 0x54, 0x55, 0x53, 0x40, 0x04, 0x00];
/// Opcode of the command with a message in it.
const TUNNEL: u16 = 0x5300;

/// A switch below a root port.
pub struct Switch {
    hierarchy: Hierarchy<Device>,
    cci: NodeId,
}

impl Switch {
    /// A switch in its reset state.
    pub fn new() -> Self {
        let mut hierarchy = Hierarchy::new();
        let root = hierarchy.add_root(0..=0xff).expect("the first root");
        let mut add = |above: pci::Parent, device, function, model| {
            let node = hierarchy.add(above, device, function, model);
            node.expect("a free place")
        };
        let root_port = port(DownstreamPortKind::Root, 0, true);
        let root_port = add(root.into(), 0, 0, root_port);
        let mut upstream = UpstreamPort::new(UpstreamPortConfig {
            name: "sw0".into(),
            serial: Some(1),
            link: LINK,
            ports: (0..PORTS).collect(),
            decoders: 4,
            performance: PERFORMANCE,
        })
        .expect("a legal switch");
        let cci = upstream.add_cci(Box::new(|| 0));
        let upstream = Device::UpstreamPort(Box::new(upstream));
        let upstream = add(root_port.into(), 0, 0, upstream);
        let cci = add(root_port.into(), 0, 1, Device::SwitchCci(Box::new(cci)));
        let parts = [
            Part::Whole,
            Part::LogicalDevice { count: 4, own: 1 },
            Part::Head { count: 2, own: 1 },
        ];
        for number in 0..PORTS {
            let part = parts.get(usize::from(number)).copied();
            let model = port(DownstreamPortKind::Switch, number, part.is_some());
            let above = add(upstream.into(), number, 0, model);
            if let Some(part) = part {
                let device = Device::Type3(Box::new(expander_of(part)));
                add(above.into(), 0, 0, device);
            }
        }
        Self { hierarchy, cci }
    }

    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        let read =
            |device: &mut Device, out: &mut Vec<Effect>| device.bar_read(0, offset, data, out);
        self.hierarchy.with(self.cci, &mut Vec::new(), read);
    }

    /// Writes, and lets a command run that waits then. Gives the number of effects.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> usize {
        let mut out = Vec::new();
        let write = |device: &mut Device, out: &mut Vec<Effect>| {
            device.bar_write(0, offset, data, out);
        };
        self.hierarchy.with(self.cci, &mut out, write);
        let waits = |(_, effect): &(NodeId, Effect)| matches!(effect, Effect::SwitchCommand);
        if out.iter().any(waits) {
            out.extend(run_switch_command(&mut self.hierarchy, self.cci));
        }
        let changed = |(_, effect): &&(NodeId, Effect)| matches!(effect, Effect::PortChanged);
        let changed: Vec<NodeId> = out.iter().filter(changed).map(|(port, _)| *port).collect();
        for port in changed {
            out.extend(tell_switch(&mut self.hierarchy, port));
        }
        out.len()
    }
}

fn port(kind: DownstreamPortKind, number: u8, connected: bool) -> Device {
    let mut port = DownstreamPort::new(DownstreamPortConfig {
        name: format!("p{number}"),
        kind,
        port_number: number,
        link: LINK,
        slot: Some(u16::from(number) + 1),
    })
    .expect("a legal port");
    if connected {
        port.connect(LINK);
    }
    Device::DownstreamPort(Box::new(port))
}

/// A command and its input payload: of the sets there are, messages among them.
pub fn command(input: &mut Input<'_>) -> (u16, Vec<u8>) {
    match input.u8() {
        wild @ 0xf0.. => (u16::from(wild) << 8 | u16::from(input.u8()), payload(input)),
        tunnels @ 0x80.. => {
            let (mut opcode, mut bytes) = simple(input, &SETS_BEHIND);
            for _ in 0..=tunnels & 1 {
                (opcode, bytes) = (TUNNEL, tunnel(input, opcode, &bytes));
            }
            (opcode, bytes)
        }
        _ => simple(input, &SETS),
    }
}

fn simple(input: &mut Input<'_>, sets: &[u8]) -> (u16, Vec<u8>) {
    let set = u16::from(input.choose(sets));
    (set << 8 | u16::from(input.u8() % 0x10), payload(input))
}

fn payload(input: &mut Input<'_>) -> Vec<u8> {
    let len = usize::from(input.u8());
    input.padded(len)
}

fn tunnel(input: &mut Input<'_>, opcode: u16, payload: &[u8]) -> Vec<u8> {
    let message = Message::request(0, opcode, payload).to_bytes();
    let len = (message.len() as u16).to_le_bytes();
    let target = [input.u8() % 6, input.u8() % 3];
    [&target[..], &len, &message].concat()
}
