//! Kernels of a module, and their launches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::exec;
use super::ir;
use super::jit::{self, Uncovered, Variant};
use super::module::Module;
use super::options::Tier;
use crate::Error;

/// Threads of a block.
pub const MAX_THREADS: u32 = 1024;
/// Threads of a block by dimension.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Blocks of a grid by dimension.
pub const MAX_GRID: [u32; 3] = [(1 << 31) - 1, 65535, 65535];
/// Bytes of shared memory that a block may have, static and dynamic.
pub const MAX_SHARED: u64 = 64 << 10;
/// Threads that a kernel without a loop has run before it is compiled: about as many as the interpreter runs in that time.
const WARM: u64 = 4096;
/// Bytes that `vprintf` may print before they are taken; CUDA's default for `CU_LIMIT_PRINTF_FIFO_SIZE`.
pub const PRINTF_LIMIT: usize = 1 << 20;

/// What CUDA's `cuFuncGetAttribute` tells of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub max_threads_per_block: u32,
    /// Bytes of shared memory without the dynamic part.
    pub shared_bytes: u64,
    pub const_bytes: u64,
    /// Bytes of local memory of each thread.
    pub local_bytes: u64,
    /// Registers of each thread, of 64 bits.
    pub registers: u32,
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of `.extern .shared` variables.
    pub dynamic_shared: u32,
}

/// A kernel of a loaded module.
#[derive(Clone, Debug)]
pub struct Function {
    pub(super) module: Arc<Module>,
    pub(super) index: usize,
}

impl Function {
    fn ir(&self) -> &ir::Function {
        &self.module.program.functions[self.index]
    }

    pub fn name(&self) -> &str {
        &self.ir().name
    }

    /// Offset and size of each parameter in the buffer that [`Self::launch`] takes.
    pub fn params(&self) -> &[(u64, u64)] {
        &self.ir().kernel_params
    }

    pub fn attributes(&self) -> Attributes {
        let ir = self.ir();
        let max_block = ir.required_block.or(ir.max_block);
        let shared_bytes = self.shared_layout().fixed;
        Attributes {
            max_threads_per_block: max_block.map_or(MAX_THREADS, |block| {
                saturating_volume(block).min(MAX_THREADS)
            }),
            shared_bytes,
            const_bytes: 0,
            local_bytes: ir.local_bytes,
            registers: ir.registers.len() as u32,
        }
    }

    /// Places the shared variables: the static ones one after the other, all dynamic ones behind them.
    fn shared_layout(&self) -> SharedLayout {
        let program = &self.module.program;
        let mut offsets = vec![0; program.shared.len()];
        let mut end = 0u64;
        let used = || {
            self.ir()
                .shared
                .iter()
                .map(|&index| (index, &program.shared[index]))
        };
        for (index, shared) in used().filter(|(_, shared)| !shared.dynamic) {
            offsets[index] = end.next_multiple_of(shared.align);
            end = offsets[index] + shared.bytes;
        }
        let dynamic = || used().filter(|(_, shared)| shared.dynamic);
        let align = dynamic().map(|(_, shared)| shared.align).max().unwrap_or(1);
        let behind = end.next_multiple_of(align.max(16));
        for (index, _) in dynamic() {
            offsets[index] = behind;
        }
        SharedLayout {
            offsets,
            fixed: end,
            behind,
        }
    }

