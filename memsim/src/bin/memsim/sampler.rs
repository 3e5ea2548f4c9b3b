//! Samples how often a target comes for its pages.
//!
//! A few pages at a time, chosen at random among all that the target has in memory, are made
//! inaccessible. The time on a CPU until the target comes for such a page tells how often
//! pages are visited. At some of these faults the visiting thread is followed for a few hundred
//! instructions: that tells how many lines a visit touches, how many of them it writes, and how many
//! misses overlap. From these:
//!
//! ```text
//! lines read = pages × visits per page and second × lines per visit × share that no cache holds
//! ```
//!
//! A page is made accessible again before any thread of its process enters the kernel, since the
//! kernel would refuse a system call on such a page instead of faulting.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use memsim::kernel::{Demand, Run};
use memsim::law::LINE;
use memsim::placement::Placement;

use crate::burst::{self, Burst};
use crate::calls;
use crate::maps::{self, PAGE};
use crate::remote::{self, Failure, Remote};
use crate::source::{self, Epoch, Facts};
use crate::sys::{self, Tid};
use crate::tree::{Tree, Watch};
use crate::visits::{Pattern, Visits};

/// Lines of a page.
const LINES: f64 = PAGE as f64 / LINE;
/// Share of run time that faults may cost.
const BUDGET: f64 = 0.04;
/// Cost of a fault, ns, until one was seen; how much of what is believed of it each one changes, and how many times that
/// one may be and count in full, if it is not very little.
const FIRST_FAULT: f64 = 100_000.0;
const LEARNT: f64 = 0.1;
const UNTYPICAL: f64 = 3.0;
const LEAST_COST: f64 = 1_000.0;
/// Lines of a visit below which visits count as scattered.
const SCATTERED: f64 = 4.0;
/// Misses under way until a burst has seen some.
const UNSEEN_PARALLELISM: f64 = 4.0;
/// First interval between two bursts; each is twice as long as the one before, up to the last.
const BURST_INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// A page that is inaccessible now.
#[derive(Debug, Clone, Copy)]
struct Armed {
    address: u64,
    protection: i32,
    node: usize,
    since: Duration,
}

/// A run of pages in memory.
#[derive(Debug, Clone, Copy)]
struct Resident {
    process: Tid,
    start: u64,
    pages: u64,
    protection: i32,
}

/// The sampler.
pub struct Sampler {
    remote: Remote,
    armed: HashMap<Tid, Vec<Armed>>,
    /// Pages made accessible in this epoch, and in the one before: a fault on one may be on its way.
    opened: [HashSet<(Tid, u64)>; 2],
    resident: Vec<Resident>,
    resident_at_scan: HashMap<Tid, u64>,
    nodes: Vec<Visits>,
    epoch_start: Duration,
    cache_lines: f64,
    bursts: Burst,
    next_burst: Duration,
    burst_interval: Duration,
    /// Mean cost of a fault to the target, ns, and the part of it that passes on the way here and back.
    fault_ns: f64,
    way_ns: f64,
    /// When the only thread went on after a fault, and for how long it had been on a CPU then; nothing if it may have slept
    /// since.
    went_on: Option<(Instant, Duration)>,
    stolen_ns: f64,
    faults: u64,
    parallelism: Option<f64>,
    random: u64,
}

