//! Any function that can hang in the PCI hierarchy of a machine.

use pci::{ConfigSpace, Function, ResetKind};

use crate::{
    DownstreamPort, DownstreamPortKind, Effect, HostBridge, SwitchCci, Type2, Type3, UpstreamPort,
    virtio,
};

/// One of the functions this crate models.
pub enum Device {
    /// The host bridge function of the ordinary root complex.
    Host(HostBridge),
    /// A root port below a CXL host bridge, or a downstream port of a switch.
    DownstreamPort(Box<DownstreamPort>),
    /// The upstream port of a switch.
    UpstreamPort(Box<UpstreamPort>),
    /// The mailbox of a switch.
    SwitchCci(Box<SwitchCci>),
    /// An accelerator.
    Type2(Box<Type2>),
    /// A memory expander.
    Type3(Box<Type3>),
    /// The register half of a virtio device.
    Virtio(Box<virtio::PciFunction>),
}

impl Device {
    /// What to call it where it has no name of its own.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host_bridge",
            Self::DownstreamPort(port) => match port.kind() {
                DownstreamPortKind::Root => "root_port",
                DownstreamPortKind::Switch => "downstream_port",
            },
            Self::UpstreamPort(_) => "upstream_port",
            Self::SwitchCci(_) => "switch_cci",
            Self::Type2(_) => "type2",
            Self::Type3(_) => "type3",
            Self::Virtio(_) => "virtio",
        }
    }

    /// Goes on with what it waits for, if its time has passed: see [`Effect::Alarm`].
    pub fn advance(&mut self, out: &mut Vec<Effect>) {
        match self {
            Self::DownstreamPort(port) => port.advance(out),
            Self::Type3(device) => device.advance(out),
            _ => {}
        }
    }
}

/// Calls into a virtio function, whose effects are its own.
fn with_virtio<R>(out: &mut Vec<Effect>, call: impl FnOnce(&mut Vec<virtio::Effect>) -> R) -> R {
    let mut effects = Vec::new();
    let result = call(&mut effects);
    out.extend(effects.into_iter().map(Effect::from));
    result
}

impl Function for Device {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        match self {
            Self::Host(function) => function.config(),
            Self::DownstreamPort(function) => function.config(),
            Self::UpstreamPort(function) => function.config(),
            Self::SwitchCci(function) => function.config(),
            Self::Type2(function) => function.config(),
            Self::Type3(function) => function.config(),
            Self::Virtio(function) => function.config(),
        }
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) {
        match self {
            Self::Virtio(function) => function.config_read(offset, data),
            _ => self.config().read(offset, data),
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        match self {
            Self::Host(function) => function.config_write(offset, data, out),
            Self::DownstreamPort(function) => function.config_write(offset, data, out),
            Self::UpstreamPort(function) => function.config_write(offset, data, out),
            Self::SwitchCci(function) => function.config_write(offset, data, out),
            Self::Type2(function) => function.config_write(offset, data, out),
            Self::Type3(function) => function.config_write(offset, data, out),
            Self::Virtio(function) => {
                with_virtio(out, |out| function.config_write(offset, data, out))
            }
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], out: &mut Vec<Effect>) {
        match self {
            Self::Host(function) => function.bar_read(bar, offset, data, out),
            Self::DownstreamPort(function) => function.bar_read(bar, offset, data, out),
            Self::UpstreamPort(function) => function.bar_read(bar, offset, data, out),
            Self::SwitchCci(function) => function.bar_read(bar, offset, data, out),
            Self::Type2(function) => function.bar_read(bar, offset, data, out),
            Self::Type3(function) => function.bar_read(bar, offset, data, out),
            Self::Virtio(function) => {
                with_virtio(out, |out| function.bar_read(bar, offset, data, out))
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        match self {
            Self::Host(function) => function.bar_write(bar, offset, data, out),
            Self::DownstreamPort(function) => function.bar_write(bar, offset, data, out),
            Self::UpstreamPort(function) => function.bar_write(bar, offset, data, out),
            Self::SwitchCci(function) => function.bar_write(bar, offset, data, out),
            Self::Type2(function) => function.bar_write(bar, offset, data, out),
            Self::Type3(function) => function.bar_write(bar, offset, data, out),
            Self::Virtio(function) => {
                with_virtio(out, |out| function.bar_write(bar, offset, data, out))
            }
        }
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        match self {
            Self::Host(function) => function.reset(kind, out),
            Self::DownstreamPort(function) => function.reset(kind, out),
            Self::UpstreamPort(function) => function.reset(kind, out),
            Self::SwitchCci(function) => function.reset(kind, out),
            Self::Type2(function) => function.reset(kind, out),
            Self::Type3(function) => function.reset(kind, out),
            Self::Virtio(function) => with_virtio(out, |out| function.reset(kind, out)),
        }
    }
}
