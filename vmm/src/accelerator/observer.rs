//! Coherence of device memory that is mapped: who holds which page, as page permissions tell.
//!
//! The guest has the memory in its slots, the device in a mapping of this process. What a side does not hold is in none of
//! its page tables, and what it holds for reading is write-protected there: a side that comes for more takes a page fault,
//! which the kernel handles by itself ([`crate::kvm::Userfault`]). At the end of an *epoch* the page tables say which pages
//! that were. The engine of [`cxl::coherence`], with a page in the place of a line, says what the two sides had to tell
//! each other about them, and what a side has lost is taken away from it.
//!
//! An epoch ends when a command that reaches device memory begins and when it has ended, before a change of bias, when
//! somebody asks for the counters, and by the clock ([`Epochs`]), so that two sides that talk to each other while a kernel
//! runs are seen as well.
//!
//! What a side does with pages that it holds already is not seen, and costs nothing. Nor are these:
//!
//! - Which lines of a page a side wants, and how often: counters are of pages, and `link_bytes` are whole pages.
//! - In which order both sides have come for a page within one epoch, and how often each. It counts as once each: the side
//!   that had the page comes first, else the host. So all counters are what there was at least.
//! - An access between the look at the page tables and the taking away of its page.
//! - Evictions: the device's cache and the snoop filter have room for all pages here.
//! - Accesses to memory beyond all that has ever been allocated.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cxl::coherence::{Bias, Config, Device, Engine, Host, PAGE};
use devices::coherence::{TRACE, Traced, counted};
use devices::gpu::{self, Coherence};
use vm_memory::MmapRegion;

use super::pages::{PageSet, coalesced};
use crate::error::{HostContext, Result};
use crate::kvm::{Memslots, Userfault, Watched, WatchedRegion, WatchedSlots};

/// The least time between two epochs that end by the clock.
const EPOCH: Duration = Duration::from_millis(10);
/// And how many times as long as the end of the last one took: two hundredths of a processor's time.
const SHARE: u32 = 50;

/// The account of one accelerator's memory, page by page.
#[derive(Debug)]
pub struct Observer(Mutex<State>);

#[derive(Debug)]
struct State {
    engine: Engine,
    host: Side,
    device: Side,
    epochs: u64,
    /// Pages that have been in use: those below this number.
    end: u64,
}

/// One side's page tables, and what it may do by them: the engine's states again.
struct Side {
    pages: Box<dyn Watched>,
    /// Pages that it may read.
    held: PageSet,
    /// Pages that it may write.
    owned: PageSet,
}

/// What a side has come for in an epoch: whether to write.
type Came = Option<bool>;

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side").finish_non_exhaustive()
    }
}

impl Side {
    fn new(pages: impl Watched + 'static, count: u64) -> Self {
        Self {
            pages: Box::new(pages),
            held: PageSet::new(count),
            owned: PageSet::new(count),
        }
    }

    /// Calls `each` with every page that it has come for, beyond what it held, and whether it has written it.
    fn newcomers(&self, all: Range<u64>, mut each: impl FnMut(u64, bool)) {
        self.pages.look(all, &mut |pages, written| {
            let known = if written { &self.owned } else { &self.held };
            known.others(pages).for_each(|page| each(page, written));
        });
    }

    /// Leaves it what it has by now of pages that it has come for, or that may have changed: whether it may read each and
    /// write it.
    fn settle(&mut self, pages: impl IntoIterator<Item = (u64, Came, bool, bool)>) {
        let (mut away, mut protected) = (Vec::new(), Vec::new());
        for (page, came, held, owned) in pages {
            let was_there = came.is_some() || self.held.contains(page);
            let was_written = came == Some(true) || self.owned.contains(page);
            if was_there && !held {
                away.push(page);
            } else if was_written && !owned {
                protected.push(page);
            }
            self.held.set(page, held);
            self.owned.set(page, owned);
        }
        coalesced(&away).for_each(|pages| self.pages.take_away(pages));
        coalesced(&protected).for_each(|pages| self.pages.protect(pages));
    }

    /// Whatever it has had of a range is nothing any more.
    fn renew(&mut self, pages: Range<u64>) {
        for page in pages.clone() {
            self.held.set(page, false);
            self.owned.set(page, false);
        }
        self.pages.take_away(pages);
    }
}

impl State {
    /// Ends an epoch.
    fn epoch(&mut self) {
        self.epochs += 1;
        let mut came = BTreeMap::<u64, (Came, Came)>::new();
        // Two slots may show a page, one of them for reading.
        let add = |came: &mut Came, write| *came = Some(write || *came == Some(true));
        self.host.newcomers(0..self.end, |page, write| {
            add(&mut came.entry(page).or_default().0, write);
        });
        self.device.newcomers(0..self.end, |page, write| {
            add(&mut came.entry(page).or_default().1, write);
        });
        for (page, (host, device)) in &came {
            let dpa = page * PAGE;
            let device_has_it = self.engine.state(dpa).1 != Device::Invalid;
            let done = if device_has_it {
                self.device_came(dpa, *device)
                    .and_then(|()| self.host_came(dpa, *host))
            } else {
                self.host_came(dpa, *host)
                    .and_then(|()| self.device_came(dpa, *device))
            };
            if let Err(error) = done {
                log::error!("{error}");
            }
        }
        self.settle(came.iter().map(|(page, came)| (*page, *came)));
    }

    fn host_came(&mut self, dpa: u64, came: Came) -> std::result::Result<(), cxl::Error> {
        match came {
            None => Ok(()),
            Some(false) => self.engine.host_read(dpa),
            Some(true) => self.engine.host_write(dpa),
        }
    }

