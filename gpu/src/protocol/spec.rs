//! The accelerator's interface to its guest, as numbers: what a driver needs and nothing else.
//!
//! This file uses nothing but `core`, so a guest's programs may include it. All numbers are little-endian.
//!
//! # BAR 2, the command window
//!
//! | offset | what | reached by |
//! |---|---|---|
//! | [`REGISTERS`] | registers of version 1 and of version 2 | each access is an exit |
//! | [`DATA`] | data buffer of version 1, 60 KiB | memory |
//! | [`DOORBELLS`] | a page for each queue of version 2; a store of 4 bytes at its start is a doorbell | ioeventfd |
//!
//! BAR 0 holds the component registers and, at [`MSIX_TABLE`], the vectors. BAR 4 is device memory: its byte 0 is device
//! address [`MEMORY_BASE`] for allocations that were made with [`flags::MAPPABLE`].
//!
//! # Version 1
//!
//! One command at a time: write `PARAM0` to `PARAM7` and the data buffer, write [`reg::CMD`], poll [`reg::CMD_STATUS`] until it
//! is [`cmd_status::COMPLETE`], read [`reg::CMD_RESULT`] (a `CUresult`) and `RESULT0` to `RESULT3`. Register accesses are
//! naturally aligned; 64-bit registers may be accessed by halves.
//!
//! # Version 2
//!
//! Offered where [`reg::VERSION_MAX`] is at least [`VERSION_2`], and on after [`reg::VERSION_SELECT`] was written with it. Version
//! 1 goes on beside it. Who may use what follows from who can reach it:
//!
//! * The **kernel** owns the register page. With [`reg::CONTROL`] it opens a *session* for each client, gives it *queues* and
//!   *regions*, and pins ranges of device memory that the client maps. The outcome is there when the write returns.
//! * A **client** owns its rings and its doorbell pages. It names guest memory only by region and offset, so it reaches what
//!   the kernel has registered for its session, and nothing else.
//!
//! A session is one CUDA context: memory, modules and functions are its own, a fault ends it (every later command answers the
//! fault's number), and closing it frees everything. Commands of a queue run one after the other, queues beside each other.
//!
//! ## A queue's memory
//!
//! [`ring_bytes`] bytes of guest memory, contiguous and page-aligned: [`ring`] indices, `depth` [`Submission`]s, `depth`
//! [`Completion`]s. Indices count entries since the queue was made and wrap at 2^32; entry `i` is in slot `i % depth`.
//!
//! To submit: write the entry at `SQ_TAIL`, store `SQ_TAIL + 1` (release), then a full fence, then load `WANT_DOORBELL`, and ring
//! the doorbell if it is not 0. To reap: load `CQ_TAIL` (acquire), read entries up to it, store `CQ_HEAD` (release), fence, and ring
//! if `WANT_DOORBELL` is not 0 (the device waits when there is no room for another completion). To sleep: store 1 to
//! `WANT_INTERRUPT`, fence, look at `CQ_TAIL` once more, wait for the queue's vector; store 0 on waking. `SQ_HEAD` is the number of
//! commands that have been completed. A queue whose indices make no sense stops: `STATUS` then holds a `CUresult`, and the
//! vector fires.

/// Vendor and device of the PCI function.
pub const PCI_VENDOR: u16 = 0x8086;
pub const PCI_DEVICE: u16 = 0x0d92;
/// Processing accelerator, so that no driver for memory devices binds.
pub const PCI_CLASS: u32 = 0x12_0000;

/// The window with the component registers and the vectors, the command window, and device memory.
pub const COMPONENT_BAR: u8 = 0;
pub const COMMAND_BAR: u8 = 2;
pub const MEMORY_BAR: u8 = 4;

/// In BAR 0, behind the component registers.
pub const COMPONENT_BAR_SIZE: u64 = 0x2_0000;
pub const MSIX_TABLE: u32 = 0x1_0000;
pub const MSIX_PBA: u32 = 0x1_1000;
/// One vector for each queue; which one is said when the queue is made.
pub const VECTORS: u16 = QUEUES as u16;

