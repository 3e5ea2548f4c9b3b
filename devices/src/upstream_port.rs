//! The upstream port of a CXL switch: the bridge function below which the switch's downstream ports stand (CXL 3.1 sections
//! 7.2, 8.1; PCIe 6.0 section 1.3.3).
//!
//! It has the switch's HDM decoders, whose target lists name downstream ports by their port numbers; a commit shows in
//! [`Effect::DecodersChanged`]. Its CDAT tells what the way through the switch costs.

use cxl::cci::LinkState;
use cxl::cdat::Performance;
use cxl::component::ProtocolError;
use cxl::dvsec::{self, RegisterBlockId, RegisterLocation};
use cxl::hdm::DecoderSettings;
use cxl::memdev::Clock;
use cxl::{ComponentRegisters, Role};
use pci::{
    Aer, Bar, ConfigSpace, DevicePortType, ExpressConfig, Function, Ids, Link, PciExpress,
    ResetKind,
};

use crate::Effect;
use crate::cdat::CdatMailbox;
use crate::cxl_config::{add_dvsec, link_state, memory_link, report};
use crate::switch_cci::{SwitchCci, SwitchCciConfig};

/// The ids that emulated CXL switches carry, so that existing scripts find ours.
const IDS: Ids = Ids {
    vendor: 0x19e5,
    device: 0xa128,
    revision: 0,
    class: 0x06_0400,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// The BAR with the component registers, as the register locator says.
const COMPONENT_BAR: u8 = 0;
/// The port number of the upstream link: no downstream port has it.
pub(crate) const PORT_NUMBER: u8 = 0xff;
/// Message number of the errors, which an upstream port reports with messages up its link.
const NO_VECTOR: u8 = 0;

/// What makes one switch differ from another.
#[derive(Clone, Debug)]
pub struct UpstreamPortConfig {
    /// The switch's name in the configuration and on the control socket.
    pub name: String,
    /// Device serial number; `None`: it has none.
    pub serial: Option<u64>,
    /// The best its upstream link can do.
    pub link: Link,
    /// Port numbers of its downstream ports.
    pub ports: Vec<u8>,
    /// HDM decoders: 1, 2, 4, 6, 8 or 10.
    pub decoders: usize,
    /// What its CDAT tells of the way through the switch.
    pub performance: Performance,
}

/// The upstream port of a switch.
pub struct UpstreamPort {
    name: String,
    serial: Option<u64>,
    /// The best its link can do.
    most: Link,
    decoders: usize,
    config: ConfigSpace,
    express: PciExpress,
    aer: Aer,
    cdat: CdatMailbox,
    component: ComponentRegisters,
    /// Effects of the component registers, before they are turned into ours.
    scratch: Vec<cxl::Effect>,
}

impl UpstreamPort {
    /// An upstream port in its reset state.
    ///
    /// # Errors
    /// Decoder counts or performance figures that the registers cannot express.
    pub fn new(config: UpstreamPortConfig) -> Result<Self, cxl::Error> {
        let UpstreamPortConfig {
            name,
            serial,
            link,
            ports,
            decoders,
            performance,
        } = config;
        let component = ComponentRegisters::new(&Role::UpstreamSwitchPort { decoders, ports })?;
        let table = cxl::cdat::switch(&performance)?;
        let port_type = DevicePortType::UpstreamPort;

        let mut space = ConfigSpace::bridge(IDS);
        space.add_bar(COMPONENT_BAR, Bar::memory64(ComponentRegisters::SIZE));
        pci::add_power_management(&mut space);
        let express = PciExpress::new(
            &mut space,
            ExpressConfig::port(port_type, link, PORT_NUMBER),
        );
        let aer = Aer::new(&mut space, port_type, NO_VECTOR);
        if let Some(serial) = serial {
            pci::add_serial_number(&mut space, serial);
        }
        pci::add_link_capabilities(&mut space, port_type, link);
        for dvsec in [
            dvsec::port::extensions(),
            dvsec::port::flex_bus(memory_link(), memory_link()),
            dvsec::register_locator(&[RegisterLocation {
                block: RegisterBlockId::Component,
                bar: COMPONENT_BAR,
                offset: 0,
            }]),
        ] {
            add_dvsec(&mut space, &dvsec);
        }
        let cdat = CdatMailbox::new(&mut space, table);
        Ok(Self {
            name,
            serial,
            most: link,
            decoders,
            config: space,
            express,
            aer,
            cdat,
            component,
            scratch: Vec::new(),
        })
    }

    /// The switch's name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Meets an error on CXL.cache or CXL.mem.
    pub fn protocol_error(&mut self, error: ProtocolError, out: &mut Vec<Effect>) {
        report(&mut self.component, &self.aer, &mut self.config, error, out);
    }

    /// Gives the switch a mailbox for a fabric manager, in function 1 beside this one. `clock` is for timestamps.
    #[must_use]
    pub fn add_cci(&mut self, clock: Clock) -> SwitchCci {
        self.config.set_multi_function();
        SwitchCci::new(SwitchCciConfig {
            serial: self.serial,
            link: self.most,
            decoders: self.decoders,
            clock,
        })
    }

    /// The state of its link for a fabric manager.
    pub(crate) fn link_state(&self) -> LinkState {
        link_state(self.most, self.link())
    }

    /// The state of its upstream link.
    pub fn link(&self) -> Option<Link> {
        self.express.link(&self.config)
    }

    /// Its component registers.
    pub fn component(&self) -> &ComponentRegisters {
        &self.component
    }

    /// Commits decoder `index`, as a firmware does.
    ///
    /// # Errors
    /// The rule that the settings break.
    pub fn commit(&mut self, index: usize, settings: &DecoderSettings) -> Result<(), cxl::Error> {
        // The firmware resolves the decoders when all are committed.
        self.component
            .program_decoder(index, settings, &mut Vec::new())
    }

    /// Turns what the component registers ask for into effects of this function: their only effects are the decoders'.
    fn drain(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.scratch.drain(..).map(|_| Effect::DecodersChanged));
    }
}

impl Function for UpstreamPort {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let Some(written) = self.config.write(offset, data, out) else {
            return;
        };
        self.cdat.written(&mut self.config, &written);
        // An upstream port has no function level reset, and no link below to train.
        self.express.written(&mut self.config, &written);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _: &mut Vec<Effect>) {
        match bar {
            COMPONENT_BAR => self.component.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        if bar == COMPONENT_BAR {
            self.component.write(offset, data, &mut self.scratch);
            self.drain(out);
        }
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.config.reset(kind);
        self.cdat.reset();
        self.component.reset(&mut self.scratch);
        self.drain(out);
        out.push(Effect::DecodersChanged);
        out.push(pci::Effect::BarsChanged.into());
    }
}
