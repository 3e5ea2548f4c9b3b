//! The sampler on memory that is visited as a test says, with a clock that the test turns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;

const COSTS: Costs = Costs {
    take_away: 1_000.0,
    visit: 3_000.0,
};
const SECOND: f64 = 1e9;
const PAGES: u64 = 4096;
/// How often pages are counted, ns.
const EPOCH: f64 = 10e6;

/// Memory whose pages are all visited again and again.
struct Memory {
    now: Cell<f64>,
    /// When each page that was taken away is visited next.
    back: RefCell<BTreeMap<u64, f64>>,
    visit: Box<dyn Fn(u64, f64) -> f64 + Send>,
    taken: Cell<u64>,
    /// How late a thread wakes up at most, ns.
    late: f64,
    /// What each visit to a page that was away takes, in which the program gets no further, and what all of them took, ns.
    visit_takes: f64,
    taken_by_visits: Cell<f64>,
    /// When the next of them is, at the earliest.
    next: Cell<f64>,
}

impl Memory {
    /// `visit` tells for a page, and a moment, how long it is until somebody comes for it.
    fn new(visit: impl Fn(u64, f64) -> f64 + Send + 'static) -> Self {
        Self {
            now: Cell::new(0.0),
            back: RefCell::default(),
            visit: Box::new(visit),
            taken: Cell::new(0),
            late: 0.0,
            visit_takes: 0.0,
            taken_by_visits: Cell::new(0.0),
            next: Cell::new(f64::INFINITY),
        }
    }

    /// How far the program has got, ns of its own, after the visits that it has made by now.
    fn got(&self) -> f64 {
        let mut back = self.back.borrow_mut();
        loop {
            let got = self.now.get() - self.taken_by_visits.get();
            if got < self.next.get() {
                return got;
            }
            let next = back.iter().min_by(|a, b| a.1.total_cmp(b.1));
            match next.map(|(page, at)| (*page, *at)) {
                Some((page, at)) if at <= got => {
                    back.remove(&page);
                    self.taken_by_visits
                        .update(|taken| taken + self.visit_takes);
                }
                next => {
                    self.next.set(next.map_or(f64::INFINITY, |(_, at)| at));
                    return got;
                }
            }
        }
    }

    /// Runs a sampler on it for so long.
    fn run(&self, sampler: &mut Sampler, ns: f64) {
        let end = self.now.get() + ns;
        let mut epoch = self.now.get();
        while self.now.get() < end {
            if self.now.get() >= epoch {
                sampler.scan(self);
                epoch += EPOCH;
            }
            let due = sampler.step(&|| self.now.get(), self);
            // A thread that waits wakes up a little late.
            let woken = due.max(self.now.get());
            let late = 20_000.0 + self.late * share(woken.to_bits());
            self.now.set(woken + late);
        }
    }

    /// Lines that are counted in a ns, in the mean of so many of them, by a sampler whose faults are as slow as in a
    /// machine that is emulated.
    fn counted(&self, sampler: &mut Sampler, ns: f64) -> f64 {
        let end = self.now.get() + ns;
        let mut lines = 0.0;
        while self.now.get() < end {
            let began = self.now.get();
            self.run(sampler, EPOCH);
            lines += sampler.demands(1, self.now.get() - began, 0)[0].reads;
        }
        lines / (self.now.get() - end + ns)
    }
}

impl Pages for Memory {
    fn take_away(&self, hpa: u64) {
        let got = self.got();
        let back = got + (self.visit)(hpa / PAGE, got);
        self.back.borrow_mut().insert(hpa / PAGE, back);
        self.next.set(self.next.get().min(back));
        self.taken.set(self.taken.get() + 1);
    }

    fn look(&self, hpa: u64, there: &mut [bool]) {
        self.got();
        let back = self.back.borrow();
        for (page, there) in (hpa / PAGE..).zip(there) {
            *there = !back.contains_key(&page);
        }
    }
}

/// A walk through all pages, over and over, one round in `period`.
fn walk(period: f64) -> impl Fn(u64, f64) -> f64 {
    move |page, now| {
        let turn = period * page as f64 / PAGES as f64;
        (turn - now).rem_euclid(period)
    }
}

/// Visits at random, one to each page in `interval` in the mean.
fn scattered(interval: f64) -> impl Fn(u64, f64) -> f64 {
    move |page, now| {
        let seed = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now.to_bits();
        -interval * (1.0 - share(seed)).ln()
    }
}

