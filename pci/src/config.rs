//! Configuration space of one function: 4 KiB of registers with their reset values and access rules.

use crate::Effect;
use crate::bar::{Bar, BarWindow, Decode};
use crate::function::ResetKind;
use crate::spec::{
    CAPABILITIES_START, CONFIG_SPACE_SIZE, EXTENDED_START, capability, command, header, status,
};
use crate::written::{Written, byte_enables};

const DWORDS: usize = CONFIG_SPACE_SIZE as usize / 4;

/// Identity of a function, as its header shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// 24 bits: base class, sub-class, programming interface, as in `0x050210`.
    pub class: u32,
    /// Only shown by type 0 headers.
    pub subsystem_vendor: u16,
    /// Only shown by type 0 headers.
    pub subsystem: u16,
}

/// Which resets leave a register alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// "Sticky" in the specification (7.4): only a conventional reset of the machine clears it.
    Sticky,
    /// Belongs to the link, which a function level reset does not touch (6.6.2).
    FunctionLevel,
}

/// Four bytes of configuration space and the rules for each of their bits.
#[derive(Clone, Copy, Default)]
struct Dword {
    value: u32,
    reset: u32,
    writable: u32,
    write_1_clear: u32,
}

/// The 4 KiB configuration space of one function.
///
/// Every bit is read-only unless a mask says otherwise. A guest goes through [`read`](Self::read) and
/// [`write`](Self::write); the model behind it uses the typed accessors, which know no access rules.
#[derive(Clone)]
pub struct ConfigSpace {
    dwords: Box<[Dword; DWORDS]>,
    bars: [Option<Bar>; 6],
    capabilities: Vec<(u8, u16)>,
    extended: Vec<(u16, u16)>,
    next_capability: u16,
    next_extended: u16,
    retained: Vec<(u16, u16, Retention)>,
    /// See [`hold_secondary`](Self::hold_secondary). It is a signal beside the registers, and no reset reaches it.
    secondary_held: bool,
}

impl ConfigSpace {
    /// A type 0 header (7.5.1.2).
    pub fn endpoint(ids: Ids) -> Self {
        let mut config = Self::common(ids);
        config.define_u16(header::SUBSYSTEM_VENDOR_ID, ids.subsystem_vendor, 0, 0);
        config.define_u16(header::SUBSYSTEM_ID, ids.subsystem, 0, 0);
        config
    }

    /// What both header types share (7.5.1.1).
    pub(crate) fn common(ids: Ids) -> Self {
        let mut config = Self {
            dwords: Box::new([Dword::default(); DWORDS]),
            bars: [None; 6],
            capabilities: Vec::new(),
            extended: Vec::new(),
            next_capability: CAPABILITIES_START,
            next_extended: EXTENDED_START,
            retained: Vec::new(),
            secondary_held: false,
        };
        config.define_u16(header::VENDOR_ID, ids.vendor, 0, 0);
        config.define_u16(header::DEVICE_ID, ids.device, 0, 0);
        let writable = command::BUS_MASTER
            | command::PARITY_ERROR_RESPONSE
            | command::SERR_ENABLE
            | command::INTERRUPT_DISABLE;
        config.define_u16(header::COMMAND, 0, writable, 0);
        config.define_u16(header::STATUS, 0, 0, status::ERRORS);
        config.define_u32(
            header::REVISION_ID,
            ids.class << 8 | u32::from(ids.revision),
            0,
            0,
        );
        config.define_u8(header::CACHE_LINE_SIZE, 0, 0xff, 0);
        config.define_u8(header::INTERRUPT_LINE, 0, 0xff, 0);
        config
    }

    /// Marks the device as having more functions than this one (7.5.1.1.9).
    pub fn set_multi_function(&mut self) {
        let layout = self.u8(header::HEADER_TYPE);
        self.init_u8(header::HEADER_TYPE, layout | header::MULTI_FUNCTION);
    }

    /// Asserts or deasserts the fundamental reset of what is below a bridge (PERST#, 6.6.1), whatever software sets.
    pub fn hold_secondary(&mut self, held: bool) {
        self.secondary_held = held;
    }

    /// Whether that reset is asserted.
    pub fn is_secondary_held(&self) -> bool {
        self.secondary_held
    }

    /// Whether the header is of type 1.
    pub fn is_bridge(&self) -> bool {
        self.u8(header::HEADER_TYPE) & !header::MULTI_FUNCTION == header::TYPE_1
    }

