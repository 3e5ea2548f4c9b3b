//! `libcuda.so.1`: CUDA's driver interface on the Type 2 accelerator.
//!
//! Unmodified programs that speak the driver interface, and bring their kernels as PTX, run on it. What is not supported is
//! exported all the same and answers `CUDA_ERROR_NOT_SUPPORTED`, so that every program can be linked.
//!
//! | module | does |
//! |---|---|
//! | `api` | the C functions, by group |
//! | `ffi` | pointers of the caller, and the macro that defines a C function |
//! | `proc_address` | `cuGetProcAddress`: which function a name means to which version |
//! | `transport` | the way to the accelerator |
//! | `driver` | the state of the process: devices and what handles stand for |
//! | `context`, `order`, `stream` | contexts, and what runs after what |
//! | `memory`, `transfer` | allocations, copies and fills |
//! | `image`, `module`, `jit` | PTX in its wrappings, modules and kernels, options and logs of the compiler |
//! | `graph`, `capture` | graphs of kernels, copies and fills, and streams whose work becomes one |
//!
//! Environment variables:
//!
//! | variable | means |
//! |---|---|
//! | `CXL_CUDA_DEBUG` | not empty and not `0`: write every call and its result to stderr |
//! | `CXL_CUDA_DEVICE` | the device node instead of `/dev/cxl_gpu*`, or `in-process` where that is built in |
//! | `CXL_CUDA_COMPUTE_CAPABILITY` | as `7.5`, in the place of what the device reports |
//! | `CXL_CUDA_DRIVER_VERSION` | as `12090`, in the place of what the device reports |

mod api;
mod capture;
mod context;
mod driver;
mod error;
mod ffi;
mod graph;
mod image;
mod jit;
mod launch;
mod memory;
mod module;
mod order;
mod proc_address;
mod registry;
mod settings;
mod stream;
mod transfer;
mod transport;

pub use error::{Error, Result};

/// The PTX text of a module's image, for the fuzz target.
///
/// # Errors
/// The image is damaged, or has none.
pub fn ptx_of(image: &[u8]) -> Result<String> {
    image::ptx_of(image)
}
