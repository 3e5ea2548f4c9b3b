//! Launches and occupancy.

use crate::driver::Driver;
use crate::ffi::{Address, HostFunction, In, Out, SharedOfBlock, driver_api};
use crate::graph::Action;
use crate::launch::Launch;
use crate::module::Function;
use crate::registry::Handle;
use crate::transport::Grid;
use crate::{Error, Result};

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: Handle,
    attributes: In<LaunchAttribute>,
    attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchAttribute {
    id: u32,
    padding: u32,
    value: [u32; 16],
}

/// `CUlaunchAttributeID`: those that ask for what the device does not do.
mod attribute {
    pub const COOPERATIVE: u32 = 2;
    pub const CLUSTER_DIMENSION: u32 = 4;
    pub const PROGRAMMATIC_EVENT: u32 = 7;
    pub const LAUNCH_COMPLETION_EVENT: u32 = 12;
    pub const DEVICE_UPDATABLE_KERNEL_NODE: u32 = 13;
}

impl LaunchAttribute {
    fn check(&self) -> Result<()> {
        let supported = match self.id {
            attribute::COOPERATIVE | attribute::DEVICE_UPDATABLE_KERNEL_NODE => self.value[0] == 0,
            attribute::CLUSTER_DIMENSION => self.value[..3].iter().all(|&dim| dim <= 1),
            attribute::PROGRAMMATIC_EVENT | attribute::LAUNCH_COMPLETION_EVENT => false,
            // Hints.
            _ => true,
        };
        if supported {
            Ok(())
        } else {
            Err(Error::NOT_SUPPORTED)
        }
    }
}

fn launch(
    function: Handle,
    grid: Grid,
    stream: Handle,
    params: In<Address>,
    extra: In<u64>,
) -> Result<()> {
    let driver = Driver::get()?;
    let stream = driver.stream(stream)?;
    let launch = Launch::new(driver.function(function)?, grid, params, extra)?;
    stream.perform(Action::Launch(launch))
}

/// The largest block that gives the most threads at once, and the grid that fills the device with it.
fn best_block(
    function: &Function,
    shared: SharedOfBlock,
    shared_bytes: usize,
    limit: i32,
) -> Result<(i32, i32)> {
    const WARP: u32 = crate::module::WARP;
    let most = function.kernel.max_threads_per_block;
    let most = match u32::try_from(limit) {
        Ok(limit @ 1..) => limit.min(most),
        _ => most,
    };
    let mut best = (0, 0, 0);
    let mut threads = most.next_multiple_of(WARP).min(most);
    while threads > 0 {
        let dynamic = shared.bytes(threads, shared_bytes) as u64;
        let blocks = function.blocks_per_multiprocessor(threads, dynamic)?;
        if blocks * threads > best.0 {
            best = (blocks * threads, blocks, threads);
        }
        threads = (threads - 1) / WARP * WARP;
    }
    let multiprocessors = function
        .module
        .context()?
        .device
        .properties()
        .multiprocessors;
    Ok(((best.1 * multiprocessors) as i32, best.2 as i32))
}

fn blocks(function: Handle, threads: i32, shared_bytes: usize) -> Result<i32> {
    let function = Driver::get()?.function(function)?;
    let threads = u32::try_from(threads).map_err(|_| Error::INVALID_VALUE)?;
    let blocks = function.blocks_per_multiprocessor(threads, shared_bytes as u64)?;
    Ok(blocks as i32)
}

driver_api! {
    4000 fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: Handle,
        params: In<Address>,
        extra: In<u64>,
    ) | 7000 cuLaunchKernel_ptsz {
        let grid = Grid {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
        };
        launch(function, grid, stream, params, extra)
    }

    11060 fn cuLaunchKernelEx(
        config: In<LaunchConfig>,
        function: Handle,
        params: In<Address>,
        extra: In<u64>,
    ) | 11060 cuLaunchKernelEx_ptsz {
        let config = config.get()?;
        for attribute in config.attributes.array(config.attribute_count as usize)? {
            attribute.check()?;
        }
        let grid = Grid {
            grid: config.grid,
            block: config.block,
            shared_bytes: config.shared_bytes,
        };
        launch(function, grid, config.stream, params, extra)
    }

    10000 fn cuLaunchHostFunc(stream: Handle, function: HostFunction, data: Address) | 10000 cuLaunchHostFunc_ptsz {
        let stream = Driver::get()?.stream(stream)?;
        function.check()?;
        stream.perform(Action::Call(function, data))
    }

    /// The mode says how later work waits for the function, which here takes no more of a processor in either.
    13020 fn cuLaunchHostFunc_v2(stream: Handle, function: HostFunction, data: Address, mode: u32) {
        const BLOCKING: u32 = 0;
        const SPIN_WAIT: u32 = 1;
        if !matches!(mode, BLOCKING | SPIN_WAIT) {
            return Err(Error::INVALID_VALUE);
        }
        let stream = Driver::get()?.stream(stream)?;
        function.check()?;
        stream.perform(Action::Call(function, data))
    }

    6050 fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        count: Out<i32>,
        function: Handle,
        threads: i32,
        shared_bytes: usize,
    ) {
        count.set(blocks(function, threads, shared_bytes)?)
    }

    7000 fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: Out<i32>,
        function: Handle,
        threads: i32,
        shared_bytes: usize,
        _flags: u32,
    ) {
        count.set(blocks(function, threads, shared_bytes)?)
    }

    6050 fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        shared: SharedOfBlock,
        shared_bytes: usize,
        limit: i32,
    ) {
        let function = Driver::get()?.function(function)?;
        let (best_grid, best) = best_block(&function, shared, shared_bytes, limit)?;
        grid.set(best_grid)?;
        block.set(best)
    }

    7000 fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        shared: SharedOfBlock,
        shared_bytes: usize,
        limit: i32,
        _flags: u32,
    ) {
        let function = Driver::get()?.function(function)?;
        let (best_grid, best) = best_block(&function, shared, shared_bytes, limit)?;
        grid.set(best_grid)?;
        block.set(best)
    }

    10020 fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: Handle, blocks: i32, threads: i32) {
        let function = Driver::get()?.function(function)?;
        let (Ok(blocks @ 1..), Ok(threads @ 1..)) = (u64::try_from(blocks), u32::try_from(threads)) else {
            return Err(Error::INVALID_VALUE);
        };
        if u64::from(function.blocks_per_multiprocessor(threads, 0)?) < blocks {
            return Err(Error::INVALID_VALUE);
        }
        let share = u64::from(crate::module::SHARED_PER_BLOCK_OPTIN) / blocks;
        let most = u64::from(crate::module::SHARED_PER_BLOCK).min(share);
        bytes.set(most.saturating_sub(function.kernel.shared_bytes) as usize)
    }
}