    /// Adds a base address register. A 64-bit one takes `index` and `index + 1`.
    ///
    /// # Panics
    /// If the register does not exist in this header or is taken, or the size is not a power of two of at least 16 bytes
    /// (4 for I/O), or too large for the kind.
    pub fn add_bar(&mut self, index: u8, new: Bar) {
        let registers = if self.is_bridge() { 2 } else { 6 };
        let upper = new.is_64_bit().then_some(usize::from(index) + 1);
        let lower = usize::from(index);
        assert!(
            upper.unwrap_or(lower) < registers,
            "no BAR {index} in this header"
        );
        let behind = lower.checked_sub(1).and_then(|i| self.bars[i]);
        assert!(
            self.bars[lower].is_none()
                && upper.is_none_or(|i| self.bars[i].is_none())
                && !behind.is_some_and(|b| b.is_64_bit()),
            "BAR {index} is taken"
        );
        assert!(new.is_valid(), "BAR {index}: bad size {:#x}", new.size);

        let offset = Self::bar_offset(index);
        let address_mask = !(new.size - 1);
        self.define_u32(offset, new.flags(), address_mask as u32, 0);
        if new.is_64_bit() {
            self.define_u32(offset + 4, 0, (address_mask >> 32) as u32, 0);
        }
        self.allow_command(new.command_bit());
        self.bars[lower] = Some(new);
    }

    /// Makes an enable bit of the command register writable.
    pub(crate) fn allow_command(&mut self, bit: u16) {
        let rule = self.dword_mut(header::COMMAND);
        rule.writable |= u32::from(bit);
    }

