//! Pages that are taken away come back when the guest comes for them, with what was in them.

use super::*;
use crate::kvm::presence::{PAGE, Pages, Presence};

fn there(pages: &Presence, page: u64) -> bool {
    let mut there = [false];
    pages.look(u64::from(WINDOW) + page * PAGE, &mut there);
    there[0]
}

#[test]
fn a_page_is_back_once_the_guest_has_read_or_written_it() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let file = machine.backing(0xcafe);
    let slots = machine.vm.memslots();
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    let pages = Arc::new(Presence::new(slots).unwrap());
    let far = WINDOW + 32 * PAGE as u32;
    let hooked = Arc::clone(&pages);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let run = machine.run_with(
        Payload::default()
            .put(far, 7)
            .load(WINDOW)
            .out8(HOOK)
            .load(WINDOW)
            .out32(REPORT)
            .out8(HOOK)
            .put(far, 8)
            .load(far)
            .out32(REPORT)
            .out8(HOOK),
        move || {
            let mut seen = record.lock().unwrap();
            seen.push((there(&hooked, 0), there(&hooked, 32)));
            if seen.len() == 1 {
                hooked.take_away(WINDOW.into());
                hooked.take_away(far.into());
                seen.push((there(&hooked, 0), there(&hooked, 32)));
            }
        },
    );
    let expected = [(true, true), (false, false), (true, false), (true, true)];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(run.seen, [report(0xcafe), report(8)]);
}

#[test]
fn nothing_is_there_where_nothing_is_mapped() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let pages = Presence::new(machine.vm.memslots()).unwrap();
    pages.take_away(WINDOW.into());
    assert!(!there(&pages, 0));
    // RAM is not sampled.
    let mut seen = [true; 4];
    pages.look(0, &mut seen);
    assert_eq!(seen, [false; 4]);
}

#[test]
fn what_sampling_costs_can_be_measured() {
    if Machine::new().is_none() {
        return;
    }
    let costs = page_costs().unwrap();
    assert!(costs.take_away > Duration::ZERO);
    assert!(costs.visit < DEADLINE);
}

/// The flags of the mapping that begins at `address`, as /proc says them.
fn flags_of(address: u64) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let begins = format!("{address:x}-");
    let lines = maps.lines().skip_while(|line| !line.starts_with(&begins));
    let flags = lines
        .filter_map(|line| line.strip_prefix("VmFlags:"))
        .next();
    let words = flags.unwrap_or_default().split_whitespace();
    words.map(String::from).collect()
}

#[test]
fn what_is_sampled_is_not_in_huge_pages() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let slots = machine.vm.memslots();
    slots.keep_pages_small();
    let file = machine.backing(0);
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    let address = slots.with_mapped(WINDOW.into(), PAGE, |address| address.as_ptr() as u64);
    let flags = flags_of(address.unwrap());
    assert!(flags.iter().any(|flag| flag == "nh"), "{flags:?}");
}
