//! Accelerators at work: the model from `devices` with its backend, its threads, its interrupts and doorbells, and the memory
//! that it shows to the guest.
//!
//! [`attach`] gives the PCI function, to hang into the hierarchy, and a [`Handle`]. The machine passes the effects of the
//! function to the handle; the rest goes on by itself: a client in the guest rings for its queue by an ioeventfd, the queue's
//! thread serves it and interrupts by an irqfd, and copies go between mappings of this process.

mod accounts;
mod commands;
mod observer;
mod pages;
mod queues;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cxl::cdat::Performance;
use devices::coherence::Traced;
use devices::gpu;
use devices::gpu::backend::Backend;
use devices::gpu::backend::cuda::Cuda;
use devices::gpu::backend::ptx::Ptx;
use devices::gpu::device::View;
use devices::gpu::protocol::registers::Request;
use devices::gpu::protocol::spec;
use devices::gpu::ptx::{Options as PtxOptions, Tier};
use devices::{Type2, Type2Config};
use pci::{BarWindow, Link, NodeId};
use vm_memory::{FileOffset, MmapRegion};

use crate::board::Board;
use crate::config::Coherence;
use crate::error::{Error, Result};
use crate::kvm::{MemoryMap, Memslots, Permission};
use crate::memory::{PageSize, Transparent, advise, memfd};
use crate::virtio::{Host, Vectors};

use self::accounts::{Accounts, Trace};
use self::commands::Commands;
use self::observer::Epochs;
use self::queues::Queues;

/// What executes an accelerator's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendOptions {
    /// PTX on this host's processors.
    Ptx {
        /// What the device claims to be: major and minor.
        compute_capability: (u32, u32),
        /// What `cuDriverGetVersion` gives.
        driver_version: u32,
    },
    /// A GPU of this host.
    Cuda {
        /// The driver's library.
        library: PathBuf,
        /// Which of its devices.
        device: u32,
    },
}

/// What makes one accelerator differ from another.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name in the configuration.
    pub name: String,
    /// Device serial number.
    pub serial: u64,
    /// Bytes of the cache that it tells of.
    pub cache: u64,
    /// The best its link can do.
    pub link: Link,
    /// What its CDAT tells of its memory.
    pub performance: Performance,
    /// What executes its programs.
    pub backend: BackendOptions,
    /// Lines of the host that its snoop filter keeps track of.
    pub snoop_filter: u64,
    /// What is known of accesses to its memory.
    pub coherence: Coherence,
    /// A kernel that takes longer ends with error 702; `None` lets it run for ever.
    pub watchdog: Option<Duration>,
}

/// An accelerator with `memory` bytes of device memory in `file`.
///
/// # Errors
/// [`Error::Accelerator`] if the backend cannot be had; [`Error::Host`] without file descriptors or threads.
pub fn attach(
    host: &Host,
    options: &Options,
    file: &Arc<File>,
    memory: u64,
) -> Result<(Type2, Handle)> {
    let failed = |why: &dyn std::fmt::Display| Error::Accelerator {
        device: options.name.clone(),
        why: why.to_string(),
    };
    let mut accounts = Accounts::default();
    let backend: Arc<dyn Backend> = match &options.backend {
        BackendOptions::Ptx {
            compute_capability,
            driver_version,
        } => {
            let mut how = PtxOptions {
                watchdog: options.watchdog,
                ..PtxOptions::default()
            };
            if options.coherence == Coherence::Trapped {
                how.tier = Tier::Interpreter;
            }
            let region = Arc::new(map(file, memory).map_err(|error| failed(&error))?);
            let kept = accounts::keep(host, options, file, region);
            let (arena, kept) = kept.map_err(|error| failed(&error))?;
            accounts = kept;
            Arc::new(Ptx::new(arena, how, *compute_capability, *driver_version))
        }
        BackendOptions::Cuda { library, device } => {
            let cuda = Cuda::open(library, *device, file, memory, options.watchdog);
            Arc::new(cuda.map_err(|error| failed(&error))?)
        }
    };
    let data = memfd("accelerator", spec::DATA_SIZE, PageSize::Base)?;
    let data = Arc::new(data);
    let buffer = map(&data, spec::DATA_SIZE).map_err(|error| failed(&error))?;

    let vectors = Arc::new(Vectors::new(
        host.vm.interrupts(),
        usize::from(spec::VECTORS),
    )?);
    let queues = Arc::new(Queues::new(&host.vm, &vectors)?);
    let device = gpu::Device::new(Arc::clone(&backend), queues.clone(), host.memory.clone());
    let device = Arc::new(device);
    let properties = backend.properties().clone();
    let config = Type2Config {
        name: options.name.clone(),
        serial: options.serial,
        cache: options.cache,
        link: options.link,
        performance: options.performance,
        memory,
        properties,
        trapped: accounts.trapped,
    };
    let free = Box::new(move || backend.available());
    let function = Type2::new(config, free, vectors.clone())?;
    let commands = Commands::start(Arc::clone(&device), buffer)?;
    let handle = Handle {
        memslots: Arc::clone(host.vm.memslots()),
        vectors,
        queues,
        device,
        commands,
        data,
        memory: Arc::clone(file),
        shown: Mutex::default(),
        trace: accounts.trace,
        _epochs: accounts.epochs,
    };
    Ok((function, handle))
}

