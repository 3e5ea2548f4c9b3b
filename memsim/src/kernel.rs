//! The epoch kernel: what the accesses of one epoch would have cost on the topology.
//!
//! For each host it is given how long the host ran and how many lines it moved on each path, and
//! returns by how much the epoch must be stretched. The loop is closed: a stretched epoch spreads
//! the same lines over more time, which lowers the load, which lowers the latency. With `T` the time
//! that the host ran and `x` the time that the epoch takes on the topology,
//!
//! ```text
//! x = max( T + Σ reads·(L(x) − L_local)/parallelism + Σ writes·(Lw(x) − Lw_local)/write_parallelism ,
//!          busy time of the fullest link direction or device )
//! ```
//!
//! The right side falls as `x` grows, so there is one solution; Newton's method finds it from below.
//! Above the busy time every load is under 1, so a host whose reads wait for their data can never
//! overload a link. The second line of the maximum is for writes, which nobody waits for.
//!
//! Hosts meet on shared links and devices: each is solved with the others' traffic given, in turn,
//! from a start at which the bandwidth is divided fairly (max-min), until nothing moves. Where each host has a kernel of
//! its own, somewhere else, it is told of the others by [`Neighbour`]s, and epoch by epoch they come to the same.

use crate::host::HostState;
use crate::topology::Topology;

/// Rounds over the hosts. Each round gains a factor; ten leave less than a thousandth.
const ROUNDS: usize = 40;
/// Relative change at which a solution counts as found.
pub(crate) const PRECISION: f64 = 1e-7;

/// What the kernel must know of a host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostModel {
    /// Latency of a read that the machine's own memory answers, ns. It is part of the run time
    /// already; only what a path costs more is added.
    pub local_read_ns: f64,
    /// The same for a write that somebody waits for, ns.
    pub local_write_ns: f64,
    /// Lines that the host may have under way at most: line-fill buffers and prefetchers of all its
    /// cores.
    pub outstanding_lines: f64,
    /// Written lines under way at once; a store retires before its line moves, so this is large.
    pub write_parallelism: f64,
    /// ns that each written line costs beyond that: the original's write-back weight.
    pub writeback_ns: f64,
}

impl Default for HostModel {
    fn default() -> Self {
        Self {
            local_read_ns: 85.0,
            local_write_ns: 85.0,
            outstanding_lines: 32.0,
            write_parallelism: 64.0,
            writeback_ns: 0.0,
        }
    }
}

/// Lines moved on one path in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Demand {
    /// Lines read: loads and read-for-ownership that the caches did not answer.
    pub reads: f64,
    /// Lines written back.
    pub writes: f64,
    /// Back-invalidate snoops that the device sent up this path: each is a header on S2M, its
    /// answer a header on M2S, and somebody waits for a round trip.
    pub back_invalidates: f64,
}

/// What one host did in one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// How long the host ran, ns.
    pub time_ns: f64,
    /// Mean number of reads under way while any was: 1 for a pointer chase.
    pub parallelism: f64,
}

/// What a host that is not in the topology asks of an expander that it shares: of its media, and of the edge right
/// above it. Edges further up are a host's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The path, of the host that is in the topology, that ends at the expander.
    pub path: usize,
    /// Lines that it would read in a ns if nothing delayed it.
    pub reads_per_ns: f64,
    /// Lines that it would write.
    pub writes_per_ns: f64,
    /// What an epoch of it takes over what it would take, at least 1: it moves so much less.
    pub stretch: f64,
}

/// By how much a host's epoch must be stretched.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Penalty {
    /// The stretch, ns: what is to be injected.
    pub added_ns: f64,
    /// What bandwidth alone asks for, ns.
    pub bandwidth_ns: f64,
    /// Whether a path used in this epoch is faster than the machine's own memory. Such a path
    /// cannot be shown by adding delay; it counts as no slower.
    pub not_representable: bool,
}

/// The kernel, with all the memory that it will ever use.
#[derive(Debug, Clone)]
pub struct Kernel {
    hosts: Vec<HostState>,
    penalties: Vec<Penalty>,
    /// Sum of all hosts' load on each server: S2M and M2S of link `i` at `2i` and `2i + 1`, then
    /// the media of the expanders.
    load: Vec<f64>,
}

impl Kernel {
    /// A kernel for a topology; every host of it is modelled alike.
    pub fn new(topology: &Topology, model: HostModel) -> Self {
        Self {
            hosts: (0..topology.hosts.len())
                .map(|host| HostState::new(topology, host, model))
                .collect(),
            penalties: vec![Penalty::default(); topology.hosts.len()],
            load: vec![0.0; 2 * topology.links.len() + topology.expanders.len()],
        }
    }

