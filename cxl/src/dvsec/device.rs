//! DVSECs of a device: PCIe DVSEC for CXL Devices (section 8.1.3) and GPF for CXL Devices (8.1.7).

use bitfield_struct::bitfield;

use super::{Dvsec, id};
use crate::{CAPACITY_UNIT, Error};

/// Bytes of the CXL Devices DVSEC, revision 3.
const LEN: usize = 0x3c;
const REVISION: u8 = 3;

/// Registers of the CXL Devices DVSEC.
mod register {
    pub const CAPABILITY: usize = 0x0a;
    pub const CONTROL: usize = 0x0c;
    pub const STATUS: usize = 0x0e;
    pub const CONTROL2: usize = 0x10;
    pub const STATUS2: usize = 0x12;
    pub const LOCK: usize = 0x14;
    pub const CAPABILITY2: usize = 0x16;
    /// Range 1: size high, size low, base high, base low; range 2 follows.
    pub const RANGES: usize = 0x18;
    pub const RANGE_STRIDE: usize = 0x10;
    pub const BASE_HIGH: usize = 8;
    pub const BASE_LOW: usize = 12;
}

/// DVSEC CXL Capability (section 8.1.3.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlCapability {
    /// CXL.cache capable.
    pub cache: bool,
    /// CXL.io capable; always.
    pub io: bool,
    /// CXL.mem capable.
    pub mem: bool,
    /// The memory needs no help of software to become active.
    pub mem_hw_init: bool,
    /// Number of HDM ranges, 1 or 2 if CXL.mem capable.
    #[bits(2)]
    pub hdm_count: u8,
    /// Cache write-back and invalidate.
    pub cache_writeback: bool,
    /// CXL reset.
    pub cxl_reset: bool,
    #[bits(3)]
    pub cxl_reset_timeout: u8,
    /// Memory can be cleared by CXL reset.
    pub cxl_reset_mem_clear: bool,
    /// TEE security protocol.
    pub tsp: bool,
    /// Multiple logical devices.
    pub multiple_logical_device: bool,
    /// Viral.
    pub viral: bool,
    /// PM init completion is reported.
    pub pm_init_reporting: bool,
}

/// DVSEC CXL Control (section 8.1.3.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlControl {
    /// CXL.cache enable.
    pub cache_enable: bool,
    /// CXL.io enable, fixed to one.
    pub io_enable: bool,
    /// CXL.mem enable: with this clear the device answers no memory request.
    pub mem_enable: bool,
    #[bits(11)]
    __: u16,
    /// Viral enable.
    pub viral_enable: bool,
    __: bool,
}

/// DVSEC CXL Status (section 8.1.3.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlStatus {
    #[bits(14)]
    __: u16,
    /// The device has been viral; software clears it with a one.
    pub viral: bool,
    __: bool,
}

/// DVSEC CXL Control2 (section 8.1.3.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlControl2 {
    /// Nothing is cached any more.
    pub disable_caching: bool,
    /// Write back what is cached; reads as zero.
    pub initiate_writeback: bool,
    /// Begin a CXL reset; reads as zero.
    pub initiate_reset: bool,
    /// The next CXL reset clears volatile memory.
    pub reset_mem_clear: bool,
    #[bits(12)]
    __: u16,
}

/// DVSEC CXL Status2 (section 8.1.3.5).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlStatus2 {
    /// Nothing valid is in the device's cache.
    pub cache_invalid: bool,
    /// The CXL reset has ended well.
    pub reset_complete: bool,
    /// The CXL reset has ended, but not well.
    pub reset_error: bool,
    #[bits(12)]
    __: u16,
    /// Power management initialisation with the host is done.
    pub pm_init_complete: bool,
}

/// The CXL Devices DVSEC of a Type 3 device of `capacity` bytes, a multiple of 256 MiB.
///
/// The device decodes with HDM decoders; range 1 only tells that its memory is there, valid and
/// active, as software waits for that.
pub fn memory_device(capacity: u64) -> Result<Dvsec, Error> {
    device(capacity, None)
}

/// The CXL Devices DVSEC of a logical device of `capacity` bytes, one of several of a Type 3 device.
pub fn logical_device(capacity: u64) -> Result<Dvsec, Error> {
    let mut dvsec = memory_device(capacity)?;
    let capability = CxlCapability::from_bits(word(&dvsec.bytes, register::CAPABILITY));
    let capability = capability.with_multiple_logical_device(true).into_bits();
    dvsec.put(register::CAPABILITY, &capability.to_le_bytes());
    Ok(dvsec)
}

