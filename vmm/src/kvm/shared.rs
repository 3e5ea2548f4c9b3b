//! Files mapped shared into our own address space, of which KVM shows the guest what it shall see.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::poison::PoisonedPage;
use super::presence::PAGE;
use super::userfault::Window;
use crate::error::{Error, HostContext, Result};
use crate::memory::{Transparent, advise};

/// A mapping, unmapped when dropped. Only its address is given away: Rust holds no reference into it.
#[derive(Debug)]
pub(super) struct SharedMapping {
    address: NonNull<libc::c_void>,
    len: usize,
    file: Arc<File>,
    /// Where in the file it begins.
    offset: u64,
}

// SAFETY: the mapping is memory shared with a guest anyway; the type only gives its address away,
// and unmaps it once, on drop.
unsafe impl Send for SharedMapping {}

impl SharedMapping {
    /// `len` bytes of `file` from `offset` on, in such pages as the host's kernel is willing to give.
    ///
    /// # Errors
    /// Numbers that the host's types do not hold, and its refusal.
    pub(super) fn new(file: &Arc<File>, offset: u64, len: u64, pages: Transparent) -> Result<Self> {
        let refuse = |why| Error::Mapping { hpa: 0, len, why };
        let len = usize::try_from(len).map_err(|_| refuse("too long for this host"))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { map(ptr::null_mut(), len, 0, file, offset)? };
        advise(address, len, pages);
        let address = NonNull::new(address).ok_or_else(|| refuse("the host mapped it at zero"))?;
        Ok(Self {
            address,
            len,
            file: Arc::clone(file),
            offset,
        })
    }

    /// Where it begins in our address space.
    pub(super) fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// What it shows, if that is of this file.
    pub(super) fn window_of(&self, file: &Arc<File>) -> Option<Window> {
        let first = self.offset / PAGE;
        Arc::ptr_eq(&self.file, file).then(|| Window {
            address: self.address(),
            pages: first..first + self.len as u64 / PAGE,
        })
    }

    /// Puts a page that cannot be read in the place of the one `at` bytes from the start.
    ///
    /// # Errors
    /// A place outside the mapping, and the host's refusal.
    pub(super) fn poison(&self, at: u64) -> Result<()> {
        PoisonedPage::new()?.move_to(self.page(at)?)
    }

    /// Puts the file's page back in its place.
    ///
    /// # Errors
    /// As for [`SharedMapping::poison`].
    pub(super) fn heal(&self, at: u64) -> Result<()> {
        // SAFETY: the page is one of this mapping, which nothing refers into, and is replaced as a whole.
        let healed = unsafe {
            map(
                self.page(at)?.as_ptr(),
                PAGE as usize,
                libc::MAP_FIXED,
                &self.file,
                self.offset + at,
            )
        };
        healed.map(drop)
    }

    /// The page `at` bytes from the start.
    ///
    /// # Errors
    /// A place outside the mapping.
    pub(super) fn page(&self, at: u64) -> Result<NonNull<libc::c_void>> {
        let outside = Error::Mapping {
            hpa: at,
            len: PAGE,
            why: "the page lies outside the mapping",
        };
        match usize::try_from(at) {
            Ok(offset) if at.is_multiple_of(PAGE) && offset < self.len => {
                // SAFETY: the offset was checked against the mapping's length.
                Ok(unsafe { self.address.byte_add(offset) })
            }
            _ => Err(outside),
        }
    }
}

/// Maps `len` bytes of `file` from `offset` on, shared, readable and writable.
///
/// # Safety
/// With `MAP_FIXED` in `flags`, what is at `address` is replaced: nothing may refer to it.
unsafe fn map(
    address: *mut libc::c_void,
    len: usize,
    flags: libc::c_int,
    file: &File,
    offset: u64,
) -> Result<*mut libc::c_void> {
    let offset = i64::try_from(offset).map_err(|_| Error::Mapping {
        hpa: 0,
        len: len as u64,
        why: "the file offset is too large",
    })?;
    // SAFETY: the caller answers for the place.
    let mapped = unsafe {
        libc::mmap(
            address,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE | flags,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).trying(|| "map a backing file".into());
    }
    Ok(mapped)
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the address and length are those of `mmap`, and nothing refers to the memory any
        // more: KVM's slot is gone before its `Slot` is dropped.
        unsafe { libc::munmap(self.address.as_ptr(), self.len) };
    }
}
