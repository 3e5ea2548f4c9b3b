//! Global persistent flush (section 9.8): what the host and its devices still do when the power goes.
//!
//! In phase 1 all that have caches stop and write them back; in phase 2 each device brings what is on the way to its persistent
//! media there. A port waits for neither longer than its DVSEC says (section 8.1.6), and a device tells how long phase 2 takes
//! it (section 8.1.7). Who is late in phase 1, or fails, makes phase 2 one with an error, so that each device knows that lines
//! may be missing. A persistent device that is told so, whose flush fails, or of which the port has not heard in time counts a
//! dirty shutdown when it comes up again.

use crate::dvsec::device::GpfTimeout;

/// How long a port waits for what is below it, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub phase1: u64,
    pub phase2: u64,
}

impl Timeouts {
    /// What the two control registers of a port's DVSEC say (sections 8.1.6.1 and 8.1.6.2).
    #[must_use]
    pub const fn from_controls(phase1: u16, phase2: u16) -> Self {
        Self {
            phase1: GpfTimeout::from_bits(phase1).ns(),
            phase2: GpfTimeout::from_bits(phase2).ns(),
        }
    }

    /// What is below two ports is waited for by both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            phase1: self.phase1.min(other.phase1),
            phase2: self.phase2.min(other.phase2),
        }
    }
}

/// Phase 2 as it comes to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase2 {
    /// The error of phase 1: somebody's cache may not have been written back.
    pub caches_lost: bool,
    /// How long the ports above it wait, ns.
    pub patience: u64,
    /// Its media has taken what it was given.
    pub written: bool,
}

impl Phase2 {
    /// Whether all that the host stored has come to media by the time that the power goes. `duration` is how long the device
    /// takes, ns.
    #[must_use]
    pub const fn saves_all(self, duration: u64) -> bool {
        !self.caches_lost && self.written && duration <= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const IN_ORDER: Phase2 = Phase2 {
        caches_lost: false,
        patience: 100 * MS,
        written: true,
    };

    #[test]
    fn timeouts_are_a_base_and_a_power_of_ten() {
        // 15 us, and 3 s in units of 1 s.
        let timeouts = Timeouts::from_controls(0x000f, 0x0603);
        assert_eq!((timeouts.phase1, timeouts.phase2), (15_000, 3_000 * MS));
        // Units of 10 us, 100 us, 1 ms, 10 ms, 100 ms and 10 s.
        for (scale, unit) in [
            (1, 10_000),
            (2, 100_000),
            (3, MS),
            (4, 10 * MS),
            (5, 100 * MS),
        ] {
            assert_eq!(Timeouts::from_controls(scale << 8 | 1, 0).phase1, unit);
        }
        assert_eq!(Timeouts::from_controls(0x0701, 0).phase1, 10_000 * MS);
    }

    #[test]
    fn the_port_that_waits_least_decides() {
        let root = Timeouts {
            phase1: 10 * MS,
            phase2: 30 * MS,
        };
        let switch = Timeouts {
            phase1: 20 * MS,
            phase2: 5 * MS,
        };
        let both = Timeouts {
            phase1: 10 * MS,
            phase2: 5 * MS,
        };
        assert_eq!(root.and(switch), both);
        assert_eq!(switch.and(root), both);
    }

    #[test]
    fn everything_is_saved_when_nothing_has_gone_wrong_and_the_port_waits() {
        assert!(IN_ORDER.saves_all(100 * MS));
        assert!(!IN_ORDER.saves_all(100 * MS + 1), "the port is gone");
        let lost = Phase2 {
            caches_lost: true,
            ..IN_ORDER
        };
        assert!(!lost.saves_all(0));
        let failed = Phase2 {
            written: false,
            ..IN_ORDER
        };
        assert!(!failed.saves_all(0));
    }
}
