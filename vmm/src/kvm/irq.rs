//! Interrupts: the GSI routing table, level lines, and MSIs by file descriptor.
//!
//! KVM replaces its routing table as a whole, so the table is kept here. The first 24 GSIs are the
//! pins of the IOAPIC, the first 16 also those of the PICs; GSIs behind them are MSIs.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi,
};
use kvm_ioctls::VmFd;
use libc::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Error, KvmContext, Result};

/// Pins of KVM's IOAPIC, and so the first GSI that is free for an MSI.
const IOAPIC_PINS: u32 = 24;
/// Pins of the two PICs together.
const PIC_PINS: u32 = 16;
/// Pins of one PIC.
const PINS_PER_PIC: u32 = 8;
/// The PIT's interrupt; on a PC it reaches the IOAPIC at [`PIT_IOAPIC_PIN`].
const PIT_GSI: u32 = 0;
/// The IOAPIC pin of the PIT, which the MADT's interrupt source override names.
const PIT_IOAPIC_PIN: u32 = 2;
/// The GSI of the PICs' cascade.
const CASCADE_GSI: u32 = 2;
/// Entries in KVM's routing table, and so the end of the GSIs.
const GSI_LIMIT: u32 = 4096;

/// A message signalled interrupt: the write that a function makes (PCIe 6.2, 6.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where the function writes, 0xFEEx_xxxx.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// The interrupt controllers of one machine.
#[derive(Debug)]
pub struct Interrupts {
    vm: Arc<VmFd>,
    /// The MSI routes by GSI; `None` was never bound to a message and is not in KVM's table.
    msis: Mutex<Msis>,
}

type Msis = BTreeMap<u32, Option<MsiMessage>>;

impl Interrupts {
    /// Takes over the routing of `vm`, which has an in-kernel irqchip.
    pub(super) fn new(vm: Arc<VmFd>) -> Result<Self> {
        let interrupts = Self {
            vm,
            msis: Mutex::default(),
        };
        interrupts.install(&Msis::new())?;
        Ok(interrupts)
    }

    /// Sends `message` now. Costs one ioctl; data paths use an [`MsiRoute`].
    ///
    /// # Errors
    /// [`Error::Kvm`] if KVM refuses the message.
    pub fn signal_msi(&self, message: MsiMessage) -> Result<()> {
        let (address_lo, address_hi) = split(message.address);
        self.vm
            .signal_msi(kvm_msi {
                address_lo,
                address_hi,
                data: message.data,
                ..Default::default()
            })
            .map(drop)
            .attempting("send an MSI")
    }

    /// A line to an IOAPIC pin whose level the device drives.
    #[must_use]
    pub fn line(&self, gsi: u32) -> IrqLine {
        IrqLine {
            vm: Arc::clone(&self.vm),
            gsi,
        }
    }

    /// An edge on `gsi` for each write to the returned event.
    ///
    /// # Errors
    /// [`Error::Host`] without file descriptors, [`Error::Kvm`] if KVM refuses.
    pub fn edge(&self, gsi: u32) -> Result<EventFd> {
        let event = event()?;
        self.vm
            .register_irqfd(&event, gsi)
            .attempting("connect an interrupt line")?;
        Ok(event)
    }

    /// A route for one MSI-X vector, unbound at first.
    ///
    /// # Errors
    /// [`Error::MissingCapability`] if all GSIs are taken, [`Error::Host`] without file descriptors.
    pub fn msi_route(self: &Arc<Self>) -> Result<MsiRoute> {
        let mut msis = self.lock();
        let gsi = (IOAPIC_PINS..GSI_LIMIT)
            .find(|gsi| !msis.contains_key(gsi))
            .ok_or(Error::MissingCapability("free interrupt route"))?;
        let event = event()?;
        msis.insert(gsi, None);
        Ok(MsiRoute {
            interrupts: Arc::clone(self),
            gsi,
            event,
            bound: Mutex::new(None),
        })
    }

    fn set(&self, gsi: u32, message: MsiMessage) -> Result<()> {
        let mut msis = self.lock();
        msis.insert(gsi, Some(message));
        self.install(&msis)
    }

    fn release(&self, gsi: u32) {
        let mut msis = self.lock();
        if msis.remove(&gsi).flatten().is_none() {
            return;
        }
        if let Err(error) = self.install(&msis) {
            log::warn!("{error}");
        }
    }

