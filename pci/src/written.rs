//! A guest's access to configuration space, reduced to the one dword that it concerns.

use crate::spec::CONFIG_SPACE_SIZE;

/// One guest write that reached configuration space: what was asked, and what it did to the aligned dword.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Offset of the dword.
    pub(crate) dword: u16,
    /// A bit for each bit of the dword that the access carried.
    pub(crate) enables: u32,
    pub(crate) data: u32,
    pub(crate) before: u32,
    pub(crate) after: u32,
}

impl Written {
    /// Whether any byte of the `len` bytes at `offset` was written.
    pub fn touches(&self, offset: u16, len: u16) -> bool {
        (0..4).any(|byte| {
            let at = self.dword + byte;
            self.enables >> (8 * byte) & 0xff != 0
                && at >= offset
                && at < offset.saturating_add(len)
        })
    }

    /// Bits as the guest wrote them, the register at `offset` at bit 0. Bytes that were not written, and registers of
    /// other dwords, are 0. Serves registers that act on a write and hold nothing.
    pub fn data(&self, offset: u16) -> u32 {
        self.shifted(self.data & self.enables, offset)
    }

    /// Whether one of the bits of `mask` in the register at `offset` went from 0 to 1.
    pub fn raised(&self, offset: u16, mask: u32) -> bool {
        self.shifted(self.after & !self.before, offset) & mask != 0
    }

    /// Whether one of the bits of `mask` in the register at `offset` went from 1 to 0.
    pub fn cleared(&self, offset: u16, mask: u32) -> bool {
        self.shifted(self.before & !self.after, offset) & mask != 0
    }

    fn shifted(&self, dword: u32, offset: u16) -> u32 {
        if offset & !3 == self.dword {
            dword >> (8 * (offset & 3))
        } else {
            0
        }
    }
}

/// The bits of the aligned dword that an access of `len` bytes at `offset` carries; `None` for an access that PCI Express
/// has no configuration request for (2.2.7: one dword with byte enables).
pub(crate) fn byte_enables(offset: u16, len: usize) -> Option<u32> {
    let lane = u32::from(offset & 3);
    let bytes = match len {
        1 => 0xff,
        2 if lane <= 2 => 0xffff,
        4 if lane == 0 => 0xffff_ffff,
        _ => return None,
    };
    (offset < CONFIG_SPACE_SIZE).then_some(bytes << (8 * lane))
}
