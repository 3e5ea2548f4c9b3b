//! The interface of a switch: what its ports are, and what can be done to them (sections 7.6.7.1 to 7.6.7.3).
//!
//! A switch knows its ports from whoever asks it to [execute](SwitchRegisters::execute) a command; what a command does to
//! them, or to what is behind them, is an [`Action`] for whoever asked.

mod events;
mod mld_port;
mod physical;
mod registers;
#[cfg(test)]
mod tests;
mod virtual_switch;

pub use registers::SwitchRegisters;

use std::fmt;

use super::CommandSet;
use super::information::{
    BackgroundOperationStatus, Component, GetResponseLimit, Identify, Identity, Limited, NO_LIMIT,
    SetResponseLimit,
};
use super::link::LinkState;
use super::logs::{GetLog, GetSupportedLogs};
use super::message::Message;
use crate::event::EventLogs;
use crate::mailbox::events::{
    ClearEventRecords, GetEventRecords, GetInterruptPolicy, SetInterruptPolicy,
};
use crate::mailbox::timestamp::{GetTimestamp, SetTimestamp, Timed};
use crate::mailbox::{Entry, ReturnCode};
use crate::memdev::{BackgroundStatus, Clock, timestamp};

/// What makes one switch differ from another.
pub struct SwitchConfig {
    /// What it is.
    pub identity: Identity,
    /// Port number of its upstream port, through which the host asks.
    pub upstream: u8,
    /// HDM decoders of the upstream port.
    pub decoders: u8,
    /// MSI message number of the mailbox, 0 to 15.
    pub mailbox_vector: u8,
    /// The same of the event logs.
    pub event_vector: u8,
    /// For timestamps.
    pub clock: Clock,
}

/// What is behind a downstream port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing.
    Nothing,
    /// An accelerator.
    Type2,
    /// A memory device with one logical device.
    SingleLogicalDevice,
    /// A memory device with so many logical devices, of which the host has one.
    LogicalDevices {
        /// How many.
        count: u8,
        /// Which of them the host has.
        own: u8,
    },
    /// A switch.
    Switch,
}

/// Whether a downstream port is bound to the virtual bridge that has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It is.
    Bound,
    /// It will be, as soon as the host has done with what was there before.
    BeingBound,
    /// It will not be any more as soon as what was asked for has happened.
    Unbinding,
    /// It is not: what is behind the port is the fabric manager's.
    Unbound,
}

/// What a port waits for before it is unbound (table 7-34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnbindOption {
    /// That its link goes down.
    LinkDown,
    /// That the host has let go, for which it is asked as by an attention button.
    ManagedHotRemove,
    /// Nothing.
    SurpriseHotRemove,
}

/// Registers of a downstream port that records of its events repeat (PCI Express 6.0, 7.5.3); zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRegisters {
    /// Link Control.
    pub link_control: u16,
    /// Slot Control.
    pub slot_control: u16,
    /// Slot Status.
    pub slot_status: u16,
}

/// A physical port as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Port number.
    pub id: u8,
    /// Its link.
    pub link: LinkState,
    /// What is behind a downstream port; `None` for the upstream port.
    pub attached: Option<Attached>,
    /// Whether the host has it.
    pub binding: Binding,
    /// What its registers say.
    pub registers: PortRegisters,
}

impl Port {
    fn logical_devices(&self) -> Option<(u8, u8)> {
        match self.attached {
            Some(Attached::LogicalDevices { count, own }) => Some((count, own)),
            _ => None,
        }
    }
}

/// What the fabric manager does to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortControl {
    /// Holds what is behind it in reset.
    AssertPerst,
    /// Lets it go.
    DeassertPerst,
    /// Resets the port and what is behind it.
    Reset,
}

/// What a command asks of whoever runs the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Do this to a downstream port, and complete the command without a payload.
    Control {
        /// Its number.
        port: u8,
        /// What to do.
        control: PortControl,
    },
    /// Access configuration space, and complete the command with the dword that was read, or four zero bytes.
    Configuration {
        /// Number of a downstream port.
        port: u8,
        /// The space is that of what is behind the port, not the port's own.
        behind: bool,
        /// Offset of a dword.
        register: u16,
        /// Which bytes of it, by bit.
        enables: u8,
        /// Write this; `None`: read.
        data: Option<u32>,
    },
    /// Show the host what is behind a port, and complete the command with [`ReturnCode::BackgroundStarted`] at once, but
    /// [observe](SwitchRegisters::observe) the ports when that is done.
    Bind {
        /// Number of a downstream port that is not bound.
        port: u8,
    },
    /// Take what is behind a port from the host, and complete the command with [`ReturnCode::BackgroundStarted`] at once, but
    /// [observe](SwitchRegisters::observe) the ports when it has gone.
    Unbind {
        /// Number of a downstream port that is bound, or will be.
        port: u8,
        /// What to wait for.
        option: UnbindOption,
    },
    /// Let a port report an error of PCI Express, and complete the command without a payload.
    Error {
        /// Number of a downstream port.
        port: u8,
        /// The bit is one of the uncorrectable errors.
        uncorrectable: bool,
        /// The error: a bit of an AER status register.
        bit: u8,
        /// Header of the packet at fault.
        header: [u32; 4],
    },
    /// Give a message to what is behind a port, and complete the command with the message that comes back.
    Tunnel {
        /// Number of a downstream port.
        port: u8,
        /// The message.
        message: Vec<u8>,
    },
}

