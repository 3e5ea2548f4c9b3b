//! Keeps the CPUs of a target busy while it stands still.
//!
//! A core that waits for memory is busy. One that has nothing to do sleeps: its own caches are emptied and its clock slows
//! down, and where it is a virtual one the host gives its place to others. The target would find all of that when it goes
//! on, and pay for it beyond its delay. So while it stands still a thread of the least priority spins on each CPU that it
//! was on: whatever else has work takes the CPU from it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};

use crate::sys;

/// What a thread is to do.
const REST: u8 = 0;
const SPIN: u8 = 1;
const END: u8 = 2;

/// A thread that is bound to a CPU.
#[derive(Debug)]
struct Sentry {
    orders: Arc<AtomicU8>,
    thread: JoinHandle<()>,
}

/// The threads, one for each CPU that had to be kept awake so far.
#[derive(Debug, Default)]
pub struct Awake {
    sentries: BTreeMap<usize, Sentry>,
}

impl Awake {
    /// Keeps these CPUs busy, and no others.
    pub fn keep(&mut self, cpus: &BTreeSet<usize>) {
        for &cpu in cpus {
            self.sentries.entry(cpu).or_insert_with(|| Sentry::on(cpu));
        }
        for (cpu, sentry) in &self.sentries {
            sentry.order(if cpus.contains(cpu) { SPIN } else { REST });
        }
    }

    /// Lets them sleep again.
    pub fn rest(&self) {
        for sentry in self.sentries.values() {
            sentry.order(REST);
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for (_, sentry) in std::mem::take(&mut self.sentries) {
            sentry.order(END);
            // It has nothing to say.
            let _ = sentry.thread.join();
        }
    }
}

impl Sentry {
    fn on(cpu: usize) -> Self {
        let orders = Arc::new(AtomicU8::new(REST));
        let heard = orders.clone();
        let thread = thread::spawn(move || {
            // Anywhere else, or before others, it would do harm.
            let bound = sys::set_affinity(0, &[cpu]).and_then(|()| sys::yield_to_all());
            if let Err(error) = bound {
                log::debug!("CPU {cpu} is not kept awake: {error}");
                return;
            }
            loop {
                match heard.load(Ordering::Acquire) {
                    REST => thread::park(),
                    SPIN => hint::spin_loop(),
                    _ => return,
                }
            }
        });
        Self { orders, thread }
    }

    fn order(&self, order: u8) {
        if self.orders.swap(order, Ordering::AcqRel) == REST && order != REST {
            self.thread.thread().unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_kept_awake_until_it_may_rest() {
        let cpu = sys::affinity().unwrap()[0];
        let mut awake = Awake::default();
        awake.keep(&BTreeSet::from([cpu]));
        awake.keep(&BTreeSet::from([cpu]));
        assert_eq!(awake.sentries.len(), 1);
        let orders = awake.sentries[&cpu].orders.clone();
        assert_eq!(orders.load(Ordering::Acquire), SPIN);
        awake.rest();
        assert_eq!(orders.load(Ordering::Acquire), REST);
        awake.keep(&BTreeSet::new());
        assert_eq!(orders.load(Ordering::Acquire), REST);
        // Whether it spins or sleeps, it ends.
        awake.keep(&BTreeSet::from([cpu]));
        drop(awake);
        assert_eq!(orders.load(Ordering::Acquire), END);
        assert_eq!(Arc::strong_count(&orders), 1);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_not_waited_for() {
        let mut awake = Awake::default();
        awake.keep(&BTreeSet::from([libc::CPU_SETSIZE as usize]));
        awake.rest();
    }
}
