//! A Type 2 device: an accelerator with memory that it and the host keep coherent (CXL 3.1 sections 8.1, 8.2).
//!
//! The function holds registers only. What its driver asks for comes back as [`Effect::Accelerator`]; the data buffer of the
//! command window and the device's memory are memory of the machine, which it shows where [`Type2::data_window`] and
//! [`Type2::memory_window`] say, and where the decoders do.

use std::sync::Arc;

use cxl::cdat::Performance;
use cxl::component::ProtocolError;
use cxl::dvsec::{self, RegisterBlockId};
use cxl::hdm::{DecoderSettings, EndpointDecoder};
use cxl::{ComponentRegisters, Role};
use gpu::DeviceMemory;
use gpu::backend::Properties;
use gpu::protocol::registers::{Outcome, Registers, Reply, Request};
use gpu::protocol::spec::{self, COMMAND_BAR, COMPONENT_BAR, MEMORY_BAR};
use pci::{Bar, BarWindow, ConfigSpace, Function, Ids, Link, MsixLayout, MsixTable, ResetKind};

use crate::Effect;
use crate::coherence::SharedEngine;
use crate::cxl_config::accelerator_link;
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::virtio::{Interrupt, read_pending};

const IDS: Ids = Ids {
    vendor: spec::PCI_VENDOR,
    device: spec::PCI_DEVICE,
    revision: 1,
    class: spec::PCI_CLASS,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The vectors stand in the component BAR, behind the component registers: PCIe has no BAR 6.
const MSIX: MsixLayout = MsixLayout {
    bar: COMPONENT_BAR,
    table_offset: spec::MSIX_TABLE,
    pba_offset: spec::MSIX_PBA,
    vectors: spec::VECTORS,
};
const PBA: u64 = spec::MSIX_PBA as u64;

/// HDM decoders: one for each half of the memory, if the host wants it in two windows.
pub const ACCELERATOR_DECODERS: usize = 2;

/// Tells how many bytes of device memory nobody owns.
pub type FreeMemory = Box<dyn Fn() -> u64 + Send>;

/// Device memory that the host reaches by exits, so that each access of it is known.
#[derive(Clone, Debug)]
pub struct Trapped {
    /// The memory.
    pub memory: Arc<DeviceMemory>,
    /// Who is told.
    pub engine: Arc<SharedEngine>,
}

/// What makes one accelerator differ from another.
#[derive(Clone, Debug)]
pub struct Type2Config {
    /// Its name in the configuration and on the control socket.
    pub name: String,
    /// Device serial number.
    pub serial: u64,
    /// Bytes of the cache that it tells of, a multiple of 1 MiB up to 255 MiB.
    pub cache: u64,
    /// The best its link can do.
    pub link: Link,
    /// What its CDAT tells of its memory.
    pub performance: Performance,
    /// Bytes of the memory that the host reaches, a multiple of 256 MiB.
    pub memory: u64,
    /// What its registers tell.
    pub properties: Properties,
    /// Its memory, if the machine is not to show it.
    pub trapped: Option<Trapped>,
}

/// An accelerator.
pub struct Type2 {
    endpoint: Endpoint,
    memory: u64,
    registers: Registers,
    trapped: Option<Trapped>,
    free: FreeMemory,
    interrupt: Arc<dyn Interrupt>,
    /// Effects of the CXL models, before they are turned into ours.
    scratch: Vec<cxl::Effect>,
}

impl Type2 {
    /// An accelerator in its reset state. `interrupt` sends its vectors.
    ///
    /// # Errors
    /// Sizes or performance figures that the registers cannot express.
    pub fn new(
        config: Type2Config,
        free: FreeMemory,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self, cxl::Error> {
        let Type2Config {
            name,
            serial,
            cache,
            link,
            performance,
            memory: capacity,
            properties,
            trapped,
        } = config;
        let device = dvsec::device::accelerator(capacity, cache)?;
        let endpoint = Endpoint::new(EndpointConfig {
            name,
            serial,
            ids: IDS,
            bars: &[
                (COMPONENT_BAR, Bar::memory64(spec::COMPONENT_BAR_SIZE)),
                (COMMAND_BAR, Bar::memory64(spec::COMMAND_BAR_SIZE)),
                (MEMORY_BAR, Bar::memory64(capacity.next_power_of_two())),
            ],
            blocks: &[(RegisterBlockId::Component, COMPONENT_BAR)],
            msix: MSIX,
            link,
            protocols: accelerator_link(),
            locked: vec![0; device.bytes.len()],
            device,
            further: &[],
            role: Role::Accelerator {
                decoders: ACCELERATOR_DECODERS,
                capacity,
            },
            cdat: cxl::cdat::memory_device(capacity, 0, &[], &performance)?,
        })?;
        Ok(Self {
            endpoint,
            memory: capacity,
            registers: Registers::new(properties),
            trapped,
            free,
            interrupt,
            scratch: Vec::new(),
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// Device serial number.
    pub fn serial(&self) -> u64 {
        self.endpoint.serial
    }

    /// Bytes of the memory that the host reaches.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The state of its link.
    pub fn link(&self) -> Option<Link> {
        self.endpoint.link()
    }

    /// Whether the device answers CXL.mem requests (section 8.1.3.2, Mem_Enable).
    pub fn mem_enable(&self) -> bool {
        self.endpoint.control().mem_enable()
    }

    /// Meets an error on CXL.cache or CXL.mem.
    pub fn protocol_error(&mut self, error: ProtocolError, out: &mut Vec<Effect>) {
        self.endpoint.protocol_error(error, out);
    }

    /// Whether its memory is reached by exits alone.
    pub fn is_trapped(&self) -> bool {
        self.trapped.is_some()
    }

    /// Whether a command of version 1 runs.
    pub fn is_busy(&self) -> bool {
        self.registers.is_busy()
    }

    /// Its component registers.
    pub fn component(&self) -> &ComponentRegisters {
        &self.endpoint.component
    }

    /// Commits decoder `index` and lets the device answer, as a firmware does.
    ///
    /// # Errors
    /// The rule that the settings break.
    pub fn commit(&mut self, index: usize, settings: &DecoderSettings) -> Result<(), cxl::Error> {
        self.endpoint.commit(index, settings)
    }

    /// The committed decoders.
    pub fn accessible_decoders(&self) -> Vec<EndpointDecoder> {
        self.endpoint.component.endpoint_decoders()
    }

    /// The vectors and what they send.
    pub fn msix(&self) -> &MsixTable {
        &self.endpoint.msix
    }

    /// Where the data buffer of version 1 is decoded now.
    pub fn data_window(&self) -> Option<BarWindow> {
        self.endpoint.config.bar(COMMAND_BAR).map(|bar| BarWindow {
            base: bar.base + spec::DATA,
            size: spec::DATA_SIZE,
        })
    }

    /// Where the device's memory is to be shown, as a BAR; nowhere while that is not decoded, or is trapped.
    pub fn memory_window(&self) -> Option<BarWindow> {
        if self.is_trapped() {
            return None;
        }
        self.endpoint.config.bar(MEMORY_BAR).map(|bar| BarWindow {
            base: bar.base,
            size: self.memory,
        })
    }

    /// Where a write of the driver rings for a queue: the queue and the guest address. Empty while the BAR is not decoded.
    pub fn doorbells(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let base = self.endpoint.config.bar(COMMAND_BAR).map(|bar| bar.base);
        base.into_iter().flat_map(|base| {
            (0..spec::QUEUES).map(move |queue| {
                let offset = spec::DOORBELLS + u64::from(queue) * spec::DOORBELL_STRIDE;
                (queue, base + offset)
            })
        })
    }

    /// Ends the command of version 1 with this number.
    pub fn complete(&mut self, serial: u64, outcome: Outcome) {
        self.registers.complete(serial, outcome);
    }

    /// Ends the control command at hand.
    pub fn reply(&mut self, reply: Reply) {
        self.registers.reply(reply);
    }

    /// The memory that is not shown, if all of an access is in it.
    fn trapped(&self, offset: u64, data: &[u8]) -> Option<&Trapped> {
        let trapped = self.trapped.as_ref()?;
        let all = trapped.memory.slice(offset, data.len() as u64);
        all.is_ok().then_some(trapped)
    }

    /// A load from memory that is not shown. Beyond its end there are zeros.
    fn trapped_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(Trapped { memory, engine }) = self.trapped(offset, data)
            && memory.read(offset, data).is_ok()
        {
            engine.host_access(offset, data.len() as u64, false);
        }
    }

    /// A store to memory that is not shown.
    fn trapped_write(&self, offset: u64, data: &[u8]) {
        if let Some(Trapped { memory, engine }) = self.trapped(offset, data)
            && memory.write(offset, data).is_ok()
        {
            engine.host_access(offset, data.len() as u64, true);
        }
    }

    /// Turns what the CXL models ask for into effects of this function.
    fn drain(&mut self, out: &mut Vec<Effect>) {
        // Of the component registers, only the decoders ask for anything.
        if !self.scratch.is_empty() {
            self.scratch.clear();
            out.push(Effect::DecodersChanged);
        }
    }
}

impl Function for Type2 {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.endpoint.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let write = self.endpoint.config_write(offset, data, out);
        if write.is_some_and(|write| write.resets) {
            self.reset(ResetKind::FunctionLevel, out);
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _: &mut Vec<Effect>) {
        match bar {
            COMPONENT_BAR if offset < ComponentRegisters::SIZE => {
                self.endpoint.component.read(offset, data);
            }
            COMPONENT_BAR if offset >= PBA => {
                read_pending(&*self.interrupt, MSIX.vectors, offset - PBA, data);
            }
            COMPONENT_BAR => self.endpoint.msix.bar_read(offset, data),
            COMMAND_BAR if offset < spec::REGISTERS_SIZE => {
                self.registers.read(offset, data, &self.free);
            }
            MEMORY_BAR => self.trapped_read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        match bar {
            COMPONENT_BAR if offset < ComponentRegisters::SIZE => {
                self.endpoint
                    .component
                    .write(offset, data, &mut self.scratch);
            }
            COMPONENT_BAR => self.endpoint.msix.bar_write(offset, data, out),
            COMMAND_BAR if offset < spec::REGISTERS_SIZE => {
                out.extend(self.registers.write(offset, data).map(Effect::Accelerator));
            }
            MEMORY_BAR => self.trapped_write(offset, data),
            _ => {}
        }
        self.drain(out);
    }

    /// A function level reset is one of CXL.io alone (section 9.5): the decoders stay. What runs on the device ends with any
    /// reset.
    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.endpoint.reset(kind, out);
        self.registers.reset();
        if kind != ResetKind::FunctionLevel {
            self.endpoint.component.reset(&mut self.scratch);
            self.drain(out);
            out.push(Effect::DecodersChanged);
        }
        out.push(Effect::Accelerator(Request::Reset));
        out.push(pci::Effect::BarsChanged.into());
    }
}
