//! A block: its warps in turn, its barriers, its shared memory.

use std::cell::Cell;

use super::frame::Identity;
use super::lanes::WARP;
use super::launch::Launch;
use super::memory::{GlobalMemory, Spaces};
use super::warp::{Arrival, Failure, Warp};
use crate::Fault;

/// Barriers of a block (PTX ISA 9.7.13.1).
pub const BARRIERS: usize = 16;

/// Threads that have come to a barrier since it was last complete.
#[derive(Clone, Copy, Debug, Default)]
struct Barrier {
    threads: u32,
    holding: u32,
    expected: Option<u32>,
}

/// Runs a block to its end.
pub fn run(launch: &Launch<'_>, block: [u32; 3], worker: u32) -> Result<(), Failure> {
    let threads = launch.threads() as usize;
    let mut spaces = Spaces {
        global: GlobalMemory {
            memory: launch.memory,
            allocations: launch.allocations,
            last: Cell::new(0),
        },
        shared: vec![0; launch.shared_bytes as usize],
        params: launch.params,
    };
    let mut warps = Vec::with_capacity(threads.div_ceil(WARP));
    for warp in 0..threads.div_ceil(WARP) {
        let lanes = (threads - warp * WARP).min(WARP);
        let identity = Identity::new(launch, block, warp as u32, worker);
        let alive = u32::MAX >> (WARP - lanes);
        let warp =
            Warp::new(launch, identity, alive).map_err(|fault| (launch.function, 0, fault))?;
        warps.push(warp);
    }
    let mut barriers = [Barrier::default(); BARRIERS];
    let mut arrivals = Vec::new();
    loop {
        let mut progress = false;
        for warp in &mut warps {
            if warp.is_ready() {
                progress = true;
                warp.run(launch, &mut spaces, &mut arrivals)?;
                launch
                    .check_stop()
                    .map_err(|fault| (launch.function, 0, fault))?;
            }
        }
        let alive: u32 = warps.iter().map(|warp| warp.alive.count_ones()).sum();
        if alive == 0 {
            return Ok(());
        }
        for arrival in arrivals.drain(..) {
            barriers[arrival.id].add(&arrival);
        }
        for (id, barrier) in barriers.iter_mut().enumerate() {
            if barrier.threads > 0 && barrier.threads >= barrier.expected.unwrap_or(alive) {
                for warp in &mut warps {
                    warp.pass_barrier(id, barrier.threads, barrier.holding);
                }
                *barrier = Barrier::default();
            }
        }
        if progress || warps.iter().any(Warp::is_ready) {
            continue;
        }
        // All wait. Lanes that wait for others of their warp may be those that the others wait for.
        let mut parted = false;
        for warp in &mut warps {
            parted |= warp.part(launch);
        }
        if !parted {
            let (function, line) = warps
                .iter()
                .find(|warp| warp.alive != 0)
                .map_or((launch.function, 0), |warp| warp.place(launch));
            return Err((function, line, Fault::Deadlock));
        }
    }
}

impl Barrier {
    fn add(&mut self, arrival: &Arrival) {
        self.threads += arrival.threads;
        self.holding += arrival.holding;
        self.expected = self.expected.or(arrival.expected);
    }
}
