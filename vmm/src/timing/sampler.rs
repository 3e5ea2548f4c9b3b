//! Counts accesses to CXL memory by sampled page faults.
//!
//! A few pages at a time, picked at random among those that the guest has touched, are taken away and looked at again
//! after 50 µs, 100 µs, 200 µs and so on: how soon the guest comes for them tells how often pages are visited
//! ([`memsim::revisits`]). They are taken in pairs that lie close together. Where one is found and the other no later
//! than at the next look the guest walks from page to page, and a visit is all lines of a page; else it is one.

use memsim::kernel::Demand;
use memsim::revisits::Revisits;

use super::area::Area;
use crate::kvm::{AROUND, PAGE, Pages};

/// Most pairs of pages that are taken away at once, and for how long that may keep from looking, ns.
const PAIRS: usize = 8;
const TAKING: f64 = 100_000.0;
/// Most batches of a range that are away at once: pages that nobody comes for are not to keep others from being sampled.
const BATCHES: usize = 8;
/// Share of a vCPU's time that sampling may cost.
const BUDGET: f64 = 0.02;
/// When to ask again while nothing is there to be sampled, ns.
const IDLE: f64 = 10e6;
/// Most blocks of 2 MiB that are counted at once, and in how many calls all are.
const MOST_BLOCKS: usize = 64;
const SWEEP: usize = 100;

/// What a sampled page costs, ns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// To take it away, in the sampler's thread.
    pub take_away: f64,
    /// For the guest to come for it.
    pub visit: f64,
}

/// A page that is away, times in ns.
#[derive(Debug, Clone, Copy)]
struct Away {
    hpa: u64,
    since: f64,
    looked: f64,
    /// Place of the pair in its batch.
    pair: usize,
}

/// What two pages that lie close together have told.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pair {
    /// Both are away.
    Away,
    /// Somebody came for one of them, between the last two looks.
    One,
    /// What they can.
    Decided,
}

/// Pages that were taken away together.
#[derive(Debug, Clone)]
struct Batch {
    away: Vec<Away>,
    pairs: [Pair; PAIRS],
    began: f64,
    /// When to look at them.
    due: f64,
}

/// What of one range is away.
#[derive(Debug, Clone, Default)]
struct Watch {
    batches: Vec<Batch>,
    /// When the latest began, and when the budget allows another.
    began: f64,
    next: f64,
}

impl Watch {
    /// When there is something to do.
    fn due(&self) -> f64 {
        let another = match self.batches.len() < BATCHES {
            true => self.next,
            false => f64::INFINITY,
        };
        let due = self.batches.iter().map(|batch| batch.due);
        due.fold(another, f64::min)
    }

    /// Whether one read might bring back what lies at `hpa` and something that is away.
    fn is_near(&self, hpa: u64) -> bool {
        let mut away = self.batches.iter().flat_map(|batch| &batch.away);
        away.any(|away| near(hpa, away.hpa))
    }
}

/// Whether the host's kernel may map both for a read of one.
fn near(one: u64, other: u64) -> bool {
    one / (AROUND * PAGE) == other / (AROUND * PAGE)
}

/// The sampler. It has no thread and no clock of its own.
#[derive(Debug)]
pub struct Sampler {
    areas: Vec<Area>,
    /// One for each of them.
    watches: Vec<Watch>,
    costs: Costs,
    /// What has been paid for visits since somebody asked.
    cost: f64,
    visits: u64,
    scanned: (usize, usize),
    random: u64,
}

