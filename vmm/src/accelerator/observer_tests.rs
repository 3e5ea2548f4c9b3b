//! Two sides that come for pages, made up and real, and what the observer makes of it.

use std::collections::BTreeSet;

use cxl::coherence::model::Model;
use cxl::coherence::{Access, Side as By};
use devices::gpu::protocol::spec::STATISTICS;
use vm_memory::{FileOffset, VolatileMemory};

use super::*;
use crate::memory::{PageSize, memfd};

const PAGES: u64 = 200;
const MEMORY: u64 = PAGES * PAGE;

/// Page tables of which a test says who comes.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    read: BTreeSet<u64>,
    written: BTreeSet<u64>,
    /// What the observer did to them.
    done: Vec<String>,
}

impl Fake {
    /// A load or a store, and whether it was a page fault.
    fn come(&self, page: u64, write: bool) -> bool {
        let mut tables = self.0.lock().unwrap();
        let comes = tables.read.insert(page);
        let writes = write && tables.written.insert(page);
        comes || writes
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().done)
    }
}

impl Watched for Fake {
    fn look(&self, pages: Range<u64>, seen: &mut dyn FnMut(Range<u64>, bool)) {
        let tables = self.0.lock().unwrap();
        for page in tables.read.range(pages) {
            seen(*page..page + 1, tables.written.contains(page));
        }
    }

    fn take_away(&self, pages: Range<u64>) {
        let mut tables = self.0.lock().unwrap();
        tables.done.push(format!("away {pages:?}"));
        tables.read.retain(|page| !pages.contains(page));
        tables.written.retain(|page| !pages.contains(page));
    }

    fn protect(&self, pages: Range<u64>) {
        let mut tables = self.0.lock().unwrap();
        tables.done.push(format!("protect {pages:?}"));
        tables.written.retain(|page| !pages.contains(page));
    }
}

fn observed() -> (Observer, Fake, Fake) {
    let (host, device) = (Fake::default(), Fake::default());
    let observer = Observer::of(host.clone(), device.clone(), MEMORY).unwrap();
    observer.renew(0, MEMORY, &mut || ());
    host.done();
    device.done();
    (observer, host, device)
}

fn counter(observer: &Observer, name: &str) -> u64 {
    let mut named = STATISTICS.into_iter().zip(observer.statistics());
    named.find(|(other, _)| *other == name).unwrap().1
}

/// The counters that are not 0.
fn counters(observer: &Observer) -> Vec<(&'static str, u64)> {
    let named = STATISTICS.into_iter().zip(observer.statistics());
    let named = named.filter(|(name, count)| *count > 0 && !["epochs", "granule"].contains(name));
    named.collect()
}

#[test]
fn a_page_that_changes_hands_is_taken_away_or_protected() {
    let (observer, host, device) = observed();
    for page in 0..3 {
        host.come(page, true);
    }
    observer.boundary();
    assert_eq!((host.done(), device.done()), (vec![], vec![]));
    device.come(0, false);
    device.come(1, true);
    device.come(2, true);
    observer.boundary();
    assert_eq!(host.done(), ["away 1..3", "protect 0..1"]);
    assert_eq!(device.done(), [""; 0]);
    // Of what a side holds nothing is seen, and nothing costs a fault.
    assert!(!device.come(1, true) && !host.come(0, false));
    assert!(host.come(0, true));
    observer.boundary();
    assert_eq!(device.done(), ["away 0..1"]);
    assert_eq!(
        counters(&observer),
        [
            ("host_writes", 4),
            ("host_upgrades", 1),
            ("device_reads", 1),
            ("device_writes", 2),
            ("device_misses", 3),
            ("requests", 4),
            ("snoops_for_data", 1),
            ("snoops_to_invalidate", 2),
            ("snoop_responses", 3),
            ("host_write_backs", 3),
            ("device_fills", 3),
            ("link_bytes", 6 * PAGE),
        ]
    );
    assert_eq!(counter(&observer, "granule"), PAGE);
}

#[test]
fn both_sides_in_one_epoch_count_once_each_and_who_had_the_page_comes_first() {
    let (observer, host, device) = observed();
    device.come(7, true);
    observer.boundary();
    // It writes on, and the host writes too: that is seen once, and may have been often.
    host.come(7, true);
    device.come(7, true);
    observer.boundary();
    assert_eq!(device.done(), ["away 7..8"]);
    assert_eq!(counter(&observer, "device_write_backs"), 1);
    // Neither had this one: the host came first.
    device.come(8, true);
    host.come(8, true);
    observer.boundary();
    assert_eq!(host.done(), ["away 8..9"]);
    assert_eq!(counter(&observer, "host_write_backs"), 1);
}

#[test]
fn bias_flips_take_pages_away_and_the_host_takes_them_back() {
    let (observer, host, device) = observed();
    host.come(1, true);
    assert_eq!(observer.set_bias(0, 2 * PAGE, true), Ok(2));
    assert_eq!(host.done(), ["away 1..2"]);
    assert_eq!(counter(&observer, "flipped_lines"), 1);
    device.come(1, true);
    assert!(observer.is_device_biased(PAGE));
    host.come(1, false);
    assert!(!observer.is_device_biased(PAGE));
    assert_eq!(counter(&observer, "host_took_back"), 1);
    assert_eq!(device.done(), ["away 1..2"]);
    assert_eq!(observer.flip_bias(0, PAGE), Ok(1));
    assert!(observer.set_bias(0, MEMORY + PAGE, true).is_err());
    assert!(observer.flip_bias(MEMORY, PAGE).is_err());
}

