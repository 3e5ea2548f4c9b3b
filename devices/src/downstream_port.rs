//! A CXL downstream port, root port or downstream port of a switch: the bridge function that leads to one device or switch
//! (CXL 3.1 sections 8.1, 9.12.1).
//!
//! It decodes no CXL.mem address itself: the HDM decoders of the host bridge or upstream port above it name it by its port
//! number, and what they send to it goes down its link.

use std::mem;

use cxl::cci::{Binding, LinkState, PortRegisters, UnbindOption};
use cxl::component::ProtocolError;
use cxl::dvsec::device::GpfTimeout;
use cxl::dvsec::{self, RegisterBlockId, RegisterLocation};
use cxl::gpf::Timeouts;
use cxl::{ComponentRegisters, Role};
use pci::{
    Aer, AerError, Bar, Bdf, ConfigSpace, DevicePortType, ErrorMessage, ExpressConfig,
    ExpressEvent, Function, Ids, Indicator, Link, Msi, PciExpress, ResetKind, Slot,
};

use crate::Effect;
use crate::cxl_config::{add_dvsec, link_state, memory_link, report};

/// Where a downstream port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownstreamPortKind {
    /// Below a host bridge.
    Root,
    /// On the far side of a switch.
    Switch,
}

impl DownstreamPortKind {
    /// The ids that emulated CXL ports carry, so that existing scripts find ours: Intel's for root ports, Huawei's for
    /// switches.
    fn ids(self) -> Ids {
        let (vendor, device) = match self {
            Self::Root => (0x8086, 0x7075),
            Self::Switch => (0x19e5, 0xa129),
        };
        Ids {
            vendor,
            device,
            revision: 0,
            class: 0x06_0400,
            subsystem_vendor: 0,
            subsystem: 0,
        }
    }

    fn port_type(self) -> DevicePortType {
        match self {
            Self::Root => DevicePortType::RootPort,
            Self::Switch => DevicePortType::DownstreamPort,
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Root => Role::RootPort,
            Self::Switch => Role::DownstreamSwitchPort,
        }
    }
}

/// The BAR with the component registers, as the register locator says.
const COMPONENT_BAR: u8 = 0;
/// The one interrupt vector: power management, hot-plug and errors.
const VECTOR: u8 = 0;
/// How long a slot has been off before a card is put into it: as long as software waits once it has taken the power away (PCI
/// Express 6.7.1.8), and does not see what comes meanwhile.
const REST: u64 = 1_000_000_000;
/// How long the port waits in each phase of a global persistent flush: 1 s.
const GPF_TIMEOUT: GpfTimeout = GpfTimeout { base: 1, scale: 6 };

/// What makes one downstream port differ from another.
#[derive(Clone, Debug)]
pub struct DownstreamPortConfig {
    /// Its name in the configuration and on the control socket.
    pub name: String,
    /// Of a host bridge or of a switch.
    pub kind: DownstreamPortKind,
    /// Port number, by which HDM decoders name it; unique below its host bridge or in its switch.
    pub port_number: u8,
    /// The best its link can do.
    pub link: Link,
    /// Number of its slot with hot-plug, 1 to 8191, unique in the machine; `None` if what is behind it can be neither added
    /// nor removed.
    pub slot: Option<u16>,
}

/// How the slot of a port is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Its number in the machine.
    pub number: u16,
    /// Software gives it power.
    pub powered: bool,
    /// What the attention indicator shows.
    pub attention: Indicator,
    /// What the power indicator shows.
    pub power: Indicator,
}

/// How the physical port of a switch and the bridge that the host sees belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    Bound,
    /// Once the slot is on, or has been off for long enough.
    Coming,
    /// Until what the option says has happened.
    Until(UnbindOption),
    Unbound,
}

/// The alarm of a slot's rest. However often software switches the lights, the port has asked for one at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    NoAlarm,
    /// Whoever rings finds a slot that has rested.
    Whole,
    /// The rest began anew since the alarm was set: whoever rings comes too early.
    Interrupted,
}