/// Offsets in BAR 2, and its size.
pub const REGISTERS: u64 = 0;
pub const DATA: u64 = 0x1000;
pub const DOORBELLS: u64 = 0x4_0000;
pub const COMMAND_BAR_SIZE: u64 = 0x8_0000;

/// Bytes of the register page and of the data buffer.
pub const REGISTERS_SIZE: u64 = 0x1000;
pub const DATA_SIZE: u64 = 0xf000;
/// Distance of two doorbells.
pub const DOORBELL_STRIDE: u64 = 0x1000;

/// Device address of the first byte of device memory.
pub const MEMORY_BASE: u64 = 0x7000_0000_0000;
/// Granule of mappable allocations.
pub const PAGE: u64 = 0x1000;

/// "CXL2".
pub const MAGIC: u32 = 0x4358_4c32;
pub const VERSION_1: u32 = 0x0001_0000;
pub const VERSION_2: u32 = 0x0002_0000;

/// Queues of the device.
pub const QUEUES: u32 = 64;
/// Sessions at a time, besides the one of version 1.
pub const SESSIONS: u32 = 64;
/// Entries of a ring: a power of two in this range.
pub const MIN_DEPTH: u32 = 64;
pub const MAX_DEPTH: u32 = 4096;
/// Regions of a session at a time.
pub const REGIONS: u32 = 1024;
/// [`Segment`]s of one region; all regions together may have [`DEVICE_SEGMENTS`].
pub const REGION_SEGMENTS: u64 = 1 << 18;
pub const DEVICE_SEGMENTS: u64 = 1 << 22;
/// Bytes of the text of a module, and of all that are loaded at a time; bytes of a symbol's name.
pub const MAX_MODULE: u32 = 16 << 20;
pub const DEVICE_MODULES: u64 = 128 << 20;
pub const MAX_NAME: u32 = 4096;
/// Modules and functions of a session at a time, each.
pub const HANDLES: usize = 1 << 16;
/// Bytes of a kernel's parameters.
pub const MAX_PARAMS: u32 = 32764;

/// Registers, as offsets in the register page.
pub mod reg {
    /// [`super::MAGIC`]. 32 bits, read only.
    pub const MAGIC: u64 = 0x000;
    /// [`super::VERSION_1`], always. 32 bits, read only.
    pub const VERSION: u64 = 0x004;
    /// Bits of [`super::status`]. 32 bits, read only.
    pub const STATUS: u64 = 0x008;
    /// A write starts a command of [`super::cmd`]; none starts while one runs. 32 bits.
    pub const CMD: u64 = 0x010;
    /// One of [`super::cmd_status`]. 32 bits, read only.
    pub const CMD_STATUS: u64 = 0x014;
    /// `CUresult` of the last command. 32 bits, read only.
    pub const CMD_RESULT: u64 = 0x018;
    /// `PARAM0` to `PARAM7`, 64 bits each.
    pub const PARAM0: u64 = 0x040;
    pub const PARAMS: usize = 8;
    /// `RESULT0` to `RESULT3`, 64 bits each, read only.
    pub const RESULT0: u64 = 0x080;
    pub const RESULTS: usize = 4;
    /// 64 bytes of text, NUL-padded, read only.
    pub const DEV_NAME: u64 = 0x100;
    pub const DEV_NAME_SIZE: usize = 64;
    /// Bytes of device memory, and those that are free. 64 bits, read only.
    pub const TOTAL_MEM: u64 = 0x140;
    pub const FREE_MEM: u64 = 0x148;
    /// Compute capability; multiprocessors; threads of a block; lanes of a warp; [`super::backend`]. 32 bits each, read only.
    pub const CC_MAJOR: u64 = 0x150;
    pub const CC_MINOR: u64 = 0x154;
    pub const MP_COUNT: u64 = 0x158;
    pub const MAX_THREADS: u64 = 0x15c;
    pub const WARP_SIZE: u64 = 0x160;
    pub const BACKEND: u64 = 0x164;

