//! What every CXL device has, expander or accelerator: configuration space and vectors, errors, the DVSEC for CXL devices with
//! its lock, CDAT, and component registers (CXL 3.1 sections 8.1, 8.2).

use cxl::cdat::Cdat;
use cxl::component::ProtocolError;
use cxl::dvsec::device::{CONTROL_OFFSET, CxlControl, LOCK_OFFSET};
use cxl::dvsec::port::FlexBus;
use cxl::dvsec::{self, Dvsec, RegisterBlockId, RegisterLocation};
use cxl::hdm::DecoderSettings;
use cxl::{ComponentRegisters, Role};
use pci::{
    Aer, Bar, ConfigSpace, DevicePortType, ExpressConfig, ExpressEvent, Ids, Link, MsixLayout,
    MsixTable, PciExpress, ResetKind, Retention, Written,
};

use crate::Effect;
use crate::cdat::CdatMailbox;
use crate::cxl_config::{add_dvsec, report};

/// CONFIG_LOCK of the CXL Lock register (section 8.1.3.6).
const CONFIG_LOCK: u32 = 1;

/// What makes the common part of one device differ from another's.
pub(crate) struct EndpointConfig<'a> {
    pub name: String,
    pub serial: u64,
    pub ids: Ids,
    pub bars: &'a [(u8, Bar)],
    /// The register blocks, each at the beginning of a BAR.
    pub blocks: &'a [(RegisterBlockId, u8)],
    pub msix: MsixLayout,
    pub link: Link,
    pub protocols: FlexBus,
    /// The DVSEC for CXL devices.
    pub device: Dvsec,
    /// What can be written of it once it is locked.
    pub locked: Vec<u8>,
    /// DVSECs behind it.
    pub further: &'a [Dvsec],
    pub role: Role,
    pub cdat: Cdat,
}

/// The common part of a CXL device.
pub(crate) struct Endpoint {
    pub name: String,
    pub serial: u64,
    pub config: ConfigSpace,
    pub msix: MsixTable,
    pub component: ComponentRegisters,
    express: PciExpress,
    aer: Aer,
    cdat: CdatMailbox,
    /// Offset of the DVSEC for CXL devices, and which of its bits can be written while it is not locked, and when it is.
    dvsec: u16,
    writable: Vec<u8>,
    locked: Vec<u8>,
}

/// A write to a configuration space, as far as it is for the device to follow.
pub(crate) struct EndpointWrite {
    pub written: Written,
    /// It starts a function level reset.
    pub resets: bool,
    /// It made the CDAT mailbox answer.
    pub answered: bool,
}

impl Endpoint {
    /// The part in its reset state.
    ///
    /// # Errors
    /// Sizes or decoder counts that the registers cannot express.
    pub(crate) fn new(parts: EndpointConfig<'_>) -> Result<Self, cxl::Error> {
        let component = ComponentRegisters::new(&parts.role)?;
        let port_type = DevicePortType::Endpoint;
        let mut config = ConfigSpace::endpoint(parts.ids);
        for &(index, bar) in parts.bars {
            config.add_bar(index, bar);
        }
        pci::add_power_management(&mut config);
        let msix = MsixTable::new(&mut config, parts.msix);
        let express = PciExpress::new(&mut config, ExpressConfig::endpoint(parts.link));
        let aer = Aer::new(&mut config, port_type, 0);
        pci::add_serial_number(&mut config, parts.serial);
        pci::add_link_capabilities(&mut config, port_type, parts.link);
        let dvsec = add_dvsec(&mut config, &parts.device);
        let len = u16::try_from(parts.device.bytes.len()).unwrap_or(u16::MAX);
        config.retain(dvsec, len, Retention::FunctionLevel);
        for further in parts.further {
            add_dvsec(&mut config, further);
        }
        add_dvsec(
            &mut config,
            &dvsec::port::flex_bus(parts.protocols, parts.protocols),
        );
        let location = |&(block, bar): &(RegisterBlockId, u8)| RegisterLocation {
            block,
            bar,
            offset: 0,
        };
        let locations: Vec<RegisterLocation> = parts.blocks.iter().map(location).collect();
        add_dvsec(&mut config, &dvsec::register_locator(&locations));
        let cdat = CdatMailbox::new(&mut config, parts.cdat);
        Ok(Self {
            name: parts.name,
            serial: parts.serial,
            config,
            msix,
            component,
            express,
            aer,
            cdat,
            dvsec,
            writable: parts.device.writable,
            locked: parts.locked,
        })
    }

