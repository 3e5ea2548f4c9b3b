//! The slot behind a downstream port: card, latch, power, button and indicators (6.7, 7.5.3.9 to 7.5.3.11).
//!
//! A person and the software meet in two registers: slot status tells what happened at the slot, slot control switches its
//! power and its lights. Whatever happens is told by one interrupt (6.7.3.4).

use crate::config::ConfigSpace;
use crate::structure::Structure;
use crate::written::Written;

/// 32 bits, HwInit (7.5.3.9).
const SLOT_CAPABILITIES: u16 = 0x14;
const ATTENTION_BUTTON_PRESENT: u32 = 1 << 0;
const POWER_CONTROLLER_PRESENT: u32 = 1 << 1;
const LATCH_SENSOR_PRESENT: u32 = 1 << 2;
const ATTENTION_INDICATOR_PRESENT: u32 = 1 << 3;
const POWER_INDICATOR_PRESENT: u32 = 1 << 4;
const HOT_PLUG_SURPRISE: u32 = 1 << 5;
const HOT_PLUG_CAPABLE: u32 = 1 << 6;
const HOT_PLUG: u32 = ATTENTION_BUTTON_PRESENT
    | POWER_CONTROLLER_PRESENT
    | LATCH_SENSOR_PRESENT
    | ATTENTION_INDICATOR_PRESENT
    | POWER_INDICATOR_PRESENT
    | HOT_PLUG_SURPRISE
    | HOT_PLUG_CAPABLE;
/// 75 W in units of one watt, what a slot of a server gives.
const SLOT_POWER_LIMIT: u32 = 75 << 7;
const NO_COMMAND_COMPLETED: u32 = 1 << 18;
const SLOT_NUMBER_SHIFT: u32 = 19;
/// The physical slot number has 13 bits.
const SLOT_NUMBER_MAX: u16 = 0x1fff;

/// 16 bits (7.5.3.10). The enables of the first five events stand at the bits of the events.
pub(super) const SLOT_CONTROL: u16 = 0x18;
const EVENT_ENABLES: u16 = 0x1f;
const HOT_PLUG_INTERRUPT_ENABLE: u16 = 1 << 5;
const ATTENTION_INDICATOR_SHIFT: u16 = 6;
const POWER_INDICATOR_SHIFT: u16 = 8;
const INDICATOR_MASK: u16 = 3;
const POWER_OFF: u16 = 1 << 10;
const LINK_STATE_CHANGED_ENABLE: u16 = 1 << 12;
const CONTROL_WRITABLE: u16 = EVENT_ENABLES
    | HOT_PLUG_INTERRUPT_ENABLE
    | INDICATOR_MASK << ATTENTION_INDICATOR_SHIFT
    | INDICATOR_MASK << POWER_INDICATOR_SHIFT
    | POWER_OFF
    | LINK_STATE_CHANGED_ENABLE;

/// 16 bits (7.5.3.11): what happened, RW1C, and how latch and card are now, RO.
pub(super) const SLOT_STATUS: u16 = 0x1a;
const ATTENTION_BUTTON_PRESSED: u16 = 1 << 0;
const POWER_FAULT: u16 = 1 << 1;
const LATCH_CHANGED: u16 = 1 << 2;
const PRESENCE_CHANGED: u16 = 1 << 3;
const COMMAND_COMPLETED: u16 = 1 << 4;
const LATCH_OPEN: u16 = 1 << 5;
pub(super) const PRESENCE_DETECT: u16 = 1 << 6;
const LINK_STATE_CHANGED: u16 = 1 << 8;
const EVENTS: u16 = ATTENTION_BUTTON_PRESSED
    | POWER_FAULT
    | LATCH_CHANGED
    | PRESENCE_CHANGED
    | COMMAND_COMPLETED
    | LINK_STATE_CHANGED;

/// The slot behind a downstream port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Unique in the chassis, 1 to 8191.
    pub number: u16,
    /// Cards may come and go while the machine runs, announced or not; the slot has an attention button, a latch, both
    /// indicators and a power controller.
    pub hot_plug: bool,
}

/// What a light at the slot shows (7.5.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indicator {
    On,
    Blinking,
    Off,
}

impl Indicator {
    const fn code(self) -> u16 {
        match self {
            Self::On => 1,
            Self::Blinking => 2,
            Self::Off => 3,
        }
    }

    const fn from_code(code: u16) -> Self {
        match code & INDICATOR_MASK {
            1 => Self::On,
            2 => Self::Blinking,
            // 0 is reserved; a light that was told nothing is off.
            _ => Self::Off,
        }
    }
}

impl Slot {
    /// The slot registers of an empty slot.
    pub(super) fn define(self, registers: &mut Structure) {
        let number = u32::from(self.number.min(SLOT_NUMBER_MAX)) << SLOT_NUMBER_SHIFT;
        let (capabilities, control, events) = if self.hot_plug {
            (HOT_PLUG, CONTROL_WRITABLE, EVENTS)
        } else {
            (NO_COMMAND_COMPLETED, 0, 0)
        };
        registers
            .u32(
                SLOT_CAPABILITIES,
                capabilities | SLOT_POWER_LIMIT | number,
                0,
                0,
            )
            .u16(SLOT_CONTROL, 0, control, 0)
            .u16(SLOT_STATUS, 0, 0, events);
    }
}

