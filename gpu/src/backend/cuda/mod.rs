//! The host's GPU behind its driver, which is loaded at run time from a file that the user names.
//!
//! Device addresses are the GPU's. Memory that the guest may map is host memory that the GPU reaches: it is mapped in this
//! process at the very addresses that it has on the device, so that no address of the host's is shown. What a kernel prints
//! goes to this process's standard output, as the driver has it.

mod arena;
mod driver;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;

use super::{Attributes, Backend, Context, Kernel, LaunchConfig, Module, Placement, Properties};
use crate::memory::PAGE;
use crate::protocol::spec;
use crate::{Error, Fault, ptx};
use arena::Arena;
use driver::{Driver, Opaque, attribute};

/// Faults end their context: the driver's numbers from here on.
const FIRST_FAULT: u32 = 700;
/// How long a wait for a kernel sleeps, at first and at most.
const SHORT_NAP: Duration = Duration::from_micros(5);
const LONG_NAP: Duration = Duration::from_micros(500);

/// A GPU of the host.
pub struct Cuda {
    driver: Arc<Driver>,
    device: i32,
    properties: Properties,
    /// Tells how much memory is free.
    probe: Handle,
    arena: Option<Arc<Arena>>,
    watchdog: Option<Duration>,
}

/// A context of the driver's.
#[derive(Debug)]
struct Handle(Opaque);

// SAFETY: the driver's handles may be used by any thread; they point to nothing that this process touches itself.
#[allow(unsafe_code)]
unsafe impl Send for Handle {}
// SAFETY: as above, and the driver locks what it needs.
#[allow(unsafe_code)]
unsafe impl Sync for Handle {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// Device `ordinal` of the driver in the file `library`. Mappable memory lies in `file`, which has `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::NoDriver`] for a library that is not there or lacks a function, [`Error::NoSuchDevice`], or what the driver
    /// answers.
    pub fn open(
        library: &Path,
        ordinal: u32,
        file: &Arc<File>,
        bytes: u64,
        watchdog: Option<Duration>,
    ) -> Result<Self, Error> {
        let driver = Arc::new(Driver::load(library)?);
        let devices = driver.devices()?;
        let device = i32::try_from(ordinal)
            .ok()
            .filter(|ordinal| *ordinal < devices)
            .ok_or(Error::NoSuchDevice { ordinal, devices })?;
        let device = driver.device(device)?;
        let number = |attribute| -> Result<u32, Error> {
            Ok(u32::try_from(driver.device_attribute(device, attribute)?).unwrap_or(0))
        };
        let probe = Handle(driver.context_create(device)?);
        let (_, memory) = driver.memory_info()?;
        let properties = Properties {
            name: driver.device_name(device)?,
            backend: spec::backend::CUDA,
            memory,
            compute_capability: (
                number(attribute::COMPUTE_CAPABILITY_MAJOR)?,
                number(attribute::COMPUTE_CAPABILITY_MINOR)?,
            ),
            driver_version: u32::try_from(driver.version()?).unwrap_or(0),
            multiprocessors: number(attribute::MULTIPROCESSORS)?,
            max_threads: number(attribute::MAX_THREADS_PER_BLOCK)?,
        };
        let arena = match Arena::map(file, bytes) {
            Ok(arena) => Some(Arc::new(arena)),
            Err(error) => {
                log::warn!("no memory of {} can be mapped: {error}", properties.name);
                None
            }
        };
        Ok(Self {
            driver,
            device,
            properties,
            probe,
            arena,
            watchdog,
        })
    }
}

impl Backend for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn available(&self) -> u64 {
        let info = self
            .driver
            .context_set(self.probe.0)
            .and_then(|()| self.driver.memory_info());
        info.map_or(0, |(free, _)| free)
    }

    fn context(&self) -> Result<Arc<dyn Context>, Error> {
        let handle = Handle(self.driver.context_create(self.device)?);
        Ok(Arc::new(CudaContext(Arc::new(Shared {
            driver: Arc::clone(&self.driver),
            handle,
            arena: self.arena.clone(),
            watchdog: self.watchdog,
            cancelled: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            fault: Mutex::default(),
            allocations: Mutex::default(),
            work: RwLock::default(),
        }))))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if let Err(error) = self.driver.context_destroy(self.probe.0) {
            log::debug!("{error}");
        }
    }
}

