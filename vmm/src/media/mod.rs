//! The media of the expanders: which bytes of which file a device's address space (DPA) is made of.
//!
//! A device alone has one store, its backing file or a memfd, and its bytes lie there at their DPA. When an interleave set
//! commits, the bytes of its members for that set live together in one store, linear in host-physical address, so that the
//! window is one mapping at any granularity; each member's extents say so. Uncommit moves nothing. A commit with another
//! layout copies once, before anything is mapped.
//!
//! For backing files the extents are also kept in a manifest beside the file ([`manifest`]): bytes are copied and synced
//! first, the manifests are replaced then, one by one and each atomically. Whenever the process is killed, every byte is
//! where its device's manifest says.

mod manifest;
mod store;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cxl::decode::{Mapping, Member};
use cxl::media::layout::{self, ExtentCopy, SetMember};
use cxl::media::{Location, MediaMap, Span, StoreId};

use manifest::Record;

pub use store::Store;

/// What can go wrong with media.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A file of a device could not be used.
    #[error("{}: cannot {what}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A backing file holds another capacity than the configuration gives the device.
    #[error("{}: the file has {found} bytes and {device} has {wanted}; name another file, or make the device's capacity fit", path.display())]
    Capacity {
        /// The file.
        path: PathBuf,
        /// The device.
        device: String,
        /// Bytes in the file.
        found: u64,
        /// Bytes of the device.
        wanted: u64,
    },
    /// Another process has the backing file.
    #[error("{}: another process uses this file; give each host its own, or set shared = true in both", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A manifest does not describe its file.
    #[error("{}: {why}; restore the file, or remove it together with its backing file to start afresh", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Memory for a volatile device could not be had.
    #[error("cannot make memory for {device}: {source}")]
    Memory {
        /// The device.
        device: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A set of which one member is shared with another host has another layout than the shared bytes.
    #[error(
        "{device} is shared with other hosts, and its bytes do not have the layout of this set"
    )]
    Shared {
        /// The device.
        device: String,
    },
    /// There is no such device or range of it.
    #[error("{device} has no bytes at {dpa:#x}")]
    NoSuchRange {
        /// The device.
        device: String,
        /// First device address that is not there.
        dpa: u64,
    },
}

/// What a device's media is to be.
#[derive(Clone, Debug)]
pub struct MediaSpec {
    /// The device's name.
    pub name: String,
    /// Bytes of its address space.
    pub capacity: u64,
    /// The file that holds them; memory if there is none.
    pub backing: Option<PathBuf>,
    /// Other hosts use the file too.
    pub shared: bool,
}

/// A range of a store that shows up at one host-physical address.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Host-physical address.
    pub hpa: u64,
    /// Bytes.
    pub len: u64,
    /// The store.
    pub store: Arc<Store>,
    /// Where in the store.
    pub offset: u64,
}

/// The media of all devices of a host, by endpoint number. Numbers, and those of stores, are never given out twice.
#[derive(Debug)]
pub struct Media {
    devices: BTreeMap<usize, Device>,
    stores: BTreeMap<StoreId, Arc<Store>>,
    next_device: usize,
    next_store: u32,
    /// The backing files of the members of each set that has a file.
    sets: BTreeMap<StoreId, Vec<PathBuf>>,
}

#[derive(Debug)]
struct Device {
    spec: MediaSpec,
    map: MediaMap,
    /// The store in which the device's bytes lie at their DPA.
    own: StoreId,
}

/// Bytes that a copy moves at a time.
const COPY: u64 = 1 << 20;

impl Media {
    /// Opens or makes the media of `specs`, which become endpoints 0 and up.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach).
    pub fn open(specs: Vec<MediaSpec>) -> Result<Self, MediaError> {
        let mut media = Self {
            devices: BTreeMap::new(),
            stores: BTreeMap::new(),
            next_device: 0,
            next_store: 0,
            sets: BTreeMap::new(),
        };
        for spec in specs {
            media.attach(spec)?;
        }
        Ok(media)
    }

    /// Opens or makes the media of one more device, and gives its number. Its file is locked: for this process alone, or
    /// against those that do not share.
    ///
    /// # Errors
    /// See [`MediaError`]; nothing is lost.
    pub fn attach(&mut self, spec: MediaSpec) -> Result<usize, MediaError> {
        let store = match &spec.backing {
            Some(path) => Store::open(path, &spec)?,
            None => Store::memory(&spec.name, spec.capacity)?,
        };
        let own = self.add(store);
        let restored = self.restore(&spec, own);
        match restored {
            Ok(map) => {
                let device = self.next_device;
                self.next_device += 1;
                self.devices.insert(device, Device { spec, map, own });
                Ok(device)
            }
            Err(error) => {
                self.drop_unused_stores();
                Err(error)
            }
        }
    }

