//! A device for a test, and values in and out of it.

use std::sync::Arc;
use std::time::Duration;

use gpu::ptx::{Context, Function, LaunchConfig, Module, Options, Tier};
use gpu::{DeviceMemory, Error};

pub struct Device {
    memory: Arc<DeviceMemory>,
    pub context: Arc<Context>,
}

pub trait Plain: Copy {
    fn bytes(self) -> Vec<u8>;
}

macro_rules! plain {
    ($($ty:ty),*) => {$(
        impl Plain for $ty {
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )*};
}
plain!(u8, u32, u64, f32, f64);

impl Device {
    /// A device whose kernels are compiled.
    #[allow(dead_code, reason = "each test binary uses its part of this module")]
    pub fn new() -> Self {
        Self::with_tier(Tier::Compiler)
    }

    /// A device whose kernels are interpreted, and one whose kernels are compiled.
    #[allow(dead_code, reason = "each test binary uses its part of this module")]
    pub fn both() -> [Self; 2] {
        [Tier::Interpreter, Tier::Compiler].map(Self::with_tier)
    }

    pub fn with_tier(tier: Tier) -> Self {
        Self::with(Options {
            tier,
            ..Self::OPTIONS
        })
    }

    const OPTIONS: Options = Options {
        workers: 2,
        watchdog: Some(Duration::from_secs(60)),
        tier: Tier::Compiler,
    };

    pub fn with(options: Options) -> Self {
        let memory = DeviceMemory::new(4 << 20).unwrap();
        Self::on(memory, options)
    }

    #[allow(dead_code, reason = "each test binary uses its part of this module")]
    pub fn with_watchdog(limit: Duration, tier: Tier) -> Self {
        Self::with(Options {
            watchdog: Some(limit),
            tier,
            ..Self::OPTIONS
        })
    }

    fn on(memory: Arc<DeviceMemory>, options: Options) -> Self {
        Self {
            context: Context::new(memory.clone(), options),
            memory,
        }
    }

    /// Another context on the same memory.
    #[allow(dead_code, reason = "each test binary uses its part of this module")]
    pub fn sibling(&self) -> Self {
        Self::on(self.memory.clone(), Self::OPTIONS)
    }

    pub fn kernel(&self, text: &str, name: &str) -> Function {
        match Module::load(&self.context, text) {
            Ok(module) => module.function(name).unwrap(),
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    pub fn buffer(&self, bytes: usize) -> u64 {
        self.context.alloc(bytes as u64).unwrap()
    }

    pub fn upload<T: Plain>(&self, values: &[T]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.bytes()).collect();
        let address = self.buffer(bytes.len());
        self.context.write(address, &bytes).unwrap();
        address
    }

    pub fn download(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.context.read(address, &mut buffer).unwrap();
        buffer
    }

    pub fn launch_bytes(
        &self,
        kernel: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        params: &[u8],
    ) -> Result<(), Error> {
        let config = LaunchConfig {
            grid,
            block,
            dynamic_shared,
        };
        kernel.launch(&config, params)
    }

    /// Launches with parameters of 64 bits each.
    #[allow(dead_code, reason = "each test binary uses its part of this module")]
    pub fn launch(
        &self,
        kernel: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        params: &[u64],
    ) {
        let params: Vec<u8> = params
            .iter()
            .flat_map(|param| param.to_le_bytes())
            .collect();
        if let Err(error) = self.launch_bytes(kernel, grid, block, dynamic_shared, &params) {
            panic!("{error}");
        }
    }
}

#[allow(dead_code, reason = "each test binary uses its part of this module")]
pub fn integers(device: &Device, address: u64, count: usize) -> Vec<u32> {
    let bytes = device.download(address, count * 4);
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[allow(dead_code, reason = "each test binary uses its part of this module")]
pub fn floats(device: &Device, address: u64, count: usize) -> Vec<f32> {
    integers(device, address, count)
        .into_iter()
        .map(f32::from_bits)
        .collect()
}
