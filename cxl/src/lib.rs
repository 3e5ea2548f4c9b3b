//! CXL as data and rules: registers, HDM decode, media layout, mailbox, events, CDAT.
//!
//! Every model here is a state machine: it takes a register access, answers it, and pushes what the
//! machine has to do about it as [`Effect`]s. Nothing in this crate knows of PCI functions, KVM,
//! files or threads. Section numbers are those of the CXL specification, revision 3.1.
//!
//! | module | holds |
//! |---|---|
//! | [`dvsec`] | designated vendor-specific capabilities of a CXL function's configuration space |
//! | [`component`], [`hdm`] | the 64 KiB component register block and its HDM decoders |
//! | [`device`], [`mailbox`], [`event`] | the memory device's register block, its commands and event logs |
//! | [`cci`] | what a fabric manager asks of switches, and of devices that several hosts share |
//! | [`cpmu`] | the performance monitoring unit |
//! | [`interleave`], [`decode`] | address arithmetic, and from committed decoders to mapped ranges |
//! | [`media`] | where the bytes of a device's address space live |
//! | [`coherence`] | who holds a line of memory that a Type 2 device shares with its host |
//! | [`cdat`] | the coherent device attribute table and its DOE protocol |

mod access;
pub mod cci;
pub mod cdat;
pub mod coherence;
pub mod component;
pub mod cpmu;
pub mod decode;
pub mod device;
pub mod dvsec;
mod effect;
mod error;
pub mod event;
pub mod gpf;
pub mod hdm;
pub mod interleave;
pub mod mailbox;
pub mod media;
pub mod memdev;
mod register;

pub use component::{ComponentRegisters, Role};
pub use cpmu::Cpmu;
pub use device::DeviceRegisters;
pub use effect::Effect;
pub use error::Error;
pub use interleave::{Granularity, Interleave, Ways, XorMaps};

/// PCI vendor id of the CXL Consortium, in every DVSEC header and DOE object (section 8.1).
pub const CXL_VENDOR_ID: u16 = 0x1e98;

/// Capacity is reported and decoded in units of 256 MiB (sections 8.2.4.20, 8.2.9.9.1).
pub const CAPACITY_UNIT: u64 = 256 << 20;
