//! Moving a guest's time stamp counters forward, and whether that works here.

use std::arch::x86_64::_rdtsc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::cpuid::HypervisorBit;
use super::msr;
use super::registers::EntryState;
use super::vcpu::{Bus, SystemRequest};
use super::vcpus::{Outcome, Vcpus};
use super::vm::Vm;
use crate::error::{Error, KvmContext, Result};
use crate::layout::AddressRange;
use crate::memory::{PageSize, Ram};

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// The local APIC timer's deadline in ticks of the counter (Intel SDM 4, IA32_TSC_DEADLINE); 0: it is not armed.
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// Ticks by which a guest's counter that begins now is behind the host's, modulo 2^64.
pub(super) fn base() -> u64 {
    // SAFETY: reads a register that every 64-bit processor has.
    let now = unsafe { _rdtsc() };
    now.wrapping_neg()
}

/// The time stamp counter of one processor.
#[derive(Debug)]
pub(super) struct Tsc {
    base: u64,
    khz: u32,
    /// By how much it has been moved, ns.
    ahead: u64,
}

impl Tsc {
    /// Takes the counter over; it counts from [`base`] on.
    pub(super) fn take(vcpu: &VcpuFd, base: u64, khz: u32) -> Result<Self> {
        set_offset(vcpu, base)?;
        Ok(Self {
            base,
            khz,
            ahead: 0,
        })
    }

    /// Moves it so far ahead, ns. A timer that is armed by a deadline fires that much earlier.
    pub(super) fn move_to(&mut self, vcpu: &VcpuFd, ahead: u64) -> Result<()> {
        if ahead == self.ahead {
            return Ok(());
        }
        let ticks = u128::from(ahead) * u128::from(self.khz) / 1_000_000;
        #[allow(clippy::cast_possible_truncation)] // Modulo 2^64, as the counter itself.
        set_offset(vcpu, self.base.wrapping_add(ticks as u64))?;
        self.ahead = ahead;
        // KVM reckons when a deadline is due as it is written, so it is written again.
        match msr::get(vcpu, IA32_TSC_DEADLINE) {
            Ok(0) | Err(_) => Ok(()),
            Ok(deadline) => msr::set(vcpu, IA32_TSC_DEADLINE, deadline),
        }
    }
}

fn set_offset(vcpu: &VcpuFd, offset: u64) -> Result<()> {
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset) as u64,
        flags: 0,
    };
    // SAFETY: the call reads the structure and eight bytes at `addr`, both of which outlive it.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) };
    if result == 0 {
        Ok(())
    } else {
        Err(kvm_ioctls::Error::last()).attempting("move a time stamp counter")
    }
}

const RAM: AddressRange = AddressRange {
    start: 0,
    size: 2 << 20,
};
const CODE: u32 = 0x10_0000;
/// Where the guest of the test leaves its counter, and a number that grows with every reading.
const COUNTER: u32 = 0x8000;
const READINGS: u32 = 0x8008;
/// By how much the clock is moved, ns: more than any test takes.
const STEP: u64 = 1_000_000_000_000;
/// How long to wait for the guest's next reading.
const PATIENCE: Duration = Duration::from_secs(5);

/// Moves the clock of a guest of a few instructions, and has it read. Some KVMs take the order and do nothing.
///
/// # Errors
/// Those of a machine that cannot be built.
pub fn clock_moves() -> Result<bool> {
    let vm = Vm::new()?;
    let ram = Ram::new(&[RAM], PageSize::Base)?;
    vm.map_ram(&ram)?;
    let memory = |error: vm_memory::GuestMemoryError| Error::Memory(error.to_string());
    ram.guest()
        .write_slice(&read_counter(), GuestAddress(CODE.into()))
        .map_err(memory)?;
    let mut vcpus = Vcpus::new(&vm, 1, HypervisorBit::Shown, ram.guest())?;
    let (Some(khz), Ok(())) = (vcpus.tsc_khz(), vcpus.take_clock()) else {
        return Ok(false);
    };
    let bus: Arc<dyn Bus> = Arc::new(Nobody);
    let entry = EntryState::Pvh {
        eip: CODE,
        start_info: 0,
    };
    let control = vcpus.start(entry, &bus)?;
    let word = |address: u32| ram.guest().read_obj::<u32>(GuestAddress(address.into()));
    let reading = || -> Result<Option<u64>> {
        let (start, before) = (Instant::now(), word(READINGS).map_err(memory)?);
        // Two more: the first may have begun before the clock was moved.
        while word(READINGS).map_err(memory)?.wrapping_sub(before) < 2 {
            if start.elapsed() > PATIENCE {
                return Ok(None);
            }
            std::thread::yield_now();
        }
        control.hold();
        let counter = ram.guest().read_obj(GuestAddress(COUNTER.into()));
        counter.map(Some).map_err(memory)
    };
    let before = reading()?;
    control.move_clock(STEP);
    control.release();
    let after = reading()?;
    control.finish(Outcome::Quit);
    let _ = control.wait();
    let moved = after
        .zip(before)
        .map(|(after, before)| after.wrapping_sub(before));
    let asked = STEP / 1_000_000 * u64::from(khz);
    // What passed of itself is far below a tenth of the step.
    Ok(moved.is_some_and(|moved| (asked..asked + asked / 10).contains(&moved)))
}

/// Leaves the counter in memory, for ever.
fn read_counter() -> Vec<u8> {
    let mut code = vec![0x0f, 0x31]; // rdtsc
    code.push(0xa3); // mov [COUNTER], eax
    code.extend(COUNTER.to_le_bytes());
    code.extend([0x89, 0x15]); // mov [COUNTER + 4], edx
    code.extend((COUNTER + 4).to_le_bytes());
    code.extend([0xff, 0x05]); // inc dword [READINGS]
    code.extend(READINGS.to_le_bytes());
    code.extend([0xeb, 0xeb]); // jmp to the beginning, 21 bytes back
    code
}

struct Nobody;

impl Bus for Nobody {
    fn pio_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn pio_write(&self, _: u16, _: &[u8]) -> Option<SystemRequest> {
        None
    }

    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _: u64, _: &[u8]) -> Option<SystemRequest> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn whether_the_clock_moves_is_found_by_moving_one() {
        if !Path::new("/dev/kvm").exists() {
            println!("skipped: no /dev/kvm");
            return;
        }
        let moves = clock_moves().unwrap();
        // An interpreter of guest code has the host's counter, whatever it is told.
        println!("the clock moves: {moves}");
        assert!(!moves || super::super::require_hardware_virtualization().is_ok());
    }
}
