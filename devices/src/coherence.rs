//! Coherence of an accelerator's memory: the engine of crate `cxl` behind the seam of crate `gpu`, for several threads.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cxl::coherence::{Bias, Config, Engine, Event, LINE, Statistics};
use gpu::{Coherence, Error};

/// Ways of the sets of the device's cache and of the snoop filter.
const WAYS: usize = 16;
/// Steps of the protocol that are kept of an accelerator.
pub const TRACE: usize = 1 << 16;

/// The account of one accelerator's memory, line by line.
#[derive(Debug)]
pub struct SharedEngine {
    engine: Mutex<Engine>,
    exact: bool,
}

/// Some of the steps that are kept, and all that has been counted up to the last step that there is.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Sizes of the engine.
    pub config: Config,
    /// Numbers of the steps that are kept, up to that of the next one.
    pub kept: Range<u64>,
    /// Those that were asked for.
    pub events: Vec<Event>,
    /// Counters.
    pub counters: Statistics,
}

impl Traced {
    /// At most `most` of the steps that an engine has kept, from a number on.
    #[must_use]
    pub fn of(engine: &Engine, from: u64, most: usize) -> Self {
        Self {
            config: engine.config(),
            kept: engine.traced(),
            events: engine.trace(from, most),
            counters: *engine.statistics(),
        }
    }
}

impl SharedEngine {
    /// For `memory` bytes, of which the device's cache holds `cache` bytes and the snoop filter keeps track of `filter` lines
    /// of the host's. Where the accounts are to be `exact`, each access is told, and the last steps are kept.
    ///
    /// # Errors
    /// Sizes that do not make whole sets.
    pub fn new(memory: u64, cache: u64, filter: u64, exact: bool) -> Result<Self, cxl::Error> {
        let lines = |count: u64| Some((usize::try_from(count).unwrap_or(usize::MAX), WAYS));
        let mut engine = Engine::new(Config {
            capacity: memory,
            granule: LINE,
            cache: lines(cache / LINE),
            filter: lines(filter),
        })?;
        engine.set_trace(if exact { TRACE } else { 0 });
        Ok(Self {
            engine: Mutex::new(engine),
            exact,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `most` of the steps that are kept, from a number on.
    #[must_use]
    pub fn trace(&self, from: u64, most: usize) -> Traced {
        Traced::of(&self.lock(), from, most)
    }

    /// The host reads or writes bytes; those beyond the memory are nobody's.
    pub fn host_access(&self, offset: u64, bytes: u64, write: bool) {
        let mut engine = self.lock();
        let access = match write {
            true => Engine::host_write,
            false => Engine::host_read,
        };
        each_line(offset, bytes, |line| access(&mut engine, line));
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Statistics {
        *self.lock().statistics()
    }
}

/// Does something for each line of a range, up to the first that is refused: it is beyond the memory, as are those behind it.
fn each_line(offset: u64, bytes: u64, mut each: impl FnMut(u64) -> Result<(), cxl::Error>) {
    let first = offset - offset % LINE;
    let end = offset.saturating_add(bytes);
    for line in (first..end).step_by(LINE as usize) {
        if let Err(error) = each(line) {
            log::debug!("an access beyond coherent memory: {error}");
            return;
        }
    }
}

fn refused(_: cxl::Error) -> Error {
    Error::InvalidValue("a range that is not all in device memory")
}

fn bias(device: bool) -> Bias {
    match device {
        true => Bias::Device,
        false => Bias::Host,
    }
}

impl Coherence for SharedEngine {
    fn access(&self, offset: u64, bytes: u64, write: bool) {
        let mut engine = self.lock();
        let access = match write {
            true => Engine::device_write,
            false => Engine::device_read,
        };
        each_line(offset, bytes, |line| access(&mut engine, line));
    }

    fn renew(&self, offset: u64, bytes: u64, zero: &mut dyn FnMut()) {
        zero();
        if let Err(error) = self.lock().discard(offset, bytes) {
            log::debug!("{error}");
        }
    }

    fn set_bias(&self, offset: u64, bytes: u64, device: bool) -> Result<u64, Error> {
        let bias = bias(device);
        self.lock().set_bias(offset, bytes, bias).map_err(refused)
    }

    fn flip_bias(&self, offset: u64, bytes: u64) -> Result<u64, Error> {
        self.lock().flip_bias(offset, bytes).map_err(refused)
    }

    fn is_device_biased(&self, offset: u64) -> bool {
        self.lock().bias(offset) == Bias::Device
    }

    fn statistics(&self) -> Vec<u64> {
        let granule = if self.exact { LINE } else { 0 };
        counted(&self.counters(), 0, granule)
    }
}

/// Counters as the protocol has them ([`gpu::protocol::spec::STATISTICS`]).
#[must_use]
pub fn counted(counters: &Statistics, epochs: u64, granule: u64) -> Vec<u64> {
    let counters = counters.by_name().map(|(_, count)| count);
    counters.into_iter().chain([epochs, granule]).collect()
}

#[cfg(test)]
mod tests {
    use gpu::protocol::spec;

    use super::*;

    #[test]
    fn the_counters_are_those_that_the_protocol_names() {
        let names = Statistics::default().by_name().map(|(name, _)| name);
        let names: Vec<&str> = names.into_iter().chain(["epochs", "granule"]).collect();
        assert_eq!(names, spec::STATISTICS);
        let all = counted(&Statistics::default(), 7, 64);
        assert_eq!(all.len(), names.len());
        assert_eq!(all[24..], [7, 64]);
    }

    #[test]
    fn accesses_of_several_bytes_are_accesses_to_each_of_their_lines() {
        let engine = SharedEngine::new(1 << 20, 1 << 16, 256, true).unwrap();
        engine.host_access(60, 8, true);
        engine.access(0, 129, false);
        engine.host_access((1 << 20) - 64, 200, false);
        engine.access(u64::MAX - 10, 100, true);
        let counters = engine.counters();
        assert_eq!((counters.host_writes, counters.host_reads), (2, 1));
        assert_eq!((counters.device_reads, counters.device_writes), (3, 0));
        assert_eq!(counters.snoops_for_data, 2);
    }
}
