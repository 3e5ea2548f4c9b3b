//! The machine that a configuration file describes, checked and with every name resolved.
//!
//! Sizes are bytes, latencies nanoseconds, bandwidths GB/s (10^9 bytes per second).

use std::fmt;
use std::path::PathBuf;

use cxl::device::Fault;
use cxl::memdev::dynamic::DynamicRegion;
use devices::Part;
use pci::{LinkSpeed, LinkWidth};

use super::timing::Timing;
use crate::terminal::Target;

/// The handle of the first region of dynamic capacity in CDAT, behind those of volatile and persistent memory.
const FIRST_DYNAMIC_DSMAS: u8 = 2;

/// One host: what [`Config::load`](super::Config::load) makes of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Processors and RAM.
    pub machine: Machine,
    /// What is booted.
    pub boot: Boot,
    /// Where the serial port COM1 goes.
    pub serial: Target,
    /// The control socket; `None`: there is none.
    pub control: Option<PathBuf>,
    /// Whether there is a virtio entropy source.
    pub rng: bool,
    /// virtio block devices, in the order of the file.
    pub disks: Vec<Disk>,
    /// virtio network devices, in the order of the file.
    pub nets: Vec<Net>,
    /// Where each virtio console goes, in the order of the file.
    pub virtio_consoles: Vec<Target>,
    /// CXL host bridges, 0 to 4, in the order of the file.
    pub host_bridges: Vec<HostBridge>,
    /// CXL fixed memory windows, in the order of the file, which is also their order in the address map.
    pub windows: Vec<Window>,
    /// Regions whose decoders the firmware commits, in the order of the file.
    pub regions: Vec<Region>,
    /// Whether the guest feels what its CXL memory would cost.
    pub timing: Timing,
}

/// `[machine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Virtual processors, 1 to 16.
    pub vcpus: u8,
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// RAM comes from the host's reserved 2 MiB pages.
    pub huge_pages: bool,
    /// Whether CPUID tells the guest that it is one; [`Config::hypervisor_bit_is_shown`] resolves `Auto`.
    pub hypervisor_bit: HypervisorBit,
}

/// What the file says of the hypervisor bit, CPUID.1:ECX\[31\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HypervisorBit {
    /// Hidden exactly if a window has capacity left for the user's own regions.
    #[default]
    Auto,
    /// The guest may know.
    Show,
    /// The guest takes itself for bare metal.
    Hide,
}

/// `[boot]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// A bzImage, or an ELF vmlinux with a PVH note.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// `[[disk]]`: a virtio block device over a raw image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
}

/// `[[net]]`: a virtio network device on a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// The host's interface, at most 15 bytes.
    pub tap: String,
    /// The guest's address, a unicast one.
    pub mac: MacAddress,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// `[[host_bridge]]`: a CXL host bridge. Host bridge `i` has the ACPI unique id `i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostBridge {
    /// What windows call it.
    pub name: String,
    /// HDM decoders: 1, 2, 4, 6, 8 or 10.
    pub decoders: usize,
    /// 1 to 16 root ports, in the order of the file. Root port `n` has device number and port number `n`; the port
    /// number (Link Capabilities 31:24) is what decoder target lists name.
    pub root_ports: Vec<Port>,
}

/// A root port, or a downstream port of a switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// For people: messages and the control socket.
    pub name: String,
    /// Link speed.
    pub speed: LinkSpeed,
    /// Link width.
    pub width: LinkWidth,
    /// It has a slot, in which devices come and go while the machine runs.
    pub hot_plug: bool,
    /// What is plugged in.
    pub device: Option<Device>,
}

/// What can be plugged into a port.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    /// An accelerator.
    Type2(Type2),
    /// A memory expander.
    Type3(Type3),
    /// A switch, with more ports.
    Switch(Switch),
}

/// `type = "type2"`: an accelerator.
#[derive(Clone, Debug, PartialEq)]
pub struct Type2 {
    /// For people: messages and the control socket.
    pub name: String,
    /// Device serial number, not 0.
    pub serial: u64,
    /// Bytes of device memory, a multiple of 256 MiB.
    pub memory: u64,
    /// Bytes of the cache that it tells of, a multiple of 1 MiB below 256 MiB.
    pub cache: u64,
    /// What executes its programs.
    pub backend: AcceleratorBackend,
    /// Seconds after which a kernel is ended; `None`: it may run for ever.
    pub watchdog: Option<u64>,
    /// Lines of the host that its snoop filter keeps track of, a multiple of 16.
    pub snoop_filter: u64,
    /// What is known of accesses to its memory.
    pub coherence: Coherence,
    /// What an access of the host to its memory costs.
    pub performance: Performance,
}

