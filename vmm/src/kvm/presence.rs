//! Which pages of a slot the guest has come for: pages are taken away, and looked at again.
//!
//! Taking a page away drops it from the host's page tables, and with that KVM drops it from the guest's. Its bytes stay
//! in the file. The next access, of the guest or of a device, brings it back by itself, for the price of a page fault;
//! `/proc/self/pagemap` says whether that has happened. Nobody ever waits for us.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::memslots::Memslots;
use crate::error::{HostContext, Result};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Pages that one access may bring back, and the boundary that they lie between: the kernel maps what a file has in
/// memory around a page that is read (`fault_around_bytes`).
pub const AROUND: u64 = 16;
/// Bytes of an entry of pagemap, and the bit in it that says that the page is mapped.
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;

/// The seam between a sampler and the memory that it samples.
pub trait Pages: Send {
    /// Takes the page at `hpa` away until somebody comes for it. Does nothing where no file is mapped.
    fn take_away(&self, hpa: u64);

    /// Says of consecutive pages from `hpa` on whether they are there.
    fn look(&self, hpa: u64, there: &mut [bool]);
}

/// The pages of a machine's slots: the real [`Pages`].
#[derive(Debug)]
pub struct Presence {
    slots: Arc<Memslots>,
    pagemap: File,
}

impl Presence {
    /// Opens what tells of them.
    ///
    /// # Errors
    /// [`Error::Host`](crate::Error::Host) without /proc.
    pub fn new(slots: &Arc<Memslots>) -> Result<Self> {
        Ok(Self {
            slots: Arc::clone(slots),
            pagemap: File::open("/proc/self/pagemap")
                .trying(|| "look at page tables in /proc/self/pagemap".into())?,
        })
    }
}

impl Pages for Presence {
    fn take_away(&self, hpa: u64) {
        self.slots.with_mapped(hpa, PAGE, |address| {
            // SAFETY: one page of a shared mapping of ours, which stays mapped meanwhile; the file keeps its bytes, so
            // that neither the guest nor anybody else can tell.
            let result =
                unsafe { libc::madvise(address.as_ptr(), PAGE as usize, libc::MADV_DONTNEED) };
            if result != 0 {
                log::debug!(
                    "cannot take {hpa:#x} away: {}",
                    std::io::Error::last_os_error()
                );
            }
        });
    }

    fn look(&self, hpa: u64, there: &mut [bool]) {
        let mut entries = vec![0; there.len() * ENTRY];
        let found = self
            .slots
            .with_mapped(hpa, there.len() as u64 * PAGE, |address| {
                let place = address.as_ptr() as u64 / PAGE * ENTRY as u64;
                self.pagemap.read_exact_at(&mut entries, place).is_ok()
            });
        let (entries, _) = entries.as_chunks::<ENTRY>();
        for (there, entry) in there.iter_mut().zip(entries) {
            *there = found == Some(true) && u64::from_ne_bytes(*entry) & PRESENT != 0;
        }
    }
}
