//! One virtual processor: its state at reset, and what to do when it leaves the guest.

use std::sync::Arc;

use kvm_bindings::{kvm_lapic_state, kvm_run, kvm_xcrs};
use kvm_ioctls::{Error as Errno, VcpuExit, VcpuFd};
use vm_memory::GuestMemoryMmap;

use super::cpuid::CpuProfile;
use super::crash::{Cause, Crash};
use super::exits::{ExitCause, ExitCounts};
use super::mce::MachineCheck;
use super::memslots::Memslots;
use super::registers::{self, EntryState};
use super::vm::Vm;
use super::warp::Tsc;
use super::{msr, poison};
use crate::error::{KvmContext, Result};

/// Local vector table entries (Intel SDM 3, 11.5.1).
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
/// Delivery modes in bits 10:8 of an LVT entry.
const DELIVERY_MODE: u32 = 0b111 << 8;
const DELIVERY_NMI: u32 = 0b100 << 8;
const DELIVERY_EXTINT: u32 = 0b111 << 8;
/// LVT bit 16: masked.
const LVT_MASKED: u32 = 1 << 16;

/// What a load finds where nobody answers.
const OPEN_BUS: u8 = 0xff;

/// What a device asks of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRequest {
    /// Switch off.
    PowerOff,
    /// Start anew.
    Reset,
}

/// What lies behind the ports and the addresses without memory. Called from all vCPU threads.
///
/// `data` has the access's length: 1, 2 or 4 bytes at a port, 1 to 8 in memory. A bus without a
/// device at the address reads all ones and drops writes.
pub trait Bus: Send + Sync {
    /// `in` from `port`.
    fn pio_read(&self, port: u16, data: &mut [u8]);
    /// `out` to `port`.
    fn pio_write(&self, port: u16, data: &[u8]) -> Option<SystemRequest>;
    /// A load from `address`.
    fn mmio_read(&self, address: u64, data: &mut [u8]);
    /// A store to `address`.
    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<SystemRequest>;
    /// A load or store met poison in the page at `page`. Returns the address that the machine check is to name.
    fn poison(&self, page: u64) -> u64 {
        page
    }
}

/// How a run of the guest ended.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes on.
    Continue,
    /// A signal asks for attention.
    Kicked,
    /// A device asks something of the machine.
    Request(SystemRequest),
    /// It does not go on.
    Dead(Box<Crash>),
}

/// One virtual processor.
#[derive(Debug)]
pub(super) struct Vcpu {
    fd: VcpuFd,
    id: u8,
    memory: GuestMemoryMmap,
    /// Its time stamp counter, if that can be moved.
    tsc: Option<Tsc>,
    memslots: Arc<Memslots>,
    machine_check: MachineCheck,
}

impl Vcpu {
    /// Gives `fd` the CPUID, MSRs and local APIC that firmware leaves behind.
    pub(super) fn new(
        vm: &Vm,
        fd: VcpuFd,
        id: u8,
        profile: &CpuProfile,
        memory: GuestMemoryMmap,
    ) -> Result<Self> {
        fd.set_cpuid2(&profile.cpuid(id)?)
            .attempting("set the CPUID leaves")?;
        enable_extended_state(&fd, profile.extended_state());
        msr::initialize(&fd, profile)?;
        let mut lapic = fd.get_lapic().attempting("read the local APIC")?;
        connect_lint(&mut lapic, LVT_LINT0, DELIVERY_EXTINT);
        connect_lint(&mut lapic, LVT_LINT1, DELIVERY_NMI);
        fd.set_lapic(&lapic).attempting("set the local APIC")?;
        let machine_check = MachineCheck::new(vm.kvm(), &fd, profile.vendor())?;
        Ok(Self {
            fd,
            id,
            memory,
            tsc: None,
            memslots: Arc::clone(vm.memslots()),
            machine_check,
        })
    }

