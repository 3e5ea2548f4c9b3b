//! Allocations: device memory, page-locked host memory and managed memory are all device memory, which the processor reaches
//! at the same address.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::context::Context;
use crate::registry::Handle;
use crate::{Error, Result};

/// For which of CUDA's calls memory was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Device,
    /// Page-locked host memory, with the flags of `cuMemHostAlloc`.
    Host(u32),
    Managed,
    /// A variable of a module.
    Variable,
}

#[derive(Clone)]
pub struct Allocation {
    pub base: u64,
    pub bytes: u64,
    pub kind: Kind,
    /// A number that no other allocation of the process has.
    pub id: u64,
    /// The pool that it was taken from, or null.
    pub pool: Handle,
    context: Weak<Context>,
}

impl Allocation {
    pub fn context(&self) -> Result<Arc<Context>> {
        self.context.upgrade().ok_or(Error::CONTEXT_IS_DESTROYED)
    }

    /// Whether `bytes` bytes at an address in it are all in it.
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        self.base + self.bytes - address >= bytes
    }
}

/// All allocations of the process by address.
#[derive(Default)]
pub struct Allocations {
    by_base: Mutex<BTreeMap<u64, Allocation>>,
    next_id: AtomicU64,
}

impl Allocations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Allocation>> {
        self.by_base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `bytes` bytes in a context.
    pub fn allocate(
        &self,
        context: &Arc<Context>,
        bytes: u64,
        kind: Kind,
        pool: Handle,
    ) -> Result<u64> {
        if bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let base = context.channel.allocate(bytes)?;
        self.keep(context, base, bytes, kind, pool);
        Ok(base)
    }

    /// Keeps memory that the device has allocated by itself, such as a module's variables.
    pub fn keep(&self, context: &Arc<Context>, base: u64, bytes: u64, kind: Kind, pool: Handle) {
        let allocation = Allocation {
            base,
            bytes,
            kind,
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            pool,
            context: Arc::downgrade(context),
        };
        self.lock().insert(base, allocation);
    }

    /// The allocation that an address lies in.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let allocations = self.lock();
        let (_, allocation) = allocations.range(..=address).next_back()?;
        (address - allocation.base < allocation.bytes).then(|| allocation.clone())
    }

    /// Takes the allocation that begins at an address away, if it is of such a kind.
    pub fn take(&self, base: u64, wanted: impl Fn(Kind) -> bool) -> Result<Allocation> {
        let mut allocations = self.lock();
        match allocations.get(&base) {
            Some(allocation) if wanted(allocation.kind) => {}
            _ => return Err(Error::INVALID_VALUE),
        }
        allocations.remove(&base).ok_or(Error::INVALID_VALUE)
    }

    /// Forgets what a context owned; its memory ends with it.
    pub fn forget(&self, context: &Arc<Context>) {
        let owner = Arc::as_ptr(context);
        self.lock()
            .retain(|_, allocation| allocation.context.as_ptr() != owner);
    }

    /// Bytes that a pool has given out.
    pub fn used_of(&self, pool: Handle) -> u64 {
        let allocations = self.lock();
        allocations
            .values()
            .filter(|allocation| allocation.pool == pool)
            .map(|allocation| allocation.bytes)
            .sum()
    }
}

/// A memory pool. Memory that is freed goes back to the device at once, whatever the threshold.
pub struct Pool {
    pub device: i32,
    /// By `CUmemPool_attribute`: what may be set.
    attributes: Mutex<BTreeMap<u32, u64>>,
    most_used: AtomicU64,
}

/// `CUmemPool_attribute`.
pub mod pool_attribute {
    pub const REUSE_FOLLOW_EVENT_DEPENDENCIES: u32 = 1;
    pub const REUSE_ALLOW_OPPORTUNISTIC: u32 = 2;
    pub const REUSE_ALLOW_INTERNAL_DEPENDENCIES: u32 = 3;
    pub const RELEASE_THRESHOLD: u32 = 4;
    pub const RESERVED_CURRENT: u32 = 5;
    pub const RESERVED_HIGH: u32 = 6;
    pub const USED_CURRENT: u32 = 7;
    pub const USED_HIGH: u32 = 8;
}

impl Pool {
    pub fn new(device: i32) -> Self {
        use pool_attribute::*;
        Self {
            device,
            attributes: Mutex::new(BTreeMap::from([
                (REUSE_FOLLOW_EVENT_DEPENDENCIES, 1),
                (REUSE_ALLOW_OPPORTUNISTIC, 1),
                (REUSE_ALLOW_INTERNAL_DEPENDENCIES, 1),
                (RELEASE_THRESHOLD, 0),
            ])),
            most_used: AtomicU64::new(0),
        }
    }

    /// Hears that so many bytes of it are in use.
    pub fn note_use(&self, bytes: u64) {
        self.most_used.fetch_max(bytes, Ordering::Relaxed);
    }

    /// An attribute, while `used` bytes are in use.
    pub fn attribute(&self, attribute: u32, used: u64) -> Result<u64> {
        use pool_attribute::*;
        match attribute {
            RESERVED_CURRENT | USED_CURRENT => Ok(used),
            RESERVED_HIGH | USED_HIGH => Ok(self.most_used.load(Ordering::Relaxed)),
            _ => {
                let attributes = self.attributes.lock();
                let attributes = attributes.unwrap_or_else(PoisonError::into_inner);
                let value = attributes.get(&attribute).copied();
                value.ok_or(Error::INVALID_VALUE)
            }
        }
    }

    pub fn set_attribute(&self, attribute: u32, value: u64, used: u64) -> Result<()> {
        use pool_attribute::*;
        match attribute {
            // A new high-water mark begins with what is in use now.
            RESERVED_HIGH | USED_HIGH if value == 0 => {
                self.most_used.store(used, Ordering::Relaxed);
            }
            _ => {
                let attributes = self.attributes.lock();
                let mut attributes = attributes.unwrap_or_else(PoisonError::into_inner);
                let place = attributes.get_mut(&attribute);
                *place.ok_or(Error::INVALID_VALUE)? = value;
            }
        }
        Ok(())
    }

    /// Whether an attribute is an `int` in C, and no 64-bit number.
    pub fn is_int(attribute: u32) -> bool {
        attribute < pool_attribute::RELEASE_THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_knows_the_most_that_was_used() {
        let pool = Pool::new(0);
        pool.note_use(300);
        pool.note_use(100);
        assert_eq!(pool.attribute(pool_attribute::USED_HIGH, 100), Ok(300));
        assert_eq!(pool.attribute(pool_attribute::USED_CURRENT, 100), Ok(100));
        pool.set_attribute(pool_attribute::USED_HIGH, 0, 100)
            .unwrap();
        assert_eq!(pool.attribute(pool_attribute::USED_HIGH, 100), Ok(100));
    }

    #[test]
    fn a_pool_has_no_other_attributes() {
        let pool = Pool::new(0);
        assert_eq!(pool.attribute(99, 0), Err(Error::INVALID_VALUE));
        assert_eq!(pool.set_attribute(99, 1, 0), Err(Error::INVALID_VALUE));
        pool.set_attribute(pool_attribute::RELEASE_THRESHOLD, 1 << 20, 0)
            .unwrap();
        assert_eq!(
            pool.attribute(pool_attribute::RELEASE_THRESHOLD, 0),
            Ok(1 << 20)
        );
    }
}
