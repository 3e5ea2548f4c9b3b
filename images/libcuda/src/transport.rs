//! The way to the accelerator.
//!
//! | module | does |
//! |---|---|
//! | `spec` | the accelerator's interface as numbers |
//! | `shared` | memory that the accelerator reads and writes too |
//! | `queue` | commands into a ring, completions out of it |
//! | `channel` | a context of the accelerator: [`Channel`] |
//! | `node` | the device node of the kernel module |
//! | `in_process` | an accelerator in this process, where no guest is |
//!
//! The seam is [`Accelerator`] with [`Session`]: memory, queues and doorbells. Everything above it is the same for both.

mod channel;
#[cfg(feature = "in-process")]
mod in_process;
mod node;
mod queue;
mod shared;
#[allow(
    dead_code,
    reason = "the kernel module and the device use the rest of it"
)]
#[path = "../../../gpu/src/protocol/spec.rs"]
mod spec;

use std::sync::Arc;

pub use channel::{Channel, Grid, Kernel, LoadError};
use shared::Shared;
pub use spec::{PAGE, STATISTICS as COHERENCE_STATISTICS};

use crate::Result;

/// What the accelerator says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    pub name: String,
    /// Bytes of device memory.
    pub memory: u64,
    pub multiprocessors: u32,
    pub compute_capability: (u32, u32),
    pub driver_version: i32,
    /// PCI domain, bus and device.
    pub pci: (u32, u8, u8),
}

/// An accelerator.
pub trait Accelerator: Send + Sync {
    fn properties(&self) -> &Properties;

    /// A session: its allocations, modules and faults are nobody else's, and end with it.
    fn open(&self) -> Result<Arc<dyn Session>>;
}

/// The accelerators: of this process, behind one device node, or behind all that there are.
pub fn accelerators(choice: Option<&str>) -> Result<Vec<Box<dyn Accelerator>>> {
    match choice {
        #[cfg(feature = "in-process")]
        Some("in-process") => Ok(vec![Box::new(in_process::InProcess::new()?)]),
        Some(path) => Ok(vec![Box::new(node::DeviceNode::open(path)?)]),
        None => Ok(node::DeviceNode::all()
            .map(|node| Box::new(node) as Box<dyn Accelerator>)
            .collect()),
    }
}

/// A session of the accelerator, as far as the kernel has to do with it.
pub trait Session: Send + Sync {
    /// A queue of `depth` entries.
    fn queue(&self, depth: u32) -> Result<Parts>;

    /// Memory of at least `bytes` bytes that commands can name as a region.
    fn buffer(&self, bytes: u64) -> Result<Buffer>;

    /// Lets the processor reach pages of device memory at the device's own addresses.
    fn map(&self, address: u64, bytes: u64) -> Result<()>;

    /// Takes that back.
    fn unmap(&self, address: u64, bytes: u64);
}

/// What a queue consists of.
pub struct Parts {
    pub rings: Shared,
    pub bell: Box<dyn Bell>,
}

/// A queue's doorbell and interrupt.
pub trait Bell: Send {
    fn ring(&self);

    /// Returns after an interrupt that has come since the last return, or sooner.
    fn sleep(&self);
}

/// Memory with a region's number, which ends with it.
pub struct Buffer {
    pub region: u32,
    pub memory: Shared,
    /// Dropped last, to give the region and the memory back.
    pub _owner: Box<dyn Send>,
}

#[cfg(test)]
mod tests {
    use super::spec::*;

    const HEADER: &str = include_str!("../../../guest-kernel/cxl_type2_accel/interface.h");

