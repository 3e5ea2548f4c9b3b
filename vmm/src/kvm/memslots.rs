//! The guest's memory map as KVM memory slots over shared files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use serde::Serialize;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use super::presence::PAGE;
use super::shared::SharedMapping;
use super::userfault::{Userfault, Window};
use crate::error::{Error, HostContext, KvmContext, Result};
use crate::layout::AddressRange;
use crate::memory::{Ram, Transparent};

/// What the guest may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Loads and instruction fetches run at full speed, stores leave the guest as MMIO writes.
    ReadOnly,
    /// Everything runs at full speed.
    ReadWrite,
}

/// The seam between device models and the machine's memory map.
pub trait MemoryMap: Send + Sync {
    /// Shows `len` bytes of `file` from `offset` on to the guest at `hpa`.
    ///
    /// # Errors
    /// [`Error::Mapping`] if a number is not a multiple of 4 KiB, the file is shorter than the
    /// mapping, or part of the range is mapped already; otherwise the host's refusal.
    fn map(
        &self,
        hpa: u64,
        len: u64,
        file: &Arc<File>,
        offset: u64,
        permission: Permission,
    ) -> Result<()>;

    /// Takes the mapping that begins at `hpa` away; accesses there leave the guest from now on.
    ///
    /// # Errors
    /// [`Error::Mapping`] if no mapping begins there.
    fn unmap(&self, hpa: u64) -> Result<()>;

    /// Changes what the guest may do with the mapping that begins at `hpa`.
    ///
    /// # Errors
    /// [`Error::Mapping`] if no mapping begins there; otherwise the host's refusal, after which the
    /// range is no longer mapped.
    fn protect(&self, hpa: u64, permission: Permission) -> Result<()>;

    /// Makes the page at `hpa`, a multiple of 4 KiB, raise a machine check in whichever processor accesses it. All other
    /// pages stay as they are. Lasts until [`MemoryMap::heal`] or [`MemoryMap::unmap`].
    ///
    /// # Errors
    /// [`Error::Mapping`] if it is no page of a mapping; otherwise the host's refusal.
    fn poison(&self, hpa: u64) -> Result<()>;

    /// Shows the bytes of the page at `hpa` again.
    ///
    /// # Errors
    /// As for [`MemoryMap::poison`].
    fn heal(&self, hpa: u64) -> Result<()>;
}

/// One memory slot, as the control socket lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// KVM's number of the slot.
    pub slot: u32,
    /// Where the guest sees it.
    pub hpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    /// What the guest may do with it.
    pub permission: Permission,
}

/// The memory slots of one machine: the real [`MemoryMap`].
#[derive(Debug)]
pub struct Memslots {
    vm: Arc<VmFd>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The slots by their first address.
    slots: BTreeMap<u64, Slot>,
    /// Numbers that were given back.
    free: Vec<u32>,
    /// The lowest number that was never taken.
    next: u32,
    /// How many numbers KVM has.
    limit: u32,
    /// The pages that are poisoned.
    poisoned: BTreeSet<u64>,
    /// Files whose pages are watched wherever they are shown.
    watched: Vec<(Arc<File>, Arc<Userfault>)>,
    /// What files are mapped in from now on.
    pages: Transparent,
}

#[derive(Debug)]
struct Slot {
    mapping: Mapping,
    memory: Backing,
}

/// Keeps the host memory of a slot alive for as long as KVM may use it.
#[derive(Debug)]
enum Backing {
    /// A region of guest RAM: the address is the one that the RAM itself uses.
    Ram { host: u64, _ram: GuestMemoryMmap },
    /// A mapping of our own.
    Shared(SharedMapping),
}

impl Backing {
    fn host(&self) -> u64 {
        match self {
            Self::Ram { host, .. } => *host,
            Self::Shared(mapping) => mapping.address(),
        }
    }
}

impl Memslots {
    /// An empty map of `vm`, which has `limit` slots.
    pub(super) fn new(vm: Arc<VmFd>, limit: u32) -> Self {
        let state = State {
            slots: BTreeMap::new(),
            free: Vec::new(),
            next: 0,
            limit,
            poisoned: BTreeSet::new(),
            watched: Vec::new(),
            pages: Transparent::Huge,
        };
        Self {
            vm,
            state: Mutex::new(state),
        }
    }

