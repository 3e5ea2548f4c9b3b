//! What executes: one interface, and who implements it.
//!
//! | backend | is |
//! |---|---|
//! | [`cuda`] | a GPU of the host, behind the driver library that the user names |
//! | [`ptx`] | PTX on the CPU; the default, needs no hardware |
//!
//! A [`Backend`] is a device. A [`Context`] is one client's part of it, a [`Module`] a program loaded there and a [`Kernel`] one
//! of its entries. All of them are used by several threads at once.

pub mod cuda;
pub mod ptx;

use std::ops::Range;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::Error;
use crate::coherence::Coherence;
pub use crate::ptx::{Attributes, LaunchConfig};

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// As `cuDeviceGetName` gives it.
    pub name: String,
    /// One of [`crate::protocol::spec::backend`].
    pub backend: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// As `cuDriverGetVersion` gives it.
    pub driver_version: u32,
    pub multiprocessors: u32,
    /// Threads of a block.
    pub max_threads: u32,
}

/// A device.
pub trait Backend: Send + Sync {
    fn properties(&self) -> &Properties;

    /// Bytes of device memory that nobody owns.
    fn available(&self) -> u64;

    /// Who keeps account of its memory's lines, if somebody does.
    fn coherence(&self) -> Option<&Arc<dyn Coherence>> {
        None
    }

    /// A context with nothing in it. What is in it is freed when the last reference goes.
    fn context(&self) -> Result<Arc<dyn Context>, Error>;
}

/// Who may reach an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The device alone.
    Device,
    /// The guest as well: whole pages of the device's memory window, of which nobody else has a part.
    Mappable,
}

/// One client's memory and programs, up to its first fault: every later call reports that.
pub trait Context: Send + Sync {
    /// The fault that has ended the context.
    fn check(&self) -> Result<(), Error>;

    /// Ends what runs, as far as the device can; for a client that is gone.
    fn cancel(&self);

    /// Bytes that [`Self::alloc`] has given and that are not free again.
    fn used(&self) -> u64;

    /// The device address of `bytes` bytes of zeros.
    fn alloc(&self, bytes: u64, placement: Placement) -> Result<u64, Error>;

    /// Frees what [`Self::alloc`] has returned.
    fn free(&self, address: u64) -> Result<(), Error>;

    /// The allocation that an address lies in.
    fn address_range(&self, address: u64) -> Result<Range<u64>, Error>;

    /// Copies to the device.
    fn write(&self, to: u64, from: VolatileSlice<'_>) -> Result<(), Error>;

    /// Copies from the device.
    fn read(&self, from: u64, to: VolatileSlice<'_>) -> Result<(), Error>;

    /// Copies within the device; the ranges may overlap.
    fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error>;

    /// Repeats a pattern of 1, 2 or 4 bytes `count` times.
    fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error>;

    /// Compiles and loads a PTX text.
    fn load(&self, text: &str) -> Result<Arc<dyn Module>, Error>;

    /// Bytes that kernels have printed and nobody has taken.
    fn output_waiting(&self) -> u64;

    /// Takes what kernels have printed so far.
    fn take_output(&self) -> Vec<u8>;
}

/// A program in a context.
pub trait Module: Send + Sync {
    /// An entry by name.
    fn function(&self, name: &str) -> Result<Arc<dyn Kernel>, Error>;

    /// Address and bytes of a global variable.
    fn global(&self, name: &str) -> Result<(u64, u64), Error>;
}

/// An entry of a program.
pub trait Kernel: Send + Sync {
    fn name(&self) -> &str;

    /// Offset and bytes of each parameter in the buffer that [`Self::launch`] takes.
    fn params(&self) -> &[(u64, u64)];

    fn attributes(&self) -> Attributes;

    /// Runs to the end.
    fn launch(&self, config: &LaunchConfig, params: &[u8]) -> Result<(), Error>;
}
