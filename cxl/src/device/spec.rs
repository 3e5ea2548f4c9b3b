//! Layout of the memory device register block (section 8.2.8).

use bitfield_struct::bitfield;

use crate::mailbox::PAYLOAD_SIZE;

/// Device Capabilities Array register (section 8.2.8.1), then one header of 16 bytes per capability.
pub(super) const ARRAY: u64 = 0x00;
/// Bytes of a capability header (section 8.2.8.2).
pub(super) const HEADER_LEN: u64 = 0x10;

/// Device Status registers (section 8.2.8.3): Event Status.
pub(crate) const DEVICE_STATUS: u64 = 0x80;
/// Memory Device Status registers (section 8.2.8.5).
pub(super) const MEMDEV_STATUS: u64 = 0x88;
/// Primary mailbox (section 8.2.8.4).
const MAILBOX: u64 = 0x100;

/// Structures of registers: capability id (tables 8-31 and 8-33), offset and length.
pub(crate) const DEVICE_STATUS_REGISTERS: (u16, u64, u64) = (1, DEVICE_STATUS, 8);
pub(crate) const MAILBOX_REGISTERS: (u16, u64, u64) =
    (2, MAILBOX, mailbox::PAYLOAD - MAILBOX + PAYLOAD_SIZE as u64);
pub(super) const MEMDEV_STATUS_REGISTERS: (u16, u64, u64) = (0x4000, MEMDEV_STATUS, 8);

/// Mailbox registers (sections 8.2.8.4.3 to 8.2.8.4.8), by offset in the block.
pub(super) mod mailbox {
    use super::MAILBOX;

    pub const CAPABILITIES: u64 = MAILBOX;
    pub const CONTROL: u64 = MAILBOX + 0x04;
    pub const COMMAND_LOW: u64 = MAILBOX + 0x08;
    pub const COMMAND_HIGH: u64 = MAILBOX + 0x0c;
    pub const STATUS_LOW: u64 = MAILBOX + 0x10;
    pub const STATUS_HIGH: u64 = MAILBOX + 0x14;
    pub const BACKGROUND_LOW: u64 = MAILBOX + 0x18;
    pub const BACKGROUND_HIGH: u64 = MAILBOX + 0x1c;
    pub const PAYLOAD: u64 = MAILBOX + 0x20;
}

/// Mailbox Capabilities register (section 8.2.8.4.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MailboxCapabilities {
    /// Payload size, as a power of two.
    #[bits(5)]
    pub payload_size: u8,
    /// An interrupt can tell that the doorbell is clear again.
    pub doorbell_interrupt: bool,
    /// An interrupt can tell that a background command has completed.
    pub background_interrupt: bool,
    /// MSI message number of these interrupts.
    #[bits(4)]
    pub message_number: u8,
    /// Seconds until the mailbox is ready after a reset.
    pub ready_time: u8,
    /// 1: a memory device's.
    #[bits(4)]
    pub mailbox_type: u8,
    #[bits(9)]
    __: u16,
}

/// Mailbox Control register (section 8.2.8.4.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MailboxControl {
    /// Written with one to run the command; reads zero once it has been run.
    pub doorbell: bool,
    /// Send an interrupt then.
    pub doorbell_interrupt: bool,
    /// Send an interrupt when a background command has completed.
    pub background_interrupt: bool,
    #[bits(29)]
    __: u32,
}

/// Command register (section 8.2.8.4.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MailboxCommand {
    /// Command set and command.
    pub opcode: u16,
    /// Bytes of input payload and, after the command, of output payload.
    #[bits(21)]
    pub payload_len: u32,
    #[bits(27)]
    __: u32,
}

impl MailboxCommand {
    /// What software may write.
    pub(super) const WRITABLE: u64 = 0x1f_ffff_ffff;
}

/// Mailbox Status register (section 8.2.8.4.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MailboxStatus {
    /// A background command is running.
    pub background: bool,
    #[bits(31)]
    __: u32,
    /// Return code of the last command.
    pub return_code: u16,
    /// Vendor specific extended status.
    pub vendor_status: u16,
}

/// Background Command Status register (section 8.2.8.4.7).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct BackgroundCommandStatus {
    /// The background command that runs, or the last one.
    pub opcode: u16,
    /// How far it is; 100 if it has completed.
    #[bits(7)]
    pub percent: u8,
    #[bits(9)]
    __: u16,
    /// How it completed.
    pub return_code: u16,
    /// Vendor specific extended status.
    pub vendor_status: u16,
}

/// Memory Device Status register (section 8.2.8.5.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MemdevStatus {
    /// The device has failed.
    pub fatal: bool,
    /// The firmware has halted.
    pub firmware_halt: bool,
    /// 1: the media is ready.
    #[bits(2)]
    pub media_status: u8,
    /// The mailbox is ready.
    pub mailbox_ready: bool,
    /// What kind of reset the device needs, if any.
    #[bits(3)]
    pub reset_needed: u8,
    #[bits(24)]
    __: u32,
}
