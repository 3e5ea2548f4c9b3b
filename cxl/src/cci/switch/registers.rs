//! The register block of a switch's mailbox (section 8.2.8): capability array, status and primary mailbox.

use super::{Action, Background, CommandSet, Commands, Message, Port, Switch, SwitchConfig};
use crate::cci::information::Component;
use crate::cci::tunnel::TunnelReply;
use crate::device::{Behind, MailboxRegisters, array_register, capability_array, spec};
use crate::mailbox::{Reply, ReturnCode, run_one_of};
use crate::{Effect, access};

/// The type of a switch, of its capability array (table 8-30) and of its mailbox (table 8-32).
const SWITCH: u8 = 2;

/// The register block, with the switch behind it.
#[derive(Debug)]
pub struct SwitchRegisters {
    switch: Switch,
    array: Vec<u32>,
    mailbox: MailboxRegisters,
    /// The command that has begun is a message to another component.
    is_tunnel: bool,
    /// The command that has begun binds or unbinds this port.
    binds: Option<u8>,
}

impl SwitchRegisters {
    /// Bytes of the block.
    pub const SIZE: u64 = 0x1000;

    /// The registers of such a switch.
    #[must_use]
    pub fn new(config: SwitchConfig) -> Self {
        let structures = [spec::DEVICE_STATUS_REGISTERS, spec::MAILBOX_REGISTERS];
        Self {
            switch: Switch::new(config),
            array: capability_array(SWITCH, &structures),
            mailbox: MailboxRegisters::default(),
            is_tunnel: false,
            binds: None,
        }
    }

    /// A conventional reset: what the host configured is gone.
    pub fn reset(&mut self) {
        self.switch.reset();
        self.reset_mailbox();
    }

    /// A function level reset, which ends with the mailbox's registers.
    pub fn reset_mailbox(&mut self) {
        self.mailbox.reset();
    }

    /// Reads `data.len()` bytes at `offset` in the block, of any width and alignment.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let (is_busy, background) = self.switch.background();
        let behind = Behind {
            kind: SWITCH,
            vector: self.switch.config.mailbox_vector,
            is_busy,
            background,
        };
        access::read(offset, data, |offset| match offset {
            spec::DEVICE_STATUS => self.switch.events.status(),
            _ => self
                .mailbox
                .register(offset, &behind)
                .unwrap_or_else(|| array_register(&self.array, offset)),
        });
    }

    /// Writes `data` at `offset` in the block, as [`DeviceRegisters::write`](crate::DeviceRegisters::write) does. True if a
    /// command waits now to be [executed](Self::execute).
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        self.mailbox.write(offset, data)
    }

    /// Runs the command that waits, of a switch whose ports are like that. If it has not completed then, what there is to be
    /// done before it has.
    pub fn execute(&mut self, ports: Vec<Port>, effects: &mut Vec<Effect>) -> Option<Action> {
        if !self.mailbox.is_rung() {
            return None;
        }
        self.switch.look(ports, effects);
        let (opcode, input) = self.mailbox.command();
        let result = input.and_then(|input| {
            run_one_of(
                &mut self.switch,
                Commands::entries(),
                opcode,
                input,
                effects,
            )
        });
        let action = self.switch.action.take();
        self.binds = match action {
            Some(Action::Bind { port } | Action::Unbind { port, .. }) => Some(port),
            _ => None,
        };
        self.is_tunnel = matches!(action, Some(Action::Tunnel { .. }));
        if action.is_none() {
            self.finish(result, effects);
        }
        action
    }

    /// Completes the command whose action has been done with what came of it.
    pub fn complete(&mut self, result: Result<Vec<u8>, ReturnCode>, effects: &mut Vec<Effect>) {
        if !self.mailbox.is_rung() {
            return;
        }
        let result = match self.is_tunnel {
            true => result.and_then(|message| tunnelled(&message)),
            false => result,
        };
        if result == Err(ReturnCode::BackgroundStarted) {
            let (opcode, _) = self.mailbox.command();
            self.switch.background = Some(Background {
                opcode,
                is_running: true,
            });
        } else if let (Some(port), Err(_)) = (self.binds, &result) {
            self.switch.log_failure(port, effects);
        }
        self.finish(result, effects);
    }

    /// A port has changed, and all are like that now. That is logged, and if it was the end of the operation in the background,
    /// software is told.
    pub fn observe(&mut self, ports: Vec<Port>, effects: &mut Vec<Effect>) {
        self.switch.look(ports, effects);
        let goes_on = self.switch.is_changing();
        let running = self.switch.background.as_mut();
        let Some(ended) = running.filter(|running| running.is_running && !goes_on) else {
            return;
        };
        ended.is_running = false;
        if self.mailbox.wants_background_interrupt() {
            self.interrupt(effects);
        }
    }

    fn interrupt(&self, effects: &mut Vec<Effect>) {
        let vector = self.switch.config.mailbox_vector;
        effects.push(Effect::Interrupt { vector });
    }

    fn finish(&mut self, result: Result<Vec<u8>, ReturnCode>, effects: &mut Vec<Effect>) {
        let most = 1_usize << self.switch.response_limit;
        // Whoever limits answers asks for less.
        let result = match result {
            Ok(reply) if reply.len() > most => Err(ReturnCode::InvalidInput),
            result => result,
        };
        if self.mailbox.complete(result) {
            self.interrupt(effects);
        }
    }
}

/// The output payload with this message.
fn tunnelled(message: &[u8]) -> Result<Vec<u8>, ReturnCode> {
    let answer = Message::from_bytes(message).ok_or(ReturnCode::InternalError)?;
    let mut output = Vec::new();
    TunnelReply::of(&answer)?.encode(&mut output);
    Ok(output)
}
