//! Event records: 128 bytes each (section 8.2.9.2.1).

use super::Severity;
use crate::mailbox::dynamic::encode_extent;
use crate::memdev::dynamic::Extent;
use crate::memdev::health::HealthInfo;

/// Bytes of a record: a UUID, a header of 32 bytes and 80 bytes of data.
pub const RECORD_LEN: usize = 128;

/// UUIDs of the record types, in the byte order in which they are stored.
const GENERAL_MEDIA: [u8; 16] = 0xfbcd0a77_c260_417f_85a9_088b1621eba6_u128.to_be_bytes();
const DRAM: [u8; 16] = 0x601dcbb3_9c06_4eab_b8af_4e9bfb5c9624_u128.to_be_bytes();
const DYNAMIC_CAPACITY: [u8; 16] = 0xca95afa7_f183_4018_8c2f_95268e101a2a_u128.to_be_bytes();
const MEMORY_MODULE: [u8; 16] = 0xfe927475_dd59_4339_a586_79bab113b774_u128.to_be_bytes();

/// Event record flags besides the severity (table 8-42).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFlags {
    /// The condition is permanent.
    pub permanent: bool,
    /// The device needs maintenance.
    pub maintenance_needed: bool,
    /// The device works more slowly than it should.
    pub performance_degraded: bool,
    /// The device needs to be replaced.
    pub replacement_needed: bool,
}

impl EventFlags {
    fn bits(self, severity: Severity) -> u8 {
        severity as u8
            | u8::from(self.permanent) << 2
            | u8::from(self.maintenance_needed) << 3
            | u8::from(self.performance_degraded) << 4
            | u8::from(self.replacement_needed) << 5
    }
}

/// Something that happened in a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How bad it is; this selects the log.
    pub severity: Severity,
    /// What it means for the device.
    pub flags: EventFlags,
    /// Handle of an earlier record about the same thing, or 0.
    pub related: u16,
    /// The class of maintenance that would help, or 0.
    pub maintenance_class: u8,
    /// What happened.
    pub kind: EventKind,
}

/// The record types (tables 8-43 to 8-46).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something about a media address.
    GeneralMedia(GeneralMedia),
    /// The same, with the place in a DRAM.
    Dram(Dram),
    /// Something about the module's health.
    MemoryModule(MemoryModule),
    /// Something about an extent of dynamic capacity.
    DynamicCapacity(DynamicCapacity),
    /// Whatever its maker says.
    Raw {
        /// The record's UUID, as it is stored.
        uuid: [u8; 16],
        /// All that follows the header.
        data: [u8; Self::DATA_LEN],
    },
}

impl EventKind {
    /// Bytes of a record behind its header.
    pub const DATA_LEN: usize = 80;
}

/// Dynamic Capacity Event Record (table 8-47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicCapacity {
    /// What is to be done, or was.
    pub event: DynamicCapacityEvent,
    /// Index of the region.
    pub region: u8,
    /// The next record is part of the same request.
    pub more: bool,
    /// The extent.
    pub extent: Extent,
    /// So many more extents can be kept.
    pub extents_left: u32,
}

/// Types of dynamic capacity events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DynamicCapacityEvent {
    /// Capacity is offered.
    Add = 0,
    /// Capacity is to be released.
    Release = 1,
    /// Capacity was taken away.
    ForcedRelease = 2,
    /// A region has another block size.
    RegionConfigurationUpdated = 3,
}

impl DynamicCapacity {
    fn encode(&self) -> Vec<u8> {
        // Type, validity flags, host (2), region, flags, reserved (2).
        let mut data = vec![self.event as u8, 0, 0, 0, self.region];
        data.extend([u8::from(self.more), 0, 0]);
        encode_extent(&self.extent, &mut data);
        data.extend([0; 0x18]);
        // Extents and tags that can be kept besides.
        data.extend(self.extents_left.to_le_bytes().repeat(2));
        data
    }
}

/// What media and DRAM records begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaAddress {
    /// Device address, a multiple of 64.
    pub dpa: u64,
    /// The address is in volatile capacity.
    pub volatile: bool,
    /// The address cannot be repaired.
    pub not_repairable: bool,
    /// Memory event descriptor: bit 0 uncorrectable, bit 1 threshold, bit 2 poison list overflow.
    pub descriptor: u8,
    /// Memory event type.
    pub event_type: u8,
    /// What was being done: a code of [`Transaction`].
    pub transaction: u8,
    /// Channel, if known.
    pub channel: Option<u8>,
    /// Rank, if known.
    pub rank: Option<u8>,
}

