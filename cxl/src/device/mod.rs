//! Memory device registers (section 8.2.8): capability array, status and primary mailbox.
//!
//! A command runs when its doorbell is rung, and has completed, or goes on in the background, when the write returns; so
//! the doorbell never reads as set.

mod fault;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{
    BackgroundCommandStatus, MailboxCapabilities, MailboxCommand, MailboxControl, MailboxStatus,
    MemdevStatus,
};

pub use fault::Fault;

use crate::access::{self, high, low, set_high, set_low};
use crate::event::Event;
use crate::mailbox::{self, Entry, PAYLOAD_SIZE, ReturnCode};
use crate::memdev::health::HealthInfo;
use crate::memdev::poison::PoisonSource;
use crate::memdev::{Clock, Memdev, MemdevConfig};
use crate::{Effect, Error};

/// The register block of a memory device, with the device behind it.
#[derive(Debug)]
pub struct DeviceRegisters {
    memdev: Memdev,
    array: Vec<u32>,
    control: MailboxControl,
    command: MailboxCommand,
    status: MailboxStatus,
    payload: Vec<u8>,
    fault: Option<Fault>,
}

impl DeviceRegisters {
    /// Bytes of the block.
    pub const SIZE: u64 = 0x1000;

    /// The registers of such a device. `clock` gives the timestamps' time in ns.
    pub fn new(config: MemdevConfig, clock: Clock) -> Result<Self, Error> {
        Ok(Self {
            memdev: Memdev::new(config, clock)?,
            array: capability_array(),
            control: MailboxControl::new(),
            command: MailboxCommand::new(),
            status: MailboxStatus::new(),
            payload: vec![0; PAYLOAD_SIZE],
            fault: None,
        })
    }

    /// Gives the device the commands of its vendor: see [`Memdev::add_vendor_commands`].
    ///
    /// # Errors
    /// See there.
    pub fn add_vendor_commands(&mut self, commands: &'static [Entry]) -> Result<(), Error> {
        self.memdev.add_vendor_commands(commands)
    }

    /// The device behind the registers.
    pub fn memdev(&self) -> &Memdev {
        &self.memdev
    }

    /// Logs an event: see [`Memdev::log_event`].
    pub fn log_event(&mut self, event: &Event, effects: &mut Vec<Effect>) {
        self.memdev.log_event(event, effects);
    }

    /// Changes the device's health: see [`Memdev::set_health`].
    pub fn set_health(&mut self, health: HealthInfo, effects: &mut Vec<Effect>) {
        self.memdev.set_health(health, effects);
    }

    /// Makes lines of the media bad: see [`Memdev::add_poison`].
    ///
    /// # Errors
    /// See there.
    pub fn add_poison(
        &mut self,
        dpa: u64,
        len: u64,
        source: PoisonSource,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.memdev.add_poison(dpa, len, source, effects)
    }

    /// Makes lines of the media good: see [`Memdev::mend_poison`].
    ///
    /// # Errors
    /// See there.
    pub fn mend_poison(
        &mut self,
        dpa: u64,
        len: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.memdev.mend_poison(dpa, len, effects)
    }

    /// The host met a bad line: see [`Memdev::poison_read`].
    pub fn poison_read(&mut self, dpa: u64, effects: &mut Vec<Effect>) {
        self.memdev.poison_read(dpa, effects);
    }

    /// What is wrong with the device.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Lets the device fail, or work again; a command that waited in the mailbox is run then.
    pub fn set_fault(&mut self, fault: Option<Fault>, effects: &mut Vec<Effect>) {
        self.fault = fault;
        if self.mailbox_works() && self.control.doorbell() {
            self.control.set_doorbell(false);
            self.run_command(effects);
        }
    }

    fn mailbox_works(&self) -> bool {
        self.fault.is_none_or(Fault::leaves_mailbox)
    }

    /// A conventional reset: registers take their reset values; labels, events and capacity stay.
    pub fn reset(&mut self) {
        self.memdev.reset();
        self.reset_mailbox();
    }