    /// Lets go of a device's media: files are synced and unlocked, memory is given back. A set that it was in keeps its
    /// bytes for the other members, and in files for the device as well.
    ///
    /// # Errors
    /// A file that could not be synced; it is let go all the same.
    pub fn detach(&mut self, device: usize) -> Result<(), MediaError> {
        let Some(device) = self.devices.remove(&device) else {
            return Ok(());
        };
        let own = std::iter::once(device.own);
        let in_sets = device.map.extents().iter().map(|extent| extent.start.store);
        let synced = own
            .chain(in_sets)
            .filter_map(|store| self.stores.get(&store))
            .map(|store| store.sync())
            .fold(Ok(()), Result::and);
        self.drop_unused_stores();
        synced
    }

    /// The store in which a device's bytes lie at their DPA while it is in no set.
    ///
    /// # Errors
    /// [`MediaError::NoSuchRange`] if there is no such device.
    pub fn own(&self, device: usize) -> Result<&Arc<Store>, MediaError> {
        let known = self.devices.get(&device);
        let known = known.ok_or_else(|| MediaError::NoSuchRange {
            device: self.name(device),
            dpa: 0,
        });
        self.store(known?.own)
    }

    /// The pieces that show `mapping` in its window. Moves bytes first if they do not have the set's layout yet.
    ///
    /// # Errors
    /// [`MediaError::Shared`] if the bytes would have to move and may not; file errors. Nothing is lost.
    pub fn present(&mut self, mapping: &Mapping) -> Result<Piece, MediaError> {
        let members = self.members(mapping)?;
        let start = match layout::current(&members, mapping.member_size(), mapping.interleave) {
            Some(start) => start,
            None => self.lay_out(mapping)?,
        };
        let store = Arc::clone(self.store(start.store)?);
        Ok(Piece {
            hpa: mapping.base,
            len: mapping.size,
            store,
            offset: start.offset,
        })
    }