#[test]
fn memory_that_begins_anew_is_held_by_nobody_and_its_zeros_are_no_access() {
    let (observer, host, device) = observed();
    host.come(3, true);
    observer.boundary();
    let before = counters(&observer);
    let zeros = device.clone();
    observer.renew(2 * PAGE, 2 * PAGE, &mut || {
        zeros.come(2, true);
        zeros.come(3, true);
    });
    assert_eq!(host.done(), ["away 2..4"]);
    assert_eq!(counters(&observer), before);
    // A page that is only in part in the range has another owner too.
    let zeros = device.clone();
    observer.renew(2 * PAGE + 256, 256, &mut || {
        zeros.come(2, true);
    });
    assert_eq!(counter(&observer, "device_writes"), 1);
}

/// Random accesses of both sides, one in each epoch: what is counted is what the model counts of those that cost a fault.
#[test]
fn counters_are_those_of_the_model_for_all_that_came() {
    let (observer, host, device) = observed();
    let mut model = Model::new(observer.lock().engine.config());
    let mut seed = 1_u64;
    let mut below = |limit: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % limit
    };
    for _ in 0..5000 {
        let page = below(20);
        let write = below(2) == 1;
        let (by, side) = match below(2) {
            0 => (By::Host, &host),
            _ => (By::Device, &device),
        };
        if below(10) == 0 {
            observer.set_bias(page * PAGE, PAGE, write).unwrap();
            let bias = if write {
                Access::DeviceBias
            } else {
                Access::HostBias
            };
            model.access(By::Device, bias, page * PAGE);
            continue;
        }
        if side.come(page, write) {
            let access = if write { Access::Write } else { Access::Read };
            model.access(by, access, page * PAGE);
        }
        observer.boundary();
        let (held, device_held) = model.ranks(page * PAGE);
        let rights = |side: &Fake| {
            let tables = side.0.lock().unwrap();
            (tables.read.contains(&page), tables.written.contains(&page))
        };
        assert_eq!(rights(&host), (held > 0, held == 3));
        assert_eq!(rights(&device), (device_held > 0, device_held == 3));
    }
    let expected = counted(model.statistics(), 0, PAGE);
    assert_eq!(observer.statistics()[..24], expected[..24]);
    // The trace says the same once more.
    let mut replayed = Model::new(observer.lock().engine.config());
    replayed.follow(&observer.trace(0, usize::MAX).events);
    assert_eq!(replayed.statistics(), model.statistics());
}

fn load(region: &MmapRegion, page: u64) -> u32 {
    let cell = region.get_ref((page * PAGE) as usize).unwrap();
    cell.load()
}

fn store(region: &MmapRegion, page: u64, value: u32) {
    let cell = region.get_ref((page * PAGE) as usize).unwrap();
    cell.store(value);
}

#[test]
fn real_page_tables_say_who_came() {
    let userfault = match Userfault::new() {
        Ok(userfault) => Arc::new(userfault),
        Err(error) => return println!("skipped: {error}"),
    };
    let file = Arc::new(memfd("test", MEMORY, PageSize::Base).unwrap());
    let [host, device] = [(); 2].map(|()| {
        let offset = FileOffset::from_arc(Arc::clone(&file), 0);
        Arc::new(MmapRegion::from_file(offset, MEMORY as usize).unwrap())
    });
    let watched = |region| WatchedRegion::new(&userfault, region).unwrap();
    let observer = Observer::of(watched(&host), watched(&device), MEMORY).unwrap();
    observer.renew(0, 8 * PAGE, &mut || {
        (0..8).for_each(|page| store(&device, page, 0));
    });
    assert_eq!(counters(&observer), []);
    // The host writes a message, a kernel answers, many times over.
    for turn in 1..=10 {
        store(&host, 0, turn);
        observer.boundary();
        assert_eq!(load(&device, 0), turn);
        store(&device, 1, turn + 1);
        observer.boundary();
        assert_eq!(load(&host, 1), turn + 1);
    }
    let expected = [
        ("host_writes", 10),
        ("host_reads", 10),
        ("device_reads", 10),
        ("device_writes", 10),
        ("host_upgrades", 9),
        ("device_upgrades", 9),
        ("snoops_for_data", 10),
        ("snoops_to_invalidate", 9),
        ("host_write_backs", 10),
        ("device_write_backs", 10),
    ];
    for (name, count) in expected {
        assert_eq!(counter(&observer, name), count, "{name}");
    }
    let before = counters(&observer);
    for _ in 0..10 {
        assert_eq!((load(&host, 1), load(&device, 0)), (11, 10));
        observer.boundary();
    }
    assert_eq!(counters(&observer), before, "nothing has changed hands");
    assert!(counter(&observer, "epochs") >= 30);
}
