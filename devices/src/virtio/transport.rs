//! Virtio over PCI (section 4.1): the function with its capabilities and the registers behind its BAR.

use std::sync::Arc;

use pci::{Bar, ConfigSpace, Function, Ids, MsixLayout, MsixTable, ResetKind, Structure};

use super::common::{Change, CommonConfig};
use super::link::read_pending;
use super::spec::{self, capability, common};
use super::{Effect, Identity, Interrupt};

/// The one BAR: 64-bit memory, a page for each structure.
const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x8000;
/// Structures begin at multiples of this. Pages of their own let an ioeventfd stand beside trapped registers, and keep the
/// MSI-X structures apart from all others (PCIe 6.0, 7.7.2).
const PAGE: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = PAGE;
const DEVICE: u64 = 2 * PAGE;
const NOTIFY: u64 = 3 * PAGE;
const MSIX_TABLE: u64 = 4 * PAGE;
const MSIX_PBA: u64 = 5 * PAGE;

/// Distance of the doorbells of two queues, `notify_off_multiplier` (section 4.1.4.4).
const DOORBELL: u32 = 4;

/// The register half of a virtio device. It does nothing itself: what the driver asks for comes back as [`Effect`]s.
pub struct PciFunction {
    config: ConfigSpace,
    msix: MsixTable,
    common: CommonConfig,
    device_config: Vec<u8>,
    interrupt: Arc<dyn Interrupt>,
    /// Offset of the PCI configuration access capability (section 4.1.4.9).
    window: u16,
}

impl PciFunction {
    /// A function for the device that `identity` describes. It has a vector for each queue and one for the configuration;
    /// `interrupt` sends them.
    ///
    /// # Panics
    /// If the device has more queues, or more configuration, than a page has room for. No device type has.
    pub fn new(identity: Identity, interrupt: Arc<dyn Interrupt>) -> Self {
        let Identity {
            device_type,
            features,
            queue_sizes,
            config: device_config,
        } = identity;
        let doorbells = queue_sizes.len() * DOORBELL as usize;
        assert!(
            doorbells <= PAGE as usize && device_config.len() <= PAGE as usize,
            "{device_type:?} is too large"
        );
        let vectors = queue_sizes.len() as u16 + 1;

        let mut config = ConfigSpace::endpoint(Ids {
            vendor: spec::VENDOR_ID,
            device: spec::DEVICE_ID_BASE + device_type as u16,
            revision: spec::REVISION,
            class: device_type.class(),
            subsystem_vendor: spec::VENDOR_ID,
            subsystem: spec::SUBSYSTEM_BASE + device_type as u16,
        });
        config.add_bar(BAR, Bar::memory64(BAR_SIZE));
        let msix = MsixTable::new(
            &mut config,
            MsixLayout {
                bar: BAR,
                table_offset: MSIX_TABLE as u32,
                pba_offset: MSIX_PBA as u32,
                vectors,
            },
        );
        let mut place = |kind, offset: u64, len: u32| {
            structure(kind, offset as u32, len, 16)
                .add_to(&mut config, pci::spec::capability::VENDOR_SPECIFIC)
        };
        place(capability::TYPE_COMMON, COMMON, common::SIZE);
        place(capability::TYPE_ISR, ISR, 1);
        if !device_config.is_empty() {
            place(capability::TYPE_DEVICE, DEVICE, device_config.len() as u32);
        }
        structure(capability::TYPE_NOTIFY, NOTIFY as u32, doorbells as u32, 20)
            .u32(capability::NOTIFY_MULTIPLIER, DOORBELL, 0, 0)
            .add_to(&mut config, pci::spec::capability::VENDOR_SPECIFIC);
        let window = structure(capability::TYPE_PCI, 0, 0, 20)
            .u32(capability::BAR, 0, 0xff, 0)
            .u32(capability::OFFSET, 0, u32::MAX, 0)
            .u32(capability::LENGTH, 0, u32::MAX, 0)
            .add_to(&mut config, pci::spec::capability::VENDOR_SPECIFIC);

        let offered = features
            | spec::feature::VERSION_1
            | spec::feature::INDIRECT_DESC
            | spec::feature::EVENT_IDX;
        let common = CommonConfig::new(offered, queue_sizes, vectors, Arc::clone(&interrupt));
        Self {
            config,
            msix,
            common,
            device_config,
            interrupt,
            window,
        }
    }

    /// The vectors and what they send.
    pub fn msix(&self) -> &MsixTable {
        &self.msix
    }

    /// Where a write of the driver kicks a queue: the queue and the guest address. Empty while the BAR is not decoded.
    pub fn doorbells(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let base = self.config.bar(BAR).map(|window| window.base + NOTIFY);
        let queues = 0..self.common.queues() as u16;
        base.into_iter().flat_map(move |base| {
            queues
                .clone()
                .map(move |queue| (queue, base + u64::from(queue) * u64::from(DOORBELL)))
        })
    }

