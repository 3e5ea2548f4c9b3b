//! Virtio 1.2 devices over PCI, without the legacy interface.
//!
//! A device has two halves. The [`PciFunction`] holds the registers: it is a pure state machine that a vCPU reaches through
//! the bus. The [`Device`] serves the virtqueues: the machine runs it in a thread of its own, from the
//! [`Activation`] that the function hands out when the driver is ready, to the reset. In between they share a [`Link`].

mod block;
mod common;
mod console;
mod link;
mod net;
mod queue;
mod rng;
pub mod spec;
mod transport;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use virtio_queue::QueueState;
use vm_memory::GuestMemory;

pub use block::{Block, Disk};
pub use console::Console;
pub(crate) use link::read_pending;
pub use link::{Interrupt, Link};
pub use net::{Net, NetPort};
pub use queue::{Broken, Buffers, Chain, Outcome, Progress, Virtqueue};
pub use rng::Rng;
pub use spec::DeviceType;
pub use transport::PciFunction;

/// What a device shows to a driver before the driver does anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub device_type: DeviceType,
    /// Feature bits of the device type. Those of the transport and the rings are added by [`PciFunction`].
    pub features: u64,
    /// The largest size of each queue, a power of two.
    pub queue_sizes: &'static [u16],
    /// The device configuration structure. May be empty.
    pub config: Vec<u8>,
}

/// What a driver set up, from DRIVER_OK to reset.
#[derive(Clone, Debug)]
pub struct Activation {
    /// The features that both sides agreed on.
    pub features: u64,
    /// The queues as the driver wrote them down; nothing of it is checked against guest memory yet.
    pub queues: Vec<QueueState>,
    /// How to interrupt this driver.
    pub link: Arc<Link>,
}

/// What a register access asks of the machine.
#[derive(Clone, Debug)]
pub enum Effect {
    Pci(pci::Effect),
    /// The driver is ready: start serving.
    Activate(Activation),
    /// A kick that no ioeventfd caught.
    Kick {
        queue: u16,
    },
    /// Stop serving and forget the driver, before the guest goes on.
    Reset,
}

impl From<pci::Effect> for Effect {
    fn from(effect: pci::Effect) -> Self {
        Self::Pci(effect)
    }
}

/// The half of a device that serves virtqueues.
pub trait Device: Send {
    fn identity(&self) -> Identity;

    /// A driver is ready and has agreed to `features`. Comes before any [`serve`](Self::serve).
    fn activate(&mut self, features: u64);

    /// Does all work that is there: what the driver has offered, and what the host has for it. Called after every kick and
    /// whenever the device's host file has become ready; never blocks for the host's input.
    ///
    /// # Errors
    /// How the driver broke a queue. The device is not served again before it is reset.
    fn serve<M: GuestMemory>(
        &mut self,
        queues: &mut [Virtqueue],
        mem: &M,
    ) -> Result<Progress, Broken>;

    /// The driver is gone: forgets all that belongs to it.
    fn reset(&mut self);
}
