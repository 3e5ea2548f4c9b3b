//! Machine checks: what tells a guest that it has touched poison.
//!
//! The report is the one that real processors make when a load meets memory that is lost (software recoverable, action
//! required): the processor stands at the load, the address is known, and whoever survives may go on.

use kvm_bindings::{KVMIO, kvm_x86_mce};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{errno, ioctl_ior_nr, ioctl_iow_nr};

use super::cpuid::Vendor;
use super::msr;
use crate::error::{KvmContext, Result};

ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
ioctl_iow_nr!(KVM_X86_SET_MCE, KVMIO, 0x9e, kvm_x86_mce);

/// Banks of error registers, and the one that reports: a data cache, as AMD and Intel number them it is none that Linux
/// treats in a special way.
const BANKS: u64 = 10;
const BANK: u8 = 1;

/// IA32_MCG_CAP (Intel SDM 3B, 16.3.1.1): MCG_CTL is there (8), software error recovery (24), local machine checks (27).
const MCG_CTL_P: u64 = 1 << 8;
const MCG_SER_P: u64 = 1 << 24;
const MCG_LMCE_P: u64 = 1 << 27;

/// IA32_MCG_STATUS (16.3.1.2): the program can go on (0), RIP is the error's (1), in progress (2), local (3).
const MCG_RIPV: u64 = 1 << 0;
const MCG_EIPV: u64 = 1 << 1;
const MCG_MCIP: u64 = 1 << 2;
const MCG_LMCES: u64 = 1 << 3;

/// IA32_MCi_STATUS (16.3.2.2).
mod status {
    pub const VALID: u64 = 1 << 63;
    pub const UNCORRECTED: u64 = 1 << 61;
    pub const ENABLED: u64 = 1 << 60;
    pub const MISC_VALID: u64 = 1 << 59;
    pub const ADDRESS_VALID: u64 = 1 << 58;
    /// Intel: signalled as a machine check, and recovery takes action.
    pub const SIGNALLED: u64 = 1 << 56;
    pub const ACTION_REQUIRED: u64 = 1 << 55;
    /// AMD: the load met poison (APM 2, 9.3.2.3).
    pub const POISON: u64 = 1 << 43;
    /// Cache hierarchy error: a data read (compound error code 0000_0001_RRRR_TTLL).
    pub const DATA_READ: u64 = 0x134;
}

/// IA32_MCi_MISC (16.3.2.4): lowest valid bit of the address (5:0), physical address (8:6).
const MISC_PHYSICAL: u64 = 2 << 6;
const MISC_LINE: u64 = 6;

/// How a processor reports machine checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct MachineCheck {
    vendor: Vendor,
    /// It reports to the processor concerned alone. AMD's always do.
    local: bool,
}

impl MachineCheck {
    /// Gives a processor what it reports with.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(super) fn new(kvm: &Kvm, vcpu: &VcpuFd, vendor: Vendor) -> Result<Self> {
        let mut supported = 0_u64;
        // SAFETY: the call writes the one number that it is given.
        let asked =
            unsafe { ioctl_with_mut_ref(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut supported) };
        checked(asked).attempting("ask for machine checks")?;
        let wanted = match vendor {
            Vendor::Intel => MCG_CTL_P | MCG_SER_P | MCG_LMCE_P,
            Vendor::Other => MCG_CTL_P,
        };
        let capability = supported & wanted | BANKS;
        // SAFETY: the call reads the one number that it is given.
        let set = unsafe { ioctl_with_ref(vcpu, KVM_X86_SETUP_MCE(), &capability) };
        checked(set).attempting("set up machine checks")?;
        let local = capability & MCG_LMCE_P != 0;
        if local {
            msr::enable_local_machine_checks(vcpu)?;
        }
        Ok(Self { vendor, local })
    }

    /// Reports that the load at which the processor stands met poison at `hpa`. A guest that takes no machine checks, or
    /// is busy with one, shuts down.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(super) fn raise(self, vcpu: &VcpuFd, hpa: u64) -> Result<()> {
        let report = self.report(hpa);
        // SAFETY: the call reads the structure that it is given.
        let set = unsafe { ioctl_with_ref(vcpu, KVM_X86_SET_MCE(), &report) };
        checked(set).attempting("raise a machine check")
    }

    fn report(self, hpa: u64) -> kvm_x86_mce {
        let common = status::VALID
            | status::UNCORRECTED
            | status::ENABLED
            | status::ADDRESS_VALID
            | status::DATA_READ;
        let (status, misc) = match self.vendor {
            Vendor::Intel => (
                common | status::MISC_VALID | status::SIGNALLED | status::ACTION_REQUIRED,
                MISC_PHYSICAL | MISC_LINE,
            ),
            Vendor::Other => (common | status::POISON, 0),
        };
        let local = if self.local { MCG_LMCES } else { 0 };
        kvm_x86_mce {
            status,
            addr: hpa,
            misc,
            mcg_status: MCG_MCIP | MCG_EIPV | MCG_RIPV | local,
            bank: BANK,
            ..Default::default()
        }
    }
}

fn checked(result: libc::c_int) -> errno::Result<()> {
    if result < 0 {
        errno::errno_result()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_its_vendor_says_of_a_load_of_poison() {
        let report = |vendor, local| MachineCheck { vendor, local }.report(0x1234_5040);
        let intel = report(Vendor::Intel, true);
        assert_eq!(intel.status, 0xbd80_0000_0000_0134);
        assert_eq!((intel.misc, intel.mcg_status), (0x86, 0xf));
        let amd = report(Vendor::Other, false);
        assert_eq!(amd.status, 0xb400_0800_0000_0134);
        assert_eq!((amd.misc, amd.mcg_status), (0, 0x7));
        assert_eq!([intel.addr, amd.addr], [0x1234_5040; 2]);
    }
}
