//! The accelerator behind its registers: sessions, queues, and the commands that make and end them.
//!
//! | module | does |
//! |---|---|
//! | `session` | one client's context, handles and regions |
//! | `queue` | takes commands from a ring and completes them |
//! | `execute` | the commands of version 2 |
//! | `legacy` | the commands of version 1 |
//! | `view` | what the device tells from outside |
//!
//! Threads, doorbells and interrupts are the machine's, behind [`Host`].

mod execute;
mod handles;
mod legacy;
mod queue;
mod session;
mod view;

#[cfg(test)]
mod coherence_test;
#[cfg(test)]
mod hostile_test;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, VolatileSlice};

use crate::Error;
use crate::backend::Backend;
use crate::protocol::region::Region;
use crate::protocol::registers::{Command, Control, Outcome, Reply};
use crate::protocol::ring::Ring;
use crate::protocol::spec::{
    DEVICE_MODULES, DEVICE_SEGMENTS, QUEUES, SESSIONS, VECTORS, control, region_flags,
};

use handles::{Budget, Handles};
use legacy::Legacy;
pub use queue::Queue;
pub use session::KernelCount;
use session::{Budgets, Session};
pub use view::{QueueView, SessionView, View};

/// What the device asks of the machine it is in.
pub trait Host: Send + Sync {
    /// Runs [`Queue::run`] in a thread of its own, which sleeps until the queue's doorbell.
    ///
    /// # Errors
    /// If there is no thread to be had.
    fn start(&self, queue: Arc<Queue>) -> Result<(), Error>;

    /// Wakes the thread of a queue as its doorbell does.
    fn wake(&self, queue: u32);

    /// Sends the vector.
    fn interrupt(&self, vector: u16);
}

/// The accelerator.
pub struct Device {
    backend: Arc<dyn Backend>,
    host: Arc<dyn Host>,
    /// What regions and rings may lie in.
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    budgets: Budgets,
    paused: Arc<AtomicBool>,
    epoch: Instant,
    state: Mutex<State>,
    legacy: Mutex<Legacy>,
    /// What version 1 has is to be forgotten before its next command.
    legacy_reset: AtomicBool,
    /// The context of version 1 again, for whoever must end it while a command has `legacy`.
    legacy_session: Mutex<Option<Arc<Session>>>,
}

