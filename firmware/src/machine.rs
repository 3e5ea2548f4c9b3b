//! The plain description of a machine that the tables are made from.
//!
//! Addresses and sizes are bytes, latencies nanoseconds, bandwidths GB/s (10^9 bytes per second).

/// One host, as its firmware sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The vCPUs; the position is the ACPI processor UID.
    pub cpus: Vec<Cpu>,
    /// The guest's own RAM. The range at address 0 reaches beyond 1 MiB.
    pub ram: Vec<Ram>,
    /// The enhanced configuration access window.
    pub ecam: Ecam,
    /// The ordinary root complex and the CXL host bridges.
    pub pci_roots: Vec<PciRoot>,
    /// CXL fixed memory windows, in the order in which CEDT lists them.
    pub fixed_windows: Vec<FixedWindow>,
    /// How far each memory or generic port is from each initiator. Empty: no HMAT.
    pub localities: Vec<Locality>,
    /// The QoS throttling groups, fastest first, for ACPI0017's `_DSM`. Empty: the groups of
    /// the fixed windows, in ascending order and whatever the access costs.
    pub qos_classes: Vec<QosClass>,
    /// Memory present at boot that the operating system shall leave to its drivers
    /// (`EFI_MEMORY_SP`): the regions whose decoders firmware has committed.
    pub soft_reserved: Vec<Range>,
    /// Fixed ports, interrupt controllers and interrupt numbers.
    pub chipset: Chipset,
}

impl Machine {
    /// Every proximity domain that the description names.
    pub(crate) fn proximity_domains(&self) -> impl Iterator<Item = u32> {
        let cpus = self.cpus.iter().map(|cpu| cpu.proximity_domain);
        let ram = self.ram.iter().map(|ram| ram.proximity_domain);
        let windows = self
            .fixed_windows
            .iter()
            .filter_map(|window| window.proximity_domain);
        let roots = self.pci_roots.iter().map(|root| root.proximity_domain);
        let ports = self.pci_roots.iter().filter_map(|root| match root.kind {
            PciRootKind::Cxl {
                generic_port_domain,
                ..
            } => Some(generic_port_domain),
            PciRootKind::Pcie { .. } => None,
        });
        let lines = self
            .localities
            .iter()
            .flat_map(|line| [line.initiator, line.target]);
        cpus.chain(ram)
            .chain(windows)
            .chain(roots)
            .chain(ports)
            .chain(lines)
    }
}

/// A stretch of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub base: u64,
    /// Length in bytes, not 0.
    pub size: u64,
}

impl Range {
    /// The address after the last byte.
    pub(crate) fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// Whether `other` lies wholly within this range.
    pub(crate) fn contains(self, other: Range) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// The last byte.
    pub(crate) fn last(self) -> u64 {
        self.end().saturating_sub(1)
    }
}

/// One vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Local APIC id; above 254 the tables use the x2APIC structures.
    pub apic_id: u32,
    /// The NUMA node it belongs to.
    pub proximity_domain: u32,
}

/// A stretch of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ram {
    /// Where it is.
    pub range: Range,
    /// The NUMA node it belongs to.
    pub proximity_domain: u32,
}

/// The memory-mapped configuration space of PCI segment 0 (PCI Firmware Specification 3.3, section 4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecam {
    /// Address of bus 0, 1 MiB for each bus.
    pub base: u64,
    /// First bus served.
    pub first_bus: u8,
    /// Last bus served.
    pub last_bus: u8,
}

impl Ecam {
    /// The addresses that it answers.
    pub(crate) fn range(self) -> Range {
        const BYTES_PER_BUS: u64 = 1 << 20;
        let buses = u64::from(self.last_bus.saturating_sub(self.first_bus)) + 1;
        let base = self
            .base
            .saturating_add(u64::from(self.first_bus) * BYTES_PER_BUS);
        Range {
            base,
            size: buses * BYTES_PER_BUS,
        }
    }
}

/// A PCI root: everything below it has bus numbers and windows out of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciRoot {
    /// `_UID`; for a CXL host bridge also its name in CEDT, SRAT and interleave targets.
    pub uid: u32,
    /// First bus (`_BBN`).
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
    /// `_PXM`: the NUMA node whose processors are nearest.
    pub proximity_domain: u32,
    /// Window for 32-bit BARs, below 4 GiB.
    pub mmio32: Option<Range>,
    /// Window for 64-bit prefetchable BARs.
    pub mmio64: Option<Range>,
    /// Whether the operating system gets native PCI Express hot-plug.
    pub hotplug: bool,
    /// Ordinary or CXL.
    pub kind: PciRootKind,
}