    /// The state of the link.
    pub(crate) fn link(&self) -> Option<Link> {
        self.express.link(&self.config)
    }

    /// CXL Control (section 8.1.3.2).
    pub(crate) fn control(&self) -> CxlControl {
        CxlControl::from_bits(self.dvsec_u16(CONTROL_OFFSET))
    }

    /// Where a register of the DVSEC for CXL devices is in the configuration space.
    pub(crate) fn dvsec_at(&self, offset: usize) -> u16 {
        self.dvsec + offset as u16
    }

    /// A register of the DVSEC for CXL devices.
    pub(crate) fn dvsec_u16(&self, offset: usize) -> u16 {
        self.config.u16(self.dvsec_at(offset))
    }

    /// Sets a register of the DVSEC for CXL devices, as the device does.
    pub(crate) fn set_dvsec_u16(&mut self, offset: usize, value: u16) {
        self.config.set_u16(self.dvsec_at(offset), value);
    }

    /// Makes a register of the DVSEC for CXL devices survive some resets.
    pub(crate) fn retain_dvsec_u16(&mut self, offset: usize, retention: Retention) {
        self.config.retain(self.dvsec_at(offset), 2, retention);
    }

    /// Commits decoder `index` and turns CXL.mem on, as a firmware does.
    pub(crate) fn commit(
        &mut self,
        index: usize,
        settings: &DecoderSettings,
    ) -> Result<(), cxl::Error> {
        // The firmware resolves the decoders when all are committed.
        let mut effects = Vec::new();
        self.component
            .program_decoder(index, settings, &mut effects)?;
        self.component.enable_decoders(true, &mut effects);
        let control = self.control().with_mem_enable(true).into_bits();
        self.set_dvsec_u16(CONTROL_OFFSET, control);
        Ok(())
    }

    /// Meets an error on CXL.cache or CXL.mem.
    pub(crate) fn protocol_error(&mut self, error: ProtocolError, out: &mut Vec<Effect>) {
        report(&mut self.component, &self.aer, &mut self.config, error, out);
    }

    /// A configuration write; `None` if none arrives.
    pub(crate) fn config_write(
        &mut self,
        offset: u16,
        data: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<EndpointWrite> {
        let enabled = self.control().mem_enable();
        let written = self.config.write(offset, data, out)?;
        self.msix.written(&self.config, &written, out);
        let answered = self.cdat.written(&mut self.config, &written);
        if written.raised(self.dvsec_at(LOCK_OFFSET), CONFIG_LOCK) {
            self.config.set_writable(self.dvsec, &self.locked);
        }
        if self.control().mem_enable() != enabled {
            out.push(Effect::DecodersChanged);
        }
        let event = self.express.written(&mut self.config, &written);
        Some(EndpointWrite {
            written,
            resets: event == Some(ExpressEvent::FunctionLevelReset),
            answered,
        })
    }

    /// Back to reset, but for the component registers. A function level reset is one of CXL.io alone (section 9.5): the DVSEC
    /// stays, with its lock.
    pub(crate) fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.config.reset(kind);
        self.msix.reset(&self.config, out);
        self.cdat.reset();
        if kind != ResetKind::FunctionLevel {
            self.config.set_writable(self.dvsec, &self.writable);
        }
    }
}
