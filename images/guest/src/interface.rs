//! Component command interfaces (CXL 3.1 section 7.6): whatever takes commands, and the tunnel to what is behind it.

use anyhow::{Context, Result, ensure};
use std::fmt;
use std::thread;
use std::time::Duration;

/// Return codes (table 8-34).
pub const SUCCESS: u16 = 0x00;
pub const BACKGROUND_STARTED: u16 = 0x01;
pub const INVALID_INPUT: u16 = 0x02;
pub const UNSUPPORTED: u16 = 0x03;
pub const RETRY_REQUIRED: u16 = 0x05;
pub const BUSY: u16 = 0x06;
pub const MEDIA_DISABLED: u16 = 0x07;
pub const OUT_OF_ORDER: u16 = 0x09;
pub const INCORRECT_SECURITY_STATE: u16 = 0x13;
pub const INCORRECT_PASSPHRASE: u16 = 0x14;

/// Tunnel Management Command (section 7.6.7.3.1).
pub const TUNNEL: u16 = 0x5300;

/// What takes commands.
pub trait Interface {
    /// Sends a command; gives its return code and its output payload.
    ///
    /// # Errors
    /// The component does not answer as the specification says.
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)>;

    /// True if whatever is between passes such a command on.
    fn passes(&self, _opcode: u16, _input: &[u8]) -> bool {
        true
    }

    /// Waits for a part of what an operation in the background takes.
    fn pause(&self) {
        thread::sleep(Duration::from_millis(20));
    }

    /// Sends a command that succeeds; gives its output payload.
    ///
    /// # Errors
    /// As [`send`](Self::send), and a [`Refusal`] if the command does not succeed.
    fn run(&self, opcode: u16, input: &[u8]) -> Result<Vec<u8>> {
        let (code, output) = self.send(opcode, input)?;
        ensure!(code == SUCCESS, Refusal { opcode, code });
        Ok(output)
    }
}

/// A command that has ended with another return code than success.
#[derive(Debug)]
pub struct Refusal {
    pub opcode: u16,
    pub code: u16,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opcode, code } = self;
        write!(f, "command {opcode:#06x} returns {code:#x}")
    }
}

impl std::error::Error for Refusal {}

/// Whom a tunnel leads to.
#[derive(Clone, Copy)]
pub enum Target {
    /// What is behind this port of a switch, or this logical device.
    Number(u8),
    /// What the heads of a device have in common.
    Pool,
}

/// The interface of a component behind another.
pub struct Tunnel<'a> {
    pub through: &'a dyn Interface,
    pub to: Target,
}

impl Interface for Tunnel<'_> {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        let message = request(opcode, input);
        let (number, kind) = match self.to {
            Target::Number(number) => (number, 0),
            Target::Pool => (0, 1),
        };
        let [low, high] = (message.len() as u16).to_le_bytes();
        let input = [&[number, kind, low, high][..], &message].concat();
        let reply = self.through.run(TUNNEL, &input)?;
        answer(opcode, reply.get(4..).context("a short answer")?)
    }

    fn pause(&self) {
        self.through.pause();
    }
}

/// Bytes before the payload of a message.
const HEADER_LEN: usize = 12;

/// A message that asks for a command (section 7.6.3).
fn request(opcode: u16, payload: &[u8]) -> Vec<u8> {
    let [low, high] = opcode.to_le_bytes();
    let [len_low, len_high] = (payload.len() as u16).to_le_bytes();
    let header = [0, 0, 0, low, high, len_low, len_high, 0, 0, 0, 0, 0];
    [&header[..], payload].concat()
}

/// Return code and payload of the message that answers a command.
fn answer(opcode: u16, message: &[u8]) -> Result<(u16, Vec<u8>)> {
    let (header, payload) = message
        .split_at_checked(HEADER_LEN)
        .context("a short message")?;
    ensure!(header[0] & 0xf == 1, "no answer: {header:x?}");
    let answered = field(header, 3, 2)?;
    ensure!(
        answered == u64::from(opcode),
        "an answer to {answered:#06x}, not to {opcode:#06x}"
    );
    let len = field(header, 5, 3)? & 0x1f_ffff;
    ensure!(
        len == payload.len() as u64,
        "{} bytes, not {len}",
        payload.len()
    );
    Ok((field(header, 8, 2)? as u16, payload.to_vec()))
}

/// The field of `len` bytes at `at`.
///
/// # Errors
/// `bytes` ends before it does.
pub fn field(bytes: &[u8], at: usize, len: usize) -> Result<u64> {
    let field = bytes.get(at..at + len);
    let field = field.with_context(|| format!("a payload of {} bytes", bytes.len()))?;
    let byte = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    Ok(field.iter().rev().fold(0, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_its_return_code_and_its_payload() {
        let mut message = request(0x4000, &[7]);
        assert!(answer(0x4000, &message).is_err(), "a request");
        message[0] = 1;
        assert_eq!(answer(0x4000, &message).unwrap(), (0, vec![7]));
        assert!(answer(0x4001, &message).is_err(), "of another command");
        message[8] = 2;
        assert_eq!(answer(0x4000, &message).unwrap().0, 2);
        assert!(answer(0x4000, &message[..12]).is_err(), "cut short");
        assert!(answer(0x4000, &message[..11]).is_err());
    }

    #[test]
    fn a_field_is_little_endian_and_within_its_payload() {
        assert_eq!(field(&[1, 2, 3, 4], 1, 3).unwrap(), 0x04_0302);
        assert!(field(&[1, 2, 3, 4], 2, 3).is_err());
    }
}
