//! How the guest's accesses reach the bus.

use super::*;

#[test]
fn port_and_memory_accesses_reach_the_bus_with_their_width_and_data() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let run = machine.run(
        Payload::default()
            .set(0x1234_5678)
            .out32(REPORT)
            .out8(REPORT)
            .in32(0x600)
            .out32(REPORT)
            .load(WINDOW)
            .put(WINDOW + 4, 7),
    );
    assert!(matches!(run.outcome, Outcome::PowerOff));
    assert_eq!(
        run.seen,
        [
            report(0x1234_5678),
            Access::PortWrite(REPORT, vec![0x78]),
            Access::PortRead(0x600, 4),
            report(OPEN_BUS),
            load(WINDOW),
            store(WINDOW + 4, 7),
        ]
    );
    let exits = run.control.exits();
    assert_eq!(exits.get(ExitCause::PortRead), 1);
    assert_eq!(exits.get(ExitCause::MmioRead), 1);
    assert_eq!(exits.get(ExitCause::MmioWrite), 1);
}

#[test]
fn a_string_write_reaches_the_bus_element_by_element() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine
        .ram
        .guest()
        .write_slice(b"abcdef", GuestAddress(0x8000))
        .unwrap();
    // mov esi, 0x8000; mov ecx, 3; mov edx, REPORT; rep outsw
    let program = Payload::default().raw(&[
        0xbe, 0, 0x80, 0, 0, 0xb9, 3, 0, 0, 0, 0xba, 0, 5, 0, 0, 0xf3, 0x66, 0x6f,
    ]);
    let words: Vec<_> = ["ab", "cd", "ef"]
        .map(|word| Access::PortWrite(REPORT, word.into()))
        .into();
    assert_eq!(machine.run(program).seen, words);
}
