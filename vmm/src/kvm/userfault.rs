//! Which pages of a file's mappings somebody has come for, and which of them were written.
//!
//! A page that nobody has come for yet is in no page table, of this process or of the guest; its bytes are in the file. It is
//! write-protected by userfaultfd in the mode that asks nobody (`UFFD_FEATURE_WP_ASYNC`, Linux 6.7): the first load and the
//! first store of a page cost a page fault each, which the kernel handles by itself, and `PAGEMAP_SCAN` says which pages
//! have had one. Nobody ever waits for us, nothing is mapped around a page that is read, and it takes no privilege.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use vm_memory::MmapRegion;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::memslots::Memslots;
use super::presence::PAGE;
use crate::error::{HostContext, Result};

// The kernel's names and numbers: linux/userfaultfd.h, linux/fs.h.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_PRESENT: u64 = 1 << 3;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Pages alike: addresses, and what they are.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Alike {
    start: u64,
    end: u64,
    categories: u64,
}

ioctl_iowr_nr!(UFFDIO_API_CALL, 0xaa, 0x3f, Api);
ioctl_iowr_nr!(UFFDIO_REGISTER, 0xaa, 0x00, Register);
ioctl_iowr_nr!(UFFDIO_WRITEPROTECT, 0xaa, 0x06, WriteProtect);
ioctl_iowr_nr!(PAGEMAP_SCAN, 0x66, 16, Scan);

/// The seam between an observer and what it observes: the pages of a file, by number.
pub trait Watched: Send {
    /// Tells which pages of a range somebody has come for since they were taken away, and whether to write.
    fn look(&self, pages: Range<u64>, seen: &mut dyn FnMut(Range<u64>, bool));

    /// Takes pages away: whoever loads from them or stores to them is seen.
    fn take_away(&self, pages: Range<u64>);

    /// Lets loads go on, but who stores is seen.
    fn protect(&self, pages: Range<u64>);
}

/// A mapping of ours, and the pages of the file that it shows.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub address: u64,
    pub pages: Range<u64>,
}

impl Window {
    /// Where it shows pages of a range, if it does.
    fn part(&self, pages: &Range<u64>) -> Option<Range<u64>> {
        let start = self.pages.start.max(pages.start);
        let end = self.pages.end.min(pages.end);
        let at = |page: u64| self.address + (page - self.pages.start) * PAGE;
        (start < end).then(|| at(start)..at(end))
    }
}

/// What watches mappings.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
    pagemap: File,
}

impl Userfault {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// [`Error::Host`](crate::Error::Host) where the host cannot do that.
    pub fn new() -> Result<Self> {
        let needs = || "observe pages by userfaultfd, for which it takes Linux 6.7".to_string();
        // SAFETY: takes no pointer, and makes a file descriptor.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
        let fd = i32::try_from(fd).unwrap_or(-1);
        checked(fd).trying(needs)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut api = Api {
            api: UFFD_API,
            features: UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes no more than the structure.
        checked(unsafe { ioctl_with_mut_ref(&fd, UFFDIO_API_CALL(), &mut api) }).trying(needs)?;
        let pagemap = File::open("/proc/self/pagemap").trying(needs)?;
        Ok(Self { fd, pagemap })
    }

    /// Begins to watch a mapping that nobody has used yet.
    pub(super) fn arm(&self, window: &Window) -> Result<()> {
        let what = || "observe the pages of a mapping".to_string();
        let start = window.address;
        let len = (window.pages.end - window.pages.start) * PAGE;
        let mut register = Register {
            start,
            len,
            mode: UFFDIO_REGISTER_MODE_WP,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes no more than the structure. What becomes of the mapping's pages changes what
        // their first accesses cost, and nothing else.
        checked(unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_REGISTER(), &mut register) })
            .trying(what)?;
        self.write_protect(start..start + len).trying(what)
    }

