//! The MSI-X vectors of a device as irqfds.

use std::sync::Arc;

use devices::virtio;

use crate::error::Result;
use crate::kvm::{Interrupts, MsiMessage, MsiRoute};

/// One route for each vector.
#[derive(Debug)]
pub struct Vectors(Vec<MsiRoute>);

impl Vectors {
    /// `count` vectors, all masked.
    pub fn new(interrupts: &Arc<Interrupts>, count: usize) -> Result<Self> {
        (0..count)
            .map(|_| interrupts.msi_route())
            .collect::<Result<_>>()
            .map(Self)
    }

    /// What the vector sends from now on; `None` while it is masked.
    pub fn set(&self, vector: u16, message: Option<pci::MsiMessage>) -> Result<()> {
        let message = message.map(|pci::MsiMessage { address, data }| MsiMessage { address, data });
        self.0
            .get(usize::from(vector))
            .map_or(Ok(()), |route| route.set(message))
    }

    /// A device that is reset has nothing pending.
    pub fn forget_pending(&self) {
        for route in &self.0 {
            if route.is_pending()
                && let Ok(event) = route.event()
            {
                // An empty event is what is wanted.
                event.read().ok();
            }
        }
    }
}

impl virtio::Interrupt for Vectors {
    fn signal(&self, vector: u16) {
        if let Some(route) = self.0.get(usize::from(vector))
            && let Err(error) = route.trigger()
        {
            log::warn!("interrupt lost: {error}");
        }
    }

    fn is_pending(&self, vector: u16) -> bool {
        self.0
            .get(usize::from(vector))
            .is_some_and(MsiRoute::is_pending)
    }
}
