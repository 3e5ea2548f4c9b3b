//! What a register access of any device asks of the machine.

use pci::ErrorMessage;

use crate::virtio;

/// An effect of an access, to be performed by the machine after the access.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Interrupts and address decode.
    Pci(pci::Effect),
    /// What a CXL component decodes changed: the windows have to be resolved anew.
    DecodersChanged,
    /// Software has switched the power of the port's slot, on or off.
    SlotPowerChanged,
    /// Bytes of a device's label storage area changed and are to be made durable.
    LabelsWritten {
        /// First byte.
        offset: u32,
        /// Number of bytes.
        len: u32,
    },
    /// What a device remembers without power changed and is to be made durable.
    NonVolatileChanged,
    /// Lines of a device's media went bad or good.
    PoisonChanged {
        /// First device address.
        dpa: u64,
        /// Bytes.
        len: u64,
    },
    /// Put a line into a device's media.
    MediaWritten {
        /// Its device address.
        dpa: u64,
        /// What it holds now.
        data: [u8; 64],
    },
    /// Put zeroes into a device's media.
    MediaZeroed {
        /// First device address.
        dpa: u64,
        /// Bytes.
        len: u64,
    },
    /// Call [`Device::advance`](crate::Device::advance) of this function when so much time has passed.
    Alarm {
        /// ns from now.
        after: u64,
    },
    /// A command waits in a switch's mailbox: call [`run_switch_command`](crate::run_switch_command).
    SwitchCommand,
    /// This port has been bound or unbound, or its link has changed: call [`tell_switch`](crate::tell_switch).
    PortChanged,
    /// What the driver of an accelerator asks of what is behind its registers.
    Accelerator(gpu::protocol::registers::Request),
    /// Send an error message to the root port above, or take it there.
    Error(ErrorMessage),
    /// What a virtio function asks of its worker.
    Virtio(virtio::Effect),
}

impl From<pci::Effect> for Effect {
    fn from(effect: pci::Effect) -> Self {
        Self::Pci(effect)
    }
}

impl From<virtio::Effect> for Effect {
    fn from(effect: virtio::Effect) -> Self {
        match effect {
            virtio::Effect::Pci(effect) => Self::Pci(effect),
            other => Self::Virtio(other),
        }
    }
}
