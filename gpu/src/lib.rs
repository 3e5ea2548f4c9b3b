//! The Type 2 accelerator: command protocol and the backends that execute it.

pub mod backend;
pub mod coherence;
pub mod device;
mod error;
pub mod memory;
pub mod protocol;
pub mod ptx;

pub use coherence::Coherence;
pub use device::{Device, Host, Queue};
pub use error::{Error, Fault};
pub use memory::DeviceMemory;
