//! A slot with hot-plug, as its driver and the person in front of it see it.

use super::*;
use crate::express::{DevicePortType, ExpressConfig, ExpressEvent, PciExpress};
use crate::link::{Link, LinkSpeed, LinkWidth};
use crate::testing::{ids, read_u16, write_u16};
use crate::{Effect, ResetKind};

const LINK_CONTROL: u16 = 0x10;
const LINK_DISABLE: u16 = 1 << 4;
const CARD: Link = Link {
    speed: LinkSpeed::Gt32,
    width: LinkWidth::X8,
};
/// All that Linux's driver enables for a slot with a button: button, command completed, interrupt, link state.
const LISTENING: u16 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 12;

struct Port {
    space: ConfigSpace,
    express: PciExpress,
}

impl Port {
    /// A root port whose slot is empty.
    fn new() -> Self {
        let mut space = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        let express = PciExpress::new(
            &mut space,
            ExpressConfig {
                slot: Some(Slot {
                    number: 3,
                    hot_plug: true,
                }),
                ..ExpressConfig::port(DevicePortType::RootPort, CARD, 0)
            },
        );
        Self { space, express }
    }

    /// The same with the driver's enables set and the power off, and nothing to tell.
    fn listening() -> Self {
        let mut port = Self::new();
        port.command(LISTENING | POWER_OFF);
        port.clear();
        port
    }

    fn write(&mut self, register: u16, value: u16) -> Option<ExpressEvent> {
        let at = self.express.offset() + register;
        let mut out: Vec<Effect> = Vec::new();
        let written = self.space.write(at, &value.to_le_bytes(), &mut out)?;
        self.express.written(&mut self.space, &written)
    }

    fn command(&mut self, control: u16) -> Option<ExpressEvent> {
        self.write(SLOT_CONTROL, control)
    }

    fn clear(&mut self) -> Option<ExpressEvent> {
        self.write(SLOT_STATUS, u16::MAX)
    }

    fn insert(&mut self) -> Option<ExpressEvent> {
        self.express.change_card(&mut self.space, Some(CARD))
    }

    fn pull_out(&mut self) -> Option<ExpressEvent> {
        self.express.change_card(&mut self.space, None)
    }

    fn press(&mut self) -> Option<ExpressEvent> {
        self.express.press_attention_button(&mut self.space)
    }

    fn status(&self) -> u16 {
        read_u16(&self.space, self.express.offset() + SLOT_STATUS)
    }

    fn is_up(&self) -> bool {
        self.express.link(&self.space).is_some()
    }
}

const INTERRUPT: Option<ExpressEvent> = Some(ExpressEvent::Interrupt);

#[test]
fn an_empty_slot_has_an_open_latch_and_dark_lights() {
    let port = Port::new();
    assert_eq!(port.status(), LATCH_OPEN);
    assert!(
        port.express.is_slot_powered(&port.space),
        "as after any reset"
    );
    assert_eq!(
        port.express.indicators(&port.space),
        (Indicator::Off, Indicator::Off)
    );
}

#[test]
fn a_card_in_a_powered_slot_trains_at_once_and_is_told_of() {
    let mut port = Port::new();
    assert_eq!(port.insert(), None, "nobody listens");
    assert_eq!(
        port.status(),
        PRESENCE_DETECT | PRESENCE_CHANGED | LATCH_CHANGED | LINK_STATE_CHANGED
    );
    assert!(port.is_up());
}

#[test]
fn a_card_in_a_dark_slot_waits_for_power() {
    let mut port = Port::listening();
    assert_eq!(
        port.insert(),
        None,
        "presence alone was not to be told: the button will be pressed"
    );
    assert_eq!(
        port.status(),
        PRESENCE_DETECT | PRESENCE_CHANGED | LATCH_CHANGED
    );
    assert!(!port.is_up() && !port.space.is_secondary_reachable());
    assert_eq!(port.press(), INTERRUPT);

    port.clear();
    assert_eq!(
        port.command(LISTENING),
        INTERRUPT,
        "done, and the link is up"
    );
    assert_eq!(
        port.status(),
        PRESENCE_DETECT | COMMAND_COMPLETED | LINK_STATE_CHANGED
    );
    assert!(port.is_up() && port.space.is_secondary_reachable());
}

