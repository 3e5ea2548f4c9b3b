//! PCI and PCI Express as data and rules: configuration space, capabilities, ECAM, bridges, BARs, MSI-X, DOE, AER.
//!
//! A function is a [`ConfigSpace`] with capabilities that the model composes ([`PciExpress`], [`MsixTable`], ...), behind
//! the [`Function`] trait. Functions hang in a [`Hierarchy`], which routes accesses as the guest has programmed the bridges.
//! Nothing here performs anything: a write returns what it asks for as an [`Effect`].
//!
//! Section numbers are those of the PCI Express Base Specification 6.0 unless they say otherwise.

mod aer;
mod assign;
mod bar;
mod bdf;
mod config;
mod doe;
mod ecam;
mod error;
mod express;
mod extended;
mod function;
mod header;
mod hierarchy;
mod link;
mod msi;
mod msix;
mod power;
#[cfg(test)]
mod property_tests;
mod scan;
pub mod spec;
mod structure;
#[cfg(test)]
mod testing;
mod written;

pub use aer::{Aer, AerError, CorrectableError, ErrorMessage, UncorrectableError};
pub use assign::{Pools, PortReserve, RootWindows, assign};
pub use bar::{Bar, BarKind, BarWindow, Space};
pub use bdf::Bdf;
pub use config::{ConfigSpace, Ids, Retention};
pub use doe::{DoeMailbox, DoeProtocol};
pub use ecam::{ConfigAddressPort, Ecam};
pub use error::Error;
pub use express::{DevicePortType, ExpressConfig, ExpressEvent, Indicator, PciExpress, Slot};
pub use extended::{Dvsec, add_acs, add_ari, add_link_capabilities, add_serial_number};
pub use function::{Effect, Function, MsiMessage, ResetKind};
pub use header::BridgeWindows;
pub use hierarchy::{Hierarchy, NodeId, Parent, RootId, Target};
pub use link::{Link, LinkSpeed, LinkWidth, NoSuchSpeed};
pub use msi::Msi;
pub use msix::{MsixLayout, MsixTable};
pub use power::add_power_management;
pub use structure::Structure;
pub use written::Written;