    /// From now on files are mapped in pages of 4 KiB only: a page that a sampler takes away must not take 511 others with
    /// it, and the guest must not come for all of them at once.
    pub fn keep_pages_small(&self) {
        self.lock().pages = Transparent::Small;
    }

    /// Shows all of `ram` to the guest.
    ///
    /// # Errors
    /// Those of [`MemoryMap::map`].
    pub fn map_ram(&self, ram: &Ram) -> Result<()> {
        let mut state = self.lock();
        for region in ram.guest().iter() {
            let hpa = region.start_addr().0;
            let host = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|error| Error::Memory(error.to_string()))?;
            let offset = region.file_offset().map_or(0, |file| file.start());
            let memory = Backing::Ram {
                host: host as u64,
                _ram: ram.guest().clone(),
            };
            self.insert(
                &mut state,
                hpa,
                region.len(),
                offset,
                Permission::ReadWrite,
                memory,
            )?;
        }
        Ok(())
    }

    /// All slots by address.
    #[must_use]
    pub fn list(&self) -> Vec<Mapping> {
        self.lock()
            .slots
            .values()
            .map(|slot| slot.mapping.clone())
            .collect()
    }

    /// Calls `look` with the host address of the `len` bytes at `hpa`, if they are whole pages of one
    /// mapping of a file and none is poisoned; they stay so meanwhile.
    pub(super) fn with_mapped<R>(
        &self,
        hpa: u64,
        len: u64,
        look: impl FnOnce(NonNull<libc::c_void>) -> R,
    ) -> Option<R> {
        let state = self.lock();
        let (_, slot) = state.slots.range(..=hpa).next_back()?;
        let Backing::Shared(shared) = &slot.memory else {
            return None;
        };
        let (at, end) = (hpa - slot.mapping.hpa, hpa.checked_add(len)?);
        let inside = end <= slot.mapping.hpa + slot.mapping.len;
        (inside && state.poisoned.range(hpa..end).next().is_none()).then_some(())?;
        shared.page(at).ok().map(look)
    }

    /// Has each mapping of a file that is shown from now on watched.
    pub(super) fn watch(&self, file: &Arc<File>, userfault: &Arc<Userfault>) {
        let watched = (Arc::clone(file), Arc::clone(userfault));
        self.lock().watched.push(watched);
    }

    /// Calls `each` with every mapping that shows a file; they stay meanwhile.
    pub(super) fn each_showing(&self, file: &Arc<File>, mut each: impl FnMut(&Window)) {
        for slot in self.lock().slots.values() {
            if let Backing::Shared(shared) = &slot.memory
                && let Some(window) = shared.window_of(file)
            {
                each(&window);
            }
        }
    }

    /// The guest's address of a byte of ours.
    pub(super) fn guest_address(&self, host: u64) -> Option<u64> {
        self.lock().slots.values().find_map(|slot| {
            let offset = host.checked_sub(slot.memory.host())?;
            (offset < slot.mapping.len).then(|| slot.mapping.hpa + offset)
        })
    }

    /// The page of `hpa`, if it is poisoned.
    pub(super) fn poisoned_page(&self, hpa: u64) -> Option<u64> {
        let page = hpa - hpa % PAGE;
        self.lock().poisoned.contains(&page).then_some(page)
    }

    fn insert(
        &self,
        state: &mut State,
        hpa: u64,
        len: u64,
        offset: u64,
        permission: Permission,
        memory: Backing,
    ) -> Result<()> {
        state.check_free(hpa, len)?;
        let slot = state.take_number().ok_or(Error::Mapping {
            hpa,
            len,
            why: "no slot is left",
        })?;
        let mapping = Mapping {
            slot,
            hpa,
            len,
            offset,
            permission,
        };
        if let Err(error) = self.apply(&mapping, memory.host(), len) {
            state.free.push(slot);
            return Err(error);
        }
        state.slots.insert(hpa, Slot { mapping, memory });
        Ok(())
    }

    /// Tells KVM about a slot; a `len` of 0 takes the slot away.
    fn apply(&self, mapping: &Mapping, host: u64, len: u64) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: mapping.slot,
            flags: match mapping.permission {
                Permission::ReadOnly => KVM_MEM_READONLY,
                Permission::ReadWrite => 0,
            },
            guest_phys_addr: mapping.hpa,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: `host` is the start of at least `len` mapped bytes, which `Backing` keeps mapped
        // until `Drop` or `unmap` has taken the slot away from KVM. They are shared memory that
        // Rust holds no reference into: it is reached by volatile accesses alone.
        unsafe { self.vm.set_user_memory_region(region) }.attempting("set a memory slot")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryMap for Memslots {
    fn map(
        &self,
        hpa: u64,
        len: u64,
        file: &Arc<File>,
        offset: u64,
        permission: Permission,
    ) -> Result<()> {
        let refuse = |why| Err(Error::Mapping { hpa, len, why });
        if [hpa, len, offset]
            .iter()
            .any(|number| !number.is_multiple_of(PAGE))
            || len == 0
        {
            return refuse("address, length and file offset must be multiples of 4 KiB");
        }
        let Some(end) = offset.checked_add(len) else {
            return refuse("the file offset overflows");
        };
        if file
            .metadata()
            .trying(|| "look at a backing file".into())?
            .len()
            < end
        {
            return refuse("the backing file is too short");
        }
        let mut state = self.lock();
        state.check_free(hpa, len)?;
        let mapping = SharedMapping::new(file, offset, len, state.pages)?;
        for (watched, userfault) in &state.watched {
            if let Some(window) = mapping.window_of(watched) {
                userfault.arm(&window)?;
            }
        }
        let memory = Backing::Shared(mapping);
        self.insert(&mut state, hpa, len, offset, permission, memory)
    }

    fn unmap(&self, hpa: u64) -> Result<()> {
        let mut state = self.lock();
        let slot = state.slots.get(&hpa).ok_or_else(|| not_mapped(hpa))?;
        self.apply(&slot.mapping, slot.memory.host(), 0)?;
        let number = slot.mapping.slot;
        state.free.push(number);
        if let Some(slot) = state.slots.remove(&hpa) {
            forget_within(&mut state.poisoned, &slot.mapping);
        }
        Ok(())
    }

    fn protect(&self, hpa: u64, permission: Permission) -> Result<()> {
        let mut state = self.lock();
        let slot = state.slots.get_mut(&hpa).ok_or_else(|| not_mapped(hpa))?;
        if slot.mapping.permission == permission {
            return Ok(());
        }
        // KVM lets no slot change its read-only flag: take it away and make it anew.
        self.apply(&slot.mapping, slot.memory.host(), 0)?;
        slot.mapping.permission = permission;
        let remade = self.apply(&slot.mapping, slot.memory.host(), slot.mapping.len);
        if remade.is_err() {
            let number = slot.mapping.slot;
            state.free.push(number);
            state.slots.remove(&hpa);
        }
        remade
    }

    fn poison(&self, hpa: u64) -> Result<()> {
        let mut state = self.lock();
        let (mapping, at) = state.page(hpa)?;
        mapping.poison(at)?;
        state.poisoned.insert(hpa);
        Ok(())
    }

    fn heal(&self, hpa: u64) -> Result<()> {
        let mut state = self.lock();
        let (mapping, at) = state.page(hpa)?;
        mapping.heal(at)?;
        state.poisoned.remove(&hpa);
        Ok(())
    }
}

