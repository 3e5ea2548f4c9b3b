//! Sources: the machine's performance counters, where it has them and this user may use them.
//!
//! [`Samples`] takes addresses from the hardware (PEBS on Intel, IBS on AMD): each is a load that memory answered, and
//! stands for as many as its period says. [`Counters`] only knows how many misses there were; the sampled page faults
//! ([`crate::faults`]) say where.

mod event;
mod ring;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use memsim::kernel::{Demand, Run};
use memsim::placement::Placement;

use self::event::{Counter, Kind, Sampling};
use self::ring::Record;
use crate::dataflow;
use crate::faults;
use crate::source::{self, AccessSource, Epoch, Facts};
use crate::sys::{Status, Tid};
use crate::tree::{Tree, Watch};

/// `PERF_TYPE_HW_CACHE`: the last level's misses of reads and of writes.
const CACHE: u32 = 3;
const READ_MISSES: u64 = 0x1_0002;
const WRITE_MISSES: u64 = 0x1_0102;
/// `MEM_LOAD_RETIRED.L3_MISS` (Intel event D1h, unit mask 20h).
const L3_MISS: u64 = 0x20d1;
/// IBS of operations: count operations, not cycles, and tag only those that missed the last level.
const IBS_COUNT_OPERATIONS: u64 = 1 << 19;
const IBS_MISSES_ONLY: u64 = 1 << 16;
/// Misses, and operations, between two samples; primes, so that no loop keeps step.
const MISS_PERIOD: u64 = 1009;
const OPERATION_PERIOD: u64 = 100_003;

/// An event that samples loads by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    name: &'static str,
    kind: Kind,
    period: u64,
    /// Whether all that it samples comes from memory.
    misses_only: bool,
}

/// What the PMUs under `devices`, as in `/sys/bus/event_source/devices`, offer.
fn candidates(devices: &Path) -> Vec<Candidate> {
    let kind = |pmu: &str| -> Option<u32> {
        let text = fs::read_to_string(devices.join(pmu).join("type")).ok()?;
        text.trim().parse().ok()
    };
    let mut found = Vec::new();
    if let Some(ibs) = kind("ibs_op") {
        let misses_only = devices.join("ibs_op/format/l3missonly").exists();
        found.push(Candidate {
            name: "IBS",
            kind: Kind {
                kind: ibs,
                config: IBS_COUNT_OPERATIONS | if misses_only { IBS_MISSES_ONLY } else { 0 },
                precise: 0,
            },
            period: OPERATION_PERIOD,
            misses_only,
        });
    }
    // Processors with two sorts of cores have a PMU for each; the fast ones are where memory is waited for.
    let intel = kind("cpu_core")
        .or(kind("cpu"))
        .filter(|_| found.is_empty());
    found.extend(intel.map(|kind| Candidate {
        name: "PEBS",
        kind: Kind {
            kind,
            config: L3_MISS,
            precise: 2,
        },
        period: MISS_PERIOD,
        misses_only: true,
    }));
    found
}

/// Why there is no hardware source here, in words.
fn absent(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => "this machine has none".into(),
        Some(libc::EACCES | libc::EPERM) => {
            "this user may not (see /proc/sys/kernel/perf_event_paranoid)".into()
        }
        _ => error.to_string(),
    }
}

/// Loads that the hardware samples, on each CPU.
#[derive(Debug)]
pub struct Events {
    rings: Vec<Sampling>,
    name: &'static str,
    misses_only: bool,
}

/// Begins to sample the loads of a process that has not begun to run, every `period`th event if that is given; says in
/// words why that cannot be.
pub fn sample(process: Tid, cpus: &[usize], period: Option<u64>) -> Result<Events, String> {
    let mut why = "no PMU that samples addresses".to_owned();
    for candidate in candidates(Path::new("/sys/bus/event_source/devices")) {
        let period = period.unwrap_or(candidate.period);
        let open = |cpu: &usize| Sampling::open(candidate.kind, period, process, *cpu as i32);
        match cpus.iter().map(open).collect() {
            Ok(rings) => {
                return Ok(Events {
                    rings,
                    name: candidate.name,
                    misses_only: candidate.misses_only,
                });
            }
            Err(error) => why = format!("no {}: {}", candidate.name, absent(&error)),
        }
    }
    Err(why)
}

