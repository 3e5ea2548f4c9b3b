//! The table: structures, entries, checksum (CDAT specification 1.04, sections 2 and 3).

use crate::Error;

/// Bytes of the table's header.
const HEADER_LEN: usize = 16;
/// Where the header has its checksum.
const CHECKSUM: usize = 5;
const REVISION: u8 = 1;

/// Device Scoped Memory Affinity Structure: a range of device addresses with one set of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dsmas {
    /// Names the range to other structures.
    pub handle: u8,
    /// The media keeps its contents without power.
    pub non_volatile: bool,
    /// Memory comes and goes in it.
    pub dynamic_capacity: bool,
    /// First device address.
    pub dpa: u64,
    /// Bytes.
    pub len: u64,
}

impl Dsmas {
    /// Flag for persistent media.
    const NON_VOLATILE: u8 = 1 << 2;
    /// Flag for dynamic capacity.
    const DYNAMIC_CAPACITY: u8 = 1 << 5;

    fn entry(&self) -> Vec<u8> {
        let flags = [
            (self.non_volatile, Self::NON_VOLATILE),
            (self.dynamic_capacity, Self::DYNAMIC_CAPACITY),
        ];
        let flags = flags.iter().filter(|(set, _)| *set);
        let flags = flags.fold(0, |flags, (_, flag)| flags | flag);
        let mut entry = vec![0, 0, 24, 0, self.handle, flags, 0, 0];
        entry.extend(self.dpa.to_le_bytes());
        entry.extend(self.len.to_le_bytes());
        entry
    }
}

/// What a [`Dslbis`] or an [`Sslbis`] gives a value for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DataType {
    /// Latency of reads.
    ReadLatency = 1,
    /// Latency of writes.
    WriteLatency = 2,
    /// Bandwidth of reads.
    ReadBandwidth = 4,
    /// Bandwidth of writes.
    WriteBandwidth = 5,
}

/// A latency or bandwidth as the table states it: a value, 1 to 0xfffe, of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// What one unit of `value` is: in ps for latency, in MB/s for bandwidth.
    pub base_unit: u64,
    /// The value.
    pub value: u16,
}

impl Cost {
    /// Picoseconds in a nanosecond, and MB/s in a GB/s.
    const THOUSAND: u64 = 1000;
    /// 0xffff means that the initiator cannot reach the target.
    const MAX: u64 = 0xfffe;

    /// A latency in ns, 1 to 65534.
    pub fn latency(ns: u64) -> Result<Self, Error> {
        Ok(Self {
            base_unit: Self::THOUSAND,
            value: Self::value("latency (ns)", ns, ns)?,
        })
    }

    /// A bandwidth in GB/s, up to 65534: in MB/s if they fit the value, else in tens, hundreds or thousands of them, and
    /// never less than one.
    pub fn bandwidth(gb_per_s: f64) -> Result<Self, Error> {
        let megabytes = (gb_per_s * Self::THOUSAND as f64).round().max(1.0) as u64;
        let units = [1, 10, 100, Self::THOUSAND];
        let rounded = units.map(|unit| (unit, megabytes.saturating_add(unit / 2) / unit));
        let finest = rounded.iter().find(|(_, value)| *value <= Self::MAX);
        let (base_unit, value) = *finest.unwrap_or(&rounded[units.len() - 1]);
        Ok(Self {
            base_unit,
            value: Self::value("bandwidth (GB/s)", value, megabytes / Self::THOUSAND)?,
        })
    }

    /// The field's contents, or an error that names what was asked for.
    fn value(what: &'static str, value: u64, asked: u64) -> Result<u16, Error> {
        u16::try_from(value)
            .ok()
            .filter(|value| u64::from(*value) <= Self::MAX)
            .ok_or(Error::TooLarge {
                what,
                value: asked,
                max: Self::MAX,
            })
    }
}

/// Device Scoped Latency and Bandwidth Information Structure: one property of a range's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dslbis {
    /// The range.
    pub dsmas: u8,
    /// The property.
    pub data_type: DataType,
    /// How much.
    pub cost: Cost,
}

