//! The PCI Express capability, version 2 (7.5.3).

mod slot;

use crate::config::{ConfigSpace, Retention};
use crate::link::{Link, LinkSpeed};
use crate::spec::capability;
use crate::structure::Structure;
use crate::written::Written;

use slot::{SlotRegisters, wants_interrupt};

pub use slot::{Indicator, Slot};

/// Bytes of the capability, slot 2 registers included (7.5.3).
const LENGTH: u16 = 0x3c;

/// 16 bits, RO (7.5.3.2).
const CAPABILITIES: u16 = 0x02;
const CAPABILITY_VERSION: u16 = 2;
const DEVICE_PORT_TYPE_SHIFT: u16 = 4;
const SLOT_IMPLEMENTED: u16 = 1 << 8;
const INTERRUPT_SHIFT: u16 = 9;

/// 32 bits, RO (7.5.3.3).
const DEVICE_CAPABILITIES: u16 = 0x04;
const MAX_PAYLOAD_512: u32 = 2;
const EXTENDED_TAG: u32 = 1 << 5;
/// No limit to the L0s and L1 exit latency that an endpoint accepts.
const ANY_EXIT_LATENCY: u32 = 7 << 6 | 7 << 9;
const ROLE_BASED_ERROR_REPORTING: u32 = 1 << 15;
const FUNCTION_LEVEL_RESET: u32 = 1 << 28;

/// 16 bits (7.5.3.4).
pub(crate) const DEVICE_CONTROL: u16 = 0x08;
/// Reset value: relaxed ordering and no snoop allowed, 512-byte read requests.
const DEVICE_CONTROL_RESET: u16 = 1 << 4 | 1 << 11 | 2 << 12;
/// Error reporting enables, relaxed ordering, payload size, extended tag, no snoop, read request size.
const DEVICE_CONTROL_WRITABLE: u16 = 0xf | 1 << 4 | 7 << 5 | 1 << 8 | 1 << 11 | 7 << 12;
/// Reads as zero.
const INITIATE_FUNCTION_LEVEL_RESET: u32 = 1 << 15;

/// 16 bits (7.5.3.5): correctable, non-fatal, fatal error and unsupported request detected.
pub(crate) const DEVICE_STATUS: u16 = 0x0a;
const DEVICE_STATUS_ERRORS: u16 = 0xf;

/// 32 bits, RO (7.5.3.6): speed in 3:0, width in 9:4, port number in 31:24.
const LINK_CAPABILITIES: u16 = 0x0c;
const WIDTH_SHIFT: u16 = 4;
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
const BANDWIDTH_NOTIFICATION: u32 = 1 << 21;
const ASPM_OPTIONALITY: u32 = 1 << 22;
const PORT_NUMBER_SHIFT: u32 = 24;

/// 16 bits (7.5.3.7).
const LINK_CONTROL: u16 = 0x10;
/// ASPM control, common clock, extended synch.
const LINK_CONTROL_WRITABLE: u16 = 3 | 1 << 6 | 1 << 7;
const READ_COMPLETION_BOUNDARY: u16 = 1 << 3;
const LINK_DISABLE: u16 = 1 << 4;
/// Reads as zero.
const RETRAIN_LINK: u32 = 1 << 5;
const BANDWIDTH_INTERRUPT_ENABLE: u16 = 1 << 10;
const AUTONOMOUS_INTERRUPT_ENABLE: u16 = 1 << 11;

/// 16 bits (7.5.3.8): speed in 3:0, width in 9:4.
const LINK_STATUS: u16 = 0x12;
const SLOT_CLOCK: u16 = 1 << 12;
const LINK_ACTIVE: u16 = 1 << 13;
const BANDWIDTH_STATUS: u16 = 1 << 14;
const AUTONOMOUS_STATUS: u16 = 1 << 15;

/// 16 bits (7.5.3.12): system error on three severities, PME interrupt enable.
const ROOT_CONTROL: u16 = 0x1c;
const ROOT_CONTROL_WRITABLE: u16 = 0xf;
/// 32 bits (7.5.3.14).
const ROOT_STATUS: u16 = 0x20;
const PME_STATUS: u32 = 1 << 16;