/// Begins to count the misses of a process that has not begun to run; says in words why that cannot be.
pub fn count(process: Tid) -> Result<Counters, String> {
    let counter = |config| {
        let kind = Kind {
            kind: CACHE,
            config,
            precise: 0,
        };
        Counter::open(kind, process)
            .map_err(|error| format!("no counter of cache misses: {}", absent(&error)))
    };
    Ok(Counters {
        counters: [counter(READ_MISSES)?, counter(WRITE_MISSES)?],
        before: [0; 2],
    })
}

/// Misses of a process tree as the hardware counts them, epoch by epoch.
#[derive(Debug)]
pub struct Counters {
    counters: [Counter; 2],
    before: [u64; 2],
}

impl Counters {
    /// Reads and writes since the last call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&mut self) -> io::Result<(f64, f64)> {
        let mut grown = [0.0; 2];
        for ((counter, before), grown) in self.counters.iter().zip(&mut self.before).zip(&mut grown)
        {
            let now = counter.read()?;
            *grown = now.saturating_sub(*before) as f64;
            *before = now;
        }
        Ok((grown[0], grown[1]))
    }

    /// What a report must say besides what the page faults say.
    pub fn facts(&self, faults: Facts) -> Facts {
        Facts {
            name: "counters",
            method: format!(
                "misses of the last-level cache as the processor counts them, where to: {}",
                faults.method
            ),
            error: format!(
                "of the number: what prefetchers fetch is not in it; of the places: {}",
                faults.error
            ),
        }
    }
}

/// Gives the demands of an epoch the totals that were counted. Where no place is known all goes where most pages are.
pub fn scale(demands: &mut Vec<Demand>, reads: f64, writes: f64, fallback: usize) {
    if demands.iter().all(|demand| demand.reads <= 0.0) {
        let some = Demand {
            reads: 1.0,
            ..Demand::default()
        };
        source::add(demands, fallback, some);
    }
    let sampled: f64 = demands.iter().map(|demand| demand.reads).sum();
    for demand in demands {
        let share = demand.reads / sampled;
        demand.reads = reads * share;
        demand.writes = writes * share;
    }
}

/// A live target whose loads are sampled by the hardware.
pub struct Samples {
    tree: Tree,
    events: Events,
    epoch: Duration,
    local_ns: f64,
    parallelism: Option<f64>,
    samples: u64,
    lost: u64,
    done: bool,
}

impl Samples {
    /// Takes over a target that is held at its start, and events that [`sample`] opened for it.
    pub fn new(
        tree: Tree,
        events: Events,
        epoch: Duration,
        local_ns: f64,
        parallelism: Option<f64>,
    ) -> Self {
        Self {
            tree,
            events,
            epoch,
            local_ns,
            parallelism,
            samples: 0,
            lost: 0,
            done: false,
        }
    }

    /// The lines that the records of an epoch stand for, by node.
    fn demands(
        &mut self,
        records: impl IntoIterator<Item = Record>,
        placement: &mut Placement,
    ) -> Vec<Demand> {
        let mut demands = Vec::new();
        for record in records {
            match record {
                Record::Lost(lost) => self.lost += lost,
                Record::Sample(sample)
                    if sample.address != 0 && sample.is_from_memory(self.events.misses_only) =>
                {
                    self.samples += 1;
                    let page = placement.page(sample.process, sample.address);
                    let more = Demand {
                        reads: sample.period as f64,
                        ..Demand::default()
                    };
                    source::add(&mut demands, placement.touch(page), more);
                }
                Record::Sample(_) => {}
            }
        }
        demands
    }
}

/// Little's law: as many loads as arrive while one is under way were under way at once, and one where they are few.
fn misses_at_once(reads: f64, local_ns: f64, time_ns: f64) -> f64 {
    (reads * local_ns / time_ns.max(1.0)).clamp(1.0, dataflow::MOST)
}

impl AccessSource for Samples {
    fn facts(&self) -> Facts {
        Facts {
            name: "samples",
            method: format!("{} loads sampled by {}", self.samples, self.events.name),
            error: format!(
                "±{:.1} % from {} samples, {} lost; stores and what prefetchers fetch are not seen",
                100.0 / (self.samples.max(1) as f64).sqrt(),
                self.samples,
                self.lost
            ),
        }
    }

