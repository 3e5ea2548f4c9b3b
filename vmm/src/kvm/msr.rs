//! Model-specific registers: what a processor starts with, and those that KVM does not know.

use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN, Msrs, kvm_enable_cap, kvm_msr_entry,
};
use kvm_ioctls::{VcpuFd, VmFd};

use super::cpuid::{CpuProfile, HypervisorBit, Vendor};
use crate::error::{Error, KvmContext, Result};

/// Microcode revision (Intel SDM 4, IA32_BIOS_SIGN_ID): bits 63:32.
const IA32_BIOS_SIGN_ID: u32 = 0x8b;
/// Bit position of the revision in [`IA32_BIOS_SIGN_ID`].
const BIOS_SIGN_ID_REVISION: u32 = 32;
/// Miscellaneous features (Intel SDM 4, IA32_MISC_ENABLE).
const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Bit 0 of [`IA32_MISC_ENABLE`]: fast string operations.
const MISC_ENABLE_FAST_STRING: u64 = 1 << 0;
/// Default memory type (Intel SDM 3, 12.11.2.1, IA32_MTRR_DEF_TYPE).
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// Bit 11 of [`IA32_MTRR_DEF_TYPE`]: MTRRs are on.
const MTRR_ENABLE: u64 = 1 << 11;
/// Memory type write-back.
const MTRR_WRITE_BACK: u64 = 6;

/// Feature control (Intel SDM 4, IA32_FEATURE_CONTROL): locked (0), VMX (2), local machine checks (20).
const IA32_FEATURE_CONTROL: u32 = 0x3a;
const FEATURE_CONTROL_LOCKED: u64 = 1 << 0;
const FEATURE_CONTROL_VMX: u64 = 1 << 2;
const FEATURE_CONTROL_LOCAL_MACHINE_CHECKS: u64 = 1 << 20;
/// Deferred error configuration (AMD PPR, MCA_INTR_CFG). Processors without it fault, and Linux takes that for an answer;
/// it takes zeros for a mistake of the firmware.
const MCA_INTERRUPT_CONFIGURATION: u32 = 0xc000_0410;

/// Whether a guest that takes itself for bare metal must see that it has no register `index`.
pub(super) fn is_absent(index: u32) -> bool {
    index == MCA_INTERRUPT_CONFIGURATION
}

/// Lets the guest ask for machine checks that reach the processor concerned alone, as firmware does. VMX goes with it where
/// the guest has it: the register can be written once.
pub(super) fn enable_local_machine_checks(vcpu: &VcpuFd) -> Result<()> {
    let features = FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_LOCAL_MACHINE_CHECKS;
    set(vcpu, IA32_FEATURE_CONTROL, features | FEATURE_CONTROL_VMX)
        .or_else(|_| set(vcpu, IA32_FEATURE_CONTROL, features))
}

/// Makes accesses to registers that KVM does not know leave the guest, so that they read zero and
/// drop writes instead of faulting.
pub(super) fn exit_on_unknown(vm: &VmFd) -> Result<()> {
    let mut request = kvm_enable_cap {
        cap: KVM_CAP_X86_USER_SPACE_MSR,
        ..Default::default()
    };
    request.args[0] = u64::from(KVM_MSR_EXIT_REASON_UNKNOWN);
    vm.enable_cap(&request)
        .attempting("take over unknown model-specific registers")
}

/// Sets what firmware leaves behind on every processor.
pub(super) fn initialize(vcpu: &VcpuFd, profile: &CpuProfile) -> Result<()> {
    set(vcpu, IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING)?;
    // All memory write-back by default: Linux trims RAM that no MTRR covers when it believes to run
    // on bare metal. Device memory is uncached by the page tables.
    set(vcpu, IA32_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK)?;
    if profile.hypervisor() == HypervisorBit::Hidden && profile.vendor() == Vendor::Intel {
        // On bare metal Linux refuses the TSC deadline timer of models with old microcode. KVM's
        // timer has no such fault, so claim the newest there can be. Not fatal where KVM refuses.
        let revision = u64::from(u32::MAX) << BIOS_SIGN_ID_REVISION;
        if let Err(error) = set(vcpu, IA32_BIOS_SIGN_ID, revision) {
            log::debug!("{error}");
        }
    }
    Ok(())
}

/// Reads a register.
pub(super) fn get(vcpu: &VcpuFd, index: u32) -> Result<u64> {
    let missing = || Error::MissingCapability("model-specific register");
    let entry = kvm_msr_entry {
        index,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| missing())?;
    let count = vcpu
        .get_msrs(&mut msrs)
        .attempting("read a model-specific register")?;
    let entry = msrs.as_slice().first().filter(|_| count == 1);
    entry.map(|entry| entry.data).ok_or_else(missing)
}

/// Sets a register.
pub(super) fn set(vcpu: &VcpuFd, index: u32, data: u64) -> Result<()> {
    let entry = kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[entry])
        .map_err(|_| Error::MissingCapability("room for a model-specific register"))?;
    // KVM returns how many registers it took.
    match vcpu
        .set_msrs(&msrs)
        .attempting("set a model-specific register")?
    {
        1 => Ok(()),
        _ => Err(Error::MissingCapability(
            "model-specific register that every PC has",
        )),
    }
}
