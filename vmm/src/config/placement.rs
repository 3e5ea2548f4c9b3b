//! What a configuration asks of the address map.

use super::model::{Config, Device};
use crate::layout::{ApertureRequest, LayoutRequest, WindowRequest};

const MIB: u64 = 1 << 20;

/// Window of the ordinary root complex below 4 GiB, in bytes: far more than its virtio functions' BARs.
const ROOT_MMIO32: u64 = 64 * MIB;
/// Its window above 4 GiB, in bytes.
const ROOT_MMIO64: u64 = 1 << 30;
/// A port's share of its host bridge's window below 4 GiB, in bytes: its own registers and its function's, and the
/// 2 MiB that Linux reserves behind a port with hot-plug.
const PORT_MMIO32: u64 = 4 * MIB;
/// A port's share of the window above 4 GiB, in bytes.
const PORT_MMIO64: u64 = 64 * MIB;

impl Config {
    /// What [`Layout::new`](crate::layout::Layout::new) needs to place everything.
    #[must_use]
    pub fn layout_request(&self) -> LayoutRequest {
        let ports = self.ports();
        let bridges = (0..self.host_bridges.len()).map(|index| {
            let below = ports.iter().filter(|(place, _)| place.host_bridge == index);
            let mut share = ApertureRequest::default();
            for (_, port) in below {
                share.mmio32 += PORT_MMIO32;
                share.mmio64 = share.mmio64.saturating_add(PORT_MMIO64);
                // Its BAR begins at a multiple of its size, wherever the port before it ends.
                if let Some(Device::Type2(device)) = &port.device {
                    let bar = device.memory.checked_next_power_of_two();
                    let room = bar.unwrap_or(u64::MAX).saturating_mul(2);
                    share.mmio64 = share.mmio64.saturating_add(room);
                }
            }
            share
        });
        let windows = self.windows.iter().map(|window| WindowRequest {
            size: window.size,
            ways: window.ways() as u64,
        });
        LayoutRequest {
            ram: self.machine.memory,
            root: ApertureRequest {
                mmio32: ROOT_MMIO32,
                mmio64: ROOT_MMIO64,
            },
            host_bridges: bridges.collect(),
            windows: windows.collect(),
        }
    }
}
