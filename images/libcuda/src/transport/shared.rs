//! Memory that the accelerator reads and writes at the same time.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, Result};

/// Memory that was mapped for the accelerator and for this process, and stays mapped as long as its owner lives. Each access
/// is checked against its length.
pub struct Shared {
    address: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread, and every access is one of the methods below, which are made for memory that
// others change.
unsafe impl Send for Shared {}

impl Shared {
    /// # Safety
    /// `bytes` bytes at `address`, a multiple of 64, are mapped for reading and writing until the value's owner drops it, and
    /// are no memory of the Rust program.
    pub unsafe fn new(address: *mut u8, bytes: usize) -> Self {
        Self { address, bytes }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where `bytes` bytes are.
    fn at(&self, offset: usize, bytes: usize) -> Result<*mut u8> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(Error::UNKNOWN);
        }
        Ok(self.address.wrapping_add(offset))
    }

    fn word(&self, offset: u64) -> Result<&AtomicU32> {
        let place = self.at(offset as usize, 4)?;
        if !place.addr().is_multiple_of(4) {
            return Err(Error::UNKNOWN);
        }
        // SAFETY: four bytes of the mapped memory, aligned; all others reach them by atomic accesses, too.
        Ok(unsafe { AtomicU32::from_ptr(place.cast()) })
    }

    pub fn load(&self, offset: u64) -> Result<u32> {
        Ok(self.word(offset)?.load(Ordering::Acquire))
    }

    pub fn store(&self, offset: u64, value: u32) -> Result<()> {
        self.word(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Copies into the memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let place = self.at(offset, bytes.len())?;
        // SAFETY: the range is mapped, and is no memory of the Rust program.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies out of the memory.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let place = self.at(offset, bytes.len())?;
        // SAFETY: as for `write`.
        unsafe {
            bytes
                .as_mut_ptr()
                .copy_from_nonoverlapping(place, bytes.len())
        };
        Ok(())
    }

    /// Writes a plain structure.
    pub fn write_entry<T: Plain>(&self, offset: u64, entry: &T) -> Result<()> {
        let place = self.at(offset as usize, size_of::<T>())?;
        // SAFETY: the range is mapped, and a plain structure may lie at any address.
        unsafe { place.cast::<T>().write_unaligned(*entry) };
        Ok(())
    }

    /// Reads a plain structure.
    pub fn read_entry<T: Plain>(&self, offset: u64) -> Result<T> {
        let place = self.at(offset as usize, size_of::<T>())?;
        // SAFETY: the range is mapped, and any bytes are a plain structure.
        Ok(unsafe { place.cast::<T>().read_unaligned() })
    }
}

/// Structures of integers without padding.
///
/// # Safety
/// Any bytes are a value of the type.
pub unsafe trait Plain: Copy {}

// SAFETY: fields are integers, and their sizes add up to that of the structure.
unsafe impl Plain for super::spec::Submission {}
// SAFETY: as above.
unsafe impl Plain for super::spec::Completion {}
// SAFETY: as above.
unsafe impl Plain for super::spec::Param {}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Page([u8; 128]);

    #[test]
    fn accesses_beyond_the_end_are_refused() {
        let mut page = Page([0; 128]);
        // SAFETY: the page outlives the value, and is used by nothing else meanwhile.
        let shared = unsafe { Shared::new(page.0.as_mut_ptr(), 128) };
        shared.store(124, 7).unwrap();
        assert_eq!(shared.load(124), Ok(7));
        assert!(shared.load(126).is_err());
        assert!(shared.load(128).is_err());
        assert!(shared.load(u64::MAX).is_err());
        assert!(shared.write(120, &[0; 9]).is_err());
        assert!(shared.read(128, &mut [0; 1]).is_err());
        shared.write(0, b"text").unwrap();
        let mut bytes = [0; 4];
        shared.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"text");
    }
}