/// What is known of accesses to an accelerator's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coherence {
    /// `"mapped"`: nothing; that costs nothing.
    #[default]
    Mapped,
    /// `"observed"`: which pages the guest and the device have come for in an epoch, by page faults.
    Observed,
    /// `"trapped"`: each of them, of the guest by an exit and of a kernel by the interpreter.
    Trapped,
}

/// What executes an accelerator's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceleratorBackend {
    /// PTX on this host's processors.
    Ptx {
        /// Major and minor.
        compute_capability: (u32, u32),
        /// As `cuDriverGetVersion` gives it.
        driver_version: u32,
    },
    /// A GPU of this host.
    Cuda {
        /// The driver's library.
        library: PathBuf,
        /// Which of its devices.
        device: u32,
    },
}

/// `type = "switch"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// For people: messages and the control socket.
    pub name: String,
    /// Device serial number, not 0; `None`: it has none.
    pub serial: Option<u64>,
    /// HDM decoders: 1, 2, 4, 6, 8 or 10.
    pub decoders: usize,
    /// What the way from its upstream port to a downstream port costs.
    pub performance: Performance,
    /// It has a function beside its upstream port with which the host manages it.
    pub mailbox_cci: bool,
    /// 1 to 32 downstream ports, in the order of the file. Port `n` has device number and port number `n`.
    pub ports: Vec<Port>,
}

/// `type = "type3"`: a memory expander.
#[derive(Clone, Debug, PartialEq)]
pub struct Type3 {
    /// What regions call it.
    pub name: String,
    /// Device serial number, not 0.
    pub serial: u64,
    /// Volatile capacity in bytes, a multiple of 256 MiB: the low end of the device's address space.
    pub volatile: u64,
    /// Persistent capacity in bytes, a multiple of 256 MiB, right above the volatile one.
    pub persistent: u64,
    /// Bytes between the two that the guest makes one or the other, persistent at first; a multiple of 256 MiB.
    pub partitionable: u64,
    /// Regions of the device's address space, above the persistent capacity and in this order, in which memory comes and
    /// goes.
    pub dynamic: Vec<DynamicCapacity>,
    /// The file with the device's bytes, the whole address space linear in DPA; `None`: anonymous memory.
    pub backing: Option<PathBuf>,
    /// The label storage area; there is one exactly if there is capacity that is or can be persistent.
    pub labels: Option<LabelStorage>,
    /// Other devices, of this machine or another, may have the same backing.
    pub shared: bool,
    /// HDM decoders: 1, 2, 4, 6, 8 or 10.
    pub decoders: usize,
    /// What an access costs from its port to its medium.
    pub performance: Performance,
    /// It fails from power-on.
    pub fault: Option<Fault>,
    /// Which part of a device that several hosts share this is.
    pub part: Part,
}

impl Type3 {
    /// All bytes that the device always has.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.volatile
            .saturating_add(self.persistent)
            .saturating_add(self.partitionable)
    }

    /// Those, and all that it can be given.
    #[must_use]
    pub fn address_space(&self) -> u64 {
        let dynamic = self.dynamic.iter().map(|region| region.size);
        dynamic.fold(self.capacity(), u64::saturating_add)
    }

    /// Where in the address space the regions of dynamic capacity are.
    #[must_use]
    pub fn dynamic_regions(&self) -> Vec<DynamicRegion> {
        let mut base = self.capacity();
        let regions = (FIRST_DYNAMIC_DSMAS..).zip(&self.dynamic);
        let place = |(dsmas, region): (u8, &DynamicCapacity)| {
            let start = base;
            base = base.saturating_add(region.size);
            DynamicRegion {
                base: start,
                decode_len: region.size,
                len: region.size,
                block_size: region.block_size,
                dsmas,
            }
        };
        regions.map(place).collect()
    }
}

/// A device of which regions can be made: an expander or an accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'c> {
    /// Where it is plugged in.
    pub place: Place,
    /// What regions call it.
    pub name: &'c str,
    /// HDM decoders, one for each region that it is part of.
    pub decoders: usize,
    /// Bytes that are always volatile, from DPA 0 on.
    pub volatile: u64,
    /// Bytes that are always persistent, behind the volatile ones.
    pub persistent: u64,
}

