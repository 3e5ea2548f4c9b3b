//! Modules and kernels; libraries, which are modules of whatever context is current.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::context::{self, Context};
use crate::driver::Driver;
use crate::image;
use crate::jit::Options;
use crate::memory::Kind;
use crate::registry::Handle;
use crate::transport::{Grid, Kernel};
use crate::{Error, Result};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of shared memory of a block unless a kernel asks for more with `MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub const SHARED_PER_BLOCK: u32 = 48 << 10;
/// What it may ask for.
pub const SHARED_PER_BLOCK_OPTIN: u32 = 64 << 10;
/// Blocks of a grid by dimension.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// Threads of a block by dimension, and in all.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub const MAX_THREADS: u32 = 1024;

/// A module in a context.
pub struct Module {
    /// The accelerator's number for it.
    id: u32,
    kernels: Vec<String>,
    context: Weak<Context>,
    functions: Mutex<BTreeMap<String, Handle>>,
    variables: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Module {
    pub fn load(context: &Arc<Context>, ptx: &str, options: Options) -> Result<Self> {
        Ok(Self {
            id: options.load(context, ptx)?,
            kernels: image::kernels(ptx),
            context: Arc::downgrade(context),
            functions: Mutex::default(),
            variables: Mutex::default(),
        })
    }

    pub fn context(&self) -> Result<Arc<Context>> {
        self.context.upgrade().ok_or(Error::CONTEXT_IS_DESTROYED)
    }

    /// Names of all kernels.
    pub fn kernels(&self) -> &[String] {
        &self.kernels
    }

    /// The handle of a kernel; the same each time.
    pub fn function(self: &Arc<Self>, driver: &Driver, name: &str) -> Result<Handle> {
        let mut functions = lock(&self.functions);
        if let Some(handle) = functions.get(name) {
            return Ok(*handle);
        }
        let kernel = self.context()?.channel.kernel(self.id, name)?;
        let handle = driver.functions.add(Arc::new(Function {
            module: self.clone(),
            c_name: CString::new(name).map_err(|_| Error::NOT_FOUND)?,
            kernel,
            dynamic_shared_limit: AtomicU32::new(0),
        }));
        functions.insert(name.to_owned(), handle);
        Ok(handle)
    }

    /// Address and bytes of a global variable.
    pub fn variable(&self, driver: &Driver, name: &str) -> Result<(u64, u64)> {
        let mut variables = lock(&self.variables);
        if let Some(variable) = variables.get(name) {
            return Ok(*variable);
        }
        let context = self.context()?;
        let (address, bytes) = context.channel.global(self.id, name)?;
        driver
            .allocations
            .keep(&context, address, bytes, Kind::Variable, Handle::NULL);
        variables.insert(name.to_owned(), (address, bytes));
        Ok((address, bytes))
    }

    /// Unloads the module once its context's work has ended.
    pub fn unload(&self, driver: &Driver) -> Result<()> {
        let context = self.context()?;
        let ended = context.synchronize();
        for handle in lock(&self.functions).values() {
            // Each was added by `function`, and is removed here alone.
            let _ = driver.functions.remove(*handle);
        }
        for (address, _) in lock(&self.variables).values() {
            let _ = driver
                .allocations
                .take(*address, |kind| kind == Kind::Variable);
        }
        context.channel.unload(self.id)?;
        ended
    }
}

/// `CUfunction_attribute`.
mod attribute {
    pub const MAX_THREADS_PER_BLOCK: u32 = 0;
    pub const SHARED_SIZE_BYTES: u32 = 1;
    pub const CONST_SIZE_BYTES: u32 = 2;
    pub const LOCAL_SIZE_BYTES: u32 = 3;
    pub const NUM_REGS: u32 = 4;
    pub const PTX_VERSION: u32 = 5;
    pub const BINARY_VERSION: u32 = 6;
    pub const CACHE_MODE_CA: u32 = 7;
    pub const MAX_DYNAMIC_SHARED_SIZE_BYTES: u32 = 8;
    pub const PREFERRED_SHARED_MEMORY_CARVEOUT: u32 = 9;
    /// The last one, of those for clusters.
    pub const CLUSTER_SCHEDULING_POLICY_PREFERENCE: u32 = 15;
}

/// A kernel.
pub struct Function {
    pub module: Arc<Module>,
    c_name: CString,
    pub kernel: Kernel,
    /// Set by the program; 0 for the default.
    dynamic_shared_limit: AtomicU32,
}

impl Function {
    pub fn c_name(&self) -> &CStr {
        &self.c_name
    }

    fn max_dynamic_shared(&self) -> u32 {
        match self.dynamic_shared_limit.load(Ordering::Relaxed) {
            0 => SHARED_PER_BLOCK.saturating_sub(self.kernel.shared_bytes as u32),
            limit => limit,
        }
    }

    pub fn attribute(&self, which: u32) -> Result<i32> {
        let (major, minor) = Driver::compute_capability();
        let version = (major * 10 + minor) as i32;
        let size = |bytes: u64| i32::try_from(bytes).unwrap_or(i32::MAX);
        Ok(match which {
            attribute::MAX_THREADS_PER_BLOCK => self.kernel.max_threads_per_block as i32,
            attribute::SHARED_SIZE_BYTES => size(self.kernel.shared_bytes),
            attribute::CONST_SIZE_BYTES => size(self.kernel.const_bytes),
            attribute::LOCAL_SIZE_BYTES => size(self.kernel.local_bytes),
            attribute::NUM_REGS => self.kernel.registers as i32,
            attribute::PTX_VERSION | attribute::BINARY_VERSION => version,
            attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES => self.max_dynamic_shared() as i32,
            attribute::PREFERRED_SHARED_MEMORY_CARVEOUT => -1,
            attribute::CACHE_MODE_CA..=attribute::CLUSTER_SCHEDULING_POLICY_PREFERENCE => 0,
            _ => return Err(Error::INVALID_VALUE),
        })
    }

    pub fn set_attribute(&self, which: u32, value: i32) -> Result<()> {
        match which {
            attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES => {
                let most = u64::from(SHARED_PER_BLOCK_OPTIN);
                let limit = u32::try_from(value).map_err(|_| Error::INVALID_VALUE)?;
                if u64::from(limit) + self.kernel.shared_bytes > most {
                    return Err(Error::INVALID_VALUE);
                }
                self.dynamic_shared_limit.store(limit, Ordering::Relaxed);
                Ok(())
            }
            // A hint.
            attribute::PREFERRED_SHARED_MEMORY_CARVEOUT if (-1..=100).contains(&value) => Ok(()),
            _ => Err(Error::INVALID_VALUE),
        }
    }

    /// Offset and bytes of a parameter.
    pub fn parameter(&self, index: usize) -> Result<(u64, u64)> {
        let parameter = self.kernel.params.get(index).copied();
        parameter.ok_or(Error::INVALID_VALUE)
    }

    pub fn parameter_count(&self) -> usize {
        self.kernel.params.len()
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> usize {
        let last = self.kernel.params.last();
        last.map_or(0, |(offset, bytes)| (offset + bytes) as usize)
    }

    /// # Errors
    /// What CUDA answers to a launch that the device cannot do.
    pub fn check(&self, grid: &Grid) -> Result<()> {
        let within = |dims: [u32; 3], most: [u32; 3]| {
            dims.iter()
                .zip(most)
                .all(|(&dim, most)| (1..=most).contains(&dim))
        };
        let threads: u64 = grid.block.iter().map(|&dim| u64::from(dim)).product();
        if !within(grid.grid, MAX_GRID)
            || !within(grid.block, MAX_BLOCK)
            || threads > MAX_THREADS.into()
            || grid.shared_bytes > self.max_dynamic_shared()
        {
            return Err(Error::INVALID_VALUE);
        }
        if threads > self.kernel.max_threads_per_block.into() {
            return Err(Error::LAUNCH_OUT_OF_RESOURCES);
        }
        Ok(())
    }

    /// Blocks of so many threads that a multiprocessor can hold at once.
    pub fn blocks_per_multiprocessor(&self, threads: u32, dynamic_shared: u64) -> Result<u32> {
        let limit = self.kernel.max_threads_per_block;
        if threads == 0 || threads > limit {
            return Err(Error::INVALID_VALUE);
        }
        let shared = self.kernel.shared_bytes + dynamic_shared;
        let by_shared = match shared {
            0 => BLOCKS_PER_MULTIPROCESSOR,
            _ => u32::try_from(u64::from(SHARED_PER_BLOCK_OPTIN) / shared).unwrap_or(0),
        };
        let warps = threads.div_ceil(WARP);
        let by_threads = THREADS_PER_MULTIPROCESSOR / (warps * WARP);
        Ok(by_threads.min(by_shared).min(BLOCKS_PER_MULTIPROCESSOR))
    }
}

pub const WARP: u32 = 32;
pub const BLOCKS_PER_MULTIPROCESSOR: u32 = 16;
pub const THREADS_PER_MULTIPROCESSOR: u32 = 1024;

/// An image that is loaded into each context that uses it.
pub struct Library {
    pub handle: Handle,
    pub ptx: String,
    modules: Mutex<BTreeMap<Handle, (Handle, Arc<Module>)>>,
    kernels: Mutex<BTreeMap<String, Handle>>,
}

impl Library {
    pub fn new(ptx: String) -> Self {
        Self {
            handle: Handle::fresh(),
            ptx,
            modules: Mutex::default(),
            kernels: Mutex::default(),
        }
    }

    /// The library's module in the current context, with its handle.
    pub fn module(&self, driver: &Driver, options: Options) -> Result<(Handle, Arc<Module>)> {
        let context = context::current()?;
        let mut modules = lock(&self.modules);
        if let Some(module) = modules.get(&context.handle) {
            return Ok(module.clone());
        }
        let module = Arc::new(Module::load(&context, &self.ptx, options)?);
        let handle = driver.modules.add(module.clone());
        modules.insert(context.handle, (handle, module.clone()));
        Ok((handle, module))
    }

    /// The handle of a kernel, good in every context; the same each time.
    pub fn kernel(self: &Arc<Self>, driver: &Driver, name: &str) -> Result<Handle> {
        let mut kernels = lock(&self.kernels);
        if let Some(handle) = kernels.get(name) {
            return Ok(*handle);
        }
        // Known to the module, or an error.
        let (_, module) = self.module(driver, Options::default())?;
        module.function(driver, name)?;
        let handle = driver.kernels.add(Arc::new(LibraryKernel {
            library: self.clone(),
            name: name.to_owned(),
        }));
        kernels.insert(name.to_owned(), handle);
        Ok(handle)
    }

    pub fn unload(&self, driver: &Driver) -> Result<()> {
        for handle in lock(&self.kernels).values() {
            // Each was added by `kernel`, and is removed here alone.
            let _ = driver.kernels.remove(*handle);
        }
        for (handle, module) in std::mem::take(&mut *lock(&self.modules)).into_values() {
            // Gone already if its context is.
            if driver.modules.remove(handle).is_ok() {
                module.unload(driver)?;
            }
        }
        Ok(())
    }
}

/// A kernel of a library.
pub struct LibraryKernel {
    pub library: Arc<Library>,
    pub name: String,
}

impl LibraryKernel {
    /// Its handle in the current context.
    pub fn function(&self, driver: &Driver) -> Result<Handle> {
        let (_, module) = self.library.module(driver, Options::default())?;
        module.function(driver, &self.name)
    }
}

impl Driver {
    /// A kernel by the handle of a function or of a library's kernel, in the current context.
    pub fn function(&self, handle: Handle) -> Result<Arc<Function>> {
        if let Some(function) = self.functions.find(handle) {
            return Ok(function);
        }
        let kernel = self.kernels.get(handle)?;
        self.functions.get(kernel.function(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(shared_bytes: u64, max_threads_per_block: u32) -> Function {
        Function {
            module: Arc::new(Module {
                id: 1,
                kernels: Vec::new(),
                context: Weak::new(),
                functions: Mutex::default(),
                variables: Mutex::default(),
            }),
            c_name: c"f".into(),
            kernel: Kernel {
                id: 1,
                params: vec![(0, 8), (8, 4), (16, 8)],
                max_threads_per_block,
                shared_bytes,
                const_bytes: 0,
                local_bytes: 0,
                registers: 8,
            },
            dynamic_shared_limit: AtomicU32::new(0),
        }
    }

    fn grid(blocks: u32, threads: u32, shared_bytes: u32) -> Grid {
        Grid {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared_bytes,
        }
    }

    #[test]
    fn parameters_lie_where_ptx_puts_them() {
        let function = function(0, 1024);
        assert_eq!(function.parameter(2), Ok((16, 8)));
        assert_eq!(function.parameter(3), Err(Error::INVALID_VALUE));
        assert_eq!(function.parameter_count(), 3);
        assert_eq!(function.parameter_bytes(), 24);
    }

    #[test]
    fn launches_beyond_the_device_are_refused() {
        let function = function(0, 256);
        assert_eq!(function.check(&grid(1, 256, 0)), Ok(()));
        assert_eq!(function.check(&grid(0, 256, 0)), Err(Error::INVALID_VALUE));
        assert_eq!(function.check(&grid(1, 1025, 0)), Err(Error::INVALID_VALUE));
        assert_eq!(
            function.check(&grid(1, 512, 0)),
            Err(Error::LAUNCH_OUT_OF_RESOURCES)
        );
    }

    #[test]
    fn more_dynamic_shared_memory_must_be_asked_for() {
        let function = function(1024, 1024);
        let large = grid(1, 32, 60 << 10);
        assert_eq!(function.check(&large), Err(Error::INVALID_VALUE));
        let limit = attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert_eq!(function.attribute(limit), Ok(47 << 10));
        assert_eq!(
            function.set_attribute(limit, 64 << 10),
            Err(Error::INVALID_VALUE)
        );
        function.set_attribute(limit, 63 << 10).unwrap();
        assert_eq!(function.check(&large), Ok(()));
    }

    #[test]
    fn occupancy_is_limited_by_threads_shared_memory_and_blocks() {
        let full = function(0, 1024);
        assert_eq!(full.blocks_per_multiprocessor(256, 0), Ok(4));
        assert_eq!(full.blocks_per_multiprocessor(1, 0), Ok(16));
        let shared = function(20 << 10, 1024);
        assert_eq!(shared.blocks_per_multiprocessor(64, 0), Ok(3));
        assert_eq!(shared.blocks_per_multiprocessor(64, 30 << 10), Ok(1));
        assert!(full.blocks_per_multiprocessor(2048, 0).is_err());
    }
}