    /// The base address registers that exist, by index.
    pub fn bars(&self) -> impl Iterator<Item = (u8, Bar)> + '_ {
        (0..)
            .zip(&self.bars)
            .filter_map(|(index, bar)| bar.map(|bar| (index, bar)))
    }

    /// Where a BAR decodes at present; `None` while its decode is off, or if there is none of that index.
    pub fn bar(&self, index: u8) -> Option<BarWindow> {
        let bar = (*self.bars.get(usize::from(index))?)?;
        if self.u16(header::COMMAND) & bar.command_bit() == 0 || !self.is_powered() {
            return None;
        }
        let offset = Self::bar_offset(index);
        let low = u64::from(self.u32(offset) & !bar.flags_mask());
        let high = if bar.is_64_bit() {
            u64::from(self.u32(offset + 4))
        } else {
            0
        };
        Some(BarWindow {
            base: high << 32 | low,
            size: bar.size,
        })
    }

    const fn bar_offset(index: u8) -> u16 {
        header::BAR0 + 4 * index as u16
    }

    /// Whether the function may issue requests, MSI among them (7.5.1.1.3).
    pub fn is_bus_master(&self) -> bool {
        self.u16(header::COMMAND) & command::BUS_MASTER != 0
    }

    /// Appends a capability, placed at the next free dword behind the header, and returns its offset.
    ///
    /// `bytes` is the whole structure with its two header bytes, whose content is ignored, so that offsets in it are the
    /// specification's. The masks may be shorter; what they do not cover is read-only.
    ///
    /// # Panics
    /// If the space below 0x100 is used up, or `bytes` is shorter than a header.
    pub fn add_capability(
        &mut self,
        id: u8,
        bytes: &[u8],
        writable: &[u8],
        write_1_clear: &[u8],
    ) -> u16 {
        let offset = self.next_capability;
        let end = usize::from(offset) + bytes.len().next_multiple_of(4);
        assert!(
            bytes.len() >= 2 && end <= usize::from(EXTENDED_START),
            "capability {id:#x} does not fit"
        );
        self.define(offset, bytes, writable, write_1_clear);
        self.define_u16(offset, u16::from(id), 0, 0);
        match self.capabilities.last() {
            Some(&(_, last)) => self.init_u8(last + 1, offset as u8),
            None => {
                self.init_u8(header::CAPABILITIES_POINTER, offset as u8);
                let value = self.u16(header::STATUS);
                self.init_u16(header::STATUS, value | status::CAPABILITIES_LIST);
            }
        }
        self.capabilities.push((id, offset));
        self.next_capability = end as u16;
        offset
    }

    /// Appends an extended capability at the next free dword from 0x100 on, and returns its offset (7.6.3).
    ///
    /// `bytes` is the whole structure with its four header bytes, whose content is ignored. Masks as in
    /// [`add_capability`](Self::add_capability).
    ///
    /// # Panics
    /// If extended configuration space is used up, or `bytes` is shorter than a header.
    pub fn add_extended_capability(
        &mut self,
        id: u16,
        version: u8,
        bytes: &[u8],
        writable: &[u8],
        write_1_clear: &[u8],
    ) -> u16 {
        let offset = self.next_extended;
        let end = usize::from(offset) + bytes.len().next_multiple_of(4);
        assert!(
            bytes.len() >= 4 && end <= usize::from(CONFIG_SPACE_SIZE),
            "extended capability {id:#x} does not fit"
        );
        self.define(offset, bytes, writable, write_1_clear);
        self.define_u32(offset, u32::from(id) | u32::from(version & 0xf) << 16, 0, 0);
        if let Some(&(_, last)) = self.extended.last() {
            let head = self.u32(last) & 0x000f_ffff;
            self.init_u32(last, head | u32::from(offset) << 20);
        }
        self.extended.push((id, offset));
        self.next_extended = end as u16;
        offset
    }

    /// Offset of the first capability with this identifier.
    pub fn find_capability(&self, id: u8) -> Option<u16> {
        self.capabilities
            .iter()
            .find(|(have, _)| *have == id)
            .map(|&(_, offset)| offset)
    }

    /// Offset of the first extended capability with this identifier.
    pub fn find_extended_capability(&self, id: u16) -> Option<u16> {
        self.extended
            .iter()
            .find(|(have, _)| *have == id)
            .map(|&(_, offset)| offset)
    }

    /// Makes `len` bytes at `offset` survive some resets.
    pub fn retain(&mut self, offset: u16, len: u16, retention: Retention) {
        self.retained.push((offset, len, retention));
    }

    /// Replaces which bits of the bytes from `offset` on a guest may write; for registers that a lock bit guards.
    pub fn set_writable(&mut self, offset: u16, writable: &[u8]) {
        for (at, &mask) in (offset..CONFIG_SPACE_SIZE).zip(writable) {
            let shift = 8 * (at & 3);
            let dword = self.dword_mut(at);
            dword.writable = dword.writable & !(0xff << shift) | u32::from(mask) << shift;
        }
    }

    /// A guest read of 1, 2 or 4 bytes within an aligned dword; any other read gives all ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        match byte_enables(offset, data.len()) {
            Some(_) => {
                let bytes = self.dword(offset).value.to_le_bytes();
                for (byte, value) in data
                    .iter_mut()
                    .zip(bytes.iter().skip(usize::from(offset & 3)))
                {
                    *byte = *value;
                }
            }
            None => data.fill(0xff),
        }
    }

    /// A guest write of 1, 2 or 4 bytes within an aligned dword; any other write is dropped and gives `None`.
    ///
    /// Pushes [`Effect::BarsChanged`] if the write changed what the function or the bridge decodes.
    pub fn write<E: From<Effect>>(
        &mut self,
        offset: u16,
        data: &[u8],
        out: &mut Vec<E>,
    ) -> Option<Written> {
        let enables = byte_enables(offset, data.len())?;
        let data = data
            .iter()
            .zip(u32::from(offset & 3)..)
            .fold(0, |dword, (&byte, lane)| {
                dword | u32::from(byte) << (8 * lane)
            });
        let decode = self.decode();

        let dword = self.dword_mut(offset);
        let before = dword.value;
        let writable = dword.writable & enables;
        let kept = before & !writable | data & writable;
        dword.value = kept & !(data & enables & dword.write_1_clear);
        let written = Written {
            dword: offset & !3,
            enables,
            data,
            before,
            after: dword.value,
        };

        if self.decode() != decode {
            out.push(Effect::BarsChanged.into());
        }
        Some(written)
    }

    /// Puts every register that `kind` reaches back to its reset value.
    pub fn reset(&mut self, kind: ResetKind) {
        let kept: Vec<(u16, u8)> = self
            .retained
            .iter()
            .filter(|(_, _, retention)| match kind {
                ResetKind::Conventional => false,
                ResetKind::SecondaryBus => *retention == Retention::Sticky,
                ResetKind::FunctionLevel => true,
            })
            .flat_map(|&(offset, len, _)| {
                (offset..offset.saturating_add(len)).map(|at| (at, self.u8(at)))
            })
            .collect();
        for dword in self.dwords.iter_mut() {
            dword.value = dword.reset;
        }
        for (at, value) in kept {
            self.set_u8(at, value);
        }
    }

    /// What the function decodes at present: its BARs and, for a bridge, its windows.
    fn decode(&self) -> Decode {
        let mut bars = [None; 6];
        for (index, window) in (0..).zip(bars.iter_mut()) {
            *window = self.bar(index);
        }
        Decode {
            bars,
            windows: self.bridge_windows(),
        }
    }

    /// Whether the function is in D0: in any other power state it answers configuration accesses only (5.3.1.4.1).
    pub(crate) fn is_powered(&self) -> bool {
        let offset = self.find_capability(capability::POWER_MANAGEMENT);
        offset.is_none_or(|offset| crate::power::state(self, offset) == 0)
    }
}