impl Member<'_> {
    /// Bytes that are always of one kind.
    #[must_use]
    pub fn capacity_of(&self, kind: MemoryKind) -> u64 {
        match kind {
            MemoryKind::Volatile => self.volatile,
            MemoryKind::Persistent => self.persistent,
        }
    }
}

/// `[[...device.dynamic_capacity]]`: addresses of a device at which memory comes and goes (CXL 3.1, 9.13.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicCapacity {
    /// Bytes, a multiple of 256 MiB.
    pub size: u64,
    /// Memory comes and goes in multiples of this power of two, from 4 KiB to 256 MiB.
    pub block_size: u64,
}

/// Where a persistent device keeps its namespace labels (CXL 3.1, 8.2.9.9.2.3, Get LSA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelStorage {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// What an access costs inside a device or a switch, as its CDAT tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Performance {
    /// Nanoseconds.
    pub read_latency: u32,
    /// Nanoseconds.
    pub write_latency: u32,
    /// GB/s.
    pub read_bandwidth: f64,
    /// GB/s.
    pub write_bandwidth: f64,
}

/// `[[window]]`: a CXL fixed memory window (CXL 3.1, 9.18.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What regions call it.
    pub name: String,
    /// Bytes, a multiple of 256 MiB times the ways.
    pub size: u64,
    /// Indices of 1 to 4 different host bridges, in interleave order.
    pub targets: Vec<usize>,
    /// Bytes to one target before the next's turn: a power of two from 256 to 16384; times the ways at most 16384.
    pub granularity: u64,
    /// How an address chooses its host bridge.
    pub arithmetic: Arithmetic,
    /// Volatile regions may lie in it.
    pub volatile: bool,
    /// Persistent regions may lie in it.
    pub persistent: bool,
    /// QoS throttling group.
    pub qtg: u16,
}

impl Window {
    /// Number of host bridges it interleaves over: 1 to 4.
    #[must_use]
    pub fn ways(&self) -> usize {
        self.targets.len()
    }

    /// Whether a region of this kind may lie in it.
    #[must_use]
    pub fn allows(&self, kind: MemoryKind) -> bool {
        match kind {
            MemoryKind::Volatile => self.volatile,
            MemoryKind::Persistent => self.persistent,
        }
    }
}

/// Interleave arithmetic (CXL 3.1, 9.18.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// The targets take turns.
    #[default]
    Modulo,
    /// Parities of address bits choose, so that strides of a power of two reach all targets.
    Xor,
}

/// The two kinds of memory that a Type 3 device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    /// Lost with the power.
    Volatile,
    /// Kept.
    Persistent,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "volatile",
            Self::Persistent => "persistent",
        })
    }
}

/// `[[region]]`: an interleave set that the firmware commits before boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// For people: messages and the control socket.
    pub name: String,
    /// Index of the window that it lies in.
    pub window: usize,
    /// Bytes, a multiple of 256 MiB times the number of devices.
    pub size: u64,
    /// Which part of the devices it takes.
    pub kind: MemoryKind,
    /// The ports with its devices: position 0 first.
    pub devices: Vec<Place>,
    /// Bytes on one device before the next's turn.
    pub granularity: u64,
    /// Its decoders stay as they are until the next reset (Lock On Commit).
    pub lock: bool,
    /// The memory map says that it is there, for drivers to use (`EFI_MEMORY_SP`).
    pub soft_reserved: bool,
}

impl Region {
    /// Number of devices: 1, 2, 3, 4, 6, 8, 12 or 16.
    #[must_use]
    pub fn ways(&self) -> usize {
        self.devices.len()
    }

    /// Bytes that it takes of each device.
    #[must_use]
    pub fn size_per_device(&self) -> u64 {
        self.size / (self.devices.len() as u64).max(1)
    }
}

/// A port, and so the device at it, by place in the file; or a host bridge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the host bridge.
    pub host_bridge: usize,
    /// Index of the root port, and then of the downstream port of each switch on the way; empty for the host bridge.
    pub ports: Vec<usize>,
}

impl Place {
    /// The host bridge with this index.
    #[must_use]
    pub fn host_bridge(host_bridge: usize) -> Self {
        Self {
            host_bridge,
            ports: Vec::new(),
        }
    }

    /// Port `index` of the host bridge, or of the switch, that is at this place.
    #[must_use]
    pub fn below(&self, index: usize) -> Self {
        let mut place = self.clone();
        place.ports.push(index);
        place
    }

