//! A switch with its mailbox above a single expander, one with several logical devices, and an empty port.

mod binding;

use cxl::cci::Message;
use cxl::device::Fault;
use cxl::mailbox::ReturnCode;
use pci::{ErrorMessage, Function, Hierarchy, MsiMessage, NodeId, Pools, PortReserve, spec};

use crate::testing::{Asked, LINK, MIB, expander, expander_config, root_port, upstream_port};
use crate::{
    Device, DownstreamPort, DownstreamPortConfig, DownstreamPortKind, Effect, Part, Type3,
    Type3Config, run_switch_command, tell_switch,
};

const CONTROL: u64 = 0x104;
const COMMAND: u64 = 0x108;
const STATUS: u64 = 0x110;
const PAYLOAD: u64 = 0x120;

/// Ports of the switch.
const SINGLE: u8 = 0;
const SHARED: u8 = 1;
const EMPTY: u8 = 2;
/// The logical device that the host has.
const OWN: u8 = 2;

struct Bench {
    hierarchy: Hierarchy<Device>,
    upstream: NodeId,
    cci: NodeId,
    ports: Vec<NodeId>,
    devices: Vec<NodeId>,
    out: Vec<(NodeId, Effect)>,
}

fn bench() -> Bench {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(0..=0xff).unwrap();
    let port = Device::DownstreamPort(Box::new(root_port()));
    let port = hierarchy.add(root, 0, 0, port).unwrap();
    let mut upstream = upstream_port();
    let cci = upstream.add_cci(Box::new(|| 0));
    let upstream = Device::UpstreamPort(Box::new(upstream));
    let upstream = hierarchy.add(port, 0, 0, upstream).unwrap();
    let cci = Device::SwitchCci(Box::new(cci));
    let cci = hierarchy.add(port, 0, 1, cci).unwrap();
    let shared = Type3Config {
        part: Part::LogicalDevice { count: 4, own: OWN },
        ..expander_config()
    };
    let shared = Type3::new(shared, Box::new(|| 0)).unwrap();
    let (mut ports, mut devices) = (Vec::new(), Vec::new());
    for (number, device) in (0..).zip([Some(expander()), Some(shared), None]) {
        let config = DownstreamPortConfig {
            name: format!("dsp{number}"),
            kind: DownstreamPortKind::Switch,
            port_number: number,
            link: LINK,
            slot: (number != SINGLE).then_some(4 + u16::from(number)),
        };
        let mut port = DownstreamPort::new(config).unwrap();
        if device.is_some() {
            port.connect(LINK);
        }
        let port = Device::DownstreamPort(Box::new(port));
        let port = hierarchy.add(upstream, number, 0, port).unwrap();
        ports.push(port);
        if let Some(device) = device {
            let device = Device::Type3(Box::new(device));
            devices.push(hierarchy.add(port, 0, 0, device).unwrap());
        }
    }
    let pools = Pools {
        io: 0x1000..0x1_0000,
        memory32: 0xc000_0000..0xe000_0000,
        memory64: 0x1_4000_0000..0x11_4000_0000,
    };
    pci::assign(
        &mut hierarchy,
        &pools,
        &PortReserve::default(),
        &mut Vec::new(),
    )
    .unwrap();
    Bench {
        hierarchy,
        upstream,
        cci,
        ports,
        devices,
        out: Vec::new(),
    }
}

