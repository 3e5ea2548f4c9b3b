//! What goes over the control socket. Addresses and sizes are bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the processors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// They run.
    Running,
    /// They stand still and can go on.
    Paused,
    /// They have ended or are about to.
    Stopped,
}

/// The machine as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the processors do.
    pub state: RunState,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// RAM.
    pub memory: u64,
    /// Whether CPUID tells the guest that it is one.
    pub hypervisor_bit: bool,
    /// The VMM's process.
    pub pid: u32,
}

/// Everything on the buses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Functions of the ordinary root complex.
    pub functions: Vec<Function>,
    /// CXL host bridges with all below them.
    pub host_bridges: Vec<HostBridge>,
    /// CXL fixed memory windows.
    pub windows: Vec<Window>,
}

/// A function of the ordinary root complex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its address, such as `00:02.0`.
    pub bdf: String,
    /// What it is.
    pub name: String,
}

/// A CXL host bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBridge {
    /// Its name in the configuration.
    pub name: String,
    /// `_UID` of its ACPI0016.
    pub uid: u32,
    /// First bus below it.
    pub first_bus: u8,
    /// Last bus below it.
    pub last_bus: u8,
    /// Address of its component registers (CHBCR).
    pub component_registers: u64,
    /// Committed decoders.
    pub decoders: Vec<Decoder>,
    /// Its root ports.
    pub root_ports: Vec<Port>,
}

/// A root port, or a downstream port of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub bdf: String,
    /// What decoders' target lists call it.
    pub port_number: u8,
    /// Speed and width of its link, such as `32GT/s x16`.
    pub link: String,
    /// Its slot, if devices can come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Protocol errors that it has met and software has not cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What is behind it.
    pub device: Option<Device>,
}

/// What is plugged into a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Device {
    /// An accelerator.
    Type2(Type2),
    /// A memory expander.
    Type3(Type3),
    /// A switch.
    Switch(Switch),
}

/// The slot of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number in the machine, which the guest calls it by.
    pub number: u16,
    /// The guest gives it power.
    pub powered: bool,
    /// What the attention indicator shows: `on`, `blinking` or `off`.
    pub attention: String,
    /// What the power indicator shows.
    pub power: String,
}

/// A device for the slot of a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDevice {
    /// The port.
    pub port: String,
    /// The device, with the keys that it would have in the configuration file.
    pub device: toml::Table,
    /// Relative paths in it are relative to this file, which messages name; without it they are relative to the VMM's
    /// working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// How a device leaves its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The button is pressed, and the device taken out when the guest has switched the slot off.
    Orderly,
    /// It is pulled out at once.
    Surprise,
}

/// A Type 2 device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type2 {
    /// Its name in the configuration.
    pub name: String,
    /// Its address as the guest has numbered the buses.
    pub bdf: String,
    /// Its serial number in hexadecimal: JSON's numbers would round it.
    pub serial: String,
    /// Bytes of device memory.
    pub memory: u64,
    /// Protocol errors that it has met and software has not cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Committed decoders.
    pub decoders: Vec<Decoder>,
}

/// A Type 3 device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type3 {
    /// Its name in the configuration.
    pub name: String,
    /// Its address as the guest has numbered the buses.
    pub bdf: String,
    /// Its serial number in hexadecimal: JSON's numbers would round it.
    pub serial: String,
    /// Volatile capacity.
    pub volatile: u64,
    /// Persistent capacity.
    pub persistent: u64,
    /// What is wrong with it: faults, poison, and protocol errors that software has not cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Regions of dynamic capacity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic: Vec<DynamicRegion>,
    /// The extents of them that the guest has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extents: Vec<Extent>,
    /// Those that it has been offered and has not answered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offered: Vec<Extent>,
    /// Committed decoders.
    pub decoders: Vec<Decoder>,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Its name in the configuration.
    pub name: String,
    /// The address of its upstream port as the guest has numbered the buses.
    pub bdf: String,
    /// Protocol errors that its upstream port has met and software has not cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Committed decoders.
    pub decoders: Vec<Decoder>,
    /// Its downstream ports.
    pub ports: Vec<Port>,
}

/// A committed HDM decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    /// Which of the component's.
    pub index: usize,
    /// First address.
    pub hpa: u64,
    /// Length.
    pub size: u64,
    /// Interleave ways.
    pub ways: u64,
    /// Interleave granularity.
    pub granularity: u64,
    /// Port numbers in interleave order; a device's decoder has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<u8>,
    /// First address in the device; a bridge's decoder has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpa: Option<u64>,
}

/// A fixed memory window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its name in the configuration.
    pub name: String,
    /// First address.
    pub hpa: u64,
    /// Length.
    pub size: u64,
    /// Names of its host bridges in interleave order.
    pub targets: Vec<String>,
    /// Interleave granularity.
    pub granularity: u64,
    /// Bytes of it that are mapped into the guest.
    pub mapped: u64,
    /// What is mapped, by ascending address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
    /// Accesses to parts that no committed decoders lead to: reads gave all ones, writes were dropped.
    pub uncommitted_accesses: u64,
}

