//! A queue's memory as the device uses it: one submission ring and one completion ring.
//!
//! The driver is trusted with nothing: every access is checked against guest memory, an entry is read once, and indices that
//! make no sense end the queue.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

use super::spec::{
    Completion, MAX_DEPTH, MIN_DEPTH, PAGE, Submission, completions_offset, ring, ring_bytes,
};
use crate::Error;

const ENTRY: u64 = size_of::<Submission>() as u64;

/// Where the rings are, and how far they are.
#[derive(Debug)]
pub struct Ring {
    base: GuestAddress,
    depth: u32,
    /// Submissions taken.
    taken: u32,
    /// Completions written.
    written: u32,
}

/// How a driver broke a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the ring is no longer in guest memory")]
    Memory,
    #[error("more submissions than the ring has entries")]
    Submissions,
    #[error("more completions read than were written")]
    Completions,
}

impl Broken {
    /// The `CUresult` that [`ring::STATUS`] shows.
    #[must_use]
    pub const fn code(self) -> u32 {
        super::spec::result::INVALID_VALUE
    }
}

/// What the submission ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This, with its index.
    Command(u32, Submission),
    /// Nothing that can be done before the next doorbell; the driver knows that it has to ring.
    Nothing,
}

impl Ring {
    /// Rings of `depth` entries at `base`, both empty.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if that breaks the rules or is not in guest memory.
    pub fn new(memory: &GuestMemoryMmap, base: u64, depth: u64) -> Result<Self, Error> {
        let depth = u32::try_from(depth)
            .ok()
            .filter(|depth| depth.is_power_of_two() && (MIN_DEPTH..=MAX_DEPTH).contains(depth))
            .ok_or(Error::InvalidValue("a depth that no queue has"))?;
        let there = base.is_multiple_of(PAGE)
            && vm_memory::GuestMemoryBackend::check_range(
                memory,
                GuestAddress(base),
                ring_bytes(depth) as usize,
            );
        if !there {
            return Err(Error::InvalidValue("a queue outside guest memory"));
        }
        let ring = Self {
            base: GuestAddress(base),
            depth,
            taken: 0,
            written: 0,
        };
        for index in [
            ring::SQ_TAIL,
            ring::SQ_HEAD,
            ring::CQ_TAIL,
            ring::CQ_HEAD,
            ring::WANT_INTERRUPT,
            ring::STATUS,
        ] {
            ring.store(memory, index, 0).map_err(|_| OUTSIDE)?;
        }
        ring.store(memory, ring::WANT_DOORBELL, 1)
            .map_err(|_| OUTSIDE)?;
        Ok(ring)
    }

    /// Entries of either ring.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Where it says how many commands were submitted.
    #[must_use]
    pub fn tail(&self) -> GuestAddress {
        // The whole ring was in guest memory when it was made.
        GuestAddress(self.base.0 + ring::SQ_TAIL)
    }

    /// Takes the next submission, if there is one and there is room for its completion.
    ///
    /// # Errors
    /// How the driver broke the ring.
    pub fn next(&mut self, memory: &GuestMemoryMmap) -> Result<Next, Broken> {
        if let Some(next) = self.take(memory)? {
            return Ok(next);
        }
        self.store(memory, ring::WANT_DOORBELL, 1)?;
        // Either the driver sees the flag, or what it did before is seen now.
        fence(Ordering::SeqCst);
        match self.take(memory)? {
            Some(next) => {
                self.store(memory, ring::WANT_DOORBELL, 0)?;
                Ok(next)
            }
            None => Ok(Next::Nothing),
        }
    }

    /// Says that no doorbell is needed while the device looks at the ring anyway.
    ///
    /// # Errors
    /// How the driver broke the ring.
    pub fn awake(&self, memory: &GuestMemoryMmap) -> Result<(), Broken> {
        self.store(memory, ring::WANT_DOORBELL, 0)
    }

