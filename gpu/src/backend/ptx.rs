//! The default backend: PTX on the CPU.

use std::ops::Range;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::{Attributes, Backend, Context, Kernel, LaunchConfig, Module, Placement, Properties};
use crate::coherence::Coherence;
use crate::protocol::spec;
use crate::ptx::{self, MAX_THREADS, Options};
use crate::{DeviceMemory, Error};

/// A device whose multiprocessors are threads of this process.
#[derive(Debug)]
pub struct Ptx {
    memory: Arc<DeviceMemory>,
    options: Options,
    properties: Properties,
}

impl Ptx {
    /// A device with this memory that claims a compute capability and a driver version.
    #[must_use]
    pub fn new(
        memory: Arc<DeviceMemory>,
        options: Options,
        compute_capability: (u32, u32),
        driver_version: u32,
    ) -> Self {
        let properties = Properties {
            name: "MEMU Type 2 accelerator (PTX on CPU)".into(),
            backend: spec::backend::PTX,
            memory: memory.size(),
            compute_capability,
            driver_version,
            multiprocessors: options.workers.max(1),
            max_threads: MAX_THREADS,
        };
        Self {
            memory,
            options,
            properties,
        }
    }
}

impl Backend for Ptx {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn available(&self) -> u64 {
        self.memory.available()
    }

    fn coherence(&self) -> Option<&Arc<dyn Coherence>> {
        self.memory.coherence()
    }

    fn context(&self) -> Result<Arc<dyn Context>, Error> {
        let context = ptx::Context::new(Arc::clone(&self.memory), self.options);
        Ok(Arc::new(PtxContext(context)))
    }
}

/// Modules keep the context, so that its memory outlives them.
struct PtxContext(Arc<ptx::Context>);

impl Context for PtxContext {
    fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    fn cancel(&self) {
        self.0.cancel();
    }

    fn used(&self) -> u64 {
        self.0.used()
    }

    fn alloc(&self, bytes: u64, placement: Placement) -> Result<u64, Error> {
        match placement {
            Placement::Device => self.0.alloc(bytes),
            Placement::Mappable => self.0.alloc_pages(bytes),
        }
    }

    fn free(&self, address: u64) -> Result<(), Error> {
        self.0.free(address)
    }

    fn address_range(&self, address: u64) -> Result<Range<u64>, Error> {
        self.0.address_range(address)
    }

    fn write(&self, to: u64, from: VolatileSlice<'_>) -> Result<(), Error> {
        self.0.write_from(to, from)
    }

    fn read(&self, from: u64, to: VolatileSlice<'_>) -> Result<(), Error> {
        self.0.read_to(from, to)
    }

    fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        self.0.copy(to, from, bytes)
    }

    fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        self.0.set(address, pattern, count)
    }

    fn load(&self, text: &str) -> Result<Arc<dyn Module>, Error> {
        Ok(Arc::new(PtxModule(ptx::Module::load(&self.0, text)?)))
    }

    fn output_waiting(&self) -> u64 {
        self.0.output_waiting()
    }

    fn take_output(&self) -> Vec<u8> {
        self.0.take_output()
    }
}

struct PtxModule(Arc<ptx::Module>);

impl Module for PtxModule {
    fn function(&self, name: &str) -> Result<Arc<dyn Kernel>, Error> {
        Ok(Arc::new(self.0.function(name)?))
    }

    fn global(&self, name: &str) -> Result<(u64, u64), Error> {
        self.0.global(name)
    }
}

impl Kernel for ptx::Function {
    fn name(&self) -> &str {
        self.name()
    }

    fn params(&self) -> &[(u64, u64)] {
        self.params()
    }

    fn attributes(&self) -> Attributes {
        self.attributes()
    }

    fn launch(&self, config: &LaunchConfig, params: &[u8]) -> Result<(), Error> {
        self.launch(config, params)
    }
}
