//! A session: what one client has on the device, and nothing that another one could reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use vm_memory::{
    GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap, VolatileSlice,
};

use super::handles::{Budget, Handles, Share};
use super::queue::Queue;
use crate::Error;
use crate::backend::{Backend, Context, Kernel, LaunchConfig, Module, Placement};
use crate::coherence::Coherence;
use crate::protocol::region::{Region, Span};
use crate::protocol::spec::{HANDLES, MEMORY_BASE, PAGE, REGIONS, op};

/// Kernels that are counted by name; further names are counted together.
const NAMES: usize = 256;

/// What becomes of the bias of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasChange {
    ToHost,
    ToDevice,
    Flip,
}

/// Limits that all sessions share.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Bytes of module texts.
    pub modules: Arc<Budget>,
    /// Segments of regions.
    pub segments: Arc<Budget>,
}

/// One client's part of the device.
pub struct Session {
    backend: Arc<dyn Backend>,
    budgets: Budgets,
    guest: GuestMemoryAtomic<GuestMemoryMmap>,
    /// True once the client is gone: its memory is not touched any more. Held while it is touched.
    closed: RwLock<bool>,
    /// Set first, so that what takes long ends early.
    closing: AtomicBool,
    context: Mutex<Option<Arc<dyn Context>>>,
    tables: Mutex<Tables>,
    /// What kernels have printed and nobody has taken.
    output: Mutex<Vec<u8>>,
    queues: Mutex<BTreeMap<u32, Weak<Queue>>>,
    /// Told whenever a queue has completed a command or ends.
    progress: Condvar,
    counters: Counters,
    kernels: Mutex<BTreeMap<String, KernelCount>>,
}

struct Tables {
    modules: Handles<Loaded>,
    functions: Handles<Function>,
    regions: Handles<Registered>,
    /// Mappable allocations by address, and how often each is pinned.
    pins: BTreeMap<u64, u32>,
}

struct Loaded {
    module: Arc<dyn Module>,
    _text: Share,
}

struct Function {
    module: u64,
    kernel: Arc<dyn Kernel>,
}

struct Registered {
    region: Arc<Region>,
    _segments: Share,
}

/// What a session has done.
#[derive(Debug, Default)]
pub struct Counters {
    pub commands: AtomicU64,
    pub launches: AtomicU64,
    /// ns that kernels ran, beside each other.
    pub kernel_time: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// What a kernel has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCount {
    pub launches: u64,
    /// ns.
    pub time: u64,
}

/// The client's memory, which stays its own while this lives. Never taken twice by one thread.
pub struct Guest<'a> {
    _open: RwLockReadGuard<'a, bool>,
    memory: GuestMemoryLoadGuard<GuestMemoryMmap>,
}

