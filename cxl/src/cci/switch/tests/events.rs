//! What the event logs tell of ports (section 7.6.8).

use super::*;

/// Log, flags, number of records, and the handles of records that are to be cleared.
fn clear(log: u8, handles: &[u16]) -> Vec<u8> {
    let mut payload = vec![log, 0, handles.len() as u8, 0, 0, 0];
    payload.extend(handles.iter().flat_map(|handle| handle.to_le_bytes()));
    payload
}

/// What the records of a log hold behind the header: 16 bytes of UUID and 80 of data.
fn records(bench: &mut Bench, log: u8) -> Vec<(u32, Vec<u8>)> {
    let answer = bench.run(0x0100, &[log]).unwrap();
    let records = answer[0x20..].chunks(128);
    records
        .map(|record| {
            let uuid = u32::from_be_bytes(record[..4].try_into().unwrap());
            (uuid, record[48..].to_vec())
        })
        .collect()
}

const PHYSICAL: u32 = 0x77cf_9271;
const VIRTUAL: u32 = 0x40d2_6425;
const INFORMATIONAL: u8 = 0;
const WARNING: u8 = 1;

#[test]
fn a_link_that_changes_is_an_event_with_an_interrupt() {
    let mut bench = bench();
    // By MSI for each log, with the vector of events.
    bench.run(0x0103, &[1, 1, 1, 1]).unwrap();
    let vector = EVENT_VECTOR << 4 | 1;
    assert_eq!(bench.run(0x0102, &[]).unwrap(), [vector; 4]);
    assert_eq!(records(&mut bench, INFORMATIONAL), []);
    bench.effects.clear();
    let state = bench.run(0x5101, &[1, 0]).unwrap()[4..].to_vec();
    bench.ports[1].link = DOWN;
    bench.ports[1].attached = Some(Attached::Nothing);
    bench.ports[1].registers.slot_status = 0x0108;
    let ports = bench.ports.clone();
    bench.registers.observe(ports.clone(), &mut bench.effects);
    let vector = EVENT_VECTOR;
    assert_eq!(bench.effects, [Effect::Interrupt { vector }]);
    bench.registers.observe(ports, &mut bench.effects);
    assert_eq!(bench.dword(0x80), 1, "the status register shows the log");
    let found = records(&mut bench, INFORMATIONAL);
    assert_eq!(found.len(), 1, "nothing has changed since");
    let (uuid, data) = &found[0];
    assert_eq!(*uuid, PHYSICAL);
    // Port 0, link state change, slot status; then the state as it is now.
    assert_eq!(data[..5], [0, 0, 0x08, 0x01, 0]);
    let now = bench.run(0x5101, &[1, 0]).unwrap()[4..].to_vec();
    assert_eq!(data[5..19], now[1..15]);
    assert_ne!(state, now);
    assert!(data[19..].iter().all(|byte| *byte == 0));
    assert_eq!(bench.run(0x0101, &clear(INFORMATIONAL, &[2])), Err(0x0e));
    bench.run(0x0101, &clear(INFORMATIONAL, &[1])).unwrap();
    assert_eq!(bench.dword(0x80), 0);
    // Events wait for a host that has been reset, but do not interrupt it.
    bench.registers.reset();
    bench.effects.clear();
    bench.ports[1].link = UP;
    let ports = bench.ports.clone();
    bench.registers.observe(ports, &mut bench.effects);
    assert_eq!(bench.effects, []);
    assert_eq!(records(&mut bench, INFORMATIONAL).len(), 1);
    for log in [4, 0xff] {
        assert_eq!(bench.run(0x0100, &[log]), Err(INVALID_INPUT));
    }
    assert_eq!(bench.run(0x0103, &[2, 0, 0, 0]), Err(INVALID_INPUT));
    assert_eq!(bench.run(0x0103, &[0; 5]), Err(LENGTH));
}

#[test]
fn bridges_that_are_bound_and_unbound_are_told_and_failures_are_warnings() {
    let mut bench = bench();
    assert_eq!(records(&mut bench, INFORMATIONAL), []);
    // The second port, with one of several logical devices.
    let mut change = |binding| {
        bench.ports[2].binding = binding;
        bench.ports[2].registers.slot_control = 0x05c0;
        let ports = bench.ports.clone();
        bench.registers.observe(ports, &mut bench.effects);
        records(&mut bench, INFORMATIONAL)
    };
    assert_eq!(change(Binding::Unbinding).len(), 0, "not yet");
    let unbound = change(Binding::Unbound);
    // Virtual switch 0, bridge 1, binding change, unbound.
    assert_eq!(
        (unbound[0].0, &unbound[0].1[..6]),
        (VIRTUAL, &[0, 1, 0, 0, 0, 0xff][..])
    );
    assert_eq!(change(Binding::BeingBound).len(), 1);
    let bound = change(Binding::Bound);
    // Bound to logical device 1 at port 1; Link Control, Slot Control.
    assert_eq!(bound[1].1[..10], [0, 1, 0, 3, 1, 1, 0, 0, 0xc0, 0x05]);

    bench.action(0x5202, &[0, 1, 2]);
    let refused = Err(ReturnCode::Unsupported);
    bench.registers.complete(refused, &mut bench.effects);
    let failed = records(&mut bench, WARNING);
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].0, &failed[0].1[..6]),
        (VIRTUAL, &[0, 1, 0, 3, 1, 1][..])
    );
    // What asks for nothing to be bound fails without an event.
    bench.action(0x5102, &[1, 0]);
    bench
        .registers
        .complete(Err(ReturnCode::Busy), &mut bench.effects);
    assert_eq!(records(&mut bench, WARNING).len(), 1);
}
