//! The device from outside: what a tool shows.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::session::{KernelCount, Session};
use super::{Device, lock};
use crate::protocol::spec::STATISTICS;

/// The device at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub name: String,
    /// One of [`crate::protocol::spec::backend`].
    pub backend: u32,
    pub compute_capability: (u32, u32),
    pub driver_version: u32,
    pub multiprocessors: u32,
    /// Bytes.
    pub memory: u64,
    /// Bytes that nobody owns.
    pub free: u64,
    /// Its counters of coherence by name; empty where nobody counts.
    pub coherence: BTreeMap<&'static str, u64>,
    /// Sessions of version 2 by number, and that of version 1 as 0.
    pub sessions: BTreeMap<u32, SessionView>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Commands of version 2 that were completed.
    pub commands: u64,
    pub launches: u64,
    /// ns that kernels ran.
    pub kernel_time: u64,
    /// Bytes of device memory that are its own.
    pub memory: u64,
    /// Bytes copied to the device and from it.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub modules: usize,
    pub functions: usize,
    pub regions: usize,
    pub queues: Vec<QueueView>,
    pub kernels: BTreeMap<String, KernelCount>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    pub number: u32,
    pub depth: u32,
    /// Commands, modulo 2^32.
    pub completed: u32,
    /// Commands submitted and not completed.
    pub waiting: u32,
    /// How often it was woken, and how often it has interrupted.
    pub doorbells: u64,
    pub interrupts: u64,
    /// The opcode that is executed, and for how many ns it has been.
    pub current: Option<(u16, u64)>,
}

impl Device {
    /// What the device is and does now.
    pub fn view(&self) -> View {
        let properties = self.backend.properties();
        let mut sessions = BTreeMap::new();
        {
            let state = lock(&self.state);
            for (number, session) in state.sessions.iter() {
                let queues = state
                    .queues
                    .values()
                    .filter(|queue| std::ptr::eq(&**queue.session(), &**session));
                let queues = queues
                    .map(|queue| QueueView {
                        number: queue.number(),
                        depth: queue.depth(),
                        completed: queue.completed(),
                        waiting: queue.waiting(),
                        doorbells: queue.doorbells(),
                        interrupts: queue.interrupts(),
                        current: queue.current(),
                    })
                    .collect();
                sessions.insert(number, SessionView::new(session, queues));
            }
        }
        if let Some(session) = &*lock(&self.legacy_session) {
            sessions.insert(0, SessionView::new(session, Vec::new()));
        }
        View {
            name: properties.name.clone(),
            backend: properties.backend,
            compute_capability: properties.compute_capability,
            driver_version: properties.driver_version,
            multiprocessors: properties.multiprocessors,
            memory: properties.memory,
            free: self.backend.available(),
            coherence: self
                .backend
                .coherence()
                .map_or_else(BTreeMap::new, |coherence| {
                    STATISTICS.into_iter().zip(coherence.statistics()).collect()
                }),
            sessions,
        }
    }
}

impl SessionView {
    fn new(session: &Session, queues: Vec<QueueView>) -> Self {
        let counters = session.counters();
        let [modules, functions, regions] = session.handle_counts();
        Self {
            commands: counters.commands.load(Ordering::Relaxed),
            launches: counters.launches.load(Ordering::Relaxed),
            kernel_time: counters.kernel_time.load(Ordering::Relaxed),
            memory: session.memory_used(),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            modules,
            functions,
            regions,
            queues,
            kernels: session.kernel_counts(),
        }
    }
}