    /// Lets its time stamp counter be moved, which counts from `base` ticks behind the host's.
    pub(super) fn take_tsc(&mut self, base: u64, khz: u32) -> Result<()> {
        self.tsc = Some(Tsc::take(&self.fd, base, khz)?);
        Ok(())
    }

    /// Moves its time stamp counter so far ahead of the host's time, ns, if it is not already.
    pub(super) fn follow_clock(&mut self, ahead: u64) {
        if let Some(tsc) = &mut self.tsc
            && let Err(error) = tsc.move_to(&self.fd, ahead)
        {
            log::error!("vCPU {}: {error}", self.id);
        }
    }

    pub(super) fn id(&self) -> u8 {
        self.id
    }

    /// Puts the processor at the kernel's entry. The others wait for its INIT.
    pub(super) fn enter(&self, entry: EntryState) -> Result<()> {
        registers::enter(&self.fd, entry, &self.memory)
    }

    /// Where a signal handler can make `KVM_RUN` return at once.
    pub(super) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Takes back what a signal handler wrote there.
    pub(super) fn clear_immediate_exit(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs the guest until it leaves, and serves what it left for.
    pub(super) fn step(&mut self, bus: &dyn Bus, counts: &ExitCounts) -> Step {
        let run: *const kvm_run = self.fd.get_kvm_run();
        let cause = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                counts.count(ExitCause::PortRead);
                // SAFETY: `run` is the shared page of this vCPU, mapped as long as `self.fd`
                // lives; the exit reason says that `io` is the valid field. `data` lies behind it.
                let width = unsafe { (&raw const (*run).__bindgen_anon_1.io.size).read() };
                // A string instruction comes as one exit with many elements.
                for element in data.chunks_mut(usize::from(width.max(1))) {
                    bus.pio_read(port, element);
                }
                return Step::Continue;
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                counts.count(ExitCause::PortWrite);
                // SAFETY: as for `IoIn`.
                let width = unsafe { (&raw const (*run).__bindgen_anon_1.io.size).read() };
                let mut elements = data.chunks(usize::from(width.max(1)));
                return request(elements.find_map(|element| bus.pio_write(port, element)));
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                if let Some(page) = self.memslots.poisoned_page(address) {
                    data.fill(OPEN_BUS);
                    return self.emulated(page, bus, counts);
                }
                counts.count(ExitCause::MmioRead);
                bus.mmio_read(address, data);
                return Step::Continue;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                if let Some(page) = self.memslots.poisoned_page(address) {
                    return self.emulated(page, bus, counts);
                }
                counts.count(ExitCause::MmioWrite);
                return request(bus.mmio_write(address, data));
            }
            Ok(VcpuExit::X86Rdmsr(access)) => {
                counts.count(ExitCause::Msr);
                log::debug!(
                    "vCPU {} reads unknown MSR {:#x} as 0",
                    self.id,
                    access.index
                );
                *access.data = 0;
                *access.error = msr::is_absent(access.index).into();
                return Step::Continue;
            }
            Ok(VcpuExit::X86Wrmsr(access)) => {
                counts.count(ExitCause::Msr);
                log::debug!(
                    "vCPU {} writes unknown MSR {:#x}: dropped",
                    self.id,
                    access.index
                );
                *access.error = 0;
                return Step::Continue;
            }
            Ok(VcpuExit::Intr) => return self.interrupted(bus, counts),
            Err(errno) if matches!(errno.errno(), libc::EINTR | libc::EAGAIN) => {
                return self.interrupted(bus, counts);
            }
            Ok(VcpuExit::Shutdown) => Cause::TripleFault,
            Ok(VcpuExit::FailEntry(reason, _)) => Cause::FailedEntry { reason },
            Ok(VcpuExit::InternalError) => {
                // SAFETY: as for `IoIn`, with `internal` as the valid field.
                let internal = unsafe { (&raw const (*run).__bindgen_anon_1.internal).read() };
                let ndata = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
                let data = internal.data.into_iter().take(ndata).collect();
                Cause::InternalError {
                    suberror: internal.suberror,
                    data,
                }
            }
            Ok(exit) => Cause::Unexpected(format!("{exit:?}")),
            Err(errno) => Cause::RunFailed(errno),
        };
        counts.count(ExitCause::Other);
        self.dead(cause)
    }

    /// A signal: poison if the guest touched some, else a kick.
    fn interrupted(&self, bus: &dyn Bus, counts: &ExitCounts) -> Step {
        let Some(host) = poison::take_touched() else {
            counts.count(ExitCause::Kicked);
            return Step::Kicked;
        };
        // Gone from the map in the meantime: the access is made anew, and finds what is there now.
        match self.memslots.guest_address(host) {
            Some(page) => self.poisoned(page, bus, counts),
            None => Step::Continue,
        }
    }

    /// An instruction that KVM emulates met poison in the page at `page`. To KVM that is a device, and it has the instruction
    /// half done: it has to finish, and is undone.
    fn emulated(&mut self, page: u64, bus: &dyn Bus, counts: &ExitCounts) -> Step {
        let undone = self.finish_access();
        if let Err(error) = undone {
            return self.dead(Cause::RunFailed(error));
        }
        match self.poisoned(page, bus, counts) {
            // A kick may have come in between.
            Step::Continue => Step::Kicked,
            end => end,
        }
    }

    fn finish_access(&mut self) -> Result<(), Errno> {
        let before = self.fd.get_regs()?;
        self.fd.set_kvm_immediate_exit(1);
        // What the instruction is still to access comes as further exits, at most as many as it has bytes.
        while let Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) = self.fd.run() {}
        self.fd.set_regs(&before)
    }

    /// Tells the guest of poison in the page at `page`.
    fn poisoned(&self, page: u64, bus: &dyn Bus, counts: &ExitCounts) -> Step {
        counts.count(ExitCause::Poison);
        let hpa = bus.poison(page);
        log::info!("vCPU {} touched poison at {hpa:#x}", self.id);
        match self.machine_check.raise(&self.fd, hpa) {
            Ok(()) => Step::Continue,
            Err(error) => self.dead(Cause::Unexpected(error.to_string())),
        }
    }

    fn dead(&self, cause: Cause) -> Step {
        Step::Dead(Box::new(Crash::capture(
            self.id,
            cause,
            &self.fd,
            &self.memory,
        )))
    }
}