/// What a context and its modules have in common.
struct Shared {
    driver: Arc<Driver>,
    handle: Handle,
    arena: Option<Arc<Arena>>,
    watchdog: Option<Duration>,
    cancelled: AtomicBool,
    /// A kernel was given up that still runs: the context can neither be used nor destroyed.
    hangs: AtomicBool,
    fault: Mutex<Option<Error>>,
    /// Bytes of each allocation by device address.
    allocations: Mutex<BTreeMap<u64, Allocation>>,
    /// Held shared by copies and kernels; memory is freed only when there are none.
    work: RwLock<()>,
}

#[derive(Clone, Copy)]
struct Allocation {
    bytes: u64,
    placement: Placement,
}

impl Shared {
    fn check(&self) -> Result<(), Error> {
        lock(&self.fault).clone().map_or(Ok(()), Err)
    }

    /// Does something with the context as the thread's, and keeps the fault that may end it.
    fn enter<T>(&self, call: impl FnOnce(&Driver) -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        self.driver.context_set(self.handle.0)?;
        call(&self.driver).inspect_err(|error| {
            if (FIRST_FAULT..).contains(&error.code()) && matches!(error, Error::Driver { .. }) {
                lock(&self.fault).get_or_insert_with(|| error.clone());
            }
        })
    }

    fn address_range(&self, address: u64) -> Result<Range<u64>, Error> {
        lock(&self.allocations)
            .range(..=address)
            .next_back()
            .map(|(&base, allocation)| base..base + allocation.bytes)
            .filter(|range| range.contains(&address))
            .ok_or(Error::InvalidValue(
                "an address outside the context's memory",
            ))
    }

    /// Makes sure that a range lies in one allocation, and gives its length.
    fn range(&self, address: u64, bytes: u64) -> Result<usize, Error> {
        let range = self.address_range(address)?;
        if bytes > range.end - address {
            return Err(Error::InvalidValue("a range beyond its allocation"));
        }
        usize::try_from(bytes).map_err(|_| Error::InvalidValue("a range beyond its allocation"))
    }

    fn release(&self, address: u64, allocation: Allocation) -> Result<(), Error> {
        match (allocation.placement, &self.arena) {
            (Placement::Mappable, Some(arena)) => {
                self.driver.unregister(address)?;
                arena.release(address, allocation.bytes);
                Ok(())
            }
            _ => self.driver.free(address),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.hangs.load(Ordering::Acquire) {
            log::error!(
                "a kernel of the GPU cannot be ended; its context stays until this process ends"
            );
            return;
        }
        let allocations = std::mem::take(&mut *lock(&self.allocations));
        let freed = self.driver.context_set(self.handle.0).and_then(|()| {
            allocations
                .into_iter()
                .filter(|(_, allocation)| allocation.placement == Placement::Mappable)
                .try_for_each(|(address, allocation)| self.release(address, allocation))
        });
        // All the rest goes with the context.
        if let Err(error) = freed.and(self.driver.context_destroy(self.handle.0)) {
            log::debug!("{error}");
        }
    }
}

struct CudaContext(Arc<Shared>);

impl Context for CudaContext {
    fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
    }

    fn used(&self) -> u64 {
        let allocations = lock(&self.0.allocations);
        allocations
            .values()
            .map(|allocation| allocation.bytes)
            .sum()
    }

    fn alloc(&self, bytes: u64, placement: Placement) -> Result<u64, Error> {
        if bytes == 0 {
            return Err(Error::InvalidValue("an allocation of no bytes"));
        }
        let shared = &self.0;
        let (address, bytes) = match placement {
            Placement::Device => shared.enter(|driver| {
                let address = driver.alloc(bytes)?;
                driver.set(address, &[0], bytes as usize)?;
                driver.synchronize()?;
                Ok((address, bytes))
            })?,
            Placement::Mappable => {
                let arena = shared.arena.as_ref();
                let arena = arena.ok_or(Error::OutOfMemory(bytes))?;
                let bytes = bytes
                    .checked_next_multiple_of(PAGE)
                    .ok_or(Error::OutOfMemory(bytes))?;
                let address = arena.allocate(bytes)?;
                let registered = shared.enter(|driver| arena.register(driver, address, bytes));
                if registered.is_err() {
                    arena.release(address, bytes);
                }
                registered?;
                (address, bytes)
            }
        };
        lock(&shared.allocations).insert(address, Allocation { bytes, placement });
        Ok(address)
    }

