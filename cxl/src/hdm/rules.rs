//! When a decoder may commit (sections 8.2.4.20.12 and 9.13.1).

use thiserror::Error as ThisError;

use super::{Decoder, HdmDecoders, MAX_TARGETS, Side};
use crate::CAPACITY_UNIT;
use crate::interleave::{Granularity, Interleave, Ways};

/// The rule that a decoder's settings break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum CommitFault {
    /// Decoders commit in increasing order.
    #[error("the decoder before it is not committed")]
    OutOfOrder,
    /// A committed decoder of no size would make an operating system refuse the whole port.
    #[error("its size is zero")]
    SizeZero,
    /// The range ends past the last address.
    #[error("its range wraps")]
    Wraps,
    /// A decoder's range lies above that of the decoder before it.
    #[error("its range overlaps or precedes the range of the decoder before it")]
    Overlap,
    /// A reserved code, or a way count that this component does not decode.
    #[error("its number of ways is not supported")]
    Ways,
    /// A reserved code.
    #[error("its interleave granularity is not supported")]
    Granularity,
    /// Every way holds a multiple of 256 MiB.
    #[error("its size is not a multiple of 256 MiB times its ways")]
    Alignment,
    /// The target list names a port which this component does not have.
    #[error("it has no port {0}")]
    UnknownTarget(u8),
    /// The target list names a port twice.
    #[error("it targets port {0} twice")]
    RepeatedTarget(u8),
    /// The device address range that the decoder and its skip select is past the capacity.
    #[error("its range ends past the capacity of the device")]
    Capacity,
}

impl HdmDecoders {
    /// Checks `decoder`, about to be decoder `index`, against the rules and the decoders before it.
    pub(super) fn check(&self, index: usize, decoder: &Decoder) -> Result<(), CommitFault> {
        let previous = index.checked_sub(1).and_then(|n| self.decoders.get(n));
        if previous.is_some_and(|previous| !previous.control.committed()) {
            return Err(CommitFault::OutOfOrder);
        }
        if decoder.size == 0 {
            return Err(CommitFault::SizeZero);
        }
        if decoder.base.checked_add(decoder.size).is_none() {
            return Err(CommitFault::Wraps);
        }
        if previous.is_some_and(|previous| decoder.base < previous.end()) {
            return Err(CommitFault::Overlap);
        }
        let interleave = decoder.interleave()?;
        if !decoder
            .size
            .is_multiple_of(CAPACITY_UNIT * interleave.ways.count())
        {
            return Err(CommitFault::Alignment);
        }
        match &self.side {
            Side::Port { ports } => check_targets(decoder, interleave.ways, ports),
            Side::Endpoint { capacity, .. } => {
                if self.is_accelerator() && interleave.ways != Ways::ONE {
                    return Err(CommitFault::Ways);
                }
                let start = self.dpa_base(index, decoder.destination);
                let end = start.and_then(|dpa| dpa.checked_add(decoder.dpa_size()?));
                match end {
                    Some(end) if end <= *capacity => Ok(()),
                    _ => Err(CommitFault::Capacity),
                }
            }
        }
    }
}

impl Decoder {
    /// Decodes the IW and IG fields.
    pub(super) fn interleave(&self) -> Result<Interleave, CommitFault> {
        let ways = Ways::from_code(self.control.ways()).ok_or(CommitFault::Ways)?;
        let granularity =
            Granularity::from_code(self.control.granularity()).ok_or(CommitFault::Granularity)?;
        Ok(Interleave::new(ways, granularity))
    }
}

/// A port decodes 1, 2, 4 or 8 ways, to distinct ports that exist.
fn check_targets(decoder: &Decoder, ways: Ways, ports: &[u8]) -> Result<(), CommitFault> {
    let count = ways.count() as usize;
    if !ways.is_power_of_two() || count > MAX_TARGETS {
        return Err(CommitFault::Ways);
    }
    let list = decoder.targets();
    for (position, port) in list.iter().enumerate().take(count) {
        if !ports.contains(port) {
            return Err(CommitFault::UnknownTarget(*port));
        }
        if list.iter().take(position).any(|earlier| earlier == port) {
            return Err(CommitFault::RepeatedTarget(*port));
        }
    }
    Ok(())
}