impl Guest<'_> {
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// A session with nothing in it.
    pub fn new(
        backend: Arc<dyn Backend>,
        budgets: Budgets,
        guest: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            budgets,
            guest,
            closed: RwLock::new(false),
            closing: AtomicBool::new(false),
            context: Mutex::default(),
            tables: Mutex::new(Tables {
                modules: Handles::new(HANDLES),
                functions: Handles::new(HANDLES),
                regions: Handles::new(REGIONS as usize),
                pins: BTreeMap::new(),
            }),
            output: Mutex::default(),
            queues: Mutex::default(),
            progress: Condvar::new(),
            counters: Counters::default(),
            kernels: Mutex::default(),
        })
    }

    /// The context, which is made when it is first needed: a real device takes its time.
    pub fn context(&self) -> Result<Arc<dyn Context>, Error> {
        let mut context = lock(&self.context);
        if self.is_closing() {
            return Err(Error::InvalidContext);
        }
        if let Some(context) = &*context {
            return Ok(Arc::clone(context));
        }
        let new = self.backend.context()?;
        *context = Some(Arc::clone(&new));
        Ok(new)
    }

    /// The fault that has ended the context, if there is one.
    pub fn check(&self) -> Result<(), Error> {
        self.context()?.check()
    }

    /// Access to the client's memory; `None` once it is gone.
    pub fn guest(&self) -> Option<Guest<'_>> {
        let open = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        (!*open).then(|| Guest {
            _open: open,
            memory: self.guest.memory(),
        })
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends what runs. When this returns, the client's memory is not touched any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        if let Some(context) = &*lock(&self.context) {
            context.cancel();
        }
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        self.notify();
    }

    /// Frees everything, for a closed session that nothing runs in.
    pub fn clear(&self) {
        let mut tables = lock(&self.tables);
        tables.functions.clear();
        tables.modules.clear();
        tables.regions.clear();
        tables.pins.clear();
        drop(tables);
        lock(&self.context).take();
    }

    pub fn add_queue(&self, number: u32, queue: &Arc<Queue>) {
        lock(&self.queues).insert(number, Arc::downgrade(queue));
    }

    pub fn remove_queue(&self, number: u32) {
        lock(&self.queues).remove(&number);
        self.notify();
    }

    /// Tells whoever waits for another queue to look again.
    pub fn notify(&self) {
        let _queues = lock(&self.queues);
        self.progress.notify_all();
    }

    /// Waits until a queue has completed so many commands, or `stop` says that the waiter has to end.
    pub fn wait_for(&self, queue: u64, completed: u32, stop: impl Fn() -> bool) {
        let mut queues = lock(&self.queues);
        loop {
            let target = u32::try_from(queue)
                .ok()
                .and_then(|queue| queues.get(&queue)?.upgrade());
            let done = target.is_none_or(|target| {
                // Modulo 2^32: ahead by less than half of all numbers.
                target.completed().wrapping_sub(completed) < 1 << 31
            });
            if done || stop() || self.is_closing() {
                return;
            }
            queues = self
                .progress
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn alloc(&self, bytes: u64, placement: Placement) -> Result<u64, Error> {
        let address = self.context()?.alloc(bytes, placement)?;
        if placement == Placement::Mappable {
            lock(&self.tables).pins.insert(address, 0);
        }
        Ok(address)
    }

    pub fn free(&self, address: u64) -> Result<(), Error> {
        let context = self.context()?;
        {
            let pins = &mut lock(&self.tables).pins;
            if pins.get(&address).is_some_and(|&pins| pins > 0) {
                return Err(Error::InvalidValue("memory that is mapped"));
            }
            // From here on nobody can pin it.
            pins.remove(&address);
        }
        context.free(address)
    }

    /// Keeps a mappable range from being freed, and returns its offset in the device's memory window.
    pub fn pin(&self, address: u64, bytes: u64) -> Result<u64, Error> {
        let base = self.mappable(address, bytes)?;
        let tables = &mut lock(&self.tables);
        let pins = tables.pins.get_mut(&base);
        let pins = pins.ok_or(Error::InvalidValue("memory that cannot be mapped"))?;
        *pins = pins
            .checked_add(1)
            .ok_or(Error::InvalidValue("memory that is mapped too often"))?;
        Ok(address - MEMORY_BASE)
    }

    /// Puts pages of one of the client's mappable allocations into device bias, into host bias, or each into the other one; how
    /// many changed.
    pub fn set_bias(&self, address: u64, bytes: u64, bias: BiasChange) -> Result<u64, Error> {
        let coherence = self.coherence()?;
        self.bias_range(address, bytes)?;
        let offset = address - MEMORY_BASE;
        match bias {
            BiasChange::ToHost => coherence.set_bias(offset, bytes, false),
            BiasChange::ToDevice => coherence.set_bias(offset, bytes, true),
            BiasChange::Flip => coherence.flip_bias(offset, bytes),
        }
    }

    /// Whether a page of the client's is in device bias.
    pub fn is_device_biased(&self, address: u64) -> Result<bool, Error> {
        let coherence = self.coherence()?;
        let page = address - address % PAGE;
        self.bias_range(page, PAGE)?;
        Ok(coherence.is_device_biased(page - MEMORY_BASE))
    }

    /// The device's counters of coherence.
    pub fn coherence_statistics(&self) -> Result<Vec<u64>, Error> {
        Ok(self.coherence()?.statistics())
    }

    fn coherence(&self) -> Result<&Arc<dyn Coherence>, Error> {
        let coherence = self.backend.coherence();
        coherence.ok_or(Error::NotSupported(op::BIAS_SET.into()))
    }

    /// Does what reaches device memory apart from what is before and behind it.
    pub fn apart<R>(&self, reach: impl FnOnce() -> R) -> R {
        let coherence = self.backend.coherence();
        if let Some(coherence) = coherence {
            coherence.boundary();
        }
        let result = reach();
        if let Some(coherence) = coherence {
            coherence.boundary();
        }
        result
    }

    /// Pages of an allocation that share none with another client's.
    fn bias_range(&self, address: u64, bytes: u64) -> Result<(), Error> {
        let base = self.mappable(address, bytes)?;
        match lock(&self.tables).pins.contains_key(&base) {
            true => Ok(()),
            false => Err(Error::InvalidValue("memory that has no pages of its own")),
        }
    }

    /// Undoes a [`Self::pin`].
    pub fn unpin(&self, address: u64, bytes: u64) -> Result<(), Error> {
        let base = self.mappable(address, bytes)?;
        let tables = &mut lock(&self.tables);
        let pins = tables.pins.get_mut(&base).filter(|pins| **pins > 0);
        *pins.ok_or(Error::InvalidValue("memory that is not mapped"))? -= 1;
        Ok(())
    }

    /// The allocation that a range of whole pages lies in.
    fn mappable(&self, address: u64, bytes: u64) -> Result<u64, Error> {
        let refused = Error::InvalidValue("no range of pages in one allocation");
        if bytes == 0 || !address.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) {
            return Err(refused);
        }
        let range = self.context()?.address_range(address)?;
        if bytes > range.end - address || address < MEMORY_BASE {
            return Err(refused);
        }
        Ok(range.start)
    }

    pub fn register(&self, region: Region) -> Result<u32, Error> {
        let share = self.budgets.segments.take(region.segments())?;
        lock(&self.tables).regions.insert(Registered {
            region: Arc::new(region),
            _segments: share,
        })
    }

    pub fn unregister(&self, handle: u64) -> Result<(), Error> {
        let regions = &mut lock(&self.tables).regions;
        if Arc::strong_count(&regions.get(handle)?.region) > 1 {
            return Err(Error::NotReady);
        }
        regions.remove(handle).map(drop)
    }

    pub fn region(&self, handle: u32) -> Result<Arc<Region>, Error> {
        let tables = lock(&self.tables);
        Ok(Arc::clone(&tables.regions.get(handle.into())?.region))
    }

    /// Copies a span of the client's memory to the device.
    pub fn copy_in(&self, to: u64, region: u32, span: Span) -> Result<(), Error> {
        self.copy(region, span, false, |done, slice| {
            let to = to.checked_add(done).ok_or(BEYOND)?;
            self.write(to, slice)
        })
    }

    /// Copies from the device to a span of the client's memory.
    pub fn copy_out(&self, from: u64, region: u32, span: Span) -> Result<(), Error> {
        self.copy(region, span, true, |done, slice| {
            let from = from.checked_add(done).ok_or(BEYOND)?;
            self.read(from, slice)
        })
    }

    fn copy(
        &self,
        region: u32,
        span: Span,
        write: bool,
        mut copy: impl FnMut(u64, VolatileSlice<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let region = self.region(region)?;
        let guest = self.guest().ok_or(Error::InvalidContext)?;
        let mut done = 0;
        region.visit(guest.memory(), span, write, |slice| {
            let bytes = slice.len() as u64;
            copy(done, slice)?;
            done += bytes;
            Ok(())
        })
    }

    /// Copies to the device.
    pub fn write(&self, to: u64, from: VolatileSlice<'_>) -> Result<(), Error> {
        let bytes = from.len() as u64;
        self.context()?.write(to, from)?;
        self.counters.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Copies from the device.
    pub fn read(&self, from: u64, to: VolatileSlice<'_>) -> Result<(), Error> {
        let bytes = to.len() as u64;
        self.context()?.read(from, to)?;
        self.counters.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Compiles and loads a text; a NUL ends it.
    pub fn load(&self, text: &[u8]) -> Result<u32, Error> {
        let share = self.budgets.modules.take(text.len() as u64)?;
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let module = self.context()?.load(&text)?;
        lock(&self.tables).modules.insert(Loaded {
            module,
            _text: share,
        })
    }

    /// Unloads a module; its functions are gone with it.
    pub fn unload(&self, handle: u64) -> Result<(), Error> {
        let module = {
            let tables = &mut lock(&self.tables);
            tables
                .functions
                .retain(|function| function.module != handle);
            tables.modules.remove(handle)?
        };
        // This may have to wait for a kernel, and the tables must not.
        drop(module);
        Ok(())
    }

    fn module(&self, handle: u64) -> Result<Arc<dyn Module>, Error> {
        Ok(Arc::clone(&lock(&self.tables).modules.get(handle)?.module))
    }

    pub fn function(&self, module: u64, name: &str) -> Result<(u32, Arc<dyn Kernel>), Error> {
        let kernel = self.module(module)?.function(name)?;
        let function = Function {
            module,
            kernel: Arc::clone(&kernel),
        };
        Ok((lock(&self.tables).functions.insert(function)?, kernel))
    }

    pub fn global(&self, module: u64, name: &str) -> Result<(u64, u64), Error> {
        self.module(module)?.global(name)
    }

    pub fn kernel(&self, handle: u64) -> Result<Arc<dyn Kernel>, Error> {
        let tables = lock(&self.tables);
        Ok(Arc::clone(&tables.functions.get(handle)?.kernel))
    }

    /// Runs a kernel to its end.
    pub fn launch(
        &self,
        kernel: &dyn Kernel,
        config: &LaunchConfig,
        params: &[u8],
    ) -> Result<(), Error> {
        let started = Instant::now();
        let result = kernel.launch(config, params);
        self.count(kernel.name(), started.elapsed());
        result
    }

    fn count(&self, name: &str, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counters.launches.fetch_add(1, Ordering::Relaxed);
        self.counters.kernel_time.fetch_add(time, Ordering::Relaxed);
        let mut kernels = lock(&self.kernels);
        let name = if kernels.len() < NAMES || kernels.contains_key(name) {
            name
        } else {
            "(others)"
        };
        if !kernels.contains_key(name) {
            kernels.insert(name.to_owned(), KernelCount::default());
        }
        if let Some(count) = kernels.get_mut(name) {
            count.launches += 1;
            count.time += time;
        }
    }

    /// Bytes of device memory that are the client's.
    pub fn memory_used(&self) -> u64 {
        lock(&self.context)
            .as_ref()
            .map_or(0, |context| context.used())
    }

    /// Bytes of device memory that are free, and all.
    pub fn memory_info(&self) -> (u64, u64) {
        (self.backend.available(), self.backend.properties().memory)
    }

    /// Major and minor.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.backend.properties().compute_capability
    }

    /// Bytes that kernels have printed and nobody has taken.
    pub fn output_waiting(&self) -> Result<u64, Error> {
        let context = self.context()?;
        Ok(lock(&self.output).len() as u64 + context.output_waiting())
    }

    /// At most `most` bytes of what kernels have printed.
    pub fn take_output(&self, most: u64) -> Result<Vec<u8>, Error> {
        let context = self.context()?;
        let mut output = lock(&self.output);
        if output.is_empty() {
            *output = context.take_output();
        }
        let bytes = usize::try_from(most).map_or(output.len(), |most| most.min(output.len()));
        Ok(output.drain(..bytes).collect())
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Kernels by name.
    pub fn kernel_counts(&self) -> BTreeMap<String, KernelCount> {
        lock(&self.kernels).clone()
    }

    /// Modules, functions and regions.
    pub fn handle_counts(&self) -> [usize; 3] {
        let tables = lock(&self.tables);
        [
            tables.modules.len(),
            tables.functions.len(),
            tables.regions.len(),
        ]
    }
}

const BEYOND: Error = Error::InvalidValue("a copy beyond the end of device memory");
