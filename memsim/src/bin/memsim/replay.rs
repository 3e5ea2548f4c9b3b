//! Source: a trace file, replayed on a clock of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use memsim::Error;
use memsim::kernel::{Demand, Run};
use memsim::law::LINE;
use memsim::placement::Placement;
use memsim::trace::{self, Kind, Record};

use crate::session::unusable;
use crate::source::{self, AccessSource, Epoch, Facts};

/// A trace under replay.
pub struct Replay {
    lines: std::io::Lines<BufReader<File>>,
    number: usize,
    hosts: Vec<String>,
    epoch_ns: f64,
    parallelism: f64,
    /// Where the epoch at hand ends.
    until_ns: f64,
    /// A record of a later epoch.
    ahead: Option<Record>,
    records: u64,
}

impl Replay {
    /// Opens a trace for the hosts of a topology.
    pub fn open(
        path: &Path,
        hosts: Vec<String>,
        epoch_ns: f64,
        parallelism: f64,
    ) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| unusable("trace", path, &error))?;
        Ok(Self {
            lines: BufReader::new(file).lines(),
            number: 0,
            hosts,
            epoch_ns,
            parallelism,
            until_ns: 0.0,
            ahead: None,
            records: 0,
        })
    }

    fn record(&mut self) -> Result<Option<Record>, Error> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        for line in self.lines.by_ref() {
            self.number += 1;
            let line = line.map_err(|error| Error::Table {
                what: "trace",
                line: self.number,
                reason: error.to_string(),
            })?;
            if let Some(record) = trace::parse(&line, self.number, &hosts)? {
                self.records += 1;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl AccessSource for Replay {
    fn facts(&self) -> Facts {
        Facts {
            name: "trace",
            method: format!("replay of {} records on a clock of their own", self.records),
            error: "none: the counts are what the trace says".into(),
        }
    }

    fn next(&mut self, placements: &mut [Placement]) -> anyhow::Result<Option<Epoch>> {
        self.until_ns += self.epoch_ns;
        let run = Run {
            time_ns: self.epoch_ns,
            parallelism: self.parallelism,
        };
        let mut epoch = Epoch {
            runs: vec![run; self.hosts.len()],
            demands: vec![Vec::new(); self.hosts.len()],
        };
        let mut any = false;
        while let Some(record) = self.record()? {
            any = true;
            if record.time_ns >= self.until_ns {
                self.ahead = Some(record);
                break;
            }
            let placement = &mut placements[record.host];
            for line in 0..u64::from(record.lines) {
                let address = record.address.wrapping_add(line * LINE as u64);
                let node = placement.touch(placement.page(record.host as u32, address));
                let one = match record.kind {
                    Kind::Read => Demand {
                        reads: 1.0,
                        ..Demand::default()
                    },
                    Kind::Write => Demand {
                        writes: 1.0,
                        ..Demand::default()
                    },
                    Kind::Snoop => Demand {
                        back_invalidates: 1.0,
                        ..Demand::default()
                    },
                };
                source::add(&mut epoch.demands[record.host], node, one);
            }
        }
        Ok(any.then_some(epoch))
    }
}