    /// The power goes, with time to flush: see [`Memdev::power_off`].
    pub fn power_off(&mut self, effects: &mut Vec<Effect>) {
        self.memdev.power_off(effects);
    }

    /// Power off and on again: also makes a new partition the active one and empties the event logs.
    pub fn power_cycle(&mut self) {
        self.memdev.power_cycle();
        self.reset_mailbox();
    }

    /// A function level reset, which ends with the mailbox's registers.
    pub fn reset_mailbox(&mut self) {
        self.control = MailboxControl::new();
        self.command = MailboxCommand::new();
        self.status = MailboxStatus::new();
        self.payload.fill(0);
    }

    /// Reads `data.len()` bytes at `offset` in the block, of any width and alignment.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        access::read(offset, data, |offset| self.register(offset));
    }

    /// Writes `data` at `offset` in the block: registers as 4 or 8 naturally aligned bytes, the
    /// payload as any bytes; other writes do nothing.
    pub fn write(&mut self, offset: u64, data: &[u8], effects: &mut Vec<Effect>) {
        if let Some(start) = offset.checked_sub(spec::mailbox::PAYLOAD) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            for (to, from) in self.payload.iter_mut().skip(start).zip(data) {
                *to = *from;
            }
            return;
        }
        access::write(offset, data, |offset, value| {
            self.write_register(offset, value, effects);
        });
    }

    fn register(&self, offset: u64) -> u32 {
        use spec::mailbox::{
            BACKGROUND_HIGH, BACKGROUND_LOW, CAPABILITIES, COMMAND_HIGH, COMMAND_LOW, CONTROL,
            PAYLOAD, STATUS_HIGH, STATUS_LOW,
        };
        match offset {
            spec::DEVICE_STATUS => self.memdev.events().status(),
            spec::MEMDEV_STATUS => self.memdev_status().into_bits(),
            CAPABILITIES => self.capabilities().into_bits(),
            CONTROL => self.control.into_bits(),
            COMMAND_LOW => low(self.command.into_bits()),
            COMMAND_HIGH => high(self.command.into_bits()),
            STATUS_LOW => low(self.mailbox_status().into_bits()),
            STATUS_HIGH => high(self.mailbox_status().into_bits()),
            BACKGROUND_LOW => low(self.background_status().into_bits()),
            BACKGROUND_HIGH => high(self.background_status().into_bits()),
            PAYLOAD.. => self.payload_dword(offset - PAYLOAD),
            _ => {
                let index = usize::try_from((offset - spec::ARRAY) / access::DWORD).ok();
                index
                    .and_then(|index| self.array.get(index))
                    .copied()
                    .unwrap_or(0)
            }
        }
    }

    fn payload_dword(&self, offset: u64) -> u32 {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| self.payload.get(offset..)?.first_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn write_register(&mut self, offset: u64, value: u32, effects: &mut Vec<Effect>) {
        let mut command = self.command.into_bits();
        match offset {
            spec::mailbox::CONTROL => {
                let written = MailboxControl::from_bits(value);
                self.control
                    .set_doorbell_interrupt(written.doorbell_interrupt());
                self.control
                    .set_background_interrupt(written.background_interrupt());
                if written.doorbell() && self.mailbox_works() {
                    self.run_command(effects);
                } else {
                    self.control
                        .set_doorbell(self.control.doorbell() || written.doorbell());
                }
            }
            spec::mailbox::COMMAND_LOW => set_low(&mut command, value),
            spec::mailbox::COMMAND_HIGH => set_high(&mut command, value),
            _ => {}
        }
        if matches!(
            offset,
            spec::mailbox::COMMAND_LOW | spec::mailbox::COMMAND_HIGH
        ) {
            self.command = MailboxCommand::from_bits(command & MailboxCommand::WRITABLE);
        }
    }

    /// Runs the command in the registers (section 8.2.8.4.1): reply, length and return code, then the
    /// doorbell's interrupt.
    fn run_command(&mut self, effects: &mut Vec<Effect>) {
        self.advance(effects);
        let was_running = self.memdev.is_background_running();
        let len = self.command.payload_len() as usize;
        let result = match self.payload.get(..len) {
            Some(input) => {
                mailbox::dispatch(&mut self.memdev, self.command.opcode(), input, effects)
            }
            None => Err(ReturnCode::InvalidPayloadLength),
        };
        let (code, reply) = match result {
            Ok(reply) => (ReturnCode::Success, reply),
            Err(code) => (code, Vec::new()),
        };
        for (to, from) in self.payload.iter_mut().zip(&reply) {
            *to = *from;
        }
        self.command.set_payload_len(reply.len() as u32);
        self.status = MailboxStatus::new().with_return_code(code as u16);
        let aborted = was_running && !self.memdev.is_background_running();
        if self.control.doorbell_interrupt() || aborted && self.control.background_interrupt() {
            self.interrupt(effects);
        }
    }

    /// Ends the background command if its time has passed: see [`Effect::Alarm`].
    pub fn advance(&mut self, effects: &mut Vec<Effect>) {
        if self.memdev.advance(effects) && self.control.background_interrupt() {
            self.interrupt(effects);
        }
    }

    fn interrupt(&self, effects: &mut Vec<Effect>) {
        let vector = self.memdev.config().mailbox_vector;
        effects.push(Effect::Interrupt { vector });
    }

    fn mailbox_status(&self) -> MailboxStatus {
        self.status
            .with_background(self.memdev.is_background_running())
    }

    fn background_status(&self) -> BackgroundCommandStatus {
        let status = self.memdev.background_status();
        BackgroundCommandStatus::new()
            .with_opcode(status.opcode)
            .with_percent(status.percent)
            .with_return_code(status.return_code)
    }

    /// The media is ready from the start, but for a fault, and disabled while it is sanitized.
    fn memdev_status(&self) -> MemdevStatus {
        const MEDIA_NOT_READY: u8 = 0;
        const MEDIA_READY: u8 = 1;
        const MEDIA_DISABLED: u8 = 3;
        let media = match self.fault {
            Some(Fault::MediaNotReady) => MEDIA_NOT_READY,
            _ if self.memdev.is_media_disabled() => MEDIA_DISABLED,
            _ => MEDIA_READY,
        };
        MemdevStatus::new()
            .with_media_status(media)
            .with_mailbox_ready(self.fault != Some(Fault::MailboxNotReady))
            .with_fatal(self.fault == Some(Fault::Fatal))
            .with_firmware_halt(self.fault == Some(Fault::FirmwareHalt))
    }

    fn capabilities(&self) -> MailboxCapabilities {
        /// Table 8-32: memory device.
        const MEMORY_DEVICE: u8 = 1;
        MailboxCapabilities::new()
            .with_payload_size(PAYLOAD_SIZE.trailing_zeros() as u8)
            .with_doorbell_interrupt(true)
            .with_background_interrupt(true)
            .with_message_number(self.memdev.config().mailbox_vector)
            .with_mailbox_type(MEMORY_DEVICE)
    }
}

/// Device Capabilities Array and capability headers, as dwords.
fn capability_array() -> Vec<u32> {
    /// Array version 1, type 1: memory device.
    const VERSION: u32 = 1;
    const TYPE: u32 = 1;
    /// Version of every capability here.
    const CAPABILITY_VERSION: u32 = 1;
    let capabilities = [
        (
            spec::ID_DEVICE_STATUS,
            spec::DEVICE_STATUS,
            spec::DEVICE_STATUS_LEN,
        ),
        (spec::ID_PRIMARY_MAILBOX, spec::MAILBOX, spec::MAILBOX_LEN),
        (
            spec::ID_MEMDEV_STATUS,
            spec::MEMDEV_STATUS,
            spec::MEMDEV_STATUS_LEN,
        ),
    ];
    let mut array = vec![VERSION << 16 | TYPE << 24, capabilities.len() as u32];
    array.resize((spec::HEADER_LEN / access::DWORD) as usize, 0);
    for (id, offset, len) in capabilities {
        let id = u32::from(id) | CAPABILITY_VERSION << 16;
        array.extend([id, offset as u32, len as u32, 0]);
    }
    array
}