    /// Solves one epoch. `runs` has one entry for each host, `demands` one list for each host with
    /// one entry for each of its paths; what is missing counts as nothing. Returns one penalty for
    /// each host.
    pub fn epoch(&mut self, runs: &[Run], demands: &[&[Demand]]) -> &[Penalty] {
        let run = |index: usize| {
            runs.get(index).copied().unwrap_or(Run {
                time_ns: 0.0,
                parallelism: 1.0,
            })
        };
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.take(demands.get(index).copied().unwrap_or_default());
            host.stretched_ns = run(index).time_ns.max(0.0);
        }
        if let [host] = &mut self.hosts[..] {
            host.meet(&[]);
            host.solve(&run(0));
        } else {
            self.share_fairly();
            for _ in 0..ROUNDS {
                let mut change: f64 = 0.0;
                for index in 0..self.hosts.len() {
                    change = change.max(self.solve_among_others(index, &run(index)));
                }
                if change < PRECISION {
                    break;
                }
            }
        }
        for (index, (host, penalty)) in self.hosts.iter_mut().zip(&mut self.penalties).enumerate() {
            *penalty = host.penalty(&run(index));
        }
        &self.penalties
    }

    /// Solves one epoch of the only host of a topology, with what others make of the expanders that it shares with them.
    /// However much they ask for, it keeps its fair part.
    pub fn epoch_among(
        &mut self,
        run: Run,
        demands: &[Demand],
        neighbours: &[Neighbour],
    ) -> Penalty {
        let Some(host) = self.hosts.first_mut() else {
            return Penalty::default();
        };
        host.take(demands);
        host.stretched_ns = run.time_ns.max(0.0);
        host.meet(neighbours);
        host.solve(&run);
        host.penalty(&run)
    }

    /// Latency of a read on each of a host's paths in the latest epoch, ns.
    pub fn latencies(&self, host: usize) -> impl Iterator<Item = f64> {
        self.hosts
            .get(host)
            .into_iter()
            .flat_map(|host| host.paths.iter().map(|path| path.latency_ns))
    }

    /// Lower bound of each host's stretched time from bandwidth: its max-min fair part of every
    /// server that cannot carry what all hosts together ask of it.
    fn share_fairly(&mut self) {
        let asked: Vec<f64> = self
            .hosts
            .iter()
            .map(|host| host.stretched_ns.max(1.0))
            .collect();
        let mut wants: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.load.len()];
        for (index, host) in self.hosts.iter().enumerate() {
            for (&busy, &global) in host.servers.busy.iter().zip(&host.servers.global) {
                if busy > 0.0 {
                    wants[global].push((busy / asked[index], index));
                }
            }
        }
        for wants in wants {
            for (want, index, got) in divide(wants) {
                let host = &mut self.hosts[index];
                host.stretched_ns = host.stretched_ns.max(want * asked[index] / got);
            }
        }
    }

    /// Solves one host with the others' traffic as it stands; returns the relative change.
    fn solve_among_others(&mut self, index: usize, run: &Run) -> f64 {
        self.load.fill(0.0);
        for (other, host) in self.hosts.iter().enumerate() {
            let time = host.stretched_ns;
            if other != index && time > 0.0 {
                for (&busy, &global) in host.servers.busy.iter().zip(&host.servers.global) {
                    self.load[global] += busy / time;
                }
            }
        }
        let host = &mut self.hosts[index];
        let old = host.stretched_ns;
        for (others, &global) in host.servers.others.iter_mut().zip(&host.servers.global) {
            *others = self.load[global];
        }
        host.solve(run);
        if old > 0.0 {
            (host.stretched_ns / old - 1.0).abs()
        } else {
            0.0
        }
    }
}

/// Divides a server among those who want a part of it, as (part, who): yields (wanted, who, got). Nobody gets more than it
/// wants, and who gets less gets as much as anybody (max-min).
pub(crate) fn divide(mut wants: Vec<(f64, usize)>) -> impl Iterator<Item = (f64, usize, f64)> {
    wants.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut left, count) = (1.0, wants.len());
    wants
        .into_iter()
        .enumerate()
        .map(move |(place, (want, who))| {
            let got = f64::min(want, left / (count - place) as f64);
            left -= got;
            (want, who, got)
        })
}

impl Demand {
    /// Adds another demand to this one.
    pub fn add(&mut self, other: &Demand) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.back_invalidates += other.back_invalidates;
    }
}

/// Delay that is owed to a host and not yet injected. Nothing is ever dropped: what was added is
/// either paid or still owed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Debt {
    added_ns: f64,
    paid_ns: f64,
}

impl Debt {
    /// Adds a penalty, ns.
    pub fn add(&mut self, ns: f64) {
        self.added_ns += ns.max(0.0);
    }

    /// What is still owed, ns; never negative.
    pub fn owed_ns(&self) -> f64 {
        (self.added_ns - self.paid_ns).max(0.0)
    }

    /// All that was ever added, ns.
    pub fn added_ns(&self) -> f64 {
        self.added_ns
    }

    /// All that was ever paid, ns.
    pub fn paid_ns(&self) -> f64 {
        self.paid_ns
    }

    /// The host stood still for `ns`. Pays as much of the debt as that covers and returns the rest:
    /// time that the host lost beyond what it owed.
    pub fn pay(&mut self, ns: f64) -> f64 {
        let paid = ns.max(0.0).min(self.owed_ns());
        self.paid_ns += paid;
        ns.max(0.0) - paid
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "neighbour_tests.rs"]
mod neighbour_tests;
