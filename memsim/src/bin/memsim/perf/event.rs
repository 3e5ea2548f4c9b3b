//! One event of the kernel's performance counters, counting or sampling: `perf_event_open(2)`.
//!
//! The system calls and the shared memory are here; everything else on counters is safe code on top of them.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use super::ring::{self, Record};
use crate::sys::Tid;

/// `struct perf_event_attr` up to `config2`, its second published version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
    config2: u64,
}

/// Bits of `flags`.
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const PRECISE_SHIFT: u32 = 15;
/// `sample_type`: TID, ADDR, PERIOD, DATA_SRC, in the order in which a sample has them.
const SAMPLE_TYPE: u64 = 1 << 1 | 1 << 3 | 1 << 8 | 1 << 15;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
/// Pages of a ring, a power of two: 256 KiB hold some five thousand samples.
const RING_PAGES: usize = 64;
const PAGE: usize = 4096;
/// Where `data_head` and `data_tail` are in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// Which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `perf_event_attr.type`.
    pub kind: u32,
    /// `perf_event_attr.config`.
    pub config: u64,
    /// How precise a sample's address must be, 0 to 3.
    pub precise: u8,
}

impl Kind {
    fn attributes(self) -> Attributes {
        Attributes {
            kind: self.kind,
            size: size_of::<Attributes>() as u32,
            config: self.config,
            flags: INHERIT
                | EXCLUDE_KERNEL
                | EXCLUDE_HYPERVISOR
                | u64::from(self.precise) << PRECISE_SHIFT,
            ..Attributes::default()
        }
    }
}

fn open(attributes: &Attributes, process: Tid, cpu: i32) -> io::Result<OwnedFd> {
    // SAFETY: the structure has the size that it says and is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            ptr::from_ref(attributes),
            process,
            cpu,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// A counter of a process, its threads and children.
#[derive(Debug)]
pub struct Counter(File);

impl Counter {
    /// Begins to count.
    ///
    /// # Errors
    /// The kernel's answer: `ENOENT` where the machine has no such counter.
    pub fn open(kind: Kind, process: Tid) -> io::Result<Self> {
        Ok(Self(open(&kind.attributes(), process, -1)?.into()))
    }

    /// What was counted so far.
    pub fn read(&self) -> io::Result<u64> {
        let mut value = [0; 8];
        (&self.0).read_exact(&mut value)?;
        Ok(u64::from_ne_bytes(value))
    }
}

/// Samples of a process, its threads and children on one CPU.
#[derive(Debug)]
pub struct Sampling {
    _event: OwnedFd,
    ring: NonNull<u8>,
}

impl Sampling {
    /// Begins to sample every `period`th event on a CPU.
    ///
    /// # Errors
    /// The kernel's answer: `ENOENT` where the machine has no such event, `EOPNOTSUPP` where it cannot sample it so
    /// precisely.
    pub fn open(kind: Kind, period: u64, process: Tid, cpu: i32) -> io::Result<Self> {
        let attributes = Attributes {
            period,
            sample_type: SAMPLE_TYPE,
            ..kind.attributes()
        };
        let event = open(&attributes, process, cpu)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                (1 + RING_PAGES) * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            _event: event,
            ring,
        })
    }

    /// The records since the last call.
    pub fn drain(&mut self) -> Vec<Record> {
        // SAFETY: both lie in the first page of the mapping, aligned; the kernel writes them atomically.
        let (head, tail) = unsafe {
            (
                &*self.ring.byte_add(DATA_HEAD).cast::<AtomicU64>().as_ptr(),
                &*self.ring.byte_add(DATA_TAIL).cast::<AtomicU64>().as_ptr(),
            )
        };
        let (from, to) = (tail.load(Ordering::Relaxed), head.load(Ordering::Acquire));
        let mut bytes = vec![0; RING_PAGES * PAGE];
        let count = to.wrapping_sub(from).min(bytes.len() as u64) as usize;
        let start = (from % bytes.len() as u64) as usize;
        let first = count.min(bytes.len() - start);
        for range in [start..start + first, 0..count - first] {
            let target = &mut bytes[range.clone()];
            // SAFETY: the ring lies behind the first page of the mapping and is as long as `bytes`, so the range is in
            // both; the kernel does not write between tail and head.
            unsafe {
                let source = self.ring.byte_add(PAGE + range.start);
                ptr::copy_nonoverlapping(source.as_ptr(), target.as_mut_ptr(), target.len());
            }
        }
        tail.store(to, Ordering::Release);
        ring::records(&bytes, from, to)
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        // SAFETY: address and length are those of `mmap`, and nothing refers to the memory any more.
        unsafe { libc::munmap(self.ring.as_ptr().cast(), (1 + RING_PAGES) * PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page fault is an event that every kernel can sample with its address.
    const PAGE_FAULTS: Kind = Kind {
        kind: 1,
        config: 2,
        precise: 0,
    };

    /// `None`, with a line that says so, where this user may not.
    fn allowed<T>(result: io::Result<T>) -> Option<T> {
        match result {
            Ok(event) => Some(event),
            Err(error) => {
                println!("skipped: perf_event_open: {error}");
                None
            }
        }
    }

    fn touch(pages: usize) -> Vec<u8> {
        let mut memory = vec![0; (pages + 1) * PAGE];
        for page in memory.chunks_mut(PAGE) {
            page[0] = std::hint::black_box(1);
        }
        memory
    }

    #[test]
    fn a_counter_counts() {
        let Some(counter) = allowed(Counter::open(PAGE_FAULTS, 0)) else {
            return;
        };
        let before = counter.read().unwrap();
        let memory = touch(4096);
        assert!(counter.read().unwrap() - before >= 8, "{}", memory.len());
    }

    #[test]
    fn samples_carry_the_addresses_that_were_accessed() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let open = |cpu| Sampling::open(PAGE_FAULTS, 1, 0, cpu as i32);
        let Some(mut events) = allowed((0..cpus).map(open).collect::<io::Result<Vec<_>>>()) else {
            return;
        };
        let memory = touch(1024);
        let range = memory.as_ptr() as u64..memory.as_ptr() as u64 + memory.len() as u64;
        let records = events.iter_mut().flat_map(Sampling::drain);
        let ours = records.filter(|record| match record {
            Record::Sample(sample) => {
                sample.process == std::process::id()
                    && sample.period == 1
                    && range.contains(&sample.address)
            }
            Record::Lost(_) => false,
        });
        // Large pages make fewer faults of it, but never none.
        assert!(ours.count() > 0);
        assert!(events.iter_mut().all(|event| {
            event
                .drain()
                .iter()
                .all(|record| !matches!(record, Record::Lost(_)))
        }));
    }
}
