//! One host's part of the epoch kernel: its links and devices, and the search for the time that its
//! epoch takes while the other hosts' traffic stands as it is.

use std::collections::HashMap;

use crate::kernel::{Demand, HostModel, Neighbour, PRECISION, Penalty, Run, divide};
use crate::law::{LINE, LinkLaw};
use crate::topology::Topology;

/// Newton steps for one epoch. Two are usual, more come only near saturation.
const STEPS: usize = 30;
/// Relative gap from which on Newton's method is in its last steps.
const CLOSE: f64 = 0.1;
/// Relative length of a Newton step after which no other is needed: where the curve is flat, as it is
/// away from full servers, and where it is not.
const SMALL_STEP: (f64, f64) = (1e-3, 1e-4);

/// A host's servers: things that serve lines one after another. S2M and M2S of its link `i` are
/// at `2i` and `2i + 1`, the media of its path `p` after all links. Columns, so that the one loop
/// that counts runs on vectors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Servers {
    /// Time in which each serves what this host asks of it in the epoch, ns.
    pub(crate) busy: Vec<f64>,
    /// Load that other hosts put on it, below 1 where this host has any.
    pub(crate) others: Vec<f64>,
    /// `ρ/(1−ρ)` at the latest evaluation.
    queue: Vec<f64>,
    /// Its derivative by the time that the epoch takes.
    slope: Vec<f64>,
    /// Its place in [`Kernel::load`].
    pub(crate) global: Vec<usize>,
}

/// A link as one host sees it.
#[derive(Debug, Clone)]
pub(crate) struct LinkState {
    /// Place of the link above it among all links, from 1 and lower than its own; 0 for the host.
    above: usize,
    law: LinkLaw,
    /// ns that a line takes in each direction.
    line_ns: (f64, f64),
    demand: Demand,
}

#[derive(Debug, Clone)]
pub(crate) struct PathState {
    /// Index of its last link.
    leaf: usize,
    read_ns: f64,
    write_ns: f64,
    demand: Demand,
    media_wait: f64,
    media_line_ns: f64,
    pub(crate) latency_ns: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct HostState {
    model: HostModel,
    links: Vec<LinkState>,
    pub(crate) paths: Vec<PathState>,
    pub(crate) servers: Servers,
    /// Wait on each link and all above it, ns, and its derivative; nothing at 0, link `i` at `i + 1`.
    waits: Vec<(f64, f64)>,
    /// The longest of all busy times, ns.
    fullest: f64,
    /// Whether it meets no other host.
    alone: bool,
    pub(crate) stretched_ns: f64,
}

impl HostState {
    pub(crate) fn new(topology: &Topology, host: usize, model: HostModel) -> Self {
        let mut links: Vec<LinkState> = Vec::new();
        let mut known = HashMap::new();
        let mut paths = Vec::new();
        let (mut global, mut media_global) = (Vec::new(), Vec::new());
        for path in &topology.hosts[host].paths {
            let mut parent = None;
            for &link in &path.links {
                let law = topology.links[link].law;
                let local = *known.entry(link).or_insert_with(|| {
                    links.push(LinkState {
                        above: parent.map_or(0, |parent: usize| parent + 1),
                        law,
                        line_ns: (LINE / law.s2m, LINE / law.m2s),
                        demand: Demand::default(),
                    });
                    global.extend([2 * link, 2 * link + 1]);
                    links.len() - 1
                });
                parent = Some(local);
            }
            let Some(leaf) = parent else { continue };
            let media = topology.expanders[path.expander].media;
            media_global.push(2 * topology.links.len() + path.expander);
            paths.push(PathState {
                leaf,
                read_ns: topology.idle_read_ns(path),
                write_ns: topology.idle_write_ns(path),
                demand: Demand::default(),
                media_wait: media.wait,
                media_line_ns: LINE / media.bandwidth,
                latency_ns: topology.idle_read_ns(path),
            });
        }
        global.append(&mut media_global);
        let waits = vec![(0.0, 0.0); links.len() + 1];
        let zeros = vec![0.0; global.len()];
        let servers = Servers {
            busy: zeros.clone(),
            others: zeros.clone(),
            queue: zeros.clone(),
            slope: zeros,
            global,
        };
        Self {
            model,
            links,
            paths,
            servers,
            waits,
            fullest: 0.0,
            alone: topology.hosts.len() == 1,
            stretched_ns: 0.0,
        }
    }