    fn free(&self, address: u64) -> Result<(), Error> {
        let shared = &self.0;
        let _idle = shared.work.write().unwrap_or_else(PoisonError::into_inner);
        let known = lock(&shared.allocations).remove(&address);
        let allocation =
            known.ok_or(Error::InvalidValue("no allocation begins at this address"))?;
        shared.enter(|_| shared.release(address, allocation))
    }

    fn address_range(&self, address: u64) -> Result<Range<u64>, Error> {
        self.0.address_range(address)
    }

    #[allow(unsafe_code)]
    fn write(&self, to: u64, from: VolatileSlice<'_>) -> Result<(), Error> {
        let _held = self.0.work.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.0.range(to, from.len() as u64)?;
        let source = from.ptr_guard();
        // SAFETY: the slice is valid for its length while the guard lives.
        self.0
            .enter(|driver| unsafe { driver.copy_to(to, source.as_ptr(), bytes) })
    }

    #[allow(unsafe_code)]
    fn read(&self, from: u64, to: VolatileSlice<'_>) -> Result<(), Error> {
        let _held = self.0.work.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.0.range(from, to.len() as u64)?;
        let target = to.ptr_guard_mut();
        // SAFETY: the slice is valid for its length while the guard lives.
        self.0
            .enter(|driver| unsafe { driver.copy_from(target.as_ptr(), from, bytes) })
    }

    fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        let _held = self.0.work.read().unwrap_or_else(PoisonError::into_inner);
        let length = self.0.range(from, bytes)?;
        self.0.range(to, bytes)?;
        let apart = to.abs_diff(from) >= bytes;
        self.0.enter(|driver| {
            if apart {
                driver.copy(to, from, length)?;
                return driver.synchronize();
            }
            // The driver does not say what becomes of ranges that overlap.
            let between = driver.alloc(bytes)?;
            let copied = driver
                .copy(between, from, length)
                .and_then(|()| driver.copy(to, between, length))
                .and_then(|()| driver.synchronize());
            copied.and(driver.free(between))
        })
    }

    fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        let _held = self.0.work.read().unwrap_or_else(PoisonError::into_inner);
        let width = pattern.len() as u64;
        let bytes = count.checked_mul(width);
        if !matches!(width, 1 | 2 | 4) || !address.is_multiple_of(width) {
            return Err(Error::InvalidValue(
                "a pattern has 1, 2 or 4 bytes, at a multiple of them",
            ));
        }
        self.0.range(
            address,
            bytes.ok_or(Error::InvalidValue("a range beyond its allocation"))?,
        )?;
        self.0.enter(|driver| {
            driver.set(address, pattern, count as usize)?;
            driver.synchronize()
        })
    }

    fn load(&self, text: &str) -> Result<Arc<dyn Module>, Error> {
        let shared = Arc::clone(&self.0);
        let source = CString::new(text).map_err(|_| Error::InvalidValue("a NUL in a text"))?;
        let module = shared.enter(|driver| driver.module_load(&source))?;
        Ok(Arc::new(CudaModule(Arc::new(Loaded {
            shared,
            module: Handle(module),
            text: text.into(),
        }))))
    }

    /// The driver prints by itself.
    fn output_waiting(&self) -> u64 {
        0
    }

    fn take_output(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A module, which its kernels keep.
struct Loaded {
    shared: Arc<Shared>,
    module: Handle,
    text: String,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.shared.hangs.load(Ordering::Acquire) {
            return;
        }
        let driver = &self.shared.driver;
        let unloaded = driver
            .context_set(self.shared.handle.0)
            .and_then(|()| driver.module_unload(self.module.0));
        if let Err(error) = unloaded {
            log::debug!("{error}");
        }
    }
}

struct CudaModule(Arc<Loaded>);

fn symbol(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::NotFound(name.to_owned()))
}

