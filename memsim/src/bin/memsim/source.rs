//! Where access counts come from.

use memsim::kernel::{Demand, Run};
use memsim::placement::Placement;
use serde::Serialize;

use crate::sys::Status;

/// What a report must say of a source.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Name, as on the command line.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub method: String,
    /// How far off its counts may be, with the reason.
    pub error: String,
}

/// One epoch of the hosts, as a source saw it.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    /// One for each host.
    pub runs: Vec<Run>,
    /// Lines by host and node; node 0 is local memory.
    pub demands: Vec<Vec<Demand>>,
}

/// A source of access counts. A live one runs a target; others tell of the past.
pub trait AccessSource {
    /// What the report must say; asked for at the end.
    fn facts(&self) -> Facts;

    /// The next epoch, or nothing when there is no more. There is a placement for each host; a target is one host. It
    /// stands still afterwards.
    ///
    /// # Errors
    /// What the system or a file has to say.
    fn next(&mut self, placements: &mut [Placement]) -> anyhow::Result<Option<Epoch>>;

    /// Lets a live target stand still until `owed_ns` are paid; returns for how long it has stood
    /// still since the epoch, own work included. What is not live cannot stand still: it pays at
    /// once.
    ///
    /// # Errors
    /// What the system has to say.
    fn stand_still(&mut self, owed_ns: f64) -> anyhow::Result<f64> {
        Ok(owed_ns)
    }

    /// How the target has ended, where there is one.
    fn ending(&self) -> Option<Status> {
        None
    }

    /// Process of a live target.
    fn process(&self) -> Option<i32> {
        None
    }
}

/// Adds lines to a node's entry, making room for it.
pub fn add(demands: &mut Vec<Demand>, node: usize, more: Demand) {
    if demands.len() <= node {
        demands.resize(node + 1, Demand::default());
    }
    demands[node].add(&more);
}