/// The CXL Devices DVSEC of a Type 2 device with `capacity` bytes of memory, a multiple of 256 MiB, that caches `cache`
/// bytes of it and of the host's, a multiple of 1 MiB up to 255 MiB.
pub fn accelerator(capacity: u64, cache: u64) -> Result<Dvsec, Error> {
    device(capacity, Some(cache))
}

fn device(capacity: u64, cache: Option<u64>) -> Result<Dvsec, Error> {
    /// Range Size Low: memory info valid, memory active (section 8.1.3.8.2). Media type and class
    /// "set by CDAT" (bits 4:2 and 7:5, code 2); no desired interleave.
    const VALID_AND_ACTIVE: u32 = 0b11 | 2 << 2 | 2 << 5;
    /// CXL Reset Timeout: 1 s; clearing memory is the host's work, and takes its time.
    const RESET_WITHIN_1_S: u8 = 2;
    if !capacity.is_multiple_of(CAPACITY_UNIT) {
        return Err(Error::Unaligned {
            what: "device capacity",
            bytes: capacity,
            unit: CAPACITY_UNIT,
        });
    }
    let capability = CxlCapability::new()
        .with_cache(cache.is_some())
        .with_io(true)
        .with_mem(true)
        .with_mem_hw_init(true)
        .with_hdm_count(1);
    let capability = match cache {
        None => capability
            .with_cxl_reset(true)
            .with_cxl_reset_timeout(RESET_WITHIN_1_S)
            .with_cxl_reset_mem_clear(true)
            .with_viral(true),
        Some(_) => capability,
    };
    let mut dvsec = Dvsec::new(id::DEVICE, REVISION, LEN);
    dvsec.put(register::CAPABILITY, &capability.into_bits().to_le_bytes());
    dvsec.put(
        register::CONTROL,
        &CxlControl::new()
            .with_io_enable(true)
            .into_bits()
            .to_le_bytes(),
    );
    dvsec.put(register::RANGES, &((capacity >> 32) as u32).to_le_bytes());
    dvsec.put(
        register::RANGES + 4,
        &(capacity as u32 | VALID_AND_ACTIVE).to_le_bytes(),
    );
    if let Some(cache) = cache {
        dvsec.put(register::CAPABILITY2, &cache_size(cache)?.to_le_bytes());
    }
    let mut masks = match cache {
        None => locked_writable(),
        Some(_) => vec![0; LEN],
    };
    unlocked_writable(&mut masks, cache.is_some());
    super::put(&mut masks, register::LOCK, &[CONFIG_LOCK]);
    dvsec.put_writable(0, &masks);
    let viral = CxlStatus::new().with_viral(capability.viral()).into_bits();
    dvsec.put_write_one_to_clear(register::STATUS, &viral.to_le_bytes());
    Ok(dvsec)
}

/// DVSEC CXL Capability2 (section 8.1.3.7): unit of the cache size in bits 3:0, 2 for 1 MiB; number of units in 15:8.
fn cache_size(bytes: u64) -> Result<u16, Error> {
    const UNIT: u64 = 1 << 20;
    const UNIT_MIB: u16 = 2;
    if !bytes.is_multiple_of(UNIT) {
        return Err(Error::Unaligned {
            what: "cache",
            bytes,
            unit: UNIT,
        });
    }
    let units = u8::try_from(bytes / UNIT).map_err(|_| Error::TooLarge {
        what: "cache",
        value: bytes,
        max: u64::from(u8::MAX) * UNIT,
    })?;
    Ok(u16::from(units) << 8 | UNIT_MIB)
}

/// CONFIG_LOCK of the CXL Lock register (section 8.1.3.6).
const CONFIG_LOCK: u8 = 1;

/// The bits that are RWL: writable until the configuration is locked (section 8.1.3).
fn unlocked_writable(masks: &mut [u8], cache: bool) {
    let control = CxlControl::new()
        .with_cache_enable(cache)
        .with_mem_enable(true)
        .with_viral_enable(!cache)
        .into_bits();
    super::put(masks, register::CONTROL, &control.to_le_bytes());
    // Range bases, bits 63:28.
    super::put(masks, register::RANGES + register::BASE_HIGH, &[0xff; 4]);
    super::put(
        masks,
        register::RANGES + register::BASE_LOW,
        &[0, 0, 0, 0xf0],
    );
}

