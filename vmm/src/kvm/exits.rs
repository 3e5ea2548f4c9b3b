//! How often and why the guest was left.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a vCPU left the guest for user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// `in` from a port.
    PortRead,
    /// `out` to a port.
    PortWrite,
    /// Load from an address without memory.
    MmioRead,
    /// Store to an address without memory, or to read-only memory.
    MmioWrite,
    /// Access to a model-specific register that KVM does not know.
    Msr,
    /// A signal: pause, resume or stop.
    Kicked,
    /// An access to poisoned memory.
    Poison,
    /// Anything else; in most cases the guest's end.
    Other,
}

impl ExitCause {
    /// All causes in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::PortRead,
        Self::PortWrite,
        Self::MmioRead,
        Self::MmioWrite,
        Self::Msr,
        Self::Kicked,
        Self::Poison,
        Self::Other,
    ];

    /// The name on the control socket.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PortRead => "port_read",
            Self::PortWrite => "port_write",
            Self::MmioRead => "mmio_read",
            Self::MmioWrite => "mmio_write",
            Self::Msr => "msr",
            Self::Kicked => "kicked",
            Self::Poison => "poison",
            Self::Other => "other",
        }
    }
}

/// Counters of exits by cause, shared by all vCPUs of a machine.
#[derive(Debug, Default)]
pub struct ExitCounts([AtomicU64; ExitCause::ALL.len()]);

impl ExitCounts {
    /// Counts one exit.
    pub(super) fn count(&self, cause: ExitCause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Exits for `cause` since the machine was made.
    #[must_use]
    pub fn get(&self, cause: ExitCause) -> u64 {
        self.0[cause as usize].load(Ordering::Relaxed)
    }

    /// All causes with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (ExitCause, u64)> + '_ {
        ExitCause::ALL
            .into_iter()
            .map(|cause| (cause, self.get(cause)))
    }

    /// Exits for any cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_counter() {
        let counts = ExitCounts::default();
        for (times, cause) in ExitCause::ALL.into_iter().enumerate() {
            for _ in 0..times {
                counts.count(cause);
            }
        }
        assert!(counts.iter().map(|(_, count)| count).eq(0..8));
        assert_eq!(counts.total(), 28);
    }
}
