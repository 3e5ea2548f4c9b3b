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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use lanes::WARP;
pub use launch::Launch;
use warp::Failure;

/// A mutex whose data is sound whatever its holder was doing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks that a worker takes at once, at most.
const MOST_AT_ONCE: u64 = 16;

/// The block after this one.
fn following([x, y, z]: [u32; 3], [width, height, _]: [u32; 3]) -> [u32; 3] {
    if x + 1 < width {
        [x + 1, y, z]
    } else if y + 1 < height {
        [0, y + 1, z]
    } else {
        [0, 0, z + 1]
    }
}

/// Runs all blocks of a grid on the interpreter.
pub fn run(launch: &Launch<'_>) -> Result<(), Failure> {
    run_blocks(launch, |worker| {
        move |block| block::run(launch, block, worker)
    })
}

/// Runs all blocks of a grid, several at a time; the first fault ends the others. Each worker runs its blocks by what
/// `start` gives it.
///
/// Blocks are taken in the order of their numbers, and each worker runs its own in that order, so a block may wait for an
/// earlier one.
pub fn run_blocks<R>(launch: &Launch<'_>, start: impl Fn(u32) -> R + Sync) -> Result<(), Failure>
where
    R: FnMut([u32; 3]) -> Result<(), Failure>,
{
    let [width, height, depth] = launch.grid.map(u64::from);
    let blocks = width * height * depth;
    let workers = u64::from(launch.workers).max(1);
    // Several at once cost the workers less, as long as each of them finds some.
    let share = (blocks / (workers * 8)).clamp(1, MOST_AT_ONCE);
    let next = AtomicU64::new(0);
    let first_fault = Mutex::new(None);
    let work = |worker: u32| {
        let mut run = start(worker);
        loop {
            let first = next.fetch_add(share, Ordering::Relaxed);
            if first >= blocks {
                return;
            }
            let mut block = [
                (first % width) as u32,
                (first / width % height) as u32,
                (first / (width * height)) as u32,
            ];
            for _ in first..(first + share).min(blocks) {
                if launch.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(failure) = run(block) {
                    lock(&first_fault).get_or_insert(failure);
                    launch.stop.store(true, Ordering::Relaxed);
                    return;
                }
                block = following(block, launch.grid);
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
