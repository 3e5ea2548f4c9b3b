//! KVM: the virtual machine, its memory slots, interrupts and virtual processors.
//!
//! Nothing here knows of configuration, PCI or CXL. A machine is put together from
//! [`Vm`], the [`Memslots`] and [`Interrupts`] in it, and [`Vcpus`], which run the guest and hand its
//! port and memory accesses to a [`Bus`].
#![allow(unsafe_code)]

mod calibrate;
mod cpuid;
mod crash;
mod exits;
mod host;
mod irq;
mod mce;
mod memslots;
mod msr;
mod poison;
mod presence;
mod registers;
mod shared;
mod userfault;
mod vcpu;
mod vcpus;
mod vm;
mod warp;

#[cfg(test)]
mod payload;
#[cfg(test)]
mod tests;

pub use calibrate::{PageCosts, page_costs};
pub use cpuid::{CpuProfile, HypervisorBit};
pub use crash::{Cause, Crash};
pub use exits::{ExitCause, ExitCounts};
pub use host::{physical_bits, require_hardware_virtualization, tsc_command_line};
pub use irq::{Interrupts, IrqLine, MsiMessage, MsiRoute};
#[cfg(test)]
pub(crate) use memslots::RecordedMap;
pub use memslots::{Mapping, MemoryMap, Memslots, Permission};
pub use presence::{AROUND, PAGE, Pages, Presence};
pub use registers::EntryState;
pub use userfault::{Userfault, Watched, WatchedRegion, WatchedSlots};
pub use vcpu::{Bus, SystemRequest};
pub use vcpus::{Outcome, RunState, VcpuControl, Vcpus};
pub use vm::{Doorbell, Vm};
pub use warp::clock_moves;
