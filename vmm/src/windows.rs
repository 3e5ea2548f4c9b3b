//! The CXL windows: shows in them what the decoders, as they are programmed now, make of the devices' media.
//!
//! Whenever a decoder may have changed, everything is resolved anew and compared with what is shown: what is no longer
//! decoded is taken away first, then bytes are laid out where a new set needs it, then the new ranges appear. So the order
//! of events does not matter, and an update that comes too often does nothing.

mod poison;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cxl::decode::{EndpointId, Mapping, resolve};
use cxl::memdev::poison::PoisonRecord;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};

use crate::board::{Access, Board};
use crate::error::{Error, Result};
use crate::kvm::{MemoryMap, Permission};
use crate::media::{Media, MediaSpec, Piece};

pub use self::poison::BadLine;
use self::poison::PAGE;

/// The windows of a machine.
pub struct Windows {
    state: Mutex<State>,
    map: Arc<dyn MemoryMap>,
    /// What devices reach by direct memory access: RAM, and what the windows show.
    reachable: GuestMemoryAtomic<GuestMemoryMmap>,
    /// The part of it that is always there.
    ram: GuestMemoryMmap,
}

#[derive(Debug)]
struct State {
    media: Media,
    shown: Vec<Shown>,
    /// The pages that the guest cannot access, and why.
    poisoned: BTreeMap<u64, BadLine>,
}

/// A range that the guest sees.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the decoders make of it.
    pub mapping: Mapping,
    /// Where its bytes are.
    pub piece: Piece,
}

impl Shown {
    fn holds(&self, hpa: u64) -> bool {
        hpa.checked_sub(self.mapping.base)
            .is_some_and(|offset| offset < self.mapping.size)
    }
}

