//! What a caller of the accelerator can be told, with CUDA's numbers.

use std::path::PathBuf;

use crate::ptx::JitLog;

/// Why a kernel was stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{} of {bytes} bytes at {address:#x}, outside the context's memory", if *write { "write" } else { "read" })]
    IllegalAddress {
        address: u64,
        bytes: u64,
        write: bool,
    },
    #[error("access of {bytes} bytes at {address:#x}, which is no multiple of them")]
    Misaligned { address: u64, bytes: u64 },
    #[error("an atomic operation in a space that has none")]
    InvalidAddressSpace,
    #[error("the watchdog's time is over")]
    Timeout,
    #[error("all threads of a block wait for each other")]
    Deadlock,
    #[error("an instruction that is illegal as it was executed: {0}")]
    IllegalInstruction(&'static str),
    #[error("a call to {0:#x}, where no function is")]
    InvalidProgramCounter(u64),
    #[error("calls need more local memory than a thread has")]
    StackOverflow,
    #[error("trap")]
    Trap,
    #[error("assertion failed: {0}")]
    Assert(String),
}

impl Fault {
    /// CUDA's number for it (`CUresult`).
    pub const fn code(&self) -> u32 {
        match self {
            Self::IllegalAddress { .. } => 700,
            Self::Timeout | Self::Deadlock => 702,
            Self::Assert(_) => 710,
            Self::IllegalInstruction(_) => 715,
            Self::Misaligned { .. } => 716,
            Self::InvalidAddressSpace => 717,
            Self::InvalidProgramCounter(_) => 718,
            Self::StackOverflow | Self::Trap => 719,
        }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    InvalidValue(&'static str),
    #[error("no device memory of {0:#x} bytes is left")]
    OutOfMemory(u64),
    #[error("{0}")]
    InvalidPtx(JitLog),
    #[error("the module has no symbol `{0}`")]
    NotFound(String),
    #[error("the kernel needs more than the device has: {0}")]
    OutOfResources(&'static str),
    #[error("kernel `{kernel}`, line {line}: {fault}")]
    Fault {
        kernel: String,
        /// Line of the PTX text; 0 if the fault is not one instruction's.
        line: u32,
        fault: Fault,
    },
    #[error("the host gives no memory for the device: {0}")]
    HostMemory(String),
    #[error("cannot use the driver in {}: {why}", path.display())]
    NoDriver { path: PathBuf, why: String },
    #[error("there is no device {ordinal}: the driver has {devices}")]
    NoSuchDevice { ordinal: u32, devices: i32 },
    #[error("the driver's {call} answers {code}")]
    Driver { call: &'static str, code: u32 },
    #[error("the driver refuses the module: {code}\n{log}")]
    Rejected { code: u32, log: String },
    #[error("nothing has this handle: {0:#x}")]
    InvalidHandle(u64),
    #[error("there is no context")]
    InvalidContext,
    #[error("the device was not initialised")]
    NotInitialized,
    #[error("it is still in use")]
    NotReady,
    #[error("the device has no command {0:#x}")]
    NotSupported(u32),
}

impl Error {
    /// What the compiler says of a module that was refused.
    #[must_use]
    pub fn log(&self) -> Option<String> {
        match self {
            Self::InvalidPtx(log) => Some(log.to_string()),
            Self::Rejected { log, .. } => Some(log.clone()),
            _ => None,
        }
    }

    /// CUDA's number for it (`CUresult`).
    pub const fn code(&self) -> u32 {
        match self {
            Self::InvalidValue(_) => 1,
            Self::OutOfMemory(_) | Self::HostMemory(_) => 2,
            Self::InvalidPtx(_) => 218,
            Self::NotFound(_) => 500,
            Self::OutOfResources(_) => 701,
            Self::Fault { fault, .. } => fault.code(),
            Self::NoDriver { .. } | Self::NoSuchDevice { .. } => 100,
            Self::Driver { code, .. } | Self::Rejected { code, .. } => *code,
            Self::InvalidHandle(_) => 400,
            Self::InvalidContext => 201,
            Self::NotInitialized => 3,
            Self::NotReady => 600,
            Self::NotSupported(_) => 801,
        }
    }
}
