//! Doorbells, messages and lines.

use super::*;

#[test]
fn a_doorbell_rings_its_event_until_it_is_dropped() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let ears = event.try_clone().unwrap();
    let doorbell = Mutex::new(Some(machine.vm.doorbell(DOORBELL.into(), event).unwrap()));
    let run = machine.run_with(
        Payload::default()
            .put(DOORBELL, 1)
            .put(DOORBELL, 2)
            .out8(HOOK)
            .put(DOORBELL, 3),
        move || drop(doorbell.lock().unwrap().take()),
    );
    assert_eq!(ears.read().unwrap(), 2);
    assert_eq!(run.seen, [store(DOORBELL, 3)]);
}

/// Local APIC registers: spurious vector with the enable bit, and pending interrupts 0x40 to 0x5f.
const APIC_SPURIOUS: u32 = 0xfee0_00f0;
const APIC_ENABLE: u32 = 0x1ff;
const APIC_PENDING_40: u32 = 0xfee0_0220;
/// An MSI to APIC id 0, edge, fixed, vector 0x43.
const MESSAGE: MsiMessage = MsiMessage {
    address: 0xfee0_0000,
    data: 0x43,
};

/// Waits with interrupts off until one of the vectors 0x40 to 0x5f is pending; reports which.
fn await_interrupt() -> Payload {
    Payload::default()
        .put(APIC_SPURIOUS, APIC_ENABLE)
        .out8(HOOK)
        .poll(APIC_PENDING_40)
        .out32(REPORT)
}

#[test]
fn an_msi_reaches_the_local_apic() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let interrupts = Arc::clone(machine.vm.interrupts());
    let run = machine.run_with(await_interrupt(), move || {
        interrupts.signal_msi(MESSAGE).unwrap()
    });
    assert_eq!(run.seen, [report(1 << 3)]);
}

#[test]
fn a_trigger_of_an_msi_route_reaches_the_local_apic() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let route = machine.vm.interrupts().msi_route().unwrap();
    route.set(Some(MESSAGE)).unwrap();
    let run = machine.run_with(await_interrupt(), move || route.trigger().unwrap());
    assert_eq!(run.seen, [report(1 << 3)]);
}

#[test]
fn a_trigger_of_a_masked_route_is_delivered_on_unmasking() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let route = machine.vm.interrupts().msi_route().unwrap();
    route
        .set(Some(MsiMessage {
            data: 0x44,
            ..MESSAGE
        }))
        .unwrap();
    route.set(None).unwrap();
    assert!(!route.is_pending());
    route.trigger().unwrap();
    assert!(route.is_pending());
    let run = machine.run_with(await_interrupt(), move || {
        route.set(Some(MESSAGE)).unwrap();
        assert!(!route.is_pending());
    });
    assert_eq!(run.seen, [report(1 << 3)]);
}

/// IOAPIC: register select, window, first redirection entry.
const IOAPIC_SELECT: u32 = 0xfec0_0000;
const IOAPIC_WINDOW: u32 = 0xfec0_0010;
const IOAPIC_REDIRECTION: u32 = 0x10;
const IOAPIC_LEVEL: u32 = 1 << 15;

/// Routes a pin to `entry` on APIC id 0.
fn redirect(pin: u32, entry: u32) -> Payload {
    Payload::default()
        .put(IOAPIC_SELECT, IOAPIC_REDIRECTION + 2 * pin + 1)
        .put(IOAPIC_WINDOW, 0)
        .put(IOAPIC_SELECT, IOAPIC_REDIRECTION + 2 * pin)
        .put(IOAPIC_WINDOW, entry)
}

#[test]
fn a_level_line_and_an_edge_event_reach_their_ioapic_pins() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let line = machine.vm.interrupts().line(9);
    let run = machine.run_with(
        redirect(9, IOAPIC_LEVEL | 0x45).raw(await_interrupt().bytes()),
        move || line.set(true).unwrap(),
    );
    assert_eq!(run.seen, [report(1 << 5)]);

    let Some(machine) = Machine::new() else {
        return;
    };
    let event = machine.vm.interrupts().edge(4).unwrap();
    let run = machine.run_with(
        redirect(4, 0x46).raw(await_interrupt().bytes()),
        move || {
            event.write(1).unwrap();
        },
    );
    assert_eq!(run.seen, [report(1 << 6)]);
}

#[test]
fn dropped_routes_give_their_gsi_back() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let interrupts = machine.vm.interrupts();
    for _ in 0..3 {
        // More at a time than there are GSIs left after them.
        let routes: Vec<_> = (0..2048).map(|_| interrupts.msi_route()).collect();
        assert!(routes.iter().all(Result::is_ok));
    }
}
