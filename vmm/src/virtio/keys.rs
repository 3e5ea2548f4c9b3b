//! Input of a terminal on its way to a virtio console.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{HostContext, Result};

/// Most bytes that wait for the guest; a paste of more than that loses its end.
const BACKLOG: usize = 64 << 10;

/// A queue of bytes that tells when there are new ones. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Keys {
    backlog: Arc<Mutex<VecDeque<u8>>>,
    event: Arc<OwnedFd>,
}

impl Keys {
    /// An empty queue.
    pub fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.trying(|| "make an event for console input".into())?;
        Ok(Self {
            backlog: Arc::default(),
            event: Arc::new(event),
        })
    }

    /// A descriptor with an edge for each [`push`](Self::push). It is never read, and so stays readable.
    pub fn ready(&self) -> Result<OwnedFd> {
        self.event
            .try_clone()
            .trying(|| "share the event for console input".into())
    }

    /// Adds bytes at the end.
    pub fn push(&self, bytes: &[u8]) {
        let mut backlog = self.lock();
        let room = BACKLOG.saturating_sub(backlog.len());
        backlog.extend(bytes.iter().take(room));
        drop(backlog);
        // It fails only when full, after 2^64 pushes.
        rustix::io::write(&*self.event, &1_u64.to_ne_bytes()).ok();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Keys {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        match self.lock().read(data)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_the_order_they_were_typed() {
        let mut keys = Keys::new().unwrap();
        let typist = keys.clone();
        let mut data = [0; 4];
        assert_eq!(
            keys.read(&mut data).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        typist.push(b"abc");
        typist.push(b"def");
        assert_eq!((keys.read(&mut data).unwrap(), &data), (4, b"abcd"));
        assert_eq!((keys.read(&mut data).unwrap(), &data[..2]), (2, &b"ef"[..]));
    }

    #[test]
    fn a_paste_that_is_too_long_loses_its_end() {
        let mut keys = Keys::new().unwrap();
        keys.push(&vec![b'x'; BACKLOG - 1]);
        keys.push(b"yz");
        let mut all = vec![0; 2 * BACKLOG];
        assert_eq!(keys.read(&mut all).unwrap(), BACKLOG);
        assert_eq!(all[BACKLOG - 1], b'y');
    }
}
