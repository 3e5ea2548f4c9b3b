//! What a device that several hosts share keeps for their fabric manager (sections 2.5 and 2.6).
//!
//! This host has one logical device of it, whose capacity is that of the [`Memdev`]. The others have equal parts at first;
//! their hosts are elsewhere, if anywhere, and so are their bytes.

use super::{Memdev, at_most};
use crate::cci::LinkState;
use crate::{CAPACITY_UNIT, Error};

/// Who has what of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// One host has all of it.
    #[default]
    None,
    /// It has several logical devices behind one port.
    LogicalDevices {
        /// 2 to 16.
        count: u8,
        /// Which of them is this host's.
        own: u8,
    },
    /// It has several heads, each with a logical device of its own.
    Heads {
        /// 2 to 16.
        count: u8,
        /// Which of them this host is at.
        own: u8,
        /// The link of that head.
        link: LinkState,
    },
}

impl Sharing {
    /// The most logical devices of a device (section 2.5).
    pub const MOST: u8 = 16;

    /// How many logical devices there are, and which of them is this host's.
    #[must_use]
    pub const fn logical_devices(self) -> (u8, u8) {
        match self {
            Self::None => (1, 0),
            Self::LogicalDevices { count, own } | Self::Heads { count, own, .. } => (count, own),
        }
    }
}

/// What a logical device is given, in units of 256 MiB (section 7.6.7.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub range1: u64,
    pub range2: u64,
}

/// How the device tells of its load (section 7.6.7.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QosControl {
    /// Bit 0 egress port congestion, bit 1 temporary throughput reduction.
    pub telemetry: u8,
    /// Percent.
    pub moderate: u8,
    /// Percent.
    pub severe: u8,
    pub sample_interval: u8,
    pub completion_basis: u16,
    pub collection_interval: u8,
}

impl Default for QosControl {
    /// The default of each field.
    fn default() -> Self {
        Self {
            telemetry: 0,
            moderate: 10,
            severe: 25,
            sample_interval: 8,
            completion_basis: 0,
            collection_interval: 64,
        }
    }
}

/// A fraction of the device's bandwidth is told in so many parts.
pub(crate) const BANDWIDTH_PARTS: u16 = 256;

/// What the fabric manager has set. Resets by the host do not reach it.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub allocations: Vec<Allocation>,
    pub qos: QosControl,
    /// The part of the bandwidth that each logical device is sure of.
    pub bandwidth: Vec<u8>,
    /// The part of the bandwidth that it does not exceed.
    pub limits: Vec<u8>,
}

impl Fabric {
    /// What a device is set to at first, of which this host has `capacity` bytes. Fails if there are no such parts.
    pub(super) fn new(sharing: Sharing, capacity: u64) -> Result<Self, Error> {
        let (count, own) = sharing.logical_devices();
        at_most("logical devices", count.into(), Sharing::MOST.into())?;
        let last = u64::from(count.saturating_sub(1));
        at_most("number of this host's part", own.into(), last)?;
        let allocation = Allocation {
            range1: capacity / CAPACITY_UNIT,
            range2: 0,
        };
        let lds = usize::from(count);
        let part = BANDWIDTH_PARTS / u16::from(count.max(1));
        Ok(Self {
            allocations: vec![allocation; lds],
            qos: QosControl::default(),
            bandwidth: vec![part.min(u8::MAX.into()) as u8; lds],
            limits: vec![u8::MAX; lds],
        })
    }
}

impl Memdev {
    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    pub(crate) fn fabric_mut(&mut self) -> &mut Fabric {
        &mut self.fabric
    }

    /// Who has what of it.
    pub fn sharing(&self) -> Sharing {
        self.config.sharing
    }

    /// Bytes of the whole device, all logical devices together.
    pub(crate) fn shared_capacity(&self) -> u64 {
        let (count, _) = self.sharing().logical_devices();
        self.capacity().saturating_mul(count.into())
    }
}