/// The writable masks of the CXL Devices DVSEC once CONFIG_LOCK is set: all of it, lock and all, is
/// fixed until the next conventional reset, but for what a CXL reset is to do.
pub fn locked_writable() -> Vec<u8> {
    let mut masks = vec![0; LEN];
    let control2 = CxlControl2::new().with_reset_mem_clear(true).into_bits();
    super::put(&mut masks, register::CONTROL2, &control2.to_le_bytes());
    masks
}

/// True if CXL.mem is enabled, given the current bytes of the CXL Devices DVSEC.
pub fn mem_enable(dvsec: &[u8]) -> bool {
    CxlControl::from_bits(word(dvsec, register::CONTROL)).mem_enable()
}

/// True if the configuration is locked, given the current bytes of the CXL Devices DVSEC.
pub fn config_lock(dvsec: &[u8]) -> bool {
    dvsec
        .get(register::LOCK)
        .is_some_and(|lock| lock & CONFIG_LOCK != 0)
}

/// Base of HDM range `index` (0 or 1), given the current bytes of the CXL Devices DVSEC.
pub fn range_base(dvsec: &[u8], index: usize) -> u64 {
    let range = register::RANGES + register::RANGE_STRIDE * (index & 1);
    let half =
        |offset: usize| u64::from(word(dvsec, offset)) | u64::from(word(dvsec, offset + 2)) << 16;
    half(range + register::BASE_HIGH) << 32 | half(range + register::BASE_LOW) & !0x0fff_ffff
}

/// Sets CXL.mem enable in the current bytes of the CXL Devices DVSEC, as firmware does.
pub fn set_mem_enable(dvsec: &mut [u8], enable: bool) {
    let control = CxlControl::from_bits(word(dvsec, register::CONTROL)).with_mem_enable(enable);
    super::put(dvsec, register::CONTROL, &control.into_bits().to_le_bytes());
}

/// Offset of the CXL Control register in the DVSEC, for who watches writes to it.
pub const CONTROL_OFFSET: usize = register::CONTROL;
/// Offset of the CXL Control2 register in the DVSEC, for who watches writes to it.
pub const CONTROL2_OFFSET: usize = register::CONTROL2;
/// Offset of the CXL Status2 register in the DVSEC, for who ends a CXL reset.
pub const STATUS2_OFFSET: usize = register::STATUS2;
/// Offset of the CXL Status register in the DVSEC, for the device to set.
pub const STATUS_OFFSET: usize = register::STATUS;
/// Offset of the CXL Lock register in the DVSEC, for who watches writes to it.
pub const LOCK_OFFSET: usize = register::LOCK;

fn word(bytes: &[u8], offset: usize) -> u16 {
    let byte = |offset: usize| u16::from(bytes.get(offset).copied().unwrap_or(0));
    byte(offset) | byte(offset + 1) << 8
}

/// How long a phase of global persistent flush may take: `base` times 10 to the power of `scale` us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpfTimeout {
    /// 0 to 15.
    pub base: u8,
    /// 0 (1 us) to 7 (10 s).
    pub scale: u8,
}

impl GpfTimeout {
    /// The register: base in bits 3:0, scale in bits 11:8 (sections 8.1.6 and 8.1.7).
    pub(super) const fn into_bits(self) -> u16 {
        (self.base & 0xf) as u16 | ((self.scale & 0x7) as u16) << 8
    }

    /// What the register says; scales that are reserved are the longest.
    pub(crate) const fn from_bits(bits: u16) -> Self {
        let scale = (bits >> 8 & 0xf) as u8;
        Self {
            base: (bits & 0xf) as u8,
            scale: if scale > 7 { 7 } else { scale },
        }
    }

    /// The time, ns.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.base as u64 * 10_u64.pow(self.scale as u32) * 1000
    }
}

