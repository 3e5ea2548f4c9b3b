//! The hosts that share expanders with this one, as the model takes them.

use std::time::Duration;

use memsim::kernel::{Demand, Neighbour};

use super::load::{Load, LoadFile};
use crate::config::Config;
use crate::error::Result;

/// For how many epochs, and how long beside them, what a host tells of itself holds: on a busy machine it may be late.
const EPOCHS: u32 = 4;
const LATE: Duration = Duration::from_millis(500);

/// One entry for each path of the model: what its expander is shared by, if it is.
#[derive(Debug, Default)]
pub struct Neighbours {
    files: Vec<Option<LoadFile>>,
}

impl Neighbours {
    /// Those of a machine: its expanders with `shared = true`.
    ///
    /// # Errors
    /// Those of [`LoadFile::open`].
    pub fn new(config: &Config) -> Result<Self> {
        let files = config.devices().map(|(_, device)| {
            let backing = device.backing.as_ref().filter(|_| device.shared);
            backing.map(|path| LoadFile::open(path)).transpose()
        });
        Ok(Self {
            files: files.collect::<Result<_>>()?,
        })
    }

    /// Those of the one path of a test.
    #[cfg(test)]
    pub fn of_one(file: LoadFile) -> Self {
        Self {
            files: vec![Some(file)],
        }
    }

    /// What they ask for now.
    pub fn now(&self) -> Vec<Neighbour> {
        let shared = (0..).zip(&self.files);
        shared
            .filter_map(|(path, file)| Some((path, file.as_ref()?)))
            .flat_map(|(path, file)| {
                let others = file.others().into_iter();
                others.map(move |load| Neighbour {
                    path,
                    reads_per_ns: load.reads_per_ns,
                    writes_per_ns: load.writes_per_ns,
                    stretch: load.stretch,
                })
            })
            .filter(|neighbour| neighbour.reads_per_ns + neighbour.writes_per_ns > 0.0)
            .collect()
    }

    /// Tells them of an epoch of `ran` ns that was stretched like this. The next word comes an epoch after the guest has
    /// stood still for `owed` ns.
    pub fn tell(&mut self, demands: &[Demand], ran: f64, stretch: f64, owed: f64, epoch: Duration) {
        for (file, demand) in self.files.iter_mut().zip(demands) {
            if let Some(file) = file {
                let load = Load {
                    reads_per_ns: demand.reads / ran.max(1.0),
                    writes_per_ns: demand.writes / ran.max(1.0),
                    stretch,
                };
                let still = Duration::from_nanos(owed as u64);
                file.publish(load, still + epoch * EPOCHS + LATE);
            }
        }
    }
}