    /// The newest version the device has. 32 bits, read only; 0 on a device that has version 1 only.
    pub const VERSION_MAX: u64 = 0x800;
    /// The version that is on: write [`super::VERSION_2`] to have rings, [`super::VERSION_1`] to be without. 32 bits.
    pub const VERSION_SELECT: u64 = 0x804;
    /// [`super::QUEUES`], [`super::SESSIONS`] and [`super::MAX_DEPTH`] of this device. 32 bits each, read only.
    pub const QUEUES: u64 = 0x808;
    pub const SESSIONS: u64 = 0x80c;
    pub const MAX_DEPTH: u64 = 0x810;
    /// `cuDriverGetVersion`, such as 12090. 32 bits, read only.
    pub const DRIVER_VERSION: u64 = 0x814;
    /// A write performs a command of [`super::control`] at once. 32 bits.
    pub const CONTROL: u64 = 0x840;
    /// Its `CUresult`. 32 bits, read only.
    pub const CONTROL_RESULT: u64 = 0x844;
    /// Its arguments and its outputs, 64 bits each; outputs are read only.
    pub const CONTROL_ARG0: u64 = 0x850;
    pub const CONTROL_ARGS: usize = 4;
    pub const CONTROL_OUT0: u64 = 0x880;
    pub const CONTROL_OUTS: usize = 2;
}

/// Bits of [`reg::STATUS`].
pub mod status {
    /// The backend is there.
    pub const READY: u32 = 1 << 0;
    /// A command of version 1 runs.
    pub const BUSY: u32 = 1 << 1;
    /// The last command of version 1 failed.
    pub const ERROR: u32 = 1 << 2;
    /// The context of version 1 exists.
    pub const CTX_ACTIVE: u32 = 1 << 3;
}

/// Values of [`reg::CMD_STATUS`].
pub mod cmd_status {
    pub const IDLE: u32 = 0;
    pub const RUNNING: u32 = 2;
    pub const COMPLETE: u32 = 3;
}

/// Values of [`reg::BACKEND`].
pub mod backend {
    /// The host's driver.
    pub const CUDA: u32 = 3;
    /// PTX on the host's CPU.
    pub const PTX: u32 = 5;
}

/// Commands of version 1. `P` = `PARAM`, `R` = `RESULT`, `D` = data buffer.
pub mod cmd {
    /// Must come first; else commands answer 3.
    pub const INIT: u32 = 0x01;
    /// R0 number of devices.
    pub const GET_DEVICE_COUNT: u32 = 0x02;
    /// Makes the context, empty; one that exists is destroyed. R0 its number.
    pub const CTX_CREATE: u32 = 0x10;
    /// Frees the context and all that belongs to it.
    pub const CTX_DESTROY: u32 = 0x11;
    /// Answers the fault of the context, if there was one.
    pub const CTX_SYNC: u32 = 0x12;
    /// P0 bytes. R0 device address.
    pub const MEM_ALLOC: u32 = 0x20;
    /// P0 device address.
    pub const MEM_FREE: u32 = 0x21;
    /// P0 device address, P1 bytes, D the bytes.
    pub const MEM_COPY_HTOD: u32 = 0x22;
    /// P0 device address, P1 bytes. D the bytes.
    pub const MEM_COPY_DTOH: u32 = 0x23;
    /// D the text, ended by NUL. R0 module. If it is refused (218), D holds the compiler's log, ended by NUL.
    pub const MODULE_LOAD_PTX: u32 = 0x30;
    /// P0 module, D the name, ended by NUL. R0 function.
    pub const FUNC_GET: u32 = 0x32;
    /// P0 function; P1 grid y and x, P2 block x and grid z, P3 block z and y, P4 number of arguments and bytes of dynamic
    /// shared memory, each pair as high and low half; D an 8-byte slot for each argument.
    pub const LAUNCH_KERNEL: u32 = 0x40;
}