    /// Reads a register. Naturally aligned accesses of 1, 2 and 4 bytes reach one; other ones read as 0.
    fn read(&self, offset: u64, data: &mut [u8]) {
        let within = offset % PAGE;
        match offset - within {
            MSIX_TABLE => return self.msix.bar_read(offset, data),
            MSIX_PBA => {
                let vectors = self.msix.layout().vectors;
                return read_pending(&*self.interrupt, vectors, within, data);
            }
            // 64-bit fields are read and written as halves; whoever takes both at once shall have them, too.
            COMMON if data.len() == 8 => {
                for (at, half) in (within..).step_by(4).zip(data.chunks_mut(4)) {
                    fill(half, self.common.read(at, 4));
                }
                return;
            }
            _ => {}
        }
        let value = match offset - within {
            COMMON => self.common.read(within, data.len()),
            ISR if within == 0 => self.common.link().take_isr().into(),
            DEVICE => {
                let bytes = self.device_config.iter().skip(within as usize);
                data.fill(0);
                return data
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(byte, &value)| *byte = value);
            }
            _ => 0,
        };
        fill(data, value);
    }

    fn write(&mut self, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        let within = offset % PAGE;
        match offset - within {
            COMMON if data.len() == 8 => {
                for (at, half) in (within..).step_by(4).zip(data.chunks(4)) {
                    self.write_common(at, half, out);
                }
            }
            COMMON => self.write_common(within, data, out),
            NOTIFY => {
                let queue = within / u64::from(DOORBELL);
                if self.common.is_active() && queue < self.common.queues() as u64 {
                    out.push(Effect::Kick {
                        queue: queue as u16,
                    });
                }
            }
            MSIX_TABLE => self.msix.bar_write(offset, data, out),
            // The device configuration of every device here is read-only.
            _ => {}
        }
    }

    fn write_common(&mut self, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        match self.common.write(offset, data.len(), value_of(data)) {
            Some(Change::Activated(activation)) => out.push(Effect::Activate(activation)),
            Some(Change::Reset) => out.push(Effect::Reset),
            None => {}
        }
    }

    /// Where the configuration access window points: an offset and length in the BAR, if it is a possible access.
    fn window_target(&self) -> Option<(u64, usize)> {
        let bar = self.config.u8(self.window + capability::BAR);
        let offset = u64::from(self.config.u32(self.window + capability::OFFSET));
        let len = self.config.u32(self.window + capability::LENGTH);
        let possible =
            bar == BAR && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(u64::from(len));
        (possible && offset < BAR_SIZE).then_some((offset, len as usize))
    }

    fn is_window(&self, offset: u16) -> bool {
        offset & !3 == self.window + capability::CFG_DATA
    }
}

impl Function for PciFunction {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) {
        match self.window_target() {
            Some((target, len)) if self.is_window(offset) => {
                let mut value = [0; 4];
                if let Some(value) = value.get_mut(..len) {
                    self.read(target, value);
                }
                let lanes = value
                    .iter()
                    .skip(usize::from(offset & 3))
                    .chain(std::iter::repeat(&0));
                data.iter_mut()
                    .zip(lanes)
                    .for_each(|(byte, &value)| *byte = value);
            }
            _ => self.config.read(offset, data),
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let Some(written) = self.config.write(offset, data, out) else {
            return;
        };
        self.msix.written(&self.config, &written, out);
        if self.is_window(offset)
            && let Some((target, len)) = self.window_target()
        {
            let value = written
                .data(self.window + capability::CFG_DATA)
                .to_le_bytes();
            self.write(target, value.get(..len).unwrap_or_default(), out);
        }
    }

    fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8], _out: &mut Vec<Effect>) {
        self.read(offset, data);
    }

    fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        self.write(offset, data, out);
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.config.reset(kind);
        self.msix.reset(&self.config, out);
        self.common.reset();
        out.push(Effect::Reset);
        // The BAR is gone with its base, and the doorbells with it.
        out.push(Effect::Pci(pci::Effect::BarsChanged));
    }
}

/// A capability of `size` bytes for a structure of `len` bytes at `offset` of the BAR (section 4.1.4).
fn structure(kind: u8, offset: u32, len: u32, size: u16) -> Structure {
    let mut structure = Structure::new(size);
    structure
        .u16(
            capability::CAP_LEN,
            u16::from_le_bytes([size as u8, kind]),
            0,
            0,
        )
        .u32(capability::BAR, u32::from(BAR), 0, 0)
        .u32(capability::OFFSET, offset, 0, 0)
        .u32(capability::LENGTH, len, 0, 0);
    structure
}

fn value_of(data: &[u8]) -> u32 {
    data.iter()
        .take(4)
        .rev()
        .fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// The low bytes of `value`, and zeros behind them.
fn fill(data: &mut [u8], value: u32) {
    let bytes = value.to_le_bytes();
    let bytes = bytes.iter().chain(std::iter::repeat(&0));
    data.iter_mut()
        .zip(bytes)
        .for_each(|(byte, &value)| *byte = value);
}

#[cfg(test)]
#[path = "transport_test.rs"]
mod tests;