impl MediaAddress {
    /// Descriptor: the data cannot be corrected.
    pub const UNCORRECTABLE: u8 = 1 << 0;
    /// Descriptor: the poison list is full.
    pub const POISON_LIST_OVERFLOW: u8 = 1 << 2;
}

/// Transaction types of media and DRAM records (table 8-43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transaction {
    /// Not known.
    Unknown = 0,
    /// A read of the host.
    HostRead = 1,
    /// A write of the host.
    HostWrite = 2,
    /// A media scan that the host asked for.
    HostScanMedia = 3,
    /// Inject Poison.
    HostInjectPoison = 4,
    /// The device's own scrubbing.
    InternalMediaScrub = 5,
    /// The device's own management.
    InternalMediaManagement = 6,
}

/// General Media Event Record (table 8-43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneralMedia {
    /// Where and what.
    pub media: MediaAddress,
    /// Bit mask of devices in the rank, 24 bits, if known.
    pub device: Option<u32>,
    /// The component, if known.
    pub component: Option<[u8; 16]>,
}

/// DRAM Event Record (table 8-44).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dram {
    /// Where and what.
    pub media: MediaAddress,
    /// Nibbles in error, 24 bits, if known.
    pub nibble_mask: Option<u32>,
    /// Bank group, if known.
    pub bank_group: Option<u8>,
    /// Bank, if known.
    pub bank: Option<u8>,
    /// Row, 24 bits, if known.
    pub row: Option<u32>,
    /// Column, if known.
    pub column: Option<u16>,
    /// Bits in error, if known.
    pub correction_mask: Option<[u8; 32]>,
}

/// Memory Module Event Record (table 8-45).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryModule {
    /// What changed.
    pub event_type: ModuleEventType,
    /// The health at that time.
    pub health: HealthInfo,
}

/// Device Event Type of a memory module record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ModuleEventType {
    /// Health status.
    HealthStatus = 0,
    /// Media status.
    MediaStatus = 1,
    /// Life used.
    LifeUsed = 2,
    /// Temperature.
    Temperature = 3,
    /// Data path error.
    DataPath = 4,
    /// Label storage area error.
    Lsa = 5,
}

impl Event {
    /// The record with this handle and timestamp (ns).
    pub(super) fn encode(&self, handle: u16, timestamp: u64) -> [u8; RECORD_LEN] {
        let (uuid, data) = match &self.kind {
            EventKind::GeneralMedia(event) => (GENERAL_MEDIA, event.encode()),
            EventKind::Dram(event) => (DRAM, event.encode()),
            EventKind::MemoryModule(event) => (MEMORY_MODULE, event.encode()),
            EventKind::DynamicCapacity(event) => (DYNAMIC_CAPACITY, event.encode()),
            EventKind::Raw { uuid, data } => (*uuid, data.to_vec()),
        };
        let mut bytes = uuid.to_vec();
        bytes.extend([RECORD_LEN as u8, self.flags.bits(self.severity), 0, 0]);
        bytes.extend(handle.to_le_bytes());
        bytes.extend(self.related.to_le_bytes());
        bytes.extend(timestamp.to_le_bytes());
        bytes.push(self.maintenance_class);
        bytes.extend([0; 15]);
        bytes.extend(data);
        let mut record = [0; RECORD_LEN];
        for (to, from) in record.iter_mut().zip(bytes) {
            *to = from;
        }
        record
    }
}

impl MediaAddress {
    /// Physical address to rank, with the validity flags among them; `others` are further flags.
    fn encode(&self, others: u16) -> Vec<u8> {
        let address =
            self.dpa & !0x3f | u64::from(self.volatile) | u64::from(self.not_repairable) << 1;
        let validity =
            u16::from(self.channel.is_some()) | u16::from(self.rank.is_some()) << 1 | others;
        let mut data = address.to_le_bytes().to_vec();
        data.extend([self.descriptor, self.event_type, self.transaction]);
        data.extend(validity.to_le_bytes());
        data.extend([self.channel.unwrap_or(0), self.rank.unwrap_or(0)]);
        data
    }
}

