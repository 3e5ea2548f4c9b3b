//! A driver's view of a function: finds registers as software does, and keeps what its accesses ask of the machine.

use std::ops::Range;

use pci::{ErrorMessage, Function, Link, LinkSpeed, LinkWidth, MsiMessage, ResetKind, spec};

use crate::{
    DownstreamPort, DownstreamPortConfig, DownstreamPortKind, Effect, Part, Type3, Type3Config,
    UpstreamPort, UpstreamPortConfig,
};

pub const MIB: u64 = 1 << 20;
pub const LINK: Link = Link {
    speed: LinkSpeed::Gt32,
    width: LinkWidth::X16,
};
/// Bytes of the label storage area of [`expander`].
pub const LABELS: usize = 4096;

/// What [`expander`] is made from.
pub fn expander_config() -> Type3Config {
    Type3Config {
        name: "mem0".into(),
        serial: 0x1122_3344_5566_7788,
        volatile: 256 * MIB,
        persistent: 512 * MIB,
        partitionable: 0,
        dynamic: Vec::new(),
        labels: vec![0; LABELS],
        nonvolatile: cxl::memdev::NonVolatile::default(),
        link: LINK,
        decoders: 4,
        performance: cxl::cdat::Performance {
            read_latency: 150,
            write_latency: 250,
            read_bandwidth: 16.0,
            write_bandwidth: 12.8,
        },
        part: Part::Whole,
        counts_reads: true,
    }
}

/// An expander of 256 MiB volatile and 512 MiB persistent memory, with labels.
pub fn expander() -> Type3 {
    Type3::new(expander_config(), Box::new(|| 0)).unwrap()
}

/// Root port 3, with something at the other end of its link.
pub fn root_port() -> DownstreamPort {
    connected("rp3", DownstreamPortKind::Root, 3)
}

/// Downstream port 2 of a switch, with something at the other end of its link.
pub fn downstream_port() -> DownstreamPort {
    connected("dsp2", DownstreamPortKind::Switch, 2)
}

fn connected(name: &str, kind: DownstreamPortKind, port_number: u8) -> DownstreamPort {
    let config = DownstreamPortConfig {
        name: name.into(),
        kind,
        port_number,
        link: LINK,
        slot: Some(4),
    };
    let mut port = DownstreamPort::new(config).unwrap();
    port.connect(LINK);
    port
}

/// What [`upstream_port`] is made from.
pub fn upstream_port_config() -> UpstreamPortConfig {
    UpstreamPortConfig {
        name: "sw0".into(),
        serial: Some(0x5157_0001),
        link: LINK,
        ports: vec![0, 1, 2, 3],
        decoders: 10,
        performance: cxl::cdat::Performance {
            read_latency: 70,
            write_latency: 80,
            read_bandwidth: 64.0,
            write_bandwidth: 32.0,
        },
    }
}

/// The upstream port of a switch with downstream ports 0 to 3.
pub fn upstream_port() -> UpstreamPort {
    UpstreamPort::new(upstream_port_config()).unwrap()
}

/// What accesses asked of the machine, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub decoders_changed: bool,
    pub bars_changed: bool,
    pub vectors_changed: bool,
    /// Offset and length of label writes.
    pub labels: Vec<(u32, u32)>,
    pub messages: Vec<MsiMessage>,
    pub slot_power_changed: bool,
    /// Address and length of media that went bad or good.
    pub poison: Vec<(u64, u64)>,
    /// Address and contents of lines to be written.
    pub media: Vec<(u64, [u8; 64])>,
    /// Address and length of media to be zeroed.
    pub zeroed: Vec<(u64, u64)>,
    /// When to come back, in ns.
    pub alarms: Vec<u64>,
    pub nonvolatile_changed: bool,
    /// Commands that wait in a switch's mailbox.
    pub switch_commands: usize,
    pub port_changed: bool,
    /// Error messages to the root port.
    pub errors: Vec<ErrorMessage>,
}