/// 32 bits, RO (7.5.3.15).
const DEVICE_CAPABILITIES_2: u16 = 0x24;
const COMPLETION_TIMEOUT_DISABLE: u32 = 1 << 4;
const ARI_FORWARDING: u32 = 1 << 5;
const TEN_BIT_TAG_COMPLETER: u32 = 1 << 16;
/// 16 bits (7.5.3.16). The enables stand at the bits of what they enable in `DEVICE_CAPABILITIES_2`.
const DEVICE_CONTROL_2: u16 = 0x28;

/// 32 bits, RO (7.5.3.18): supported link speeds vector in 7:1.
const LINK_CAPABILITIES_2: u16 = 0x2c;
/// 16 bits (7.5.3.19).
const LINK_CONTROL_2: u16 = 0x30;
const TARGET_SPEED: u16 = 0xf;
/// 16 bits (7.5.3.20).
const LINK_STATUS_2: u16 = 0x32;
/// Equalization at 8 GT/s complete, all three phases successful.
const EQUALIZATION_DONE: u16 = 0xf << 1;
const EQUALIZATION_REQUEST: u16 = 1 << 5;

/// What kind of function the capability stands in (7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DevicePortType {
    Endpoint = 0,
    RootPort = 4,
    UpstreamPort = 5,
    DownstreamPort = 6,
    RootComplexEndpoint = 9,
}

impl DevicePortType {
    /// Whether there is a link on the secondary side, which this port controls.
    pub const fn is_downstream(self) -> bool {
        matches!(self, Self::RootPort | Self::DownstreamPort)
    }

    const fn is_endpoint(self) -> bool {
        matches!(self, Self::Endpoint | Self::RootComplexEndpoint)
    }
}

/// What a function's PCI Express capability is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressConfig {
    pub port_type: DevicePortType,
    /// The most that the link can do; `None` for a root complex integrated endpoint, which has no link.
    pub link: Option<Link>,
    /// Port number of the link capabilities. CXL host bridges and switches name their targets by it.
    pub port_number: u8,
    pub slot: Option<Slot>,
    /// MSI or MSI-X vector for hot-plug, power management and bandwidth events, 0 to 31.
    pub interrupt: u8,
}

impl ExpressConfig {
    pub const fn endpoint(link: Link) -> Self {
        Self {
            port_type: DevicePortType::Endpoint,
            link: Some(link),
            port_number: 0,
            slot: None,
            interrupt: 0,
        }
    }

    pub const fn root_complex_endpoint() -> Self {
        Self {
            port_type: DevicePortType::RootComplexEndpoint,
            link: None,
            port_number: 0,
            slot: None,
            interrupt: 0,
        }
    }

    /// A root port, or a port of a switch.
    pub const fn port(port_type: DevicePortType, link: Link, port_number: u8) -> Self {
        Self {
            port_type,
            link: Some(link),
            port_number,
            slot: None,
            interrupt: 0,
        }
    }
}

/// What a configuration write asks for beyond the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpressEvent {
    /// The driver wants the function to be reset (6.6.2).
    FunctionLevelReset,
    /// The port is to send its [interrupt](ExpressConfig::interrupt): the link trained anew, or something happened at the
    /// slot.
    Interrupt,
}

/// The PCI Express capability of one function.
#[derive(Clone, Copy, Debug)]
pub struct PciExpress {
    offset: u16,
    config: ExpressConfig,
    /// What the link trains to with what is at the other end; `None` if there is nothing.
    partner: Option<Link>,
}

