//! The warp interpreter: the reference for every other way to execute a module.

pub mod block;
mod call;
pub mod collective;
mod float;
pub mod frame;
mod integer;
pub mod lanes;
mod launch;
pub mod memory;
mod printf;
pub mod step;
pub mod warp;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use lanes::WARP;
pub use launch::Launch;
use warp::Failure;

/// A mutex whose data is sound whatever its holder was doing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks that a worker takes at once, at most. The kernels that do least are bound by memory, which is fastest for who
/// goes through a long piece of it.
const MOST_AT_ONCE: u64 = 1 << 10;

/// The blocks of a grid that no worker has taken.
struct Remaining {
    next: AtomicU64,
    blocks: u64,
    workers: u64,
}

impl Remaining {
    /// What a worker takes next; none at the end. The less there is the smaller, so that all workers end together.
    fn take(&self) -> Range<u64> {
        let share = |first: u64| {
            let left = self.blocks - first;
            left.div_ceil(self.workers * 8).min(MOST_AT_ONCE)
        };
        let take = |first| Some(first + share(first));
        match self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(first) | Err(first) => first..first + share(first),
        }
    }
}

/// Runs all blocks of a grid on the interpreter.
pub fn run(launch: &Launch<'_>) -> Result<(), Failure> {
    run_blocks(launch, 1, |worker| {
        move |block, _| block::run(launch, block, worker)
    })
}

/// Runs all blocks of a grid, several at a time; the first fault ends the others. Each worker runs its blocks by what
/// `start` gives it: up to `together` of them that follow each other in a row, by the first one's index and their number.
///
/// Blocks are taken in the order of their numbers, and each worker runs its own in that order, so a block may wait for an
/// earlier one.
pub fn run_blocks<R>(
    launch: &Launch<'_>,
    together: u32,
    start: impl Fn(u32) -> R + Sync,
) -> Result<(), Failure>
where
    R: FnMut([u32; 3], u32) -> Result<(), Failure>,
{
    let [width, height, depth] = launch.grid.map(u64::from);
    let blocks = width * height * depth;
    let workers = u64::from(launch.workers).max(1);
    let remaining = Remaining {
        next: AtomicU64::new(0),
        blocks,
        workers,
    };
    let first_fault = Mutex::new(None);
    let work = |worker: u32| {
        let mut run = start(worker);
        loop {
            let mut share = remaining.take();
            if share.is_empty() {
                return;
            }
            while !share.is_empty() {
                if launch.stop.load(Ordering::Relaxed) {
                    return;
                }
                let first = share.start;
                let block = [
                    (first % width) as u32,
                    (first / width % height) as u32,
                    (first / (width * height)) as u32,
                ];
                let row = width - u64::from(block[0]);
                let count = (share.end - first).min(row).min(together.into());
                if let Err(failure) = run(block, count as u32) {
                    lock(&first_fault).get_or_insert(failure);
                    launch.stop.store(true, Ordering::Relaxed);
                    return;
                }
                share.start += count;
            }
        }
    };
    let workers = workers.min(blocks) as u32;
    std::thread::scope(|scope| {
        let work = &work;
        for worker in 1..workers {
            scope.spawn(move || work(worker));
        }
        work(0);
    });
    match lock(&first_fault).take() {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::{MOST_AT_ONCE, Remaining};

    #[test]
    fn blocks_are_taken_once_in_order_and_fewer_towards_the_end() {
        for blocks in [0, 1, 2, 15, 16, 17, 1000, 65536, 1 << 22] {
            for workers in [1, 2, 64] {
                let remaining = Remaining {
                    next: AtomicU64::new(0),
                    blocks,
                    workers,
                };
                let (mut next, mut before) = (0, MOST_AT_ONCE);
                // As many takes as would do at the most each, and what the shrinking adds.
                let most = blocks / MOST_AT_ONCE + 1000 * workers;
                for _ in 0..most {
                    let share = remaining.take();
                    assert_eq!(share.start, next);
                    let count = share.end - share.start;
                    assert!(count <= before, "{count} after {before}");
                    let fair = (blocks - next).div_ceil(workers);
                    assert!(count <= fair, "{count} of {fair}");
                    (next, before) = (share.end, count);
                    if count == 0 {
                        break;
                    }
                }
                assert_eq!((next, before), (blocks, 0));
            }
        }
    }
}
