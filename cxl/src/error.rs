//! The crate's error.

use thiserror::Error as ThisError;

/// What a caller of this crate (firmware, configuration, the machine) can get wrong.
///
/// A guest never sees these: what a guest gets wrong is answered in its registers.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// Section 9.13.1.
    #[error("{0} is not an interleave way count: 1, 2, 4, 8, 16, 3, 6 or 12")]
    Ways(u64),
    /// Section 9.13.1.
    #[error("{0} bytes is not an interleave granularity: a power of two from 256 B to 16 KiB")]
    Granularity(u64),
    /// Section 9.18.1.4.
    #[error("XOR maps replace consecutive address bits by parities of bits 27:0, and these do not")]
    XorMaps,
    /// Section 8.2.4.20.1: the decoder count field has codes for even counts only.
    #[error("{0} is not a number of HDM decoders: 1, 2, 4, 6, 8 or 10")]
    DecoderCount(usize),
    /// The block has no such decoder.
    #[error("there is no HDM decoder {0}")]
    NoSuchDecoder(usize),
    /// The decoder is committed, or locked until the next reset.
    #[error("HDM decoder {0} is committed")]
    DecoderCommitted(usize),
    /// The decoder's rules reject the settings (section 8.2.4.20.12).
    #[error("HDM decoder {decoder} cannot be committed: {fault}")]
    Commit {
        /// Index of the decoder.
        decoder: usize,
        /// The rule that was broken.
        fault: crate::hdm::CommitFault,
    },
    /// A device's capacity does not fit the units in which it is reported.
    #[error("{what} of {bytes} bytes is not a multiple of {unit} bytes")]
    Unaligned {
        /// What has this size.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The unit it must be a multiple of.
        unit: u64,
    },
    /// A field of a table or register is too small for a value.
    #[error("{what} {value} is greater than {max}")]
    TooLarge {
        /// What has this value.
        what: &'static str,
        /// The value.
        value: u64,
        /// The largest value that fits.
        max: u64,
    },
    /// What a device remembers names poison that it cannot have.
    #[error("{len} bytes of poison at DPA {dpa:#x} are no lines of this device")]
    RememberedPoison {
        /// First device address.
        dpa: u64,
        /// Bytes.
        len: u64,
    },
    /// A region of dynamic capacity that the device cannot have.
    #[error(
        "region {0} of dynamic capacity overlaps what comes before it, or has sizes that do not fit"
    )]
    DynamicRegion(usize),
    /// Vendor commands have opcodes from 0xC000 on.
    #[error("{0:#06x} is not the opcode of a vendor command")]
    VendorOpcode(u16),
    /// A device with no capacity at all.
    #[error("a memory device needs volatile or persistent capacity")]
    NoCapacity,
    /// Extents of a media map overlap at this DPA.
    #[error("two extents hold DPA {0:#x}")]
    ExtentsOverlap(u64),
    /// No extent of a media map holds this DPA.
    #[error("no extent holds DPA {0:#x}")]
    NoExtent(u64),
    /// An extent is not made of whole interleave chunks, or wraps.
    #[error("extent at DPA {0:#x} is empty, wraps, or splits an interleave chunk")]
    BadExtent(u64),
}