impl PciExpress {
    /// Adds the capability. An endpoint or upstream port shows its link up at the best it can do; a downstream port
    /// shows it down until [`set_link`](Self::set_link).
    pub fn new(space: &mut ConfigSpace, config: ExpressConfig) -> Self {
        let mut registers = Structure::new(LENGTH);
        Self::define_device(&mut registers, &config);
        if let Some(link) = config.link {
            Self::define_link(&mut registers, &config, link);
        }
        if let Some(slot) = config.slot {
            slot.define(&mut registers);
        }
        if config.port_type == DevicePortType::RootPort {
            registers.u16(ROOT_CONTROL, 0, ROOT_CONTROL_WRITABLE, 0);
            registers.u32(ROOT_STATUS, 0, 0, PME_STATUS);
        }
        let offset = registers.add_to(space, capability::PCI_EXPRESS);
        // What belongs to the link is not the function's to lose (6.6.2); target speed is sticky.
        space.retain(offset + DEVICE_CONTROL, 2, Retention::FunctionLevel);
        space.retain(offset + LINK_CONTROL, 4, Retention::FunctionLevel);
        space.retain(offset + LINK_CONTROL_2, 2, Retention::Sticky);

        let mut express = Self {
            offset,
            config,
            partner: None,
        };
        express.set_link(
            space,
            config.link.filter(|_| !config.port_type.is_downstream()),
        );
        express
    }

    fn define_device(registers: &mut Structure, config: &ExpressConfig) {
        let kind = config.port_type;
        let mut capabilities = CAPABILITY_VERSION
            | (kind as u16) << DEVICE_PORT_TYPE_SHIFT
            | u16::from(config.interrupt & 0x1f) << INTERRUPT_SHIFT;
        if config.slot.is_some() {
            capabilities |= SLOT_IMPLEMENTED;
        }
        let mut device = MAX_PAYLOAD_512 | EXTENDED_TAG | ROLE_BASED_ERROR_REPORTING;
        let mut device_2 = 0;
        if kind.is_endpoint() {
            device |= FUNCTION_LEVEL_RESET;
        }
        if kind == DevicePortType::Endpoint {
            device |= ANY_EXIT_LATENCY;
        }
        if kind.is_endpoint() || kind == DevicePortType::RootPort {
            device_2 |= COMPLETION_TIMEOUT_DISABLE;
        }
        if kind.is_downstream() {
            device_2 |= ARI_FORWARDING;
        }
        let control_2 = device_2 as u16;
        // Demanded from 16 GT/s on (2.2.6.2).
        if config
            .link
            .is_some_and(|link| link.speed >= LinkSpeed::Gt16)
        {
            device_2 |= TEN_BIT_TAG_COMPLETER;
        }
        registers
            .u16(CAPABILITIES, capabilities, 0, 0)
            .u32(DEVICE_CAPABILITIES, device, 0, 0)
            .u16(
                DEVICE_CONTROL,
                DEVICE_CONTROL_RESET,
                DEVICE_CONTROL_WRITABLE,
                0,
            )
            .u16(DEVICE_STATUS, 0, 0, DEVICE_STATUS_ERRORS)
            .u32(DEVICE_CAPABILITIES_2, device_2, 0, 0)
            .u16(DEVICE_CONTROL_2, 0, control_2, 0);
    }

    fn define_link(registers: &mut Structure, config: &ExpressConfig, link: Link) {
        let speed = u32::from(link.speed.code());
        let mut capabilities = speed
            | u32::from(link.width.lanes()) << WIDTH_SHIFT
            | ASPM_OPTIONALITY
            | u32::from(config.port_number) << PORT_NUMBER_SHIFT;
        let mut control = LINK_CONTROL_WRITABLE;
        let mut changes = 0;
        if config.port_type.is_downstream() {
            capabilities |= LINK_ACTIVE_REPORTING | BANDWIDTH_NOTIFICATION;
            control |= LINK_DISABLE | BANDWIDTH_INTERRUPT_ENABLE | AUTONOMOUS_INTERRUPT_ENABLE;
            changes = BANDWIDTH_STATUS | AUTONOMOUS_STATUS;
        }
        if config.port_type == DevicePortType::Endpoint {
            control |= READ_COMPLETION_BOUNDARY;
        }
        registers
            .u32(LINK_CAPABILITIES, capabilities, 0, 0)
            .u16(LINK_CONTROL, 0, control, 0)
            .u16(LINK_STATUS, 0, 0, changes)
            .u32(LINK_CAPABILITIES_2, link.speed.vector() << 1, 0, 0)
            .u16(LINK_CONTROL_2, speed as u16, TARGET_SPEED, 0)
            .u16(LINK_STATUS_2, 0, 0, EQUALIZATION_REQUEST);
    }

    /// Offset of the capability in configuration space.
    pub fn offset(&self) -> u16 {
        self.offset
    }