/// Commands of [`reg::CONTROL`]. `A` = argument, `O` = output.
pub mod control {
    /// O0 session, never 0.
    pub const SESSION_OPEN: u32 = 1;
    /// A0 session. Its queues stop and its kernels are told to end. Answers [`super::result::NOT_READY`] until nothing of it runs
    /// and all is freed: ask again. Regions and rings may be touched by the device until the answer is 0.
    pub const SESSION_CLOSE: u32 = 2;
    /// A0 session, A1 guest-physical address of the queue's memory, A2 depth, A3 vector. O0 queue, which is the number of its
    /// doorbell.
    pub const QUEUE_CREATE: u32 = 3;
    /// A0 queue. Answers [`super::result::NOT_READY`] while a command of it runs: ask again.
    pub const QUEUE_DESTROY: u32 = 4;
    /// A0 session, A1 guest-physical address of an array of [`super::Segment`]s, A2 their number, A3 bits of
    /// [`super::region_flags`]. O0 region, never 0. The array is read at once.
    pub const REGION_REGISTER: u32 = 5;
    /// A0 session, A1 region. Answers [`super::result::NOT_READY`] while a command uses it: ask again.
    pub const REGION_UNREGISTER: u32 = 6;
    /// A0 session, A1 device address, A2 bytes, both multiples of [`super::PAGE`], all in one allocation that the session made
    /// with [`super::flags::MAPPABLE`]. The allocation cannot be freed until as many `UNPIN`s. O0 the range's offset in BAR 4.
    pub const PIN: u32 = 7;
    /// A0 session, A1 device address, A2 bytes, as they were pinned.
    pub const UNPIN: u32 = 8;
    /// A0 index in [`super::STATISTICS`]. O0 the counter.
    pub const COHERENCE_STATISTIC: u32 = 9;
}

/// Flags of a region.
pub mod region_flags {
    /// The device may write there.
    pub const WRITABLE: u64 = 1 << 0;
}

/// A piece of a region: guest-physical, in RAM or in a CXL window that is mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    /// Not 0.
    pub bytes: u64,
}

/// Offsets in the first page of a queue's memory. Each is a `u32` in a cache line of its own.
pub mod ring {
    /// Written by the driver: entries submitted.
    pub const SQ_TAIL: u64 = 0x000;
    /// Written by the device: commands completed.
    pub const SQ_HEAD: u64 = 0x040;
    /// Written by the device: completions written.
    pub const CQ_TAIL: u64 = 0x080;
    /// Written by the driver: completions read.
    pub const CQ_HEAD: u64 = 0x0c0;
    /// Written by the device: 1 while it waits for a doorbell.
    pub const WANT_DOORBELL: u64 = 0x100;
    /// Written by the driver: 1 if completions are to fire the vector.
    pub const WANT_INTERRUPT: u64 = 0x140;
    /// Written by the device: 0, or the `CUresult` that the queue stopped with.
    pub const STATUS: u64 = 0x180;
    /// The first [`super::Submission`].
    pub const ENTRIES: u64 = 0x1000;
}

/// Bytes of a queue's memory.
pub const fn ring_bytes(depth: u32) -> u64 {
    completions_offset(depth) + depth as u64 * size_of::<Completion>() as u64
}

/// Where its completions begin.
pub const fn completions_offset(depth: u32) -> u64 {
    ring::ENTRIES + depth as u64 * size_of::<Submission>() as u64
}

/// A command of version 2. Fields and bits that its opcode does not mention are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// One of [`op`].
    pub opcode: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// The *span*: guest memory that the command reads or writes, as region, offset and bytes.
    pub region: u32,
    pub offset: u64,
    pub bytes: u32,
    pub reserved: u32,
    /// Handed back in the completion.
    pub tag: u64,
    pub args: [u64; 4],
}

/// The outcome of a command.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Of the submission.
    pub tag: u64,
    /// `CUresult`.
    pub result: u32,
    /// Index of the submission.
    pub index: u32,
    /// The device's clock when the command began and when it was done, in ns since the device started.
    pub started: u64,
    pub ended: u64,
    pub values: [u64; 4],
}