impl GeneralMedia {
    fn encode(&self) -> Vec<u8> {
        let others =
            u16::from(self.device.is_some()) << 2 | u16::from(self.component.is_some()) << 3;
        let mut data = self.media.encode(others);
        data.extend(low_24_bits(self.device));
        data.extend(self.component.unwrap_or_default());
        data
    }
}

impl Dram {
    fn encode(&self) -> Vec<u8> {
        let others = [
            self.nibble_mask.is_some(),
            self.bank_group.is_some(),
            self.bank.is_some(),
            self.row.is_some(),
            self.column.is_some(),
            self.correction_mask.is_some(),
        ];
        let others = (2..)
            .zip(others)
            .fold(0, |flags, (bit, valid)| flags | u16::from(valid) << bit);
        let mut data = self.media.encode(others);
        data.extend(low_24_bits(self.nibble_mask));
        data.extend([self.bank_group.unwrap_or(0), self.bank.unwrap_or(0)]);
        data.extend(low_24_bits(self.row));
        data.extend(self.column.unwrap_or(0).to_le_bytes());
        data.extend(self.correction_mask.unwrap_or_default());
        data
    }
}

impl MemoryModule {
    fn encode(&self) -> Vec<u8> {
        let mut data = vec![self.event_type as u8];
        data.extend(self.health.bytes());
        data
    }
}

fn low_24_bits(value: Option<u32>) -> impl Iterator<Item = u8> {
    value.unwrap_or(0).to_le_bytes().into_iter().take(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: EventKind) -> [u8; RECORD_LEN] {
        let event = Event {
            severity: Severity::Failure,
            flags: EventFlags {
                permanent: true,
                ..EventFlags::default()
            },
            related: 0x0102,
            maintenance_class: 7,
            kind,
        };
        event.encode(0x0304, 0x1122_3344_5566_7788)
    }

    fn media() -> MediaAddress {
        MediaAddress {
            dpa: 0x1234_5678_9ac0,
            volatile: true,
            descriptor: 3,
            event_type: 1,
            transaction: 2,
            channel: Some(4),
            rank: Some(5),
            ..MediaAddress::default()
        }
    }

    #[test]
    fn a_header_follows_the_uuid() {
        let record = record(EventKind::GeneralMedia(GeneralMedia::default()));
        assert_eq!(record[..4], [0xfb, 0xcd, 0x0a, 0x77]);
        let header = [
            0x80, 0x06, 0, 0, 0x04, 0x03, 0x02, 0x01, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22,
            0x11, 7,
        ];
        assert_eq!(record[16..33], header);
        assert_eq!(record[33..], [0; 95]);
    }

    #[test]
    fn a_general_media_record_flags_what_it_knows() {
        let event = GeneralMedia {
            media: media(),
            device: Some(0x0a_0b0c),
            component: None,
        };
        let record = record(EventKind::GeneralMedia(event));
        let data = [
            0xc1, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 3, 1, 2, 0b0111, 0, 4, 5, 0x0c, 0x0b, 0x0a,
        ];
        assert_eq!(record[48..66], data);
        assert_eq!(record[66..], [0; 62]);
    }

    #[test]
    fn a_dram_record_has_bank_row_and_column() {
        let event = Dram {
            media: media(),
            nibble_mask: None,
            bank_group: Some(6),
            bank: Some(7),
            row: Some(0x01_0203),
            column: Some(0x0405),
            correction_mask: None,
        };
        let record = record(EventKind::Dram(event));
        assert_eq!(record[..4], [0x60, 0x1d, 0xcb, 0xb3]);
        assert_eq!(record[59..61], [0b0111_1011, 0]);
        assert_eq!(record[63..73], [0, 0, 0, 6, 7, 3, 2, 1, 5, 4]);
    }

    #[test]
    fn a_memory_module_record_holds_the_health_information() {
        let health = HealthInfo {
            life_used: 42,
            ..HealthInfo::default()
        };
        let event = MemoryModule {
            event_type: ModuleEventType::LifeUsed,
            health,
        };
        let record = record(EventKind::MemoryModule(event));
        assert_eq!(record[..4], [0xfe, 0x92, 0x74, 0x75]);
        assert_eq!([record[48], record[52]], [2, 42]);
    }
}
