//! Ports that are unbound from the host's virtual switch and bound to it again.

use pci::ResetKind;

use super::*;

const STARTED: u16 = ReturnCode::BackgroundStarted as u16;
const BUSY: u16 = ReturnCode::Busy as u16;
/// A flag of a link: the slot is off.
const OFF: u8 = 1 << 3;

/// Registers of the PCI Express capability, and bits of them.
const LINK_CONTROL: u16 = 0x10;
const LINK_DISABLE: u16 = 1 << 4;
const SLOT_CONTROL: u16 = 0x18;
const POWER_OFF: u16 = 1 << 10;
/// What the power indicator shows.
const BLINKING: u16 = 2 << 8;
const DARK: u16 = 3 << 8;
const SLOT_STATUS: u16 = 0x1a;
const BUTTON_PRESSED: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const PRESENT: u16 = 1 << 6;
const LINK_CHANGED: u16 = 1 << 8;

impl Bench {
    /// The host writes a word of the PCI Express capability of a port.
    fn host_writes(&mut self, port: u8, register: u16, data: u16) {
        let (node, at) = self.express(port, register);
        self.out.clear();
        self.hierarchy
            .function_write(node, at, &data.to_le_bytes(), &mut self.out);
        self.settle();
    }

    fn host_reads(&self, port: u8, register: u16) -> u16 {
        let (node, at) = self.express(port, register);
        self.hierarchy.get(node).unwrap().config().u16(at)
    }

    fn express(&self, port: u8, register: u16) -> (NodeId, u16) {
        let node = self.ports[usize::from(port)];
        let config = self.hierarchy.get(node).unwrap().config();
        let express = config.find_capability(spec::capability::PCI_EXPRESS);
        (node, express.unwrap() + register)
    }

    /// For how long a port wants to wait, in ns.
    fn rests_of(&mut self, port: u8) -> Vec<u64> {
        let node = self.ports[usize::from(port)];
        self.asked_by(node).alarms
    }

    /// The time of a port has come.
    fn advance(&mut self, port: u8) {
        let node = self.ports[usize::from(port)];
        self.hierarchy.with(node, &mut self.out, Device::advance);
        self.settle();
    }

    /// The state, port and logical device of a bridge of the virtual switch.
    fn bridge(&mut self, number: u8) -> [u8; 3] {
        let info = self.run(0x5200, &[number, 1, 1, 0]).unwrap();
        [info[8], info[9], info[10]]
    }
}

/// Unbinds the port of the shared device.
fn unbind(bench: &mut Bench, option: u8) {
    assert_eq!(bench.run(0x5202, &[0, SHARED, option]), Err(STARTED));
}

fn begin_to_bind(bench: &mut Bench) {
    let request = [0, SHARED, SHARED, 0, OWN, 0];
    assert_eq!(bench.run(0x5201, &request), Err(STARTED));
}

const BOUND: [u8; 3] = [3, SHARED, OWN];
const IN_PROGRESS: [u8; 3] = [1, 0, 0xff];
const UNBOUND: [u8; 3] = [0, 0, 0xff];
/// For 1 s, once.
const REST: [u64; 1] = [1_000_000_000];

#[test]
fn what_is_unbound_is_gone_for_the_host_and_still_there_for_the_fabric_manager() {
    let mut bench = bench();
    bench.commit(1);
    let before = bench.host_reads(SHARED, SLOT_STATUS);
    assert_eq!(before & (PRESENT | PRESENCE_CHANGED), PRESENT);
    unbind(&mut bench, 2);
    let device = bench.devices[1];
    assert!(bench.asked_by(device).decoders_changed);
    assert!(!bench.is_committed(1));
    assert_eq!(bench.bridge(SHARED), UNBOUND);
    assert_eq!(bench.vendor(1), NOBODY);
    let events = PRESENT | PRESENCE_CHANGED | LINK_CHANGED;
    let slot = bench.host_reads(SHARED, SLOT_STATUS) & events;
    assert_eq!(slot, PRESENCE_CHANGED | LINK_CHANGED);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [200, 0, 0x02, 0x52]);

    assert_eq!(bench.link(SHARED), [16, 5, UP]);
    assert!(bench.ask(SHARED, 0x5400, &[]).is_ok());
    // The fabric manager may reset the device, but not the host's bridge.
    let buses = |bench: &Bench| {
        let port = bench.hierarchy.get(bench.ports[1]).unwrap();
        port.config().buses_below()
    };
    for (control, link) in [(2, [16, 5, UP]), (0, [0, 0, UP | HELD]), (1, [16, 5, UP])] {
        assert_eq!(bench.run(0x5102, &[SHARED, control]), Ok(vec![]));
        assert_eq!(bench.link(SHARED), link);
        assert!(buses(&bench).is_some());
        assert_eq!(bench.vendor(1), NOBODY);
    }
    begin_to_bind(&mut bench);
    assert_eq!(bench.bridge(SHARED), BOUND, "a slot with power");
    assert_eq!(bench.vendor(1), VENDOR);
    let events = events | BUTTON_PRESSED;
    let slot = bench.host_reads(SHARED, SLOT_STATUS) & events;
    assert_eq!(slot, events & !BUTTON_PRESSED, "the link tells");
    assert!(bench.ask(SHARED, 0x5400, &[]).is_ok());
}