    fn take(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Next>, Broken> {
        let waiting = self.load(memory, ring::SQ_TAIL)?.wrapping_sub(self.taken);
        if waiting > self.depth {
            return Err(Broken::Submissions);
        }
        let unread = self.written.wrapping_sub(self.load(memory, ring::CQ_HEAD)?);
        if unread > self.depth {
            return Err(Broken::Completions);
        }
        if waiting == 0 || unread == self.depth {
            return Ok(None);
        }
        let index = self.taken;
        let mut bytes = [0; ENTRY as usize];
        memory
            .read_slice(&mut bytes, self.slot(ring::ENTRIES, index)?)
            .map_err(|_| Broken::Memory)?;
        self.taken = index.wrapping_add(1);
        Ok(Some(Next::Command(index, decode(&bytes))))
    }

    /// Writes a completion, and says whether the driver wants to be interrupted for it.
    ///
    /// # Errors
    /// How the driver broke the ring.
    pub fn complete(
        &mut self,
        memory: &GuestMemoryMmap,
        completion: &Completion,
    ) -> Result<bool, Broken> {
        let slot = self.slot(completions_offset(self.depth), self.written)?;
        memory
            .write_slice(&encode(completion), slot)
            .map_err(|_| Broken::Memory)?;
        self.written = self.written.wrapping_add(1);
        self.store(memory, ring::SQ_HEAD, self.taken)?;
        self.store(memory, ring::CQ_TAIL, self.written)?;
        // Either the driver sees the completion, or its wish for an interrupt is seen now.
        fence(Ordering::SeqCst);
        Ok(self.load(memory, ring::WANT_INTERRUPT)? != 0)
    }

    /// Tells the driver why nothing more will happen. A ring that is gone cannot be told.
    pub fn stop(&self, memory: &GuestMemoryMmap, code: u32) {
        if self.store(memory, ring::STATUS, code).is_err() {
            log::debug!("a queue has stopped whose memory is gone");
        }
    }

    fn slot(&self, start: u64, index: u32) -> Result<GuestAddress, Broken> {
        let offset = start + u64::from(index & (self.depth - 1)) * ENTRY;
        self.base.checked_add(offset).ok_or(Broken::Memory)
    }

    fn load(&self, memory: &GuestMemoryMmap, offset: u64) -> Result<u32, Broken> {
        let at = self.base.checked_add(offset).ok_or(Broken::Memory)?;
        memory
            .load(at, Ordering::Acquire)
            .map_err(|_| Broken::Memory)
    }

    fn store(&self, memory: &GuestMemoryMmap, offset: u64, value: u32) -> Result<(), Broken> {
        let at = self.base.checked_add(offset).ok_or(Broken::Memory)?;
        memory
            .store(value, at, Ordering::Release)
            .map_err(|_| Broken::Memory)
    }
}

const OUTSIDE: Error = Error::InvalidValue("a queue outside guest memory");

/// A submission as it stands in memory.
fn decode(bytes: &[u8; ENTRY as usize]) -> Submission {
    let number = |offset: usize, width: usize| {
        let bytes = bytes.iter().skip(offset).take(width);
        bytes
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    Submission {
        opcode: number(0, 2) as u16,
        flags: number(2, 2) as u16,
        region: number(4, 4) as u32,
        offset: number(8, 8),
        bytes: number(16, 4) as u32,
        reserved: number(20, 4) as u32,
        tag: number(24, 8),
        args: std::array::from_fn(|arg| number(32 + 8 * arg, 8)),
    }
}

/// A completion as it stands in memory.
fn encode(completion: &Completion) -> [u8; ENTRY as usize] {
    let Completion {
        tag,
        result,
        index,
        started,
        ended,
        values,
    } = *completion;
    let outcome = u64::from(index) << 32 | u64::from(result);
    let words = [tag, outcome, started, ended].into_iter().chain(values);
    let mut bytes = [0; ENTRY as usize];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
#[path = "ring_test.rs"]
mod tests;
