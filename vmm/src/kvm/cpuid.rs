//! What the guest's CPUID says.
//!
//! KVM's own list of what it supports, with the host's topology replaced by the guest's (one
//! package, one thread per core), the TSC declared invariant, and the hypervisor shown or hidden.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};

use crate::error::{Error, KvmContext, Result};

/// CPUID leaves (Intel SDM 2A, CPUID; AMD APM 3, appendix E).
mod leaf {
    pub const VENDOR: u32 = 0x0;
    pub const FEATURES: u32 = 0x1;
    pub const CACHES: u32 = 0x4;
    pub const TOPOLOGY: u32 = 0xb;
    pub const EXTENDED_STATE: u32 = 0xd;
    pub const TSC: u32 = 0x15;
    pub const FREQUENCY: u32 = 0x16;
    pub const TOPOLOGY_V2: u32 = 0x1f;
    pub const HYPERVISOR_FIRST: u32 = 0x4000_0000;
    pub const HYPERVISOR_LAST: u32 = 0x4fff_ffff;
    pub const EXTENDED_FEATURES: u32 = 0x8000_0001;
    pub const POWER: u32 = 0x8000_0007;
    pub const SIZES: u32 = 0x8000_0008;
    pub const AMD_CACHES: u32 = 0x8000_001d;
    pub const AMD_TOPOLOGY: u32 = 0x8000_001e;
}

/// Leaf 1 EBX: CLFLUSH line in 8-byte units (15:8), logical processors (23:16), APIC id (31:24).
const CLFLUSH_64_BYTES: u32 = 8 << 8;
const LOGICAL_PROCESSORS_SHIFT: u32 = 16;
const APIC_ID_SHIFT: u32 = 24;
/// Leaf 1 ECX bit 24: the local APIC timer has a TSC deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX bit 31: the guest runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX bit 28: more than one logical processor per package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX bit 1: the processors of a package are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x8000_0007 EDX bit 8: the TSC runs at one rate in all states.
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 0x8000_0007 EBX of AMD: machine checks that overflowed (0), and that lost data (1), can be recovered from.
const MACHINE_CHECK_RECOVERY: u32 = 0b11;
/// Leaf 0xB ECX 15:8: the kind of a topology level.
const LEVEL_SMT: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;
/// Leaf 4 and 0x8000_001D EAX: cache type (4:0), level (7:5), sharing processors less one (25:14),
/// cores in the package less one (31:26, leaf 4 only).
const CACHE_TYPE_MASK: u32 = 0x1f;
const CACHE_LEVEL_SHIFT: u32 = 5;
const CACHE_LEVEL_MASK: u32 = 0x7;
const CACHE_SHARING_SHIFT: u32 = 14;
const CACHE_SHARING_MASK: u32 = 0xfff << CACHE_SHARING_SHIFT;
const PACKAGE_CORES_SHIFT: u32 = 26;
const PACKAGE_CORES_MASK: u32 = 0x3f << PACKAGE_CORES_SHIFT;
/// The first cache level that all cores share.
const SHARED_CACHE_LEVEL: u32 = 3;
/// Frequency at which KVM runs the local APIC's timer. Linux takes the crystal of leaf 0x15 for it.
const APIC_BUS_HZ: u32 = 1_000_000_000;
/// Linux multiplies the crystal in kHz with leaf 0x15's numerator in 32 bits.
const TSC_NUMERATOR_LIMIT: u64 = u32::MAX as u64 / (APIC_BUS_HZ as u64 / 1000);
/// Leaf 0x16 ECX: reference frequency of the bus in MHz.
const BUS_MHZ: u32 = 100;

/// Whether the guest's CPUID admits to a hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypervisorBit {
    /// As KVM has it: the bit is set, and KVM's own leaves are there.
    Shown,
    /// The bit is clear and the leaves are gone: the guest takes itself for bare metal.
    Hidden,
}

/// Who made the processor, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    Other,
}

