//! The state of the process: its devices, and what handles stand for.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::context::{self, Context};
use crate::graph::{Executable, Graph, Node};
use crate::jit::Link;
use crate::memory::{Allocations, Pool};
use crate::module::{Function, Library, LibraryKernel, Module};
use crate::registry::{Handle, Registry};
use crate::settings::settings;
use crate::stream::{Event, Stream};
use crate::transport::{self, Accelerator, Properties};
use crate::{Error, Result};

/// A device, and its primary context while that is in use.
pub struct Device {
    pub ordinal: i32,
    pub accelerator: Box<dyn Accelerator>,
    pub default_pool: Handle,
    pool: Mutex<Handle>,
    pub primary: Mutex<Primary>,
}

#[derive(Default)]
pub struct Primary {
    pub context: Option<Arc<Context>>,
    pub users: u32,
    pub flags: u32,
}

impl Device {
    pub fn properties(&self) -> &Properties {
        self.accelerator.properties()
    }

    /// The pool that allocations come from.
    pub fn pool(&self) -> Handle {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_pool(&self, pool: Handle) {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = pool;
    }

    /// Major and minor: what the device says, or what the environment makes of it.
    pub fn compute_capability(&self) -> (u32, u32) {
        settings()
            .compute_capability
            .unwrap_or(self.properties().compute_capability)
    }

    pub fn primary(&self) -> MutexGuard<'_, Primary> {
        self.primary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub struct Driver {
    pub devices: Vec<Arc<Device>>,
    pub contexts: Registry<Context>,
    pub streams: Registry<Stream>,
    pub events: Registry<Event>,
    pub modules: Registry<Module>,
    pub functions: Registry<Function>,
    pub libraries: Registry<Library>,
    pub kernels: Registry<LibraryKernel>,
    pub links: Registry<Mutex<Link>>,
    pub pools: Registry<Pool>,
    pub graphs: Registry<Graph>,
    pub nodes: Registry<Node>,
    pub executables: Registry<Executable>,
    pub allocations: Allocations,
}

static DRIVER: OnceLock<Driver> = OnceLock::new();

impl Driver {
    /// # Errors
    /// `NOT_INITIALIZED` before [`Self::initialize`] has succeeded.
    pub fn get() -> Result<&'static Self> {
        DRIVER.get().ok_or(Error::NOT_INITIALIZED)
    }

    /// Finds the devices, once.
    pub fn initialize() -> Result<&'static Self> {
        static ONCE: Mutex<()> = Mutex::new(());
        let _only_one = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = DRIVER.get() {
            return Ok(driver);
        }
        let mut driver = Self::default();
        for (ordinal, accelerator) in transport::accelerators(settings().device.as_deref())?
            .into_iter()
            .enumerate()
        {
            let default_pool = driver.pools.add(Arc::new(Pool::new(ordinal as i32)));
            driver.devices.push(Arc::new(Device {
                ordinal: ordinal as i32,
                accelerator,
                default_pool,
                pool: Mutex::new(default_pool),
                primary: Mutex::default(),
            }));
        }
        if driver.devices.is_empty() {
            return Err(Error::NO_DEVICE);
        }
        Ok(DRIVER.get_or_init(|| driver))
    }

    /// What programs hear, even before they initialize the driver.
    pub fn version() -> i32 {
        /// CUDA 12.9, whose interface this library has.
        const OURS: i32 = 12090;
        let devices = DRIVER.get().map(|driver| &driver.devices);
        let first = devices.and_then(|devices| devices.first());
        settings()
            .driver_version
            .or(first.map(|device| device.properties().driver_version))
            .unwrap_or(OURS)
    }

    /// What images are chosen for: the first device's capability, or one that every tool in use accepts.
    pub fn compute_capability() -> (u32, u32) {
        let devices = DRIVER.get().map(|driver| &driver.devices);
        let first = devices.and_then(|devices| devices.first());
        first.map_or((7, 5), |device| device.compute_capability())
    }

    pub fn device(&self, ordinal: i32) -> Result<&Arc<Device>> {
        usize::try_from(ordinal)
            .ok()
            .and_then(|index| self.devices.get(index))
            .ok_or(Error::INVALID_DEVICE)
    }

    /// A context by handle; null is the current one.
    pub fn context(&self, handle: Handle) -> Result<Arc<Context>> {
        match handle {
            Handle::NULL => context::current_even_if_faulty(),
            _ => self.contexts.find(handle).ok_or(Error::INVALID_CONTEXT),
        }
    }

    /// A stream by handle. The default stream of each thread is that of all threads: an order that is stronger than asked.
    pub fn stream(&self, handle: Handle) -> Result<Arc<Stream>> {
        const LEGACY: Handle = Handle(1);
        const PER_THREAD: Handle = Handle(2);
        match handle {
            Handle::NULL | LEGACY | PER_THREAD => Ok(context::current()?.default_stream.clone()),
            _ => self.streams.get(handle),
        }
    }

    /// Drops a context and all that is in it.
    pub fn destroy(&self, context: &Arc<Context>) -> Result<()> {
        self.contexts
            .remove(context.handle)
            .map_err(|_| Error::INVALID_CONTEXT)?;
        // Whatever its last work came to, nobody will ask any more.
        let _ = context.synchronize();
        let within =
            |other: Result<Arc<Context>>| other.is_ok_and(|other| Arc::ptr_eq(&other, context));
        self.events.retain(|event| !event.belongs_to(context));
        self.streams.retain(|stream| !within(stream.context()));
        self.functions
            .retain(|function| !within(function.module.context()));
        self.modules.retain(|module| !within(module.context()));
        self.allocations.forget(context);
        Ok(())
    }
}
