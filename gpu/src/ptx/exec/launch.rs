//! What all warps of a grid have in common.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::ptx::ir::Program;
use crate::{DeviceMemory, Fault};

/// A launch in progress.
pub struct Launch<'a> {
    pub program: &'a Program,
    /// The kernel.
    pub function: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Device address of each global variable.
    pub globals: &'a [u64],
    /// Offset of each shared variable in a block's shared memory.
    pub shared_offsets: &'a [u64],
    pub shared_bytes: u64,
    pub dynamic_shared: u32,
    pub params: &'a [u8],
    pub memory: &'a DeviceMemory,
    pub allocations: &'a [Range<u64>],
    /// Threads that run blocks; each is a multiprocessor to the kernel.
    pub workers: u32,
    /// Number of the launch in its context.
    pub id: u64,
    pub started: Instant,
    /// When the watchdog ends the kernel.
    pub deadline: Option<Instant>,
    /// Set when nobody waits for the kernel any more.
    pub cancelled: &'a AtomicBool,
    /// Set when a fault has ended the launch.
    pub stop: AtomicBool,
    /// What `vprintf` has printed.
    pub output: &'a Mutex<Vec<u8>>,
    /// Bytes of output beyond which it is dropped.
    pub output_limit: usize,
}

impl Launch<'_> {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub fn nanoseconds(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// An error if the launch is to end: its time is over, another block has faulted, or nobody waits for it.
    pub fn check_stop(&self) -> Result<(), Fault> {
        let late = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        let ended = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if late || ended(&self.stop) || ended(self.cancelled) {
            Err(Fault::Timeout)
        } else {
            Ok(())
        }
    }
}