/// The processors of one machine.
#[derive(Clone, Debug)]
pub struct CpuProfile {
    supported: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
    count: u8,
    hypervisor: HypervisorBit,
    tsc_khz: Option<u32>,
}

impl CpuProfile {
    /// The profile of `count` processors on this host. `tsc_khz` is the TSC's frequency, if known.
    pub(super) fn new(
        kvm: &Kvm,
        count: u8,
        hypervisor: HypervisorBit,
        tsc_khz: Option<u32>,
    ) -> Result<Self> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .attempting("list the supported CPUID leaves")?;
        Ok(Self {
            supported: supported.as_slice().to_vec(),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            count,
            hypervisor,
            tsc_khz,
        })
    }

    pub(super) fn hypervisor(&self) -> HypervisorBit {
        self.hypervisor
    }

    pub(super) fn vendor(&self) -> Vendor {
        let intel = self.supported.iter().any(|entry| {
            let name = [entry.ebx, entry.edx, entry.ecx].map(u32::to_le_bytes);
            entry.function == leaf::VENDOR && name.as_flattened() == b"GenuineIntel"
        });
        if intel { Vendor::Intel } else { Vendor::Other }
    }

    /// The state components that XSAVE can save: what XCR0 may hold. 0 without XSAVE.
    pub(super) fn extended_state(&self) -> u64 {
        self.supported
            .iter()
            .find(|entry| entry.function == leaf::EXTENDED_STATE && entry.index == 0)
            .map_or(0, |entry| {
                (u64::from(entry.edx) << 32) | u64::from(entry.eax)
            })
    }

    /// The leaves of the processor with local APIC id `id`.
    ///
    /// # Errors
    /// [`Error::MissingCapability`] if KVM has no room for all leaves.
    pub(super) fn cpuid(&self, id: u8) -> Result<CpuId> {
        CpuId::from_entries(&self.entries(id))
            .map_err(|_| Error::MissingCapability("room for all CPUID leaves"))
    }

    fn entries(&self, id: u8) -> Vec<kvm_cpuid_entry2> {
        let mut entries: Vec<_> = self
            .supported
            .iter()
            .filter(|entry| self.is_kept(entry.function))
            .map(|&entry| self.adapted(entry, id))
            .collect();
        let basic = self.max_basic_leaf();
        for function in [leaf::TOPOLOGY, leaf::TOPOLOGY_V2] {
            if function <= basic {
                entries.extend(self.topology(function, id));
            }
        }
        entries.extend(self.tsc_leaves());
        entries
    }

    /// Leaves that are made anew are dropped from KVM's list.
    fn is_kept(&self, function: u32) -> bool {
        match function {
            leaf::TOPOLOGY | leaf::TOPOLOGY_V2 => false,
            leaf::TSC | leaf::FREQUENCY => self.tsc_leaves().is_empty(),
            leaf::HYPERVISOR_FIRST..=leaf::HYPERVISOR_LAST => {
                self.hypervisor == HypervisorBit::Shown
            }
            _ => true,
        }
    }

    fn adapted(&self, mut entry: kvm_cpuid_entry2, id: u8) -> kvm_cpuid_entry2 {
        let count = u32::from(self.count);
        let id = u32::from(id);
        let several = self.count > 1;
        match entry.function {
            leaf::VENDOR if !self.tsc_leaves().is_empty() => {
                entry.eax = entry.eax.max(leaf::FREQUENCY);
            }
            leaf::FEATURES => {
                entry.ebx = entry.ebx & 0xff
                    | CLFLUSH_64_BYTES
                    | count << LOGICAL_PROCESSORS_SHIFT
                    | id << APIC_ID_SHIFT;
                set_bit(&mut entry.ecx, TSC_DEADLINE, self.tsc_deadline);
                set_bit(
                    &mut entry.ecx,
                    HYPERVISOR,
                    self.hypervisor == HypervisorBit::Shown,
                );
                set_bit(&mut entry.edx, HTT, several);
            }
            leaf::CACHES | leaf::AMD_CACHES if entry.eax & CACHE_TYPE_MASK != 0 => {
                entry.eax = entry.eax & !CACHE_SHARING_MASK
                    | self.cache_sharing(entry.eax) << CACHE_SHARING_SHIFT;
                if entry.function == leaf::CACHES {
                    entry.eax = entry.eax & !PACKAGE_CORES_MASK
                        | (count.next_power_of_two() - 1).min(0x3f) << PACKAGE_CORES_SHIFT;
                }
            }
            leaf::EXTENDED_FEATURES => set_bit(&mut entry.ecx, CMP_LEGACY, several),
            // A guest never leaves its host, so its TSC is as steady as KVM's clock of it.
            leaf::POWER => {
                entry.edx |= INVARIANT_TSC;
                set_bit(
                    &mut entry.ebx,
                    MACHINE_CHECK_RECOVERY,
                    self.vendor() == Vendor::Other,
                );
            }
            // ECX: size of the core part of the APIC id (15:12), cores less one (7:0).
            leaf::SIZES => entry.ecx = self.id_bits() << 12 | (count - 1),
            leaf::AMD_TOPOLOGY => {
                // EAX: APIC id; EBX: threads per core less one (15:8), core id (7:0); ECX: nodes.
                entry.eax = id;
                entry.ebx = id;
                entry.ecx = 0;
            }
            _ => {}
        }
        entry
    }

    /// How many processors share the cache that `eax` describes, less one.
    fn cache_sharing(&self, eax: u32) -> u32 {
        if eax >> CACHE_LEVEL_SHIFT & CACHE_LEVEL_MASK < SHARED_CACHE_LEVEL {
            return 0;
        }
        u32::from(self.count).next_power_of_two() - 1
    }

    /// Bits of the APIC id that number the cores.
    fn id_bits(&self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }

    /// The levels of the extended topology: threads, cores, end.
    fn topology(&self, function: u32, id: u8) -> [kvm_cpuid_entry2; 3] {
        let level = |index, shift, processors, kind| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: kind | index,
            edx: u32::from(id),
            ..Default::default()
        };
        [
            level(0, 0, 1, LEVEL_SMT),
            level(1, self.id_bits(), u32::from(self.count), LEVEL_CORE),
            level(2, 0, 0, 0),
        ]
    }

    /// Leaves 0x15 and 0x16, from which Linux on Intel reads the TSC's frequency when it sees no
    /// hypervisor to ask. Empty where they are not needed.
    fn tsc_leaves(&self) -> Vec<kvm_cpuid_entry2> {
        let Some(khz) = self.tsc_khz.filter(|&khz| khz >= 1000) else {
            return Vec::new();
        };
        if self.hypervisor == HypervisorBit::Shown || self.vendor() != Vendor::Intel {
            return Vec::new();
        }
        let (numerator, denominator) = ratio(
            u64::from(khz),
            u64::from(APIC_BUS_HZ / 1000),
            TSC_NUMERATOR_LIMIT,
        );
        let mhz = khz / 1000;
        vec![
            kvm_cpuid_entry2 {
                function: leaf::TSC,
                eax: denominator,
                ebx: numerator,
                ecx: APIC_BUS_HZ,
                ..Default::default()
            },
            kvm_cpuid_entry2 {
                function: leaf::FREQUENCY,
                eax: mhz,
                ebx: mhz,
                ecx: BUS_MHZ,
                ..Default::default()
            },
        ]
    }

    fn max_basic_leaf(&self) -> u32 {
        self.supported
            .iter()
            .find(|entry| entry.function == leaf::VENDOR)
            .map_or(0, |e| e.eax)
    }
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}