    /// The host bridge and each switch on the way to it, with the index of the port that leads on.
    pub fn way(&self) -> impl Iterator<Item = (Self, usize)> + '_ {
        let ports = self.ports.iter().enumerate();
        ports.map(|(depth, &port)| {
            let above = Self {
                host_bridge: self.host_bridge,
                ports: self.ports[..depth].to_vec(),
            };
            (above, port)
        })
    }
}

impl Config {
    /// All root ports and downstream ports with their places, in the order of the file.
    #[must_use]
    pub fn ports(&self) -> Vec<(Place, &Port)> {
        fn walk<'c>(above: &Place, ports: &'c [Port], found: &mut Vec<(Place, &'c Port)>) {
            for (index, port) in ports.iter().enumerate() {
                let place = above.below(index);
                found.push((place.clone(), port));
                if let Some(Device::Switch(switch)) = &port.device {
                    walk(&place, &switch.ports, found);
                }
            }
        }
        let mut found = Vec::new();
        for (index, bridge) in self.host_bridges.iter().enumerate() {
            walk(&Place::host_bridge(index), &bridge.root_ports, &mut found);
        }
        found
    }

    /// All expanders with their places, in the order of the file.
    pub fn devices(&self) -> impl Iterator<Item = (Place, &Type3)> {
        let ports = self.ports().into_iter();
        ports.filter_map(|(place, port)| match &port.device {
            Some(Device::Type3(device)) => Some((place, device)),
            _ => None,
        })
    }

    /// All accelerators with their places, in the order of the file.
    pub fn accelerators(&self) -> impl Iterator<Item = (Place, &Type2)> {
        let ports = self.ports().into_iter();
        ports.filter_map(|(place, port)| match &port.device {
            Some(Device::Type2(device)) => Some((place, device)),
            _ => None,
        })
    }

    /// All devices of which regions can be made: the expanders, then the accelerators.
    #[must_use]
    pub fn members(&self) -> Vec<Member<'_>> {
        let expanders = self.devices().map(|(place, device)| Member {
            place,
            name: &device.name,
            decoders: device.decoders,
            volatile: device.volatile,
            persistent: device.persistent,
        });
        let accelerators = self.accelerators().map(|(place, device)| Member {
            place,
            name: &device.name,
            decoders: devices::ACCELERATOR_DECODERS,
            volatile: device.memory,
            persistent: 0,
        });
        expanders.chain(accelerators).collect()
    }

    /// What regions call the device at a port.
    pub(super) fn member_name(&self, place: &Place) -> &str {
        let mut members = self.members().into_iter();
        members
            .find(|member| member.place == *place)
            .map_or("", |member| member.name)
    }

    /// Whether a region is memory of an accelerator's.
    #[must_use]
    pub fn is_accelerators(&self, region: &Region) -> bool {
        self.accelerators()
            .any(|(place, _)| region.devices.contains(&place))
    }

    /// All switches with their places, in the order of the file.
    pub fn switches(&self) -> impl Iterator<Item = (Place, &Switch)> {
        let ports = self.ports().into_iter();
        ports.filter_map(|(place, port)| match &port.device {
            Some(Device::Switch(switch)) => Some((place, switch)),
            _ => None,
        })
    }

    /// The expander at a port.
    #[must_use]
    pub fn device(&self, place: &Place) -> Option<&Type3> {
        self.devices()
            .find_map(|(at, device)| (at == *place).then_some(device))
    }

    /// The switch at a port.
    #[must_use]
    pub fn switch(&self, place: &Place) -> Option<&Switch> {
        self.switches()
            .find_map(|(at, switch)| (at == *place).then_some(switch))
    }

    /// Bytes of window `index` that no region of the file takes.
    #[must_use]
    pub fn free_in_window(&self, index: usize) -> u64 {
        let taken = self
            .regions
            .iter()
            .filter(|region| region.window == index)
            .fold(0_u64, |sum, region| sum.saturating_add(region.size));
        self.windows
            .get(index)
            .map_or(0, |window| window.size.saturating_sub(taken))
    }

    /// Whether CPUID.1:ECX\[31\] is set.
    ///
    /// Linux refuses to commit a region while it sees the bit, since it cannot know that its cache flush works; regions
    /// that the firmware committed need no flush. So `Auto` hides the bit exactly if a window has room for regions that
    /// the user would make.
    #[must_use]
    pub fn hypervisor_bit_is_shown(&self) -> bool {
        match self.machine.hypervisor_bit {
            HypervisorBit::Show => true,
            HypervisorBit::Hide => false,
            HypervisorBit::Auto => (0..self.windows.len()).all(|i| self.free_in_window(i) == 0),
        }
    }
}