/// Opcodes of a [`Submission`]: `A` = `args`, `V` = `values` of the completion, *span* as said there.
pub mod op {
    /// Nothing, in its turn: an event, as its times are told. Answers the session's fault.
    pub const NOP: u16 = 0x00;
    /// Waits until queue A0 of the same session has completed A1 commands (32 bits, compared modulo 2^32). A queue that is gone
    /// has completed all.
    pub const WAIT: u16 = 0x01;
    /// A0 bytes; [`super::flags::MAPPABLE`]. V0 device address. The bytes are 0.
    pub const MEM_ALLOC: u16 = 0x20;
    /// A0 device address.
    pub const MEM_FREE: u16 = 0x21;
    /// Span to device address A0.
    pub const MEM_COPY_HTOD: u16 = 0x22;
    /// Device address A0 to span, whose region is writable.
    pub const MEM_COPY_DTOH: u16 = 0x23;
    /// A0 target, A1 source, A2 bytes. They may overlap.
    pub const MEM_COPY_DTOD: u16 = 0x24;
    /// A0 device address, A1 value, A2 its width (1, 2 or 4 bytes), A3 how many.
    pub const MEM_SET: u16 = 0x25;
    /// V0 free bytes, V1 all.
    pub const MEM_INFO: u16 = 0x26;
    /// A0 device address. V0 start and V1 bytes of the allocation it lies in.
    pub const MEM_RANGE: u16 = 0x27;
    /// Span: PTX text (a NUL ends it). A0 region, A1 offset and A2 bytes of a writable buffer for the log, A2 may be 0. V0 module,
    /// V1 bytes of the log, without NUL.
    pub const MODULE_LOAD: u16 = 0x30;
    /// A0 module.
    pub const MODULE_UNLOAD: u16 = 0x31;
    /// A0 module, span: name. V0 function, V1 number of parameters, V2 bytes of the parameter buffer.
    pub const FUNC_GET: u16 = 0x32;
    /// A0 module, span: name. V0 device address, V1 bytes.
    pub const GLOBAL_GET: u16 = 0x34;
    /// A0 function, span: writable, takes a [`super::Param`] for each parameter, as many as fit. V0 number of parameters.
    pub const FUNC_PARAMS: u16 = 0x35;
    /// A0 function. V0 threads of a block at most (low half) and registers of a thread (high half), V1 bytes of static shared
    /// memory (low half) and of constants (high half), V2 bytes of local memory of a thread, V3 the architecture it was made for
    /// (10 * major + minor).
    pub const FUNC_ATTRIBUTES: u16 = 0x36;
    /// A0 function (low half) and bytes of dynamic shared memory (high half); A1 grid x, y; A2 grid z, block x; A3 block y, z, as
    /// low and high half. Span: the parameters at the offsets of `FUNC_PARAMS`; no region if there are none. V0 bytes that kernels
    /// have printed and `TAKE_OUTPUT` has not taken, for one that ends without a fault.
    pub const LAUNCH_KERNEL: u16 = 0x40;
    /// A0 device address and A1 bytes, whole pages in one allocation that was made with [`super::flags::MAPPABLE`]; A2 one of
    /// [`super::bias`]. V0 pages whose bias has changed.
    pub const BIAS_SET: u16 = 0x70;
    /// A0 device address in such an allocation. V0 one of [`super::bias`].
    pub const BIAS_GET: u16 = 0x71;
    /// A0 and A1 as for `BIAS_SET`; each page goes into the other bias. V0 pages.
    pub const BIAS_FLIP: u16 = 0x72;
    /// Span: writable, takes the counters of [`super::STATISTICS`], 64 bits each, as many as fit. V0 how many there are.
    pub const COHERENCE_STATISTICS: u16 = 0x73;
    /// Span: writable, takes what kernels have printed since the last call. V0 bytes.
    pub const TAKE_OUTPUT: u16 = 0x48;
}

/// Whose accesses to a page need no permission of the other side.
pub mod bias {
    pub const HOST: u64 = 0;
    pub const DEVICE: u64 = 1;
}

/// What host and device had to tell each other about memory that they share, in this order: counters, of accesses and of
/// messages about lines; the epochs at whose end pages were looked at; and the bytes of what all of it is about. That
/// `granule` is 64 where each access is counted, 4096 where pages take the place of lines, because all that is known is
/// which pages a side has come for in an epoch, and 0 where nothing but flips of bias is counted.
pub const STATISTICS: [&str; 26] = [
    "host_reads",
    "host_writes",
    "host_hits",
    "host_upgrades",
    "device_reads",
    "device_writes",
    "device_hits",
    "device_misses",
    "device_upgrades",
    "requests",
    "snoops_for_data",
    "snoops_to_invalidate",
    "snoop_responses",
    "host_write_backs",
    "host_clean_evictions",
    "device_write_backs",
    "device_fills",
    "filter_evictions",
    "cache_evictions",
    "flips_to_device",
    "flips_to_host",
    "host_took_back",
    "flipped_lines",
    "link_bytes",
    "epochs",
    "granule",
];