impl Drop for Memslots {
    fn drop(&mut self) {
        // The file descriptor of the machine may outlive the map (doorbells hold it), so KVM must
        // let go of the memory before it is unmapped.
        for slot in self.lock().slots.values() {
            if let Err(error) = self.apply(&slot.mapping, slot.memory.host(), 0) {
                log::warn!("{error}");
            }
        }
    }
}

/// The error for an address where no mapping begins.
fn not_mapped(hpa: u64) -> Error {
    Error::Mapping {
        hpa,
        len: 0,
        why: "no mapping begins there",
    }
}

/// What was poisoned in a mapping is so no longer when the mapping is gone.
fn forget_within(poisoned: &mut BTreeSet<u64>, mapping: &Mapping) {
    poisoned.retain(|page| {
        page.checked_sub(mapping.hpa)
            .is_none_or(|at| at >= mapping.len)
    });
}

/// The error for an address that is no page of a mapping.
fn no_page(hpa: u64) -> Error {
    Error::Mapping {
        hpa,
        len: PAGE,
        why: "no page of a mapping begins there",
    }
}

impl State {
    fn check_free(&self, hpa: u64, len: u64) -> Result<()> {
        let refuse = |why| Err(Error::Mapping { hpa, len, why });
        if hpa.checked_add(len).is_none() {
            return refuse("the range leaves the address space");
        }
        let wanted = AddressRange {
            start: hpa,
            size: len,
        };
        let taken = self
            .slots
            .range(..wanted.end())
            .next_back()
            .is_some_and(|(_, slot)| {
                wanted.overlaps(&AddressRange {
                    start: slot.mapping.hpa,
                    size: slot.mapping.len,
                })
            });
        if taken {
            refuse("part of the range is mapped already")
        } else {
            Ok(())
        }
    }