/// A range of a window that committed decoders lead to devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First address.
    pub hpa: u64,
    /// Length.
    pub size: u64,
    /// Interleave granularity.
    pub granularity: u64,
    /// Names of its devices in interleave order.
    pub devices: Vec<String>,
}

/// A KVM memory slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memslot {
    /// KVM's number.
    pub slot: u32,
    /// What is mapped: `ram`, or names of devices.
    pub name: String,
    /// Where the guest sees it.
    pub hpa: u64,
    /// Length.
    pub size: u64,
    /// Where it begins in its file.
    pub offset: u64,
    /// The guest cannot write without an exit.
    pub read_only: bool,
}

/// How often the guest was left since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// All of them.
    pub total: u64,
    /// By cause.
    pub causes: BTreeMap<String, u64>,
    /// By the device that answered; exits that concern none are in no entry.
    pub devices: BTreeMap<String, u64>,
}

/// What the guest is made to feel of its CXL memory. Times are nanoseconds of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// What delays are made of, as in the configuration.
    pub clock: String,
    /// The model's topology, as `memsim -o` takes it.
    pub topology: String,
    /// Where access counts come from, and what that costs.
    pub source: String,
    /// How far off they may be.
    pub error: String,
    /// A load from the host's own memory; what a path costs more is what the guest is delayed by.
    pub local_latency: f64,
    /// Whether that was measured or given.
    pub local_latency_measured: bool,
    /// Reckonings so far.
    pub epochs: u64,
    /// Those in which some path was faster than the host's own memory, which no delay can show.
    pub not_representable: u64,
    /// Time for which the guest ran.
    pub ran: f64,
    /// All delay that the model has asked for.
    pub added: f64,
    /// What of it the guest has lost by now.
    pub paid: f64,
    /// What it has not: `added` is `paid` and `owed` together.
    pub owed: f64,
    /// What the guest lost beyond it.
    pub overhead: f64,
    /// Misses of a vCPU under way at once, in the latest reckoning.
    pub parallelism: f64,
    /// The expanders, in the order of the configuration.
    pub devices: Vec<TimedDevice>,
}

/// An expander as the model sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimedDevice {
    /// Its name in the configuration.
    pub device: String,
    /// A read with nothing else under way.
    pub idle_latency: f64,
    /// A read in the latest reckoning.
    pub latency: f64,
    /// Lines of 64 bytes that the guest has read, as far as is known.
    pub lines: f64,
    /// GB/s, in the latest reckoning.
    pub bandwidth: f64,
    /// GB/s of other machines that share it, as they said at that time.
    pub others: f64,
}

/// Bytes of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Its name in the configuration.
    pub device: String,
    /// First address in the device.
    pub dpa: u64,
    /// The bytes, two hexadecimal digits each.
    pub data: String,
}

/// A request to let something go wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Name of a device, port or switch.
    pub target: String,
    /// What happens to it.
    pub what: Injection,
}

/// What can go wrong with a component, or be put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Injection {
    /// Lines of a device's media go bad: a load of them is a machine check.
    Poison {
        /// First device address, a multiple of 64.
        dpa: u64,
        /// Bytes, a multiple of 64.
        length: u64,
    },
    /// Lines of a device's media are good again, with the bytes that they had.
    ClearPoison {
        /// First device address, a multiple of 64.
        dpa: u64,
        /// Bytes, a multiple of 64.
        length: u64,
    },
    /// A correctable error on CXL.cache or CXL.mem (CXL 3.1 section 8.2.4.17.4).
    Correctable {
        /// A name of [`cxl::component::CorrectableError::NAMES`].
        error: String,
    },
    /// An uncorrectable error on CXL.cache or CXL.mem (CXL 3.1 section 8.2.4.17.1).
    Uncorrectable {
        /// A name of [`cxl::component::UncorrectableError::NAMES`].
        error: String,
        /// First dwords of the header log.
        #[serde(default)]
        header: Vec<u32>,
    },
    /// A general media event record (CXL 3.1 table 8-43).
    MediaEvent {
        /// The log it goes to.
        severity: EventSeverity,
        /// Device address, a multiple of 64.
        dpa: u64,
    },
    /// A DRAM event record (CXL 3.1 table 8-44).
    DramEvent {
        /// The log it goes to.
        severity: EventSeverity,
        /// Device address, a multiple of 64.
        dpa: u64,
        /// Where in the DRAM: bank.
        bank: Option<u8>,
        /// Row, 24 bits.
        row: Option<u32>,
        /// Column.
        column: Option<u16>,
    },
    /// The device goes viral, if the guest has enabled that: its memory is out of reach until a reset.
    Viral,
    /// The link below a port goes down, and what is behind it is reset; a fault of `None` lets it train again.
    LinkDown,
    /// The device fails, or works again.
    Fault {
        /// A name of [`cxl::device::Fault::NAMES`]; `None`: it works.
        fault: Option<String>,
    },
    /// The health changes; what is worse than its thresholds is logged in memory module event records (CXL 3.1 table 8-45).
    Health {
        /// Degrees Celsius.
        temperature: Option<i16>,
        /// Percent of the life that is used.
        life_used: Option<u8>,
    },
}