    /// Takes an epoch's demands: busy time on every server.
    pub(crate) fn take(&mut self, demands: &[Demand]) {
        for link in &mut self.links {
            link.demand = Demand::default();
        }
        for (index, path) in self.paths.iter_mut().enumerate() {
            path.demand = demands.get(index).copied().unwrap_or_default();
            self.servers.busy[2 * self.links.len() + index] =
                (path.demand.reads + path.demand.writes) * path.media_line_ns;
            self.links[path.leaf].demand.add(&path.demand);
        }
        // Links stand after the ones above them, so backwards is upwards.
        for index in (0..self.links.len()).rev() {
            let link = &mut self.links[index];
            let demand = link.demand;
            let Demand {
                reads,
                writes,
                back_invalidates,
            } = demand;
            let (g, h) = (link.law.completion_share, link.law.request_share);
            self.servers.busy[2 * index] =
                (reads + g * (writes + back_invalidates)) * link.line_ns.0;
            self.servers.busy[2 * index + 1] =
                (writes + h * (reads + back_invalidates)) * link.line_ns.1;
            if let Some(above) = link.above.checked_sub(1) {
                self.links[above].demand.add(&demand);
            }
        }
        self.fullest = greatest(&self.servers.busy);
    }

    /// Takes what others ask of the expanders at the ends of this host's paths. Each has at most its fair part of a server,
    /// and what it really moves; the rest is this host's, which begins its search at its own fair part.
    pub(crate) fn meet(&mut self, neighbours: &[Neighbour]) {
        if neighbours.is_empty() && self.alone {
            return;
        }
        self.alone = neighbours.is_empty();
        self.servers.others.fill(0.0);
        let own_time = self.stretched_ns.max(1.0);
        let first_media = 2 * self.links.len();
        for (index, path) in self.paths.iter().enumerate() {
            let LinkState { law, line_ns, .. } = &self.links[path.leaf];
            let (g, h) = (law.completion_share, law.request_share);
            let here: Vec<&Neighbour> = neighbours.iter().filter(|n| n.path == index).collect();
            let busy = |n: &Neighbour| {
                let (reads, writes) = (n.reads_per_ns, n.writes_per_ns);
                [
                    (reads + g * writes) * line_ns.0,
                    (writes + h * reads) * line_ns.1,
                    (reads + writes) * path.media_line_ns,
                ]
            };
            let servers = [2 * path.leaf, 2 * path.leaf + 1, first_media + index];
            for (kind, server) in servers.into_iter().enumerate() {
                let own = self.servers.busy[server] / own_time;
                // Others are counted from 1.
                let mut wants = vec![(own, 0)];
                wants.extend(here.iter().map(|n| busy(n)[kind]).zip(1..));
                for (want, who, got) in divide(wants) {
                    if who > 0 {
                        let moved = want / here[who - 1].stretch.max(1.0);
                        self.servers.others[server] += moved.min(got);
                    } else if want > 0.0 {
                        self.stretched_ns = self.stretched_ns.max(want * own_time / got);
                    }
                }
            }
        }
    }

