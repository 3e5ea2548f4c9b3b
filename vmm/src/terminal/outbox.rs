//! Output that waits for its reader, so that nobody waits for the output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes that wait. A boot log is a tenth of it.
pub(super) const CAPACITY: usize = 1 << 20;
/// Most bytes in one write.
const CHUNK: usize = 16 << 10;
/// How long the end of the program waits for a slow reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bounded queue of bytes and the file that they go to, if there is one now.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Notified on every change of `state`.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<u8>,
    sink: Option<Arc<File>>,
    /// A chunk has left the queue and is not written yet.
    writing: bool,
    closed: bool,
}

impl Outbox {
    /// Appends `bytes`. When they are too many the oldest are lost: what a guest says last matters
    /// most.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.queue.extend(bytes);
        let excess = state.queue.len().saturating_sub(CAPACITY);
        state.queue.drain(..excess);
        self.changed.notify_all();
    }

    /// Sends everything that waits, and what comes, to `sink`.
    pub(super) fn connect(&self, sink: File) {
        self.lock().sink = Some(Arc::new(sink));
        self.changed.notify_all();
    }

    /// Keeps what comes until there is a sink again.
    pub(super) fn disconnect(&self) {
        self.lock().sink = None;
        self.changed.notify_all();
    }

    /// Drops what waits and what comes, and ends [`Outbox::run`].
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queue.clear();
        self.changed.notify_all();
    }

    /// Waits until everything is written, for as long as a sink can be expected to take.
    pub(super) fn drain(&self) {
        let busy = |state: &mut State| {
            state.sink.is_some() && (state.writing || !state.queue.is_empty()) && !state.closed
        };
        // After the deadline the rest is lost, whatever the result says.
        drop(self.changed.wait_timeout_while(self.lock(), PATIENCE, busy));
    }

    /// Writes what comes until the outbox is closed.
    pub(super) fn run(&self) {
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            let idle = |state: &mut State| {
                !state.closed && (state.sink.is_none() || state.queue.is_empty())
            };
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            let Some(sink) = state.sink.clone() else {
                continue;
            };
            let count = state.queue.len().min(CHUNK);
            chunk.clear();
            chunk.extend(state.queue.drain(..count));
            state.writing = true;
            drop(state);
            let written = (&*sink).write_all(&chunk);
            let mut state = self.lock();
            state.writing = false;
            // The reader is gone; unless another has come meanwhile, wait for one.
            if written.is_err()
                && state
                    .sink
                    .as_ref()
                    .is_some_and(|now| Arc::ptr_eq(now, &sink))
            {
                state.sink = None;
            }
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Vec<u8> {
        self.lock().queue.iter().copied().collect()
    }
}
