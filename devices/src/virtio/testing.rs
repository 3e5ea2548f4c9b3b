//! The driver's side of a virtqueue, for tests: a split ring in guest memory, written as section 2.7 has it.

use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Interrupt, Virtqueue};

use std::sync::Mutex;

pub const F_NEXT: u16 = 1;
pub const F_WRITE: u16 = 2;
pub const F_INDIRECT: u16 = 4;

/// Bytes of guest memory in every test.
const MEMORY: usize = 0x4_0000;
/// Guest memory that one driver uses for its rings.
const RINGS: u64 = 0x4000;

/// What the device may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

pub struct Driver {
    mem: GuestMemoryMmap,
    base: u64,
    size: u16,
    event_idx: bool,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

impl Driver {
    /// Where tests keep their buffers.
    pub const DATA: u64 = 0x1_0000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;

    pub fn new(size: u16) -> Self {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Self::at(mem, 0, size)
    }

    fn at(mem: GuestMemoryMmap, base: u64, size: u16) -> Self {
        Self {
            mem,
            base,
            size,
            event_idx: false,
            next_descriptor: 0,
            next_available: 0,
            next_used: 0,
        }
    }

    /// The same driver's second queue.
    pub fn second(&self) -> Self {
        Self::at(self.mem.clone(), self.base + RINGS, self.size)
    }

    pub fn with_event_idx(mut self) -> Self {
        self.event_idx = true;
        self
    }

    pub fn mem(&self) -> &GuestMemoryMmap {
        &self.mem
    }

    pub fn state(&self) -> QueueState {
        QueueState {
            max_size: self.size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: true,
            desc_table: self.base,
            avail_ring: self.base + Self::AVAILABLE,
            used_ring: self.base + Self::USED,
        }
    }

    pub fn queue(&self) -> Virtqueue {
        Virtqueue::new(self.state(), &self.mem).unwrap()
    }

    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.mem.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// Writes one descriptor as it stands, right or wrong.
    pub fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        Self::descriptor_in(&self.mem, self.base, index, address, len, flags, next);
    }

    /// As [`descriptor`](Self::descriptor), in a table anywhere.
    pub fn descriptor_in(
        mem: &GuestMemoryMmap,
        table: u64,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        mem.write_slice(&bytes, GuestAddress(table + 16 * u64::from(index)))
            .unwrap();
    }

    /// Offers the chain that begins at `head`, right or wrong.
    pub fn publish(&mut self, head: u16) {
        let available = self.base + Self::AVAILABLE;
        let slot = available + 4 + 2 * u64::from(self.next_available % self.size);
        self.put(slot, &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.claim(self.next_available);
    }

    /// Sets the index of the available ring, right or wrong.
    pub fn claim(&self, index: u16) {
        self.put(self.base + Self::AVAILABLE + 2, &index.to_le_bytes());
    }

    /// Offers a proper chain and returns its head.
    pub fn offer(&mut self, buffers: &[(u64, u32, Access)]) -> u16 {
        let head = self.next_descriptor;
        for (position, &(address, len, access)) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let more = if position + 1 < buffers.len() {
                F_NEXT
            } else {
                0
            };
            let write = if access == Access::Write { F_WRITE } else { 0 };
            self.descriptor(index, address, len, more | write, self.next_descriptor);
        }
        self.publish(head);
        head
    }

    /// The chains that came back since the last call, with the bytes written to each.
    pub fn used(&mut self) -> Vec<(u16, u32)> {
        let ring = self.base + Self::USED;
        let index = self.word(ring + 2);
        let mut used = Vec::new();
        while self.next_used != index {
            let slot = ring + 4 + 8 * u64::from(self.next_used % self.size);
            let id: u32 = self.mem.read_obj(GuestAddress(slot)).unwrap();
            let len: u32 = self.mem.read_obj(GuestAddress(slot + 4)).unwrap();
            used.push((u16::try_from(id).unwrap(), len));
            self.next_used = self.next_used.wrapping_add(1);
        }
        used
    }

    /// Asks for no interrupts, without EVENT_IDX.
    pub fn want_no_interrupts(&self) {
        self.put(self.base + Self::AVAILABLE, &1_u16.to_le_bytes());
    }

    /// Asks for an interrupt when the used index passes `index`, with EVENT_IDX.
    pub fn want_interrupt_at(&self, index: u16) {
        self.put(
            self.base + Self::AVAILABLE + 4 + 2 * u64::from(self.size),
            &index.to_le_bytes(),
        );
    }

    /// The available index from which on the device wants to be kicked, with EVENT_IDX.
    pub fn kick_wanted_at(&self) -> u16 {
        self.word(self.base + Self::USED + 4 + 8 * u64::from(self.size))
    }

    fn word(&self, address: u64) -> u16 {
        self.mem.read_obj(GuestAddress(address)).unwrap()
    }
}

/// Interrupts that are remembered instead of sent, or kept pending.
#[derive(Debug, Default)]
pub struct Recorded {
    pub sent: Mutex<Vec<u16>>,
    pub pending: Mutex<Vec<u16>>,
}

impl Interrupt for Recorded {
    fn signal(&self, vector: u16) {
        self.sent.lock().unwrap().push(vector);
    }

    fn is_pending(&self, vector: u16) -> bool {
        self.pending.lock().unwrap().contains(&vector)
    }
}