    /// What the capability was made from.
    pub fn config(&self) -> &ExpressConfig {
        &self.config
    }

    /// What the link runs at; `None` while it is down.
    pub fn link(&self, space: &ConfigSpace) -> Option<Link> {
        let status = space.u16(self.offset + LINK_STATUS);
        let speed = LinkSpeed::from_code((status & TARGET_SPEED) as u8)?;
        let up = !self.config.port_type.is_downstream() || status & LINK_ACTIVE != 0;
        self.partner
            .filter(|_| up)
            .map(|link| Link { speed, ..link })
    }

    /// The state of the link as its ends made it: what it trained to, or `None` if there is nothing at the other end.
    /// A slot shows a card present exactly while there is something. Holds over resets.
    pub fn set_link(&mut self, space: &mut ConfigSpace, partner: Option<Link>) {
        self.partner = match (self.config.link, partner) {
            (Some(most), Some(link)) => Some(most.negotiate(link)),
            _ => None,
        };
        if let Some(most) = self.config.link {
            let done = self.partner.is_some() && most.speed >= LinkSpeed::Gt8;
            space.init_u16(
                self.offset + LINK_STATUS_2,
                if done { EQUALIZATION_DONE } else { 0 },
            );
            space.init_u16(self.offset + LINK_STATUS, self.status_of(self.partner));
        }
        if self.config.slot.is_some() {
            self.slot().set_present(space, self.partner.is_some());
        }
    }

    /// The link status register for a link in this state; a link that is down shows 2.5 GT/s and no lanes.
    fn status_of(&self, link: Option<Link>) -> u16 {
        let Some(link) = link else {
            return SLOT_CLOCK | u16::from(LinkSpeed::Gt2_5.code());
        };
        let active = if self.config.port_type.is_downstream() {
            LINK_ACTIVE
        } else {
            0
        };
        let width = u16::from(link.width.lanes()) << WIDTH_SHIFT;
        SLOT_CLOCK | active | width | u16::from(link.speed.code())
    }

    /// Follows a configuration write. The link of a downstream port goes down and up with Link Disable and with the power of
    /// its slot, and changes its speed to the target with Retrain Link.
    pub fn written(&self, space: &mut ConfigSpace, written: &Written) -> Option<ExpressEvent> {
        let reset = written.data(self.offset + DEVICE_CONTROL) & INITIATE_FUNCTION_LEVEL_RESET != 0;
        if reset && self.config.port_type.is_endpoint() {
            return Some(ExpressEvent::FunctionLevelReset);
        }
        if !self.config.port_type.is_downstream() {
            return None;
        }
        let before = self.slot().dword_before(space, written);
        let trained = self.link_written(space, written);
        if let Some(powered) = self.slot().written(space, written) {
            let link = self.partner.filter(|_| powered && self.may_train(space));
            self.show_link(space, link);
        }
        (trained || self.becomes_loud(space, before)).then_some(ExpressEvent::Interrupt)
    }

    /// Follows a write to link control. True if the port is to send its interrupt for it.
    fn link_written(&self, space: &mut ConfigSpace, written: &Written) -> bool {
        let control = self.offset + LINK_CONTROL;
        if written.raised(control, u32::from(LINK_DISABLE)) {
            self.show_link(space, None);
        }
        let retrain = written.data(control) & RETRAIN_LINK != 0
            || written.cleared(control, u32::from(LINK_DISABLE));
        retrain && self.may_train(space) && self.train(space)
    }

    /// Trains the link at the target speed (7.5.3.19); completes at once. True if software wants an interrupt for it.
    fn train(&self, space: &mut ConfigSpace) -> bool {
        let Some(most) = self.partner else {
            return false;
        };
        let target = space.u16(self.offset + LINK_CONTROL_2) & TARGET_SPEED;
        let speed = LinkSpeed::from_code(target as u8)
            .unwrap_or(most.speed)
            .min(most.speed);
        self.show_link(space, Some(Link { speed, ..most }));
        let status = space.u16(self.offset + LINK_STATUS) | BANDWIDTH_STATUS;
        space.set_u16(self.offset + LINK_STATUS, status);
        space.u16(self.offset + LINK_CONTROL) & BANDWIDTH_INTERRUPT_ENABLE != 0
    }

