//! The driver's side of a ring.

use std::hint;
use std::sync::atomic::{Ordering, fence};

use super::Parts;
use super::spec::{Completion, Submission, completions_offset, ring, ring_bytes};
use crate::{Error, Result};

/// How often the end of a command is looked for before sleeping: about what a wake-up costs.
const SPINS: u32 = 2000;

/// A queue in use by one thread at a time. Every command is waited for, so there is always room for its completion.
pub struct Queue {
    parts: Parts,
    depth: u32,
    /// Entries submitted, and completions read.
    tail: u32,
    head: u32,
}

impl Queue {
    /// # Errors
    /// `UNKNOWN` when the memory is too small for its entries.
    pub fn new(parts: Parts, depth: u32) -> Result<Self> {
        if (parts.rings.bytes() as u64) < ring_bytes(depth) || !depth.is_power_of_two() {
            return Err(Error::UNKNOWN);
        }
        Ok(Self {
            parts,
            depth,
            tail: 0,
            head: 0,
        })
    }

    /// Has commands executed one after the other, with one doorbell as long as they fit the ring. `done` hears of each.
    pub fn execute(
        &mut self,
        commands: impl IntoIterator<Item = Submission>,
        mut done: impl FnMut(&Completion),
    ) -> Result<()> {
        let mut commands = commands.into_iter();
        loop {
            let mut submitted = 0;
            for command in commands.by_ref().take(self.depth as usize) {
                self.put(&command)?;
                submitted += 1;
            }
            if submitted == 0 {
                return Ok(());
            }
            self.publish()?;
            for _ in 0..submitted {
                done(&self.take()?);
            }
        }
    }

    /// Has one command executed; its values, or the error that it came to.
    pub fn execute_one(&mut self, command: Submission) -> Result<[u64; 4]> {
        let mut outcome = Err(Error::UNKNOWN);
        self.execute([command], |completion| outcome = values_of(completion))?;
        outcome
    }

    fn put(&mut self, command: &Submission) -> Result<()> {
        let slot = u64::from(self.tail % self.depth);
        let at = ring::ENTRIES + slot * size_of::<Submission>() as u64;
        self.parts.rings.write_entry(at, command)?;
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Shows what was put to the device, and wakes it if it sleeps.
    fn publish(&self) -> Result<()> {
        let rings = &self.parts.rings;
        rings.store(ring::SQ_TAIL, self.tail)?;
        fence(Ordering::SeqCst);
        if rings.load(ring::WANT_DOORBELL)? != 0 {
            self.parts.bell.ring();
        }
        Ok(())
    }

    /// Waits for the next completion.
    fn take(&mut self) -> Result<Completion> {
        self.wait()?;
        let rings = &self.parts.rings;
        let slot = u64::from(self.head % self.depth);
        let at = completions_offset(self.depth) + slot * size_of::<Completion>() as u64;
        let completion = rings.read_entry(at)?;
        self.head = self.head.wrapping_add(1);
        rings.store(ring::CQ_HEAD, self.head)?;
        Ok(completion)
    }

    fn is_there(&self) -> Result<bool> {
        let rings = &self.parts.rings;
        if rings.load(ring::CQ_TAIL)? != self.head {
            return Ok(true);
        }
        match rings.load(ring::STATUS)? {
            0 => Ok(false),
            stopped => Err(Error(stopped)),
        }
    }

    fn wait(&self) -> Result<()> {
        for _ in 0..SPINS {
            if self.is_there()? {
                return Ok(());
            }
            hint::spin_loop();
        }
        let rings = &self.parts.rings;
        while !self.is_there()? {
            rings.store(ring::WANT_INTERRUPT, 1)?;
            fence(Ordering::SeqCst);
            if !self.is_there()? {
                self.parts.bell.sleep();
            }
            rings.store(ring::WANT_INTERRUPT, 0)?;
        }
        Ok(())
    }
}

/// A completion's values, or its error.
pub fn values_of(completion: &Completion) -> Result<[u64; 4]> {
    match completion.result {
        0 => Ok(completion.values),
        error => Err(Error(error)),
    }
}
