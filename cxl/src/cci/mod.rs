//! Component command interfaces that are a fabric manager's (sections 7.6 and 8.2.9): of a switch, and of the devices behind
//! its ports.
//!
//! A switch has its interface in a PCI function of its own, with a mailbox like a memory device's ([`SwitchRegisters`]). A
//! device's own is reached through it, or, where the device has several heads, through its mailbox: a message is sent down a
//! tunnel, and comes to [`Memdev::receive`](crate::memdev::Memdev::receive).
//!
//! What there is of this is what one host can see: one virtual switch, each of whose bridges is bound to its port or to none,
//! and of a device that several hosts share this host's part. What the other hosts would see is told where a table has a field for it.

mod expander;
mod information;
mod link;
mod logs;
mod message;
mod switch;
mod tunnel;

pub use information::Identity;
pub use link::LinkState;
pub use switch::{
    Action, Attached, Binding, Port, PortControl, PortRegisters, SwitchConfig, SwitchRegisters,
    UnbindOption,
};

pub(crate) use expander::TunnelToPool;
pub use message::Message;

use crate::mailbox::Entry;

/// The commands of an interface.
trait CommandSet<D: 'static> {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry<D>>>;
}