/// The best fraction for `value / unit` whose numerator is at most `limit`: the last convergent of
/// its continued fraction that fits.
fn ratio(value: u64, unit: u64, limit: u64) -> (u32, u32) {
    let (mut numerators, mut denominators) = ((0, 1), (1, 0));
    let (mut rest, mut divisor) = (value, unit);
    while divisor != 0 {
        let quotient = rest / divisor;
        let numerator = quotient * numerators.1 + numerators.0;
        if numerator > limit {
            break;
        }
        let denominator = quotient * denominators.1 + denominators.0;
        numerators = (numerators.1, numerator);
        denominators = (denominators.1, denominator);
        (rest, divisor) = (divisor, rest % divisor);
    }
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(numerators.1), narrow(denominators.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vendor(name: &[u8; 12], max: u32) -> kvm_cpuid_entry2 {
        let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
        kvm_cpuid_entry2 {
            eax: max,
            ebx: word(0),
            edx: word(4),
            ecx: word(8),
            ..entry(0)
        }
    }

    fn entry(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..Default::default()
        }
    }

    fn profile(name: &[u8; 12], count: u8, hypervisor: HypervisorBit) -> CpuProfile {
        let cache = |function, index, eax| kvm_cpuid_entry2 {
            index,
            eax,
            ..entry(function)
        };
        CpuProfile {
            supported: vec![
                vendor(name, 0x14),
                kvm_cpuid_entry2 {
                    ebx: 0x4242_0042,
                    ecx: HYPERVISOR,
                    ..entry(leaf::FEATURES)
                },
                // Level 1 data and level 3 unified, with the host's sharing.
                cache(
                    leaf::CACHES,
                    0,
                    0x1 | 1 << 5 | CACHE_SHARING_MASK | PACKAGE_CORES_MASK,
                ),
                cache(
                    leaf::CACHES,
                    3,
                    0x3 | 3 << 5 | CACHE_SHARING_MASK | PACKAGE_CORES_MASK,
                ),
                kvm_cpuid_entry2 {
                    edx: 0x77,
                    ..entry(leaf::TOPOLOGY)
                },
                entry(leaf::HYPERVISOR_FIRST),
                entry(leaf::HYPERVISOR_FIRST + 1),
                entry(leaf::EXTENDED_FEATURES),
                entry(leaf::POWER),
                entry(leaf::SIZES),
                cache(leaf::AMD_CACHES, 3, 0x3 | 3 << 5),
                entry(leaf::AMD_TOPOLOGY),
            ],
            tsc_deadline: true,
            count,
            hypervisor,
            tsc_khz: Some(2_600_000),
        }
    }

    const INTEL: &[u8; 12] = b"GenuineIntel";
    const AMD: &[u8; 12] = b"AuthenticAMD";

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    #[test]
    fn every_processor_finds_its_own_apic_id() {
        let profile = profile(INTEL, 4, HypervisorBit::Shown);
        for id in 0..4 {
            let entries = profile.entries(id);
            let id = u32::from(id);
            assert_eq!(
                find(&entries, leaf::FEATURES, 0).ebx,
                id << 24 | 4 << 16 | 8 << 8 | 0x42
            );
            assert_eq!(find(&entries, leaf::TOPOLOGY, 0).edx, id);
            assert_eq!(find(&entries, leaf::AMD_TOPOLOGY, 0).eax, id);
        }
    }

    #[test]
    fn the_topology_is_one_package_of_single_threaded_cores() {
        for (count, bits) in [(1, 0), (2, 1), (3, 2), (16, 4)] {
            let entries = profile(INTEL, count, HypervisorBit::Shown).entries(0);
            let count = u32::from(count);
            let threads = find(&entries, leaf::TOPOLOGY, 0);
            assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
            let cores = find(&entries, leaf::TOPOLOGY, 1);
            assert_eq!((cores.eax, cores.ebx, cores.ecx), (bits, count, 0x201));
            let end = find(&entries, leaf::TOPOLOGY, 2);
            assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
            assert_eq!(find(&entries, leaf::SIZES, 0).ecx, bits << 12 | (count - 1));
            assert_eq!(find(&entries, leaf::FEATURES, 0).edx & HTT != 0, count > 1);
        }
    }

    #[test]
    fn cores_share_the_third_cache_level_alone() {
        let entries = profile(INTEL, 3, HypervisorBit::Shown).entries(1);
        let sharing = |function, index| {
            (find(&entries, function, index).eax & CACHE_SHARING_MASK) >> CACHE_SHARING_SHIFT
        };
        assert_eq!(sharing(leaf::CACHES, 0), 0);
        assert_eq!(sharing(leaf::CACHES, 3), 3);
        assert_eq!(sharing(leaf::AMD_CACHES, 3), 3);
    }

    #[test]
    fn a_hidden_hypervisor_leaves_no_trace() {
        let entries = profile(INTEL, 2, HypervisorBit::Hidden).entries(0);
        assert_eq!(find(&entries, leaf::FEATURES, 0).ecx & HYPERVISOR, 0);
        assert!(!entries.iter().any(|e| e.function >> 28 == 0x4));
    }

    #[test]
    fn a_shown_hypervisor_keeps_its_leaves() {
        let entries = profile(INTEL, 2, HypervisorBit::Shown).entries(0);
        assert_ne!(find(&entries, leaf::FEATURES, 0).ecx & HYPERVISOR, 0);
        find(&entries, leaf::HYPERVISOR_FIRST + 1, 0);
        assert!(!entries.iter().any(|e| e.function == leaf::TSC));
    }

    #[test]
    fn bare_metal_on_intel_reads_the_tsc_frequency_from_cpuid() {
        let entries = profile(INTEL, 2, HypervisorBit::Hidden).entries(0);
        let tsc = find(&entries, leaf::TSC, 0);
        assert_eq!((tsc.eax, tsc.ebx, tsc.ecx), (5, 13, 1_000_000_000));
        assert_eq!(find(&entries, leaf::FREQUENCY, 0).eax, 2600);
        assert_eq!(find(&entries, leaf::VENDOR, 0).eax, 0x16);
    }

    #[test]
    fn bare_metal_on_amd_has_no_tsc_leaves() {
        let entries = profile(AMD, 2, HypervisorBit::Hidden).entries(0);
        assert!(!entries.iter().any(|e| e.function == leaf::TSC));
        assert_eq!(find(&entries, leaf::VENDOR, 0).eax, 0x14);
    }

    #[test]
    fn the_tsc_is_invariant_and_has_a_deadline_timer() {
        let entries = profile(AMD, 2, HypervisorBit::Shown).entries(0);
        assert_ne!(find(&entries, leaf::POWER, 0).edx & INVARIANT_TSC, 0);
        assert_ne!(find(&entries, leaf::FEATURES, 0).ecx & TSC_DEADLINE, 0);
    }

    #[test]
    fn processors_of_amd_recover_from_machine_checks() {
        for (vendor, bits) in [(AMD, 0b11), (INTEL, 0)] {
            let entries = profile(vendor, 2, HypervisorBit::Shown).entries(0);
            assert_eq!(find(&entries, leaf::POWER, 0).ebx, bits);
        }
    }

    #[test]
    fn tsc_ratios_fit_linux_arithmetic_and_miss_by_less_than_50_millionths() {
        for khz in [
            1_000_000, 2_095_078, 2_600_000, 2_794_751, 3_187_201, 4_200_123,
        ] {
            let (numerator, denominator) = ratio(khz, 1_000_000, TSC_NUMERATOR_LIMIT);
            let product = u32::checked_mul(numerator, APIC_BUS_HZ / 1000).expect("overflow");
            let error = (i64::from(product / denominator) - i64::try_from(khz).unwrap()).abs();
            assert!(
                error * 1_000_000 < 50 * i64::try_from(khz).unwrap(),
                "{khz} kHz is off by {error} kHz"
            );
        }
    }
}