    /// Reads `data.len()` bytes of a device from `dpa` on: the device's own view, whatever is mapped.
    ///
    /// # Errors
    /// [`MediaError::NoSuchRange`] past its end; file errors.
    pub fn read(&self, device: usize, dpa: u64, data: &mut [u8]) -> Result<(), MediaError> {
        let spans = self.spans(device, dpa, data.len() as u64)?;
        let mut rest = data;
        for span in spans {
            let (now, later) = rest.split_at_mut(usize::try_from(span.len).unwrap_or(rest.len()));
            self.store(span.location.store)?
                .read(span.location.offset, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Stores `data` in a device from `dpa` on.
    ///
    /// # Errors
    /// [`MediaError::NoSuchRange`] past its end, and nothing is written; file errors.
    pub fn write(&self, device: usize, dpa: u64, data: &[u8]) -> Result<(), MediaError> {
        let mut rest = data;
        for span in self.spans(device, dpa, data.len() as u64)? {
            let (now, later) = rest.split_at(usize::try_from(span.len).unwrap_or(rest.len()));
            self.store(span.location.store)?
                .write(span.location.offset, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Puts zeroes into `len` bytes of a device from `dpa` on.
    ///
    /// # Errors
    /// See [`Media::write`].
    pub fn zero(&self, device: usize, dpa: u64, len: u64) -> Result<(), MediaError> {
        let mut holes: BTreeMap<StoreId, Holes<'_>> = BTreeMap::new();
        for span in self.spans(device, dpa, len)? {
            let Location { store: id, offset } = span.location;
            let store = self.store(id)?;
            let holes = holes.entry(id).or_insert_with(|| Holes::new(store));
            if !holes.cover(offset, span.len) {
                store.zero(offset, span.len)?;
            }
        }
        Ok(())
    }

    /// Where the bytes of `dpa..dpa + len` are, all of which the device has to have.
    fn spans(
        &self,
        device: usize,
        dpa: u64,
        len: u64,
    ) -> Result<impl Iterator<Item = Span>, MediaError> {
        let missing = |dpa| MediaError::NoSuchRange {
            device: self.name(device),
            dpa,
        };
        let map = &self.devices.get(&device).ok_or_else(|| missing(dpa))?.map;
        if dpa.checked_add(len).is_none_or(|end| end > map.capacity()) {
            return Err(missing(map.capacity()));
        }
        Ok(map.spans(dpa, len))
    }

    /// Waits until everything that the guest stored is on the disk.
    ///
    /// # Errors
    /// The first of the file errors; the other files are synced all the same.
    pub fn sync(&self) -> Result<(), MediaError> {
        self.stores
            .values()
            .map(|store| store.sync())
            .fold(Ok(()), Result::and)
    }

    fn add(&mut self, store: Store) -> StoreId {
        let id = StoreId(self.next_store);
        self.next_store = self.next_store.saturating_add(1);
        self.stores.insert(id, Arc::new(store));
        id
    }

    fn store(&self, id: StoreId) -> Result<&Arc<Store>, MediaError> {
        self.stores.get(&id).ok_or_else(|| MediaError::NoSuchRange {
            device: format!("store {}", id.0),
            dpa: 0,
        })
    }

    /// Closes the stores in which no device has bytes any more.
    fn drop_unused_stores(&mut self) {
        let mut stores = std::mem::take(&mut self.stores);
        stores.retain(|id, _| self.is_used(*id) || self.devices.values().any(|d| d.own == *id));
        self.sets.retain(|id, _| stores.contains_key(id));
        self.stores = stores;
    }

    fn name(&self, device: usize) -> String {
        self.devices.get(&device).map_or_else(
            || format!("device {device}"),
            |device| device.spec.name.clone(),
        )
    }

    /// The extents that the manifest names; without one the device's bytes lie at their DPA.
    fn restore(&mut self, spec: &MediaSpec, own: StoreId) -> Result<MediaMap, MediaError> {
        let path = spec.backing.as_deref().unwrap_or(Path::new(""));
        let wrong = |why: String| MediaError::Manifest {
            path: manifest::path(path),
            why,
        };
        let records = match &spec.backing {
            Some(backing) => manifest::read(backing)?,
            None => None,
        };
        let records = records.unwrap_or_else(|| {
            vec![Record {
                dpa: 0,
                len: spec.capacity,
                set: None,
            }]
        });
        let mut extents = Vec::new();
        for record in records {
            let store = match record.file(path) {
                None => own,
                Some(file) => self.open_set(&file)?,
            };
            if let Some(set) = &record.set {
                self.sets.insert(store, manifest::members(path, set));
            }
            let extent = record.extent(store).map_err(wrong)?;
            let last = extent
                .len
                .checked_sub(1)
                .and_then(|last| extent.locate(extent.dpa.checked_add(last)?));
            let size = self.store(store)?.size();
            if last.is_none_or(|last| last.location.offset >= size) {
                return Err(wrong(format!(
                    "the extent at {:#x} lies outside its file",
                    extent.dpa
                )));
            }
            extents.push(extent);
        }
        MediaMap::new(spec.capacity, extents).map_err(|error| wrong(error.to_string()))
    }

    /// The store of a set's file, which another member may have opened already.
    fn open_set(&mut self, path: &Path) -> Result<StoreId, MediaError> {
        match self.store_at(path) {
            Some(id) => Ok(id),
            None => Ok(self.add(Store::open_set(path)?)),
        }
    }

    fn store_at(&self, path: &Path) -> Option<StoreId> {
        self.stores
            .iter()
            .find(|(_, store)| store.path() == Some(path))
            .map(|(id, _)| *id)
    }

    fn members(&self, mapping: &Mapping) -> Result<Vec<SetMember<'_>>, MediaError> {
        mapping
            .members
            .iter()
            .map(|member| {
                Ok(SetMember {
                    media: &self.device(member)?.map,
                    dpa: member.dpa,
                })
            })
            .collect()
    }

    fn device(&self, member: &Member) -> Result<&Device, MediaError> {
        let index = member.endpoint.0 as usize;
        let missing = || MediaError::NoSuchRange {
            device: self.name(index),
            dpa: member.dpa,
        };
        self.devices.get(&index).ok_or_else(missing)
    }

    /// Brings the bytes of a set into the order in which its window shows them, and says where they are then.
    fn lay_out(&mut self, mapping: &Mapping) -> Result<Location, MediaError> {
        for member in &mapping.members {
            let device = self.device(member)?;
            if device.spec.shared {
                return Err(MediaError::Shared {
                    device: device.spec.name.clone(),
                });
            }
        }
        let target = self.place_for(mapping)?;
        let size = mapping.member_size();
        let out_of_range = |_| MediaError::NoSuchRange {
            device: "the set".into(),
            dpa: 0,
        };
        let plan = layout::relayout(&self.members(mapping)?, size, mapping.interleave, target)
            .map_err(out_of_range)?;
        for copy in plan.copies.iter().filter(|copy| copy.source != copy.target) {
            self.copy(copy)?;
        }
        self.store(target.store)?.sync()?;
        // From here on the bytes are in both places; each manifest in turn takes the new one.
        for (member, extent) in mapping.members.iter().zip(plan.extents) {
            let index = member.endpoint.0 as usize;
            let Some(device) = self.devices.get_mut(&index) else {
                continue;
            };
            device.map.replace(extent).map_err(out_of_range)?;
            if let Some(backing) = &device.spec.backing {
                let set_of = |id: StoreId| {
                    Some((
                        self.stores.get(&id)?.path()?,
                        self.sets.get(&id)?.as_slice(),
                    ))
                };
                manifest::write(backing, &device.map, device.own, set_of)?;
            }
        }
        self.remove_unused_sets();
        Ok(target)
    }

    /// Where a set is to lie: a device alone in its own store, several in one store of their own.
    fn place_for(&mut self, mapping: &Mapping) -> Result<Location, MediaError> {
        if let [member] = mapping.members.as_slice() {
            return Ok(Location {
                store: self.device(member)?.own,
                offset: member.dpa,
            });
        }
        let mut files = Vec::new();
        let mut identity = format!("{} {:?}", mapping.size, mapping.interleave);
        for member in &mapping.members {
            let device = self.device(member)?;
            files.extend(device.spec.backing.clone());
            identity.push_str(&format!(" {:?}:{:#x}", device.spec.backing, member.dpa));
        }
        let Some(backing) = files.first() else {
            let name = format!("set-{:x}", mapping.base);
            let store = self.add(Store::memory(&name, mapping.size)?);
            return Ok(Location { store, offset: 0 });
        };
        let mut path = backing.clone().into_os_string();
        path.push(format!(".set-{:016x}", fnv1a(identity.as_bytes())));
        let path = PathBuf::from(path);
        // A kill in the middle of an earlier attempt may have left some members in this very file.
        let known = self.store_at(&path);
        let store = match known.filter(|id| self.is_used(*id)) {
            Some(id) => id,
            None => self.add(Store::create_set(&path, mapping.size)?),
        };
        self.sets.insert(store, files);
        Ok(Location { store, offset: 0 })
    }

    fn copy(&self, copy: &ExtentCopy) -> Result<(), MediaError> {
        let source = self.store(copy.source.start.store)?;
        let target = self.store(copy.target.start.store)?;
        let (mut source_holes, mut target_holes) = (Holes::new(source), Holes::new(target));
        let mut buffer = vec![0; usize::try_from(COPY).unwrap_or_default()];
        let mut dpa = copy.source.dpa;
        while let Some(run) = copy.run(dpa) {
            let len = run.len.min(COPY);
            let (from, to) = (run.source.offset, run.target.offset);
            dpa += len;
            // New stores are all zeros, but a device's own may hold what was there before the bytes moved away.
            if source_holes.cover(from, len) && target_holes.cover(to, len) {
                // A round of chunks each would take minutes where the holes are gigabytes.
                let in_source = copy.source.before(source_holes.hole.end);
                dpa = dpa.max(in_source.min(copy.target.before(target_holes.hole.end)));
                continue;
            }
            let bytes = &mut buffer[..usize::try_from(len).unwrap_or_default()];
            source.read(from, bytes)?;
            target.write(to, bytes)?;
        }
        Ok(())
    }

    fn is_used(&self, store: StoreId) -> bool {
        self.devices.values().any(|device| {
            device
                .map
                .extents()
                .iter()
                .any(|extent| extent.start.store == store)
        })
    }

    /// Removes the files of sets that no member's manifest names any more, members that are not in this host included.
    fn remove_unused_sets(&mut self) {
        let unused: Vec<StoreId> = self
            .sets
            .keys()
            .copied()
            .filter(|id| !self.is_used(*id))
            .collect();
        for id in unused {
            let members = self.sets.remove(&id).unwrap_or_default();
            let Some(path) = self.stores.get(&id).and_then(|store| store.path()) else {
                continue;
            };
            if members.iter().any(|member| manifest::names(member, path)) {
                continue;
            }
            match std::fs::remove_file(path) {
                Ok(()) => log::info!("{}: removed, its bytes have moved", path.display()),
                Err(error) => log::warn!("{}: {error}", path.display()),
            }
        }
        self.drop_unused_stores();
    }
}

/// Where a store is known to be empty, asked by ascending offset: most of a large device usually is.
struct Holes<'a> {
    store: &'a Store,
    /// The hole looked at last.
    hole: Range<u64>,
}

impl<'a> Holes<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, hole: 0..0 }
    }

    /// Whether all of the range lies in a hole.
    fn cover(&mut self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        if !self.hole.contains(&offset) {
            self.hole = offset..self.store.next_data(offset);
        }
        end <= self.hole.end
    }
}

/// A stable hash for names of files: FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