fn request(request: Option<SystemRequest>) -> Step {
    request.map_or(Step::Continue, Step::Request)
}

/// Sets XCR0 to `components`, as firmware that uses vector registers leaves it.
///
/// KVM derives the size of the XSAVE area in CPUID leaf 0xD from the XCR0 that it knows. Where the
/// guest's XSETBV does not reach KVM (SVM as QEMU's TCG emulates it), the reset value would stay,
/// Linux would find the size wrong, warn, and do without AVX. Kernels set XCR0 themselves, so it
/// does no harm elsewhere, and a KVM that refuses it loses nothing.
fn enable_extended_state(fd: &VcpuFd, components: u64) {
    if components == 0 {
        return;
    }
    let mut registers = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    registers.xcrs[0].value = components;
    if let Err(error) = fd.set_xcrs(&registers) {
        log::debug!("cannot set XCR0 to {components:#x}: {error}");
    }
}

/// Sets the delivery mode of a local interrupt pin and unmasks it.
fn connect_lint(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let Some(bytes) = lapic.regs.get_mut(register..register + 4) else {
        return;
    };
    let old = bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u32::from(byte as u8));
    let new = old & !(DELIVERY_MODE | LVT_MASKED) | mode;
    for (byte, value) in bytes.iter_mut().zip(new.to_le_bytes()) {
        *byte = value.cast_signed();
    }
}
