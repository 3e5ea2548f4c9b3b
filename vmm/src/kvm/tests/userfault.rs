//! Pages that are watched: who comes for them is seen, and finds what was in them.

use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::*;
use crate::kvm::{PAGE, Userfault, Watched, WatchedRegion, WatchedSlots};

/// `None`, with a line that says so, on an old host.
fn userfault() -> Option<Arc<Userfault>> {
    match Userfault::new() {
        Ok(userfault) => Some(Arc::new(userfault)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Pages that somebody has come for, and whether to write.
fn seen(watched: &dyn Watched) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    watched.look(0..256, &mut |pages, written| {
        all.extend(pages.map(|page| (page, written)))
    });
    all
}

#[test]
fn a_page_is_seen_once_the_guest_has_read_or_written_it() {
    let (Some(machine), Some(userfault)) = (Machine::new(), userfault()) else {
        return;
    };
    let file = machine.backing(0xcafe);
    let slots = machine.vm.memslots();
    let watched = Arc::new(WatchedSlots::new(&userfault, slots, &file));
    slots
        .map(WINDOW.into(), 1 << 20, &file, 0, Permission::ReadWrite)
        .unwrap();
    assert_eq!(seen(&*watched), []);
    let (near, far) = (WINDOW + PAGE as u32, WINDOW + 32 * PAGE as u32);
    let hooked = Arc::clone(&watched);
    let looks = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&looks);
    let run = machine.run_with(
        Payload::default()
            .load(WINDOW)
            .out32(REPORT)
            .load(near)
            .put(far, 7)
            .out8(HOOK)
            .load(far)
            .out32(REPORT)
            .out8(HOOK)
            .put(near, 8)
            .put(far, 9)
            .out8(HOOK),
        move || {
            let mut looks = record.lock().unwrap();
            looks.push(seen(&*hooked));
            match looks.len() {
                1 => hooked.take_away(0..256),
                2 => hooked.protect(32..33),
                _ => {}
            }
        },
    );
    // A page that is read brings none of its neighbours.
    let expected: [&[_]; 3] = [
        &[(0, false), (1, false), (32, true)],
        &[(32, false)],
        &[(1, true), (32, true)],
    ];
    assert_eq!(*looks.lock().unwrap(), expected);
    assert_eq!(run.seen, [report(0xcafe), report(7)]);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 32 * PAGE).unwrap();
    assert_eq!(bytes, [9, 0, 0, 0]);
}

#[test]
fn two_mappings_of_a_file_are_watched_apart() {
    let Some(userfault) = userfault() else {
        return;
    };
    let file = Arc::new(memfd("test", 1 << 20, PageSize::Base).unwrap());
    let region = || {
        let offset = FileOffset::from_arc(Arc::clone(&file), 0);
        Arc::new(MmapRegion::from_file(offset, 1 << 20).unwrap())
    };
    let (one, other) = (region(), region());
    let watched = WatchedRegion::new(&userfault, &one).unwrap();
    let beside = WatchedRegion::new(&userfault, &other).unwrap();
    let at = |region: &MmapRegion, page: u64| {
        region
            .get_ref::<u32>((page * PAGE) as usize)
            .unwrap()
            .load()
    };
    let put = |region: &MmapRegion, page: u64, value: u32| {
        let cell = region.get_ref::<u32>((page * PAGE) as usize).unwrap();
        cell.store(value);
    };
    put(&one, 5, 0xbeef);
    assert_eq!((at(&other, 5), at(&other, 6)), (0xbeef, 0));
    assert_eq!(seen(&watched), [(5, true)]);
    assert_eq!(seen(&beside), [(5, false), (6, false)]);
    // What is seen of it may be had from the middle on.
    beside.take_away(0..6);
    assert_eq!(seen(&beside), [(6, false)]);
    watched.protect(5..6);
    assert_eq!(seen(&watched), [(5, false)]);
    put(&one, 5, 1);
    assert_eq!(seen(&watched), [(5, true)]);
    assert_eq!(at(&other, 5), 1);
}
