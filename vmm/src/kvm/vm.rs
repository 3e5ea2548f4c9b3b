//! The virtual machine.

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_clock_data, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::irq::Interrupts;
use super::memslots::Memslots;
use crate::error::{Error, KvmContext, Result};
use crate::layout;
use crate::memory::Ram;

/// What the machine cannot do without.
const REQUIRED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "in-kernel irqchip"),
    (Cap::UserMemory, "user memory regions"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::SignalMsi, "MSI"),
    (Cap::ReadonlyMem, "read-only memory"),
    (Cap::ImmediateExit, "immediate exit"),
];

/// A machine without processors: memory slots, interrupt controllers, doorbells.
#[derive(Debug)]
pub struct Vm {
    kvm: Kvm,
    fd: Arc<VmFd>,
    memslots: Arc<Memslots>,
    interrupts: Arc<Interrupts>,
}

impl Vm {
    /// Makes a machine with the in-kernel irqchip (PICs, IOAPIC, local APICs) and PIT.
    ///
    /// # Errors
    /// [`Error::OpenKvm`], [`Error::MissingCapability`], or [`Error::Kvm`] with the call that failed.
    pub fn new() -> Result<Self> {
        let kvm = Kvm::new().map_err(|source| Error::OpenKvm { source })?;
        for (capability, name) in REQUIRED {
            if !kvm.check_extension(capability) {
                return Err(Error::MissingCapability(name));
            }
        }
        let fd = Arc::new(kvm.create_vm().attempting("create a virtual machine")?);
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .attempting("place the identity map")?;
        #[allow(clippy::cast_possible_truncation)] // Below 4 GiB.
        fd.set_tss_address(layout::KVM_TSS as usize)
            .attempting("place the task state segment")?;
        fd.create_irq_chip()
            .attempting("create the interrupt controllers")?;
        fd.create_pit2(kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        })
        .attempting("create the timer")?;
        let slots = u32::try_from(kvm.get_nr_memslots()).unwrap_or(u32::MAX);
        Ok(Self {
            memslots: Arc::new(Memslots::new(Arc::clone(&fd), slots)),
            interrupts: Arc::new(Interrupts::new(Arc::clone(&fd))?),
            kvm,
            fd,
        })
    }

    /// The memory map.
    #[must_use]
    pub fn memslots(&self) -> &Arc<Memslots> {
        &self.memslots
    }

    /// The interrupt controllers.
    #[must_use]
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Makes the guest's writes to `address`, of any length, ring `event` instead of leaving the
    /// guest.
    ///
    /// # Errors
    /// [`Error::Kvm`] if KVM refuses, for one if there is a doorbell already.
    pub fn doorbell(&self, address: u64, event: EventFd) -> Result<Doorbell> {
        self.fd
            .register_ioevent(&event, &IoEventAddress::Mmio(address), NoDatamatch)
            .attempting("connect a doorbell")?;
        Ok(Doorbell {
            vm: Arc::clone(&self.fd),
            address,
            event,
        })
    }

    /// Moves the paravirtual clock forward by so many ns.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn move_clock(&self, ns: u64) -> Result<()> {
        let now = self.fd.get_clock().attempting("read the guest's clock")?;
        let later = kvm_clock_data {
            clock: now.clock.wrapping_add(ns),
            ..Default::default()
        };
        self.fd
            .set_clock(&later)
            .attempting("move the guest's clock")
    }

    /// Gives `ram` to the guest.
    ///
    /// # Errors
    /// Those of [`Memslots::map_ram`].
    pub fn map_ram(&self, ram: &Ram) -> Result<()> {
        self.memslots.map_ram(ram)
    }

    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }
}

/// An address that rings an event. Dropping it takes the connection back.
#[derive(Debug)]
pub struct Doorbell {
    vm: Arc<VmFd>,
    address: u64,
    event: EventFd,
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let address = IoEventAddress::Mmio(self.address);
        if let Err(error) = self
            .vm
            .unregister_ioevent(&self.event, &address, NoDatamatch)
        {
            log::warn!(
                "cannot disconnect the doorbell at {:#x}: {error}",
                self.address
            );
        }
    }
}