fn map(file: &Arc<File>, bytes: u64) -> Result<MmapRegion> {
    let refused = |error: &dyn std::fmt::Display| Error::Memory(error.to_string());
    let size = usize::try_from(bytes).map_err(|error| refused(&error))?;
    let region = MmapRegion::from_file(FileOffset::from_arc(Arc::clone(file), 0), size)
        .map_err(|error| refused(&error))?;
    advise(region.as_ptr().cast(), region.size(), Transparent::Huge);
    Ok(region)
}

/// Where the memory behind an accelerator's BARs is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The data buffer of version 1.
    pub data: Option<BarWindow>,
    /// Device memory.
    pub memory: Option<BarWindow>,
}

/// The half of an accelerator that is not registers. Dropping it ends its threads.
pub struct Handle {
    memslots: Arc<Memslots>,
    vectors: Arc<Vectors>,
    queues: Arc<Queues>,
    device: Arc<gpu::Device>,
    commands: Commands,
    data: Arc<File>,
    memory: Arc<File>,
    shown: Mutex<Shown>,
    trace: Option<Trace>,
    _epochs: Option<Epochs>,
}

impl Handle {
    /// Tells it where its function is, to complete commands there. Once only.
    pub fn connect(&self, board: Weak<Board>, node: NodeId) {
        self.commands.connect(board, node);
    }

    /// Does what the driver asked `function` for, this handle's own.
    pub fn apply(&self, request: Request, function: &mut Type2) {
        match request {
            Request::Command(command) => self.commands.send(command),
            Request::Control(control) => function.reply(self.device.control(&control)),
            Request::CloseSessions => self.device.close_sessions(),
            Request::Reset => {
                self.device.reset();
                self.queues.disconnect();
                self.vectors.forget_pending();
            }
        }
    }

    /// Takes over what a vector sends now.
    pub fn set_vector(&self, vector: u16, function: &Type2) {
        if let Err(error) = self.vectors.set(vector, function.msix().message(vector)) {
            log::warn!("{}: {error}", function.name());
        }
    }

    /// Shows the memory behind the BARs where they decode now, as far as `is_reached` says that accesses get there, and
    /// connects the doorbells.
    pub fn place(&self, function: &Type2, is_reached: impl Fn(&BarWindow) -> bool) {
        let wanted = Shown {
            data: function.data_window().filter(&is_reached),
            memory: function.memory_window().filter(&is_reached),
        };
        {
            let mut shown = self.lock_shown();
            self.show(&mut shown.data, wanted.data, &self.data);
            self.show(&mut shown.memory, wanted.memory, &self.memory);
        }
        let doorbells = function.doorbells();
        self.queues
            .place(doorbells.filter(|_| wanted.data.is_some()).collect());
    }

    fn lock_shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, shown: &mut Option<BarWindow>, wanted: Option<BarWindow>, file: &Arc<File>) {
        if *shown == wanted {
            return;
        }
        if let Some(gone) = shown.take()
            && let Err(error) = self.memslots.unmap(gone.base)
        {
            log::error!("{error}");
        }
        let Some(window) = wanted else {
            return;
        };
        let permission = Permission::ReadWrite;
        match self
            .memslots
            .map(window.base, window.size, file, 0, permission)
        {
            Ok(()) => *shown = Some(window),
            // The guest has put the BAR onto something else, and finds nothing there.
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Where its memory is shown.
    pub fn shown(&self) -> Shown {
        *self.lock_shown()
    }

    /// What it is and does.
    pub fn view(&self) -> View {
        self.device.view()
    }

    /// At most `most` of the steps of the coherence protocol that are kept, from a number on; `None` where accesses are not
    /// known.
    pub fn trace(&self, from: u64, most: usize) -> Option<Traced> {
        self.trace.as_ref().map(|trace| trace(from, most))
    }

    /// Takes no commands of version 2 up, until it is resumed.
    pub fn pause(&self) {
        self.device.pause();
    }

    /// Whether no command of version 2 is executed.
    pub fn is_idle(&self) -> bool {
        self.device.is_idle()
    }

    /// Takes commands up again.
    pub fn resume(&self) {
        self.device.resume();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.device.reset();
    }
}

#[cfg(test)]
mod tests;