/// A root port, or a downstream port of a switch.
pub struct DownstreamPort {
    name: String,
    kind: DownstreamPortKind,
    port_number: u8,
    /// The best its link can do.
    most: Link,
    /// What is at the other end of the link, whether the host sees it or not, and what that can do.
    card: Option<Link>,
    /// A fabric manager holds it in reset.
    held: bool,
    bond: Bond,
    rest: Rest,
    config: ConfigSpace,
    express: PciExpress,
    aer: Aer,
    msi: Msi,
    component: ComponentRegisters,
    /// Offset of its GPF DVSEC.
    gpf: u16,
}

impl DownstreamPort {
    /// A port with its link down.
    ///
    /// # Errors
    /// None for a downstream port; the signature is that of every component.
    pub fn new(port: DownstreamPortConfig) -> Result<Self, cxl::Error> {
        let port_type = port.kind.port_type();
        let mut config = ConfigSpace::bridge(port.kind.ids());
        config.add_bar(COMPONENT_BAR, Bar::memory64(ComponentRegisters::SIZE));
        pci::add_power_management(&mut config);
        let msi = Msi::new(&mut config, 1);
        let express = PciExpress::new(
            &mut config,
            ExpressConfig {
                interrupt: VECTOR,
                slot: port.slot.map(|number| Slot {
                    number,
                    hot_plug: true,
                }),
                ..ExpressConfig::port(port_type, port.link, port.port_number)
            },
        );
        let aer = Aer::new(&mut config, port_type, VECTOR);
        pci::add_acs(&mut config);
        pci::add_link_capabilities(&mut config, port_type, port.link);
        add_dvsec(&mut config, &dvsec::port::extensions());
        let gpf = dvsec::port::gpf(GPF_TIMEOUT, GPF_TIMEOUT);
        let gpf = add_dvsec(&mut config, &gpf);
        for dvsec in [
            dvsec::port::flex_bus(memory_link(), memory_link()),
            dvsec::register_locator(&[RegisterLocation {
                block: RegisterBlockId::Component,
                bar: COMPONENT_BAR,
                offset: 0,
            }]),
        ] {
            add_dvsec(&mut config, &dvsec);
        }
        Ok(Self {
            name: port.name,
            kind: port.kind,
            port_number: port.port_number,
            most: port.link,
            card: None,
            held: false,
            bond: Bond::Bound,
            rest: Rest::NoAlarm,
            config,
            express,
            aer,
            msi,
            component: ComponentRegisters::new(&port.kind.role())?,
            gpf,
        })
    }