impl Asked {
    pub fn of(effects: impl IntoIterator<Item = Effect>) -> Self {
        let mut asked = Self::default();
        for effect in effects {
            match effect {
                Effect::DecodersChanged => asked.decoders_changed = true,
                Effect::SlotPowerChanged => asked.slot_power_changed = true,
                Effect::LabelsWritten { offset, len } => asked.labels.push((offset, len)),
                Effect::Pci(pci::Effect::BarsChanged) => asked.bars_changed = true,
                Effect::Pci(pci::Effect::MsixChanged { .. }) => asked.vectors_changed = true,
                Effect::Pci(pci::Effect::Msi(message)) => asked.messages.push(message),
                Effect::PoisonChanged { dpa, len } => asked.poison.push((dpa, len)),
                Effect::MediaWritten { dpa, data } => asked.media.push((dpa, data)),
                Effect::MediaZeroed { dpa, len } => asked.zeroed.push((dpa, len)),
                Effect::NonVolatileChanged => asked.nonvolatile_changed = true,
                Effect::Alarm { after } => asked.alarms.push(after),
                Effect::SwitchCommand => asked.switch_commands += 1,
                Effect::PortChanged => asked.port_changed = true,
                Effect::Accelerator(_) => {}
                Effect::Error(message) => asked.errors.push(message),
                Effect::Virtio(effect) => panic!("no virtio function asked for {effect:?}"),
            }
        }
        asked
    }
}

/// Where blocks of device registers, and of component registers, have their registers; behind them all reads as zero.
const REGISTERS: [(u64, u64); 2] = [(0, 0x140), (0x1000, 0x1350)];
/// No block of registers is larger; memory behind a BAR is.
const MOST_REGISTERS: u64 = 1 << 20;
/// Where functions have their header and capabilities; behind them all reads as zero.
const CAPABILITIES: Range<u16> = 0..0x400;

/// What a guest sees of a function: its configuration space, and what is behind its BARs.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    pub config: Vec<u32>,
    pub bars: [Vec<u64>; 6],
}

/// DOE registers, from the start of the capability (PCIe 6.0 section 7.9.24).
const DOE_CONTROL: u16 = 0x08;
const DOE_GO: u32 = 1 << 31;
const DOE_STATUS: u16 = 0x0c;
const DOE_READY: u32 = 1 << 31;
const DOE_WRITE: u16 = 0x10;
const DOE_READ: u16 = 0x14;

/// A function, accessed as a driver does.
pub struct Probe<F> {
    pub function: F,
    asked: Vec<Effect>,
}

impl<F: Function<Effect = Effect>> Probe<F> {
    pub fn new(function: F) -> Self {
        Self {
            function,
            asked: Vec::new(),
        }
    }

    /// What was asked of the machine since the last call.
    pub fn asked(&mut self) -> Asked {
        Asked::of(self.asked.drain(..))
    }