    fn device_came(&mut self, dpa: u64, came: Came) -> std::result::Result<(), cxl::Error> {
        match came {
            None => Ok(()),
            Some(false) => self.engine.device_read(dpa),
            Some(true) => self.engine.device_write(dpa),
        }
    }

    /// Gives both sides the permissions that the engine's states are.
    fn settle(&mut self, pages: impl Iterator<Item = (u64, (Came, Came))> + Clone) {
        let engine = &self.engine;
        self.host.settle(pages.clone().map(|(page, (came, _))| {
            let state = engine.state(page * PAGE).0;
            (page, came, state != Host::Invalid, state == Host::Modified)
        }));
        self.device.settle(pages.map(|(page, (_, came))| {
            let state = engine.state(page * PAGE).1;
            (
                page,
                came,
                state != Device::Invalid,
                state == Device::Modified,
            )
        }));
    }

    /// Changes bias, behind all that was done before.
    fn flip<T>(
        &mut self,
        offset: u64,
        bytes: u64,
        change: impl FnOnce(&mut Engine) -> std::result::Result<T, cxl::Error>,
    ) -> std::result::Result<T, gpu::Error> {
        self.epoch();
        let refused = |_| gpu::Error::InvalidValue("a range that is not all in device memory");
        let changed = change(&mut self.engine).map_err(refused)?;
        let pages = offset / PAGE..(offset + bytes).div_ceil(PAGE);
        self.settle(pages.map(|page| (page, (None, None))));
        Ok(changed)
    }
}

impl Observer {
    /// For the `memory` bytes of a file, which the guest has where its slots show it, and the device in `region`. Neither
    /// has used it yet.
    ///
    /// # Errors
    /// The host cannot observe pages.
    pub fn new(
        slots: &Arc<Memslots>,
        file: &Arc<File>,
        region: &Arc<MmapRegion>,
        memory: u64,
    ) -> Result<Arc<Self>> {
        let userfault = Arc::new(Userfault::new()?);
        let device = WatchedRegion::new(&userfault, region)?;
        let host = WatchedSlots::new(&userfault, slots, file);
        Ok(Arc::new(Self::of(host, device, memory)?))
    }

    fn of(
        host: impl Watched + 'static,
        device: impl Watched + 'static,
        memory: u64,
    ) -> std::result::Result<Self, cxl::Error> {
        let mut engine = Engine::new(Config {
            capacity: memory,
            granule: PAGE,
            cache: None,
            filter: None,
        })?;
        engine.set_trace(TRACE);
        let pages = memory / PAGE;
        Ok(Self(Mutex::new(State {
            engine,
            host: Side::new(host, pages),
            device: Side::new(device, pages),
            epochs: 0,
            end: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `most` of the steps that are kept, from a number on. Those of one epoch are in the order of their pages.
    #[must_use]
    pub fn trace(&self, from: u64, most: usize) -> Traced {
        let mut state = self.lock();
        state.epoch();
        Traced::of(&state.engine, from, most)
    }
}

impl Coherence for Observer {
    fn access(&self, _: u64, _: u64, _: bool) {}

    fn renew(&self, offset: u64, bytes: u64, zero: &mut dyn FnMut()) {
        let mut state = self.lock();
        zero();
        let end = offset.saturating_add(bytes);
        if let Err(error) = state.engine.discard(offset, bytes) {
            log::error!("{error}");
            return;
        }
        state.end = state.end.max(end.div_ceil(PAGE));
        // What is only in part in the range somebody else has a part of, and the zeros count as the device's.
        let pages = offset.div_ceil(PAGE)..end / PAGE;
        if !pages.is_empty() {
            state.host.renew(pages.clone());
            state.device.renew(pages);
        }
    }

    fn boundary(&self) {
        self.lock().epoch();
    }

    fn set_bias(
        &self,
        offset: u64,
        bytes: u64,
        device: bool,
    ) -> std::result::Result<u64, gpu::Error> {
        let bias = if device { Bias::Device } else { Bias::Host };
        let change = |engine: &mut Engine| engine.set_bias(offset, bytes, bias);
        self.lock().flip(offset, bytes, change)
    }

    fn flip_bias(&self, offset: u64, bytes: u64) -> std::result::Result<u64, gpu::Error> {
        let change = |engine: &mut Engine| engine.flip_bias(offset, bytes);
        self.lock().flip(offset, bytes, change)
    }

    fn is_device_biased(&self, offset: u64) -> bool {
        let mut state = self.lock();
        state.epoch();
        state.engine.bias(offset) == Bias::Device
    }

    fn statistics(&self) -> Vec<u64> {
        let mut state = self.lock();
        state.epoch();
        counted(state.engine.statistics(), state.epochs, PAGE)
    }
}

/// The thread that ends epochs by the clock, until this is dropped.
#[derive(Debug)]
pub struct Epochs {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Epochs {
    /// Starts it.
    ///
    /// # Errors
    /// The host has no thread.
    pub fn start(observer: &Arc<Observer>) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let observer = Arc::clone(observer);
        let body = move || {
            let mut wait = EPOCH;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let begun = Instant::now();
                observer.boundary();
                wait = EPOCH.max(begun.elapsed() * SHARE);
            }
        };
        let thread = thread::Builder::new()
            .name("epochs".into())
            .spawn(body)
            .trying(|| "start the thread that observes an accelerator".into())?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that observes an accelerator has panicked");
        }
    }
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;