/// Accessors of the model behind the registers. They ignore access rules; offsets wrap at 4 KiB.
impl ConfigSpace {
    pub fn u8(&self, offset: u16) -> u8 {
        (self.dword(offset).value >> (8 * (offset & 3))) as u8
    }

    /// `offset` is taken as aligned to 2.
    pub fn u16(&self, offset: u16) -> u16 {
        (self.dword(offset).value >> (8 * (offset & 2))) as u16
    }

    /// `offset` is taken as aligned to 4.
    pub fn u32(&self, offset: u16) -> u32 {
        self.dword(offset).value
    }

    /// Changes the present value; the next reset undoes it.
    pub fn set_u8(&mut self, offset: u16, value: u8) {
        let shift = 8 * (offset & 3);
        let dword = self.dword_mut(offset);
        dword.value = dword.value & !(0xff << shift) | u32::from(value) << shift;
    }

    /// Changes the present value; the next reset undoes it.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        let shift = 8 * (offset & 2);
        let dword = self.dword_mut(offset);
        dword.value = dword.value & !(0xffff << shift) | u32::from(value) << shift;
    }

    /// Changes the present value; the next reset undoes it.
    pub fn set_u32(&mut self, offset: u16, value: u32) {
        self.dword_mut(offset).value = value;
    }

    /// Changes the present value and the reset value: HwInit registers and state that lives outside the function.
    pub fn init_u8(&mut self, offset: u16, value: u8) {
        self.set_u8(offset, value);
        let shift = 8 * (offset & 3);
        let dword = self.dword_mut(offset);
        dword.reset = dword.reset & !(0xff << shift) | u32::from(value) << shift;
    }

    /// As [`init_u8`](Self::init_u8).
    pub fn init_u16(&mut self, offset: u16, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.init_u8(offset & !1, low);
        self.init_u8(offset | 1, high);
    }

    /// As [`init_u8`](Self::init_u8).
    pub fn init_u32(&mut self, offset: u16, value: u32) {
        let dword = self.dword_mut(offset);
        dword.value = value;
        dword.reset = value;
    }

    /// Sets value, reset value and access rules of a run of bytes.
    fn define(&mut self, offset: u16, bytes: &[u8], writable: &[u8], write_1_clear: &[u8]) {
        for (at, (index, &value)) in (offset..CONFIG_SPACE_SIZE).zip(bytes.iter().enumerate()) {
            let mask = |bytes: &[u8]| bytes.get(index).copied().unwrap_or(0);
            self.define_u8(at, value, mask(writable), mask(write_1_clear));
        }
    }

    pub(crate) fn define_u8(&mut self, offset: u16, value: u8, writable: u8, write_1_clear: u8) {
        self.init_u8(offset, value);
        self.set_writable(offset, &[writable]);
        let shift = 8 * (offset & 3);
        let dword = self.dword_mut(offset);
        dword.write_1_clear =
            dword.write_1_clear & !(0xff << shift) | u32::from(write_1_clear) << shift;
    }

    pub(crate) fn define_u16(
        &mut self,
        offset: u16,
        value: u16,
        writable: u16,
        write_1_clear: u16,
    ) {
        for (at, index) in (offset..).zip(0..2) {
            let byte = |value: u16| value.to_le_bytes()[index];
            self.define_u8(at, byte(value), byte(writable), byte(write_1_clear));
        }
    }

    pub(crate) fn define_u32(
        &mut self,
        offset: u16,
        value: u32,
        writable: u32,
        write_1_clear: u32,
    ) {
        *self.dword_mut(offset) = Dword {
            value,
            reset: value,
            writable,
            write_1_clear,
        };
    }

    fn dword(&self, offset: u16) -> &Dword {
        &self.dwords[usize::from(offset / 4) % DWORDS]
    }

    fn dword_mut(&mut self, offset: u16) -> &mut Dword {
        &mut self.dwords[usize::from(offset / 4) % DWORDS]
    }
}

#[cfg(test)]
mod tests;
