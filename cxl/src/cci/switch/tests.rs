use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::Effect;
use crate::mailbox::{PAYLOAD_SIZE, logs::COMMAND_EFFECTS_LOG};

/// Registers of the mailbox from the start of the block (section 8.2.8.4).
mod events;

const CAPABILITIES: u64 = 0x100;
const CONTROL: u64 = 0x104;
const COMMAND: u64 = 0x108;
const STATUS: u64 = 0x110;
const BACKGROUND: u64 = 0x118;
const PAYLOAD: u64 = 0x120;
const VECTOR: u8 = 3;
const EVENT_VECTOR: u8 = 4;
const UPSTREAM: u8 = 0xff;

const UP: LinkState = LinkState {
    max_width: 16,
    max_speed: 5,
    width: 8,
    speed: 4,
    in_reset: false,
    is_present: true,
    is_off: false,
};
const DOWN: LinkState = LinkState {
    width: 0,
    speed: 0,
    ..UP
};

/// A switch with every sort of thing behind its ports.
fn ports() -> Vec<Port> {
    let held = LinkState {
        in_reset: true,
        ..DOWN
    };
    let empty = LinkState {
        is_present: false,
        is_off: true,
        ..DOWN
    };
    let several = Attached::LogicalDevices { count: 4, own: 1 };
    let downstream = [
        (UP, Attached::SingleLogicalDevice),
        (UP, several),
        (empty, Attached::Nothing),
        (held, several),
        (UP, Attached::Switch),
        (UP, Attached::Type2),
    ];
    let upstream = Port {
        id: UPSTREAM,
        link: UP,
        attached: None,
        binding: Binding::Bound,
        registers: PortRegisters::default(),
    };
    let downstream = (0..).zip(downstream).map(|(id, (link, attached))| Port {
        id,
        link,
        attached: Some(attached),
        binding: Binding::Bound,
        registers: PortRegisters::default(),
    });
    [upstream].into_iter().chain(downstream).collect()
}

/// A switch, and its time.
struct Bench {
    registers: SwitchRegisters,
    ports: Vec<Port>,
    time: Arc<AtomicU64>,
    effects: Vec<Effect>,
}

fn bench() -> Bench {
    let time = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&time);
    let registers = SwitchRegisters::new(SwitchConfig {
        identity: Identity {
            vendor: 0x19e5,
            device: 0xa123,
            serial: 0x100,
            ..Identity::default()
        },
        upstream: UPSTREAM,
        decoders: 10,
        mailbox_vector: VECTOR,
        event_vector: EVENT_VECTOR,
        clock: Box::new(move || clock.load(Ordering::Relaxed)),
    });
    Bench {
        registers,
        ports: ports(),
        time,
        effects: Vec::new(),
    }
}

