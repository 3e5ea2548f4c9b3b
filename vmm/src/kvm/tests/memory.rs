//! Memory slots: what the guest sees of a mapping, and what maps may be asked.

use super::*;

#[test]
fn mapped_memory_is_read_and_written_without_an_exit() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0xcafe);
    machine
        .vm
        .memslots()
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    let run = machine.run(
        Payload::default()
            .load(WINDOW)
            .out32(REPORT)
            .put(WINDOW, 0xbeef),
    );
    assert_eq!(run.seen, [report(0xcafe)]);
    assert_eq!(first_word(&file), 0xbeef);
}

#[test]
fn unmapped_memory_leaves_the_guest_again() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0xcafe);
    let slots = Arc::clone(machine.vm.memslots());
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    let run = machine.run_with(
        Payload::default()
            .load(WINDOW)
            .out32(REPORT)
            .out8(HOOK)
            .load(WINDOW)
            .out32(REPORT)
            .put(WINDOW, 1),
        // From inside an access, as the commit of a decoder does it.
        move || slots.unmap(WINDOW.into()).unwrap(),
    );
    assert_eq!(
        run.seen,
        [
            report(0xcafe),
            load(WINDOW),
            report(OPEN_BUS),
            store(WINDOW, 1)
        ]
    );
    assert_eq!(first_word(&file), 0xcafe);
}

#[test]
fn stores_to_read_only_memory_leave_the_guest_until_it_is_made_writable() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0xcafe);
    let slots = Arc::clone(machine.vm.memslots());
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadOnly)
        .unwrap();
    let run = machine.run_with(
        Payload::default()
            .put(WINDOW, 1)
            .load(WINDOW)
            .out32(REPORT)
            .out8(HOOK)
            .put(WINDOW, 2),
        move || slots.protect(WINDOW.into(), Permission::ReadWrite).unwrap(),
    );
    assert_eq!(run.seen, [store(WINDOW, 1), report(0xcafe)]);
    assert_eq!(first_word(&file), 2);
}

#[test]
fn mappings_that_break_a_rule_are_refused() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0);
    let slots = machine.vm.memslots();
    let map = |hpa: u64, len, offset| slots.map(hpa, len, &file, offset, Permission::ReadWrite);
    map(0x1000_0000, 0x2000, 0).unwrap();
    for (hpa, len, offset, why) in [
        (0x1000_1000, 0x1000, 0, "its second half is taken"),
        (0xfff_f000, 0x2000, 0, "its end is taken"),
        (0xfff_f000, 0x4000, 0, "it holds a mapping"),
        (0, 0x1000, 0, "RAM is there"),
        (0x3000_0000, 0x800, 0, "half a page"),
        (0x3000_0000, 0, 0, "nothing"),
        (0x3000_0800, 0x1000, 0, "in the middle of a page"),
        (0x3000_0000, 0x1000, 0x10, "an odd offset"),
        (0x3000_0000, 0x1000, 1 << 20, "behind the file"),
        (0x3000_0000, 0x1000, !0xfff, "an offset that overflows"),
        (!0xfff, 0x2000, 0, "an address that overflows"),
    ] {
        assert!(
            matches!(map(hpa, len, offset), Err(Error::Mapping { .. })),
            "{why}"
        );
    }
    assert!(matches!(
        slots.unmap(0x1000_1000),
        Err(Error::Mapping { .. })
    ));
    let protected = slots.protect(0x3000_0000, Permission::ReadOnly);
    assert!(matches!(protected, Err(Error::Mapping { .. })));
    // RAM and the one good mapping.
    assert_eq!(slots.list().len(), 2);
}

/// What models may rely on, whichever map they are given.
fn keeps_the_contract(map: &dyn MemoryMap, file: &Arc<File>) {
    let (hpa, other) = (u64::from(WINDOW), u64::from(DOORBELL));
    map.map(hpa, 0x2000, file, 0, Permission::ReadWrite)
        .unwrap();
    assert!(
        map.map(hpa + 0x1000, 0x1000, file, 0, Permission::ReadWrite)
            .is_err()
    );
    map.map(other, 0x1000, file, 0x1000, Permission::ReadOnly)
        .unwrap();
    map.protect(hpa, Permission::ReadOnly).unwrap();
    map.poison(hpa + 0x1000).unwrap();
    assert!(map.poison(hpa + 0x2000).is_err());
    assert!(map.poison(hpa + 8).is_err());
    map.heal(hpa + 0x1000).unwrap();
    map.unmap(hpa).unwrap();
    assert!(map.heal(hpa).is_err());
    assert!(map.unmap(hpa).is_err());
    assert!(map.protect(hpa, Permission::ReadOnly).is_err());
    map.map(hpa + 0x1000, 0x1000, file, 0, Permission::ReadWrite)
        .unwrap();
}

#[test]
fn the_recording_map_keeps_the_contract_of_the_real_one() {
    let file = Arc::new(memfd("test", 1 << 20, PageSize::Base).unwrap());
    let recorded = RecordedMap::default();
    keeps_the_contract(&recorded, &file);
    let Some(machine) = Machine::new() else {
        return;
    };
    let slots = machine.vm.memslots();
    keeps_the_contract(&**slots, &file);
    let place = |m: &Mapping| (m.hpa, m.len, m.offset, m.permission);
    let real: Vec<_> = slots
        .list()
        .iter()
        .filter(|m| m.hpa != 0)
        .map(place)
        .collect();
    assert_eq!(recorded.list().iter().map(place).collect::<Vec<_>>(), real);
}

#[test]
fn slot_numbers_are_used_again() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0);
    let slots = machine.vm.memslots();
    for _ in 0..3 {
        slots
            .map(WINDOW.into(), 4096, &file, 4096, Permission::ReadOnly)
            .unwrap();
        assert_eq!(
            slots.list()[1],
            Mapping {
                slot: 1,
                hpa: WINDOW.into(),
                len: 4096,
                offset: 4096,
                permission: Permission::ReadOnly
            }
        );
        slots.unmap(WINDOW.into()).unwrap();
    }
}
