//! A command or its answer as a message (section 7.6.3, CCI message format).

use crate::mailbox::{Input, ReturnCode};

/// Bytes before the payload.
const HEADER_LEN: usize = 12;
const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
/// Bits of the payload length; bit 23 says that the command goes on in the background.
const LENGTH_MASK: u32 = 0x1f_ffff;
const BACKGROUND: u32 = 1 << 23;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    category: u8,
    /// Chosen by whoever asks, and the same in the answer.
    pub tag: u8,
    /// Command set and command.
    pub opcode: u16,
    /// How it ended; of a request, 0.
    pub return_code: u16,
    /// Input or output.
    pub payload: Vec<u8>,
}

impl Message {
    /// A request.
    #[must_use]
    pub fn request(tag: u8, opcode: u16, payload: &[u8]) -> Self {
        Self {
            category: REQUEST,
            tag,
            opcode,
            return_code: 0,
            payload: payload.to_vec(),
        }
    }

    /// The answer to this request.
    #[must_use]
    pub fn answer(&self, result: Result<Vec<u8>, ReturnCode>) -> Self {
        let (code, payload) = match result {
            Ok(payload) => (ReturnCode::Success, payload),
            Err(code) => (code, Vec::new()),
        };
        Self {
            category: RESPONSE,
            return_code: code as u16,
            payload,
            ..*self
        }
    }

    /// Takes one from its bytes; `None` if they are none, or more than one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let [category, tag, _reserved]: [u8; 3] = input.array()?;
        let opcode = input.u16()?;
        let [low, middle, high]: [u8; 3] = input.array()?;
        let len = u32::from_le_bytes([low, middle, high, 0]) & LENGTH_MASK;
        let return_code = input.u16()?;
        let _vendor_status = input.u16()?;
        let payload = input.rest();
        (payload.len() == len as usize).then(|| Self {
            category: category & 0xf,
            tag,
            opcode,
            return_code,
            payload: payload.to_vec(),
        })
    }

    /// Takes a request from its bytes.
    pub(super) fn request_from(bytes: &[u8]) -> Result<Self, ReturnCode> {
        Self::from_bytes(bytes)
            .filter(|message| message.category == REQUEST)
            .ok_or(ReturnCode::InvalidInput)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend([self.category, self.tag, 0]);
        bytes.extend(self.opcode.to_le_bytes());
        let mut length = self.payload.len() as u32 & LENGTH_MASK;
        if self.return_code == ReturnCode::BackgroundStarted as u16 {
            length |= BACKGROUND;
        }
        bytes.extend(length.to_le_bytes().iter().take(3));
        bytes.extend(self.return_code.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.payload);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_fields_of_the_figure() {
        let request = Message::request(7, 0x5401, &[1, 2]);
        let bytes = [0, 7, 0, 0x01, 0x54, 2, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(request.to_bytes(), bytes);
        assert_eq!(Message::from_bytes(&bytes), Some(request.clone()));
        let answer = request.answer(Err(ReturnCode::InvalidInput)).to_bytes();
        assert_eq!(answer, [1, 7, 0, 0x01, 0x54, 0, 0, 0, 2, 0, 0, 0]);
        let started = request.answer(Err(ReturnCode::BackgroundStarted));
        assert_eq!(started.to_bytes()[5..10], [0, 0, 0x80, 1, 0]);
    }

    #[test]
    fn what_is_too_short_too_long_or_an_answer_is_no_request() {
        let bytes = Message::request(7, 0x5401, &[1, 2]).to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Message::from_bytes(&bytes[..len]), None);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Message::from_bytes(&longer), None);
        let answer = [&[1][..], &bytes[1..]].concat();
        let refused = Message::request_from(&answer);
        assert_eq!(refused, Err(ReturnCode::InvalidInput));
    }
}
