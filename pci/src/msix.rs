//! MSI-X: the capability, and the vector table and pending bits in a BAR (6.1.4, 7.7.2).

use crate::Effect;
use crate::config::ConfigSpace;
use crate::function::MsiMessage;
use crate::spec::{capability, header};
use crate::structure::Structure;
use crate::written::Written;

/// Bytes of the capability (7.7.2).
const LENGTH: u16 = 12;
/// 16 bits: table size less one in 10:0, function mask, enable (7.7.2.2).
const MESSAGE_CONTROL: u16 = 0x02;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const CONTROL_ENABLE: u16 = 1 << 15;
/// 32 bits: offset in 31:3, BAR index in 2:0 (7.7.2.3).
const TABLE: u16 = 0x04;
/// 32 bits, as `TABLE` (7.7.2.4).
const PENDING: u16 = 0x08;

/// Bytes of a table entry: address low and high, data, vector control (7.7.2.5 to 7.7.2.8).
const ENTRY_SIZE: u64 = 16;
/// Mask bit of the vector control dword (7.7.2.8).
const ENTRY_MASKED: u32 = 1 << 0;
/// A table entry has four dwords; the last is vector control.
const VECTOR_CONTROL: usize = 3;
/// After reset a vector is masked (7.7.2.8).
const ENTRY_RESET: [u32; 4] = [0, 0, 0, ENTRY_MASKED];

/// Where table and pending bits stand. Both must be 8-byte aligned and must not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    pub bar: u8,
    /// Offset of the table in the BAR; 16 bytes a vector.
    pub table_offset: u32,
    /// Offset of the pending bits in the BAR; 8 bytes for each 64 vectors begun.
    pub pba_offset: u32,
    /// 1 to 2048.
    pub vectors: u16,
}

impl MsixLayout {
    /// Bytes of the table.
    pub const fn table_size(&self) -> u64 {
        self.vectors as u64 * ENTRY_SIZE
    }

    /// Bytes of the pending bit array.
    pub const fn pba_size(&self) -> u64 {
        (self.vectors as u64).div_ceil(64) * 8
    }
}

/// The MSI-X state of one function.
#[derive(Clone, Debug)]
pub struct MsixTable {
    offset: u16,
    layout: MsixLayout,
    entries: Vec<[u32; 4]>,
    pending: Vec<u32>,
    /// Enabled in the capability, not masked as a whole, and the function may issue requests.
    open: bool,
}

impl MsixTable {
    /// Adds the capability. The BAR itself is the caller's to add, and to pass accesses on from.
    ///
    /// # Panics
    /// If the layout breaks the rules that [`MsixLayout`] states.
    pub fn new(config: &mut ConfigSpace, layout: MsixLayout) -> Self {
        let table = u64::from(layout.table_offset);
        let pba = u64::from(layout.pba_offset);
        assert!(
            (1..=2048).contains(&layout.vectors),
            "MSI-X has 1 to 2048 vectors"
        );
        assert!(
            table.is_multiple_of(8) && pba.is_multiple_of(8),
            "MSI-X offsets are multiples of 8"
        );
        assert!(
            table + layout.table_size() <= pba || pba + layout.pba_size() <= table,
            "MSI-X table and pending bits overlap"
        );
        let bir = u32::from(layout.bar);
        let offset = Structure::new(LENGTH)
            .u16(
                MESSAGE_CONTROL,
                layout.vectors - 1,
                CONTROL_FUNCTION_MASK | CONTROL_ENABLE,
                0,
            )
            .u32(TABLE, layout.table_offset | bir, 0, 0)
            .u32(PENDING, layout.pba_offset | bir, 0, 0)
            .add_to(config, capability::MSIX);
        Self {
            offset,
            layout,
            entries: vec![ENTRY_RESET; usize::from(layout.vectors)],
            pending: vec![0; layout.pba_size() as usize / 4],
            open: false,
        }
    }

    pub fn layout(&self) -> MsixLayout {
        self.layout
    }