impl Bench {
    fn qword(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.registers.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn dword(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Rings the doorbell, and lets the command begin.
    fn begin(&mut self, opcode: u16, input: &[u8], control: u32) -> Option<Action> {
        self.registers.write(PAYLOAD, input);
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        assert!(!self.registers.write(COMMAND, &command.to_le_bytes()));
        assert!(self.registers.write(CONTROL, &control.to_le_bytes()));
        self.registers
            .execute(self.ports.clone(), &mut self.effects)
    }

    /// How the command ended.
    fn ended(&self) -> Result<Vec<u8>, u16> {
        assert_eq!(self.dword(CONTROL) & 1, 0, "the doorbell is clear");
        let code = (self.qword(STATUS) >> 32) as u16;
        let len = (self.qword(COMMAND) >> 16) as usize;
        let mut reply = vec![0; len];
        self.registers.read(PAYLOAD, &mut reply);
        match code {
            0 => Ok(reply),
            code => Err(code),
        }
    }

    fn run(&mut self, opcode: u16, input: &[u8]) -> Result<Vec<u8>, u16> {
        assert_eq!(self.begin(opcode, input, 1), None);
        self.ended()
    }

    /// Runs a command that needs something done.
    fn action(&mut self, opcode: u16, input: &[u8]) -> Action {
        let action = self.begin(opcode, input, 1).unwrap();
        assert_eq!(self.dword(CONTROL) & 1, 1, "it has not ended");
        action
    }
}

const INVALID_INPUT: u16 = ReturnCode::InvalidInput as u16;
const LENGTH: u16 = ReturnCode::InvalidPayloadLength as u16;
const RETRY: u16 = ReturnCode::RetryRequired as u16;

#[test]
fn the_block_is_a_switchs_with_status_and_mailbox() {
    let bench = bench();
    // Version 1, type 2, two capabilities.
    assert_eq!(bench.qword(0), 2 << 32 | 2 << 24 | 1 << 16);
    assert_eq!(bench.qword(0x10), 0x80 << 32 | 1 << 16 | 1);
    assert_eq!(bench.qword(0x20), CAPABILITIES << 32 | 1 << 16 | 2);
    // Type 2, its message number, both interrupts, 2 KiB.
    let capabilities = 2 << 19 | u32::from(VECTOR) << 7 | 0b11 << 5 | 11;
    assert_eq!(bench.dword(CAPABILITIES), capabilities);
    assert_eq!(bench.qword(0x80), 0, "no events");
}

#[test]
fn a_command_runs_when_its_switch_is_asked_and_interrupts_if_that_is_wanted() {
    let mut bench = bench();
    assert_eq!(bench.registers.execute(ports(), &mut Vec::new()), None);
    bench.begin(0x0001, &[], 0b01);
    assert_eq!(bench.effects, []);
    bench.begin(0x0001, &[], 0b11);
    assert_eq!(bench.effects, [Effect::Interrupt { vector: VECTOR }]);
    let identity = bench.ended().unwrap();
    assert_eq!(identity[..8], [0xe5, 0x19, 0x23, 0xa1, 0, 0, 0, 0]);
    assert_eq!(identity[8..], [0, 1, 0, 0, 0, 0, 0, 0, 11, 0], "a switch");
}

#[test]
fn its_commands_are_listed_and_no_others_are_there() {
    let mut bench = bench();
    let listed = [
        1, 2, 3, 4, 0x100, 0x101, 0x102, 0x103, 0x300, 0x301, 0x400, 0x401, 0x5100, 0x5101, 0x5102,
        0x5103, 0x5200, 0x5201, 0x5202, 0x5203, 0x5300, 0x5301,
    ];
    let size = bench.run(0x0400, &[]).unwrap()[24];
    let request = [&COMMAND_EFFECTS_LOG[..], &[0, 0, 0, 0, size, 0, 0, 0]].concat();
    let log = bench.run(0x0401, &request).unwrap();
    let opcodes: Vec<u16> = log
        .chunks(4)
        .map(|entry| u16::from_le_bytes([entry[0], entry[1]]))
        .collect();
    assert_eq!(opcodes, listed);
    for opcode in (0..=u16::MAX).filter(|opcode| !listed.contains(opcode)) {
        assert_eq!(bench.run(opcode, &[]), Err(ReturnCode::Unsupported as u16));
    }
    let other = [&[9; 16][..], &[0; 8]].concat();
    let refused = bench.run(0x0401, &other);
    assert_eq!(refused, Err(ReturnCode::InvalidLog as u16));
}

#[test]
fn payloads_of_the_wrong_length_are_refused() {
    let mut bench = bench();
    // Each command with a length that it has not.
    for (opcode, len) in [
        (0x0001, 1),
        (0x0002, 1),
        (0x0003, 1),
        (0x0004, 0),
        (0x0300, 1),
        (0x0301, 7),
        (0x0400, 1),
        (0x0401, 23),
        (0x5100, 1),
        (0x5101, 0),
        (0x5101, 3),
        (0x5102, 1),
        (0x5102, 3),
        (0x5103, 7),
        (0x5200, 2),
        (0x5201, 5),
        (0x5201, 7),
        (0x5202, 2),
        (0x5202, 4),
        (0x5203, 39),
        (0x5203, 41),
        (0x5300, 3),
        (0x5301, 11),
        (0x5301, 13),
    ] {
        assert_eq!(bench.run(opcode, &vec![0; len]), Err(LENGTH), "{opcode:#x}");
    }
    let command = 0x5100 | (PAYLOAD_SIZE as u64 + 1) << 16;
    bench.registers.write(COMMAND, &command.to_le_bytes());
    bench.registers.write(CONTROL, &1_u32.to_le_bytes());
    bench.registers.execute(ports(), &mut Vec::new());
    assert_eq!(bench.ended(), Err(LENGTH));
}

#[test]
fn the_timestamp_goes_on_from_what_it_was_set_to_until_a_reset() {
    let mut bench = bench();
    assert_eq!(bench.run(0x0300, &[]).unwrap(), [0; 8]);
    bench.run(0x0301, &500_u64.to_le_bytes()).unwrap();
    bench.time.fetch_add(70, Ordering::Relaxed);
    assert_eq!(bench.run(0x0300, &[]).unwrap(), 570_u64.to_le_bytes());
    bench.registers.reset_mailbox();
    assert_eq!(bench.run(0x0300, &[]).unwrap(), 570_u64.to_le_bytes());
    bench.registers.reset();
    assert_eq!(bench.run(0x0300, &[]).unwrap(), [0; 8]);
}

#[test]
fn answers_are_no_longer_than_the_limit() {
    let mut bench = bench();
    assert_eq!(bench.run(0x0003, &[]).unwrap(), [11]);
    for wrong in [0, 7, 12, 0xff] {
        assert_eq!(bench.run(0x0004, &[wrong]), Err(INVALID_INPUT));
    }
    assert_eq!(bench.run(0x0004, &[8]).unwrap(), [8]);
    assert_eq!(bench.run(0x0003, &[]).unwrap(), [8]);
    let sixteen = [&[16][..], &[0; 16]].concat();
    let fifteen = [&[15][..], &[0; 15]].concat();
    assert_eq!(bench.run(0x5101, &sixteen), Err(INVALID_INPUT));
    assert_eq!(bench.run(0x5101, &fifteen).unwrap().len(), 4 + 15 * 16);
    bench.registers.reset();
    assert_eq!(bench.run(0x0003, &[]).unwrap(), [11]);
}

#[test]
fn nothing_runs_in_the_background_at_first() {
    let mut bench = bench();
    assert_eq!(bench.run(0x0002, &[]).unwrap(), [0; 8]);
    assert_eq!(bench.qword(BACKGROUND), 0);
}

#[test]
fn a_switch_counts_its_ports_and_virtual_bridges() {
    let identity = bench().run(0x5100, &[]).unwrap();
    let ports = [&[0x3f][..], &[0; 30], &[0x80]].concat();
    let virtual_switches = [&[1][..], &[0; 31]].concat();
    let numbers = [6, 0, 6, 0, 10];
    let expected = [
        &[UPSTREAM, 0, 7, 1][..],
        &ports,
        &virtual_switches,
        &numbers,
    ]
    .concat();
    assert_eq!(identity, expected);
}

#[test]
fn each_port_has_its_state() {
    let link = [16, 8, 0x1f, 5, 4, 4, 0];
    let down = [16, 0, 0x1f, 5, 0, 0, 0];
    // State, mode, device; link; flags and further logical devices.
    for (id, state, link, rest) in [
        (UPSTREAM, [4, 2, 0, 0], link, [4, 0, 0]),
        (0, [3, 2, 0, 4], link, [4, 0, 0]),
        (1, [3, 2, 0, 5], link, [4, 0, 3]),
        (2, [3, 0, 0, 0], down, [8, 0, 0]),
        (3, [3, 0, 0, 5], down, [6, 0, 3]),
        (4, [3, 2, 0, 3], link, [4, 0, 0]),
        (5, [3, 2, 0, 3], link, [4, 0, 0]),
    ] {
        let expected = [&[1, 0, 0, 0, id][..], &state, &[2], &link, &rest].concat();
        assert_eq!(bench().run(0x5101, &[1, id]), Ok(expected), "port {id}");
    }
}

#[test]
fn several_ports_are_told_in_the_order_asked_for_and_wrong_ones_marked() {
    let states = bench().run(0x5101, &[3, 1, 6, 0]).unwrap();
    assert_eq!((states.len(), states[0]), (4 + 3 * 16, 3));
    assert_eq!((states[4], states[36]), (1, 0));
    assert_eq!(states[20..36], [&[6, 0xf][..], &[0; 14]].concat());
    let most = [&[127][..], &[0; 127]].concat();
    assert_eq!(bench().run(0x5101, &most).unwrap().len(), 4 + 127 * 16);
    let too_many = [&[128][..], &[0; 128]].concat();
    assert_eq!(bench().run(0x5101, &too_many), Err(INVALID_INPUT));
}

#[test]
fn a_port_is_reset_and_what_is_behind_it_held_in_reset() {
    let mut bench = bench();
    for (port, code, control) in [
        (0, 0, PortControl::AssertPerst),
        (3, 1, PortControl::DeassertPerst),
        (0, 2, PortControl::Reset),
        (2, 0, PortControl::AssertPerst),
    ] {
        let action = bench.action(0x5102, &[port, code]);
        assert_eq!(action, Action::Control { port, control });
        bench.registers.complete(Ok(Vec::new()), &mut bench.effects);
        assert_eq!(bench.ended(), Ok(vec![]));
    }
    for (port, code) in [(UPSTREAM, 0), (6, 0), (0, 1), (3, 0), (0, 3), (0, 0xff)] {
        assert_eq!(bench.run(0x5102, &[port, code]), Err(INVALID_INPUT));
    }
}

#[test]
fn the_fabric_manager_configures_the_ports_of_shared_devices() {
    let mut bench = bench();
    let action = bench.action(0x5103, &[1, 0x34, 0xf1, 0x00, 0, 0, 0, 0]);
    let mut expected = Action::Configuration {
        port: 1,
        behind: false,
        register: 0x134,
        enables: 0xf,
        data: None,
    };
    assert_eq!(action, expected);
    bench
        .registers
        .complete(Ok(vec![1, 2, 3, 4]), &mut Vec::new());
    assert_eq!(bench.ended(), Ok(vec![1, 2, 3, 4]));

    let action = bench.action(0x5301, &[1, 0x04, 0x30, 0x80, 1, 0, 0, 0, 6, 0, 0, 0]);
    expected = Action::Configuration {
        port: 1,
        behind: true,
        register: 4,
        enables: 3,
        data: Some(6),
    };
    assert_eq!(action, expected);
    bench.registers.complete(Ok(vec![0; 4]), &mut Vec::new());
    // A port that is bound as a whole, none, the upstream port, half a register.
    for [port, register] in [[0, 0], [2, 0], [7, 0], [UPSTREAM, 0], [1, 2]] {
        let request = [port, register, 0xf0, 0, 0, 0, 0, 0];
        assert_eq!(bench.run(0x5103, &request), Err(INVALID_INPUT));
    }
    for [port, register, ld, ld_high] in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 1], [1, 2, 1, 0]] {
        let request = [port, register, 0xf0, 0, ld, ld_high, 0, 0, 0, 0, 0, 0];
        assert_eq!(bench.run(0x5301, &request), Err(INVALID_INPUT));
    }
    let held = [3, 0, 0xf0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.run(0x5301, &held), Err(RETRY));
}