    /// Runs the kernel to its end. `params` holds the parameters at the offsets that [`Self::params`] tells.
    ///
    /// A fault ends the context: this call and all later ones report it.
    pub fn launch(&self, config: &LaunchConfig, params: &[u8]) -> Result<(), Error> {
        let context = &self.module.context;
        context.check()?;
        let shared = self.shared_layout();
        self.validate(config, params)?;
        let shared_bytes = shared.behind + u64::from(config.dynamic_shared);
        if shared_bytes > MAX_SHARED {
            return Err(Error::OutOfResources("more than 64 KiB of shared memory"));
        }
        let _running = context.hold();
        let allocations = context.allocations();
        let started = Instant::now();
        let launch = exec::Launch {
            program: &self.module.program,
            function: self.index,
            grid: config.grid,
            block: config.block,
            globals: &self.module.globals,
            shared_offsets: &shared.offsets,
            shared_bytes,
            dynamic_shared: config.dynamic_shared,
            params,
            memory: &context.memory,
            allocations: &allocations,
            workers: context.options.workers.max(1),
            id: context.count_launch(),
            started,
            deadline: context.options.watchdog.map(|limit| started + limit),
            cancelled: &context.cancelled,
            stop: AtomicBool::new(false),
            output: &context.output,
            output_limit: PRINTF_LIMIT,
        };
        let result = match self.code_for(config, &shared) {
            Some(variant) => jit::run(&launch, variant),
            None => exec::run(&launch),
        };
        result.map_err(|(_, line, fault)| {
            context.fail(Error::Fault {
                kernel: self.name().to_owned(),
                line,
                fault,
            })
        })
    }

    /// The code that runs a launch; `None` if the interpreter is to.
    fn code_for(&self, config: &LaunchConfig, shared: &SharedLayout) -> Option<&Variant> {
        let (_, threads) = &self.module.kernels[self.index];
        let wanted = match self.module.context.options.tier {
            Tier::Interpreter => false,
            Tier::Compiler => true,
            Tier::Automatic => {
                let [grid, block] = [config.grid, config.block]
                    .map(|dims| dims.iter().map(|&dim| u64::from(dim)).product::<u64>());
                let new = grid.saturating_mul(block);
                let before = threads.fetch_add(new.min(WARM), Ordering::Relaxed);
                // Nobody knows how long a loop takes, and a kernel that has begun ends where it is.
                before.saturating_add(new) > WARM || self.ir().has_loop()
            }
        };
        if !wanted {
            return None;
        }
        match self.variant(config.block, shared) {
            Ok(variant) => Some(variant),
            Err(uncovered) => {
                log::debug!("kernel `{}` is interpreted: {uncovered}", self.name());
                None
            }
        }
    }

    fn variant(&self, block: [u32; 3], shared: &SharedLayout) -> Result<&Variant, Uncovered> {
        let (kernel, _) = &self.module.kernels[self.index];
        kernel.variant(self.ir(), &self.module.globals, &shared.offsets, block)
    }

    /// Compiles the kernel for blocks of these dimensions, or tells why it is always interpreted.
    pub fn compile(&self, block: [u32; 3]) -> Result<(), Uncovered> {
        self.variant(block, &self.shared_layout()).map(|_| ())
    }

    fn validate(&self, config: &LaunchConfig, params: &[u8]) -> Result<(), Error> {
        let within = |dims: [u32; 3], most: [u32; 3]| {
            dims.iter()
                .zip(most)
                .all(|(&dim, most)| (1..=most).contains(&dim))
        };
        if !within(config.grid, MAX_GRID) || !within(config.block, MAX_BLOCK) {
            return Err(Error::InvalidValue(
                "a grid or block dimension out of range",
            ));
        }
        let threads = saturating_volume(config.block);
        if threads > self.attributes().max_threads_per_block {
            return Err(Error::InvalidValue(
                "more threads in a block than the kernel allows",
            ));
        }
        let ir = self.ir();
        if ir.required_block.is_some_and(|block| block != config.block) {
            return Err(Error::InvalidValue(
                "the kernel requires another block size",
            ));
        }
        let needed = ir
            .kernel_params
            .last()
            .map_or(0, |&(offset, bytes)| offset + bytes);
        if (params.len() as u64) < needed {
            return Err(Error::InvalidValue(
                "fewer bytes of parameters than the kernel has",
            ));
        }
        Ok(())
    }
}

struct SharedLayout {
    offsets: Vec<u64>,
    /// Bytes of the static variables.
    fixed: u64,
    /// Where dynamic variables begin.
    behind: u64,
}

fn saturating_volume(dims: [u32; 3]) -> u32 {
    dims.iter()
        .fold(1u32, |volume, &dim| volume.saturating_mul(dim))
}