/// The slot registers of a port whose PCI Express capability stands at an offset. All state is in configuration space.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRegisters(pub u16);

impl SlotRegisters {
    fn control(self, space: &ConfigSpace) -> u16 {
        space.u16(self.0 + SLOT_CONTROL)
    }

    fn status(self, space: &ConfigSpace) -> u16 {
        space.u16(self.0 + SLOT_STATUS)
    }

    /// Whether the slot takes part in hot-plug.
    pub fn is_hot_plug(self, space: &ConfigSpace) -> bool {
        space.u32(self.0 + SLOT_CAPABILITIES) & HOT_PLUG_CAPABLE != 0
    }

    /// Whether what is in the slot has power.
    pub fn is_powered(self, space: &ConfigSpace) -> bool {
        self.control(space) & POWER_OFF == 0
    }

    /// What the attention and the power indicator show.
    pub fn indicators(self, space: &ConfigSpace) -> (Indicator, Indicator) {
        let light = |shift: u16| Indicator::from_code(self.control(space) >> shift);
        (
            light(ATTENTION_INDICATOR_SHIFT),
            light(POWER_INDICATOR_SHIFT),
        )
    }

    /// Puts both registers into the state after reset with a card in the slot or without; power is on then (7.5.3.10).
    pub fn set_present(self, space: &mut ConfigSpace, present: bool) {
        let hot_plug = self.is_hot_plug(space);
        let (state, power) = match (present, hot_plug) {
            (true, _) => (PRESENCE_DETECT, Indicator::On),
            // Who took the card out has left the latch open.
            (false, true) => (LATCH_OPEN, Indicator::Off),
            (false, false) => (0, Indicator::Off),
        };
        space.init_u16(self.0 + SLOT_STATUS, state);
        if hot_plug {
            let lights = Indicator::Off.code() << ATTENTION_INDICATOR_SHIFT
                | power.code() << POWER_INDICATOR_SHIFT;
            space.init_u16(self.0 + SLOT_CONTROL, lights);
        }
    }

    /// Gives both registers back what software has set and has not cleared yet; `dword` is as they were.
    pub fn restore(self, space: &mut ConfigSpace, dword: u32) {
        let events = (dword >> 16) as u16 & EVENTS;
        let status = self.status(space) | events;
        space.set_u16(self.0 + SLOT_CONTROL, dword as u16);
        space.set_u16(self.0 + SLOT_STATUS, status);
    }

    /// The events of a card that came or went.
    pub fn card_changed(self, space: &mut ConfigSpace) {
        self.raise(space, PRESENCE_CHANGED | LATCH_CHANGED);
    }

    pub fn button_pressed(self, space: &mut ConfigSpace) {
        self.raise(space, ATTENTION_BUTTON_PRESSED);
    }

    pub fn link_changed(self, space: &mut ConfigSpace) {
        self.raise(space, LINK_STATE_CHANGED);
    }

    fn raise(self, space: &mut ConfigSpace, events: u16) {
        if self.is_hot_plug(space) {
            let status = self.status(space) | events;
            space.set_u16(self.0 + SLOT_STATUS, status);
        }
    }

    /// Follows a configuration write: each write to slot control is a command, and done at once (6.7.3.2). Says whether
    /// the power was switched, and to what.
    pub fn written(self, space: &mut ConfigSpace, written: &Written) -> Option<bool> {
        let control = self.0 + SLOT_CONTROL;
        if written.touches(control, 2) {
            self.raise(space, COMMAND_COMPLETED);
        }
        let off = u32::from(POWER_OFF);
        if written.raised(control, off) {
            Some(false)
        } else if written.cleared(control, off) {
            Some(true)
        } else {
            None
        }
    }

    /// Both registers as one dword, as [`wants_interrupt`] reads them.
    pub fn dword(self, space: &ConfigSpace) -> u32 {
        space.u32(self.0 + SLOT_CONTROL)
    }

    /// As [`dword`](Self::dword), before a write that may have been to it.
    pub fn dword_before(self, space: &ConfigSpace, written: &Written) -> u32 {
        if written.dword == self.0 + SLOT_CONTROL {
            written.before
        } else {
            self.dword(space)
        }
    }
}

/// Whether the condition for the hot-plug interrupt holds in slot control and status (6.7.3.4): the interrupt is sent when
/// this becomes true, and not again before it has been false.
pub(super) fn wants_interrupt(dword: u32) -> bool {
    let (control, status) = (dword as u16, (dword >> 16) as u16);
    let events = status & control & EVENT_ENABLES != 0
        || control & LINK_STATE_CHANGED_ENABLE != 0 && status & LINK_STATE_CHANGED != 0;
    control & HOT_PLUG_INTERRUPT_ENABLE != 0 && events
}

#[cfg(test)]
mod tests;