#[test]
fn the_virtual_switch_has_a_bridge_for_each_port() {
    let mut bench = bench();
    let all = bench.run(0x5200, &[0, 0xff, 1, 0]).unwrap();
    assert_eq!(all[..8], [1, 0, 0, 0, 0, 1, UPSTREAM, 6]);
    let bridges = [
        [2, 0, 0xff, 0],
        [3, 1, 1, 0],
        [2, 2, 0xff, 0],
        [3, 3, 1, 0],
        [2, 4, 0xff, 0],
        [2, 5, 0xff, 0],
    ];
    assert_eq!(all[8..], bridges.concat());
    let some = bench.run(0x5200, &[1, 2, 1, 0]).unwrap();
    assert_eq!(some[8..], bridges[1..3].concat());
    let none = bench.run(0x5200, &[6, 1, 1, 0]).unwrap();
    assert_eq!(none[4..], [0, 1, UPSTREAM, 6]);
    for wrong in [
        &[0, 0, 1, 0][..],
        &[0, 1, 1, 1],
        &[0, 1, 0],
        &[0, 1, 2, 0, 0],
    ] {
        assert_eq!(bench.run(0x5200, wrong), Err(INVALID_INPUT));
    }
}

#[test]
fn a_bridge_is_unbound_in_the_background_and_bound_again() {
    const WAIT_FOR_INTERRUPT: u32 = 0b101;
    let started = || Err(ReturnCode::BackgroundStarted);
    let mut bench = bench();
    for (option, wanted) in [
        (0, UnbindOption::LinkDown),
        (1, UnbindOption::ManagedHotRemove),
        (2, UnbindOption::SurpriseHotRemove),
    ] {
        let action = bench.begin(0x5202, &[0, 1, 0xf0 | option], WAIT_FOR_INTERRUPT);
        let (port, option) = (1, wanted);
        assert_eq!(action, Some(Action::Unbind { port, option }));
        bench.registers.complete(started(), &mut bench.effects);
        assert_eq!(bench.ended(), Err(ReturnCode::BackgroundStarted as u16));
        assert_eq!(bench.effects, [], "none for the doorbell");
        assert_eq!(bench.qword(STATUS) & 1, 1, "it goes on");
        assert_eq!(bench.qword(BACKGROUND), 0x5202);

        bench.ports[2].binding = Binding::Unbinding;
        assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [1, 0, 0x02, 0x52]);
        assert_eq!(bench.run(0x5101, &[1, 1]).unwrap()[5], 2);
        assert_eq!(bench.run(0x5100, &[]).unwrap()[68..72], [6, 0, 6, 0]);
        let bridges = bench.run(0x5200, &[1, 1, 1, 0]).unwrap();
        assert_eq!(bridges[8..], [1, 0, 0xff, 0]);
        let busy = ReturnCode::Busy as u16;
        assert_eq!(bench.run(0x5202, &[0, 0, 2]), Err(busy));
        assert_eq!(bench.run(0x5202, &[0, 1, 1]), Err(busy));
        let bind = [0, 1, 1, 0, 1, 0];
        assert_eq!(bench.run(0x5201, &bind), Err(busy));
        // A surprise need not wait.
        bench.action(0x5202, &[0, 1, 2]);
        bench.registers.complete(started(), &mut bench.effects);

        bench.registers.write(CONTROL, &4_u32.to_le_bytes());
        bench
            .registers
            .observe(bench.ports.clone(), &mut bench.effects);
        assert_eq!(bench.effects, [], "another port");
        bench.ports[2].binding = Binding::Unbound;
        bench
            .registers
            .observe(bench.ports.clone(), &mut bench.effects);
        assert_eq!(bench.effects, [Effect::Interrupt { vector: VECTOR }]);
        assert_eq!(bench.qword(STATUS) & 1, 0);
        assert_eq!(bench.qword(BACKGROUND), 100 << 16 | 0x5202);
        bench.effects.clear();

        assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [200, 0, 0x02, 0x52]);
        assert_eq!(bench.run(0x5101, &[1, 1]).unwrap()[5], 3);
        assert_eq!(bench.run(0x5100, &[]).unwrap()[68..72], [6, 0, 5, 0]);
        let bridges = bench.run(0x5200, &[1, 1, 1, 0]).unwrap();
        assert_eq!(bridges[8..], [0, 0, 0xff, 0]);
        assert_eq!(bench.run(0x5202, &[0, 1, 2]), Err(INVALID_INPUT), "twice");

        assert_eq!(bench.action(0x5201, &bind), Action::Bind { port: 1 });
        bench.registers.complete(started(), &mut bench.effects);
        bench.ports[2].binding = Binding::BeingBound;
        bench
            .registers
            .observe(bench.ports.clone(), &mut bench.effects);
        assert_eq!(bench.qword(BACKGROUND), 0x5201);
        assert_eq!(bench.run(0x5101, &[1, 1]).unwrap()[5], 1);
        assert_eq!(bench.run(0x5100, &[]).unwrap()[68..72], [6, 0, 5, 0]);
        let bridges = bench.run(0x5200, &[1, 1, 1, 0]).unwrap();
        assert_eq!(bridges[8..], [1, 0, 0xff, 0]);
        assert_eq!(bench.run(0x5201, &bind), Err(busy));
        assert_eq!(bench.run(0x5202, &[0, 1, 1]), Err(busy));
        assert_eq!(bench.run(0x5202, &[0, 0, 2]), Err(busy), "another");
        let (port, option) = (1, UnbindOption::SurpriseHotRemove);
        let action = bench.action(0x5202, &[0, 1, 2]);
        assert_eq!(action, Action::Unbind { port, option });
        let refused = Err(ReturnCode::InternalError);
        bench.registers.complete(refused, &mut bench.effects);
        bench.ports[2].binding = Binding::Bound;
        bench
            .registers
            .observe(bench.ports.clone(), &mut bench.effects);
        assert_eq!(bench.qword(BACKGROUND), 100 << 16 | 0x5201);
        assert_eq!(bench.run(0x5201, &bind), Err(INVALID_INPUT), "twice");
        bench.effects.clear();
    }
}

