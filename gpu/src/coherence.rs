//! Who holds which lines of device memory: the seam to what keeps account of it.

use std::fmt::Debug;

use crate::Error;

/// Keeps account of device memory that the host caches too. Offsets count from its first byte.
pub trait Coherence: Debug + Send + Sync {
    /// The device reads or writes bytes that lie in its memory.
    fn access(&self, offset: u64, bytes: u64, write: bool);

    /// Bytes are given to a new owner, as the zeros that `zero` makes them, which is nobody's access; what was held of them
    /// is forgotten.
    fn renew(&self, offset: u64, bytes: u64, zero: &mut dyn FnMut());

    /// What both sides have done up to now they have done before what they do from now on: a command that reaches device
    /// memory begins, or has ended.
    fn boundary(&self) {}

    /// Puts the pages of a range into device bias, or into host bias; how many changed.
    ///
    /// # Errors
    /// The range is not all in the memory; as for [`Self::flip_bias`].
    fn set_bias(&self, offset: u64, bytes: u64, device: bool) -> Result<u64, Error>;

    /// Puts each page of a range into the other bias; how many.
    ///
    /// # Errors
    /// As [`Self::set_bias`].
    fn flip_bias(&self, offset: u64, bytes: u64) -> Result<u64, Error>;

    /// Whether a page is in device bias.
    fn is_device_biased(&self, offset: u64) -> bool;

    /// Counters, in the order of [`crate::protocol::spec::STATISTICS`].
    fn statistics(&self) -> Vec<u64>;
}
