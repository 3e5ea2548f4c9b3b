//! Numbers that stand for things, and limits that all clients share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Things by number. A number is never 0 and comes again only after all others.
#[derive(Debug)]
pub struct Handles<T> {
    live: BTreeMap<u32, T>,
    last: u32,
    most: usize,
}

impl<T> Handles<T> {
    /// Room for `most` things.
    pub const fn new(most: usize) -> Self {
        Self {
            live: BTreeMap::new(),
            last: 0,
            most,
        }
    }

    /// Gives a thing its number.
    pub fn insert(&mut self, thing: T) -> Result<u32, Error> {
        if self.live.len() >= self.most {
            return Err(Error::OutOfResources(
                "more handles than a session may have",
            ));
        }
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.live.contains_key(&self.last) {
                self.live.insert(self.last, thing);
                return Ok(self.last);
            }
        }
    }

    pub fn get(&self, handle: u64) -> Result<&T, Error> {
        u32::try_from(handle)
            .ok()
            .and_then(|handle| self.live.get(&handle))
            .ok_or(Error::InvalidHandle(handle))
    }

    pub fn remove(&mut self, handle: u64) -> Result<T, Error> {
        u32::try_from(handle)
            .ok()
            .and_then(|handle| self.live.remove(&handle))
            .ok_or(Error::InvalidHandle(handle))
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.live.retain(|_, thing| keep(thing));
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.live.iter().map(|(&handle, thing)| (handle, thing))
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn clear(&mut self) {
        self.live.clear();
    }
}

/// So much of something for all sessions together.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Budget {
    pub fn new(amount: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(amount),
        })
    }

    /// Takes a share, which comes back when it is dropped.
    pub fn take(self: &Arc<Self>, amount: u64) -> Result<Share, Error> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(amount)
            })
            .map_err(|_| {
                Error::OutOfResources("all clients together ask for more than the device has")
            })?;
        Ok(Share {
            budget: Arc::clone(self),
            amount,
        })
    }
}

/// A part of a [`Budget`].
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    amount: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_soon_given_again() {
        let mut handles = Handles::new(2);
        assert_eq!(handles.insert('a'), Ok(1));
        assert_eq!(handles.insert('b'), Ok(2));
        assert_eq!(handles.insert('c').unwrap_err().code(), 701);
        assert_eq!(handles.remove(1), Ok('a'));
        assert_eq!(handles.insert('c'), Ok(3));
        assert_eq!(handles.get(1).unwrap_err().code(), 400);
        assert_eq!(handles.get(1 << 32 | 2).unwrap_err().code(), 400);
        handles.remove(2).unwrap();
        handles.last = u32::MAX;
        assert_eq!(handles.insert('d'), Ok(1));
    }

    #[test]
    fn a_share_comes_back() {
        let budget = Budget::new(10);
        let share = budget.take(7).unwrap();
        assert!(budget.take(4).is_err());
        drop(share);
        assert!(budget.take(10).is_ok());
    }
}
