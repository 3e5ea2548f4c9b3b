//! What makes a machine description impossible to write down as ACPI tables.

/// A description that no table could state truthfully.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An interleave of this many ways does not exist (CXL 3.1 table 9-22, ENIW).
    #[error(
        "window {window}: {ways} targets; a fixed memory window interleaves 1, 2, 3, 4, 6, 8, 12 or 16 ways"
    )]
    InterleaveWays { window: usize, ways: usize },
    /// Granularity is not a power of two from 256 bytes to 16 KiB (CXL 3.1 table 9-22, HBIG).
    #[error(
        "window {window}: granularity of {granularity} bytes; it is a power of two from 256 to 16384"
    )]
    InterleaveGranularity { window: usize, granularity: u64 },
    /// Not one XOR map for each address bit that chooses among the targets, or other maps than those of another window of
    /// this granularity (CXL 3.1 section 9.18.1.4).
    #[error("window {window}: its XOR maps do not fit its ways, or those of another window")]
    XorMaps { window: usize },
    /// Base not aligned to 256 MiB, or size not a multiple of 256 MiB times the ways.
    #[error(
        "window {window}: {base:#x}+{size:#x} is not in steps of 256 MiB (times the ways, for the size)"
    )]
    WindowAlignment { window: usize, base: u64, size: u64 },
    /// Two things at one address.
    #[error("{first} and {second} overlap at {address:#x}")]
    Overlap {
        first: &'static str,
        second: &'static str,
        address: u64,
    },
    /// Soft-reserved memory that no fixed memory window holds.
    #[error("soft-reserved memory {base:#x}+{size:#x} is not within one fixed memory window")]
    OutsideWindows { base: u64, size: u64 },
    /// A bus of a root that belongs to another too, or that ECAM does not reach.
    #[error("bus {bus:#x} of the PCI root with UID {uid} is another root's too, or outside ECAM")]
    Bus { uid: u32, bus: u8 },
    /// A window names a host bridge that the machine does not have.
    #[error("window {window}: no CXL host bridge has the UID {uid}")]
    UnknownTarget { window: usize, uid: u32 },
    /// Two PCI roots with one `_UID`.
    #[error("two PCI roots have the UID {uid}")]
    DuplicateUid { uid: u32 },
    /// A range with no bytes, or one that runs past the end of the address space.
    #[error("{what}: the range {base:#x}+{size:#x} is empty or wraps")]
    BadRange {
        what: &'static str,
        base: u64,
        size: u64,
    },
    /// Last number below the first.
    #[error("{what}: {first:#x}..={last:#x} runs backwards")]
    Backwards {
        what: &'static str,
        first: u64,
        last: u64,
    },
    /// A latency or bandwidth that is not positive, or too large for HMAT's 32 bits of picoseconds or MB/s.
    #[error(
        "proximity domains {initiator} -> {target}: {what} of {value} cannot be stated in HMAT"
    )]
    Performance {
        initiator: u32,
        target: u32,
        what: &'static str,
        value: String,
    },
    /// The same for the bounds of a QoS class.
    #[error("QoS throttling group {qtg}: {what} of {value} is out of range")]
    QosClass {
        qtg: u16,
        what: &'static str,
        value: String,
    },
    /// Two statements about one pair of proximity domains.
    #[error("proximity domains {initiator} -> {target} are described twice")]
    DuplicateLocality { initiator: u32, target: u32 },
    /// More of a thing than the tables have numbers for.
    #[error("{count} {what}; at most {limit}")]
    TooMany {
        what: &'static str,
        count: usize,
        limit: usize,
    },
    /// No vCPU, or no RAM above the first MiB.
    #[error("the machine has no {what}")]
    Missing { what: &'static str },
    /// The tables do not fit between 0xE0000 and 1 MiB.
    #[error("the ACPI tables take {size} bytes; {limit} fit below 1 MiB")]
    TooLarge { size: u64, limit: u64 },
}