    /// Our mapping that shows the page at `hpa`, and the page's offset in it.
    fn page(&self, hpa: u64) -> Result<(&SharedMapping, u64)> {
        let below = self.slots.range(..=hpa).next_back();
        match below.map(|(start, slot)| (hpa - start, slot)) {
            Some((at, slot)) if hpa.is_multiple_of(PAGE) && at < slot.mapping.len => {
                match &slot.memory {
                    Backing::Shared(mapping) => Ok((mapping, at)),
                    Backing::Ram { .. } => Err(no_page(hpa)),
                }
            }
            _ => Err(no_page(hpa)),
        }
    }

    fn take_number(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let number = self.next;
            (number < self.limit).then(|| {
                self.next += 1;
                number
            })
        })
    }
}

/// The [`MemoryMap`] for tests of models: keeps a list and refuses what the real one refuses.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct RecordedMap {
    mappings: Mutex<BTreeMap<u64, Mapping>>,
    poisoned: Mutex<BTreeSet<u64>>,
}

#[cfg(test)]
impl RecordedMap {
    /// What is mapped now, by address.
    pub(crate) fn list(&self) -> Vec<Mapping> {
        self.mappings.lock().unwrap().values().cloned().collect()
    }

    /// The pages that are poisoned now.
    pub(crate) fn poisoned(&self) -> Vec<u64> {
        self.poisoned.lock().unwrap().iter().copied().collect()
    }

    fn check_page(&self, hpa: u64) -> Result<()> {
        let inside = |m: &Mapping| hpa.checked_sub(m.hpa).is_some_and(|at| at < m.len);
        match hpa.is_multiple_of(PAGE) && self.list().iter().any(inside) {
            true => Ok(()),
            false => Err(no_page(hpa)),
        }
    }
}

#[cfg(test)]
impl MemoryMap for RecordedMap {
    fn map(
        &self,
        hpa: u64,
        len: u64,
        _file: &Arc<File>,
        offset: u64,
        permission: Permission,
    ) -> Result<()> {
        let mut mappings = self.mappings.lock().unwrap();
        let wanted = AddressRange {
            start: hpa,
            size: len,
        };
        if mappings.values().any(|m| {
            wanted.overlaps(&AddressRange {
                start: m.hpa,
                size: m.len,
            })
        }) {
            return Err(Error::Mapping {
                hpa,
                len,
                why: "part of the range is mapped already",
            });
        }
        mappings.insert(
            hpa,
            Mapping {
                slot: 0,
                hpa,
                len,
                offset,
                permission,
            },
        );
        Ok(())
    }

    fn unmap(&self, hpa: u64) -> Result<()> {
        let gone = self.mappings.lock().unwrap().remove(&hpa);
        let gone = gone.ok_or_else(|| not_mapped(hpa))?;
        forget_within(&mut self.poisoned.lock().unwrap(), &gone);
        Ok(())
    }

    fn protect(&self, hpa: u64, permission: Permission) -> Result<()> {
        let mut mappings = self.mappings.lock().unwrap();
        mappings
            .get_mut(&hpa)
            .ok_or_else(|| not_mapped(hpa))?
            .permission = permission;
        Ok(())
    }

    fn poison(&self, hpa: u64) -> Result<()> {
        self.check_page(hpa)?;
        self.poisoned.lock().unwrap().insert(hpa);
        Ok(())
    }

    fn heal(&self, hpa: u64) -> Result<()> {
        self.check_page(hpa)?;
        self.poisoned.lock().unwrap().remove(&hpa);
        Ok(())
    }
}
