//! What the two sides are and say.

use serde::{Deserialize, Serialize};

/// The host's copy of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// None.
    #[default]
    #[serde(rename = "I")]
    Invalid,
    /// Readable.
    #[serde(rename = "S")]
    Shared,
    /// The only copy, as in memory.
    #[serde(rename = "E")]
    Exclusive,
    /// The only copy, newer than memory.
    #[serde(rename = "M")]
    Modified,
}

/// The device's copy of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// None.
    #[default]
    #[serde(rename = "I")]
    Invalid,
    /// Readable.
    #[serde(rename = "S")]
    Shared,
    /// The only copy, as in memory.
    #[serde(rename = "E")]
    Exclusive,
    /// The only copy, newer than memory.
    #[serde(rename = "M")]
    Modified,
}

/// Whose accesses to a page need no permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// The host's, which may hold its lines.
    #[default]
    Host,
    /// The device's: the host holds none of them.
    Device,
}

/// A step of the protocol. Those of the CXL.mem channels have the names of section 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Host to device: a copy for reading.
    MemRd,
    /// Host to device: the only copy, for writing (`MemRd` with SnpInv and MetaValue Any).
    MemRdOwn,
    /// Host to device: the only copy, without data, since the host has it already.
    MemInv,
    /// Host to device: data that the host has changed.
    MemWr,
    /// Host to device: a clean copy was given up.
    MemClnEvct,
    /// Host to device: the host keeps a copy for reading.
    BiRspS,
    /// Host to device: the host has no copy any more.
    BiRspI,
    /// Device to host: here is a copy for reading.
    CmpS,
    /// Device to host: here is the only copy.
    CmpE,
    /// Device to host: leave at most a copy for reading, and write back what is newer.
    BiSnpData,
    /// Device to host: give the line up, and write back what is newer.
    BiSnpInv,
    /// In the device: its cache takes the line from memory.
    Fill,
    /// In the device: memory takes the line from its cache.
    WriteBack,
    /// In the device: its cache gives the line up, or the right to write it, with no change to memory.
    Yield,
}

/// Who says or does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The host.
    Host,
    /// The device.
    Device,
}

impl Message {
    /// Who says it.
    #[must_use]
    pub fn by(self) -> Side {
        match self {
            Self::MemRd
            | Self::MemRdOwn
            | Self::MemInv
            | Self::MemWr
            | Self::MemClnEvct
            | Self::BiRspS
            | Self::BiRspI => Side::Host,
            Self::CmpS
            | Self::CmpE
            | Self::BiSnpData
            | Self::BiSnpInv
            | Self::Fill
            | Self::WriteBack
            | Self::Yield => Side::Device,
        }
    }
}

/// What a side does by itself; messages are what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// A copy is given up.
    Evict,
    /// The page that begins at the line goes into host bias, because somebody asked for that.
    HostBias,
    /// As above, into device bias.
    DeviceBias,
    /// So many bytes from the line on begin anew, and what was held of them is forgotten.
    Discard(u64),
}
