//! What a PCI function and the worker behind it both see while a driver runs the device.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use super::spec::{NO_VECTOR, isr};

/// The seam through which a device interrupts its driver.
pub trait Interrupt: fmt::Debug + Send + Sync {
    /// Sends the message of an MSI-X vector of the device, or keeps it pending while the vector is masked.
    fn signal(&self, vector: u16);

    /// Whether the vector is pending: its bit in the pending bit array (PCIe 6.0, 7.7.2.9).
    fn is_pending(&self, vector: u16) -> bool;
}

/// Reads the pending bits of `vectors` vectors from byte `offset` on. They live with the interrupt, which keeps what a masked
/// vector was to send.
pub(crate) fn read_pending(interrupt: &dyn Interrupt, vectors: u16, offset: u64, data: &mut [u8]) {
    for (at, byte) in (offset..).zip(data) {
        let first = at.saturating_mul(8);
        *byte = (0..8_u8).fold(0, |bits, bit| {
            let vector = u16::try_from(first.saturating_add(bit.into())).unwrap_or(u16::MAX);
            let pending = vector < vectors && interrupt.is_pending(vector);
            bits | u8::from(pending) << bit
        });
    }
}

/// The interrupt registers and the "needs reset" flag of one device. Each device reset makes a new one, so that a worker
/// that has not yet heard of the reset speaks to nobody.
#[derive(Debug)]
pub struct Link {
    isr: AtomicU8,
    needs_reset: AtomicBool,
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
    interrupt: Arc<dyn Interrupt>,
}

impl Link {
    pub(super) fn new(queues: usize, interrupt: Arc<dyn Interrupt>) -> Self {
        Self {
            isr: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            interrupt,
        }
    }

    /// The device used buffers of a queue: tells the driver.
    pub fn interrupt_queue(&self, queue: usize) {
        self.isr.fetch_or(isr::QUEUE, Ordering::AcqRel);
        self.send(self.queue_vector(queue));
    }

    /// The device cannot go on until it is reset: says so in its status and tells the driver (section 2.1.2).
    pub fn fail(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.isr.fetch_or(isr::CONFIG, Ordering::AcqRel);
        self.send(self.config_vector());
    }

    /// Whether [`fail`](Self::fail) was called.
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Reads the ISR status, which clears it (section 4.1.4.5).
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(vector, Ordering::Release);
    }

    pub(super) fn queue_vector(&self, queue: usize) -> u16 {
        self.queue_vectors
            .get(queue)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    pub(super) fn set_queue_vector(&self, queue: usize, vector: u16) {
        if let Some(register) = self.queue_vectors.get(queue) {
            register.store(vector, Ordering::Release);
        }
    }

    fn send(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.interrupt.signal(vector);
        }
    }
}
