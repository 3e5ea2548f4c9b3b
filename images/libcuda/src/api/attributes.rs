//! Device attributes (`CUdevice_attribute`).

use crate::driver::Device;
use crate::module::{
    BLOCKS_PER_MULTIPROCESSOR, MAX_BLOCK, MAX_GRID, MAX_THREADS, SHARED_PER_BLOCK,
    SHARED_PER_BLOCK_OPTIN, THREADS_PER_MULTIPROCESSOR, WARP,
};
use crate::{Error, Result};

/// The first number that no version of CUDA up to 13 gives an attribute.
const END: i32 = 160;
/// Of the modelled device; nothing here runs at this rate.
const CLOCK_KHZ: i32 = 1_500_000;
const MEMORY_CLOCK_KHZ: i32 = 5_000_000;
const CONSTANT_MEMORY: i32 = 64 << 10;
const REGISTERS: i32 = 64 << 10;
const TEXTURE_ALIGNMENT: i32 = 512;

/// An attribute of the device; those that it has nothing to say about are 0.
pub fn value(attribute: i32, device: &Device) -> Result<i32> {
    let (major, minor) = device.compute_capability();
    let properties = device.properties();
    let (domain, bus, slot) = properties.pci;
    Ok(match attribute {
        // MAX_THREADS_PER_BLOCK
        1 => MAX_THREADS as i32,
        // MAX_BLOCK_DIM_X, _Y, _Z
        2 => MAX_BLOCK[0] as i32,
        3 => MAX_BLOCK[1] as i32,
        4 => MAX_BLOCK[2] as i32,
        // MAX_GRID_DIM_X, _Y, _Z
        5 => MAX_GRID[0] as i32,
        6 => MAX_GRID[1] as i32,
        7 => MAX_GRID[2] as i32,
        // MAX_SHARED_MEMORY_PER_BLOCK
        8 => SHARED_PER_BLOCK as i32,
        // TOTAL_CONSTANT_MEMORY
        9 => CONSTANT_MEMORY,
        // WARP_SIZE
        10 => WARP as i32,
        // MAX_PITCH
        11 => i32::MAX,
        // MAX_REGISTERS_PER_BLOCK, _PER_MULTIPROCESSOR
        12 | 82 => REGISTERS,
        // CLOCK_RATE
        13 => CLOCK_KHZ,
        // TEXTURE_ALIGNMENT
        14 => TEXTURE_ALIGNMENT,
        // GPU_OVERLAP: copies and kernels at once
        15 => 1,
        // MULTIPROCESSOR_COUNT
        16 => properties.multiprocessors as i32,
        // KERNEL_EXEC_TIMEOUT, INTEGRATED: device memory is the host's too, CAN_MAP_HOST_MEMORY
        17..=19 => 1,
        // CONCURRENT_KERNELS
        31 => 1,
        // PCI_BUS_ID, _DEVICE_ID
        33 => bus.into(),
        34 => slot.into(),
        // MEMORY_CLOCK_RATE, GLOBAL_MEMORY_BUS_WIDTH in bits, L2_CACHE_SIZE
        36 => MEMORY_CLOCK_KHZ,
        37 => 256,
        38 => 4 << 20,
        // MAX_THREADS_PER_MULTIPROCESSOR
        39 => THREADS_PER_MULTIPROCESSOR as i32,
        // ASYNC_ENGINE_COUNT
        40 => 2,
        // UNIFIED_ADDRESSING
        41 => 1,
        // PCI_DOMAIN_ID
        50 => domain as i32,
        // COMPUTE_CAPABILITY_MAJOR, _MINOR
        75 => major as i32,
        76 => minor as i32,
        // STREAM_PRIORITIES_SUPPORTED: they are accepted and change nothing
        78 => 0,
        // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, _PER_BLOCK_OPTIN
        81 | 97 => SHARED_PER_BLOCK_OPTIN as i32,
        // MANAGED_MEMORY, CONCURRENT_MANAGED_ACCESS
        83 | 89 => 1,
        // CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM
        91 => 0,
        // DIRECT_MANAGED_MEM_ACCESS_FROM_HOST
        101 => 1,
        // MAX_BLOCKS_PER_MULTIPROCESSOR
        106 => BLOCKS_PER_MULTIPROCESSOR as i32,
        // MEMORY_POOLS_SUPPORTED
        115 => 1,
        // UNIFIED_FUNCTION_POINTERS
        129 => 0,
        _ if (1..END).contains(&attribute) => 0,
        _ => return Err(Error::INVALID_VALUE),
    })
}

/// `CUdevprop`, what `cuDeviceGetProperties` fills.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    max_threads_per_block: i32,
    max_threads_dim: [i32; 3],
    max_grid_size: [i32; 3],
    shared_mem_per_block: i32,
    total_constant_memory: i32,
    simd_width: i32,
    mem_pitch: i32,
    regs_per_block: i32,
    clock_rate: i32,
    texture_align: i32,
}

pub fn properties(device: &Device) -> Result<Properties> {
    let attribute = |number| value(number, device);
    Ok(Properties {
        max_threads_per_block: attribute(1)?,
        max_threads_dim: [attribute(2)?, attribute(3)?, attribute(4)?],
        max_grid_size: [attribute(5)?, attribute(6)?, attribute(7)?],
        shared_mem_per_block: attribute(8)?,
        total_constant_memory: attribute(9)?,
        simd_width: attribute(10)?,
        mem_pitch: attribute(11)?,
        regs_per_block: attribute(12)?,
        clock_rate: attribute(13)?,
        texture_align: attribute(14)?,
    })
}