    /// Finds the stretched time by Newton's method within a bracket.
    pub(crate) fn solve(&mut self, run: &Run) {
        let held = self.stretched_ns.max(run.time_ns);
        let mut floor = run.time_ns;
        if self.alone {
            floor = floor.max(self.fullest);
        } else {
            for (&busy, &others) in self.servers.busy.iter().zip(&self.servers.others) {
                // Where others fill a server between two rounds, this host keeps what it has.
                if busy > 0.0 && others < 1.0 {
                    floor = floor.max((busy / (1.0 - others)).min(held));
                }
            }
        }
        let gap_at = |host: &mut Self, time: f64| {
            let (added, slope) = host.evaluate(time, run);
            (run.time_ns + added - time, slope)
        };
        // Next to a full server the curve is so steep that Newton's method crawls: start where the
        // latencies of the epoch before lead to, or else as far up as is still below the solution.
        let (mut low, mut high) = (floor, f64::INFINITY);
        let (mut time, mut gap, mut slope) = (floor, 0.0, 0.0);
        let again = run.time_ns + self.added(run);
        for start in [again, floor * 1.01, floor * (1.0 + 1e-5), floor] {
            time = start.max(floor);
            (gap, slope) = gap_at(self, time);
            let close = gap.abs() < CLOSE * time;
            if close || (gap > 0.0 && time > floor) {
                break;
            }
        }
        for _ in 0..STEPS {
            if gap.abs() <= PRECISION * time || (gap < 0.0 && time <= floor) {
                break;
            }
            if gap > 0.0 {
                low = time
            } else {
                high = time
            }
            let close = gap.abs() < CLOSE * time;
            // The bound of the posted-write buffer breaks convexity, so a step may go too far.
            let next = time + gap / (1.0 - slope);
            let inside = next >= low && next < high;
            let step = (next - time).abs();
            time = if inside { next } else { 0.5 * (low + high) };
            // The error that Newton's method leaves is of the order of the step's square.
            let small = if slope > -1.0 {
                SMALL_STEP.0
            } else {
                SMALL_STEP.1
            };
            if close && inside && step < small * time {
                break;
            }
            (gap, slope) = gap_at(self, time);
        }
        self.stretched_ns = time.max(floor);
    }

    /// Reads, and writes, that wait at the same time, as what each one's wait counts.
    fn overlap(&self, run: &Run) -> (f64, f64) {
        let parallelism = run
            .parallelism
            .clamp(1.0, self.model.outstanding_lines.max(1.0));
        (1.0 / parallelism, 1.0 / self.model.write_parallelism)
    }

    /// Time that latency adds where paths are as long as the latest evaluation left them.
    fn added(&self, run: &Run) -> f64 {
        let (overlap, write_overlap) = self.overlap(run);
        let HostModel {
            local_read_ns,
            local_write_ns,
            writeback_ns,
            ..
        } = self.model;
        let path_added = |path: &PathState| {
            let demand = &path.demand;
            let read_more = (path.latency_ns - local_read_ns).max(0.0);
            let wait = path.latency_ns - path.read_ns;
            let write_more = (path.write_ns + wait - local_write_ns).max(0.0);
            (demand.reads * read_more + demand.back_invalidates * path.latency_ns) * overlap
                + demand.writes * (write_more * write_overlap + writeback_ns)
        };
        self.paths.iter().map(path_added).sum()
    }