    /// How long it waits in a global persistent flush, as software has set it.
    pub fn gpf_timeouts(&self) -> Timeouts {
        let [phase1, phase2] = dvsec::port::GPF_CONTROLS.map(|at| self.config.u16(self.gpf + at));
        Timeouts::from_controls(phase1, phase2)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of a host bridge or of a switch.
    pub fn kind(&self) -> DownstreamPortKind {
        self.kind
    }

    /// Port number, by which HDM decoders name it.
    pub fn port_number(&self) -> u8 {
        self.port_number
    }

    /// Meets an error on CXL.cache or CXL.mem.
    pub fn protocol_error(&mut self, error: ProtocolError, out: &mut Vec<Effect>) {
        report(&mut self.component, &self.aer, &mut self.config, error, out);
    }

    /// Reports an error of PCI Express.
    pub(crate) fn report(&mut self, error: AerError, out: &mut Vec<Effect>) {
        let message = self.aer.report(&mut self.config, error);
        out.extend(message.map(Effect::Error));
    }

    /// Its component registers.
    pub fn component(&self) -> &ComponentRegisters {
        &self.component
    }

    /// A root port takes the message of a function below it, or its own.
    pub fn receive(&mut self, message: ErrorMessage, source: Bdf, out: &mut Vec<Effect>) {
        if self.kind == DownstreamPortKind::Root
            && self.aer.receive(&mut self.config, message, source)
        {
            let message = self.msi.trigger(&mut self.config, VECTOR);
            out.extend(message.map(|message| pci::Effect::Msi(message).into()));
        }
    }

    /// The state of its link; `None` while there is nothing at the other end.
    pub fn link(&self) -> Option<Link> {
        self.express.link(&self.config)
    }

    /// The state of its link for a fabric manager, with something at the other end or not.
    pub(crate) fn link_state(&self, is_present: bool) -> LinkState {
        let link = match self.is_hosts() {
            true => self.link(),
            false => self.card.filter(|_| !self.held),
        };
        LinkState {
            in_reset: self.held,
            is_present,
            is_off: self.is_hosts() && !self.express.is_slot_powered(&self.config),
            ..link_state(self.most, link.map(|link| self.most.negotiate(link)))
        }
    }

    /// Registers that its switch's event records repeat.
    pub(crate) fn registers(&self) -> PortRegisters {
        let [link_control, slot_control, slot_status] =
            self.express.control_and_status(&self.config);
        PortRegisters {
            link_control,
            slot_control,
            slot_status,
        }
    }

    /// Holds what is at the other end of the link in reset, or lets it go. Its own reset is the caller's.
    pub(crate) fn hold(&mut self, held: bool, out: &mut Vec<Effect>) {
        self.held = held;
        let keeps_back = held || !self.is_hosts();
        let event = self.express.hold_partner(&mut self.config, keeps_back);
        self.send(event, out);
        self.unbind_if_due(out);
        out.push(Effect::PortChanged);
    }

    /// Trains the link with what the device at the other end can do.
    pub fn connect(&mut self, device: Link) {
        self.card = Some(device);
        self.express.set_link(&mut self.config, Some(device));
    }

    fn send(&mut self, event: Option<ExpressEvent>, out: &mut Vec<Effect>) {
        if event == Some(ExpressEvent::Interrupt) {
            let message = self.msi.trigger(&mut self.config, VECTOR);
            out.extend(message.map(|message| pci::Effect::Msi(message).into()));
        }
    }
}

/// The slot, for whoever stands in front of it.
impl DownstreamPort {
    /// How the slot is; `None` if the port has none with hot-plug.
    pub fn slot(&self) -> Option<SlotState> {
        let slot = self.express.config().slot?;
        let (attention, power) = self.express.indicators(&self.config);
        Some(SlotState {
            number: slot.number,
            powered: self.express.is_slot_powered(&self.config),
            attention,
            power,
        })
    }

    /// A card that can do `card` goes into the slot, or what is in it comes out, whether software agrees or not.
    pub fn change_card(&mut self, card: Option<Link>, out: &mut Vec<Effect>) {
        self.card = card;
        if self.is_hosts() {
            self.show_card(card, out);
            self.unbind_if_due(out);
        }
        out.push(Effect::PortChanged);
    }

    fn show_card(&mut self, card: Option<Link>, out: &mut Vec<Effect>) {
        let event = self.express.change_card(&mut self.config, card);
        self.send(event, out);
    }

    /// Somebody presses the attention button: asks software to switch the slot on or off.
    pub fn press_attention_button(&mut self, out: &mut Vec<Effect>) {
        if self.is_hosts() {
            let event = self.express.press_attention_button(&mut self.config);
            self.send(event, out);
        }
    }
}

/// The bond of a switch's port, for its fabric manager.
impl DownstreamPort {
    /// Whether the host has what is behind the port.
    pub(crate) fn binding(&self) -> Binding {
        match self.bond {
            Bond::Bound => Binding::Bound,
            Bond::Coming => Binding::BeingBound,
            Bond::Until(_) => Binding::Unbinding,
            Bond::Unbound => Binding::Unbound,
        }
    }

    /// Whether what happens at the port happens to the host.
    pub(crate) fn is_hosts(&self) -> bool {
        matches!(self.bond, Bond::Bound | Bond::Until(_))
    }

    /// Shows the host what is at the other end: puts it into the slot, and presses the button if the slot is off, since the
    /// link cannot tell then. A slot that software is just switching off is left alone until that is done.
    pub(crate) fn bind(&mut self, out: &mut Vec<Effect>) {
        self.bond = Bond::Coming;
        let is_on = self.express.is_slot_powered(&self.config);
        if is_on || self.card.is_none() {
            self.come(out);
        } else if self.may_be_filled() {
            self.begin_rest(out);
        }
    }

