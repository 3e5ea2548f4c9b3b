//! The host bridge function 00:00.0 of the ordinary root complex: an identity and nothing else, as software that looks for
//! a PCI bus expects one (PCI Firmware 3.3).

use pci::{ConfigSpace, Function, Ids, ResetKind};

use crate::Effect;

/// The generic PCIe host bridge of the virtual world.
const IDS: Ids = Ids {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_0000,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The host bridge function.
#[derive(Clone)]
pub struct HostBridge(ConfigSpace);

impl HostBridge {
    /// The function in its reset state.
    #[must_use]
    pub fn new() -> Self {
        Self(ConfigSpace::endpoint(IDS))
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        self.0.write(offset, data, out);
    }

    fn bar_read(&mut self, _: u8, _: u64, data: &mut [u8], _: &mut Vec<Effect>) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Vec<Effect>) {}

    fn reset(&mut self, kind: ResetKind, _: &mut Vec<Effect>) {
        self.0.reset(kind);
    }
}