#[test]
fn what_cannot_be_bound_or_unbound_is_refused() {
    let mut bench = bench();
    for wrong in [[1, 0, 2], [0, 6, 2], [0, 0, 3], [0, 0, 0xf]] {
        assert_eq!(bench.run(0x5202, &wrong), Err(INVALID_INPUT), "{wrong:?}");
    }
    bench.ports[1].binding = Binding::Unbound;
    bench.ports[2].binding = Binding::Unbound;
    for wrong in [
        // Another virtual switch, bridge or port; a logical device of what has none, and the other way round.
        [1, 0, 0, 0, 0xff, 0xff],
        [0, 6, 6, 0, 0xff, 0xff],
        [0, 0, 1, 0, 0xff, 0xff],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0xff, 0xff],
        [0, 1, 1, 0, 2, 0],
        [0, 1, 1, 0, 1, 1],
    ] {
        assert_eq!(bench.run(0x5201, &wrong), Err(INVALID_INPUT), "{wrong:?}");
    }
    let action = bench.action(0x5201, &[0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(action, Action::Bind { port: 0 });
    // Whoever runs the switch cannot.
    let refused = Err(ReturnCode::Unsupported);
    bench.registers.complete(refused, &mut bench.effects);
    assert_eq!(bench.ended(), Err(ReturnCode::Unsupported as u16));
    assert_eq!(bench.qword(BACKGROUND), 0, "nothing was begun");
}

fn tunnel(port: u8, kind: u8, message: &[u8]) -> Vec<u8> {
    let len = (message.len() as u16).to_le_bytes();
    [&[port, kind][..], &len, message].concat()
}

#[test]
fn a_message_goes_to_a_device_and_its_answer_comes_back() {
    let mut bench = bench();
    let request = Message::request(9, 0x4000, &[]);
    let message = request.to_bytes();
    for port in [0, 1] {
        let action = bench.action(0x5300, &tunnel(port, 0, &message));
        let expected = Action::Tunnel {
            port,
            message: message.clone(),
        };
        assert_eq!(action, expected);
        let answer = request.answer(Ok(vec![7; 100])).to_bytes();
        bench
            .registers
            .complete(Ok(answer.clone()), &mut Vec::new());
        let expected = [&[112, 0, 0, 0][..], &answer].concat();
        assert_eq!(bench.ended(), Ok(expected));
    }
    let mut ends_with = |answer: Result<Vec<u8>, ReturnCode>| {
        bench.action(0x5300, &tunnel(1, 0, &message));
        bench.registers.complete(answer, &mut Vec::new());
        bench.ended().unwrap_err()
    };
    assert_eq!(ends_with(Err(ReturnCode::Busy)), ReturnCode::Busy as u16);
    let too_long = request.answer(Ok(vec![0; PAYLOAD_SIZE - 15])).to_bytes();
    assert_eq!(ends_with(Ok(too_long)), INVALID_INPUT);
    let internal = ReturnCode::InternalError as u16;
    assert_eq!(ends_with(Ok(vec![0; 3])), internal, "no message");
}

#[test]
fn messages_to_nobody_and_no_messages_are_refused() {
    let mut bench = bench();
    let message = Message::request(9, 0x4000, &[]).to_bytes();
    for port in [2, 4, 5, 6, UPSTREAM] {
        let result = bench.run(0x5300, &tunnel(port, 0, &message));
        assert_eq!(result, Err(INVALID_INPUT), "port {port}");
    }
    assert_eq!(bench.run(0x5300, &tunnel(3, 0, &message)), Err(RETRY));
    for wrong in [
        tunnel(1, 1, &message),
        tunnel(1, 2, &message),
        tunnel(1, 0, &message[1..]),
        tunnel(1, 0, &[1; 12]),
        tunnel(1, 0, &[]),
        [&tunnel(1, 0, &message)[..], &[0]].concat(),
    ] {
        assert_eq!(bench.run(0x5300, &wrong), Err(INVALID_INPUT));
    }
}

#[test]
fn a_virtual_bridge_reports_the_error_that_it_is_told() {
    let mut bench = bench();
    let request = |bridge: u8, error: u32| {
        let mut request = vec![0, bridge, 0, 0];
        request.extend(error.to_le_bytes());
        request.extend((1..=8_u32).flat_map(u32::to_le_bytes));
        request
    };
    for (error, uncorrectable, bit) in [(0x8000_0014, true, 20), (6, false, 6)] {
        let asked = bench.action(0x5203, &request(1, error));
        let header = [1, 2, 3, 4];
        assert_eq!(
            asked,
            Action::Error {
                port: 1,
                uncorrectable,
                bit,
                header
            }
        );
        bench.registers.complete(Ok(vec![]), &mut bench.effects);
        assert_eq!(bench.ended(), Ok(vec![]));
    }
    assert_eq!(bench.run(0x5203, &request(9, 6)), Err(INVALID_INPUT));
    let mut elsewhere = request(1, 6);
    elsewhere[0] = 1;
    assert_eq!(bench.run(0x5203, &elsewhere), Err(INVALID_INPUT));
}
