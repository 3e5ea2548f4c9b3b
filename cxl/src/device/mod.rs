//! Memory device registers (section 8.2.8): capability array, status and primary mailbox.
//!
//! A command runs when its doorbell is rung, and has completed, or goes on in the background, when the write returns; so
//! the doorbell never reads as set.

mod fault;
mod mailbox;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

pub use spec::{
    BackgroundCommandStatus, MailboxCapabilities, MailboxCommand, MailboxControl, MailboxStatus,
    MemdevStatus,
};

pub use fault::Fault;
pub(crate) use mailbox::{Behind, MailboxRegisters};

use crate::access;
use crate::event::Event;
use crate::gpf::Phase2;
use crate::mailbox::{Entry, ReturnCode, dispatch};
use crate::memdev::dynamic::Extent;
use crate::memdev::health::HealthInfo;
use crate::memdev::poison::PoisonSource;
use crate::memdev::{Clock, Memdev, MemdevConfig};
use crate::{Effect, Error};

/// The register block of a memory device, with the device behind it.
#[derive(Debug)]
pub struct DeviceRegisters {
    memdev: Memdev,
    array: Vec<u32>,
    mailbox: MailboxRegisters,
    fault: Option<Fault>,
    commands: u64,
}

impl DeviceRegisters {
    /// Bytes of the block.
    pub const SIZE: u64 = 0x1000;

    /// The registers of such a device. `clock` gives the timestamps' time in ns.
    pub fn new(config: MemdevConfig, clock: Clock) -> Result<Self, Error> {
        Ok(Self {
            memdev: Memdev::new(config, clock)?,
            array: capability_array(
                MEMORY_DEVICE,
                &[
                    spec::DEVICE_STATUS_REGISTERS,
                    spec::MAILBOX_REGISTERS,
                    spec::MEMDEV_STATUS_REGISTERS,
                ],
            ),
            mailbox: MailboxRegisters::default(),
            fault: None,
            commands: 0,
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

    /// Offers memory to the host: see [`Memdev::offer_extents`].
    ///
    /// # Errors
    /// See there.
    pub fn offer_extents(
        &mut self,
        extents: &[Extent],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.memdev.offer_extents(extents, effects)
    }

    /// Asks for memory back, or takes it: see [`Memdev::reclaim_extent`].
    ///
    /// # Errors
    /// See there.
    pub fn reclaim_extent(
        &mut self,
        extent: &Extent,
        force: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.memdev.reclaim_extent(extent, force, effects)
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

    /// Takes a message of the fabric manager's: see [`Memdev::receive`].
    ///
    /// # Errors
    /// See there; or nobody is there to answer, as in the mailbox.
    pub fn receive(
        &mut self,
        message: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<u8>, ReturnCode> {
        if !self.mailbox_works() {
            return Err(ReturnCode::InternalError);
        }
        self.advance(effects);
        self.memdev.receive(message, effects)
    }

    /// How many commands the mailbox has run, whatever they returned.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// What is wrong with the device.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Lets the device fail, or work again; a command that waited in the mailbox is run then.
    pub fn set_fault(&mut self, fault: Option<Fault>, effects: &mut Vec<Effect>) {
        self.fault = fault;
        if self.mailbox_works() && self.mailbox.is_rung() {
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

    /// The power goes, after phase 2 of a global persistent flush that takes the device `duration` ns: see
    /// [`Memdev::power_off`].
    pub fn power_off(&mut self, phase2: Phase2, duration: u64, effects: &mut Vec<Effect>) {
        let flushed = self.fault != Some(Fault::FlushFails) && phase2.saves_all(duration);
        self.memdev.power_off(flushed, effects);
    }

    /// Power off and on again: also makes a new partition the active one and empties the event logs.
    pub fn power_cycle(&mut self) {
        self.memdev.power_cycle();
        self.reset_mailbox();
    }

    /// A function level reset, which ends with the mailbox's registers.
    pub fn reset_mailbox(&mut self) {
        self.mailbox.reset();
    }

    /// Reads `data.len()` bytes at `offset` in the block, of any width and alignment.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        access::read(offset, data, |offset| self.register(offset));
    }

    /// Writes `data` at `offset` in the block: registers as 4 or 8 naturally aligned bytes, the
    /// payload as any bytes; other writes do nothing.
    pub fn write(&mut self, offset: u64, data: &[u8], effects: &mut Vec<Effect>) {
        if self.mailbox.write(offset, data) && self.mailbox_works() {
            self.run_command(effects);
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            spec::DEVICE_STATUS => self.memdev.events().status(),
            spec::MEMDEV_STATUS => self.memdev_status().into_bits(),
            _ => self
                .mailbox
                .register(offset, &self.behind())
                .unwrap_or_else(|| array_register(&self.array, offset)),
        }
    }

    fn behind(&self) -> Behind {
        Behind {
            kind: MEMORY_DEVICE,
            vector: self.memdev.config().mailbox_vector,
            is_busy: self.memdev.is_background_running(),
            background: self.memdev.background_status(),
        }
    }

    /// Runs the command in the registers; the interrupts at its end.
    fn run_command(&mut self, effects: &mut Vec<Effect>) {
        self.advance(effects);
        self.commands = self.commands.saturating_add(1);
        let was_running = self.memdev.is_background_running();
        let (opcode, input) = self.mailbox.command();
        let result = input.and_then(|input| dispatch(&mut self.memdev, opcode, input, effects));
        let wanted = self.mailbox.complete(result);
        let aborted = was_running && !self.memdev.is_background_running();
        if wanted || aborted && self.mailbox.wants_background_interrupt() {
            self.interrupt(effects);
        }
    }

    /// Ends the background command if its time has passed: see [`Effect::Alarm`].
    pub fn advance(&mut self, effects: &mut Vec<Effect>) {
        if self.memdev.advance(effects) && self.mailbox.wants_background_interrupt() {
            self.interrupt(effects);
        }
    }

    fn interrupt(&self, effects: &mut Vec<Effect>) {
        let vector = self.memdev.config().mailbox_vector;
        effects.push(Effect::Interrupt { vector });
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
}

/// The type of a memory device, of its capability array (table 8-30) and of its mailbox (table 8-32).
const MEMORY_DEVICE: u8 = 1;

/// Device Capabilities Array and capability headers, as dwords: a component of this type, and the id, offset and length of
/// each of its structures.
pub(crate) fn capability_array(component: u8, capabilities: &[(u16, u64, u64)]) -> Vec<u32> {
    /// Version of the array, and of every capability here.
    const VERSION: u32 = 1;
    let component = u32::from(component) << 24;
    let mut array = vec![VERSION << 16 | component, capabilities.len() as u32];
    array.resize((spec::HEADER_LEN / access::DWORD) as usize, 0);
    for &(id, offset, len) in capabilities {
        let id = u32::from(id) | VERSION << 16;
        array.extend([id, offset as u32, len as u32, 0]);
    }
    array
}

/// The dword of a capability array at an offset of the block.
pub(crate) fn array_register(array: &[u32], offset: u64) -> u32 {
    let index = usize::try_from((offset - spec::ARRAY) / access::DWORD).ok();
    index
        .and_then(|index| array.get(index))
        .copied()
        .unwrap_or(0)
}
