//! Handles: numbers that stand for objects. A program never gets a pointer of ours, so that a wrong handle is an error and
//! no crash.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Result};

/// What C sees as a pointer to an opaque structure.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(pub usize);

impl Handle {
    pub const NULL: Self = Self(0);

    /// A number that no other object has or had.
    pub fn fresh() -> Self {
        // Not small: 0, 1 and 2 are streams by themselves.
        static NEXT: AtomicUsize = AtomicUsize::new(0x1000);
        Self(NEXT.fetch_add(16, Ordering::Relaxed))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Objects of one kind by their handle.
pub struct Registry<T> {
    objects: RwLock<BTreeMap<Handle, Arc<T>>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
        }
    }
}

impl<T> Registry<T> {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Handle, Arc<T>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Handle, Arc<T>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an object and returns its new handle.
    pub fn add(&self, object: Arc<T>) -> Handle {
        let handle = Handle::fresh();
        self.keep(handle, object);
        handle
    }

    /// Keeps an object that knows its handle.
    pub fn keep(&self, handle: Handle, object: Arc<T>) {
        self.write().insert(handle, object);
    }

    pub fn find(&self, handle: Handle) -> Option<Arc<T>> {
        self.read().get(&handle).cloned()
    }

    /// # Errors
    /// `INVALID_HANDLE` when the handle stands for no object of this kind.
    pub fn get(&self, handle: Handle) -> Result<Arc<T>> {
        self.find(handle).ok_or(Error::INVALID_HANDLE)
    }

    pub fn remove(&self, handle: Handle) -> Result<Arc<T>> {
        self.write().remove(&handle).ok_or(Error::INVALID_HANDLE)
    }

    /// Drops the objects for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&T) -> bool) {
        let mut dropped = Vec::new();
        self.write().retain(|_, object| {
            let kept = keep(object);
            if !kept {
                dropped.push(object.clone());
            }
            kept
        });
        // Here, not under the lock: an object may wait for its work when it goes.
    }

    pub fn all(&self) -> Vec<Arc<T>> {
        self.read().values().cloned().collect()
    }

    /// The handle of the first object for which `wanted` holds.
    pub fn position(&self, wanted: impl Fn(&T) -> bool) -> Option<Handle> {
        let objects = self.read();
        objects
            .iter()
            .find(|(_, object)| wanted(object))
            .map(|(handle, _)| *handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_stands_for_its_object_until_it_is_removed() {
        let registry = Registry::default();
        let handle = registry.add(Arc::new("stream"));
        assert_eq!(*registry.get(handle).unwrap(), "stream");
        assert_eq!(*registry.remove(handle).unwrap(), "stream");
        assert_eq!(registry.get(handle).unwrap_err(), Error::INVALID_HANDLE);
        assert_eq!(registry.remove(handle).unwrap_err(), Error::INVALID_HANDLE);
    }

    #[test]
    fn handles_of_different_kinds_differ() {
        let (numbers, words) = (Registry::default(), Registry::default());
        let number = numbers.add(Arc::new(1));
        let word = words.add(Arc::new("one"));
        assert_ne!(number, word);
        assert!(words.find(number).is_none());
    }

    #[test]
    fn retain_drops_the_others() {
        let registry = Registry::default();
        let (odd, even) = (registry.add(Arc::new(3)), registry.add(Arc::new(4)));
        registry.retain(|number| number % 2 == 0);
        assert!(registry.find(odd).is_none());
        assert!(registry.find(even).is_some());
    }
}
