//! A Type 3 device: a memory expander (CXL 3.1 sections 8.1, 8.2; PCI class code 05_02_10).
//!
//! The function holds registers only. Its media is elsewhere: what its decoders say decides which of it the host sees, and
//! a commit shows in [`Effect::DecodersChanged`].

use cxl::cci::Identity;
use cxl::cdat::Performance;
use cxl::component::ProtocolError;
use cxl::cpmu::{CpmuConfig, Happened, VendorEvent};
use cxl::device::Fault;
use cxl::dvsec::device::{
    CONTROL2_OFFSET, CxlControl2, CxlStatus, CxlStatus2, GpfTimeout, STATUS_OFFSET, STATUS2_OFFSET,
};
use cxl::dvsec::{self, RegisterBlockId};
use cxl::event::Event;
use cxl::gpf::Phase2;
use cxl::hdm::{DecoderSettings, EndpointDecoder};
use cxl::mailbox::ReturnCode;
use cxl::memdev::dynamic::{DynamicRegion, Extent};
use cxl::memdev::fabric::Sharing;
use cxl::memdev::health::HealthInfo;
use cxl::memdev::poison::PoisonSource;
use cxl::memdev::{Clock, Memdev, MemdevConfig, NonVolatile};
use cxl::{ComponentRegisters, Cpmu, DeviceRegisters, Role};
use pci::{Bar, ConfigSpace, Function, Ids, Link, MsixLayout, ResetKind, Retention};

use crate::Effect;
use crate::cxl_config::{link_state, memory_link};
use crate::endpoint::{Endpoint, EndpointConfig};

/// Intel's vendor id with the device id that emulated expanders carry, so that existing scripts find ours.
const IDS: Ids = Ids {
    vendor: 0x8086,
    device: 0x0d93,
    revision: 1,
    class: 0x05_0210,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// BARs: component registers, device registers, and the CPMU with the interrupt vectors behind it.
const COMPONENT_BAR: u8 = 0;
const DEVICE_BAR: u8 = 2;
const CPMU_BAR: u8 = 4;
/// Room for the vectors and their pending bits, in a page of their own.
const MSIX_SIZE: u64 = 0x1000;
const MSIX: MsixLayout = MsixLayout {
    bar: CPMU_BAR,
    table_offset: Cpmu::SIZE as u32,
    pba_offset: Cpmu::SIZE as u32 + 0x800,
    vectors: 16,
};
/// Message numbers of the mailbox, of the informational, warning, failure and fatal event logs, of the CPMU, and of the event
/// log of dynamic capacity.
const MAILBOX_VECTOR: u8 = 0;
const EVENT_VECTORS: [u8; 4] = [1, 2, 3, 4];
const CPMU_VECTOR: u8 = 5;
const DYNAMIC_VECTOR: u8 = 6;
/// What the device tells of its firmware.
const FIRMWARE_REVISION: &str = concat!("MEMU ", env!("CARGO_PKG_VERSION"));
/// A persistent flush of what is in flight: 1 s at most; the media is the host's memory and needs no power of its own.
const GPF_DURATION: GpfTimeout = GpfTimeout { base: 1, scale: 6 };

/// What makes one expander differ from another.
#[derive(Clone, Debug)]
pub struct Type3Config {
    /// Its name in the configuration and on the control socket.
    pub name: String,
    /// Device serial number.
    pub serial: u64,
    /// Volatile bytes, the low end of the device's addresses; a multiple of 256 MiB.
    pub volatile: u64,
    /// Persistent bytes, behind the volatile ones; a multiple of 256 MiB.
    pub persistent: u64,
    /// Bytes between them that the host makes one or the other, persistent at first; a multiple of 256 MiB.
    pub partitionable: u64,
    /// Behind all of them, addresses for memory that comes and goes.
    pub dynamic: Vec<DynamicRegion>,
    /// The label storage area as it is; empty if there is none.
    pub labels: Vec<u8>,
    /// What it remembers of when it was last on.
    pub nonvolatile: NonVolatile,
    /// The best its link can do.
    pub link: Link,
    /// HDM decoders: 1, 2, 4, 6, 8 or 10.
    pub decoders: usize,
    /// What its CDAT tells of its memory.
    pub performance: Performance,
    /// Who has what of it.
    pub part: Part,
    /// Somebody calls [`Type3::count_reads`]: its CPMU counts the lines that the host reads.
    pub counts_reads: bool,
}

/// Which part of a device the host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// One of several logical devices.
    LogicalDevice {
        /// How many there are.
        count: u8,
        /// Which it has.
        own: u8,
    },
    /// What is at one of several heads.
    Head {
        /// How many there are.
        count: u8,
        /// Which it is at.
        own: u8,
    },
}