    /// Time that latency adds if the epoch takes `time`, and its derivative. Leaves each path's
    /// latency behind.
    fn evaluate(&mut self, time: f64, run: &Run) -> (f64, f64) {
        self.servers.evaluate(time);
        let per_time = 1.0 / time.max(f64::MIN_POSITIVE);
        let Servers {
            busy,
            others,
            queue,
            slope,
            ..
        } = &self.servers;
        let directions = queue
            .chunks_exact(2)
            .zip(slope.chunks_exact(2))
            .zip(busy.chunks_exact(2).zip(others.chunks_exact(2)));
        let mut waits = std::mem::take(&mut self.waits);
        for (index, (link, ((queue, slope), (busy, others)))) in
            self.links.iter().zip(directions).enumerate()
        {
            let law = &link.law;
            let own = busy[1] * per_time;
            let posted = law.m2s_wait * queue[1] + law.m2s_slope * (own + others[1]);
            let mut wait = waits[link.above];
            wait.0 += law.s2m_wait * queue[0];
            wait.1 += law.s2m_wait * slope[0];
            if posted < law.posted_wait {
                wait.0 += posted;
                wait.1 += law.m2s_wait * slope[1] - law.m2s_slope * own * per_time;
            } else {
                wait.0 += law.posted_wait;
            }
            waits[index + 1] = wait;
        }
        self.waits = waits;
        let (overlap, write_overlap) = self.overlap(run);
        let (mut added, mut derivative) = (0.0, 0.0);
        let media_servers = 2 * self.links.len();
        for (index, path) in self.paths.iter_mut().enumerate() {
            let Demand {
                reads,
                writes,
                back_invalidates,
            } = path.demand;
            if reads + writes + back_invalidates <= 0.0 {
                path.latency_ns = path.read_ns;
                continue;
            }
            let (media, media_slope) = self.servers.at(media_servers + index);
            let (wait, slope) = self.waits[path.leaf + 1];
            let wait = wait + path.media_wait * media;
            let slope = slope + path.media_wait * media_slope;
            path.latency_ns = path.read_ns + wait;
            let read_more = path.latency_ns - self.model.local_read_ns;
            let write_more = path.write_ns + wait - self.model.local_write_ns;
            let mut charge = |lines: f64, more: f64| {
                if more > 0.0 {
                    added += lines * more;
                    derivative += lines * slope;
                }
            };
            charge(reads * overlap, read_more);
            charge(back_invalidates * overlap, path.latency_ns);
            charge(writes * write_overlap, write_more);
            added += writes * self.model.writeback_ns;
        }
        (added, derivative)
    }

    /// Bounds the waits that the latest evaluation left behind by Little's law: where a link or a
    /// device is full, what waits for it is what the host can have under way.
    fn bound_latencies(&mut self) {
        let (mut idle, mut waiting) = (0.0, 0.0);
        for path in &self.paths {
            idle += path.demand.reads * path.read_ns;
            waiting += path.demand.reads * (path.latency_ns - path.read_ns);
        }
        let room = (self.model.outstanding_lines * self.stretched_ns - idle).max(0.0);
        if waiting > room {
            for path in &mut self.paths {
                path.latency_ns = path.read_ns + (path.latency_ns - path.read_ns) * room / waiting;
            }
        }
    }

    pub(crate) fn penalty(&mut self, run: &Run) -> Penalty {
        self.bound_latencies();
        let added_ns = (self.stretched_ns - run.time_ns).max(0.0);
        let bandwidth_ns = (self.fullest - run.time_ns).max(0.0);
        let faster = |path: &PathState| {
            path.demand.reads > 0.0 && path.latency_ns < self.model.local_read_ns
        };
        Penalty {
            added_ns,
            bandwidth_ns,
            not_representable: self.paths.iter().any(faster),
        }
    }
}

/// The greatest of many numbers, none below zero; in four strands, since one comparison waits for the
/// one before it.
fn greatest(numbers: &[f64]) -> f64 {
    let mut strands = [0.0f64; 4];
    for chunk in numbers.chunks(4) {
        for (strand, &number) in strands.iter_mut().zip(chunk) {
            if number > *strand {
                *strand = number;
            }
        }
    }
    strands.into_iter().fold(0.0, f64::max)
}

impl Servers {
    /// Computes every queue `ρ/(1−ρ)`, with `ρ = busy/time + others`, and its derivative, with one
    /// division for both.
    fn evaluate(&mut self, time: f64) {
        let least = 1e-9 * time + f64::MIN_POSITIVE;
        let own = self.busy.iter().zip(&self.others);
        for ((&busy, &others), (queue, slope)) in
            own.zip(self.queue.iter_mut().zip(&mut self.slope))
        {
            let free = time * (1.0 - others) - busy;
            let inverse = 1.0 / if free > least { free } else { least };
            *queue = (busy + others * time) * inverse;
            *slope = -busy * inverse * inverse;
        }
    }

    fn at(&self, server: usize) -> (f64, f64) {
        (self.queue[server], self.slope[server])
    }
}
