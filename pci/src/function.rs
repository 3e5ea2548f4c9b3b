//! What the hierarchy asks of a function, and what a function asks of the machine.

use crate::config::ConfigSpace;

/// A message signalled interrupt: one dword written to one address (6.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    pub address: u64,
    pub data: u32,
}

/// What a register access asks of the machine. The model performs none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this interrupt now.
    Msi(MsiMessage),
    /// [`MsixTable::message`](crate::MsixTable::message) of this vector is another than before, or has come or gone.
    MsixChanged { vector: u16 },
    /// The function's BARs, or a bridge's windows, decode elsewhere or not at all. For a bridge this concerns all below.
    BarsChanged,
}

/// Which reset reaches a function (6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// The whole machine starts anew; sticky registers go too.
    Conventional,
    /// Hot reset from the bridge above: secondary bus reset or link disable.
    SecondaryBus,
    /// Asked for by the driver through Initiate Function Level Reset.
    FunctionLevel,
}

/// A PCI function. Effects are pushed to `out`; nothing is allocated where nothing happens.
pub trait Function: Send {
    /// The function's own effects, those of `pci` among them.
    type Effect: From<Effect>;

    fn config(&self) -> &ConfigSpace;

    /// Configuration read of the guest at `offset` of the 4 KiB.
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// Configuration write of the guest. Passes through [`ConfigSpace::write`], then hands the result to each capability.
    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Self::Effect>);

    /// Read of `data.len()` bytes that lie wholly inside the BAR.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], out: &mut Vec<Self::Effect>);

    /// Write of bytes that lie wholly inside the BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Self::Effect>);

    /// Returns to the state after the given reset, and pushes what the machine must undo.
    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Self::Effect>);
}

impl<F: Function + ?Sized> Function for Box<F> {
    type Effect = F::Effect;

    fn config(&self) -> &ConfigSpace {
        (**self).config()
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) {
        (**self).config_read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Self::Effect>) {
        (**self).config_write(offset, data, out);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], out: &mut Vec<Self::Effect>) {
        (**self).bar_read(bar, offset, data, out);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Self::Effect>) {
        (**self).bar_write(bar, offset, data, out);
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Self::Effect>) {
        (**self).reset(kind, out);
    }
}
