//! Assembling the bytes and access rules of a capability.

use crate::config::ConfigSpace;

/// A capability under construction: registers at the specification's offsets, everything else reserved and zero.
#[derive(Clone, Debug)]
pub struct Structure {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    write_1_clear: Vec<u8>,
}

impl Structure {
    /// `len` bytes, header included.
    pub fn new(len: u16) -> Self {
        let zeros = vec![0; usize::from(len)];
        Self {
            bytes: zeros.clone(),
            writable: zeros.clone(),
            write_1_clear: zeros,
        }
    }

    /// A 16-bit register: reset value, RW bits, RW1C bits.
    ///
    /// # Panics
    /// If it lies outside the structure.
    pub fn u16(&mut self, offset: u16, value: u16, writable: u16, write_1_clear: u16) -> &mut Self {
        self.put(
            offset,
            &value.to_le_bytes(),
            &writable.to_le_bytes(),
            &write_1_clear.to_le_bytes(),
        )
    }

    /// A 32-bit register: reset value, RW bits, RW1C bits.
    ///
    /// # Panics
    /// If it lies outside the structure.
    pub fn u32(&mut self, offset: u16, value: u32, writable: u32, write_1_clear: u32) -> &mut Self {
        self.put(
            offset,
            &value.to_le_bytes(),
            &writable.to_le_bytes(),
            &write_1_clear.to_le_bytes(),
        )
    }

    fn put(
        &mut self,
        offset: u16,
        value: &[u8],
        writable: &[u8],
        write_1_clear: &[u8],
    ) -> &mut Self {
        let range = usize::from(offset)..usize::from(offset) + value.len();
        self.bytes[range.clone()].copy_from_slice(value);
        self.writable[range.clone()].copy_from_slice(writable);
        self.write_1_clear[range].copy_from_slice(write_1_clear);
        self
    }

    /// Appends it to the capability list and returns its offset.
    pub fn add_to(&self, config: &mut ConfigSpace, id: u8) -> u16 {
        config.add_capability(id, &self.bytes, &self.writable, &self.write_1_clear)
    }

    /// Appends it to the extended capability list and returns its offset.
    pub fn add_extended_to(&self, config: &mut ConfigSpace, id: u16, version: u8) -> u16 {
        config.add_extended_capability(
            id,
            version,
            &self.bytes,
            &self.writable,
            &self.write_1_clear,
        )
    }
}