impl Sampler {
    /// Nothing sampled yet, of pages on so many nodes.
    pub fn new(nodes: usize, cache_bytes: u64, parallelism: Option<f64>) -> Self {
        Self {
            remote: Remote::default(),
            armed: HashMap::new(),
            opened: [HashSet::new(), HashSet::new()],
            resident: Vec::new(),
            resident_at_scan: HashMap::new(),
            nodes: vec![Visits::default(); nodes],
            epoch_start: Duration::ZERO,
            cache_lines: cache_bytes as f64 / LINE,
            bursts: Burst::default(),
            next_burst: BURST_INTERVALS[0],
            burst_interval: BURST_INTERVALS[0],
            fault_ns: FIRST_FAULT,
            way_ns: FIRST_FAULT / 2.0,
            went_on: None,
            stolen_ns: 0.0,
            faults: 0,
            parallelism,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// What the report must say.
    pub fn facts(&self) -> Facts {
        let touched = self.faults.max(1) as f64;
        let visit = self.bursts.lines_per_visit();
        Facts {
            name: "faults",
            method: format!(
                "{} sampled page faults of {:.0} µs, {} bursts of instructions: {visit:.1} lines a visit, \
                 {:.0} % of them written, {:.1} misses at once",
                self.faults,
                self.fault_ns / 1e3,
                self.bursts.count(),
                100.0 * self.bursts.write_share(),
                self.misses_at_once(),
            ),
            error: format!(
                "±{:.0} % from {} samples, and ±{:.0} % from {} bursts, at one standard deviation; pages \
                 of very different heat add to it",
                100.0 / touched.sqrt(),
                self.faults,
                100.0 / (self.bursts.count().max(1) as f64).sqrt() * self.bursts.spread(),
                self.bursts.count(),
            ),
        }
    }

    /// What the epoch that has just ended came to. Waits are measured by the time that the target has been on a CPU: one
    /// that waits for something, or for a CPU, visits no pages.
    pub fn epoch(&mut self, tree: &mut Tree, time: Duration) -> Epoch {
        let time_ns = time.as_nanos() as f64;
        let now = tree.cpu();
        let cpu_ns = (now - self.epoch_start).as_nanos() as f64;
        let armed: Vec<Armed> = self.armed.values().flatten().copied().collect();
        for page in &armed {
            self.watched(page, now);
        }
        self.epoch_start = now;
        let visit = self.bursts.lines_per_visit();
        let active: f64 = self.nodes.iter().map(Visits::active_pages).sum();
        // A sweep finds nothing of a cache that is smaller than it; scattered accesses find of it
        // what share of their pages it holds.
        let footprint = active * LINES;
        let pattern = match visit {
            _ if self.bursts.count() == 0 => Pattern::Unknown,
            visit if visit > LINES / 2.0 => Pattern::Sweep,
            visit if visit < SCATTERED => Pattern::Scattered,
            _ => Pattern::Unknown,
        };
        let missing = if footprint <= self.cache_lines {
            0.0
        } else if pattern == Pattern::Sweep {
            1.0
        } else {
            1.0 - self.cache_lines / footprint
        };
        let mut demands = Vec::new();
        for (node, visits) in self.nodes.iter_mut().enumerate() {
            let reads = visits.per_ns(pattern) * cpu_ns * visit * missing;
            // The kernel has written every line of a fresh page.
            let writes = reads * self.bursts.write_share() + visits.fresh as f64 * LINES;
            log::debug!(
                "node {node}: {visits:?}, {visit:.1} lines a visit, {reads:.0} lines in {cpu_ns:.0} ns"
            );
            visits.fresh = 0;
            source::add(
                &mut demands,
                node,
                Demand {
                    reads,
                    writes,
                    back_invalidates: 0.0,
                },
            );
            visits.fade();
        }
        let parallelism = self.misses_at_once() * (cpu_ns / time_ns.max(1.0)).max(1.0);
        Epoch {
            runs: vec![Run {
                time_ns,
                parallelism,
            }],
            demands: vec![demands],
        }
    }

    /// The node with most pages.
    pub fn fullest_node(&self) -> usize {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .max_by_key(|(_, visits)| visits.pages)
            .map_or(0, |(node, _)| node)
    }

    /// Misses of a thread that overlap.
    fn misses_at_once(&self) -> f64 {
        self.parallelism
            .or(self.bursts.parallelism())
            .unwrap_or(UNSEEN_PARALLELISM)
    }

    /// Begins an epoch.
    pub fn begin(&mut self) {
        self.went_on = None;
        self.opened.swap(0, 1);
        self.opened[0].clear();
    }

    /// Time that faults have taken from the target since the last call, ns.
    pub fn take_stolen(&mut self) -> f64 {
        std::mem::take(&mut self.stolen_ns)
    }

    /// Looks for pages that have come or gone, where a process has grown or shrunk by a sixteenth.
    pub fn scan(&mut self, tree: &Tree, placement: &mut Placement) {
        let processes = tree.processes();
        let sizes: HashMap<Tid, u64> = processes
            .iter()
            .filter_map(|&process| Some((process, maps::resident_pages(process)?)))
            .collect();
        let changed = sizes.len() != self.resident_at_scan.len()
            || sizes.iter().any(|(process, &size)| {
                let known = self.resident_at_scan.get(process).copied().unwrap_or(0);
                size.abs_diff(known) * 16 > known.max(16)
            });
        if !changed {
            return;
        }
        self.resident_at_scan = sizes;
        self.resident.clear();
        for visits in &mut self.nodes {
            visits.pages = 0;
        }
        for process in processes {
            // A process that has just ended has no maps; wait will tell.
            let Ok(areas) = maps::read(process) else {
                continue;
            };
            for area in areas.iter().filter(|area| area.is_data()) {
                let protection = area.protection;
                let found = maps::resident(process, area, |start, pages| {
                    self.note_resident(
                        placement,
                        Resident {
                            process,
                            start,
                            pages,
                            protection,
                        },
                    );
                });
                if let Err(error) = found {
                    log::debug!("pages of {process}: {error}");
                }
            }
        }
    }

    fn note_resident(&mut self, placement: &mut Placement, run: Resident) {
        let per_page = (placement.page_bytes() / PAGE).max(1);
        let first = placement.page(run.process as u32, run.start);
        let last = placement.page(run.process as u32, run.start + (run.pages - 1) * PAGE);
        let found = placement.touch_run(first, last.number - first.number + 1);
        let total: u64 = found.iter().map(|&(all, _)| all).sum();
        for (visits, (all, fresh)) in self.nodes.iter_mut().zip(found) {
            // Large pages at the ends may be there in part only.
            visits.pages += (run.pages * all).div_ceil(total.max(1));
            visits.fresh += (fresh * per_page).min(run.pages);
        }
        self.resident.push(run);
    }

    /// Makes some pages inaccessible, as many as the budget allows.
    pub fn arm(
        &mut self,
        tree: &mut Tree,
        placement: &mut Placement,
        epoch: Duration,
    ) -> io::Result<()> {
        let now = tree.cpu();
        let total: u64 = self.resident.iter().map(|run| run.pages).sum();
        if total == 0 {
            return Ok(());
        }
        let wanted = (BUDGET * epoch.as_nanos() as f64 / self.fault_ns)
            .round()
            .clamp(1.0, 64.0) as usize;
        let mut have = 0;
        for process in tree.processes() {
            have += self.give_up_old(tree, process, now)?;
        }
        let mut picked: HashMap<Tid, Vec<Armed>> = HashMap::new();
        let mut vital: HashMap<Tid, Vec<Range<u64>>> = HashMap::new();
        for _ in have..wanted {
            let place = self.random() % total;
            let Some((run, address)) = self.pick(place) else {
                continue;
            };
            let process = run.process;
            if !tree.is_stopped(process) {
                continue;
            }
            let armed = self.armed.get(&process).into_iter();
            let known = armed
                .chain(picked.get(&process))
                .flatten()
                .any(|page| page.address == address);
            let vital = vital
                .entry(process)
                .or_insert_with(|| vital_ranges(tree, process));
            if known || vital.iter().any(|range| range.contains(&address)) {
                continue;
            }
            picked.entry(process).or_default().push(Armed {
                address,
                protection: run.protection,
                node: 0,
                since: now,
            });
        }
        for (process, pages) in picked {
            let Some(tid) = tree.stopped_thread(process) else {
                continue;
            };
            let none: Vec<(u64, i32)> = pages
                .iter()
                .map(|page| (page.address, libc::PROT_NONE))
                .collect();
            let result = self.remote.protect(tree, tid, &none);
            for (page, done) in pages.into_iter().zip(result.as_deref().unwrap_or_default()) {
                if *done {
                    let node = placement.touch(placement.page(process as u32, page.address));
                    let armed = self.armed.entry(process).or_default();
                    armed.push(Armed { node, ..page });
                }
            }
            remote::settle(tree, self, tid, result.map(drop))?;
        }
        Ok(())
    }

    /// Opens pages that nobody came for in time; returns how many of the process stay armed.
    fn give_up_old(&mut self, tree: &mut Tree, process: Tid, now: Duration) -> io::Result<usize> {
        let Some(armed) = self.armed.get(&process) else {
            return Ok(0);
        };
        let old = |page: &Armed| {
            (now - page.since).as_nanos() as f64 >= self.nodes[page.node].patience_ns()
        };
        if armed.iter().any(old)
            && tree.is_stopped(process)
            && let Some(tid) = tree.stopped_thread(process)
        {
            self.open_process(tree, tid)?;
        }
        Ok(self.armed.get(&process).map_or(0, Vec::len))
    }

    /// Makes all pages of a thread's process accessible, through that thread.
    fn open_process(&mut self, tree: &mut Tree, tid: Tid) -> io::Result<()> {
        let process = tree.thread(tid).map_or(tid, |thread| thread.process);
        let now = tree.cpu();
        let pages = self.armed.remove(&process).unwrap_or_default();
        for page in &pages {
            self.opened[0].insert((process, page.address));
            self.watched(page, now);
            let waited = (now - page.since).as_nanos() as f64;
            let visits = &mut self.nodes[page.node];
            if waited >= visits.patience_ns() {
                visits.never_came();
            } else {
                visits.cut_short();
            }
        }
        let open: Vec<(u64, i32)> = pages
            .iter()
            .map(|page| (page.address, page.protection))
            .collect();
        let result = self.remote.protect(tree, tid, &open);
        remote::settle(tree, self, tid, result.map(drop))
    }

    /// Counts the time for which a page was watched since the epoch began.
    fn watched(&mut self, page: &Armed, now: Duration) {
        let since = page.since.max(self.epoch_start);
        self.nodes[page.node].watched(now.saturating_sub(since).as_nanos() as f64);
    }

    /// Makes all pages of all processes accessible.
    pub fn open_all(&mut self, tree: &mut Tree) -> io::Result<()> {
        for process in tree.processes() {
            if let Some(tid) = tree.stopped_thread(process) {
                self.open_process(tree, tid)?;
            }
        }
        Ok(())
    }

    fn pick(&self, mut place: u64) -> Option<(Resident, u64)> {
        for run in &self.resident {
            if place < run.pages {
                return Some((*run, run.start + place * PAGE));
            }
            place -= run.pages;
        }
        None
    }

    /// A visit to an armed page by a stopped thread: counts it and opens the page.
    fn visit(&mut self, tree: &mut Tree, tid: Tid, page: Armed) -> Result<(), Failure> {
        let now = tree.cpu();
        self.faults += 1;
        self.watched(&page, now);
        self.nodes[page.node].visited((now - page.since).as_nanos() as f64);
        self.remote
            .protect(tree, tid, &[(page.address, page.protection)])?;
        if tree.ran() >= self.next_burst {
            // The thread may come to other armed pages on its way.
            self.open_process(tree, tid)?;
            burst::follow(&mut self.bursts, tree, tid, page.address)?;
            self.next_burst = tree.ran() + self.burst_interval;
            self.burst_interval = (2 * self.burst_interval).min(BURST_INTERVALS[1]);
        }
        Ok(())
    }

    /// From one fault to the next a thread that does not sleep is on a CPU, except while it waits to be let go on after the
    /// one, and for somebody to hear of the other: for CPUs to wake up, in the main. That is the greater part of what a
    /// fault costs where this program runs on another CPU than the target.
    fn learn_way(&mut self, tree: &mut Tree, heard: Instant) {
        if let Some((went_on, cpu)) = self.went_on.take() {
            let passed = heard.saturating_duration_since(went_on);
            let off = passed.saturating_sub(tree.cpu().saturating_sub(cpu));
            learn(&mut self.way_ns, off.as_nanos() as f64);
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Takes up a new figure into a mean. One that is far above it is of something else, such as of another program's turn.
fn learn(mean: &mut f64, new: f64) {
    let most = UNTYPICAL * mean.max(LEAST_COST);
    *mean += LEARNT * (new.min(most) - *mean);
}

/// Where the kernel may write behind a program's back: around stacks, and the blocks at thread pointers. Everywhere, if a
/// thread does not tell.
fn vital_ranges(tree: &Tree, process: Tid) -> Vec<Range<u64>> {
    const STACK: u64 = 256 << 10;
    const BLOCK: u64 = 4 * PAGE;
    let around = |at: u64, reach: u64| at.saturating_sub(reach)..at.saturating_add(reach);
    tree.threads()
        .filter(|(_, thread)| thread.process == process)
        .flat_map(|(tid, _)| match sys::registers(tid) {
            Ok(registers) => [
                around(registers.rsp, STACK),
                around(registers.fs_base, BLOCK),
            ],
            Err(_) => [0..u64::MAX, 0..0],
        })
        .collect()
}

impl Watch for Sampler {
    fn fault(&mut self, tree: &mut Tree, tid: Tid, address: u64) -> io::Result<bool> {
        let start = Instant::now();
        let process = tree.thread(tid).map_or(tid, |thread| thread.process);
        let address = address & !(PAGE - 1);
        let armed = self.armed.get_mut(&process);
        let place = armed
            .as_ref()
            .and_then(|armed| armed.iter().position(|page| page.address == address));
        let (Some(armed), Some(place)) = (armed, place) else {
            return Ok(self
                .opened
                .iter()
                .any(|opened| opened.contains(&(process, address))));
        };
        let page = armed.swap_remove(place);
        self.opened[0].insert((process, address));
        self.learn_way(tree, start);
        let followed = self.bursts.count();
        let result = self.visit(tree, tid, page);
        remote::settle(tree, self, tid, result)?;
        let threads = tree.threads().count().max(1);
        let cost = start.elapsed().as_nanos() as f64 + self.way_ns;
        self.stolen_ns += cost / threads as f64;
        if self.bursts.count() == followed {
            learn(&mut self.fault_ns, cost);
        }
        self.went_on = (threads == 1).then(|| (Instant::now(), tree.cpu()));
        Ok(true)
    }

    fn enters_kernel(&mut self, tree: &mut Tree, tid: Tid, call: bool) -> io::Result<()> {
        self.went_on = None;
        let process = tree.thread(tid).map_or(tid, |thread| thread.process);
        if self.armed.get(&process).is_none_or(Vec::is_empty) {
            return Ok(());
        }
        if call {
            let Some((number, arguments)) = sys::entered_call(tid)? else {
                return Ok(());
            };
            let pages = self.armed.get(&process).map_or(&[][..], Vec::as_slice);
            if let Some(ranges) = calls::ranges(number, &arguments)
                && !pages
                    .iter()
                    .any(|page| calls::touch(&ranges, page.address, PAGE))
            {
                return Ok(());
            }
            let result = self.remote.retreat(tid);
            remote::settle(tree, self, tid, result)?;
        }
        self.open_process(tree, tid)
    }

    fn wants_calls(&self, process: Tid) -> bool {
        self.armed
            .get(&process)
            .is_some_and(|armed| !armed.is_empty())
    }

    fn gone(&mut self, process: Tid) {
        self.armed.remove(&process);
        self.remote.forget(process);
        self.resident.retain(|run| run.process != process);
        self.resident_at_scan.remove(&process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fault_costs_is_learnt_from_all_and_changed_little_by_another_programs_turn() {
        let mut mean = FIRST_FAULT;
        for _ in 0..60 {
            learn(&mut mean, 20_000.0);
        }
        assert!((20_000.0..21_000.0).contains(&mean), "{mean}");
        learn(&mut mean, 4e6);
        assert!(mean < 26_000.0, "{mean}");
        for _ in 0..200 {
            learn(&mut mean, 0.0);
        }
        for _ in 0..60 {
            learn(&mut mean, 110_000.0);
        }
        assert!((100_000.0..=110_000.0).contains(&mean), "{mean}");
    }
}