impl Bench {
    fn base(&self) -> u64 {
        let config = self.hierarchy.get(self.cci).unwrap().config();
        config.bar(0).unwrap().base
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Vec<(NodeId, Effect)> {
        let (address, mut out) = (self.base() + offset, Vec::new());
        self.hierarchy.memory_write(address, data, &mut out);
        out
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let address = self.base() + offset;
        self.hierarchy.memory_read(address, data, &mut Vec::new());
    }

    fn qword(&mut self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    /// A command through the mailbox, as a machine lets it run.
    fn run(&mut self, opcode: u16, input: &[u8]) -> Result<Vec<u8>, u16> {
        for (line, chunk) in (0..).zip(input.chunks(8)) {
            self.write(PAYLOAD + 8 * line, chunk);
        }
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        self.write(COMMAND, &command.to_le_bytes());
        let rung = self.write(CONTROL, &1_u32.to_le_bytes());
        assert!(matches!(rung[..], [(node, Effect::SwitchCommand)] if node == self.cci));
        self.out = run_switch_command(&mut self.hierarchy, self.cci);
        self.settle();
        assert_eq!(self.qword(CONTROL) & 1, 0);
        let code = (self.qword(STATUS) >> 32) as u16;
        let mut reply = vec![0; (self.qword(COMMAND) >> 16) as usize];
        self.read(PAYLOAD, &mut reply);
        match code {
            0 => Ok(reply),
            code => Err(code),
        }
    }

    /// Tells the switch of ports that were bound or unbound, as a machine does.
    fn settle(&mut self) {
        let changed = |(_, effect): &&(NodeId, Effect)| matches!(effect, Effect::PortChanged);
        let changed: Vec<_> = self
            .out
            .iter()
            .filter(changed)
            .map(|(port, _)| *port)
            .collect();
        for port in changed {
            self.out.extend(tell_switch(&mut self.hierarchy, port));
        }
    }

    /// What the host reads as the vendor of a device.
    fn vendor(&self, index: usize) -> [u8; 2] {
        let bdf = self.hierarchy.bdf(self.devices[index]).unwrap();
        let mut data = [0; 2];
        self.hierarchy.config_read(bdf, 0, &mut data);
        data
    }

    /// A command to the device behind a port.
    fn ask(&mut self, port: u8, opcode: u16, payload: &[u8]) -> Result<Vec<u8>, u16> {
        let reply = self.run(0x5300, &tunnel(port, opcode, payload))?;
        opened(&reply)
    }

    /// What a function asked of the machine.
    fn asked_by(&mut self, node: NodeId) -> Asked {
        let out = self.out.drain(..).filter(|(by, _)| *by == node);
        Asked::of(out.map(|(_, effect)| effect))
    }

    fn device(&self, index: usize) -> &Type3 {
        match self.hierarchy.get(self.devices[index]) {
            Some(Device::Type3(device)) => device,
            _ => panic!("no expander"),
        }
    }

    /// The link of a port: lanes, speed, and flags.
    fn link(&mut self, port: u8) -> [u8; 3] {
        let state = self.run(0x5101, &[1, port]).unwrap();
        [state[4 + 7], state[4 + 10], state[4 + 13]]
    }

    fn commit(&mut self, index: usize) {
        let mut out = Vec::new();
        self.hierarchy
            .with(self.devices[index], &mut out, |device, out| {
                device.bar_write(0, 0x1204, &2_u32.to_le_bytes(), out);
                device.bar_write(0, 0x1210, &(64_u64 << 30).to_le_bytes(), out);
                device.bar_write(0, 0x1218, &(256 * MIB).to_le_bytes(), out);
                device.bar_write(0, 0x1220, &(1_u32 << 9).to_le_bytes(), out);
            });
        assert!(self.is_committed(index));
    }

    fn is_committed(&self, index: usize) -> bool {
        !self
            .device(index)
            .component()
            .endpoint_decoders()
            .is_empty()
    }
}

fn tunnel(number: u8, opcode: u16, payload: &[u8]) -> Vec<u8> {
    let message = Message::request(1, opcode, payload).to_bytes();
    let len = (message.len() as u16).to_le_bytes();
    [&[number, 0][..], &len, &message].concat()
}

fn opened(reply: &[u8]) -> Result<Vec<u8>, u16> {
    let answer = Message::from_bytes(&reply[4..]).unwrap();
    match answer.return_code {
        0 => Ok(answer.payload),
        code => Err(code),
    }
}

const INVALID_INPUT: u16 = ReturnCode::InvalidInput as u16;
const RETRY: u16 = ReturnCode::RetryRequired as u16;
const UP: u8 = 1 << 2;
const HELD: u8 = 1 << 1;
const VENDOR: [u8; 2] = [0x86, 0x80];
const NOBODY: [u8; 2] = [0xff; 2];

#[test]
fn the_ports_are_those_beside_the_mailbox() {
    let mut bench = bench();
    let identity = bench.run(0x5100, &[]).unwrap();
    assert_eq!((identity[0], identity[2], identity[3]), (0xff, 4, 1));
    assert_eq!((identity[4], identity[35]), (0b111, 0x80));
    assert_eq!(identity[68..], [3, 0, 3, 0, 10]);
    let states = bench
        .run(0x5101, &[4, 0xff, SINGLE, SHARED, EMPTY])
        .unwrap();
    let types: Vec<_> = states[4..]
        .chunks(16)
        .map(|port| (port[1], port[4]))
        .collect();
    assert_eq!(types, [(4, 0), (3, 4), (3, 5), (3, 0)]);
    // 16 lanes at 32 GT/s; a slot without a card, which has power.
    assert_eq!(bench.link(SINGLE), [16, 5, UP]);
    assert_eq!(bench.link(EMPTY), [0, 0, 0]);
    let bridges = bench.run(0x5200, &[0, 0xff, 1, 0]).unwrap();
    assert_eq!(bridges[8..], [2, 0, 0xff, 0, 3, 1, OWN, 0, 2, 2, 0xff, 0]);
}

#[test]
fn a_message_reaches_the_expander_behind_a_port() {
    let mut bench = bench();
    let identity = bench.ask(SINGLE, 0x0001, &[]).unwrap();
    let serial = expander_config().serial.to_le_bytes();
    assert_eq!(
        identity[..8],
        [0x86, 0x80, 0x93, 0x0d, 0xf4, 0x1a, 0x00, 0x11]
    );
    assert_eq!(identity[8..16], serial);
    // 768 MiB, in units of 256 MiB, behind the firmware's revision.
    assert_eq!(
        bench.ask(SINGLE, 0x4000, &[]).unwrap()[16..24],
        3_u64.to_le_bytes()
    );
    // Several logical devices: one tunnel more to the host's.
    let info = bench.ask(SHARED, 0x5400, &[]).unwrap();
    assert_eq!(
        info,
        [&(4 * 768 * MIB).to_le_bytes()[..], &[4, 0, 1]].concat()
    );
    let reply = bench
        .ask(SHARED, 0x5300, &tunnel(OWN, 0x4000, &[]))
        .unwrap();
    assert_eq!(opened(&reply).unwrap()[16..24], 3_u64.to_le_bytes());
    assert_eq!(bench.ask(EMPTY, 0x0001, &[]), Err(INVALID_INPUT));
}

#[test]
fn the_host_sees_one_logical_device_that_says_there_are_others() {
    let bench = bench();
    let shared = &bench.device(1);
    assert_eq!(shared.capacity(), (256 * MIB, 512 * MIB));
    let capability = |device: &Type3| {
        let config = device.config();
        let dvsec = config.find_extended_capability(spec::extended::DVSEC);
        config.u16(dvsec.unwrap() + 0x0a)
    };
    let multiple = 1 << 13;
    assert_eq!(capability(shared), capability(bench.device(0)) | multiple);
}

#[test]
fn a_card_that_is_pulled_out_is_an_event_that_interrupts_by_its_own_vector() {
    const INTERRUPT: MsiMessage = MsiMessage {
        address: 0xfee0_1000,
        data: 0x42,
    };
    let mut bench = bench();
    let (cci, port) = (bench.cci, bench.ports[usize::from(SHARED)]);
    // MSI-X is on, and vector 1 unmasked; the informational log interrupts.
    let mut out = Vec::new();
    bench.hierarchy.with(cci, &mut out, |device, out| {
        let msix = device.config().find_capability(spec::capability::MSIX);
        let msix = msix.unwrap();
        device.config_write(0x04, &6_u16.to_le_bytes(), out);
        device.config_write(msix + 2, &(1_u16 << 15).to_le_bytes(), out);
        device.bar_write(2, 16, &INTERRUPT.address.to_le_bytes(), out);
        device.bar_write(2, 24, &INTERRUPT.data.to_le_bytes(), out);
        device.bar_write(2, 28, &0_u32.to_le_bytes(), out);
    });
    bench.run(0x0103, &[1, 0, 0, 0]).unwrap();
    bench.out.clear();
    let mut out = Vec::new();
    bench.hierarchy.with(port, &mut out, |device, out| {
        if let Device::DownstreamPort(port) = device {
            port.change_card(None, out);
        }
    });
    bench.out = out;
    bench.hierarchy.remove(bench.devices[1]);
    bench.settle();
    let sent = bench.asked_by(cci).messages;
    assert_eq!(sent, [INTERRUPT]);
    let records = bench.run(0x0100, &[0]).unwrap();
    // Port, link state change; presence has changed, and the link; nothing is there.
    assert_eq!(records[0x20 + 48..][..2], [SHARED, 0]);
    assert_eq!(records[0x20 + 48 + 8], 0);
    assert_eq!(records.len(), 0x20 + 128);
}

#[test]
fn a_device_that_does_not_work_does_not_answer() {
    let mut bench = bench();
    let node = bench.devices[0];
    bench.hierarchy.with(node, &mut Vec::new(), |device, out| {
        if let Device::Type3(device) = device {
            device.set_fault(Some(Fault::FirmwareHalt), out);
        }
    });
    let internal = ReturnCode::InternalError as u16;
    assert_eq!(bench.ask(SINGLE, 0x0001, &[]), Err(internal));
}

#[test]
fn what_is_held_in_reset_loses_its_decoders_and_answers_nobody_until_it_is_let_go() {
    let mut bench = bench();
    bench.commit(0);
    assert_eq!(bench.run(0x5102, &[SINGLE, 0]), Ok(vec![]));
    let device = bench.devices[0];
    assert!(bench.asked_by(device).decoders_changed);
    assert!(!bench.is_committed(0));
    assert_eq!(bench.link(SINGLE), [0, 0, UP | HELD]);
    assert_eq!(bench.vendor(0), NOBODY);
    assert_eq!(bench.ask(SINGLE, 0x0001, &[]), Err(RETRY));
    assert_eq!(bench.run(0x5102, &[SINGLE, 0]), Err(INVALID_INPUT), "twice");
    assert_eq!(bench.link(SHARED), [16, 5, UP], "another port");

    // The port itself may be reset meanwhile.
    let bus = bench
        .hierarchy
        .get(bench.ports[0])
        .unwrap()
        .config()
        .u32(0x18);
    assert_eq!(bench.run(0x5102, &[SINGLE, 2]), Ok(vec![]));
    assert_eq!(bench.link(SINGLE), [0, 0, UP | HELD]);
    let port = bench.ports[0];
    let data = bus.to_le_bytes();
    bench
        .hierarchy
        .function_write(port, 0x18, &data, &mut Vec::new());

    assert_eq!(bench.run(0x5102, &[SINGLE, 1]), Ok(vec![]));
    assert_eq!(bench.link(SINGLE), [16, 5, UP]);
    assert_eq!(bench.vendor(0), VENDOR);
    assert!(bench.ask(SINGLE, 0x0001, &[]).is_ok());
}

#[test]
fn a_port_that_is_reset_forgets_its_buses_and_what_is_behind_it_its_decoders() {
    let mut bench = bench();
    bench.commit(1);
    let buses = |bench: &Bench| {
        let port = bench.hierarchy.get(bench.ports[1]).unwrap();
        port.config().buses_below()
    };
    assert!(buses(&bench).is_some());
    assert_eq!(bench.run(0x5102, &[SHARED, 2]), Ok(vec![]));
    assert_eq!(buses(&bench), None);
    assert!(!bench.is_committed(1));
    assert_eq!(bench.link(SHARED), [16, 5, UP]);
}

#[test]
fn a_port_is_reset_without_anything_behind_it() {
    let mut bench = bench();
    for control in [0, 1, 2] {
        assert_eq!(bench.run(0x5102, &[EMPTY, control]), Ok(vec![]));
    }
}

#[test]
fn the_fabric_manager_reads_and_writes_registers_of_what_is_shared() {
    let mut bench = bench();
    let id = bench
        .run(0x5103, &[SHARED, 0, 0xf0, 0, 0, 0, 0, 0])
        .unwrap();
    assert_eq!(id, 0xa129_19e5_u32.to_le_bytes());
    let id = bench.run(0x5301, &[SHARED, 0, 0xf0, 0, OWN, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(id, Ok(0x0d93_8086_u32.to_le_bytes().to_vec()));
    // The interrupt line is a byte that can be written; the pin beside it is not.
    let line = u8::try_from(spec::header::INTERRUPT_LINE & !3).unwrap();
    let write = [
        SHARED, line, 0x10, 0x80, OWN, 0, 0, 0, 0x5a, 0xff, 0xff, 0xff,
    ];
    assert_eq!(bench.run(0x5301, &write), Ok(vec![0; 4]));
    assert_eq!(bench.device(1).config().u32(u16::from(line)) as u8, 0x5a);
    let write_all = [SHARED, line, 0xf0, 0x80, OWN, 0, 0, 0, 0xa5, 0, 0, 0];
    assert_eq!(bench.run(0x5301, &write_all), Ok(vec![0; 4]));
    assert_eq!(bench.device(1).config().u32(u16::from(line)) as u8, 0xa5);
}

#[test]
fn a_port_in_d3hot_passes_no_message_on() {
    let mut bench = bench();
    let port = bench.ports[1];
    let config = bench.hierarchy.get(port).unwrap().config();
    let power = config.find_capability(spec::capability::POWER_MANAGEMENT);
    let control = power.unwrap() + 4;
    bench
        .hierarchy
        .function_write(port, control, &[3], &mut Vec::new());
    assert_eq!(bench.ask(SHARED, 0x0001, &[]), Err(RETRY));
}

#[test]
fn a_mailbox_alone_runs_nothing() {
    let mut bench = bench();
    bench.hierarchy.remove(bench.upstream);
    bench.write(CONTROL, &1_u32.to_le_bytes());
    assert!(run_switch_command(&mut bench.hierarchy, bench.cci).is_empty());
}

#[test]
fn a_bridge_reports_what_its_fabric_manager_wants() {
    /// Device control: report errors of all three severities.
    const DEVICE_CONTROL: u16 = 0x08;
    const REPORT_ALL: u8 = 0x7;
    /// AER: status of uncorrectable errors, and the header log.
    const UNCORRECTABLE_STATUS: u16 = 0x04;
    const HEADER_LOG: u16 = 0x1c;
    let mut bench = bench();
    let port = bench.ports[usize::from(SINGLE)];
    let config = bench.hierarchy.get(port).unwrap().config();
    let express = config
        .find_capability(spec::capability::PCI_EXPRESS)
        .unwrap();
    let aer = config
        .find_extended_capability(spec::extended::AER)
        .unwrap();
    let control = express + DEVICE_CONTROL;
    bench
        .hierarchy
        .function_write(port, control, &[REPORT_ALL, 0], &mut Vec::new());
    let request = |error: u32| {
        let mut request = vec![0, SINGLE, 0, 0];
        request.extend(error.to_le_bytes());
        request.extend((1..=8_u32).flat_map(u32::to_le_bytes));
        request
    };
    // Unsupported request, a bad packet, and what is no error.
    for (error, message) in [
        (0x8000_0014, ErrorMessage::NonFatal),
        (6, ErrorMessage::Correctable),
    ] {
        assert_eq!(bench.run(0x5203, &request(error)), Ok(vec![]));
        let sent = bench.out.iter().find_map(|(node, effect)| match effect {
            Effect::Error(message) => Some((*node, *message)),
            _ => None,
        });
        assert_eq!(sent, Some((port, message)));
    }
    let config = bench.hierarchy.get(port).unwrap().config();
    assert_eq!(config.u32(aer + UNCORRECTABLE_STATUS), 1 << 20);
    assert_eq!(config.u32(aer + HEADER_LOG), 1);
    let refused = Err(ReturnCode::InvalidInput as u16);
    assert_eq!(bench.run(0x5203, &request(0x8000_0001)), refused);
}