/// GPF DVSEC for CXL Devices (section 8.1.7): how long phase 2 takes, and at what power in mW.
pub fn gpf(phase2: GpfTimeout, power_mw: u32) -> Dvsec {
    const LEN: usize = 0x10;
    const PHASE2_DURATION: usize = 0x0a;
    const PHASE2_POWER: usize = 0x0c;
    let mut dvsec = Dvsec::new(id::GPF_DEVICE, 0, LEN);
    dvsec.put(PHASE2_DURATION, &phase2.into_bits().to_le_bytes());
    dvsec.put(PHASE2_POWER, &power_mw.to_le_bytes());
    dvsec
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_memory_device_tells_that_its_memory_is_active() {
        let dvsec = memory_device(0x1_3000_0000).unwrap();
        check(&dvsec, 0, 3, 0x3c);
        // io, mem, mem_hw_init, one range, CXL reset within 1 s that can clear memory, viral.
        assert_eq!(dvsec.bytes[0x0a..0x0c], [0x9e, 0x4a]);
        assert_eq!(dvsec.bytes[0x0c..0x0e], [0x02, 0x00]);
        assert_eq!(dvsec.bytes[0x18..0x1c], [1, 0, 0, 0]);
        assert_eq!(dvsec.bytes[0x1c..0x20], [0x4b, 0, 0, 0x30]);
    }

    #[test]
    fn a_logical_device_says_that_there_are_others() {
        let dvsec = logical_device(CAPACITY_UNIT).unwrap();
        let single = memory_device(CAPACITY_UNIT).unwrap();
        assert_eq!(dvsec.bytes[0x0b], single.bytes[0x0b] | 0x20);
        assert_eq!(dvsec.bytes[0x0c..], single.bytes[0x0c..]);
    }

    #[test]
    fn an_accelerator_tells_its_cache() {
        let dvsec = accelerator(CAPACITY_UNIT, 128 << 20).unwrap();
        // cache, io, mem, mem_hw_init, one range.
        assert_eq!(dvsec.bytes[0x0a..0x0c], [0x1f, 0x00]);
        assert_eq!(dvsec.bytes[0x16..0x18], [0x02, 0x80]);
        assert_eq!(dvsec.writable[0x0c..0x0e], [0x05, 0x00]);
        assert!(accelerator(CAPACITY_UNIT, 1 << 19).is_err());
        assert!(accelerator(CAPACITY_UNIT, 256 << 20).is_err());
    }

    #[test]
    fn only_the_enables_memory_clear_the_lock_and_the_range_base_are_writable() {
        let dvsec = memory_device(CAPACITY_UNIT).unwrap();
        let masked = |bytes: Vec<u8>| -> Vec<(usize, u8)> {
            let masks = (0..).zip(bytes);
            masks.filter(|(_, mask)| *mask != 0).collect()
        };
        let writable = masked(dvsec.writable);
        let expected = [
            (0x0c, 0x04),
            (0x0d, 0x40),
            (0x10, 0x08),
            (0x14, 0x01),
            (0x20, 0xff),
            (0x21, 0xff),
            (0x22, 0xff),
            (0x23, 0xff),
            (0x27, 0xf0),
        ];
        assert_eq!(writable, expected);
        // Viral status.
        assert_eq!(masked(dvsec.write_one_to_clear), [(0x0f, 0x40)]);
    }

    #[test]
    fn a_locked_configuration_is_fixed_but_for_the_memory_clear() {
        let writable: Vec<(usize, u8)> = (0..)
            .zip(locked_writable())
            .filter(|(_, mask)| *mask != 0)
            .collect();
        assert_eq!(writable, [(0x10, 0x08)]);
    }

    #[test]
    fn accessors_read_the_current_bytes() {
        let mut bytes = memory_device(CAPACITY_UNIT).unwrap().bytes;
        assert!(!mem_enable(&bytes) && !config_lock(&bytes));
        set_mem_enable(&mut bytes, true);
        bytes[LOCK_OFFSET] = 1;
        bytes[0x20] = 0x12;
        bytes[0x27] = 0x30;
        assert!(mem_enable(&bytes) && config_lock(&bytes));
        assert_eq!(bytes[CONTROL_OFFSET], 0x06);
        assert_eq!(range_base(&bytes, 0), 0x12_3000_0000);
        assert_eq!(range_base(&bytes, 1), 0);
        assert!(!mem_enable(&[]) && !config_lock(&[]));
    }

    #[test]
    fn capacity_is_in_units_of_256_mib() {
        assert!(matches!(
            memory_device(1 << 20),
            Err(Error::Unaligned { .. })
        ));
    }

    #[test]
    fn gpf_gives_duration_and_power() {
        let dvsec = gpf(GpfTimeout { base: 3, scale: 6 }, 0x1234);
        check(&dvsec, 5, 0, 0x10);
        assert_eq!(dvsec.bytes[0x0a..], [0x03, 0x06, 0x34, 0x12, 0, 0]);
    }
}
