//! The thread that serves the virtqueues of one device.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use devices::virtio::{Activation, Broken, Device, Link, Progress, Virtqueue};
use libc::EFD_NONBLOCK;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{HostContext, Result};

/// A device's thread. It sleeps until a kick or host input, and ends when this is dropped.
pub struct Worker {
    engine: Arc<dyn Serve>,
    event: EventFd,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a thread for `device`, which also serves it whenever `ready` becomes readable.
    pub fn start<D: Device + 'static>(
        name: &'static str,
        device: D,
        ready: Option<impl AsFd>,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Result<Self> {
        let engine = Arc::new(Engine {
            name,
            memory,
            state: Mutex::new(State {
                device,
                run: None,
                paused: false,
                complained: false,
            }),
        });
        let event = EventFd::new(EFD_NONBLOCK).trying(|| format!("make an event for {name}"))?;
        let epoll =
            wait_set(&event, ready.as_ref()).trying(|| format!("watch the files of {name}"))?;
        // The descriptor must live as long as it is waited for.
        let ready = ready
            .map(|ready| ready.as_fd().try_clone_to_owned())
            .transpose();
        let ready = ready.trying(|| format!("share a file of {name}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
            let body = move || {
                let _ready = ready;
                run(&*engine, &epoll, &stop);
            };
            thread::Builder::new()
                .name(name.into())
                .spawn(body)
                .trying(|| format!("start the thread of {name}"))?
        };
        Ok(Self {
            engine,
            event,
            stop,
            thread: Some(thread),
        })
    }

    /// The event whose every write makes the thread look at the queues.
    pub fn event(&self) -> Result<EventFd> {
        self.event
            .try_clone()
            .trying(|| "share a doorbell's event".into())
    }

    /// Looks at the queues.
    pub fn kick(&self) {
        // It fails only when full, and then the thread has a wake-up coming.
        self.event.write(1).ok();
    }

    /// A driver is ready: serves its queues from now on.
    pub fn activate(&self, activation: &Activation) {
        self.engine.activate(activation);
        self.kick();
    }

    /// Forgets the driver. When this returns, none of its memory is touched any more.
    pub fn reset(&self) {
        self.engine.reset();
    }

    pub fn pause(&self) {
        self.engine.set_paused(true);
    }

    pub fn resume(&self) {
        self.engine.set_paused(false);
        self.kick();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.kick();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a virtio thread has panicked");
        }
    }
}

/// Waits for edges only: a tap full of frames must not spin while the guest has no buffers, and an event need not be read.
fn wait_set(event: &EventFd, ready: Option<&impl AsFd>) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let files = [
        Some(event.as_raw_fd()),
        ready.map(|ready| ready.as_fd().as_raw_fd()),
    ];
    for file in files.into_iter().flatten() {
        let events = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, file, events)?;
    }
    Ok(epoll)
}

fn run(engine: &dyn Serve, epoll: &Epoll, stop: &AtomicBool) {
    const FOR_EVER: i32 = -1;
    let mut progress = Progress::Idle;
    while !stop.load(Ordering::Acquire) {
        if progress == Progress::More {
            // Whoever waits for the device's lock gets a turn.
            thread::yield_now();
        } else {
            let woken = epoll.wait(FOR_EVER, &mut [EpollEvent::default(); 2]);
            if let Err(error) = woken
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("a virtio thread cannot wait: {error}");
                return;
            }
        }
        progress = engine.serve();
    }
}

/// What thread and handle do with a device, whatever its type.
trait Serve: Send + Sync {
    fn activate(&self, activation: &Activation);
    fn reset(&self);
    fn set_paused(&self, paused: bool);
    fn serve(&self) -> Progress;
}

/// A device and the driver that runs it. Its lock is held while it serves, so that whoever has the lock finds it at rest.
struct Engine<D> {
    name: &'static str,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    state: Mutex<State<D>>,
}

struct State<D> {
    device: D,
    run: Option<Run>,
    paused: bool,
    /// A broken queue was logged. Once is enough: a guest can break one as often as it likes.
    complained: bool,
}

impl<D> State<D> {
    /// The driver broke a queue: nothing more is done for it.
    fn give_up(&mut self, name: &str, broken: Broken, link: &Link) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("{name}: the driver broke a virtqueue: {broken}");
        }
        self.run = None;
        link.fail();
    }
}

/// From a driver's DRIVER_OK to its reset, or to its first mistake.
struct Run {
    queues: Vec<Virtqueue>,
    link: Arc<Link>,
}

impl Run {
    /// Serves the device once and interrupts the driver for what was done.
    fn serve(
        &mut self,
        device: &mut impl Device,
        memory: &GuestMemoryMmap,
    ) -> Result<Progress, Broken> {
        let progress = device.serve(&mut self.queues, memory)?;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if queue.take_interrupt(memory)? {
                self.link.interrupt_queue(index);
            }
        }
        Ok(progress)
    }
}

impl<D: Device> Engine<D> {
    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Serve for Engine<D> {
    fn activate(&self, activation: &Activation) {
        let mut state = self.lock();
        let memory = self.memory.memory();
        let queues = activation
            .queues
            .iter()
            .map(|&queue| Virtqueue::new(queue, &*memory))
            .collect();
        match queues {
            Ok(queues) => {
                state.device.activate(activation.features);
                state.run = Some(Run {
                    queues,
                    link: Arc::clone(&activation.link),
                });
            }
            Err(broken) => state.give_up(self.name, broken, &activation.link),
        }
    }

    fn reset(&self) {
        let mut state = self.lock();
        state.run = None;
        state.device.reset();
    }

    fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    fn serve(&self) -> Progress {
        let mut state = self.lock();
        let State {
            device,
            run,
            paused,
            ..
        } = &mut *state;
        let Some(run) = run.as_mut().filter(|_| !*paused) else {
            return Progress::Idle;
        };
        match run.serve(device, &self.memory.memory()) {
            Ok(progress) => progress,
            Err(broken) => {
                let link = Arc::clone(&run.link);
                state.give_up(self.name, broken, &link);
                Progress::Idle
            }
        }
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