/// A switch, as its commands see it.
pub(super) struct Switch {
    config: SwitchConfig,
    /// As they were when somebody looked last.
    ports: Vec<Port>,
    events: EventLogs,
    /// What the command asks for.
    action: Option<Action>,
    /// What the longest answer is, as a power of two.
    response_limit: u8,
    /// What the host set the timestamp to, and the clock at that time.
    timestamp: Option<(u64, u64)>,
    /// The operation that runs in the background, or that has ended last.
    background: Option<Background>,
}

/// A port that is bound or unbound: the only operations of a switch that may take time.
#[derive(Clone, Copy, Debug)]
struct Background {
    opcode: u16,
    is_running: bool,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("identity", &self.config.identity)
            .finish_non_exhaustive()
    }
}

impl Switch {
    fn new(config: SwitchConfig) -> Self {
        Self {
            events: EventLogs::new([config.event_vector; 4], None),
            config,
            ports: Vec::new(),
            action: None,
            response_limit: NO_LIMIT,
            timestamp: None,
            background: None,
        }
    }

    fn reset(&mut self) {
        self.response_limit = NO_LIMIT;
        self.timestamp = None;
        self.background = None;
        self.events.reset();
    }

    fn port(&self, id: u8) -> Option<&Port> {
        self.ports.iter().find(|port| port.id == id)
    }

    fn downstream(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.attached.is_some())
    }

    /// A port is being bound or unbound.
    fn is_changing(&self) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|port| matches!(port.binding, Binding::BeingBound | Binding::Unbinding))
    }

    /// The downstream port of this number.
    fn downstream_port(&self, id: u8) -> Result<&Port, ReturnCode> {
        let port = self.port(id).filter(|port| port.attached.is_some());
        port.ok_or(ReturnCode::InvalidInput)
    }

    /// Whoever runs the switch is to do this before the command has completed.
    fn ask_for(&mut self, action: Action) {
        self.action = Some(action);
    }
}

impl Component for Switch {
    const TYPE: u8 = 0;

    fn identity(&self) -> Identity {
        self.config.identity
    }

    fn background(&self) -> (bool, BackgroundStatus) {
        const ENDED: u8 = 100;
        let Some(Background { opcode, is_running }) = self.background else {
            return (false, BackgroundStatus::default());
        };
        // Whoever waits for a host cannot tell how far it is.
        let status = BackgroundStatus {
            opcode,
            percent: if is_running { 0 } else { ENDED },
            return_code: ReturnCode::Success as u16,
        };
        (is_running, status)
    }
}

impl Limited for Switch {
    fn response_limit(&mut self) -> &mut u8 {
        &mut self.response_limit
    }
}

impl Timed for Switch {
    fn timestamp(&self) -> u64 {
        timestamp(self.timestamp, (self.config.clock)())
    }

    fn set_timestamp(&mut self, timestamp: u64) {
        self.timestamp = Some((timestamp, (self.config.clock)()));
    }
}

/// All commands of a switch.
struct Commands;

impl CommandSet<Switch> for Commands {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry<Switch>>> {
        static ENTRIES: [Entry<Switch>; 22] = [
            Entry::of::<Identify>(),
            Entry::of::<BackgroundOperationStatus>(),
            Entry::of::<GetResponseLimit>(),
            Entry::of::<SetResponseLimit>(),
            Entry::of::<GetEventRecords>(),
            Entry::of::<ClearEventRecords>(),
            Entry::of::<GetInterruptPolicy>(),
            Entry::of::<SetInterruptPolicy>(),
            Entry::of::<GetTimestamp>(),
            Entry::of::<SetTimestamp>(),
            Entry::of::<GetSupportedLogs<Commands>>(),
            Entry::of::<GetLog<Commands>>(),
            Entry::of::<physical::IdentifySwitchDevice>(),
            Entry::of::<physical::GetPhysicalPortState>(),
            Entry::of::<physical::PhysicalPortControl>(),
            Entry::of::<physical::SendPpbConfiguration>(),
            Entry::of::<virtual_switch::GetVirtualSwitchInfo>(),
            Entry::of::<virtual_switch::BindVppb>(),
            Entry::of::<virtual_switch::UnbindVppb>(),
            Entry::of::<virtual_switch::GenerateAerEvent>(),
            Entry::of::<mld_port::Tunnel>(),
            Entry::of::<mld_port::SendLdConfiguration>(),
        ];
        Box::new(ENTRIES.iter())
    }
}
