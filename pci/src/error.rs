//! What can go wrong when a machine is put together. A guest can cause none of it.

use std::ops::RangeInclusive;

use crate::Bdf;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("buses {new:02x?} overlap buses {taken:02x?} of another root")]
    BusesOverlap {
        new: RangeInclusive<u8>,
        taken: RangeInclusive<u8>,
    },
    #[error("there is no root of that number")]
    NoSuchRoot,
    #[error("there is no function of that number")]
    NoSuchNode,
    #[error("only a bridge can have functions below it")]
    NotABridge,
    #[error("device {device:#x} function {function} is taken, or is no device and function number")]
    SlotTaken { device: u8, function: u8 },
    #[error("root {root:02x?} runs out of buses at bridge {bridge}: {needed} wanted, {left} left")]
    OutOfBuses {
        root: RangeInclusive<u8>,
        bridge: Bdf,
        needed: u16,
        left: u16,
    },
    #[error("{what} does not fit in {space}: it needs {needed:#x} bytes and {left:#x} are left")]
    OutOfSpace {
        what: String,
        space: &'static str,
        needed: u64,
        left: u64,
    },
}
