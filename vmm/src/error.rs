//! What can go wrong while a machine is built or run.

use std::io;
use std::path::PathBuf;

use kvm_ioctls::Error as Errno;

use crate::media::MediaError;

/// The errors of this crate. The message says what was attempted; the source says what the host answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/kvm` could not be opened.
    #[error("cannot open /dev/kvm: {source} (is KVM loaded, and is this user in the group kvm?)")]
    OpenKvm {
        /// The host's answer.
        source: Errno,
    },
    /// The host's KVM lacks something that the machine needs.
    #[error("this KVM has no {0}")]
    MissingCapability(&'static str),
    /// The host has a KVM, but neither VT-x nor SVM: a stock kernel would be interpreted and soon fail.
    #[error(
        "this machine's KVM has neither VT-x nor SVM (no vmx or svm flag in /proc/cpuinfo), so it cannot run a \
         stock kernel; run the command in the lab instead: cargo xtask lab -- COMMAND"
    )]
    NoHardwareVirtualization,
    /// A KVM call failed.
    #[error("cannot {what}: {source}")]
    Kvm {
        /// What was attempted, in the infinitive.
        what: &'static str,
        /// The host's answer.
        source: Errno,
    },
    /// A call to the operating system failed.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was attempted, in the infinitive.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
    /// Guest memory could not be set up or reached.
    #[error("guest memory: {0}")]
    Memory(String),
    /// A mapping was refused before KVM was asked.
    #[error("cannot map {len:#x} bytes at {hpa:#x}: {why}")]
    Mapping {
        /// Host-physical (to the guest: physical) address.
        hpa: u64,
        /// Length in bytes.
        len: u64,
        /// The rule that was broken.
        why: &'static str,
    },
    /// What executes an accelerator's programs could not be had.
    #[error("{device}: {why}")]
    Accelerator {
        /// The device.
        device: String,
        /// What is missing, and how to mend it.
        why: String,
    },
    /// The address map that the configuration asks for cannot be made.
    #[error("address map: {0}")]
    Layout(String),
    /// The kernel, its initrd or its command line cannot be used.
    #[error("{what} {}: {why}", path.display())]
    Boot {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and how to mend it.
        why: String,
    },
    /// The command line is longer than the kernel takes.
    #[error("the kernel command line has {len} bytes; this kernel takes {limit}")]
    CommandLine {
        /// Its length without the terminating zero.
        len: usize,
        /// The most this kernel takes, without the terminating zero.
        limit: usize,
    },
    /// A component of the CXL hierarchy cannot be as the configuration wants it.
    #[error("CXL: {0}")]
    Cxl(#[from] cxl::Error),
    /// The timing of this machine cannot be modelled, or not felt by its guest.
    #[error("timing: {0}")]
    Timing(String),
    /// The media of an expander cannot be used.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the KVM call that failed.
pub(crate) trait KvmContext<T> {
    /// Turns an errno into [`Error::Kvm`]; `what` is in the infinitive.
    fn attempting(self, what: &'static str) -> Result<T>;
}

impl<T> KvmContext<T> for std::result::Result<T, Errno> {
    fn attempting(self, what: &'static str) -> Result<T> {
        self.map_err(|source| Error::Kvm { what, source })
    }
}

/// Names the call to the operating system that failed.
pub(crate) trait HostContext<T> {
    /// Turns an operating system error into [`Error::Host`]; `what` is in the infinitive.
    fn trying(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> HostContext<T> for std::result::Result<T, E> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Host {
            what: what(),
            source: source.into(),
        })
    }
}