    fn write_protect(&self, addresses: Range<u64>) -> std::io::Result<()> {
        let mut protect = WriteProtect {
            start: addresses.start,
            len: addresses.end - addresses.start,
            mode: UFFDIO_WRITEPROTECT_MODE_WP,
        };
        // SAFETY: as above; stores to these pages go on, behind a page fault.
        checked(unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_WRITEPROTECT(), &mut protect) })
    }

    fn look(&self, window: &Window, pages: &Range<u64>, seen: &mut dyn FnMut(Range<u64>, bool)) {
        const MOST: usize = 256;
        let Some(mut part) = window.part(pages) else {
            return;
        };
        let mut found = [Alike::default(); MOST];
        while part.start < part.end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: part.start,
                end: part.end,
                vec: found.as_mut_ptr() as u64,
                vec_len: MOST as u64,
                category_mask: PAGE_IS_PRESENT,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
                ..Scan::default()
            };
            // SAFETY: the kernel writes the structure, and at most `vec_len` entries of `found`.
            let count = unsafe { ioctl_with_mut_ref(&self.pagemap, PAGEMAP_SCAN(), &mut scan) };
            if let Err(error) = checked(count) {
                log::error!("cannot look at page tables: {error}");
                return;
            }
            let page = |address: u64| window.pages.start + (address - window.address) / PAGE;
            for alike in found
                .iter()
                .take(usize::try_from(count).unwrap_or_default())
            {
                let written = alike.categories & PAGE_IS_WRITTEN != 0;
                seen(page(alike.start)..page(alike.end), written);
            }
            if scan.walk_end <= part.start {
                return;
            }
            part.start = scan.walk_end;
        }
    }

    fn take_away(&self, window: &Window, pages: &Range<u64>) {
        let Some(part) = window.part(pages) else {
            return;
        };
        let len = usize::try_from(part.end - part.start).unwrap_or_default();
        // SAFETY: pages of a shared mapping of ours; the file keeps their bytes, so that nobody can tell.
        let dropped = checked(unsafe {
            libc::madvise(part.start as *mut libc::c_void, len, libc::MADV_DONTNEED)
        });
        // In this order somebody who comes in between may be taken for a reader, and never for more than he was.
        if let Err(error) = dropped.and_then(|()| self.write_protect(part)) {
            log::error!("cannot take pages away: {error}");
        }
    }

    fn protect(&self, window: &Window, pages: &Range<u64>) {
        if let Some(part) = window.part(pages)
            && let Err(error) = self.write_protect(part)
        {
            log::error!("cannot protect pages: {error}");
        }
    }
}

fn checked(result: libc::c_int) -> std::io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A mapping that this process uses itself: the file's first pages.
#[derive(Debug)]
pub struct WatchedRegion {
    userfault: Arc<Userfault>,
    window: Window,
    /// Keeps it mapped.
    _region: Arc<MmapRegion>,
}

impl WatchedRegion {
    /// Watches a shared mapping of a file from its beginning, which nobody has used yet.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(userfault: &Arc<Userfault>, region: &Arc<MmapRegion>) -> Result<Self> {
        let window = Window {
            address: region.as_ptr() as u64,
            pages: 0..region.size() as u64 / PAGE,
        };
        userfault.arm(&window)?;
        Ok(Self {
            userfault: Arc::clone(userfault),
            window,
            _region: Arc::clone(region),
        })
    }
}

impl Watched for WatchedRegion {
    fn look(&self, pages: Range<u64>, seen: &mut dyn FnMut(Range<u64>, bool)) {
        self.userfault.look(&self.window, &pages, seen);
    }

    fn take_away(&self, pages: Range<u64>) {
        self.userfault.take_away(&self.window, &pages);
    }

    fn protect(&self, pages: Range<u64>) {
        self.userfault.protect(&self.window, &pages);
    }
}

/// The guest's slots that show a file, wherever they are and however many.
#[derive(Debug)]
pub struct WatchedSlots {
    userfault: Arc<Userfault>,
    slots: Arc<Memslots>,
    file: Arc<File>,
}

impl WatchedSlots {
    /// Watches a file in all slots that show it from now on.
    #[must_use]
    pub fn new(userfault: &Arc<Userfault>, slots: &Arc<Memslots>, file: &Arc<File>) -> Self {
        slots.watch(file, userfault);
        Self {
            userfault: Arc::clone(userfault),
            slots: Arc::clone(slots),
            file: Arc::clone(file),
        }
    }
}

impl Watched for WatchedSlots {
    fn look(&self, pages: Range<u64>, seen: &mut dyn FnMut(Range<u64>, bool)) {
        self.slots.each_showing(&self.file, |window| {
            self.userfault.look(window, &pages, seen);
        });
    }

    fn take_away(&self, pages: Range<u64>) {
        self.slots.each_showing(&self.file, |window| {
            self.userfault.take_away(window, &pages);
        });
    }

    fn protect(&self, pages: Range<u64>) {
        self.slots.each_showing(&self.file, |window| {
            self.userfault.protect(window, &pages);
        });
    }
}
