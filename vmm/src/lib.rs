//! The virtual machine monitor: KVM, vCPUs, memory map, boot, configuration, control socket.

pub mod accelerator;
mod alarms;
mod board;
pub mod boot;
pub mod config;
pub mod control;
mod error;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod media;
pub mod memory;
mod nonvolatile;
mod performance;
mod replace;
pub mod serial;
pub mod terminal;
pub mod timing;
pub mod virtio;
pub mod windows;

pub use error::{Error, Result};
