//! Poisoned pages: who meets them, and how the guest learns of it.

use super::*;

/// Where the handler of machine checks lies, and the tables that lead to it.
const HANDLER: u32 = 0x8000;
const GDT: u32 = 0x500;
const IDT: u32 = 0x1000;
/// Operands of `lgdt` and `lidt`.
const GDT_POINTER: u32 = 0x600;
const IDT_POINTER: u32 = 0x610;
/// Vector of machine checks.
const MACHINE_CHECK: u32 = 18;
/// IA32_MCG_STATUS, and status and address of bank 1.
const MCG_STATUS: u32 = 0x17a;
const MC1_STATUS: u32 = 0x405;
const MC1_ADDR: u32 = 0x406;
/// A page in the window, behind its first.
const PAGE: u32 = 4096;

/// A machine with a window of 1 MiB whose second page is poisoned.
fn poisoned() -> Option<(Machine, Arc<File>)> {
    let machine = Machine::new()?;
    let file = machine.backing(0xcafe);
    file.write_all_at(&0xf00d_u32.to_le_bytes(), PAGE.into())
        .unwrap();
    let slots = machine.vm.memslots();
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    slots.poison((WINDOW + PAGE).into()).unwrap();
    Some((machine, file))
}

/// `mov ecx, register; rdmsr`, and what it gives to the port of reports.
fn report_msr(payload: Payload, register: u32) -> Payload {
    payload
        .raw(&[0xb9])
        .raw(&register.to_le_bytes())
        .raw(&[0x0f, 0x32])
        .out32(REPORT)
}

/// Puts a handler of machine checks into RAM that reports what it is told and powers off.
fn install_handler(machine: &Machine) {
    let write = |bytes: &[u8], at: u32| {
        let at = GuestAddress(at.into());
        machine.ram.guest().write_slice(bytes, at).unwrap();
    };
    let handler = [MC1_ADDR, MC1_STATUS, MCG_STATUS]
        .into_iter()
        .fold(Payload::default(), report_msr)
        // mov eax, [esp]: the instruction that did not run
        .raw(&[0x8b, 0x04, 0x24])
        .out32(REPORT)
        .set(0)
        .out8(POWER);
    write(handler.bytes(), HANDLER);
    // Flat 32-bit code and data, as the entry's segments.
    for (descriptor, at) in [
        (0x00cf_9b00_0000_ffff_u64, 0x10),
        (0x00cf_9300_0000_ffff, 0x18),
    ] {
        write(&descriptor.to_le_bytes(), GDT + at);
    }
    // An interrupt gate to the handler, in the code segment.
    let gate = [0x0010_0000 | HANDLER, 0x8e00].map(u32::to_le_bytes);
    write(gate.as_flattened(), IDT + 8 * MACHINE_CHECK);
    for (table, at) in [(GDT, GDT_POINTER), (IDT, IDT_POINTER)] {
        write(&0xff_u16.to_le_bytes(), at);
        write(&table.to_le_bytes(), at + 2);
    }
}

/// Turns machine checks on: `mov esp`, `lgdt`, `lidt`, and CR4.MCE (bit 6).
fn take_machine_checks(payload: Payload) -> Payload {
    payload
        .raw(&[0xbc])
        .raw(&HANDLER.to_le_bytes())
        .raw(&[0x0f, 0x01, 0x15])
        .raw(&GDT_POINTER.to_le_bytes())
        .raw(&[0x0f, 0x01, 0x1d])
        .raw(&IDT_POINTER.to_le_bytes())
        .raw(&[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x40, 0x0f, 0x22, 0xe0])
}

#[test]
fn a_load_of_poison_is_a_machine_check_at_its_address() {
    let Some((machine, _)) = poisoned() else {
        return;
    };
    install_handler(&machine);
    let before = take_machine_checks(Payload::default())
        .load(WINDOW)
        .out32(REPORT);
    let at = CODE + u32::try_from(before.bytes().len()).unwrap();
    let run = machine.run(before.load(WINDOW + PAGE).out32(REPORT));
    let [healthy, poison, address, status, global, instruction] = &run.seen[..] else {
        panic!("{:x?}, {:?}", run.seen, run.outcome);
    };
    assert_eq!(*healthy, report(0xcafe), "the page before is as it was");
    assert_eq!(*poison, Access::Poison((WINDOW + PAGE).into()));
    assert_eq!(*address, report(WINDOW + PAGE + 0x40));
    assert_eq!(*status, report(0x134));
    let Access::PortWrite(_, global) = global else {
        panic!("{global:?}");
    };
    assert_eq!(
        global[0] & 7,
        7,
        "restartable, at this instruction, in progress"
    );
    assert_eq!(*instruction, report(at), "the load has not run");
    assert!(
        matches!(run.outcome, Outcome::PowerOff),
        "{:?}",
        run.outcome
    );
}

#[test]
fn a_guest_that_takes_no_machine_checks_shuts_down() {
    let Some((machine, _)) = poisoned() else {
        return;
    };
    let run = machine.run(Payload::default().put(WINDOW + PAGE, 1));
    assert_eq!(run.seen, [Access::Poison((WINDOW + PAGE).into())]);
    let Outcome::Dead(crash) = run.outcome else {
        panic!("{:?}", run.outcome);
    };
    assert!(matches!(crash.cause, Cause::TripleFault), "{crash:?}");
}

#[test]
fn a_healed_page_has_its_bytes_again() {
    let Some((machine, file)) = poisoned() else {
        return;
    };
    let slots = Arc::clone(machine.vm.memslots());
    let before = slots.list();
    let run = machine.run_with(
        Payload::default()
            .out8(HOOK)
            .load(WINDOW + PAGE)
            .out32(REPORT)
            .put(WINDOW + PAGE, 0xbeef),
        move || {
            slots.heal((WINDOW + PAGE).into()).unwrap();
            assert_eq!(slots.list(), before);
        },
    );
    assert_eq!(run.seen, [report(0xf00d)]);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, PAGE.into()).unwrap();
    assert_eq!(u32::from_le_bytes(bytes), 0xbeef);
}

#[test]
fn only_pages_of_mappings_can_be_poisoned() {
    let Some((machine, _)) = poisoned() else {
        return;
    };
    let slots = machine.vm.memslots();
    for (hpa, why) in [
        (u64::from(WINDOW) + 8, "in the middle of a page"),
        (u64::from(WINDOW) + (1 << 20), "behind the mapping"),
        (0, "RAM"),
        (u64::MAX << 12, "nothing is there"),
    ] {
        assert!(
            matches!(slots.poison(hpa), Err(Error::Mapping { .. })),
            "{why}"
        );
        assert!(
            matches!(slots.heal(hpa), Err(Error::Mapping { .. })),
            "{why}"
        );
    }
}
