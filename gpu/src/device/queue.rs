//! A queue: takes submissions from its ring, executes them one after the other, and completes them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};

use super::execute::{Done, execute};
use super::session::Session;
use super::{Host, nanoseconds};
use crate::protocol::ring::{Broken, Next, Ring};
use crate::protocol::spec::{Completion, Submission, op, result};

/// A queue of a session. One thread runs it: [`Self::run`].
pub struct Queue {
    number: u32,
    vector: u16,
    depth: u32,
    session: Arc<Session>,
    host: Arc<dyn Host>,
    /// Only the queue's thread has it for longer than a moment.
    ring: Mutex<Ring>,
    completed: AtomicU32,
    /// Where the ring says how much was submitted.
    tail: GuestAddress,
    doorbells: AtomicU64,
    interrupts: AtomicU64,
    stop: AtomicBool,
    ended: AtomicBool,
    paused: Arc<AtomicBool>,
    /// The device's clock.
    epoch: Instant,
    /// What is executed now, and since when.
    current: Mutex<Option<(u16, Instant)>>,
}

/// What a queue does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing before it is woken.
    Sleep,
    /// Nothing any more.
    End,
}

impl Queue {
    pub(super) fn new(
        number: u32,
        vector: u16,
        ring: Ring,
        session: Arc<Session>,
        host: Arc<dyn Host>,
        paused: Arc<AtomicBool>,
        epoch: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            vector,
            depth: ring.depth(),
            tail: ring.tail(),
            session,
            host,
            ring: Mutex::new(ring),
            completed: AtomicU32::new(0),
            doorbells: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            paused,
            epoch,
            current: Mutex::default(),
        })
    }

    /// Which queue of the device it is; the number of its doorbell.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Entries of its rings.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Commands completed, modulo 2^32.
    #[must_use]
    pub fn completed(&self) -> u32 {
        self.completed.load(Ordering::Acquire)
    }

    /// Commands submitted that are not completed yet; as many as there are entries if the driver claims more.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let Some(guest) = self.session.guest() else {
            return 0;
        };
        // Before what was submitted, which is never behind it then.
        let completed = self.completed();
        let submitted = guest.memory().load::<u32>(self.tail, Ordering::Acquire);
        submitted.map_or(0, |submitted| {
            submitted.wrapping_sub(completed).min(self.depth)
        })
    }

    /// How often its thread was woken: each time by a doorbell, or by the device itself.
    #[must_use]
    pub fn doorbells(&self) -> u64 {
        self.doorbells.load(Ordering::Relaxed)
    }

    /// How often it has interrupted.
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Opcode of the command that is executed now, and how long it has been, in ns.
    #[must_use]
    pub fn current(&self) -> Option<(u16, u64)> {
        self.lock_current()
            .map(|(opcode, since)| (opcode, nanoseconds(since.elapsed())))
    }

    /// Whether it does not look at its ring, and so is at no command.
    pub(super) fn rests(&self) -> bool {
        !matches!(self.ring.try_lock(), Err(TryLockError::WouldBlock))
    }

    fn lock_current(&self) -> MutexGuard<'_, Option<(u16, Instant)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Asks the queue to end, and says whether it has: then its memory is not touched any more.
    pub(super) fn end(&self) -> bool {
        self.stop.store(true, Ordering::Release);
        self.session.notify();
        self.host.wake(self.number);
        self.ended.load(Ordering::Acquire)
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.session.is_closing()
    }

    /// Serves the queue until it is destroyed. `sleep` returns when the doorbell has rung since it was called last, or when
    /// [`Host::wake`] was; how often that has happened.
    pub fn run(&self, mut sleep: impl FnMut() -> u64) {
        while self.serve() == Progress::Sleep {
            self.doorbells.fetch_add(sleep(), Ordering::Relaxed);
        }
        self.ended.store(true, Ordering::Release);
    }

    fn serve(&self) -> Progress {
        if self.is_stopping() {
            return Progress::End;
        }
        if self.paused.load(Ordering::Acquire) {
            return Progress::Sleep;
        }
        match self.serve_ring() {
            Ok(progress) => progress,
            Err(broken) => {
                log::debug!("queue {}: {broken}", self.number);
                if let Some(guest) = self.session.guest() {
                    self.lock_ring().stop(guest.memory(), broken.code());
                    self.interrupt();
                }
                self.stop.store(true, Ordering::Release);
                Progress::End
            }
        }
    }

    fn lock_ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve_ring(&self) -> Result<Progress, Broken> {
        let mut ring = self.lock_ring();
        let mut awake = false;
        loop {
            if self.is_stopping() {
                return Ok(Progress::End);
            }
            if self.paused.load(Ordering::Acquire) {
                return Ok(Progress::Sleep);
            }
            let next = {
                let Some(guest) = self.session.guest() else {
                    return Ok(Progress::End);
                };
                if !std::mem::replace(&mut awake, true) {
                    ring.awake(guest.memory())?;
                }
                ring.next(guest.memory())?
            };
            let (index, command) = match next {
                Next::Command(index, command) => (index, command),
                Next::Nothing => return Ok(Progress::Sleep),
            };
            let completion = self.execute(index, &command);
            let Some(guest) = self.session.guest() else {
                return Ok(Progress::End);
            };
            let wanted = ring.complete(guest.memory(), &completion)?;
            drop(guest);
            self.completed
                .store(index.wrapping_add(1), Ordering::Release);
            self.session.notify();
            if wanted {
                self.interrupt();
            }
        }
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.host.interrupt(self.vector);
    }

    fn execute(&self, index: u32, command: &Submission) -> Completion {
        let begin = Instant::now();
        *self.lock_current() = Some((command.opcode, begin));
        let done = match command.opcode {
            op::WAIT => {
                let [queue, completed, ..] = command.args;
                self.session
                    .wait_for(queue, completed as u32, || self.is_stopping());
                Done {
                    result: result::SUCCESS,
                    values: [0; 4],
                }
            }
            _ => execute(&self.session, command),
        };
        *self.lock_current() = None;
        let counters = self.session.counters();
        counters.commands.fetch_add(1, Ordering::Relaxed);
        Completion {
            tag: command.tag,
            result: done.result,
            index,
            started: nanoseconds(begin.duration_since(self.epoch)),
            ended: nanoseconds(self.epoch.elapsed()),
            values: done.values,
        }
    }
}
