//! Designated vendor-specific extended capabilities of CXL functions (section 8.1).
//!
//! Each builder gives a [`Dvsec`]: reset bytes, and which of them configuration writes change. The
//! configuration space that holds the bytes belongs to the PCI side; [`device`] has accessors for what
//! a device has to react to.

pub mod device;
pub mod port;

use crate::CXL_VENDOR_ID;

/// DVSEC ids of the CXL Consortium (table 8-2).
pub mod id {
    /// PCIe DVSEC for CXL Devices.
    pub const DEVICE: u16 = 0;
    /// CXL Extensions DVSEC for Ports.
    pub const PORT_EXTENSIONS: u16 = 3;
    /// GPF DVSEC for CXL Ports.
    pub const GPF_PORT: u16 = 4;
    /// GPF DVSEC for CXL Devices.
    pub const GPF_DEVICE: u16 = 5;
    /// PCIe DVSEC for Flex Bus Port.
    pub const FLEX_BUS_PORT: u16 = 7;
    /// Register Locator DVSEC.
    pub const REGISTER_LOCATOR: u16 = 8;
}

/// DVSEC Header 1, after the PCI Express extended capability header.
const HEADER1: usize = 4;
/// DVSEC Header 2: the DVSEC id.
const HEADER2: usize = 8;

/// A DVSEC structure from its first byte on; all offsets are those of the specification's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dvsec {
    /// DVSEC id.
    pub id: u16,
    /// DVSEC revision.
    pub revision: u8,
    /// Reset values. The first four bytes, the extended capability header (id 0x0023, version 1,
    /// next pointer), are zero: they belong to whoever chains the capabilities.
    pub bytes: Vec<u8>,
    /// Bits that take the value written, as long as `bytes`.
    pub writable: Vec<u8>,
    /// Bits that a one clears, as long as `bytes`.
    pub write_one_to_clear: Vec<u8>,
}

impl Dvsec {
    fn new(id: u16, revision: u8, len: usize) -> Self {
        let mut dvsec = Self {
            id,
            revision,
            bytes: vec![0; len],
            writable: vec![0; len],
            write_one_to_clear: vec![0; len],
        };
        let header1 = u32::from(CXL_VENDOR_ID) | u32::from(revision) << 16 | (len as u32) << 20;
        dvsec.put(HEADER1, &header1.to_le_bytes());
        dvsec.put(HEADER2, &id.to_le_bytes());
        dvsec
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.bytes, offset, bytes);
    }

    fn put_writable(&mut self, offset: usize, mask: &[u8]) {
        put(&mut self.writable, offset, mask);
    }

    fn put_write_one_to_clear(&mut self, offset: usize, mask: &[u8]) {
        put(&mut self.write_one_to_clear, offset, mask);
    }
}

fn put(target: &mut [u8], offset: usize, bytes: &[u8]) {
    for (to, from) in target.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// A register block that the Register Locator points to (section 8.1.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RegisterBlockId {
    /// Component registers.
    Component = 1,
    /// CXL device registers.
    Device = 3,
    /// CPMU registers.
    Cpmu = 4,
}

/// One entry of the Register Locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterLocation {
    /// What is there.
    pub block: RegisterBlockId,
    /// BAR indicator, 0 to 5.
    pub bar: u8,
    /// Offset in the BAR, a multiple of 64 KiB.
    pub offset: u64,
}

/// Register Locator DVSEC (section 8.1.9): where the function's register blocks are.
pub fn register_locator(locations: &[RegisterLocation]) -> Dvsec {
    const ENTRIES: usize = 0x0c;
    const ENTRY: usize = 8;
    /// The offset's low bits hold the BAR indicator and the block's id.
    const OFFSET_MASK: u64 = !0xffff;
    let mut dvsec = Dvsec::new(id::REGISTER_LOCATOR, 0, ENTRIES + ENTRY * locations.len());
    for (index, location) in locations.iter().enumerate() {
        let entry = location.offset & OFFSET_MASK
            | u64::from(location.block as u8) << 8
            | u64::from(location.bar & 0b111);
        dvsec.put(ENTRIES + ENTRY * index, &entry.to_le_bytes());
    }
    dvsec
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Checks what every DVSEC has: consistent lengths, header fields, fixed headers, one rule per bit.
    pub(crate) fn check(dvsec: &Dvsec, id: u16, revision: u8, len: usize) {
        assert_eq!(
            [
                dvsec.bytes.len(),
                dvsec.writable.len(),
                dvsec.write_one_to_clear.len()
            ],
            [len; 3]
        );
        assert_eq!((dvsec.id, dvsec.revision), (id, revision));
        let header1 = u32::from_le_bytes(dvsec.bytes[4..8].try_into().unwrap());
        assert_eq!(header1 & 0xffff, 0x1e98);
        assert_eq!(header1 >> 16 & 0xf, u32::from(revision));
        assert_eq!(header1 >> 20, len as u32);
        assert_eq!(dvsec.bytes[8..10], id.to_le_bytes());
        assert!(dvsec.writable[..10].iter().all(|mask| *mask == 0));
        for (rw, rw1c) in dvsec.writable.iter().zip(&dvsec.write_one_to_clear) {
            assert_eq!(rw & rw1c, 0);
        }
    }

    #[test]
    fn a_register_locator_names_bar_block_and_offset() {
        let dvsec = register_locator(&[
            RegisterLocation {
                block: RegisterBlockId::Component,
                bar: 0,
                offset: 0,
            },
            RegisterLocation {
                block: RegisterBlockId::Device,
                bar: 2,
                offset: 0x3_0001_0000,
            },
        ]);
        check(&dvsec, 8, 0, 0x1c);
        assert_eq!(dvsec.bytes[0x0c..0x14], [0x00, 0x01, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            dvsec.bytes[0x14..0x1c],
            [0x02, 0x03, 0x01, 0x00, 0x03, 0, 0, 0]
        );
        assert!(dvsec.writable.iter().all(|mask| *mask == 0));
    }
}