impl Module for CudaModule {
    fn function(&self, name: &str) -> Result<Arc<dyn Kernel>, Error> {
        let loaded = &self.0;
        let (module, symbol) = (loaded.module.0, symbol(name)?);
        let kernel = loaded.shared.enter(|driver| {
            let function = driver.function(module, &symbol)?;
            let number = |attribute| -> Result<u32, Error> {
                Ok(u32::try_from(driver.function_attribute(function, attribute)?).unwrap_or(0))
            };
            Ok(CudaKernel {
                loaded: Arc::clone(loaded),
                function: Handle(function),
                name: name.to_owned(),
                params: params(&loaded.text, name)?,
                attributes: Attributes {
                    max_threads_per_block: number(attribute::FUNCTION_MAX_THREADS)?,
                    shared_bytes: number(attribute::FUNCTION_SHARED)?.into(),
                    const_bytes: number(attribute::FUNCTION_CONST)?.into(),
                    local_bytes: number(attribute::FUNCTION_LOCAL)?.into(),
                    registers: number(attribute::FUNCTION_REGISTERS)?,
                },
            })
        })?;
        Ok(Arc::new(kernel))
    }

    fn global(&self, name: &str) -> Result<(u64, u64), Error> {
        let symbol = symbol(name)?;
        let (shared, module) = (&self.0.shared, self.0.module.0);
        let (address, bytes) = shared.enter(|driver| driver.global(module, &symbol))?;
        // So that it can be copied to and from.
        let allocation = Allocation {
            bytes,
            placement: Placement::Device,
        };
        lock(&shared.allocations).insert(address, allocation);
        Ok((address, bytes))
    }
}

/// Where the parameters of a kernel are, as its text says.
fn params(text: &str, name: &str) -> Result<Vec<(u64, u64)>, Error> {
    let program = ptx::compile(text).map_err(Error::InvalidPtx)?;
    let mut functions = program.functions.iter();
    functions
        .find(|function| function.entry && function.name == name)
        .map(|function| function.kernel_params.clone())
        .ok_or_else(|| Error::NotFound(name.to_owned()))
}

struct CudaKernel {
    loaded: Arc<Loaded>,
    function: Handle,
    name: String,
    params: Vec<(u64, u64)>,
    attributes: Attributes,
}

impl Kernel for CudaKernel {
    fn name(&self) -> &str {
        &self.name
    }

    fn params(&self) -> &[(u64, u64)] {
        &self.params
    }

    fn attributes(&self) -> Attributes {
        self.attributes
    }

    fn launch(&self, config: &LaunchConfig, params: &[u8]) -> Result<(), Error> {
        let shared = &self.loaded.shared;
        let _held = shared.work.read().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = Vec::new();
        for &(offset, bytes) in &self.params {
            let end = offset.saturating_add(bytes) as usize;
            let param = params.get(offset as usize..end);
            let param = param.ok_or(Error::InvalidValue(
                "fewer bytes of parameters than the kernel has",
            ))?;
            buffers.push(param.to_vec());
        }
        let mut buffers: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        shared.enter(|driver| {
            let stream = driver.stream()?;
            let done = driver
                .launch(
                    self.function.0,
                    config.grid,
                    config.block,
                    config.dynamic_shared,
                    stream,
                    &mut buffers,
                )
                .and_then(|()| self.wait(driver, stream));
            if !shared.hangs.load(Ordering::Acquire) {
                driver.stream_destroy(stream)?;
            }
            done
        })
    }
}

impl CudaKernel {
    /// Waits for the kernel, as long as the watchdog lets it run and somebody wants it.
    fn wait(&self, driver: &Driver, stream: Opaque) -> Result<(), Error> {
        let shared = &self.loaded.shared;
        let started = Instant::now();
        let mut nap = SHORT_NAP;
        while !driver.is_done(stream)? {
            let late = shared.watchdog.is_some_and(|most| started.elapsed() > most);
            if late || shared.cancelled.load(Ordering::Acquire) {
                shared.hangs.store(true, Ordering::Release);
                let error = Error::Fault {
                    kernel: self.name.clone(),
                    line: 0,
                    fault: Fault::Timeout,
                };
                lock(&shared.fault).get_or_insert_with(|| error.clone());
                return Err(error);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(LONG_NAP);
        }
        Ok(())
    }
}