/// Something from 0 to 1.
fn share(mut seed: u64) -> f64 {
    seed = (seed ^ (seed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((seed ^ (seed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

const EMULATED: Costs = Costs {
    take_away: 15_000.0,
    visit: 70_000.0,
};

fn sampled(memory: &Memory, ways: Vec<usize>) -> Sampler {
    let mut sampler = Sampler::new(COSTS);
    sampler.show([Area::new(0, PAGES * PAGE, ways)]);
    for _ in 0..SWEEP {
        sampler.scan(memory);
    }
    memory.run(&mut sampler, 2.0 * SECOND);
    sampler
}

#[track_caller]
fn assert_lines(sampler: &Sampler, wanted: f64) {
    let demands = sampler.demands(1, 1.0, 0);
    let ratio = demands[0].reads / wanted;
    assert!((0.75..1.33).contains(&ratio), "{ratio}");
}

#[test]
fn a_walk_is_all_lines_of_all_pages_in_every_round() {
    let memory = Memory::new(walk(8e6));
    let sampler = sampled(&memory, vec![0]);
    assert!(sampler.areas[0].walks.share() > 0.9);
    assert_lines(&sampler, PAGES as f64 * 64.0 / 8e6);
}

#[test]
fn scattered_visits_are_a_line_each() {
    let memory = Memory::new(scattered(8e6));
    let sampler = sampled(&memory, vec![0]);
    assert!(sampler.areas[0].walks.share() < 0.005);
    assert_lines(&sampler, PAGES as f64 / 8e6);
}

#[test]
fn interleaved_memory_loads_its_ways_alike() {
    let memory = Memory::new(scattered(8e6));
    let demands = sampled(&memory, vec![0, 2]).demands(3, 1e6, 0);
    assert_eq!(demands[0], demands[2]);
    assert!(demands[0].reads > 0.0);
    assert_eq!(demands[1].reads, 0.0);
}

#[test]
fn what_fits_into_the_cache_is_not_memory_traffic() {
    let memory = Memory::new(scattered(8e6));
    let sampler = sampled(&memory, vec![0]);
    let reads = |cache| sampler.demands(1, 1e6, cache)[0].reads;
    let there = sampler.areas[0].resident();
    assert_eq!(reads(there), 0.0);
    assert!((reads(there / 2) / reads(0) - 0.5).abs() < 0.01);
}

#[test]
fn memory_that_nobody_visits_is_left_alone_after_a_while() {
    let memory = Memory::new(|_, _| f64::INFINITY);
    let mut sampler = sampled(&memory, vec![0]);
    assert_eq!(sampler.demands(1, 1e6, 0)[0].reads, 0.0);
    // What nobody came for stays away, and so is not counted any more.
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    assert_eq!(
        sampler.areas[0].resident() / PAGE,
        PAGES - memory.taken.get()
    );
}

#[test]
fn sampling_keeps_to_its_budget() {
    let memory = Memory::new(scattered(100_000.0));
    let mut sampler = sampled(&memory, vec![0]);
    let cost = sampler.take_cost() + memory.taken.get() as f64 * COSTS.take_away;
    let share = cost / memory.now.get();
    assert!((0.5 * BUDGET..1.1 * BUDGET).contains(&share), "{share}");
    assert_eq!(sampler.take_cost(), 0.0);
}

#[test]
fn a_range_that_stays_is_known_when_another_comes() {
    let memory = Memory::new(scattered(8e6));
    let mut sampler = sampled(&memory, vec![0]);
    let known = sampler.areas[0].revisits;
    let other = Area::new(PAGES * PAGE, PAGES * PAGE, vec![1]);
    sampler.show([other, Area::new(0, PAGES * PAGE, vec![0])]);
    assert_eq!(sampler.areas[1].revisits, known);
    sampler.show([]);
    assert_eq!(
        sampler.step(&|| memory.now.get() + SECOND, &memory),
        memory.now.get() + SECOND + IDLE
    );
    sampler.scan(&memory);
    assert!(sampler.areas.is_empty());
}

#[test]
fn an_idle_range_does_not_keep_a_busy_one_from_being_sampled() {
    let busy = scattered(8e6);
    let memory = Memory::new(move |page, now| {
        if page < PAGES {
            busy(page, now)
        } else {
            f64::INFINITY
        }
    });
    let mut sampler = Sampler::new(COSTS);
    sampler.show([
        Area::new(0, PAGES * PAGE, vec![0]),
        Area::new(PAGES * PAGE, PAGES * PAGE, vec![1]),
    ]);
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    memory.run(&mut sampler, SECOND);
    let demands = sampler.demands(2, 1.0, 0);
    assert!((0.75..1.33).contains(&(demands[0].reads / (PAGES as f64 / 8e6))));
    assert_eq!(demands[1].reads, 0.0);
}

#[test]
fn a_program_that_ends_stops_to_cost() {
    let end = SECOND;
    let busy = scattered(8e6);
    let memory = Memory::new(move |page, now| {
        if now < end {
            busy(page, now)
        } else {
            f64::INFINITY
        }
    });
    let mut sampler = Sampler::new(COSTS);
    sampler.show([Area::new(0, PAGES * PAGE, vec![0])]);
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    memory.run(&mut sampler, SECOND);
    let reads = sampler.demands(1, 1.0, 0)[0].reads;
    memory.run(&mut sampler, 0.5 * SECOND);
    assert!(sampler.demands(1, 1.0, 0)[0].reads < 0.2 * reads);
}

#[test]
fn a_few_busy_pages_among_many_are_seen_where_faults_are_slow() {
    const BUSY: u64 = 4096;
    let busy = scattered(4.5e6);
    let memory = Memory::new(move |page, now| {
        if (8192..8192 + BUSY).contains(&page) {
            busy(page, now)
        } else {
            f64::INFINITY
        }
    });
    let mut sampler = Sampler::new(EMULATED);
    sampler.show([Area::new(0, 16 * BUSY * PAGE, vec![0])]);
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    let mut lines = 0.0;
    let (epoch, epochs) = (EPOCH, 800);
    for epochs_run in 0..epochs {
        memory.run(&mut sampler, epoch);
        if epochs_run >= epochs / 4 {
            lines += sampler.demands(1, epoch, 0)[0].reads;
        }
    }
    let wanted = BUSY as f64 / 4.5e6 * epoch * f64::from(epochs) * 0.75;
    assert!(
        (0.75..1.33).contains(&(lines / wanted)),
        "{}",
        lines / wanted
    );
}

#[test]
fn idle_pages_do_not_keep_busy_ones_from_being_sampled() {
    let busy = scattered(8e6);
    let memory = Memory::new(move |page, now| {
        if page % 8 == 0 {
            busy(page, now)
        } else {
            f64::INFINITY
        }
    });
    let sampler = sampled(&memory, vec![0]);
    assert_lines(&sampler, PAGES as f64 / 8.0 / 8e6);
    // One batch after the other would have seen a quarter of that.
    assert!(sampler.visits() > 80, "{}", sampler.visits());
}

#[test]
fn a_chase_is_counted_where_looks_come_late_and_are_few() {
    const LATE: f64 = 4e6;
    for interval in [2.5e6, 5e6, 10e6] {
        let mut memory = Memory::new(scattered(interval));
        memory.late = LATE;
        let mut sampler = Sampler::new(EMULATED);
        sampler.show([Area::new(0, PAGES * PAGE, vec![0])]);
        for _ in 0..SWEEP {
            sampler.scan(&memory);
        }
        memory.run(&mut sampler, SECOND);
        let counted = memory.counted(&mut sampler, 8.0 * SECOND);
        let ratio = counted / (PAGES as f64 / interval);
        assert!((0.7..1.4).contains(&ratio), "{interval}: {ratio}");
    }
}

#[test]
fn a_chase_in_memory_that_was_walked_through_before_is_one_soon() {
    let chase = 2.0 * SECOND;
    let (walk, scattered) = (walk(10e6), scattered(10e6));
    let mut memory = Memory::new(move |page, now| match now < chase {
        true => walk(page, now),
        false => scattered(page, now),
    });
    memory.late = 2e6;
    let mut sampler = Sampler::new(EMULATED);
    sampler.show([Area::new(0, PAGES * PAGE, vec![0])]);
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    memory.run(&mut sampler, chase);
    assert!(sampler.areas[0].walks.share() > 0.7, "the walk is known");
    memory.run(&mut sampler, SECOND);
    let ratio = memory.counted(&mut sampler, 4.0 * SECOND) / (PAGES as f64 / 10e6);
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
}

#[test]
fn a_chase_is_counted_at_what_it_makes_of_its_time_where_visits_take_some_of_it() {
    let mut memory = Memory::new(scattered(4e6));
    memory.late = 1e6;
    memory.visit_takes = EMULATED.visit;
    let mut sampler = Sampler::new(EMULATED);
    sampler.show([Area::new(0, PAGES * PAGE, vec![0])]);
    for _ in 0..SWEEP {
        sampler.scan(&memory);
    }
    memory.run(&mut sampler, SECOND);
    let (began, before) = (memory.now.get(), memory.got());
    let counted = memory.counted(&mut sampler, 8.0 * SECOND) * (memory.now.get() - began);
    let ratio = counted / (PAGES as f64 * (memory.got() - before) / 4e6);
    assert!((0.85..1.15).contains(&ratio), "{ratio}");
}