/// A request to give memory to a device, or to take some away (CXL 3.1 section 9.13.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeExtents {
    /// Name of the device.
    pub device: String,
    /// What changes.
    pub change: ExtentChange,
}

/// What becomes of extents of dynamic capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ExtentChange {
    /// They are offered together: the guest accepts what it wants of them, and the rest is forgotten.
    Add(Vec<Extent>),
    /// The guest is asked to release one, or part of one.
    Release(Extent),
    /// It is taken away, whatever the guest does with it.
    Take(Extent),
}

/// A range of dynamic capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// First device address, at the beginning of a block.
    pub dpa: u64,
    /// Bytes, whole blocks.
    pub length: u64,
    /// What its owner calls it: up to 16 bytes, two hexadecimal digits each.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

/// A region of dynamic capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicRegion {
    /// First device address.
    pub dpa: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes of which extents are multiples.
    pub block_size: u64,
}

/// The logs of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventSeverity {
    /// Informational.
    Informational,
    /// Warning.
    Warning,
    /// Failure.
    Failure,
    /// Fatal.
    Fatal,
}

/// Why a request failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}; {mend}")]
pub struct Failure {
    /// What sort of failure: the status of the answer, and no part of its body.
    #[serde(skip)]
    pub kind: FailureKind,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

impl Failure {
    /// A failure of one of the kinds.
    pub fn new(kind: FailureKind, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            mend: mend.into(),
        }
    }
}

/// The sorts of failure that a machine answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureKind {
    /// 400: a parameter is out of range.
    BadRequest,
    /// 404: there is no such thing.
    NotFound,
    /// 409: not in this state.
    Conflict,
    /// 500: the host refused.
    #[default]
    Internal,
}

/// An accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name in the configuration.
    pub name: String,
    /// What it calls itself.
    pub model: String,
    /// `ptx` or `cuda`.
    pub backend: String,
    /// Such as `7.5`.
    pub compute_capability: String,
    /// As `cuDriverGetVersion` gives it.
    pub driver_version: u32,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes that nobody owns.
    pub free: u64,
    /// What the host and it had to tell each other about its memory: the counters that
    /// [`STATISTICS`](devices::gpu::protocol::spec::STATISTICS) names, `granule` among them, which says what they count.
    pub coherence: BTreeMap<String, u64>,
    /// Its clients.
    pub sessions: Vec<GpuSession>,
}

/// The first line of a trace of the coherence protocol. Each other line is a [`cxl::coherence::Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuTrace {
    /// Name of the accelerator in the configuration.
    pub device: String,
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes of a line: 64, or 4096 where pages take the place of lines.
    pub granule: u64,
    /// Lines that the device's cache holds, and the ways of its sets; `null` for all.
    pub cache: Option<(usize, usize)>,
    /// Lines of the host that the snoop filter keeps track of, and the ways of its sets; `null` for all.
    pub snoop_filter: Option<(usize, usize)>,
    /// Number of the oldest step that is kept; 0 while none had to go.
    pub first: u64,
    /// Number of the step that comes next.
    pub next: u64,
    /// The counters behind the last step before `next`.
    pub counters: BTreeMap<String, u64>,
}

/// A client of an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSession {
    /// Its number; 0 is the context of version 1 of the command protocol.
    pub number: u32,
    /// Commands of its queues that are completed.
    pub commands: u64,
    /// Kernels that were launched.
    pub launches: u64,
    /// ns that they ran.
    pub kernel_time: u64,
    /// Bytes of device memory that are its own.
    pub memory: u64,
    /// Bytes copied to the device.
    pub bytes_in: u64,
    /// Bytes copied from the device.
    pub bytes_out: u64,
    /// Modules that are loaded.
    pub modules: usize,
    /// Functions that were looked up in them.
    pub functions: usize,
    /// Ranges of its memory that it has registered.
    pub regions: usize,
    /// Its queues.
    pub queues: Vec<GpuQueue>,
    /// Its kernels by name.
    pub kernels: Vec<GpuKernel>,
}

/// A queue of an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuQueue {
    /// Its number.
    pub number: u32,
    /// Entries of its rings.
    pub depth: u32,
    /// Commands that are completed, modulo 2^32.
    pub completed: u32,
    /// Commands that were submitted and are not completed.
    pub waiting: u32,
    /// How often it was woken: by its client's doorbell, each time an exit that KVM itself handles, or by the device.
    pub doorbells: u64,
    /// How often it has interrupted its client.
    pub interrupts: u64,
    /// What is executed now.
    pub opcode: Option<u16>,
    /// ns since that began.
    pub since: Option<u64>,
}

/// A kernel that a client has launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuKernel {
    /// Its name.
    pub name: String,
    /// How often it was launched.
    pub launches: u64,
    /// ns that it ran.
    pub time: u64,
}