    /// What the kernel module's header says.
    fn defined(name: &str) -> u64 {
        let prefix = format!("#define {name} ");
        let line = HEADER.lines().find_map(|line| line.strip_prefix(&prefix));
        let value = line.unwrap_or_else(|| panic!("no {name}"));
        match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
            None => value.parse().unwrap(),
        }
    }

    #[test]
    fn the_kernel_module_has_the_same_numbers() {
        let numbers = [
            ("ACCEL_VENDOR", PCI_VENDOR.into()),
            ("ACCEL_DEVICE", PCI_DEVICE.into()),
            ("COMMAND_BAR", COMMAND_BAR.into()),
            ("MEMORY_BAR", MEMORY_BAR.into()),
            ("REGISTERS_SIZE", REGISTERS_SIZE),
            ("DOORBELLS", DOORBELLS),
            ("DOORBELL_STRIDE", DOORBELL_STRIDE),
            ("MEMORY_BASE", MEMORY_BASE),
            ("MAGIC", MAGIC.into()),
            ("VERSION_1", VERSION_1.into()),
            ("VERSION_2", VERSION_2.into()),
            ("MIN_DEPTH", MIN_DEPTH.into()),
            ("VECTORS", VECTORS.into()),
            ("REG_MAGIC", reg::MAGIC),
            ("REG_STATUS", reg::STATUS),
            ("REG_DEV_NAME", reg::DEV_NAME),
            ("REG_TOTAL_MEM", reg::TOTAL_MEM),
            ("REG_CC_MAJOR", reg::CC_MAJOR),
            ("REG_CC_MINOR", reg::CC_MINOR),
            ("REG_MP_COUNT", reg::MP_COUNT),
            ("REG_BACKEND", reg::BACKEND),
            ("REG_VERSION_MAX", reg::VERSION_MAX),
            ("REG_VERSION_SELECT", reg::VERSION_SELECT),
            ("REG_QUEUES", reg::QUEUES),
            ("REG_MAX_DEPTH", reg::MAX_DEPTH),
            ("REG_DRIVER_VERSION", reg::DRIVER_VERSION),
            ("REG_CONTROL", reg::CONTROL),
            ("REG_CONTROL_RESULT", reg::CONTROL_RESULT),
            ("REG_CONTROL_ARG0", reg::CONTROL_ARG0),
            ("REG_CONTROL_OUT0", reg::CONTROL_OUT0),
            ("CONTROL_ARGS", reg::CONTROL_ARGS as u64),
            ("STATUS_READY", status::READY.into()),
            ("CONTROL_SESSION_OPEN", control::SESSION_OPEN.into()),
            ("CONTROL_SESSION_CLOSE", control::SESSION_CLOSE.into()),
            ("CONTROL_QUEUE_CREATE", control::QUEUE_CREATE.into()),
            ("CONTROL_QUEUE_DESTROY", control::QUEUE_DESTROY.into()),
            ("CONTROL_REGION_REGISTER", control::REGION_REGISTER.into()),
            (
                "CONTROL_REGION_UNREGISTER",
                control::REGION_UNREGISTER.into(),
            ),
            ("CONTROL_PIN", control::PIN.into()),
            ("CONTROL_UNPIN", control::UNPIN.into()),
            (
                "CONTROL_COHERENCE_STATISTIC",
                control::COHERENCE_STATISTIC.into(),
            ),
            ("REGION_WRITABLE", region_flags::WRITABLE),
            ("RESULT_SUCCESS", result::SUCCESS.into()),
            ("RESULT_OUT_OF_MEMORY", result::OUT_OF_MEMORY.into()),
            ("RESULT_NOT_READY", result::NOT_READY.into()),
            (
                "RESULT_OUT_OF_RESOURCES",
                result::LAUNCH_OUT_OF_RESOURCES.into(),
            ),
            ("RING_ENTRIES", ring::ENTRIES),
            ("RING_ENTRY_BYTES", size_of::<Submission>() as u64),
            ("IOC_MAGIC", chardev::IOC_MAGIC.into()),
            ("MAP_RINGS", chardev::MAP_RINGS),
            ("MAP_DOORBELLS", chardev::MAP_DOORBELLS),
            ("RING_STRIDE", chardev::RING_STRIDE),
        ];
        for (name, value) in numbers {
            assert_eq!(defined(name), value, "{name}");
        }
        let list = HEADER.split_once("#define ACCEL_STATISTICS").unwrap().1;
        let list = list.split_once("\n\n").unwrap().0;
        let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(names, STATISTICS);
    }
}
