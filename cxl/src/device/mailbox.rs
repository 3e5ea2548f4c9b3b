//! The registers of a mailbox (section 8.2.8.4), whatever component is behind it.

use super::spec::mailbox::{
    BACKGROUND_HIGH, BACKGROUND_LOW, CAPABILITIES, COMMAND_HIGH, COMMAND_LOW, CONTROL, PAYLOAD,
    STATUS_HIGH, STATUS_LOW,
};
use super::spec::{
    BackgroundCommandStatus, MailboxCapabilities, MailboxCommand, MailboxControl, MailboxStatus,
};
use crate::access::{self, high, low, set_high, set_low};
use crate::mailbox::{PAYLOAD_SIZE, ReturnCode};
use crate::memdev::BackgroundStatus;

/// What a mailbox shows of the component behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// Kind of mailbox (table 8-32).
    pub kind: u8,
    /// MSI message number.
    pub vector: u8,
    /// A background operation runs.
    pub is_busy: bool,
    /// It, or the last one.
    pub background: BackgroundStatus,
}

/// The registers.
#[derive(Debug)]
pub(crate) struct MailboxRegisters {
    control: MailboxControl,
    command: MailboxCommand,
    status: MailboxStatus,
    payload: Vec<u8>,
}

impl Default for MailboxRegisters {
    fn default() -> Self {
        Self {
            control: MailboxControl::new(),
            command: MailboxCommand::new(),
            status: MailboxStatus::new(),
            payload: vec![0; PAYLOAD_SIZE],
        }
    }
}

impl MailboxRegisters {
    /// Back to the reset values.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The register at an offset of the block; `None` if the mailbox has none there.
    pub fn register(&self, offset: u64, behind: &Behind) -> Option<u32> {
        let status = || self.status.with_background(behind.is_busy).into_bits();
        let background = || {
            BackgroundCommandStatus::new()
                .with_opcode(behind.background.opcode)
                .with_percent(behind.background.percent)
                .with_return_code(behind.background.return_code)
                .into_bits()
        };
        Some(match offset {
            CAPABILITIES => capabilities(behind).into_bits(),
            CONTROL => self.control.into_bits(),
            COMMAND_LOW => low(self.command.into_bits()),
            COMMAND_HIGH => high(self.command.into_bits()),
            STATUS_LOW => low(status()),
            STATUS_HIGH => high(status()),
            BACKGROUND_LOW => low(background()),
            BACKGROUND_HIGH => high(background()),
            PAYLOAD.. => self.payload_dword(offset - PAYLOAD),
            _ => return None,
        })
    }

    fn payload_dword(&self, offset: u64) -> u32 {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| self.payload.get(offset..)?.first_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Writes at an offset of the block: registers as 4 or 8 naturally aligned bytes, the payload as any bytes; other writes
    /// do nothing. True if that rang the doorbell, which stays set until [`complete`](Self::complete).
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        if let Some(start) = offset.checked_sub(PAYLOAD) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            for (to, from) in self.payload.iter_mut().skip(start).zip(data) {
                *to = *from;
            }
            return false;
        }
        let mut rung = false;
        access::write(offset, data, |offset, value| {
            rung |= self.write_register(offset, value);
        });
        rung
    }

    fn write_register(&mut self, offset: u64, value: u32) -> bool {
        let mut command = self.command.into_bits();
        match offset {
            CONTROL => {
                let written = MailboxControl::from_bits(value);
                self.control = MailboxControl::new()
                    .with_doorbell(self.is_rung() || written.doorbell())
                    .with_doorbell_interrupt(written.doorbell_interrupt())
                    .with_background_interrupt(written.background_interrupt());
                return written.doorbell();
            }
            COMMAND_LOW => set_low(&mut command, value),
            COMMAND_HIGH => set_high(&mut command, value),
            _ => return false,
        }
        self.command = MailboxCommand::from_bits(command & MailboxCommand::WRITABLE);
        false
    }

    /// The doorbell is set: a command waits.
    pub fn is_rung(&self) -> bool {
        self.control.doorbell()
    }

    /// The opcode in the command register, and the input payload, if it is no longer than there is room for.
    pub fn command(&self) -> (u16, Result<&[u8], ReturnCode>) {
        let len = self.command.payload_len() as usize;
        let input = self.payload.get(..len);
        let input = input.ok_or(ReturnCode::InvalidPayloadLength);
        (self.command.opcode(), input)
    }

    /// The command has ended (section 8.2.8.4.1): reply, length and return code, and the doorbell is clear again. True if
    /// software wants an interrupt for that.
    pub fn complete(&mut self, result: Result<Vec<u8>, ReturnCode>) -> bool {
        let (code, reply) = match result {
            Ok(reply) => (ReturnCode::Success, reply),
            Err(code) => (code, Vec::new()),
        };
        for (to, from) in self.payload.iter_mut().zip(&reply) {
            *to = *from;
        }
        self.command.set_payload_len(reply.len() as u32);
        self.status = MailboxStatus::new().with_return_code(code as u16);
        self.control.set_doorbell(false);
        self.control.doorbell_interrupt()
    }

    /// Software wants an interrupt at the end of a background operation.
    pub fn wants_background_interrupt(&self) -> bool {
        self.control.background_interrupt()
    }
}

fn capabilities(behind: &Behind) -> MailboxCapabilities {
    MailboxCapabilities::new()
        .with_payload_size(PAYLOAD_SIZE.trailing_zeros() as u8)
        .with_doorbell_interrupt(true)
        .with_background_interrupt(true)
        .with_message_number(behind.vector)
        .with_mailbox_type(behind.kind)
}