    fn install(&self, msis: &Msis) -> Result<()> {
        let bound = msis
            .iter()
            .filter_map(|(&gsi, &message)| Some(msi(gsi, message?)));
        let entries: Vec<_> = pins().chain(bound).collect();
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| Error::MissingCapability("free interrupt route"))?;
        self.vm
            .set_gsi_routing(&routing)
            .attempting("set the interrupt routes")
    }

    fn lock(&self) -> MutexGuard<'_, Msis> {
        self.msis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A level-triggered line.
#[derive(Clone, Debug)]
pub struct IrqLine {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl IrqLine {
    /// Drives the line high or low.
    ///
    /// # Errors
    /// [`Error::Kvm`] if KVM refuses.
    pub fn set(&self, active: bool) -> Result<()> {
        self.vm
            .set_irq_line(self.gsi, active)
            .attempting("drive an interrupt line")
    }
}

/// One MSI-X vector as a file descriptor: whoever writes it interrupts the guest without an exit of
/// ours.
///
/// While the vector is masked the event is not connected to KVM, so a trigger stays pending in it
/// and is delivered on unmasking, as the specification wants (PCIe 6.2, 6.1.4.5).
#[derive(Debug)]
pub struct MsiRoute {
    interrupts: Arc<Interrupts>,
    gsi: u32,
    event: EventFd,
    /// The message that the event sends; `None` while masked.
    bound: Mutex<Option<MsiMessage>>,
}

impl MsiRoute {
    /// Connects the event to `message` (unmasked), or disconnects it (masked).
    ///
    /// # Errors
    /// [`Error::Kvm`] if KVM refuses; the vector is then masked.
    pub fn set(&self, message: Option<MsiMessage>) -> Result<()> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if *bound == message {
            return Ok(());
        }
        let vm = &self.interrupts.vm;
        if bound.take().is_some() {
            vm.unregister_irqfd(&self.event, self.gsi)
                .attempting("mask an interrupt")?;
        }
        if let Some(message) = message {
            // The route first: an event that is pending fires as soon as it is connected.
            self.interrupts.set(self.gsi, message)?;
            vm.register_irqfd(&self.event, self.gsi)
                .attempting("unmask an interrupt")?;
            *bound = Some(message);
        }
        Ok(())
    }

    /// Interrupts the guest, or leaves the interrupt pending while the vector is masked.
    ///
    /// # Errors
    /// The event's; it cannot fail short of 2^64 pending triggers.
    pub fn trigger(&self) -> io::Result<()> {
        self.event.write(1)
    }

    /// Whether a trigger waits for the vector to be unmasked: the Pending Bit Array's bit.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.is_some() {
            return false;
        }
        // Reading takes the count out of the event; put it back.
        match self.event.read() {
            Ok(_) => self.event.write(1).is_ok(),
            Err(_) => false,
        }
    }

    /// The event itself, for a thread that serves a queue.
    ///
    /// # Errors
    /// [`Error::Host`] without file descriptors.
    pub fn event(&self) -> Result<EventFd> {
        self.event.try_clone().map_err(|source| Error::Host {
            what: "share an interrupt event".into(),
            source,
        })
    }
}

impl Drop for MsiRoute {
    fn drop(&mut self) {
        if let Err(error) = self.set(None) {
            log::warn!("{error}");
        }
        self.interrupts.release(self.gsi);
    }
}

fn event() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK).map_err(|source| Error::Host {
        what: "make an event".into(),
        source,
    })
}

/// The legacy routes: PIC pins for the first 16 GSIs, IOAPIC pins for all. GSI 2 has neither: on the
/// master PIC it is the cascade, and its IOAPIC pin is the PIT's.
fn pins() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pics = (0..PIC_PINS).map(|gsi| match gsi {
        0..PINS_PER_PIC => pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        _ => pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PINS_PER_PIC),
    });
    let ioapic = (0..IOAPIC_PINS).map(|gsi| match gsi {
        PIT_GSI => pin(gsi, KVM_IRQCHIP_IOAPIC, PIT_IOAPIC_PIN),
        _ => pin(gsi, KVM_IRQCHIP_IOAPIC, gsi),
    });
    pics.chain(ioapic).filter(|route| route.gsi != CASCADE_GSI)
}

fn pin(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

fn msi(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let (address_lo, address_hi) = split(message.address);
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = address_lo;
    entry.u.msi.address_hi = address_hi;
    entry.u.msi.data = message.data;
    entry
}

#[allow(clippy::cast_possible_truncation)] // The two halves.
fn split(address: u64) -> (u32, u32) {
    (address as u32, (address >> 32) as u32)
}