#[test]
fn an_orderly_unbinding_waits_until_the_host_has_switched_the_slot_off() {
    let mut bench = bench();
    unbind(&mut bench, 1);
    assert_eq!(bench.bridge(SHARED), IN_PROGRESS);
    assert_ne!(bench.host_reads(SHARED, SLOT_STATUS) & BUTTON_PRESSED, 0);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [1, 0, 0x02, 0x52]);
    assert_eq!(bench.vendor(1), VENDOR, "still at work");
    bench.commit(1);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF);
    assert!(!bench.is_committed(1));
    assert_eq!(bench.bridge(SHARED), UNBOUND);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [200, 0, 0x02, 0x52]);
    assert_eq!(bench.link(SHARED), [16, 5, UP]);

    bench.host_writes(SHARED, SLOT_STATUS, BUTTON_PRESSED | PRESENCE_CHANGED);
    begin_to_bind(&mut bench);
    assert_eq!(bench.rests_of(SHARED), REST);
    assert_eq!(bench.bridge(SHARED), IN_PROGRESS);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [1, 0, 0x01, 0x52]);
    let events = PRESENT | PRESENCE_CHANGED | BUTTON_PRESSED;
    assert_eq!(bench.host_reads(SHARED, SLOT_STATUS) & events, 0);
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), BOUND);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [200, 0, 0x01, 0x52]);
    assert_eq!(bench.host_reads(SHARED, SLOT_STATUS) & events, events);
    assert_eq!(bench.link(SHARED), [0, 0, UP | OFF]);
    assert_eq!(bench.vendor(1), NOBODY, "without power");
    bench.host_writes(SHARED, SLOT_CONTROL, 0);
    assert_eq!(bench.vendor(1), VENDOR);
    // Who lets nothing go may be passed over.
    unbind(&mut bench, 1);
    unbind(&mut bench, 2);
    assert_eq!(bench.bridge(SHARED), UNBOUND);
}

/// Switched off in order, and wanted back while the host has not finished.
fn wanted_back() -> Bench {
    let mut bench = bench();
    unbind(&mut bench, 1);
    bench.host_writes(SHARED, SLOT_STATUS, BUTTON_PRESSED);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | BLINKING);
    assert_eq!(bench.bridge(SHARED), UNBOUND);
    bench.host_writes(SHARED, SLOT_STATUS, PRESENCE_CHANGED | LINK_CHANGED);
    begin_to_bind(&mut bench);
    assert!(bench.rests_of(SHARED).is_empty(), "nobody knows how long");
    bench
}

#[test]
fn what_is_bound_comes_to_a_slot_that_is_off_when_its_light_is_off_too() {
    let events = PRESENT | PRESENCE_CHANGED | BUTTON_PRESSED;
    let mut bench = wanted_back();
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), IN_PROGRESS, "too early");
    let state = bench.run(0x5101, &[1, SHARED]).unwrap();
    assert_eq!(state[5], 1, "as the port says");
    assert_eq!(
        bench.run(0x5201, &[0, SHARED, SHARED, 0, OWN, 0]),
        Err(BUSY)
    );
    assert_eq!(bench.run(0x5202, &[0, SHARED, 1]), Err(BUSY));
    assert!(bench.ask(SHARED, 0x5400, &[]).is_ok());
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    assert_eq!(bench.rests_of(SHARED), REST);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    assert!(bench.rests_of(SHARED).is_empty(), "once");
    assert_eq!(bench.host_reads(SHARED, SLOT_STATUS) & events, 0);
    bench.advance(SHARED);
    assert_eq!(bench.host_reads(SHARED, SLOT_STATUS) & events, events);
    assert_eq!(bench.bridge(SHARED), BOUND);
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), BOUND, "an alarm too many");
}

#[test]
fn a_host_that_switches_the_light_without_end_has_set_one_alarm_and_waits_for_the_whole_rest() {
    let mut bench = wanted_back();
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    assert_eq!(bench.rests_of(SHARED), REST);
    for _ in 0..1000 {
        for light in [BLINKING, DARK] {
            bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | light);
            assert!(bench.rests_of(SHARED).is_empty(), "one is set");
        }
    }
    // Of the last rest, less than a second has passed.
    bench.advance(SHARED);
    assert_eq!(bench.rests_of(SHARED), REST);
    assert_eq!(bench.bridge(SHARED), IN_PROGRESS);
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), BOUND);
}

