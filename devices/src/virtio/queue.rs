//! Virtqueues as a device uses them: chains of buffers in guest memory, each checked before it is touched.
//!
//! The rings are those of the `virtio-queue` crate. Added here is what a hostile driver makes necessary (a chain that ends
//! properly, readable part before writable part, no longer than the queue) and what the crate leaves out (the driver's
//! `NO_INTERRUPT` flag, publishing several used buffers at once).

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

use super::spec::ring;

/// How many chains one call serves before it lets the worker look at its other duties: a driver that never stops offering
/// buffers must not keep a device from being reset.
const BUDGET: u32 = 128;

/// How a driver broke a virtqueue. The device then asks to be reset (section 2.1.2) and touches no queue any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the ring addresses or size break the rules")]
    Setup,
    #[error("a ring is outside guest memory")]
    Ring,
    #[error("the available ring claims more entries than the queue has")]
    Available,
    #[error("a descriptor chain loops, leaves its table or does not end")]
    Chain,
    #[error("a descriptor chain is longer than the queue")]
    TooLong,
    #[error("a readable buffer follows a writable one")]
    Order,
    #[error("a buffer is outside guest memory")]
    Address,
    #[error("a request is shorter than its fixed fields")]
    TooShort,
}

/// Whether a device has work left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing to do before the next kick or host event.
    Idle,
    /// More is waiting: serve again.
    More,
}

impl Progress {
    /// `More` if either has more.
    pub fn and(self, other: Self) -> Self {
        if self == Self::More { self } else { other }
    }
}

/// What became of a chain.
pub enum Outcome {
    /// Done; this many bytes of its writable part were written.
    Done(u32),
    /// The host cannot go on now. The chain stays with the driver, to be seen again at the next call.
    Later,
}

/// The readable or the writable part of a chain: buffers in guest memory, taken as one run of bytes.
#[derive(Debug, Default)]
pub struct Buffers {
    segments: Vec<(GuestAddress, u32)>,
    len: u64,
}

impl Buffers {
    /// Bytes in all. At most 4 GiB.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies from guest memory the bytes at `offset` of the run.
    ///
    /// # Errors
    /// [`Broken::TooShort`] beyond the end, [`Broken::Address`] if a buffer is not in guest memory.
    pub fn read<M: GuestMemory>(
        &self,
        mem: &M,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Broken> {
        let mut rest = data;
        self.walk(offset, rest.len(), |address, len| {
            let (part, tail) = std::mem::take(&mut rest)
                .split_at_mut_checked(len)
                .ok_or(Broken::TooShort)?;
            rest = tail;
            mem.read_slice(part, address).map_err(|_| Broken::Address)
        })
    }

    /// Copies to guest memory at `offset` of the run.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write<M: GuestMemory>(&self, mem: &M, offset: u64, data: &[u8]) -> Result<(), Broken> {
        let mut rest = data;
        self.walk(offset, rest.len(), |address, len| {
            let (part, tail) = rest.split_at_checked(len).ok_or(Broken::TooShort)?;
            rest = tail;
            mem.write_slice(part, address).map_err(|_| Broken::Address)
        })
    }

    /// Calls `visit` with the pieces of guest memory that make up `len` bytes at `offset`.
    fn walk(
        &self,
        offset: u64,
        len: usize,
        mut visit: impl FnMut(GuestAddress, usize) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let mut skip = offset;
        let mut left = len;
        for &(address, segment) in &self.segments {
            if left == 0 {
                break;
            }
            let segment = u64::from(segment);
            if skip >= segment {
                skip -= segment;
                continue;
            }
            let piece = usize::try_from(segment - skip).map_or(left, |room| room.min(left));
            visit(address.checked_add(skip).ok_or(Broken::Address)?, piece)?;
            skip = 0;
            left -= piece;
        }
        if left == 0 {
            Ok(())
        } else {
            Err(Broken::TooShort)
        }
    }

    fn push(&mut self, address: GuestAddress, len: u32) {
        self.segments.push((address, len));
        self.len += u64::from(len);
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }
}

/// One request: what the driver wrote, and where the device may write. Reused, so that a request allocates nothing.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    pub readable: Buffers,
    pub writable: Buffers,
}

impl Chain {
    /// Index of its first descriptor, by which the driver knows it.
    pub fn head(&self) -> u16 {
        self.head
    }

    fn load<M: GuestMemory>(
        &mut self,
        descriptors: DescriptorChain<&M>,
        limit: u16,
    ) -> Result<(), Broken> {
        self.head = descriptors.head_index();
        self.readable.clear();
        self.writable.clear();
        // The iterator ends alike at the last descriptor and at a broken one; the flag of the last one seen tells which.
        let mut ended = false;
        for (descriptor, count) in descriptors.zip(1..) {
            if count > u32::from(limit) {
                return Err(Broken::TooLong);
            }
            if descriptor.is_write_only() {
                self.writable.push(descriptor.addr(), descriptor.len());
            } else if self.writable.segments.is_empty() {
                self.readable.push(descriptor.addr(), descriptor.len());
            } else {
                return Err(Broken::Order);
            }
            ended = !descriptor.has_next();
        }
        if ended { Ok(()) } else { Err(Broken::Chain) }
    }
}

/// A virtqueue that a driver has set up. One that it left disabled never has a chain.
#[derive(Debug)]
pub struct Virtqueue {
    queue: Queue,
    /// `used.idx` when an interrupt was last considered.
    considered: Wrapping<u16>,
}

