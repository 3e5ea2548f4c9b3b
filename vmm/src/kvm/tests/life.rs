//! How a run begins, pauses and ends.

use super::*;

#[test]
fn the_64_bit_entry_has_the_zero_page_in_rsi_and_an_identity_map() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine
        .ram
        .guest()
        .write_obj(0x0011_2233_u32, GuestAddress(0x7000))
        .unwrap();
    // mov rax, [rsi]; then what is the same in 32-bit mode. A window near 4 GiB is mapped too.
    let payload = Payload::default()
        .raw(&[0x48, 0x8b, 0x06])
        .out32(REPORT)
        // mov ebx, 0xe000_0000; mov eax, [rbx]
        .raw(&[0xbb, 0, 0, 0, 0xe0, 0x8b, 0x03])
        .set(0)
        .out8(POWER);
    let entry = EntryState::Linux64 {
        rip: CODE.into(),
        boot_params: 0x7000,
    };
    let (control, bus) = machine.start(1, &payload, entry, || {});
    assert!(matches!(control.wait(), Outcome::PowerOff));
    assert_eq!(
        *bus.seen.lock().unwrap(),
        [report(0x0011_2233), load(0xe000_0000)]
    );
}

#[test]
fn a_triple_fault_ends_the_run_with_a_register_dump() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // Loads a selector beyond the GDT; the IDT is empty, so nothing can be delivered.
    let run = machine.run(Payload::default().set(0xfff8).raw(&[0x8e, 0xd8]));
    let Outcome::Dead(crash) = run.outcome else {
        panic!("{:?}", run.outcome)
    };
    assert_eq!(crash.cause, Cause::TripleFault);
    let dump = crash.to_string();
    assert!(dump.contains("rip 0000000000100005"), "{dump}");
    assert!(dump.contains("rax 000000000000fff8"), "{dump}");
    assert!(dump.contains("code at rip: 8e d8 b8"), "{dump}");
}

#[test]
fn a_guest_without_a_hypervisor_reads_unknown_registers_as_zero() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    machine.hypervisor = HypervisorBit::Hidden;
    // mov ecx, 0x1234_5678; wrmsr; rdmsr
    let msr = [0xb9, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x30, 0x0f, 0x32];
    let run = machine.run(Payload::default().set(0xffff).raw(&msr).out32(REPORT));
    assert_eq!(run.seen, [report(0)]);
    assert_eq!(run.control.exits().get(ExitCause::Msr), 2);
}

#[test]
fn a_reset_request_ends_the_run() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let run = machine.run(Payload::default().set(6).out8(POWER));
    assert!(matches!(run.outcome, Outcome::Reset));
    assert_eq!(run.control.state(), RunState::Stopped);
}

#[test]
fn a_paused_guest_stands_still_and_goes_on() {
    const COUNTER: u32 = 0x8000;
    let Some(machine) = Machine::new() else {
        return;
    };
    // The second processor waits for its INIT inside KVM: it must park as well.
    let payload = Payload::default().count_up(COUNTER);
    let (control, _bus) = machine.start(2, &payload, protected(), || {});
    let mut last = 0;
    for _ in 0..20 {
        wait_until(|| machine.word(COUNTER) > last);
        control.pause();
        assert_eq!(control.state(), RunState::Paused);
        last = machine.word(COUNTER);
        for _ in 0..100 {
            std::thread::yield_now();
            assert_eq!(machine.word(COUNTER), last);
        }
        control.resume();
        assert_eq!(control.state(), RunState::Running);
    }
    control.finish(Outcome::Quit);
    assert!(matches!(control.wait(), Outcome::Quit));
}

#[test]
fn a_held_guest_stands_still_without_being_paused() {
    const COUNTER: u32 = 0x8000;
    let Some(machine) = Machine::new() else {
        return;
    };
    let (control, _bus) =
        machine.start(1, &Payload::default().count_up(COUNTER), protected(), || {});
    wait_until(|| machine.word(COUNTER) > 0);
    assert!(control.cpu_time() > Duration::ZERO);
    assert_eq!(control.stood_still(), Duration::ZERO);
    control.hold();
    assert_eq!(control.state(), RunState::Running);
    control.pause();
    control.release();
    let last = machine.word(COUNTER);
    wait_until(|| control.stood_still() > Duration::from_micros(100));
    assert_eq!(machine.word(COUNTER), last, "it is still paused");
    control.resume();
    let stood_still = control.stood_still();
    wait_until(|| machine.word(COUNTER) > last);
    assert_eq!(control.stood_still(), stood_still);
    control.finish(Outcome::Quit);
    assert!(matches!(control.wait(), Outcome::Quit));
}

#[test]
fn a_halted_or_paused_guest_can_be_stopped() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let (control, _bus) = machine.start(1, &Payload::default().halt(), protected(), || {});
    control.pause();
    control.finish(Outcome::Quit);
    control.finish(Outcome::PowerOff);
    assert!(
        matches!(control.wait(), Outcome::Quit),
        "the first reason counts"
    );
    // Nobody is left to wait for.
    control.pause();
}

#[test]
fn a_panic_in_a_device_model_ends_the_run() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let run = machine.run_with(Payload::default().out8(HOOK).halt(), || {
        panic!("on purpose")
    });
    let Outcome::Dead(crash) = run.outcome else {
        panic!("{:?}", run.outcome)
    };
    assert_eq!(crash.cause, Cause::Panicked);
}
