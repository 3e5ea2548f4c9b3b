//! What the host's processor offers.

use std::arch::x86_64::__cpuid;
use std::fs;

use super::cpuid::HypervisorBit;
use crate::error::{Error, Result};

/// CPUID leaf whose EAX gives the number of extended leaves.
const LEAF_EXTENDED_MAX: u32 = 0x8000_0000;
/// CPUID leaf whose EAX 7:0 gives the physical address width.
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;
/// Physical address bits of a processor without [`LEAF_ADDRESS_SIZES`] (Intel SDM, 4.1.4).
const DEFAULT_PHYSICAL_BITS: u32 = 36;

/// Number of physical address bits of the host, and so of a guest.
#[must_use]
pub fn physical_bits() -> u32 {
    if __cpuid(LEAF_EXTENDED_MAX).eax < LEAF_ADDRESS_SIZES {
        return DEFAULT_PHYSICAL_BITS;
    }
    __cpuid(LEAF_ADDRESS_SIZES).eax & 0xff
}

/// Checks that the host can run a stock kernel.
///
/// A KVM without VT-x and SVM interprets the guest's kernel mode, lacks instructions that every
/// stock kernel uses, and fails after minutes. Hand-made payloads of plain instructions do run on it.
///
/// # Errors
/// [`Error::NoHardwareVirtualization`], which tells the user about the lab.
pub fn require_hardware_virtualization() -> Result<()> {
    match fs::read_to_string("/proc/cpuinfo") {
        Ok(cpuinfo) if !has_hardware_virtualization(&cpuinfo) => {
            Err(Error::NoHardwareVirtualization)
        }
        // Without /proc, KVM itself will have to say what is wrong.
        _ => Ok(()),
    }
}

fn has_hardware_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

/// What the kernel command line needs so that the guest knows its TSC frequency from the start.
///
/// A guest that does not see the hypervisor cannot ask kvmclock. On Intel the TSC leaves of CPUID
/// tell it, elsewhere it measures against the PIT, which is coarse on a loaded host.
#[must_use]
pub fn tsc_command_line(hypervisor: HypervisorBit, tsc_khz: Option<u32>) -> Option<String> {
    match (hypervisor, tsc_khz) {
        (HypervisorBit::Hidden, Some(khz)) if khz != 0 => Some(format!("tsc_early_khz={khz}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmx_and_svm_flags_are_found_as_whole_words() {
        assert!(has_hardware_virtualization("flags\t\t: fpu vmx sse\n"));
        assert!(has_hardware_virtualization("flags\t\t: fpu svm\n"));
        assert!(!has_hardware_virtualization(
            "flags\t\t: fpu svme vmxx\nbugs: vmx\n"
        ));
    }

    #[test]
    fn the_host_has_a_plausible_address_width() {
        assert!((32..=57).contains(&physical_bits()));
    }

    #[test]
    fn only_a_hidden_hypervisor_needs_the_tsc_frequency_on_the_command_line() {
        assert_eq!(
            tsc_command_line(HypervisorBit::Shown, Some(2_000_000)),
            None
        );
        assert_eq!(tsc_command_line(HypervisorBit::Hidden, None), None);
        assert_eq!(
            tsc_command_line(HypervisorBit::Hidden, Some(2_000_000)).as_deref(),
            Some("tsc_early_khz=2000000")
        );
    }
}