    fn begin_rest(&mut self, out: &mut Vec<Effect>) {
        self.rest = match self.rest {
            Rest::NoAlarm => {
                out.push(Effect::Alarm { after: REST });
                Rest::Whole
            }
            Rest::Whole | Rest::Interrupted => Rest::Interrupted,
        };
    }

    /// Whether the power indicator says that cards may be put in or taken out (PCI Express 6.7.1.1.2).
    fn may_be_filled(&self) -> bool {
        self.express.indicators(&self.config).1 == Indicator::Off
    }

    fn come(&mut self, out: &mut Vec<Effect>) {
        self.bond = Bond::Bound;
        self.config.hold_secondary(self.held);
        if self.card.is_some() {
            self.show_card(self.card, out);
            if !self.express.is_slot_powered(&self.config) {
                self.press_attention_button(out);
            }
        }
        out.push(Effect::PortChanged);
    }

    /// The slot has had its rest, unless software has done something to it meanwhile: see [`Effect::Alarm`].
    pub(crate) fn advance(&mut self, out: &mut Vec<Effect>) {
        let rest = mem::take(&mut self.rest);
        if self.bond == Bond::Coming && self.may_be_filled() {
            match rest {
                Rest::NoAlarm => {}
                Rest::Whole => self.come(out),
                Rest::Interrupted => self.begin_rest(out),
            }
        }
    }

    /// Takes what is at the other end from the host, once the option allows it. Its reset is the caller's, if it is unbound
    /// at once; whatever the option waits for is a reset.
    pub(crate) fn unbind(&mut self, option: UnbindOption, out: &mut Vec<Effect>) {
        if !self.is_hosts() {
            self.bond = Bond::Unbound;
            out.push(Effect::PortChanged);
            return;
        }
        self.bond = Bond::Until(option);
        if option == UnbindOption::ManagedHotRemove && !self.is_let_go(option) {
            self.press_attention_button(out);
        }
        self.unbind_if_due(out);
    }

    /// Whether what the option waits for has happened.
    fn is_let_go(&self, option: UnbindOption) -> bool {
        match option {
            UnbindOption::LinkDown => self.link().is_none(),
            UnbindOption::ManagedHotRemove => {
                self.card.is_none() || !self.express.is_slot_powered(&self.config)
            }
            UnbindOption::SurpriseHotRemove => true,
        }
    }

    fn unbind_if_due(&mut self, out: &mut Vec<Effect>) {
        if let Bond::Until(option) = self.bond
            && self.is_let_go(option)
        {
            self.bond = Bond::Unbound;
            self.config.hold_secondary(true);
            if self.card.is_some() {
                self.show_card(None, out);
            }
            out.push(Effect::PortChanged);
        }
    }
}

impl Function for DownstreamPort {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let powered = self.express.is_slot_powered(&self.config);
        let may_be_filled = self.may_be_filled();
        let Some(written) = self.config.write(offset, data, out) else {
            return;
        };
        self.msi.written(&mut self.config, &written, out);
        let event = self.express.written(&mut self.config, &written);
        self.send(event, out);
        if self.express.is_slot_powered(&self.config) != powered {
            out.extend([Effect::SlotPowerChanged, Effect::PortChanged]);
        }
        if self.bond == Bond::Coming {
            if self.express.is_slot_powered(&self.config) {
                self.come(out);
            } else if self.may_be_filled() && !may_be_filled {
                self.begin_rest(out);
            }
        }
        self.unbind_if_due(out);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _: &mut Vec<Effect>) {
        match bar {
            COMPONENT_BAR => self.component.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], _: &mut Vec<Effect>) {
        if bar == COMPONENT_BAR {
            // A downstream port has no decoders, so its registers ask for nothing.
            self.component.write(offset, data, &mut Vec::new());
        }
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.config.reset(kind);
        if self.config.is_secondary_held() {
            // The reset values are those of a link that is up. After a reset, software wants no interrupt.
            self.express.hold_partner(&mut self.config, true);
        }
        // A slot has power after a reset.
        if self.bond == Bond::Coming {
            self.come(out);
        }
        self.component.reset(&mut Vec::new());
        out.push(pci::Effect::BarsChanged.into());
    }
}
