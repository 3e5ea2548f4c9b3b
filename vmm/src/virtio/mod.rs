//! Virtio devices at work: each model from `devices::virtio` with its host resource, its thread, its interrupts and its
//! doorbells.
//!
//! [`block`], [`net`], [`rng`] and [`console`] each give the PCI function, to hang into the hierarchy, and a [`Handle`].
//! The machine passes every effect of the function to [`Handle::apply`]; the rest goes on by itself: the guest kicks a
//! queue by an ioeventfd, the thread serves it and interrupts by an irqfd, and no vCPU leaves the guest for it.

mod disk;
mod keys;
mod tap;
mod vectors;
mod worker;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use devices::virtio::{Block, Console, Device, Effect, Net, PciFunction, Rng};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use self::disk::FileDisk;
use self::keys::Keys;
use self::tap::Tap;
pub use self::vectors::Vectors;
use self::worker::Worker;
use crate::error::{HostContext, Result};
use crate::kvm::{Doorbell, Vm};
use crate::terminal::Terminal;

/// What every device needs of the machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// For interrupts and doorbells.
    pub vm: Arc<Vm>,
    /// All memory that a buffer may lie in: RAM, and each CXL window while it is mapped, for the guest uses that as memory
    /// like any other.
    pub memory: GuestMemoryAtomic<GuestMemoryMmap>,
}

/// A disk backed by a raw image or a block device.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    pub path: PathBuf,
    /// The guest can only read; so can this process, and others may read at the same time.
    pub read_only: bool,
    /// What the guest sees as serial number; 20 bytes of it.
    pub id: String,
}

/// A network card on a tap interface.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Name of the interface. It is made if it does not exist and the process may do so.
    pub tap: String,
    /// Hardware address of the guest's end.
    pub mac: [u8; 6],
}

/// A disk.
///
/// # Errors
/// [`Error::Host`](crate::Error::Host) if the image cannot be opened or another process has it.
pub fn block(host: &Host, options: &DiskOptions) -> Result<(PciFunction, Handle)> {
    let disk = FileDisk::open(&options.path, options.read_only)?;
    attach(
        host,
        "virtio-block",
        Block::new(disk, options.read_only, &options.id),
        None::<File>,
    )
}

/// A network card.
///
/// # Errors
/// [`Error::Host`](crate::Error::Host) if the tap interface cannot be had.
pub fn net(host: &Host, options: &NetOptions) -> Result<(PciFunction, Handle)> {
    let tap = Tap::open(&options.tap)?;
    let ready = tap.ready()?;
    attach(host, "virtio-net", Net::new(tap, options.mac), Some(ready))
}

/// A source of random bytes: the host's.
///
/// # Errors
/// [`Error::Host`](crate::Error::Host) if the host's random bytes cannot be had.
pub fn rng(host: &Host) -> Result<(PciFunction, Handle)> {
    let source = File::open("/dev/urandom").trying(|| "open /dev/urandom".into())?;
    attach(host, "virtio-rng", Rng::new(source), None::<File>)
}

/// A console on `terminal`.
///
/// # Errors
/// [`Error::Host`](crate::Error::Host) without file descriptors or threads.
pub fn console(host: &Host, terminal: &Terminal) -> Result<(PciFunction, Handle)> {
    let keys = Keys::new()?;
    let ready = keys.ready()?;
    let typed = keys.clone();
    terminal.attach(move |bytes| typed.push(bytes));
    attach(
        host,
        "virtio-console",
        Console::new(keys, terminal.writer()),
        Some(ready),
    )
}

/// Gives `device` a function, interrupts and a thread that also wakes when `ready` becomes readable.
fn attach<D: Device + 'static>(
    host: &Host,
    name: &'static str,
    device: D,
    ready: Option<impl AsFd>,
) -> Result<(PciFunction, Handle)> {
    let identity = device.identity();
    let vectors = Arc::new(Vectors::new(
        host.vm.interrupts(),
        identity.queue_sizes.len() + 1,
    )?);
    let function = PciFunction::new(identity, vectors.clone());
    let worker = Worker::start(name, device, ready, host.memory.clone())?;
    let handle = Handle {
        name,
        vm: Arc::clone(&host.vm),
        vectors,
        worker,
        doorbells: Mutex::default(),
    };
    Ok((function, handle))
}

/// The half of a device that is not registers. Dropping it ends the device's thread.
#[derive(Debug)]
pub struct Handle {
    name: &'static str,
    vm: Arc<Vm>,
    vectors: Arc<Vectors>,
    worker: Worker,
    doorbells: Mutex<Vec<Doorbell>>,
}

impl Handle {
    /// Does what `function`, this handle's own, asked for. The effects of one access come in their order and before the
    /// guest's next instruction. Takes no lock of the machine, so that it may be called with the hierarchy locked.
    pub fn apply(&self, effect: impl Into<Effect>, function: &PciFunction) {
        match effect.into() {
            Effect::Pci(pci::Effect::MsixChanged { vector }) => {
                self.warn(self.vectors.set(vector, function.msix().message(vector)));
            }
            Effect::Pci(pci::Effect::BarsChanged) => self.place_doorbells(function),
            // The function never sends by itself: its vectors are pending in their events, not in its table.
            Effect::Pci(pci::Effect::Msi(_)) => {}
            Effect::Activate(activation) => self.worker.activate(&activation),
            Effect::Kick { .. } => self.worker.kick(),
            Effect::Reset => {
                self.worker.reset();
                self.vectors.forget_pending();
            }
        }
    }

    /// Stops serving, once the batch at hand is done. Kicks are kept.
    pub fn pause(&self) {
        self.worker.pause();
    }

    /// Serves on after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.worker.resume();
    }

    /// Connects the doorbells where the BAR decodes now. Where that fails, kicks trap and work as well.
    fn place_doorbells(&self, function: &PciFunction) {
        let mut placed = self
            .doorbells
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        placed.clear();
        for (_, address) in function.doorbells() {
            let doorbell = self
                .worker
                .event()
                .and_then(|event| self.vm.doorbell(address, event));
            match doorbell {
                Ok(doorbell) => placed.push(doorbell),
                Err(error) => self.warn(Err(error)),
            }
        }
    }

    fn warn(&self, result: Result<()>) {
        if let Err(error) = result {
            log::warn!("{}: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests;