impl Virtqueue {
    /// Takes up a queue as the driver described it.
    ///
    /// # Errors
    /// [`Broken::Setup`] if its numbers break the rules, [`Broken::Ring`] if it is enabled and not in guest memory.
    pub fn new<M: GuestMemory>(state: QueueState, mem: &M) -> Result<Self, Broken> {
        let queue = Queue::try_from(state).map_err(|_| Broken::Setup)?;
        let entries = usize::from(queue.size());
        let rings = [
            (
                queue.desc_table(),
                ring::DESCRIPTOR * entries,
                Permissions::Read,
            ),
            (
                queue.avail_ring(),
                ring::AVAIL_FIXED + ring::AVAIL_ENTRY * entries,
                Permissions::Read,
            ),
            (
                queue.used_ring(),
                ring::USED_FIXED + ring::USED_ENTRY * entries,
                Permissions::ReadWrite,
            ),
        ];
        let inside = |(address, len, access)| mem.check_range(GuestAddress(address), len, access);
        if queue.ready() && !rings.into_iter().all(inside) {
            return Err(Broken::Ring);
        }
        let considered = Wrapping(queue.next_used());
        Ok(Self { queue, considered })
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the next chain that the driver offers. `false` if there is none.
    ///
    /// # Errors
    /// What is wrong with the ring or the chain.
    pub fn pop<M: GuestMemory>(&mut self, mem: &M, chain: &mut Chain) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        let size = self.queue.size();
        let next = self.queue.iter(mem).map_err(|_| Broken::Available)?.next();
        next.map_or(Ok(false), |descriptors| {
            chain.load(descriptors, size).map(|()| true)
        })
    }

    /// Gives the chain popped last back to the driver's side of the ring.
    fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Returns chains to the driver, each with the number of bytes written to it; the driver sees all of them or none.
    ///
    /// # Errors
    /// [`Broken::Ring`] if the used ring is not in guest memory.
    pub fn complete<M: GuestMemory>(&mut self, mem: &M, used: &[(u16, u32)]) -> Result<(), Broken> {
        let Some((&(last, last_len), before)) = used.split_last() else {
            return Ok(());
        };
        let mut next = Wrapping(self.queue.next_used());
        for &(head, len) in before {
            let slot = next.0.checked_rem(self.queue.size()).ok_or(Broken::Setup)?;
            // An entry is the head and then the length, 32 bits each (section 2.7.8).
            let entry = u64::from(head) | u64::from(len) << 32;
            GuestAddress(self.queue.used_ring())
                .checked_add(ring::ENTRIES + u64::from(slot) * ring::USED_ENTRY as u64)
                .and_then(|address| mem.write_slice(&entry.to_le_bytes(), address).ok())
                .ok_or(Broken::Ring)?;
            next += 1;
        }
        self.queue.set_next_used(next.0);
        self.queue
            .add_used(mem, last, last_len)
            .map_err(|_| Broken::Ring)
    }

    /// Asks the driver to kick when it adds buffers. `true` if some came meanwhile, so that one more look is due.
    ///
    /// # Errors
    /// [`Broken::Ring`] if a ring is not in guest memory.
    pub fn listen<M: GuestMemory>(&mut self, mem: &M) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue
            .enable_notification(mem)
            .map_err(|_| Broken::Ring)
    }

    /// Lets `handle` do one chain after the other until there is none, it cannot go on, or a while has passed.
    ///
    /// # Errors
    /// Those of the queue and of `handle`.
    pub fn serve<M: GuestMemory>(
        &mut self,
        mem: &M,
        chain: &mut Chain,
        mut handle: impl FnMut(&Chain) -> Result<Outcome, Broken>,
    ) -> Result<Progress, Broken> {
        for _ in 0..BUDGET {
            if self.pop(mem, chain)? {
                match handle(chain)? {
                    Outcome::Done(written) => self.complete(mem, &[(chain.head, written)])?,
                    Outcome::Later => {
                        self.unpop();
                        return Ok(Progress::Idle);
                    }
                }
            } else if !self.listen(mem)? {
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::More)
    }

    /// Whether the driver is to be interrupted for what was completed since the last call (sections 2.7.7.2, 2.7.10).
    ///
    /// # Errors
    /// [`Broken::Ring`] if the available ring is not in guest memory.
    pub fn take_interrupt<M: GuestMemory>(&mut self, mem: &M) -> Result<bool, Broken> {
        let new = Wrapping(self.queue.next_used());
        let old = std::mem::replace(&mut self.considered, new);
        if old == new {
            return Ok(false);
        }
        // The driver writes its wish and then looks at the used index; the device does the reverse.
        fence(Ordering::SeqCst);
        let load = |offset: u64| {
            let address = GuestAddress(self.queue.avail_ring())
                .checked_add(offset)
                .ok_or(Broken::Ring)?;
            mem.load::<u16>(address, Ordering::Relaxed)
                .map(u16::from_le)
                .map_err(|_| Broken::Ring)
        };
        if self.queue.event_idx_enabled() {
            let event =
                load(ring::ENTRIES + ring::AVAIL_ENTRY as u64 * u64::from(self.queue.size()))?;
            Ok(new - Wrapping(event) - Wrapping(1) < new - old)
        } else {
            Ok(load(0)? & ring::AVAIL_F_NO_INTERRUPT == 0)
        }
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
