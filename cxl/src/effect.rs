//! What a register access asks of the machine.

/// Something the owner of a register block has to do after an access.
///
/// A handler pushes effects in the order in which they happened; most accesses push none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// HDM decoder `decoder` became committed.
    DecoderCommitted {
        /// Index of the decoder in its block.
        decoder: u8,
    },
    /// HDM decoder `decoder` is committed no longer.
    DecoderReleased {
        /// Index of the decoder in its block.
        decoder: u8,
    },
    /// The HDM Decoder Enable bit changed: with it clear, no decoder of the block decodes.
    DecodersEnabled(bool),
    /// Send MSI or MSI-X vector `vector` of this function.
    Interrupt {
        /// Message number.
        vector: u8,
    },
    /// Call [`DeviceRegisters::advance`](crate::DeviceRegisters::advance) when so much time has passed.
    Alarm {
        /// ns from now.
        after: u64,
    },
    /// Bytes of the label storage area changed and are to be made durable.
    LsaWritten {
        /// First byte.
        offset: u32,
        /// Number of bytes.
        len: u32,
    },
    /// Lines of media went bad or good: [`PoisonList::is_poisoned`](crate::memdev::poison::PoisonList::is_poisoned) says
    /// which.
    PoisonChanged {
        /// First device address.
        dpa: u64,
        /// Bytes, whole lines.
        len: u64,
    },
    /// Put a line into the media.
    MediaWritten {
        /// Its device address.
        dpa: u64,
        /// What it holds now.
        data: [u8; 64],
    },
    /// Put zeroes into the media.
    MediaZeroed {
        /// First device address.
        dpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The host can get at media that it could not get at, or no longer at what it could:
    /// [`Memdev::is_media_disabled`](crate::memdev::Memdev::is_media_disabled),
    /// [`Memdev::is_locked`](crate::memdev::Memdev::is_locked).
    AccessChanged,
    /// What [`Memdev::nonvolatile`](crate::memdev::Memdev::nonvolatile) gives changed and is to be made durable.
    NonVolatileChanged,
}