    /// The effects themselves.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.asked)
    }

    pub fn config_u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn config_u16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.function.config_read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    pub fn config_u8(&self, offset: u16) -> u8 {
        let mut data = [0];
        self.function.config_read(offset, &mut data);
        data[0]
    }

    pub fn set_config(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data, &mut self.asked);
    }

    pub fn set_config_u16(&mut self, offset: u16, value: u16) {
        self.set_config(offset, &value.to_le_bytes());
    }

    pub fn set_config_u32(&mut self, offset: u16, value: u32) {
        self.set_config(offset, &value.to_le_bytes());
    }

    pub fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.bar_read(bar, offset, data, &mut self.asked);
    }

    pub fn bar_u32(&mut self, bar: u8, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.bar_read(bar, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn bar_u64(&mut self, bar: u8, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.bar_read(bar, offset, &mut data);
        u64::from_le_bytes(data)
    }

    pub fn set_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.function.bar_write(bar, offset, data, &mut self.asked);
    }

    pub fn set_bar_u32(&mut self, bar: u8, offset: u64, value: u32) {
        self.set_bar(bar, offset, &value.to_le_bytes());
    }

    pub fn set_bar_u64(&mut self, bar: u8, offset: u64, value: u64) {
        self.set_bar(bar, offset, &value.to_le_bytes());
    }

    pub fn reset(&mut self, kind: ResetKind) {
        self.function.reset(kind, &mut self.asked);
    }

    /// Offset of a capability, found by following the list.
    pub fn capability(&self, id: u8) -> Option<u16> {
        let mut at = u16::from(self.config_u8(spec::header::CAPABILITIES_POINTER));
        while at != 0 && self.config_u8(at) != id {
            at = u16::from(self.config_u8(at + 1));
        }
        (at != 0).then_some(at)
    }

    /// Offsets of all extended capabilities with this identifier, found by following the list.
    pub fn extended(&self, id: u16) -> Vec<u16> {
        let mut found = Vec::new();
        let mut at = spec::EXTENDED_START;
        while at != 0 {
            let header = self.config_u32(at);
            if header as u16 == id {
                found.push(at);
            }
            at = (header >> 20) as u16;
        }
        found
    }

    fn doe(&self) -> u16 {
        let [doe] = self.extended(spec::extended::DOE)[..] else {
            panic!("one mailbox")
        };
        doe
    }

    /// Writes a dword of a data object.
    pub fn doe_write(&mut self, dword: u32) {
        self.set_config_u32(self.doe() + DOE_WRITE, dword);
    }

    /// Sends one data object and reads the response to its end.
    pub fn exchange(&mut self, object: &[u32]) -> Vec<u32> {
        let doe = self.doe();
        for dword in object {
            self.doe_write(*dword);
        }
        self.set_config_u32(doe + DOE_CONTROL, DOE_GO);
        let mut response = Vec::new();
        while self.config_u32(doe + DOE_STATUS) & DOE_READY != 0 {
            response.push(self.config_u32(doe + DOE_READ));
            self.set_config_u32(doe + DOE_READ, 0);
        }
        response
    }

    /// Reads the CDAT entry by entry (CXL 3.1 section 8.1.11.1).
    pub fn cdat(&mut self) -> Vec<u8> {
        // CXL table access, type 2, three dwords: read entry `handle` of table 0.
        const TABLE_ACCESS: u32 = 0x0002_1e98;
        let mut table = Vec::new();
        let mut handle = 0;
        while handle != 0xffff {
            let response = self.exchange(&[TABLE_ACCESS, 3, handle << 16]);
            assert_eq!(response[0], TABLE_ACCESS);
            assert_eq!(response[1] as usize, response.len());
            handle = response[2] >> 16;
            table.extend(response[3..].iter().flat_map(|dword| dword.to_le_bytes()));
        }
        table
    }

    /// Identifiers and offsets of the CXL Consortium's DVSECs (CXL 3.1 section 8.1).
    pub fn dvsecs(&self) -> Vec<(u16, u16)> {
        let dvsecs = self.extended(spec::extended::DVSEC).into_iter();
        let of_cxl = dvsecs.filter(|at| self.config_u16(at + 4) == cxl::CXL_VENDOR_ID);
        of_cxl.map(|at| (self.config_u16(at + 8), at)).collect()
    }

    pub fn dvsec(&self, id: u16) -> u16 {
        let found = self.dvsecs().into_iter().find(|(have, _)| *have == id);
        found.map(|(_, at)| at).expect("the function has the DVSEC")
    }

    /// The BARs that the register locator names, by block identifier (CXL 3.1 section 8.1.9).
    pub fn register_blocks(&self) -> Vec<(u8, u8)> {
        let locator = self.dvsec(cxl::dvsec::id::REGISTER_LOCATOR);
        let len = (self.config_u32(locator + 4) >> 20) as u16;
        let entries = (locator + 0x0c..locator + len).step_by(8);
        entries
            .map(|entry| {
                assert_eq!(self.config_u16(entry + 2), 0, "offset 0 in its BAR");
                assert_eq!(self.config_u32(entry + 4), 0, "offset 0 in its BAR");
                let [bar, block] = self.config_u16(entry).to_le_bytes();
                (block, bar & 7)
            })
            .collect()
    }

    /// Bytes that a BAR asks for, found by writing ones.
    pub fn bar_size(&mut self, bar: u8) -> u64 {
        let register = spec::header::BAR0 + 4 * u16::from(bar);
        let before = self.config_u32(register);
        self.set_config_u32(register, u32::MAX);
        let mask = self.config_u32(register) & !spec::bar::MEMORY_FLAGS;
        self.set_config_u32(register, before);
        u64::from(!mask) + 1
    }

    /// Everything that a guest can see, but for memory.
    pub fn image(&mut self) -> Image {
        self.look(0..spec::CONFIG_SPACE_SIZE, &[(0, MOST_REGISTERS)])
    }

    /// The part of it where there are registers: quick enough to look at after every access.
    pub fn registers(&mut self) -> Image {
        self.look(CAPABILITIES, &REGISTERS)
    }

    fn look(&mut self, config: Range<u16>, parts: &[(u64, u64)]) -> Image {
        let mut bars: [Vec<u64>; 6] = Default::default();
        let present: Vec<_> = self.function.config().bars().collect();
        for (index, bar) in present {
            for (start, end) in parts {
                let part = (*start..bar.size.min(*end)).step_by(8);
                bars[usize::from(index)].extend(part.map(|at| self.bar_u64(index, at)));
            }
        }
        Image {
            config: config.step_by(4).map(|at| self.config_u32(at)).collect(),
            bars,
        }
    }
}
