//! Devices that do not work (sections 8.2.8.4 and 8.2.8.5).

/// How a device can fail to work. No reset mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The mailbox takes a command and does not come to its end: the doorbell stays set.
    StuckDoorbell,
    /// The mailbox never becomes ready.
    MailboxNotReady,
    /// The media never becomes ready.
    MediaNotReady,
    /// The device has met a fatal error, and its mailbox with it.
    Fatal,
    /// The firmware has halted, and the mailbox with it.
    FirmwareHalt,
    /// Nothing can be seen of it before the power goes: what is on the way to persistent media then does not come there.
    FlushFails,
}

impl Fault {
    /// All of them, with their names.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("stuck-doorbell", Self::StuckDoorbell),
        ("mailbox-not-ready", Self::MailboxNotReady),
        ("media-not-ready", Self::MediaNotReady),
        ("fatal", Self::Fatal),
        ("firmware-halt", Self::FirmwareHalt),
        ("flush-fails", Self::FlushFails),
    ];

    /// Whether the mailbox runs commands all the same.
    pub(super) fn leaves_mailbox(self) -> bool {
        matches!(self, Self::MediaNotReady | Self::FlushFails)
    }
}
