//! Tunnel Management Command (section 7.6.7.3.1), opcode 0x5300: a message to another component within a command.

use super::Message;
use crate::mailbox::{Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};

/// Its opcode, wherever it is.
pub(super) const OPCODE: u16 = 0x5300;

/// Whom the message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// What is behind this port of a switch, or this logical device.
    Number(u8),
    /// The pool of a device with several heads.
    Pool,
}

/// A message and whom it is for.
pub(crate) struct TunnelRequest {
    number: u8,
    target_type: u8,
    len: u16,
    message: Vec<u8>,
}

impl Request for TunnelRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [number, target_type] = input.array()?;
        Some(Self {
            number,
            target_type,
            len: input.u16()?,
            message: input.rest().to_vec(),
        })
    }
}

impl TunnelRequest {
    /// Whom it is for, and the message.
    pub(super) fn open(self) -> Result<(Target, Message), ReturnCode> {
        let target = match self.target_type {
            0 => Target::Number(self.number),
            1 => Target::Pool,
            _ => return Err(ReturnCode::InvalidInput),
        };
        if usize::from(self.len) != self.message.len() {
            return Err(ReturnCode::InvalidInput);
        }
        Ok((target, Message::request_from(&self.message)?))
    }
}

/// The message that came back.
pub(crate) struct TunnelReply(Vec<u8>);

impl TunnelReply {
    /// Bytes before the message.
    const HEADER_LEN: usize = 4;

    /// This answer, if it fits.
    pub(super) fn of(answer: &Message) -> Result<Self, ReturnCode> {
        let bytes = answer.to_bytes();
        let fits = Self::HEADER_LEN + bytes.len() <= PAYLOAD_SIZE;
        fits.then_some(Self(bytes)).ok_or(ReturnCode::InvalidInput)
    }
}

impl Reply for TunnelReply {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend((self.0.len() as u16).to_le_bytes());
        output.extend([0; 2]);
        output.extend(&self.0);
    }
}