#[test]
fn a_rest_that_ends_while_the_light_is_on_counts_for_nothing() {
    let mut bench = wanted_back();
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | BLINKING);
    assert!(bench.rests_of(SHARED).is_empty(), "of the light that is on");
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), IN_PROGRESS);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    assert_eq!(bench.rests_of(SHARED), REST);
    bench.advance(SHARED);
    assert_eq!(bench.bridge(SHARED), BOUND);
}

#[test]
fn what_is_being_bound_comes_at_once_to_a_slot_that_is_switched_on_or_reset() {
    let events = PRESENT | PRESENCE_CHANGED | BUTTON_PRESSED | LINK_CHANGED;
    let mut bench = wanted_back();
    bench.host_writes(SHARED, SLOT_CONTROL, DARK);
    assert_eq!(bench.bridge(SHARED), BOUND);
    let slot = bench.host_reads(SHARED, SLOT_STATUS) & events;
    assert_eq!(slot, events & !BUTTON_PRESSED);
    assert_eq!(bench.vendor(1), VENDOR);

    let mut bench = wanted_back();
    let port = bench.ports[usize::from(SHARED)];
    bench.out.clear();
    bench.hierarchy.with(port, &mut bench.out, |port, out| {
        port.reset(ResetKind::Conventional, out);
    });
    bench.settle();
    assert_eq!(bench.bridge(SHARED), BOUND);
    assert_eq!(bench.link(SHARED), [16, 5, UP]);
}

#[test]
fn what_is_being_bound_can_be_taken_away_before_the_host_has_seen_it() {
    let mut bench = wanted_back();
    unbind(&mut bench, 2);
    assert_eq!(bench.bridge(SHARED), UNBOUND);
    assert_eq!(bench.run(0x0002, &[]).unwrap()[..4], [200, 0, 0x02, 0x52]);
    bench.host_writes(SHARED, SLOT_CONTROL, POWER_OFF | DARK);
    bench.advance(SHARED);
    let events = PRESENT | PRESENCE_CHANGED | BUTTON_PRESSED;
    assert_eq!(bench.host_reads(SHARED, SLOT_STATUS) & events, 0);
    assert_eq!(bench.bridge(SHARED), UNBOUND);
}

#[test]
fn an_unbinding_that_waits_for_the_link_ends_when_it_is_down_whoever_took_it_down() {
    for way in 0..3 {
        let mut bench = bench();
        unbind(&mut bench, 0);
        assert_eq!(bench.bridge(SHARED), IN_PROGRESS);
        let port = bench.ports[1];
        match way {
            0 => bench.host_writes(SHARED, LINK_CONTROL, LINK_DISABLE),
            1 => assert_eq!(bench.run(0x5102, &[SHARED, 0]), Ok(vec![])),
            _ => {
                bench.out.clear();
                bench.hierarchy.with(port, &mut bench.out, |device, out| {
                    if let Device::DownstreamPort(port) = device {
                        port.change_card(None, out);
                    }
                });
                bench.settle();
            }
        }
        assert_eq!(bench.bridge(SHARED), UNBOUND);
        assert_eq!(bench.vendor(1), NOBODY);
    }
}

#[test]
fn a_card_that_comes_to_an_unbound_port_is_seen_when_it_is_bound() {
    let mut bench = bench();
    assert_eq!(
        bench.run(0x5202, &[0, EMPTY, 1]),
        Err(STARTED),
        "nothing to wait for"
    );
    let port = bench.ports[2];
    let expander = Device::Type3(Box::new(expander()));
    bench.hierarchy.add(port, 0, 0, expander).unwrap();
    bench.hierarchy.with(port, &mut Vec::new(), |device, out| {
        if let Device::DownstreamPort(port) = device {
            port.change_card(Some(LINK), out);
            port.press_attention_button(out);
        }
    });
    let events = PRESENT | PRESENCE_CHANGED | BUTTON_PRESSED;
    assert_eq!(bench.host_reads(EMPTY, SLOT_STATUS) & events, 0);
    assert_eq!(bench.link(EMPTY), [16, 5, UP]);
    assert!(bench.ask(EMPTY, 0x0001, &[]).is_ok());
    let request = [0, EMPTY, EMPTY, 0, 0xff, 0xff];
    assert_eq!(bench.run(0x5201, &request), Err(STARTED));
    let slot = bench.host_reads(EMPTY, SLOT_STATUS) & events;
    assert_eq!(slot, PRESENT | PRESENCE_CHANGED);
}

#[test]
fn a_port_without_hot_plug_cannot_be_unbound() {
    let mut bench = bench();
    let unsupported = ReturnCode::Unsupported as u16;
    assert_eq!(bench.run(0x5202, &[0, SINGLE, 2]), Err(unsupported));
    assert_eq!(bench.bridge(SINGLE), [2, SINGLE, 0xff]);
    assert_eq!(bench.vendor(0), VENDOR);
}
