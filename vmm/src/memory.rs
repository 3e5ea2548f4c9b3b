//! Guest RAM and other memory that a machine shares with its guest: sealed memfds, mapped shared.
// madvise(2) has no safe form.
#![allow(unsafe_code)]

use std::fs::File;
use std::sync::Arc;

use log::debug;
use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::error::{Error, HostContext, Result};
use crate::layout::AddressRange;

/// The page size that backs a memfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB, given by the host as they are touched.
    #[default]
    Base,
    /// 2 MiB, from the host's reserved pool.
    Huge2M,
}

impl PageSize {
    /// Bytes in one page.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Base => 4 << 10,
            Self::Huge2M => 2 << 20,
        }
    }
}

/// A new memfd of `size` bytes, all zero, that can be neither shrunk nor grown: a mapping of it can never fault for
/// want of file.
///
/// # Errors
/// [`Error::Memory`] if `size` is no multiple of the page size or the huge pages are not there; [`Error::Host`] if the
/// host refuses.
pub fn memfd(name: &str, size: u64, pages: PageSize) -> Result<File> {
    if size == 0 || !size.is_multiple_of(pages.bytes()) {
        return Err(Error::Memory(format!(
            "{name}: {size} bytes is not a multiple of the page size, {}",
            pages.bytes()
        )));
    }
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if pages == PageSize::Huge2M {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    let file = File::from(
        rustix::fs::memfd_create(name, flags).trying(|| format!("create memory for {name}"))?,
    );
    file.set_len(size)
        .trying(|| format!("give {name} {size} bytes"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).trying(|| format!("seal the memory of {name}"))?;
    Ok(file)
}

/// Guest RAM: one memfd, mapped at one guest range or at two around the 32-bit hole.
#[derive(Clone, Debug)]
pub struct Ram {
    guest: GuestMemoryMmap,
    file: Arc<File>,
}

impl Ram {
    /// Makes RAM for `ranges`, which lie one after the other in the memfd.
    ///
    /// # Errors
    /// Those of [`memfd`], and [`Error::Memory`] if the mapping fails, for huge pages with the number that is missing.
    pub fn new(ranges: &[AddressRange], pages: PageSize) -> Result<Self> {
        let size = ranges
            .iter()
            .try_fold(0_u64, |sum, range| sum.checked_add(range.size))
            .ok_or_else(|| Error::Memory("the ranges exceed a 64-bit size".into()))?;
        let file = Arc::new(memfd("guest-ram", size, pages)?);
        let mut offset = 0;
        let mut regions = Vec::with_capacity(ranges.len());
        for range in ranges {
            regions.push(map(&file, offset, range, pages)?);
            offset += range.size;
        }
        let guest = GuestMemoryMmap::from_regions(regions)
            .map_err(|error| Error::Memory(error.to_string()))?;
        Ok(Self { guest, file })
    }

    /// The RAM as virtqueues, loaders and DMA see it. Cloning is cheap and shares the memory.
    #[must_use]
    pub fn guest(&self) -> &GuestMemoryMmap {
        &self.guest
    }

    /// The memfd behind it.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

fn map(
    file: &Arc<File>,
    offset: u64,
    range: &AddressRange,
    pages: PageSize,
) -> Result<GuestRegionMmap> {
    let size =
        usize::try_from(range.size).map_err(|_| Error::Memory("too large for this host".into()))?;
    // Without MAP_NORESERVE the huge pages are reserved here and now, so that a guest is never killed for lack of one later.
    let flags = match pages {
        PageSize::Base => libc::MAP_SHARED | libc::MAP_NORESERVE,
        PageSize::Huge2M => libc::MAP_SHARED,
    };
    let region = MmapRegionBuilder::new(size)
        .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .with_hugetlbfs(pages == PageSize::Huge2M)
        .build()
        .map_err(|error| {
            Error::Memory(match pages {
                PageSize::Base => error.to_string(),
                PageSize::Huge2M => format!(
                    "{error}: the host has too few free 2 MiB pages; reserve {} of them (sysctl vm.nr_hugepages) or \
                     set huge_pages = false",
                    range.size / pages.bytes()
                ),
            })
        })?;
    if pages == PageSize::Base {
        advise(region.as_ptr().cast(), region.size(), Transparent::Huge);
    }
    GuestRegionMmap::new(region, GuestAddress(range.start))
        .ok_or_else(|| Error::Memory(format!("{range:x?} leaves the address space")))
}

/// What a mapping of shared memory is made of, if the host's kernel has the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transparent {
    /// Pages of 2 MiB, which a host gives to shared memory if its `shmem_enabled` says `advise`: a quarter of a guest's boot
    /// is page faults without them, and CXL memory is to cost what RAM does.
    Huge,
    /// Pages of 4 KiB, also where `shmem_enabled` says `always`.
    Small,
}

/// Asks for such pages in a mapping of guest memory. A kernel that has no choice refuses, which costs nothing.
pub(crate) fn advise(start: *mut libc::c_void, bytes: usize, pages: Transparent) {
    let advice = match pages {
        Transparent::Huge => libc::MADV_HUGEPAGE,
        Transparent::Small => libc::MADV_NOHUGEPAGE,
    };
    // SAFETY: the advice changes neither the contents nor the protection of whatever is mapped there.
    if unsafe { libc::madvise(start, bytes, advice) } != 0 {
        debug!(
            "no transparent huge pages: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    const MIB: u64 = 1 << 20;
    const AROUND_THE_HOLE: [AddressRange; 2] = [
        AddressRange {
            start: 0,
            size: 4 * MIB,
        },
        AddressRange {
            start: 1 << 32,
            size: 2 * MIB,
        },
    ];

    #[test]
    fn ram_around_the_hole_is_one_file() {
        let ram = Ram::new(&AROUND_THE_HOLE, PageSize::Base).unwrap();
        ram.guest()
            .write_obj(0x1122_3344_u32, GuestAddress((1 << 32) + 8))
            .unwrap();
        let mut bytes = [0; 4];
        ram.file().read_exact_at(&mut bytes, 4 * MIB + 8).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), 0x1122_3344);
    }

    #[test]
    fn the_hole_is_not_memory() {
        let ram = Ram::new(&AROUND_THE_HOLE, PageSize::Base).unwrap();
        assert!(ram.guest().read_obj::<u8>(GuestAddress(4 * MIB)).is_err());
        assert!(!ram.guest().address_in_range(GuestAddress(0xC000_0000)));
    }

    #[test]
    fn the_file_cannot_change_its_size() {
        let file = memfd("test", 2 * MIB, PageSize::Base).unwrap();
        assert!(file.set_len(MIB).is_err());
        assert!(file.set_len(4 * MIB).is_err());
    }

    #[test]
    fn broken_sizes_are_refused() {
        for (size, pages) in [
            (0, PageSize::Base),
            (4095, PageSize::Base),
            (MIB, PageSize::Huge2M),
        ] {
            assert!(matches!(memfd("test", size, pages), Err(Error::Memory(_))));
        }
    }

    #[test]
    fn huge_pages_work_or_the_error_says_how_to_reserve_them() {
        // More than any test machine reserves, so that the outcome does not hang on its pool.
        let tebibyte = AddressRange {
            start: 0,
            size: 1 << 40,
        };
        let error = Ram::new(&[tebibyte], PageSize::Huge2M)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("vm.nr_hugepages") && error.contains("524288"),
            "{error}"
        );
    }
}