    /// Asserts or deasserts the reset of what is at the other end, beside what software does with its registers: the link goes
    /// down, or trains again. Says what the port is to send.
    pub fn hold_partner(&self, space: &mut ConfigSpace, held: bool) -> Option<ExpressEvent> {
        let before = self.slot().dword(space);
        space.hold_secondary(held);
        self.show_link(space, self.partner.filter(|_| self.may_train(space)));
        self.becomes_loud(space, before)
            .then_some(ExpressEvent::Interrupt)
    }

    /// Whether nothing keeps the link down that there could be.
    fn may_train(&self, space: &ConfigSpace) -> bool {
        !space.is_secondary_held()
            && !is_link_disabled(space, self.offset)
            && self.slot().is_powered(space)
    }

    /// Brings the link up or takes it down, which a slot with hot-plug tells (7.5.3.11, Data Link Layer State Changed).
    fn show_link(&self, space: &mut ConfigSpace, link: Option<Link>) {
        let before = space.u16(self.offset + LINK_STATUS);
        let status = self.status_of(link);
        space.set_u16(self.offset + LINK_STATUS, status);
        if (before ^ status) & LINK_ACTIVE != 0 {
            self.slot().link_changed(space);
        }
    }
}

/// What happens at the slot of a downstream port (6.7).
impl PciExpress {
    fn slot(&self) -> SlotRegisters {
        SlotRegisters(self.offset)
    }

    /// Whether the condition for the hot-plug interrupt has come to hold.
    fn becomes_loud(&self, space: &ConfigSpace, before: u32) -> bool {
        !wants_interrupt(before) && wants_interrupt(self.slot().dword(space))
    }

    /// A card that can do `card` goes into the slot, or whatever is in it comes out, announced or not. The latch is closed
    /// over a card and open without one. Says what the port is to send.
    pub fn change_card(
        &mut self,
        space: &mut ConfigSpace,
        card: Option<Link>,
    ) -> Option<ExpressEvent> {
        let before = self.slot().dword(space);
        let active = space.u16(self.offset + LINK_STATUS);
        self.set_link(space, card);
        self.slot().restore(space, before);
        let link = self.partner.filter(|_| self.may_train(space));
        space.set_u16(self.offset + LINK_STATUS, active);
        self.show_link(space, link);
        self.slot().card_changed(space);
        self.becomes_loud(space, before)
            .then_some(ExpressEvent::Interrupt)
    }

    /// Somebody presses the attention button, to ask for power on or off.
    pub fn press_attention_button(&self, space: &mut ConfigSpace) -> Option<ExpressEvent> {
        let before = self.slot().dword(space);
        self.slot().button_pressed(space);
        self.becomes_loud(space, before)
            .then_some(ExpressEvent::Interrupt)
    }

    /// Whether software gives the slot power; one without a power controller always has it.
    pub fn is_slot_powered(&self, space: &ConfigSpace) -> bool {
        self.slot().is_powered(space)
    }

    /// Link Control, Slot Control and Slot Status as they are (7.5.3.7, 7.5.3.10 and 7.5.3.11).
    pub fn control_and_status(&self, space: &ConfigSpace) -> [u16; 3] {
        let registers = [LINK_CONTROL, slot::SLOT_CONTROL, slot::SLOT_STATUS];
        registers.map(|register| space.u16(self.offset + register))
    }

    /// What the attention and the power indicator of the slot show.
    pub fn indicators(&self, space: &ConfigSpace) -> (Indicator, Indicator) {
        self.slot().indicators(space)
    }
}

/// Whether the port whose capability stands at `offset` has its link disabled by software.
pub(crate) fn is_link_disabled(space: &ConfigSpace, offset: u16) -> bool {
    space.u16(offset + LINK_CONTROL) & LINK_DISABLE != 0
}

/// Whether the port whose capability stands at `offset` gives power to what is behind it.
pub(crate) fn is_powered(space: &ConfigSpace, offset: u16) -> bool {
    SlotRegisters(offset).is_powered(space)
}

#[cfg(test)]
mod tests;
