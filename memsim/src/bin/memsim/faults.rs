//! Source: sampled page faults. Works on any machine, with any target. [`crate::sampler`] says how.

use std::time::Duration;

use anyhow::Context;
use memsim::placement::Placement;

use crate::perf::{self, Counters};
use crate::sampler::Sampler;
use crate::source::{AccessSource, Epoch, Facts};
use crate::sys::Status;
use crate::tree::Tree;

/// Delay below which a debt waits for the next epoch: shorter stops cannot be timed well.
pub const LEAST_PAUSE_NS: f64 = 200_000.0;

/// A live target, its pages sampled.
pub struct PageFaults {
    tree: Tree,
    sampler: Sampler,
    epoch: Duration,
    /// Counts that only need places, and what there would be instead.
    counters: Option<Counters>,
    why: Option<String>,
    done: bool,
}

impl PageFaults {
    /// Takes over a target that is held at its start.
    pub fn new(
        tree: Tree,
        epoch: Duration,
        nodes: usize,
        cache_bytes: u64,
        parallelism: Option<f64>,
    ) -> Self {
        let sampler = Sampler::new(nodes, cache_bytes, parallelism);
        Self {
            tree,
            sampler,
            epoch,
            counters: None,
            why: None,
            done: false,
        }
    }

    /// Takes the number of misses from the hardware, and only their places from page faults.
    pub fn counted(mut self, counters: Counters) -> Self {
        self.counters = Some(counters);
        self
    }

    /// Says in the report why the hardware was not asked.
    pub fn because(mut self, why: String) -> Self {
        self.why = Some(why);
        self
    }
}

impl AccessSource for PageFaults {
    fn facts(&self) -> Facts {
        let mut facts = self.sampler.facts();
        if let Some(why) = &self.why {
            facts.method += &format!(" ({why})");
        }
        match &self.counters {
            Some(counters) => counters.facts(facts),
            None => facts,
        }
    }

    fn next(&mut self, placements: &mut [Placement]) -> anyhow::Result<Option<Epoch>> {
        if self.done {
            return Ok(None);
        }
        let placement = &mut placements[0];
        let before = self.tree.ran();
        self.sampler.begin();
        self.tree
            .run(&mut self.sampler, self.epoch)
            .context("cannot run the target")?;
        self.tree
            .hold(&mut self.sampler)
            .context("cannot stop the target")?;
        let time = self.tree.ran() - before;
        if self.tree.ending().is_some() {
            self.done = true;
            self.tree
                .hold_all(&mut self.sampler)
                .context("cannot stop what the target has left running")?;
            self.sampler
                .open_all(&mut self.tree)
                .context("cannot restore the target's pages")?;
            self.tree.detach().context("cannot let go of the target")?;
        }
        let mut epoch = self.sampler.epoch(&mut self.tree, time);
        if let Some(counters) = &mut self.counters {
            let (reads, writes) = counters.take().context("cannot read the counters")?;
            let most = self.sampler.fullest_node();
            epoch
                .demands
                .iter_mut()
                .for_each(|demands| perf::scale(demands, reads, writes, most));
        }
        if !self.done {
            self.sampler.scan(&self.tree, placement);
            self.sampler
                .arm(&mut self.tree, placement, self.epoch)
                .context("cannot sample pages")?;
        }
        Ok(Some(epoch))
    }

    fn stand_still(&mut self, owed_ns: f64) -> anyhow::Result<f64> {
        let stopped = self.tree.stopped_at();
        let stolen = self.sampler.take_stolen();
        if owed_ns - stolen >= LEAST_PAUSE_NS {
            self.tree
                .stand_still(stopped + Duration::from_nanos((owed_ns - stolen) as u64));
        }
        Ok(stopped.elapsed().as_nanos() as f64 + stolen)
    }

    fn ending(&self) -> Option<Status> {
        self.tree.ending()
    }

    fn process(&self) -> Option<i32> {
        Some(self.tree.leader())
    }
}