#[test]
fn power_off_takes_the_link_down_and_resets_the_card() {
    let mut port = Port::new();
    port.insert();
    port.clear();
    assert_eq!(port.space.secondary_reset(), None);
    port.command(POWER_OFF);
    assert!(!port.is_up());
    assert_eq!(
        port.space.secondary_reset(),
        Some(ResetKind::Conventional),
        "a power cycle"
    );
    assert_eq!(
        port.status(),
        PRESENCE_DETECT | COMMAND_COMPLETED | LINK_STATE_CHANGED
    );
}

#[test]
fn a_card_that_is_pulled_out_takes_the_link_with_it() {
    let mut port = Port::new();
    port.insert();
    port.command(LISTENING);
    port.clear();
    assert_eq!(port.pull_out(), INTERRUPT, "for the link");
    assert!(!port.is_up());
    assert_eq!(
        port.status(),
        LATCH_OPEN | PRESENCE_CHANGED | LATCH_CHANGED | LINK_STATE_CHANGED
    );
    assert!(
        port.express.is_slot_powered(&port.space),
        "software has not switched it off"
    );
}

#[test]
fn events_that_wait_are_not_told_twice() {
    let mut port = Port::listening();
    assert_eq!(port.press(), INTERRUPT);
    assert_eq!(port.press(), None);
    assert_eq!(port.insert(), None);
    assert_eq!(port.command(LISTENING), None, "one is still pending");
    assert_eq!(port.clear(), None);
    assert_eq!(port.press(), INTERRUPT, "again after all were cleared");
}

#[test]
fn enabling_the_interrupt_tells_what_has_happened_before() {
    let mut port = Port::new();
    port.press();
    let button_alone = 1 << 0;
    assert_eq!(port.command(button_alone), None, "the interrupt is off");
    assert_eq!(
        port.command(button_alone | HOT_PLUG_INTERRUPT_ENABLE),
        INTERRUPT
    );
}

#[test]
fn every_write_to_slot_control_is_a_command_that_completes() {
    let mut port = Port::new();
    port.command(0);
    assert_eq!(port.status() & COMMAND_COMPLETED, COMMAND_COMPLETED);
    port.clear();
    assert_eq!(port.status() & COMMAND_COMPLETED, 0);
    let blinking = 2 << ATTENTION_INDICATOR_SHIFT | 1 << POWER_INDICATOR_SHIFT;
    port.command(blinking);
    assert_eq!(
        port.express.indicators(&port.space),
        (Indicator::Blinking, Indicator::On)
    );
}

#[test]
fn a_disabled_link_stays_down_whatever_comes_into_the_slot() {
    let mut port = Port::new();
    port.write(LINK_CONTROL, LINK_DISABLE);
    port.insert();
    assert!(!port.is_up());
    assert_eq!(port.space.secondary_reset(), Some(ResetKind::SecondaryBus));
    port.command(POWER_OFF);
    port.write(LINK_CONTROL, 0);
    assert!(!port.is_up(), "enabled, but without power");
    port.command(0);
    assert!(port.is_up());
}

#[test]
fn a_reset_finds_the_card_that_is_there() {
    let mut port = Port::listening();
    port.insert();
    port.space.reset(ResetKind::Conventional);
    assert_eq!(port.status(), PRESENCE_DETECT);
    assert!(port.is_up() && port.express.is_slot_powered(&port.space));
    port.pull_out();
    port.space.reset(ResetKind::Conventional);
    assert_eq!(port.status(), LATCH_OPEN);
    assert!(!port.is_up());
}

#[test]
fn a_slot_without_hot_plug_tells_nothing() {
    let mut space = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    let slot = Slot {
        number: 1,
        hot_plug: false,
    };
    let mut express = PciExpress::new(
        &mut space,
        ExpressConfig {
            slot: Some(slot),
            ..ExpressConfig::port(DevicePortType::RootPort, CARD, 0)
        },
    );
    write_u16(&mut space, express.offset() + SLOT_CONTROL, u16::MAX);
    assert_eq!(read_u16(&space, express.offset() + SLOT_CONTROL), 0);
    assert_eq!(express.change_card(&mut space, Some(CARD)), None);
    assert_eq!(
        read_u16(&space, express.offset() + SLOT_STATUS),
        PRESENCE_DETECT
    );
}
