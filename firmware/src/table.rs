//! The system description table that all of ours are made in (ACPI 6.5 section 5.2.6).

use acpi_tables::sdt::Sdt;

/// Who made the tables. The table id must be one for all of them.
pub(crate) const OEM_ID: [u8; 6] = *b"MEMU  ";
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"MEMU-VMM";
pub(crate) const OEM_REVISION: u32 = 1;

/// Bytes of the common header.
pub(crate) const HEADER_LEN: u32 = 36;

/// A table of the given signature, `length` bytes of zeros behind its header.
pub(crate) fn table(signature: &[u8; 4], revision: u8, length: u32) -> Sdt {
    Sdt::new(
        *signature,
        length,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    )
}

/// Little-endian fields one after another, as the specifications list them.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes that the specification reserves.
    pub(crate) fn reserved(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}