/// What sort of root it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciRootKind {
    /// An ordinary root complex, PNP0A08.
    Pcie {
        /// First and last I/O port of each range handed down; the configuration ports 0xCF8 to 0xCFF stay out.
        io: Vec<(u16, u16)>,
        /// Whether it decodes the configuration ports 0xCF8 to 0xCFF.
        config_ports: bool,
    },
    /// A CXL host bridge, ACPI0016.
    Cxl {
        /// The host bridge component registers, 64 KiB.
        chbcr: u64,
        /// The proximity domain of its generic port, used for nothing else.
        generic_port_domain: u32,
    },
}

impl PciRoot {
    /// Whether it is a CXL host bridge.
    pub(crate) fn is_cxl(&self) -> bool {
        matches!(self.kind, PciRootKind::Cxl { .. })
    }
}

/// A CXL fixed memory window (CXL 3.1 section 9.18.1.3, CFMWS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWindow {
    /// Where it is: base aligned to 256 MiB, size a multiple of 256 MiB times the ways.
    pub range: Range,
    /// UIDs of the host bridges that it interleaves over, in order.
    pub targets: Vec<u32>,
    /// Bytes to one target before the next, a power of two from 256 to 16384.
    pub granularity: u64,
    /// How an address chooses its target.
    pub arithmetic: Arithmetic,
    /// What the window may be used for.
    pub restrictions: WindowRestrictions,
    /// QoS throttling group.
    pub qtg: u16,
    /// The NUMA node that SRAT gives the window; `None` leaves it to the operating system,
    /// which makes one for each window.
    pub proximity_domain: Option<u32>,
}

/// Interleave arithmetic of a window (CXL 3.1 sections 9.18.1.3 and 9.18.1.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// The targets take turns.
    #[default]
    Modulo,
    /// Each address bit that chooses among the targets is the parity of the bits in its map, the lowest one's first. Windows
    /// of one granularity have one list of maps, of which each takes as many as it has such bits.
    Xor(Vec<u64>),
}

/// Window restrictions (CXL 3.1 table 9-22).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowRestrictions {
    /// Device-coherent (HDM-D) memory allowed: Type 2.
    pub device_coherent: bool,
    /// Host-only coherent (HDM-H) memory allowed: Type 3.
    pub host_only_coherent: bool,
    /// Volatile memory allowed.
    pub volatile: bool,
    /// Persistent memory allowed.
    pub persistent: bool,
    /// The decoders in it shall stay as firmware left them.
    pub fixed: bool,
    /// Back-invalidate (HDM-DB) memory allowed.
    pub back_invalidate: bool,
}

/// What an access costs from an initiator to a target, unloaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Performance {
    /// Nanoseconds.
    pub read_latency: f64,
    /// Nanoseconds.
    pub write_latency: f64,
    /// GB/s.
    pub read_bandwidth: f64,
    /// GB/s.
    pub write_bandwidth: f64,
}

/// A line of HMAT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Locality {
    /// Proximity domain of processors.
    pub initiator: u32,
    /// Proximity domain of RAM, or of a generic port.
    pub target: u32,
    /// What it costs.
    pub performance: Performance,
}

/// A QoS throttling group and the slowest memory that still belongs to it (CXL 3.1 section 9.18.3.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QosClass {
    /// The group, as in [`FixedWindow::qtg`].
    pub qtg: u16,
    /// Highest latencies and lowest bandwidths, from the processor to the medium.
    pub slowest: Performance,
}

/// The fixed hardware beside PCI. [`Chipset::default`] is what `memu-vmm` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chipset {
    /// Local APICs.
    pub local_apic: u32,
    /// I/O APIC with GSIs 0 to 23.
    pub ioapic: u32,
    /// The system control interrupt: GSI, level-triggered, active high.
    pub sci: u8,
    /// PM1a event block: status (2 bytes), enable (2 bytes).
    pub pm1a_event: u16,
    /// PM1a control (2 bytes); SCI_EN reads as 1.
    pub pm1a_control: u16,
    /// 24-bit timer of 3.579545 MHz (4 bytes).
    pub pm_timer: u16,
    /// Reset port; [`crate::RESET_VALUE`] written to it resets the machine.
    pub reset: u16,
    /// COM1, with IRQ 4.
    pub com1: u16,
    /// Index port of the CMOS clock; the data port follows.
    pub rtc: u16,
}

impl Default for Chipset {
    fn default() -> Self {
        Self {
            local_apic: 0xFEE0_0000,
            ioapic: 0xFEC0_0000,
            sci: 9,
            pm1a_event: 0x600,
            pm1a_control: 0x604,
            pm_timer: 0x608,
            reset: 0xCF9,
            com1: 0x3F8,
            rtc: 0x70,
        }
    }
}
