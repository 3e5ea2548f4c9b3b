//! The edge to machine code: executable memory, calls into it, and its calls back.
//!
//! Everything unsafe of the compiler is here. What compiled code may touch is named in [`Machine`]; whether an
//! address of the guest may be turned into one of the host is decided in `emit::memory`, on the value that is used.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use super::machine::Machine;
use super::worker::Worker;

/// Machine code that is never written again.
#[derive(Debug)]
pub struct Code {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the memory is read-only and executable from the moment `new` returns, and unmapped only by `drop`.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Code {
    /// Copies position-independent code to memory of its own; `None` if the host gives none.
    pub fn new(code: &[u8]) -> Option<Self> {
        let bytes = code.len().max(1);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let mapped = Self {
            start: NonNull::new(start)?,
            bytes,
        };
        // SAFETY: the mapping is ours, writable, and at least `code.len()` bytes long.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), start.cast::<u8>(), code.len()) };
        // SAFETY: the mapping is ours; nothing holds a reference into it.
        let result = unsafe { libc::mprotect(start, bytes, libc::PROT_READ | libc::PROT_EXEC) };
        (result == 0).then_some(mapped)
    }

    /// The address of the first instruction.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Runs groups of the worker's block from the entry that this code was made for.
    pub fn run_groups(&self, worker: &mut Worker<'_>, first: u64, count: u64) {
        type Routine = extern "C" fn(*mut Machine, u64, u64);
        let machine = bind(worker);
        // SAFETY: `emit::group` made this code with this signature; the machine's pointers are the worker's.
        let routine: Routine = unsafe { std::mem::transmute(self.start.as_ptr()) };
        routine(machine, first, count);
    }

    /// Runs `groups` groups of each of the blocks `first..end` of a row from the kernel's beginning, up to the first
    /// block whose groups do not all come to its end: that block, or `end`.
    pub fn run_blocks(&self, worker: &mut Worker<'_>, first: u32, end: u32, groups: u64) -> u32 {
        type Routine = extern "C" fn(*mut Machine, u64, u64, u64) -> u64;
        let machine = bind(worker);
        // SAFETY: `emit::blocks` made this code with this signature; the machine's pointers are the worker's.
        let routine: Routine = unsafe { std::mem::transmute(self.start.as_ptr()) };
        routine(machine, first.into(), end.into(), groups) as u32
    }

    /// Runs one thread from the entry of this number; how it has left.
    pub fn run_lane(&self, worker: &mut Worker<'_>, thread: u64, entry: u64) -> u32 {
        type Routine = extern "C" fn(*mut Machine, u64, u64) -> u32;
        let machine = bind(worker);
        // SAFETY: `emit::lane` made this code with this signature; the machine's pointers are the worker's.
        let routine: Routine = unsafe { std::mem::transmute(self.start.as_ptr()) };
        routine(machine, thread, entry)
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no code runs that is not borrowed.
        unsafe { libc::munmap(self.start.as_ptr(), self.bytes) };
    }
}

/// The machine of a worker that compiled code is about to run on.
fn bind(worker: &mut Worker<'_>) -> *mut Machine {
    let worker: *mut Worker<'_> = worker;
    // SAFETY: the pointer comes from a reference that lives until compiled code has returned.
    unsafe {
        (*worker).machine.worker_state = worker.expose_provenance();
        &raw mut (*worker).machine
    }
}

/// What compiled code calls for an instruction that it leaves to the interpreter: [`Worker::execute`].
pub extern "C" fn callout(machine: *mut Machine, pc: u32, first: u32, lanes: u32) {
    // SAFETY: compiled code passes on what `bind` gave it, and waits until this returns, so that this is the only
    // reference in use.
    let worker = unsafe {
        &mut *std::ptr::with_exposed_provenance_mut::<Worker<'_>>((*machine).worker_state)
    };
    let executed = catch_unwind(AssertUnwindSafe(|| worker.execute(pc, first, lanes)));
    if executed.is_err() {
        worker.panicked(pc);
    }
}
