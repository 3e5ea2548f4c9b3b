//! The queues of an accelerator: a thread, a doorbell and an interrupt for each that a client has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use devices::gpu::protocol::spec;
use devices::gpu::{self, Queue};
use devices::virtio::Interrupt;
use vmm_sys_util::eventfd::EventFd;

use crate::error::{HostContext, Result};
use crate::kvm::{Doorbell, Vm};
use crate::virtio::Vectors;

/// What all queues of a device need of the machine.
pub struct Queues {
    vm: Arc<Vm>,
    vectors: Arc<Vectors>,
    /// What a doorbell writes, by queue.
    events: Vec<EventFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where each queue's doorbell is decoded now; empty while none is.
    addresses: BTreeMap<u32, u64>,
    /// Doorbells of the queues that were made; one that is gone keeps its own until its number comes again.
    doorbells: BTreeMap<u32, Option<Doorbell>>,
}

impl Queues {
    /// No queues yet.
    pub fn new(vm: &Arc<Vm>, vectors: &Arc<Vectors>) -> Result<Self> {
        let events = (0..spec::QUEUES)
            .map(|_| EventFd::new(libc::EFD_CLOEXEC))
            .collect::<std::io::Result<_>>()
            .trying(|| "make the doorbells of an accelerator".into())?;
        Ok(Self {
            vm: Arc::clone(vm),
            vectors: Arc::clone(vectors),
            events,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, queue: u32) -> Option<&EventFd> {
        self.events.get(usize::try_from(queue).ok()?)
    }

    /// Connects the doorbells of the queues that there are at new addresses.
    pub fn place(&self, addresses: BTreeMap<u32, u64>) {
        let mut state = self.lock();
        if state.addresses == addresses {
            return;
        }
        state.addresses = addresses;
        let queues: Vec<u32> = state.doorbells.keys().copied().collect();
        for queue in queues {
            self.connect(&mut state, queue);
        }
    }

    /// Takes all doorbells away.
    pub fn disconnect(&self) {
        self.lock().doorbells.clear();
    }

    fn connect(&self, state: &mut State, queue: u32) {
        // The old one must go before the new one comes: it may be at the same address.
        state.doorbells.insert(queue, None);
        let (Some(&address), Some(event)) = (state.addresses.get(&queue), self.event(queue)) else {
            return;
        };
        let doorbell = event
            .try_clone()
            .trying(|| "share a doorbell's event".into())
            .and_then(|event| self.vm.doorbell(address, event));
        match doorbell {
            Ok(doorbell) => {
                state.doorbells.insert(queue, Some(doorbell));
            }
            Err(error) => log::warn!("{error}"),
        }
    }
}

impl gpu::Host for Queues {
    fn start(&self, queue: Arc<Queue>) -> std::result::Result<(), gpu::Error> {
        let number = queue.number();
        let refused = |error: std::io::Error| gpu::Error::HostMemory(error.to_string());
        let event = self
            .event(number)
            .ok_or(gpu::Error::InvalidValue("no such queue"))?
            .try_clone()
            .map_err(refused)?;
        self.connect(&mut self.lock(), number);
        let sleep = move || {
            // An event without flags fails only when interrupted, and then the queue looks around and sleeps on.
            event.read().unwrap_or(0)
        };
        thread::Builder::new()
            .name(format!("queue {number}"))
            .spawn(move || queue.run(sleep))
            .map_err(refused)?;
        Ok(())
    }

    fn wake(&self, queue: u32) {
        if let Some(event) = self.event(queue) {
            // It fails only when full, and then the thread has a wake-up coming.
            event.write(1).ok();
        }
    }

    fn interrupt(&self, vector: u16) {
        self.vectors.signal(vector);
    }
}
