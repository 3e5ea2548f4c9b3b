//! The type 1 header: bus numbers, forwarding windows, bridge control.

use std::ops::RangeInclusive;

use crate::config::{ConfigSpace, Ids};
use crate::express;
use crate::function::ResetKind;
use crate::spec::{bridge, capability, command, header, status};

/// What a bridge forwards from its primary to its secondary side at present. `None` = forwards nothing of that kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeWindows {
    pub io: Option<RangeInclusive<u64>>,
    pub memory: Option<RangeInclusive<u64>>,
    pub prefetchable: Option<RangeInclusive<u64>>,
}

impl ConfigSpace {
    /// A type 1 header (7.5.1.3) with a 32-bit memory and a 64-bit prefetchable window, and no I/O window: PCI Express
    /// devices need none, and an operating system asks for none where there is none.
    pub fn bridge(ids: Ids) -> Self {
        let mut config = Self::common(ids);
        config.define_u8(header::HEADER_TYPE, header::TYPE_1, 0, 0);
        config.allow_command(command::MEMORY_SPACE);
        for bus in [
            bridge::PRIMARY_BUS,
            bridge::SECONDARY_BUS,
            bridge::SUBORDINATE_BUS,
        ] {
            config.define_u8(bus, 0, 0xff, 0);
        }
        config.define_u16(bridge::SECONDARY_STATUS, 0, 0, status::ERRORS);
        let wide = u16::from(bridge::ADDRESSING_WIDE);
        for (register, addressing) in [
            (bridge::MEMORY_BASE, 0),
            (bridge::MEMORY_LIMIT, 0),
            (bridge::PREFETCHABLE_BASE, wide),
            (bridge::PREFETCHABLE_LIMIT, wide),
        ] {
            config.define_u16(register, addressing, 0xfff0, 0);
        }
        config.define_u32(bridge::PREFETCHABLE_BASE_UPPER, 0, u32::MAX, 0);
        config.define_u32(bridge::PREFETCHABLE_LIMIT_UPPER, 0, u32::MAX, 0);
        let control = bridge::CONTROL_PARITY_ERROR_RESPONSE
            | bridge::CONTROL_SERR_ENABLE
            | bridge::CONTROL_SECONDARY_BUS_RESET;
        config.define_u16(bridge::BRIDGE_CONTROL, 0, control, 0);
        config
    }

    /// Gives a bridge a 32-bit I/O window (7.5.1.3.6).
    pub fn add_io_window(&mut self) {
        self.allow_command(command::IO_SPACE);
        self.define_u8(bridge::IO_BASE, bridge::ADDRESSING_WIDE, 0xf0, 0);
        self.define_u8(bridge::IO_LIMIT, bridge::ADDRESSING_WIDE, 0xf0, 0);
        self.define_u16(bridge::IO_BASE_UPPER, 0, 0xffff, 0);
        self.define_u16(bridge::IO_LIMIT_UPPER, 0, 0xffff, 0);
    }

    /// The buses behind a bridge, secondary to subordinate; `None` for an endpoint and before software numbered them.
    pub fn buses_below(&self) -> Option<RangeInclusive<u8>> {
        let secondary = self.u8(bridge::SECONDARY_BUS);
        let subordinate = self.u8(bridge::SUBORDINATE_BUS);
        (self.is_bridge() && secondary != 0 && secondary <= subordinate)
            .then_some(secondary..=subordinate)
    }

    /// What a bridge forwards at present; empty for an endpoint.
    pub fn bridge_windows(&self) -> BridgeWindows {
        let mut windows = BridgeWindows::default();
        if !self.is_bridge() || !self.is_powered() {
            return windows;
        }
        let enabled = self.u16(header::COMMAND);
        if enabled & command::MEMORY_SPACE != 0 {
            let address = |register| u64::from(self.u16(register) & 0xfff0) << 16;
            let upper = |register| u64::from(self.u32(register)) << 32;
            windows.memory = window(
                address(bridge::MEMORY_BASE),
                address(bridge::MEMORY_LIMIT),
                bridge::MEMORY_GRANULARITY,
            );
            windows.prefetchable = window(
                upper(bridge::PREFETCHABLE_BASE_UPPER) | address(bridge::PREFETCHABLE_BASE),
                upper(bridge::PREFETCHABLE_LIMIT_UPPER) | address(bridge::PREFETCHABLE_LIMIT),
                bridge::MEMORY_GRANULARITY,
            );
        }
        // The bit can be set only where there is an I/O window (or an I/O BAR, which no bridge of ours has).
        if enabled & command::IO_SPACE != 0 {
            let address =
                |low, high| u64::from(self.u8(low) & 0xf0) << 8 | u64::from(self.u16(high)) << 16;
            windows.io = window(
                address(bridge::IO_BASE, bridge::IO_BASE_UPPER),
                address(bridge::IO_LIMIT, bridge::IO_LIMIT_UPPER),
                bridge::IO_GRANULARITY,
            );
        }
        windows
    }

    /// Whether what is below a bridge can be reached: the bridge is in D0, its secondary bus is not held in reset
    /// (7.5.1.3.13), its link is not disabled (7.5.3.7) and its slot has power (7.5.3.10).
    pub fn is_secondary_reachable(&self) -> bool {
        self.is_bridge() && self.is_powered() && self.secondary_reset().is_none()
    }

    /// The reset in which software holds what is below a bridge: that of a bus reset or of a link that is disabled, which
    /// resets the other end as well, or the fundamental one, which also comes with the power of a slot that is off (6.6.1).
    pub fn secondary_reset(&self) -> Option<ResetKind> {
        if !self.is_bridge() {
            return None;
        }
        let express = self.find_capability(capability::PCI_EXPRESS);
        let control = self.u16(bridge::BRIDGE_CONTROL);
        if self.is_secondary_held()
            || express.is_some_and(|offset| !express::is_powered(self, offset))
        {
            Some(ResetKind::Conventional)
        } else if control & bridge::CONTROL_SECONDARY_BUS_RESET != 0
            || express.is_some_and(|offset| express::is_link_disabled(self, offset))
        {
            Some(ResetKind::SecondaryBus)
        } else {
            None
        }
    }
}

/// From base and limit register: the limit's low bits count as ones; base above limit is a closed window.
fn window(base: u64, limit: u64, granularity: u64) -> Option<RangeInclusive<u64>> {
    (base <= limit).then_some(base..=limit | (granularity - 1))
}
