//! What runs after what: completions, and the order that streams impose.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::Result;
use crate::registry::Handle;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a piece of work, which others wait for.
#[derive(Default)]
pub struct Completion {
    end: Mutex<Option<Instant>>,
    ended: Condvar,
}

impl Completion {
    fn finish(&self) {
        lock(&self.end).get_or_insert_with(Instant::now);
        self.ended.notify_all();
    }

    /// When it ended, if it has.
    pub fn end(&self) -> Option<Instant> {
        *lock(&self.end)
    }

    pub fn wait(&self) {
        let mut end = lock(&self.end);
        while end.is_none() {
            end = self.ended.wait(end).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Work that has been given a place in the order: what it waits for, and its end.
///
/// Whoever drops it ends it, so that nobody waits for ever.
pub struct Turn {
    pub after: Vec<Arc<Completion>>,
    pub completion: Arc<Completion>,
}

impl Turn {
    /// Whether all it waits for has ended.
    pub fn is_due(&self) -> bool {
        self.after.iter().all(|before| before.end().is_some())
    }

    /// Whether all it waits for has ended, or is among the ends of `batch`.
    pub fn follows(&self, batch: &[Arc<Completion>]) -> bool {
        self.after.iter().all(|before| {
            before.end().is_some() || batch.iter().any(|end| Arc::ptr_eq(end, before))
        })
    }

    /// Waits for what comes before.
    pub fn wait(&self) {
        for before in &self.after {
            before.wait();
        }
    }

    /// Waits, works, and tells the others.
    pub fn take(self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.wait();
        let result = work();
        self.completion.finish();
        result
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.completion.finish();
    }
}

/// How a stream stands to the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The default stream itself: waits for all blocking streams, and they for it.
    Default,
    Blocking,
    /// Created with `CU_STREAM_NON_BLOCKING`.
    NonBlocking,
}

/// The last work of each stream of a context.
#[derive(Default)]
pub struct Order {
    tails: Mutex<BTreeMap<Handle, (Kind, Arc<Completion>)>>,
}

impl Order {
    /// Gives work the next place in a stream.
    pub fn queue(&self, stream: Handle, kind: Kind) -> Turn {
        let mut tails = lock(&self.tails);
        tails.retain(|_, (_, completion)| completion.end().is_none());
        let waits_for = |(other, (other_kind, _)): &(&Handle, &(Kind, Arc<Completion>))| {
            **other == stream
                || matches!(
                    (kind, other_kind),
                    (Kind::Default, Kind::Blocking) | (Kind::Blocking, Kind::Default)
                )
        };
        let after = tails
            .iter()
            .filter(waits_for)
            .map(|(_, (_, completion))| completion.clone())
            .collect();
        let completion = Arc::<Completion>::default();
        tails.insert(stream, (kind, completion.clone()));
        Turn { after, completion }
    }

    /// The last work of one stream, if it has not ended.
    pub fn tail(&self, stream: Handle) -> Option<Arc<Completion>> {
        let tails = lock(&self.tails);
        let (_, completion) = tails.get(&stream)?;
        Some(completion.clone()).filter(|completion| completion.end().is_none())
    }

    /// The last work of every stream.
    pub fn tails(&self) -> Vec<Arc<Completion>> {
        let tails = lock(&self.tails);
        tails
            .values()
            .map(|(_, completion)| completion.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Handle = Handle(0);
    const A: Handle = Handle(16);
    const B: Handle = Handle(32);

    #[test]
    fn work_of_one_stream_runs_in_its_order() {
        let order = Order::default();
        let first = order.queue(A, Kind::Blocking);
        let second = order.queue(A, Kind::Blocking);
        assert!(first.is_due());
        assert!(!second.is_due());
        first.take(|| Ok(())).unwrap();
        assert!(second.is_due());
    }

    #[test]
    fn streams_do_not_wait_for_each_other() {
        let order = Order::default();
        let _a = order.queue(A, Kind::Blocking);
        assert!(order.queue(B, Kind::Blocking).is_due());
    }

    #[test]
    fn the_default_stream_and_blocking_streams_wait_for_each_other() {
        let order = Order::default();
        let a = order.queue(A, Kind::Blocking);
        let middle = order.queue(DEFAULT, Kind::Default);
        let b = order.queue(B, Kind::Blocking);
        assert!(!middle.is_due());
        assert!(!b.is_due());
        a.take(|| Ok(())).unwrap();
        assert!(middle.is_due());
        assert!(!b.is_due());
        middle.take(|| Ok(())).unwrap();
        assert!(b.is_due());
    }

    #[test]
    fn a_non_blocking_stream_is_apart_from_the_default_stream() {
        let order = Order::default();
        let _a = order.queue(A, Kind::NonBlocking);
        let default = order.queue(DEFAULT, Kind::Default);
        assert!(default.is_due());
        assert!(order.queue(B, Kind::NonBlocking).is_due());
    }

    #[test]
    fn work_may_follow_its_own_batch_but_no_other() {
        let order = Order::default();
        let first = order.queue(A, Kind::Blocking);
        let second = order.queue(A, Kind::Blocking);
        let other = order.queue(DEFAULT, Kind::Default);
        let batch = [first.completion.clone()];
        assert!(second.follows(&batch));
        assert!(!other.follows(&batch), "it waits for the second one, too");
    }

    #[test]
    fn work_that_is_given_up_keeps_nobody_waiting() {
        let order = Order::default();
        let turn = order.queue(A, Kind::Blocking);
        let completion = turn.completion.clone();
        drop(turn);
        completion.wait();
        assert!(order.tail(A).is_none());
    }
}