    fn next(&mut self, placements: &mut [Placement]) -> anyhow::Result<Option<Epoch>> {
        if self.done {
            return Ok(None);
        }
        let placement = &mut placements[0];
        let before = self.tree.ran();
        self.tree
            .run(&mut Unwatched, self.epoch)
            .context("cannot run the target")?;
        self.tree
            .hold(&mut Unwatched)
            .context("cannot stop the target")?;
        let time_ns = (self.tree.ran() - before).as_nanos() as f64;
        if self.tree.ending().is_some() {
            self.done = true;
            self.tree
                .hold_all(&mut Unwatched)
                .context("cannot stop what the target has left running")?;
            self.tree.detach().context("cannot let go of the target")?;
        }
        let rings = self.events.rings.iter_mut();
        let records: Vec<Record> = rings.flat_map(Sampling::drain).collect();
        let demands = self.demands(records, placement);
        let reads: f64 = demands.iter().map(|demand| demand.reads).sum();
        let run = Run {
            time_ns,
            parallelism: self
                .parallelism
                .unwrap_or_else(|| misses_at_once(reads, self.local_ns, time_ns)),
        };
        Ok(Some(Epoch {
            runs: vec![run],
            demands: vec![demands],
        }))
    }

    fn stand_still(&mut self, owed_ns: f64) -> anyhow::Result<f64> {
        let stopped = self.tree.stopped_at();
        if owed_ns >= faults::LEAST_PAUSE_NS {
            self.tree
                .stand_still(stopped + Duration::from_nanos(owed_ns as u64));
        }
        Ok(stopped.elapsed().as_nanos() as f64)
    }

    fn ending(&self) -> Option<Status> {
        self.tree.ending()
    }

    fn process(&self) -> Option<i32> {
        Some(self.tree.leader())
    }
}

/// Nothing of the target is watched.
struct Unwatched;

impl Watch for Unwatched {
    fn fault(&mut self, _: &mut Tree, _: Tid, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn enters_kernel(&mut self, _: &mut Tree, _: Tid, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn wants_calls(&self, _: Tid) -> bool {
        false
    }

    fn gone(&mut self, _: Tid) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(pmus: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in pmus {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_pmus_of_a_machine_say_how_its_loads_are_sampled() {
        let found = |pmus: &[(&str, &str)]| {
            let folder = devices(pmus);
            let found = candidates(folder.path());
            let kinds = found.iter();
            let kinds = kinds.map(|c| (c.name, c.kind.kind, c.kind.config, c.misses_only));
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(
            found(&[("cpu/type", "4\n"), ("software/type", "1\n")]),
            [("PEBS", 4, 0x20d1, true)]
        );
        assert_eq!(
            found(&[("cpu_core/type", "4\n"), ("cpu_atom/type", "10\n")]),
            [("PEBS", 4, 0x20d1, true)]
        );
        assert_eq!(
            found(&[("cpu/type", "4\n"), ("ibs_op/type", "9\n")]),
            [("IBS", 9, 1 << 19, false)]
        );
        assert_eq!(
            found(&[
                ("ibs_op/type", "9\n"),
                ("ibs_op/format/l3missonly", "config:16\n")
            ]),
            [("IBS", 9, 1 << 19 | 1 << 16, true)]
        );
        assert_eq!(found(&[("software/type", "1\n")]), []);
    }

    #[test]
    fn a_machine_without_counters_is_told_apart_from_a_user_without_rights() {
        let absent = |errno| absent(&io::Error::from_raw_os_error(errno));
        assert_eq!(absent(libc::ENOENT), "this machine has none");
        assert!(absent(libc::EACCES).contains("perf_event_paranoid"));
    }

    #[test]
    fn counted_misses_go_where_sampled_ones_went() {
        let reads = |reads| Demand {
            reads,
            ..Demand::default()
        };
        let mut demands = vec![reads(10.0), reads(0.0), reads(30.0)];
        scale(&mut demands, 1000.0, 200.0, 0);
        let pairs: Vec<(f64, f64)> = demands.iter().map(|d| (d.reads, d.writes)).collect();
        assert_eq!(pairs, [(250.0, 50.0), (0.0, 0.0), (750.0, 150.0)]);
        let mut nowhere = Vec::new();
        scale(&mut nowhere, 7.0, 0.0, 1);
        assert_eq!(nowhere[1].reads, 7.0);
    }

    #[test]
    fn as_many_loads_overlap_as_littles_law_says() {
        assert_eq!(misses_at_once(10.0, 100.0, 1e6), 1.0);
        assert_eq!(misses_at_once(4e4, 100.0, 1e6), 4.0);
        assert_eq!(misses_at_once(1e9, 100.0, 1e6), dataflow::MOST);
    }
}