impl Windows {
    /// Windows that show nothing yet.
    pub fn new(
        media: Media,
        map: Arc<dyn MemoryMap>,
        ram: GuestMemoryMmap,
        reachable: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                media,
                shown: Vec::new(),
                poisoned: BTreeMap::new(),
            }),
            map,
            reachable,
            ram,
        }
    }

    /// Shows what the board's decoders say now, and nothing of what its devices' poison lists say is bad.
    pub fn update(&self, board: &Board) {
        // Taken before the board's lock: whoever comes second sees what the first one saw, or newer.
        let mut state = self.lock();
        let (wanted, bad) = {
            let models = board.lock();
            (resolve(&models.topology()), models.bad_lines())
        };
        let before = state.shown.len();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut state.shown)
            .into_iter()
            .partition(|shown| wanted.contains(&shown.mapping));
        state.shown = kept;
        for shown in &gone {
            log::info!(
                "window: {:#x} bytes at {:#x} are gone",
                shown.mapping.size,
                shown.mapping.base
            );
            if let Err(error) = self.map.unmap(shown.mapping.base) {
                log::error!("{error}");
            }
            state.poisoned.retain(|page, _| !shown.holds(*page));
        }
        let mut appeared = 0;
        for mapping in wanted {
            if state.shown.iter().any(|shown| shown.mapping == mapping) {
                continue;
            }
            match self.show(&mut state.media, &mapping) {
                Ok(piece) => {
                    log::info!(
                        "window: {:#x} bytes at {:#x}, {} ways",
                        mapping.size,
                        mapping.base,
                        mapping.members.len()
                    );
                    state.shown.push(Shown { mapping, piece });
                    appeared += 1;
                }
                Err(error) => log::error!(
                    "the region at {:#x} is committed but cannot be shown: {error}",
                    mapping.base
                ),
            }
        }
        if appeared > 0 || state.shown.len() != before {
            self.publish(&state.shown);
        }
        self.poison(&mut state, &bad);
    }

    /// Keeps the guest from the pages with bad lines, and from no others.
    fn poison(&self, state: &mut State, bad: &[(EndpointId, PoisonRecord)]) {
        let mut wanted = poison::bad_pages(&state.shown, bad);
        state.poisoned.retain(|page, _| {
            wanted.contains_key(page)
                || self
                    .map
                    .heal(*page)
                    .inspect_err(|error| log::error!("{error}"))
                    .is_err()
        });
        wanted.retain(|page, line| {
            if state.poisoned.contains_key(page) {
                return true;
            }
            log::info!("window: poison at {:#x}", line.hpa);
            self.map
                .poison(*page)
                .inspect_err(|error| {
                    log::error!("the poison at {:#x} has no effect: {error}", line.hpa)
                })
                .is_ok()
        });
        state.poisoned.extend(wanted);
    }

    /// The bad line that keeps the guest from the page at `page`.
    pub fn bad_line(&self, page: u64) -> Option<BadLine> {
        self.lock().poisoned.get(&page).copied()
    }

    fn show(&self, media: &mut Media, mapping: &Mapping) -> Result<Piece> {
        let piece = media.present(mapping)?;
        self.map.map(
            piece.hpa,
            piece.len,
            piece.store.file(),
            piece.offset,
            Permission::ReadWrite,
        )?;
        Ok(piece)
    }

    /// Lets devices reach RAM and what is shown, and nothing else.
    fn publish(&self, shown: &[Shown]) {
        let mut memory = self.ram.clone();
        for Shown { piece, .. } in shown {
            match region(piece).and_then(|region| insert(&memory, region)) {
                Ok(larger) => memory = larger,
                Err(error) => log::error!(
                    "devices cannot reach the region at {:#x}: {error}",
                    piece.hpa
                ),
            }
        }
        match self.reachable.lock() {
            Ok(guard) => guard.replace(memory),
            Err(poisoned) => poisoned.into_inner().replace(memory),
        }
    }

    /// Does an access that the guest was stopped for, if what it is to is shown by now, and is good: false if it is not.
    pub fn access(&self, hpa: u64, access: &mut Access<'_>) -> bool {
        let state = self.lock();
        let Some(shown) = state.shown.iter().find(|shown| shown.holds(hpa)) else {
            return false;
        };
        let at = hpa - shown.mapping.base;
        let fits = shown.mapping.size - at >= access.len();
        let ends = [hpa, hpa.saturating_add(access.len().saturating_sub(1))];
        let bad = |at: &u64| state.poisoned.contains_key(&(at - at % PAGE));
        if !fits || ends.iter().any(bad) {
            return false;
        }
        let Piece { store, offset, .. } = &shown.piece;
        let done = match access {
            Access::Read(data) => store.read(offset + at, data),
            Access::Write(data) => store.write(offset + at, data),
        };
        done.inspect_err(|error| log::error!("{error}")).is_ok()
    }

    /// What is shown now.
    pub fn shown(&self) -> Vec<Shown> {
        self.lock().shown.clone()
    }

    /// Opens or makes the media of a device that has come, and gives its endpoint number.
    ///
    /// # Errors
    /// [`Error::Media`].
    pub fn attach(&self, spec: MediaSpec) -> Result<usize> {
        Ok(self.lock().media.attach(spec)?)
    }

    /// Lets go of the media of a device that has gone.
    ///
    /// # Errors
    /// [`Error::Media`] if a file could not be synced; it is let go all the same.
    pub fn detach(&self, device: usize) -> Result<()> {
        Ok(self.lock().media.detach(device)?)
    }

    /// Reads a device's media by device address.
    ///
    /// # Errors
    /// [`Error::Media`] past its end or if the file cannot be read.
    pub fn read_media(&self, device: usize, dpa: u64, data: &mut [u8]) -> Result<()> {
        Ok(self.lock().media.read(device, dpa, data)?)
    }

    /// Stores bytes in a device's media by device address; where a window shows them the guest sees them at once.
    ///
    /// # Errors
    /// [`Error::Media`] past its end or if the file cannot be written.
    pub fn write_media(&self, device: usize, dpa: u64, data: &[u8]) -> Result<()> {
        Ok(self.lock().media.write(device, dpa, data)?)
    }

    /// Puts zeroes into a device's media by device address.
    ///
    /// # Errors
    /// [`Error::Media`] past its end or if the file cannot be written.
    pub fn zero_media(&self, device: usize, dpa: u64, len: u64) -> Result<()> {
        Ok(self.lock().media.zero(device, dpa, len)?)
    }

    /// Waits until everything that the guest stored in files is on the disk.
    ///
    /// # Errors
    /// [`Error::Media`].
    pub fn sync(&self) -> Result<()> {
        Ok(self.lock().media.sync()?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn region(piece: &Piece) -> Result<Arc<GuestRegionMmap>> {
    let memory = |error: &dyn std::fmt::Display| Error::Memory(error.to_string());
    let size = usize::try_from(piece.len).map_err(|error| memory(&error))?;
    let file = FileOffset::from_arc(Arc::clone(piece.store.file()), piece.offset);
    let region = MmapRegion::from_file(file, size).map_err(|error| memory(&error))?;
    let region = GuestRegionMmap::new(region, GuestAddress(piece.hpa));
    region
        .map(Arc::new)
        .ok_or_else(|| Error::Memory("the region ends beyond 2^64".into()))
}

fn insert(memory: &GuestMemoryMmap, region: Arc<GuestRegionMmap>) -> Result<GuestMemoryMmap> {
    memory
        .insert_region(region)
        .map_err(|error| Error::Memory(error.to_string()))
}
