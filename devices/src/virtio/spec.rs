//! Numbers of the virtio specification, version 1.2 ("section" below means a section of it).

/// PCI vendor of every virtio device (section 4.1.2).
pub const VENDOR_ID: u16 = 0x1af4;
/// PCI device of a modern device: this plus the device type (section 4.1.2.1).
pub const DEVICE_ID_BASE: u16 = 0x1040;
/// Least revision of a device that has no legacy interface (section 4.1.2.1).
pub const REVISION: u8 = 1;
/// Least PCI subsystem device of a device that has no legacy interface (section 4.1.2.1).
pub const SUBSYSTEM_BASE: u16 = 0x40;
/// "No interrupt" in a vector register (section 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// What a device is (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    Net = 1,
    Block = 2,
    Console = 3,
    Rng = 4,
}

impl DeviceType {
    /// PCI class code: base class, sub-class, interface. The specification leaves it free.
    pub const fn class(self) -> u32 {
        match self {
            Self::Net => 0x02_0000,
            Self::Block => 0x01_0000,
            Self::Console => 0x07_8000,
            Self::Rng => 0x10_8000,
        }
    }
}

/// Bits of the device status (section 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// Feature bits of every device (section 6).
pub mod feature {
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

/// Offsets in the common configuration (section 4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC_LOW: u64 = 0x20;
    pub const QUEUE_DESC_HIGH: u64 = 0x24;
    pub const QUEUE_DRIVER_LOW: u64 = 0x28;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x2c;
    pub const QUEUE_DEVICE_LOW: u64 = 0x30;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x34;
    /// Bytes, without the fields of features that are not offered.
    pub const SIZE: u32 = 0x38;
}

/// Bits of the ISR status (section 4.1.4.5).
pub mod isr {
    pub const QUEUE: u8 = 1;
    pub const CONFIG: u8 = 2;
}

/// The vendor-specific capability that says where a structure lies (section 4.1.4), offsets from its start.
pub mod capability {
    /// 8 bits of length, then 8 bits of type.
    pub const CAP_LEN: u16 = 2;
    pub const BAR: u16 = 4;
    pub const OFFSET: u16 = 8;
    pub const LENGTH: u16 = 12;
    /// `notify_off_multiplier` of the notification capability (section 4.1.4.4).
    pub const NOTIFY_MULTIPLIER: u16 = 16;
    /// The window of the PCI configuration access capability (section 4.1.4.9).
    pub const CFG_DATA: u16 = 16;

    pub const TYPE_COMMON: u8 = 1;
    pub const TYPE_NOTIFY: u8 = 2;
    pub const TYPE_ISR: u8 = 3;
    pub const TYPE_DEVICE: u8 = 4;
    pub const TYPE_PCI: u8 = 5;
}

/// The split virtqueue (section 2.7).
pub mod ring {
    /// `flags` of the available ring: the driver wants no interrupts (section 2.7.7).
    pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
    /// Offset of the first entry of the available ring, and of the used ring (sections 2.7.6, 2.7.8).
    pub const ENTRIES: u64 = 4;
    /// Bytes of a descriptor (section 2.7.5).
    pub const DESCRIPTOR: usize = 16;
    /// Bytes of an entry of the available ring.
    pub const AVAIL_ENTRY: usize = 2;
    /// Bytes of the available ring besides its entries: flags, index, used event.
    pub const AVAIL_FIXED: usize = 6;
    /// Bytes of an entry of the used ring.
    pub const USED_ENTRY: usize = 8;
    /// Bytes of the used ring besides its entries: flags, index, avail event.
    pub const USED_FIXED: usize = 6;
}

/// The block device (section 5.2).
pub mod block {
    pub const F_SEG_MAX: u64 = 1 << 2;
    pub const F_RO: u64 = 1 << 5;
    pub const F_BLK_SIZE: u64 = 1 << 6;
    pub const F_FLUSH: u64 = 1 << 9;

    /// Unit of capacity and of the sector number, whatever the block size (section 5.2.4).
    pub const SECTOR: u64 = 512;

    /// Offsets in the device configuration (section 5.2.4).
    pub const CONFIG_CAPACITY: usize = 0;
    pub const CONFIG_SEG_MAX: usize = 12;
    pub const CONFIG_BLK_SIZE: usize = 20;
    /// Bytes of configuration up to and with `blk_size`.
    pub const CONFIG_SIZE: usize = 24;

    /// Bytes of a request before its data: type, reserved, sector (section 5.2.6).
    pub const HEADER: u64 = 16;
    pub const T_IN: u32 = 0;
    pub const T_OUT: u32 = 1;
    pub const T_FLUSH: u32 = 4;
    pub const T_GET_ID: u32 = 8;
    /// Bytes of the identity string.
    pub const ID_SIZE: usize = 20;

    pub const S_OK: u8 = 0;
    pub const S_IOERR: u8 = 1;
    pub const S_UNSUPP: u8 = 2;
}

/// The network device (section 5.1).
pub mod net {
    pub const RX_QUEUE: usize = 0;
    pub const TX_QUEUE: usize = 1;

    pub const F_CSUM: u64 = 1 << 0;
    pub const F_GUEST_CSUM: u64 = 1 << 1;
    pub const F_MAC: u64 = 1 << 5;
    pub const F_GUEST_TSO4: u64 = 1 << 7;
    pub const F_GUEST_TSO6: u64 = 1 << 8;
    pub const F_HOST_TSO4: u64 = 1 << 11;
    pub const F_HOST_TSO6: u64 = 1 << 12;
    pub const F_MRG_RXBUF: u64 = 1 << 15;

    /// Bytes of `virtio_net_hdr` (section 5.1.6).
    pub const HEADER: usize = 12;
    /// Offset of `num_buffers` in it.
    pub const HEADER_NUM_BUFFERS: usize = 10;
}

/// The console device (section 5.3).
pub mod console {
    pub const RX_QUEUE: usize = 0;
    pub const TX_QUEUE: usize = 1;
    /// Bytes of configuration: columns, rows, ports, emergency write; all 0 without their features.
    pub const CONFIG_SIZE: usize = 12;
}
