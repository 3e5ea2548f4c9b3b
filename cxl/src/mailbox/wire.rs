//! Payloads as bytes: little-endian fields, one after the other.

/// What is left of an input payload.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Everything that is left; at most a payload.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

/// An input payload. What does not decode, or leaves bytes over, has an invalid length.
pub trait Request: Sized {
    /// Takes the fields; `None` if the payload is too short for them.
    fn decode(input: &mut Input<'_>) -> Option<Self>;
}

/// An output payload.
pub trait Reply {
    /// Appends the fields.
    fn encode(&self, output: &mut Vec<u8>);
}

impl Request for () {
    fn decode(_: &mut Input<'_>) -> Option<Self> {
        Some(())
    }
}

impl Reply for () {
    fn encode(&self, _: &mut Vec<u8>) {}
}