struct State {
    sessions: Handles<Arc<Session>>,
    queues: BTreeMap<u32, Arc<Queue>>,
    /// The queue made last, so that numbers come again late.
    last_queue: u32,
    /// Sessions that nobody will ask for any more, and that have not ended yet.
    abandoned: Vec<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Device {
    /// A device without sessions.
    pub fn new(
        backend: Arc<dyn Backend>,
        host: Arc<dyn Host>,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Self {
        Self {
            backend,
            host,
            memory,
            budgets: Budgets {
                modules: Budget::new(DEVICE_MODULES),
                segments: Budget::new(DEVICE_SEGMENTS),
            },
            paused: Arc::new(AtomicBool::new(false)),
            epoch: Instant::now(),
            state: Mutex::new(State {
                sessions: Handles::new(SESSIONS as usize),
                queues: BTreeMap::new(),
                last_queue: QUEUES - 1,
                abandoned: Vec::new(),
            }),
            legacy: Mutex::default(),
            legacy_reset: AtomicBool::new(false),
            legacy_session: Mutex::default(),
        }
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    fn session(&self) -> Arc<Session> {
        Session::new(
            Arc::clone(&self.backend),
            self.budgets.clone(),
            self.memory.clone(),
        )
    }

    /// Executes a command of version 1, which may take as long as a kernel. `data` is the data buffer.
    pub fn command(&self, command: &Command, data: VolatileSlice<'_>) -> Outcome {
        let mut legacy = lock(&self.legacy);
        if self.legacy_reset.swap(false, Ordering::AcqRel) {
            *legacy = Legacy::default();
        }
        let outcome = legacy.execute(command, data, || {
            let session = self.session();
            *lock(&self.legacy_session) = Some(Arc::clone(&session));
            session
        });
        if legacy.context().is_none() {
            *lock(&self.legacy_session) = None;
        }
        outcome
    }

    /// Performs a control command of version 2. Takes no longer than its bookkeeping.
    pub fn control(&self, control: &Control) -> Reply {
        match self.try_control(control) {
            Ok(outs) => Reply { result: 0, outs },
            Err(error) => Reply {
                result: error.code(),
                outs: [0; 2],
            },
        }
    }

    fn try_control(&self, control: &Control) -> Result<[u64; 2], Error> {
        let [a0, a1, a2, a3] = control.args;
        let mut state = lock(&self.state);
        state.reap();
        Ok(match control.code {
            control::SESSION_OPEN => {
                let session = self.session();
                [state.sessions.insert(session)?.into(), 0]
            }
            control::SESSION_CLOSE => {
                let session = state.session(a0)?;
                state.close(&session)?;
                state.sessions.remove(a0)?;
                [0; 2]
            }
            control::QUEUE_CREATE => {
                let session = state.session(a0)?;
                let queue = self.create_queue(&mut state, session, a1, a2, a3)?;
                [queue.into(), 0]
            }
            control::QUEUE_DESTROY => {
                state.destroy_queue(a0)?;
                [0; 2]
            }
            control::REGION_REGISTER => {
                let session = state.session(a0)?;
                let writable = match a3 {
                    0 => false,
                    region_flags::WRITABLE => true,
                    _ => return Err(Error::InvalidValue("flags that a region does not have")),
                };
                let region = Region::read(&self.memory.memory(), a1, a2, writable)?;
                [session.register(region)?.into(), 0]
            }
            control::REGION_UNREGISTER => {
                state.session(a0)?.unregister(a1)?;
                [0; 2]
            }
            control::PIN => [state.session(a0)?.pin(a1, a2)?, 0],
            control::UNPIN => {
                state.session(a0)?.unpin(a1, a2)?;
                [0; 2]
            }
            control::COHERENCE_STATISTIC => {
                let coherence = self.backend.coherence();
                let coherence = coherence.ok_or(Error::NotSupported(control.code))?;
                let index = usize::try_from(a0).unwrap_or(usize::MAX);
                let counter = coherence.statistics().get(index).copied();
                [counter.ok_or(Error::InvalidValue("no such counter"))?, 0]
            }
            other => return Err(Error::NotSupported(other)),
        })
    }

    fn create_queue(
        &self,
        state: &mut State,
        session: Arc<Session>,
        base: u64,
        depth: u64,
        vector: u64,
    ) -> Result<u32, Error> {
        let vector = u16::try_from(vector)
            .ok()
            .filter(|vector| *vector < VECTORS)
            .ok_or(Error::InvalidValue(
                "a vector that the device does not have",
            ))?;
        if session.is_closing() {
            return Err(Error::InvalidContext);
        }
        let number = (1..=QUEUES)
            .map(|distance| (state.last_queue + distance) % QUEUES)
            .find(|number| !state.queues.contains_key(number))
            .ok_or(Error::OutOfResources("more queues than the device has"))?;
        let ring = Ring::new(&self.memory.memory(), base, depth)?;
        let queue = Queue::new(
            number,
            vector,
            ring,
            Arc::clone(&session),
            Arc::clone(&self.host),
            Arc::clone(&self.paused),
            self.epoch,
        );
        session.add_queue(number, &queue);
        if let Err(error) = self.host.start(Arc::clone(&queue)) {
            session.remove_queue(number);
            return Err(error);
        }
        state.queues.insert(number, queue);
        state.last_queue = number;
        Ok(number)
    }

    /// Ends all sessions of version 2, at once for the guest: its memory is not touched any more. A session whose command
    /// takes longer keeps its number until that ends.
    pub fn close_sessions(&self) {
        let mut state = lock(&self.state);
        state.abandoned = state.sessions.iter().map(|(handle, _)| handle).collect();
        state.reap();
    }

    /// Back to the state after power-on, as [`Self::close_sessions`] and for version 1 too.
    pub fn reset(&self) {
        self.close_sessions();
        if let Some(session) = lock(&self.legacy_session).take() {
            session.close();
        }
        // A command that still runs ends soon, for its context is closed.
        self.legacy_reset.store(true, Ordering::Release);
        if let Ok(mut legacy) = self.legacy.try_lock() {
            *legacy = Legacy::default();
        }
    }

    /// Takes up no more commands of version 2, until [`Self::resume`]; those at hand go on.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    /// Whether no command of version 2 is executed; while it is paused none begins.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        lock(&self.state).queues.values().all(|queue| queue.rests())
    }

    /// Takes commands up again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Release);
        for queue in lock(&self.state).queues.keys() {
            self.host.wake(*queue);
        }
    }
}

impl State {
    /// A session that the guest may still name.
    fn session(&self, handle: u64) -> Result<Arc<Session>, Error> {
        if self.abandoned.iter().any(|&gone| u64::from(gone) == handle) {
            return Err(Error::InvalidHandle(handle));
        }
        self.sessions.get(handle).map(Arc::clone)
    }

    /// Frees the abandoned sessions that have ended by now.
    fn reap(&mut self) {
        for handle in std::mem::take(&mut self.abandoned) {
            let Ok(session) = self.sessions.get(handle.into()).map(Arc::clone) else {
                continue;
            };
            if self.close(&session).is_err() || self.sessions.remove(handle.into()).is_err() {
                self.abandoned.push(handle);
            }
        }
    }

    /// Ends a session, or as much of it as ends at once.
    fn close(&mut self, session: &Arc<Session>) -> Result<(), Error> {
        session.close();
        let queues = self
            .queues
            .iter()
            .filter(|(_, queue)| Arc::ptr_eq(queue.session(), session));
        let numbers: Vec<u32> = queues.map(|(&number, _)| number).collect();
        let mut outcome = Ok(());
        for number in numbers {
            outcome = outcome.and(self.destroy_queue(number.into()));
        }
        if outcome.is_ok() {
            session.clear();
        }
        outcome
    }

    fn destroy_queue(&mut self, number: u64) -> Result<(), Error> {
        let known = u32::try_from(number)
            .ok()
            .and_then(|number| self.queues.get_key_value(&number));
        let (&number, queue) = known.ok_or(Error::InvalidHandle(number))?;
        if !queue.end() {
            return Err(Error::NotReady);
        }
        queue.session().remove_queue(number);
        self.queues.remove(&number);
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The threads of the queues end by themselves.
        self.reset();
    }
}
