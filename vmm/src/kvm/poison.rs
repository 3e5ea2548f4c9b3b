//! Poisoned pages: memory whose access by the guest is a machine check.
//!
//! Linux has page table markers for memory that cannot be read (`UFFDIO_POISON`, Linux 6.6; Documentation/admin-guide/mm/
//! userfaultfd.rst). When KVM meets one it does not run the guest's access, but sends the vCPU's thread SIGBUS with the
//! address in our own space, as it does for memory of the host that really failed. Nothing traps while no poison is touched.

use std::cell::Cell;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::{io, mem};

use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;
use vmm_sys_util::signal::register_signal_handler;

use super::presence::PAGE;
use crate::error::{HostContext, KvmContext, Result};

/// Type of the ioctls, and version of the interface (linux/userfaultfd.h, as what follows).
const UFFDIO: u32 = 0xaa;
const UFFD_API: u64 = 0xaa;
/// Nobody will handle faults, so the privilege of handling the kernel's is not asked for.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_FEATURE_POISON: u64 = 1 << 14;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;

ioctl_iowr_nr!(UFFDIO_API, UFFDIO, 0x3f, UffdioApi);
ioctl_iowr_nr!(UFFDIO_REGISTER, UFFDIO, 0x00, UffdioRegister);
ioctl_iowr_nr!(UFFDIO_POISON, UFFDIO, 0x08, UffdioPoison);

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct UffdioRange {
    start: u64,
    len: u64,
}

#[repr(C)]
struct UffdioRegister {
    range: UffdioRange,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioPoison {
    range: UffdioRange,
    mode: u64,
    updated: i64,
}

/// A page of ours whose every access fails.
pub(super) struct PoisonedPage(NonNull<libc::c_void>);

impl PoisonedPage {
    const LEN: usize = PAGE as usize;

    /// A page at an address of the host's choice.
    ///
    /// # Errors
    /// [`Error::Host`](crate::error::Error::Host) where the host has no such pages.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let page = match NonNull::new(address) {
            Some(page) if address != libc::MAP_FAILED => Self(page),
            _ => return Err(io::Error::last_os_error()).trying(|| "map a page".into()),
        };
        let range = UffdioRange {
            start: address as u64,
            len: PAGE,
        };
        mark(range).trying(|| "poison a page; the host needs Linux 6.6 with userfaultfd".into())?;
        Ok(page)
    }

    /// Moves it to the place of the page at `target`, at one instant for all who access that.
    ///
    /// # Errors
    /// [`Error::Host`](crate::error::Error::Host), after which the target is as it was.
    pub(super) fn move_to(self, target: NonNull<libc::c_void>) -> Result<()> {
        // SAFETY: both are whole pages that nothing refers into: this one is new, the target is guest memory.
        let moved = unsafe {
            libc::mremap(
                self.0.as_ptr(),
                Self::LEN,
                Self::LEN,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                target.as_ptr(),
            )
        };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).trying(|| "poison a page".into());
        }
        // It has left its old address.
        mem::forget(self);
        Ok(())
    }
}

impl Drop for PoisonedPage {
    fn drop(&mut self) {
        // SAFETY: the page is ours alone.
        unsafe { libc::munmap(self.0.as_ptr(), Self::LEN) };
    }
}

/// Marks memory that nobody has touched yet.
fn mark(range: UffdioRange) -> io::Result<()> {
    let refused = io::Error::last_os_error;
    let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
    // SAFETY: the call takes a number and makes a file descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(refused());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let uffd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = UffdioApi {
        api: UFFD_API,
        features: UFFD_FEATURE_POISON,
        ioctls: 0,
    };
    let mut register = UffdioRegister {
        range,
        mode: UFFDIO_REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    let mut poison = UffdioPoison {
        range,
        mode: 0,
        updated: 0,
    };
    // SAFETY: each structure is the one that its ioctl reads and writes, and lives through the call. The range is memory
    // that nothing refers to, and stays marked when the descriptor is closed.
    let done = unsafe {
        ioctl_with_mut_ref(&uffd, UFFDIO_API(), &mut api) >= 0
            && ioctl_with_mut_ref(&uffd, UFFDIO_REGISTER(), &mut register) >= 0
            && ioctl_with_mut_ref(&uffd, UFFDIO_POISON(), &mut poison) >= 0
    };
    if done { Ok(()) } else { Err(refused()) }
}

thread_local! {
    /// The address that the last SIGBUS of this thread named; `None` if it has been taken.
    static TOUCHED: Cell<Option<u64>> = const { Cell::new(None) };
    /// Whether this thread runs a vCPU.
    static RUNS_A_VCPU: Cell<bool> = const { Cell::new(false) };
}

/// Catches the SIGBUS of threads that run vCPUs.
///
/// # Errors
/// [`Error::Kvm`](crate::error::Error::Kvm) if the host refuses.
pub(super) fn catch() -> Result<()> {
    register_signal_handler(libc::SIGBUS, on_sigbus).attempting("handle the signal of poison")
}

/// Says that this thread runs a vCPU.
pub(super) fn enter_vcpu_thread() {
    RUNS_A_VCPU.set(true);
}

/// The address in our own space that the guest could not access, once.
pub(super) fn take_touched() -> Option<u64> {
    TOUCHED.take()
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands the handler a valid structure; SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    if code == libc::BUS_MCEERR_AR && RUNS_A_VCPU.get() {
        TOUCHED.set(Some(address as u64));
        return;
    }
    // No guest's doing: whoever it was meets it again, and the process ends as it would have.
    // SAFETY: the call is one of those that a handler may make.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