impl Part {
    fn sharing(self, link: Link) -> Sharing {
        match self {
            Self::Whole => Sharing::None,
            Self::LogicalDevice { count, own } => Sharing::LogicalDevices { count, own },
            Self::Head { count, own } => Sharing::Heads {
                count,
                own,
                link: link_state(link, Some(link)),
            },
        }
    }
}

/// A memory expander.
pub struct Type3 {
    endpoint: Endpoint,
    /// It has gone viral, and gives the host none of its memory until a reset.
    viral: bool,
    device: DeviceRegisters,
    cpmu: Cpmu,
    /// What the CPMU is still to be told.
    happened: Happened,
    /// How many of the mailbox's commands it has been told of.
    commands: u64,
    /// Effects of the CXL models, before they are turned into ours.
    scratch: Vec<cxl::Effect>,
}

impl Type3 {
    /// An expander in its reset state; `clock` is for timestamps.
    ///
    /// # Errors
    /// Capacities, decoder counts or performance figures that the registers cannot express.
    pub fn new(config: Type3Config, clock: Clock) -> Result<Self, cxl::Error> {
        let Type3Config {
            name,
            serial,
            volatile,
            persistent,
            partitionable,
            dynamic,
            labels,
            nonvolatile,
            link,
            decoders,
            performance,
            part,
            counts_reads,
        } = config;
        let mut device = DeviceRegisters::new(
            MemdevConfig {
                volatile,
                persistent,
                partitionable,
                dynamic,
                lsa: labels,
                nonvolatile,
                identity: Identity {
                    vendor: IDS.vendor,
                    device: IDS.device,
                    subsystem_vendor: IDS.subsystem_vendor,
                    subsystem: IDS.subsystem,
                    serial,
                },
                sharing: part.sharing(link),
                firmware_revision: FIRMWARE_REVISION.into(),
                mailbox_vector: MAILBOX_VECTOR,
                event_vectors: EVENT_VECTORS,
                dynamic_vector: DYNAMIC_VECTOR,
            },
            clock,
        )?;
        device.add_vendor_commands(&cxl::mailbox::vendor::EXPANDER)?;
        let capacity = device.memdev().capacity();
        let partition = device.memdev().partition();
        let dvsec = match part {
            Part::LogicalDevice { .. } => dvsec::device::logical_device(capacity)?,
            Part::Whole | Part::Head { .. } => dvsec::device::memory_device(capacity)?,
        };
        let mut endpoint = Endpoint::new(EndpointConfig {
            name,
            serial,
            ids: IDS,
            bars: &[
                (COMPONENT_BAR, Bar::memory64(ComponentRegisters::SIZE)),
                (DEVICE_BAR, Bar::memory64(DeviceRegisters::SIZE)),
                (CPMU_BAR, Bar::memory64(Cpmu::SIZE + MSIX_SIZE)),
            ],
            blocks: &[
                (RegisterBlockId::Component, COMPONENT_BAR),
                (RegisterBlockId::Device, DEVICE_BAR),
                (RegisterBlockId::Cpmu, CPMU_BAR),
            ],
            msix: MSIX,
            link,
            protocols: memory_link(),
            device: dvsec,
            locked: dvsec::device::locked_writable(),
            further: &[dvsec::device::gpf(GPF_DURATION, 0)],
            role: Role::Endpoint {
                decoders,
                capacity: device.memdev().address_space(),
            },
            cdat: cxl::cdat::memory_device(
                partition.volatile,
                partition.persistent,
                device.memdev().dynamic_regions(),
                &performance,
            )?,
        })?;
        // RW1CS: software reads after the reset why it had to make it.
        endpoint.retain_dvsec_u16(STATUS_OFFSET, Retention::Sticky);
        let counters = CpmuConfig {
            vector: CPMU_VECTOR,
            vendor: IDS.vendor,
            counts_reads,
        };
        let cpmu = Cpmu::new(counters, device.memdev().now());
        Ok(Self {
            endpoint,
            viral: false,
            device,
            cpmu,
            happened: Happened::default(),
            commands: 0,
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

    /// Volatile and persistent bytes.
    pub fn capacity(&self) -> (u64, u64) {
        let partition = self.memdev().partition();
        (partition.volatile, partition.persistent)
    }

    /// The state of its link.
    pub fn link(&self) -> Option<Link> {
        self.endpoint.link()
    }

    /// Whether the device answers CXL.mem requests (section 8.1.3.2, Mem_Enable).
    pub fn mem_enable(&self) -> bool {
        self.endpoint.control().mem_enable()
    }

    /// Its component registers.
    pub fn component(&self) -> &ComponentRegisters {
        &self.endpoint.component
    }

    /// The committed decoders whose memory the host can get at.
    pub fn accessible_decoders(&self) -> Vec<EndpointDecoder> {
        let memdev = self.memdev();
        let mut decoders = self.endpoint.component.endpoint_decoders();
        decoders.retain(|decoder| {
            let locked = memdev.is_locked() && decoder.dpa >= memdev.partition().volatile;
            !locked && !memdev.is_media_disabled() && !self.viral
        });
        decoders
    }

    /// The power goes, after phase 2 of a global persistent flush: see [`Memdev::power_off`].
    pub fn power_off(&mut self, phase2: Phase2, out: &mut Vec<Effect>) {
        let duration = GPF_DURATION.ns();
        self.device.power_off(phase2, duration, &mut self.scratch);
        self.drain(out);
    }

    /// Contains an error by going viral (section 12.4): its memory is out of the host's reach until a reset. False, and nothing
    /// happens, if software has not enabled that.
    pub fn go_viral(&mut self, out: &mut Vec<Effect>) -> bool {
        if !self.endpoint.control().viral_enable() {
            return false;
        }
        self.viral = true;
        let status = CxlStatus::new().with_viral(true).into_bits();
        self.endpoint.set_dvsec_u16(STATUS_OFFSET, status);
        out.push(Effect::DecodersChanged);
        true
    }

    /// Whether it contains an error by being viral.
    pub fn is_viral(&self) -> bool {
        self.viral
    }

    /// Lets it fail, or work again: see [`DeviceRegisters::set_fault`].
    pub fn set_fault(&mut self, fault: Option<Fault>, out: &mut Vec<Effect>) {
        self.device.set_fault(fault, &mut self.scratch);
        self.drain(out);
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<Fault> {
        self.device.fault()
    }

    /// Ends what the device does in the background, if its time has passed, and looks after counters of time: see
    /// [`Effect::Alarm`].
    pub fn advance(&mut self, out: &mut Vec<Effect>) {
        self.device.advance(&mut self.scratch);
        self.cpmu.advance(self.now(), &mut self.scratch);
        self.drain(out);
    }

    /// Takes a message of the fabric manager's: see [`DeviceRegisters::receive`].
    ///
    /// # Errors
    /// The return code that says why there is no answer.
    pub fn receive(
        &mut self,
        message: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<Vec<u8>, ReturnCode> {
        let answer = self.device.receive(message, &mut self.scratch);
        self.drain(out);
        answer
    }

    /// The host has read so many lines of its memory since the last call: see [`Cpmu::count_reads`].
    pub fn count_reads(&mut self, lines: u64, out: &mut Vec<Effect>) {
        self.cpmu.count_reads(lines, self.now(), &mut self.scratch);
        self.drain(out);
    }

    fn now(&self) -> u64 {
        self.memdev().now()
    }

    /// The label storage area.
    pub fn labels(&self) -> &[u8] {
        self.memdev().lsa()
    }

    /// The state behind its mailbox.
    pub fn memdev(&self) -> &Memdev {
        self.device.memdev()
    }

    /// Makes lines of its media bad: see [`Memdev::add_poison`].
    ///
    /// # Errors
    /// The return code that says why not.
    pub fn add_poison(
        &mut self,
        dpa: u64,
        len: u64,
        source: PoisonSource,
        out: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let result = self.device.add_poison(dpa, len, source, &mut self.scratch);
        self.drain(out);
        result
    }

    /// Makes lines of its media good, with the bytes that they had: see [`Memdev::mend_poison`].
    ///
    /// # Errors
    /// The return code that says why not.
    pub fn clear_poison(
        &mut self,
        dpa: u64,
        len: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let result = self.device.mend_poison(dpa, len, &mut self.scratch);
        self.drain(out);
        result
    }

    /// Offers memory to the host: see [`Memdev::offer_extents`].
    ///
    /// # Errors
    /// The return code that says why not.
    pub fn offer_extents(
        &mut self,
        extents: &[Extent],
        out: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let result = self.device.offer_extents(extents, &mut self.scratch);
        self.drain(out);
        result
    }

    /// Asks for memory back, or takes it: see [`Memdev::reclaim_extent`].
    ///
    /// # Errors
    /// The return code that says why not.
    pub fn reclaim_extent(
        &mut self,
        extent: &Extent,
        force: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let result = self.device.reclaim_extent(extent, force, &mut self.scratch);
        self.drain(out);
        result
    }

    /// Logs an event: see [`Memdev::log_event`].
    pub fn log_event(&mut self, event: &Event, out: &mut Vec<Effect>) {
        self.device.log_event(event, &mut self.scratch);
        self.drain(out);
    }

    /// Changes its health: see [`Memdev::set_health`].
    pub fn set_health(&mut self, health: HealthInfo, out: &mut Vec<Effect>) {
        self.device.set_health(health, &mut self.scratch);
        self.drain(out);
    }

    /// The host met the bad line at `dpa`: see [`Memdev::poison_read`].
    pub fn poison_read(&mut self, dpa: u64, out: &mut Vec<Effect>) {
        self.device.poison_read(dpa, &mut self.scratch);
        self.drain(out);
    }

    /// Meets an error on CXL.cache or CXL.mem.
    pub fn protocol_error(&mut self, error: ProtocolError, out: &mut Vec<Effect>) {
        self.endpoint.protocol_error(error, out);
    }

    /// Commits decoder `index` and lets the device answer, as a firmware does.
    ///
    /// # Errors
    /// The rule that the settings break.
    pub fn commit(&mut self, index: usize, settings: &DecoderSettings) -> Result<(), cxl::Error> {
        self.endpoint.commit(index, settings)
    }

    /// What software starts in CXL Control2 (CXL 3.1 section 9.7): a function level reset that reaches CXL.mem as well, and
    /// clears volatile memory if it is to. It ends at once.
    fn cxl_reset(&mut self, out: &mut Vec<Effect>) {
        let control2 = CxlControl2::from_bits(self.endpoint.dvsec_u16(CONTROL2_OFFSET));
        self.reset(ResetKind::FunctionLevel, out);
        self.endpoint.component.reset(&mut self.scratch);
        self.drain(out);
        let volatile = self.memdev().partition().volatile;
        if control2.reset_mem_clear() && volatile != 0 {
            out.push(Effect::MediaZeroed {
                dpa: 0,
                len: volatile,
            });
        }
        let status2 = CxlStatus2::from_bits(self.endpoint.dvsec_u16(STATUS2_OFFSET))
            .with_reset_complete(true)
            .into_bits();
        self.endpoint.set_dvsec_u16(STATUS2_OFFSET, status2);
    }

    /// Turns what the CXL models ask for into effects of this function, and tells the CPMU what has happened.
    fn drain(&mut self, out: &mut Vec<Effect>) {
        self.pass_on(out);
        let commands = self.device.commands();
        let ran = commands.saturating_sub(self.commands);
        self.commands = commands;
        self.happened.add(VendorEvent::MailboxCommand, ran);
        if !self.happened.is_empty() {
            let happened = std::mem::take(&mut self.happened);
            self.cpmu.happened(&happened, self.now(), &mut self.scratch);
            self.pass_on(out);
        }
    }

    fn pass_on(&mut self, out: &mut Vec<Effect>) {
        for effect in self.scratch.drain(..) {
            match effect {
                cxl::Effect::DecoderCommitted { .. }
                | cxl::Effect::DecoderReleased { .. }
                | cxl::Effect::DecodersEnabled(_)
                | cxl::Effect::AccessChanged => out.push(Effect::DecodersChanged),
                cxl::Effect::Interrupt { vector } => {
                    if vector != CPMU_VECTOR {
                        self.happened.add(VendorEvent::Interrupt, 1);
                    }
                    let message = self.endpoint.msix.trigger(u16::from(vector));
                    out.extend(message.map(|message| pci::Effect::Msi(message).into()));
                }
                cxl::Effect::LsaWritten { offset, len } => {
                    out.push(Effect::LabelsWritten { offset, len })
                }
                cxl::Effect::PoisonChanged { dpa, len } => {
                    out.push(Effect::PoisonChanged { dpa, len })
                }
                cxl::Effect::MediaWritten { dpa, data } => {
                    out.push(Effect::MediaWritten { dpa, data })
                }
                cxl::Effect::MediaZeroed { dpa, len } => out.push(Effect::MediaZeroed { dpa, len }),
                cxl::Effect::Alarm { after } => out.push(Effect::Alarm { after }),
                cxl::Effect::NonVolatileChanged => out.push(Effect::NonVolatileChanged),
            }
        }
    }
}

/// Whether the CPMU is there.
fn is_cpmu(bar: u8, offset: u64) -> bool {
    bar == CPMU_BAR && offset < Cpmu::SIZE
}

impl Function for Type3 {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.endpoint.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let Some(write) = self.endpoint.config_write(offset, data, out) else {
            return;
        };
        self.happened.add(VendorEvent::ConfigurationWrite, 1);
        let answered = u64::from(write.answered);
        self.happened.add(VendorEvent::DataObject, answered);
        self.drain(out);
        if write.resets {
            self.reset(ResetKind::FunctionLevel, out);
        }
        let control2 = write.written.data(self.endpoint.dvsec_at(CONTROL2_OFFSET));
        if CxlControl2::from_bits(control2 as u16).initiate_reset() {
            self.cxl_reset(out);
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], out: &mut Vec<Effect>) {
        if is_cpmu(bar, offset) {
            let now = self.now();
            self.cpmu.read(offset, data, now, &mut self.scratch);
            return self.drain(out);
        }
        match bar {
            COMPONENT_BAR => self.endpoint.component.read(offset, data),
            DEVICE_BAR => self.device.read(offset, data),
            CPMU_BAR => self.endpoint.msix.bar_read(offset, data),
            _ => data.fill(0),
        }
        self.happened.add(VendorEvent::RegisterRead, 1);
        self.drain(out);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        if is_cpmu(bar, offset) {
            let now = self.now();
            self.cpmu.write(offset, data, now, &mut self.scratch);
            return self.drain(out);
        }
        match bar {
            COMPONENT_BAR => self
                .endpoint
                .component
                .write(offset, data, &mut self.scratch),
            DEVICE_BAR => self.device.write(offset, data, &mut self.scratch),
            CPMU_BAR => self.endpoint.msix.bar_write(offset, data, out),
            _ => {}
        }
        self.happened.add(VendorEvent::RegisterWrite, 1);
        self.drain(out);
    }

    /// A function level reset is one of CXL.io alone (section 9.5): the decoders stay, and the host's loads go on. Any other reset takes the device's memory out of the host's address space.
    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.endpoint.reset(kind, out);
        self.cpmu.reset(self.now());
        if kind == ResetKind::FunctionLevel {
            self.device.reset_mailbox();
        } else {
            self.viral = false;
            self.endpoint.component.reset(&mut self.scratch);
            self.device.reset();
            self.drain(out);
            out.push(Effect::DecodersChanged);
        }
        out.push(pci::Effect::BarsChanged.into());
    }
}
