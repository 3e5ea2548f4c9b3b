//! Mapped memory, anonymous or of a file or device.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};

/// Bytes of one word of a mapping.
pub const WORD: usize = size_of::<u64>();
/// Alignment of a mapping: enough for huge pages, which a dax device insists on.
const ALIGNMENT: u64 = 2 << 20;

/// A mapping, unmapped when dropped. Its words are accessed as volatile: another host or a device
/// may share the memory.
pub struct Mapping {
    base: NonNull<u8>,
    mapped: usize,
    /// Where the words begin, and how many there are.
    start: usize,
    words: usize,
}

impl Mapping {
    /// `bytes` of zeroed memory that follows the memory policy of the process.
    pub fn anonymous(bytes: usize) -> Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        Mapping::new(address, bytes, 0, bytes).with_context(|| format!("cannot map {bytes} bytes"))
    }

    /// `length` bytes at `offset` of a file or device, shared; both multiples of 8.
    pub fn file(path: &str, offset: u64, length: u64) -> Result<Mapping> {
        ensure!(
            offset.is_multiple_of(8) && length.is_multiple_of(8) && length > 0,
            "offset and length must be multiples of 8"
        );
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {path}"))?;
        let from = offset / ALIGNMENT * ALIGNMENT;
        let to = offset
            .checked_add(length)
            .context("the range ends beyond 2^64")?;
        // A dax device maps whole huge pages only; elsewhere the range may end where the file does.
        let to = if path.starts_with("/dev/dax") {
            to.next_multiple_of(ALIGNMENT)
        } else {
            to
        };
        let mapped = usize::try_from(to - from)?;
        let position = libc::off_t::try_from(from)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                position,
            )
        };
        Mapping::new(
            address,
            mapped,
            usize::try_from(offset - from)?,
            usize::try_from(length)?,
        )
        .with_context(|| format!("cannot map {length} bytes at {offset:#x} of {path}"))
    }

    /// Takes what mmap returned.
    fn new(
        address: *mut libc::c_void,
        mapped: usize,
        start: usize,
        length: usize,
    ) -> Result<Mapping> {
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let base = NonNull::new(address.cast()).context("mapped at address 0")?;
        Ok(Mapping {
            base,
            mapped,
            start,
            words: length / WORD,
        })
    }

    /// Number of 8-byte words.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Address of the first word.
    pub fn address(&self) -> *mut u64 {
        // SAFETY: `start` lies inside the mapping.
        unsafe { self.base.as_ptr().add(self.start).cast() }
    }

    /// The words, as ordinary memory: for private mappings, and where nobody else is at work.
    pub fn as_mut_slice(&mut self) -> &mut [u64] {
        // SAFETY: the words lie in a live, writable mapping that is borrowed for as long as the
        // slice; `start` is a multiple of 8 from a page's beginning, so they are aligned.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.words) }
    }

    /// Reads word `index`, exactly once.
    pub fn read(&self, index: usize) -> u64 {
        assert!(index < self.words);
        // SAFETY: the index was checked; the mapping is live and aligned.
        unsafe { self.address().add(index).read_volatile() }
    }

    /// Writes word `index`, exactly once.
    pub fn write(&self, index: usize, value: u64) {
        assert!(index < self.words);
        // SAFETY: the index was checked; the mapping is live, writable and aligned.
        unsafe { self.address().add(index).write_volatile(value) }
    }

    /// Writes a shared mapping back to its file; devices have nothing to write back.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping.
        let result = unsafe { libc::msync(self.base.as_ptr().cast(), self.mapped, libc::MS_SYNC) };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            error => Err(error),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the mapping any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_zero_and_writable() {
        let memory = Mapping::anonymous(1 << 16).unwrap();
        assert_eq!(memory.words(), (1 << 16) / WORD);
        assert_eq!(memory.read(7), 0);
        memory.write(7, 42);
        assert_eq!(memory.read(7), 42);
    }

    #[test]
    fn a_range_that_is_not_whole_words_is_refused() {
        assert!(Mapping::file("/dev/null", 4, 8).is_err());
        assert!(Mapping::file("/dev/null", 0, 0).is_err());
    }
}
