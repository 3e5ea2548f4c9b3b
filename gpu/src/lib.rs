//! The Type 2 accelerator: command protocol and the backends that execute it.

pub mod backend;
pub mod device;
mod error;
pub mod memory;
pub mod protocol;
pub mod ptx;

pub use device::{Device, Host, Queue};
pub use error::{Error, Fault};
pub use memory::DeviceMemory;