impl Dslbis {
    fn entry(&self) -> Vec<u8> {
        // Flags 0: the memory itself, not a cache in front of it.
        let mut entry = vec![1, 0, 24, 0, self.dsmas, 0, self.data_type as u8, 0];
        entry.extend(self.cost.base_unit.to_le_bytes());
        entry.extend(self.cost.value.to_le_bytes());
        entry.extend([0; 6]);
        entry
    }
}

/// Switch Scoped Latency and Bandwidth Information Structure: one property of the way between the upstream port of a switch
/// and any of its downstream ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sslbis {
    /// The property.
    pub data_type: DataType,
    /// How much.
    pub cost: Cost,
}

impl Sslbis {
    /// Port identifiers that are no port numbers.
    const UPSTREAM_PORT: u16 = 0x0100;
    const ANY_PORT: u16 = 0xffff;

    fn entry(&self) -> Vec<u8> {
        let mut entry = vec![5, 0, 24, 0, self.data_type as u8, 0, 0, 0];
        entry.extend(self.cost.base_unit.to_le_bytes());
        entry.extend(Self::UPSTREAM_PORT.to_le_bytes());
        entry.extend(Self::ANY_PORT.to_le_bytes());
        entry.extend(self.cost.value.to_le_bytes());
        entry.extend([0; 2]);
        entry
    }
}

/// What a range is to be in the memory map, if firmware maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EfiMemoryType {
    /// Conventional memory with the specific-purpose attribute.
    SpecificPurpose = 1,
    /// Reserved.
    Reserved = 2,
}

/// Device Scoped EFI Memory Type Structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dsemts {
    /// The range.
    pub dsmas: u8,
    /// Its type.
    pub memory_type: EfiMemoryType,
    /// First byte, from the start of the range.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Dsemts {
    fn entry(&self) -> Vec<u8> {
        let mut entry = vec![4, 0, 24, 0, self.dsmas, self.memory_type as u8, 0, 0];
        entry.extend(self.offset.to_le_bytes());
        entry.extend(self.len.to_le_bytes());
        entry
    }
}

/// Any structure of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// A range.
    Dsmas(Dsmas),
    /// A range's latency or bandwidth.
    Dslbis(Dslbis),
    /// A range's EFI memory type.
    Dsemts(Dsemts),
    /// The latency or bandwidth of a switch.
    Sslbis(Sslbis),
}

/// A coherent device attribute table, ready to be read entry by entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdat {
    /// The header, then one entry per structure.
    entries: Vec<Vec<u8>>,
}

impl Cdat {
    /// The table of these structures, at most 65534; `sequence` changes when a table does.
    pub fn new(structures: &[Structure], sequence: u32) -> Result<Self, Error> {
        /// Handles are 16 bits wide, 0 is the header's and 0xffff means that there is no more.
        const MAX: usize = 0xfffe;
        if structures.len() > MAX {
            return Err(Error::TooLarge {
                what: "number of CDAT structures",
                value: structures.len() as u64,
                max: MAX as u64,
            });
        }
        let mut entries = vec![Vec::new()];
        entries.extend(structures.iter().map(|structure| match structure {
            Structure::Dsmas(dsmas) => dsmas.entry(),
            Structure::Dslbis(dslbis) => dslbis.entry(),
            Structure::Dsemts(dsemts) => dsemts.entry(),
            Structure::Sslbis(sslbis) => sslbis.entry(),
        }));
        let len: usize = entries.iter().map(Vec::len).sum::<usize>() + HEADER_LEN;
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend((len as u32).to_le_bytes());
        header.extend([REVISION, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(sequence.to_le_bytes());
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let total = entries
            .iter()
            .fold(sum(&header), |total, entry| total.wrapping_add(sum(entry)));
        for checksum in header.iter_mut().skip(CHECKSUM).take(1) {
            *checksum = total.wrapping_neg();
        }
        entries.splice(..1, [header]);
        Ok(Self { entries })
    }

    /// The entry with this handle: 0 is the header.
    pub fn entry(&self, handle: u16) -> Option<&[u8]> {
        self.entries.get(usize::from(handle)).map(Vec::as_slice)
    }

    /// The handle of the entry after `handle`; `None` if that is the last one.
    pub fn next(&self, handle: u16) -> Option<u16> {
        let next = handle.checked_add(1)?;
        self.entry(next).map(|_| next)
    }

    /// The whole table.
    pub fn bytes(&self) -> Vec<u8> {
        self.entries.concat()
    }
}