impl Sampler {
    /// Nothing sampled yet.
    pub fn new(costs: Costs) -> Self {
        Self {
            areas: Vec::new(),
            watches: Vec::new(),
            costs,
            cost: 0.0,
            visits: 0,
            scanned: (0, 0),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The ranges that are shown now; what is known of those that stay is kept.
    pub fn show(&mut self, shown: impl IntoIterator<Item = Area>) {
        let shown: Vec<Area> = shown.into_iter().collect();
        let same = |a: &Area, b: &Area| (a.hpa, a.len, &a.ways) == (b.hpa, b.len, &b.ways);
        let unchanged = shown.len() == self.areas.len()
            && shown.iter().zip(&self.areas).all(|(a, b)| same(a, b));
        if unchanged {
            return;
        }
        let mut known = std::mem::take(&mut self.areas);
        let keep = |area| match known.iter().position(|known| same(known, &area)) {
            Some(place) => known.swap_remove(place),
            None => area,
        };
        self.areas = shown.into_iter().map(keep).collect();
        self.watches = vec![Watch::default(); self.areas.len()];
    }

    /// Visits that were seen.
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// How far off the counts may be, for people.
    pub fn error(&self) -> String {
        let busy = self.areas.iter().filter(|area| area.lines_per_ns() > 0.0);
        let Some(area) = busy.max_by(|a, b| a.lines_per_ns().total_cmp(&b.lines_per_ns())) else {
            return "no visits yet".into();
        };
        format!(
            "±{:.0} % of visits at one standard deviation; {:.0} % of them count as walks of {} lines, the others as \
             one line; writes count as reads",
            100.0 * area.revisits.error(),
            100.0 * area.walks.share(),
            PAGE / memsim::law::LINE as u64
        )
    }

    /// What the visits that were seen have cost the guest since the last call, ns.
    pub fn take_cost(&mut self) -> f64 {
        std::mem::take(&mut self.cost)
    }

    /// The guest did not run for a while: what was away then tells nothing.
    pub fn skip(&mut self) {
        self.watches.fill(Watch::default());
    }

    /// Does what is due at this moment of the vCPUs' time, in ns; returns when to come again.
    pub fn step(&mut self, clock: &dyn Fn() -> f64, pages: &dyn Pages) -> f64 {
        for index in 0..self.areas.len() {
            for batch in 0..self.watches[index].batches.len() {
                if clock() >= self.watches[index].batches[batch].due {
                    self.look(index, batch, clock, pages);
                }
            }
            let watch = &mut self.watches[index];
            watch.batches.retain(|batch| !batch.away.is_empty());
            if watch.batches.len() < BATCHES && clock() >= watch.next {
                self.begin(index, clock, pages);
            }
        }
        let due = self.watches.iter().map(Watch::due);
        due.fold(clock() + IDLE, f64::min)
    }

    /// What sampling of one range may cost, of a vCPU's time.
    fn budget(&self) -> f64 {
        let busy = self.areas.iter();
        let busy = busy.filter(|area| area.revisits.per_ns() > 0.0).count();
        BUDGET / busy.max(1) as f64
    }

    /// Takes some pages of a range away.
    fn begin(&mut self, index: usize, clock: &dyn Fn() -> f64, pages: &dyn Pages) {
        let budget = self.budget();
        let (area, watch) = (&mut self.areas[index], &mut self.watches[index]);
        let now = clock();
        area.pass(now - watch.began);
        (watch.began, watch.next) = (now, now + IDLE);
        let mut batch = Batch {
            away: Vec::new(),
            pairs: [Pair::Decided; PAIRS],
            began: now,
            due: now + Revisits::next_look(0.0),
        };
        let there = area.resident() / PAGE;
        let pairs = (TAKING / (2.0 * self.costs.take_away)) as usize;
        for pair in 0..pairs.clamp(1, PAIRS) {
            let n = random(&mut self.random) % there.max(1);
            let Some(first) = area.page(n, pages) else {
                continue;
            };
            let second = first + AROUND * PAGE;
            let is_there = |hpa: u64| {
                let mut there = [false];
                pages.look(hpa, &mut there);
                hpa < area.hpa + area.len && there[0]
            };
            let free = |hpa| {
                let within = batch.away.iter().any(|away| near(hpa, away.hpa));
                !within && !watch.is_near(hpa)
            };
            if !free(first) || !free(second) {
                continue;
            }
            let both = is_there(second);
            if both {
                batch.pairs[pair] = Pair::Away;
            }
            for hpa in [Some(first), both.then_some(second)].into_iter().flatten() {
                pages.take_away(hpa);
                let now = clock();
                batch.away.push(Away {
                    hpa,
                    since: now,
                    looked: now,
                    pair,
                });
            }
        }
        if !batch.away.is_empty() {
            let cost = batch.away.len() as f64 * self.costs.take_away;
            watch.next = now + cost / budget;
            watch.batches.push(batch);
        }
    }

    /// Looks for those of a batch that are away.
    fn look(&mut self, index: usize, batch: usize, clock: &dyn Fn() -> f64, pages: &dyn Pages) {
        let budget = self.budget();
        let (area, watch) = (&mut self.areas[index], &mut self.watches[index]);
        let batch = &mut watch.batches[batch];
        let patience = area.revisits.patience_ns();
        let (mut found, mut ages) = ([0; PAIRS], (0.0, 0.0));
        batch.away.retain_mut(|away| {
            let mut there = [false];
            pages.look(away.hpa, &mut there);
            let now = clock();
            let (from, to) = (away.looked - away.since, now - away.since);
            area.revisits.looked(from, to, there[0]);
            ages = (from, to);
            away.looked = now;
            if there[0] {
                found[away.pair] += 1;
                self.visits += 1;
                self.cost += self.costs.visit;
                watch.next = watch.next.max(now) + self.costs.visit / budget;
            }
            let stays = !there[0] && to < patience;
            if !stays {
                area.revisits.fade();
            }
            stays
        });
        let by_chance = area.by_chance(ages.0, ages.1);
        for (index, (found, pair)) in found.into_iter().zip(&mut batch.pairs).enumerate() {
            let waiting = batch.away.iter().any(|away| away.pair == index);
            *pair = match (*pair, found) {
                (Pair::Away, 2) | (Pair::One, 1) => {
                    area.walks.pair(true, by_chance);
                    Pair::Decided
                }
                (Pair::Away, 1) if waiting => Pair::One,
                (Pair::One, 0) => {
                    area.walks.pair(false, by_chance);
                    Pair::Decided
                }
                (Pair::Away, 0) if waiting => Pair::Away,
                _ => Pair::Decided,
            };
        }
        batch.due = batch.began + Revisits::next_look(clock() - batch.began);
    }

    /// Counts the pages of some more blocks; a hundred calls see all of them, if there are not very many.
    pub fn scan(&mut self, pages: &dyn Pages) {
        let all: usize = self.areas.iter().map(Area::blocks).sum();
        for _ in 0..all.div_ceil(SWEEP).clamp(1, MOST_BLOCKS).min(all) {
            let (area, block) = &mut self.scanned;
            while self
                .areas
                .get(*area)
                .is_none_or(|area| *block >= area.blocks())
            {
                *block = 0;
                *area = (*area + 1) % self.areas.len();
            }
            self.areas[*area].scan(*block, pages);
            *block += 1;
        }
    }

    /// Lines that went to memory on each of `paths` paths in `ran_ns` of the vCPUs' time, past a cache of `cache` bytes.
    pub fn demands(&self, paths: usize, ran_ns: f64, cache: u64) -> Vec<Demand> {
        let footprint: f64 = self.areas.iter().map(Area::footprint).sum();
        let cached = (cache as f64 / memsim::law::LINE / footprint.max(1.0)).min(1.0);
        let mut demands = vec![Demand::default(); paths];
        for area in &self.areas {
            // A walk finds nothing of a cache that is smaller than it; scattered accesses find of it the share that it
            // holds.
            let walked = 1.0 - (1.0 - area.walks.share()) / area.lines_per_visit();
            let missing = if cached < 1.0 {
                1.0 - cached * (1.0 - walked)
            } else {
                0.0
            };
            let lines = area.lines_per_ns() * ran_ns * missing / area.ways.len().max(1) as f64;
            for way in &area.ways {
                if let Some(demand) = demands.get_mut(*way) {
                    demand.reads += lines;
                }
            }
        }
        demands
    }
}

/// The next of a row of random numbers: xorshift64.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