/// Flags of a [`Submission`].
pub mod flags {
    /// [`super::op::MEM_ALLOC`]: whole pages of BAR 4, which the session's client may map.
    pub const MAPPABLE: u16 = 1 << 0;
}

/// Where a parameter is in the parameter buffer of a kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub bytes: u32,
}

/// `CUresult`s that the device itself gives; a backend may give others.
pub mod result {
    pub const SUCCESS: u32 = 0;
    pub const INVALID_VALUE: u32 = 1;
    pub const OUT_OF_MEMORY: u32 = 2;
    pub const NOT_INITIALIZED: u32 = 3;
    pub const NO_DEVICE: u32 = 100;
    pub const INVALID_CONTEXT: u32 = 201;
    pub const INVALID_PTX: u32 = 218;
    pub const INVALID_HANDLE: u32 = 400;
    pub const NOT_FOUND: u32 = 500;
    pub const NOT_READY: u32 = 600;
    pub const ILLEGAL_ADDRESS: u32 = 700;
    pub const LAUNCH_OUT_OF_RESOURCES: u32 = 701;
    pub const LAUNCH_TIMEOUT: u32 = 702;
    pub const NOT_SUPPORTED: u32 = 801;
    pub const UNKNOWN: u32 = 999;
}

/// The character device that the guest's kernel module shows for each function, `/dev/cxl_gpu0` and so on.
///
/// An open file is a session. Opening it opens one, the last close closes it. Requests are `_IOWR(MAGIC, number, struct)`.
pub mod chardev {
    pub const IOC_MAGIC: u8 = 0xce;
    /// [`Info`].
    pub const IOC_INFO: u8 = 0;
    /// [`QueueCreate`].
    pub const IOC_QUEUE_CREATE: u8 = 1;
    /// A [`Number`]: the queue.
    pub const IOC_QUEUE_DESTROY: u8 = 2;
    /// [`RegionRegister`]: pins pages of the caller and registers them.
    pub const IOC_REGION_REGISTER: u8 = 3;
    /// A [`Number`]: the region.
    pub const IOC_REGION_UNREGISTER: u8 = 4;

    /// Offsets for `mmap`: device memory (add the device address minus `memory_base`; the range is pinned as long as it is
    /// mapped), the memory of queue `q` (add `q * RING_STRIDE`), its doorbell page (add `q * PAGE`).
    pub const MAP_MEMORY: u64 = 0;
    pub const MAP_RINGS: u64 = 1 << 46;
    pub const MAP_DOORBELLS: u64 = 1 << 47;
    pub const RING_STRIDE: u64 = 1 << 20;

    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    pub struct Info {
        /// Version of this interface: 1.
        pub interface: u32,
        pub driver_version: u32,
        pub cc_major: u32,
        pub cc_minor: u32,
        pub multiprocessors: u32,
        pub queues: u32,
        pub max_depth: u32,
        pub backend: u32,
        pub memory_base: u64,
        pub memory_bytes: u64,
        /// PCI segment (high half) and bus, device, function (bits 15:8, 7:3, 2:0).
        pub address: u32,
        pub reserved: u32,
        pub name: [u8; 64],
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct QueueCreate {
        /// In.
        pub depth: u32,
        /// In: an event file that counts the queue's interrupts, or -1.
        pub eventfd: i32,
        /// Out.
        pub queue: u32,
        pub reserved: u32,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct RegionRegister {
        /// In: address and bytes in the caller's memory, multiples of the page size.
        pub address: u64,
        pub bytes: u64,
        /// In: [`super::region_flags`].
        pub flags: u64,
        /// Out.
        pub region: u32,
        pub reserved: u32,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Number {
        pub number: u32,
        pub reserved: u32,
    }
}

const _: () = assert!(size_of::<Submission>() == 64 && size_of::<Completion>() == 64);
const _: () = assert!(DOORBELLS + QUEUES as u64 * DOORBELL_STRIDE == COMMAND_BAR_SIZE);
const _: () = assert!(ring_bytes(MAX_DEPTH) <= chardev::RING_STRIDE);