    /// Whether software has enabled MSI-X.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.u16(self.offset + MESSAGE_CONTROL) & CONTROL_ENABLE != 0
    }

    /// What the vector sends at present; `None` while it is masked in any way, MSI-X is off, or there is no such vector.
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        if !self.open {
            return None;
        }
        message_of(self.entries.get(usize::from(vector))?)
    }

    /// The device wants the vector sent. While it is masked this is remembered in its pending bit (6.1.4.5).
    pub fn trigger(&mut self, vector: u16) -> Option<MsiMessage> {
        let message = self.message(vector);
        if message.is_none() && vector < self.layout.vectors {
            self.set_pending(vector, true);
        }
        message
    }

    /// Whether an access at this offset of the layout's BAR is for the table or the pending bits.
    pub fn covers(&self, offset: u64) -> bool {
        self.in_table(offset).is_some() || self.in_pba(offset).is_some()
    }

    /// Reads table or pending bits; aligned accesses of 4 or 8 bytes, anything else gives all ones (6.1.4.2).
    pub fn bar_read(&self, offset: u64, data: &mut [u8]) {
        if !is_whole(offset, data.len()) {
            return data.fill(0xff);
        }
        for (index, bytes) in (0..).zip(data.chunks_mut(4)) {
            // Within the address space, since the whole access is aligned.
            let dword = self.dword(offset + 4 * index);
            bytes.copy_from_slice(&dword.unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    /// Writes the table; aligned accesses of 4 or 8 bytes, anything else is dropped, as are writes of pending bits.
    pub fn bar_write<E: From<Effect>>(&mut self, offset: u64, data: &[u8], out: &mut Vec<E>) {
        if !is_whole(offset, data.len()) {
            return;
        }
        let Some(at) = self.in_table(offset) else {
            return;
        };
        let index = (at / ENTRY_SIZE) as usize;
        let first = (at % ENTRY_SIZE / 4) as usize;
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let before = message_of(entry);
        for (lane, bytes) in (first..).zip(data.chunks_exact(4)) {
            let value = bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u32::from(byte));
            match entry.get_mut(lane) {
                // The reserved bits of vector control read as zero.
                Some(control) if lane == VECTOR_CONTROL => *control = value & ENTRY_MASKED,
                // The two low bits of the address must be zero (7.7.2.5).
                Some(address) if lane == 0 => *address = value & !3,
                Some(dword) => *dword = value,
                None => {}
            }
        }
        if self.open && message_of(entry) != before {
            self.report(index as u16, out);
        }
    }

    /// Follows a configuration write: enable, function mask, bus master enable.
    pub fn written<E: From<Effect>>(
        &mut self,
        config: &ConfigSpace,
        written: &Written,
        out: &mut Vec<E>,
    ) {
        if written.touches(self.offset + MESSAGE_CONTROL, 2) || written.touches(header::COMMAND, 2)
        {
            self.follow(config, out);
        }
    }

    /// Back to reset: all vectors masked, nothing pending. To be called after [`ConfigSpace::reset`].
    pub fn reset<E: From<Effect>>(&mut self, config: &ConfigSpace, out: &mut Vec<E>) {
        self.pending.fill(0);
        self.follow(config, out);
        self.entries.fill(ENTRY_RESET);
    }

    /// Takes over whether the function as a whole may send, and reports the vectors for which that matters.
    fn follow<E: From<Effect>>(&mut self, config: &ConfigSpace, out: &mut Vec<E>) {
        let control =
            config.u16(self.offset + MESSAGE_CONTROL) & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        let open = control == CONTROL_ENABLE && config.is_bus_master();
        if open == self.open {
            return;
        }
        self.open = open;
        for vector in 0..self.layout.vectors {
            if self
                .entries
                .get(usize::from(vector))
                .and_then(message_of)
                .is_some()
            {
                self.report(vector, out);
            }
        }
    }

    /// Reports a changed vector, and sends it if it had been waiting to be unmasked (6.1.4.5).
    fn report<E: From<Effect>>(&mut self, vector: u16, out: &mut Vec<E>) {
        out.push(Effect::MsixChanged { vector }.into());
        if let Some(message) = self.message(vector)
            && self.is_pending(vector)
        {
            self.set_pending(vector, false);
            out.push(Effect::Msi(message).into());
        }
    }

    /// Whether the vector waits to be unmasked.
    pub fn is_pending(&self, vector: u16) -> bool {
        let word = self
            .pending
            .get(usize::from(vector / 32))
            .copied()
            .unwrap_or(0);
        word >> (vector % 32) & 1 != 0
    }

    fn set_pending(&mut self, vector: u16, pending: bool) {
        if let Some(word) = self.pending.get_mut(usize::from(vector / 32)) {
            let bit = 1 << (vector % 32);
            *word = if pending { *word | bit } else { *word & !bit };
        }
    }

    fn dword(&self, offset: u64) -> Option<u32> {
        if let Some(at) = self.in_table(offset) {
            let entry = self.entries.get((at / ENTRY_SIZE) as usize)?;
            return entry.get((at % ENTRY_SIZE / 4) as usize).copied();
        }
        self.pending
            .get((self.in_pba(offset)? / 4) as usize)
            .copied()
    }

    fn in_table(&self, offset: u64) -> Option<u64> {
        let at = offset.checked_sub(u64::from(self.layout.table_offset))?;
        (at < self.layout.table_size()).then_some(at)
    }

    fn in_pba(&self, offset: u64) -> Option<u64> {
        let at = offset.checked_sub(u64::from(self.layout.pba_offset))?;
        (at < self.layout.pba_size()).then_some(at)
    }
}

/// What an entry sends, unless its own mask bit is set.
fn message_of(entry: &[u32; 4]) -> Option<MsiMessage> {
    let &[low, high, data, control] = entry;
    let address = u64::from(high) << 32 | u64::from(low);
    (control & ENTRY_MASKED == 0).then_some(MsiMessage { address, data })
}

/// Whether an access is one that the specification allows: an aligned dword or quadword (6.1.4.2).
fn is_whole(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResetKind;
    use crate::testing::{ids, rule, walk};

    const LAYOUT: MsixLayout = MsixLayout {
        bar: 4,
        table_offset: 0x2000,
        pba_offset: 0x3000,
        vectors: 40,
    };
    const MESSAGE: MsiMessage = MsiMessage {
        address: 0xfee0_2000,
        data: 0x31,
    };

    struct Guest {
        config: ConfigSpace,
        msix: MsixTable,
    }

    impl Guest {
        fn new() -> Self {
            let mut config = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
            let msix = MsixTable::new(&mut config, LAYOUT);
            Self { config, msix }
        }

        fn control(&mut self, value: u16) -> Vec<Effect> {
            self.config_write(self.msix.offset + MESSAGE_CONTROL, value)
        }

        fn config_write(&mut self, offset: u16, value: u16) -> Vec<Effect> {
            let mut out = Vec::new();
            if let Some(written) = self.config.write(offset, &value.to_le_bytes(), &mut out) {
                self.msix.written(&self.config, &written, &mut out);
            }
            out
        }

        fn write(&mut self, offset: u64, data: &[u8]) -> Vec<Effect> {
            let mut out = Vec::new();
            self.msix.bar_write(offset, data, &mut out);
            out
        }

        fn read(&self, offset: u64) -> u32 {
            let mut data = [0; 4];
            self.msix.bar_read(offset, &mut data);
            u32::from_le_bytes(data)
        }

        /// Vector 33 programmed and unmasked, the function enabled.
        fn enabled() -> Self {
            let mut guest = Self::new();
            guest.write(entry(33), &MESSAGE.address.to_le_bytes());
            guest.write(entry(33) + 8, &0x31u64.to_le_bytes());
            guest.config_write(header::COMMAND, 4);
            guest.control(CONTROL_ENABLE);
            guest
        }
    }

    fn entry(vector: u64) -> u64 {
        0x2000 + 16 * vector
    }

    #[test]
    fn the_capability_follows_its_access_rules() {
        let mut guest = Guest::new();
        let base = guest.msix.offset;
        walk(
            &mut guest.config,
            base,
            &[
                rule("header and control", 0, 0x0027_0011, 0xc000_0000, 0),
                rule("table", 4, 0x2004, 0, 0),
                rule("pending bits", 8, 0x3004, 0, 0),
            ],
        );
    }

    #[test]
    fn the_table_starts_masked_and_takes_dwords_and_quadwords() {
        let mut guest = Guest::new();
        for vector in 0..40 {
            assert_eq!(guest.read(entry(vector) + 12), 1);
        }
        guest.write(entry(1), &[0xff; 8]);
        guest.write(entry(1) + 8, &[0xff; 4]);
        guest.write(entry(1) + 12, &[0xff; 4]);
        let entry = [0, 4, 8, 12].map(|at| guest.read(entry(1) + at));
        assert_eq!(
            entry,
            [0xffff_fffc, u32::MAX, u32::MAX, 1],
            "reserved bits read as zero"
        );
    }

    #[test]
    fn odd_accesses_read_ones_and_write_nothing() {
        let mut guest = Guest::new();
        for (offset, len) in [
            (0x2000, 1),
            (0x2000, 2),
            (0x2002, 4),
            (0x2004, 8),
            (0x2280, 4),
            (0, 4),
            (u64::MAX, 1),
        ] {
            let mut data = vec![0; len];
            guest.write(offset, &data);
            guest.msix.bar_read(offset, &mut data);
            assert_eq!(data, vec![0xff; len], "{offset:#x} {len}");
        }
        assert_eq!(guest.read(entry(0)), 0);
        guest.write(0x3000, &[0xff; 8]);
        assert_eq!(guest.read(0x3000), 0, "pending bits are read-only");
    }

    #[test]
    fn covers_table_and_pending_bits_only() {
        let msix = Guest::new().msix;
        for (offset, covered) in [
            (0x1fff, false),
            (0x2000, true),
            (0x227f, true),
            (0x2280, false),
            (0x3007, true),
            (0x3008, false),
        ] {
            assert_eq!(msix.covers(offset), covered, "{offset:#x}");
        }
    }

    #[test]
    fn a_vector_sends_when_every_gate_is_open() {
        let mut guest = Guest::enabled();
        assert!(guest.msix.is_enabled(&guest.config));
        assert_eq!(guest.msix.message(33), Some(MESSAGE));
        assert_eq!(guest.msix.trigger(33), Some(MESSAGE));
        assert_eq!(guest.msix.trigger(32), None, "masked in its entry");
        assert_eq!(guest.msix.trigger(40), None, "not there");
        assert_eq!(guest.msix.trigger(u16::MAX), None);
        guest.control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        assert_eq!(guest.msix.message(33), None);
        guest.control(0);
        assert_eq!(guest.msix.message(33), None);
        guest.control(CONTROL_ENABLE);
        guest.config_write(header::COMMAND, 0);
        assert_eq!(guest.msix.message(33), None, "not a bus master");
    }

    #[test]
    fn a_masked_vector_waits_for_its_own_mask_or_the_functions() {
        let mut guest = Guest::enabled();
        let changed = Effect::MsixChanged { vector: 33 };
        assert_eq!(
            guest.write(entry(33) + 12, &[1, 0, 0, 0]),
            std::slice::from_ref(&changed)
        );
        assert_eq!(guest.msix.trigger(33), None);
        assert!(guest.msix.is_pending(33));
        assert_eq!(guest.read(0x3004), 2);
        assert_eq!(
            guest.write(entry(33) + 12, &[0; 4]),
            [changed.clone(), Effect::Msi(MESSAGE)]
        );
        assert_eq!(guest.read(0x3004), 0);

        assert_eq!(
            guest.control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK),
            std::slice::from_ref(&changed)
        );
        assert_eq!(guest.msix.trigger(33), None);
        assert_eq!(
            guest.control(CONTROL_ENABLE),
            [changed, Effect::Msi(MESSAGE)]
        );
        assert!(!guest.msix.is_pending(33));
    }

    #[test]
    fn only_changes_are_reported() {
        let mut guest = Guest::enabled();
        assert_eq!(guest.control(CONTROL_ENABLE), []);
        assert_eq!(guest.write(entry(33) + 8, &[0x31, 0, 0, 0]), []);
        assert_eq!(
            guest.write(entry(33) + 8, &[0x32, 0, 0, 0]),
            [Effect::MsixChanged { vector: 33 }]
        );
        assert_eq!(guest.write(entry(5) + 8, &[0x32, 0, 0, 0]), [], "masked");
        guest.control(0);
        assert_eq!(guest.write(entry(33) + 8, &[0x33, 0, 0, 0]), [], "off");
    }

    #[test]
    fn reset_masks_all_and_says_what_that_stopped() {
        let mut guest = Guest::enabled();
        guest.msix.trigger(7);
        guest.config.reset(ResetKind::FunctionLevel);
        let mut out: Vec<Effect> = Vec::new();
        guest.msix.reset(&guest.config, &mut out);
        assert_eq!(out, [Effect::MsixChanged { vector: 33 }]);
        assert_eq!(
            [0, 4, 8, 12].map(|at| guest.read(entry(33) + at)),
            [0, 0, 0, 1]
        );
        assert!(!guest.msix.is_pending(7));
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn table_and_pending_bits_must_not_overlap() {
        let mut config = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
        MsixTable::new(
            &mut config,
            MsixLayout {
                pba_offset: 0x2278,
                ..LAYOUT
            },
        );
    }
}
