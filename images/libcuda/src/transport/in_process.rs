//! An accelerator in this process: crate `gpu` with its PTX backend, behind the same rings as in a guest.
//!
//! Its memory is mapped at the device's own addresses, as the kernel module maps it, so that a pointer means the same to a
//! kernel and to the program.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use gpu::backend::Backend;
use gpu::backend::ptx::Ptx;
use gpu::protocol::registers::Control;
use gpu::ptx::Options;
use gpu::{Device, DeviceMemory, Host, Queue, memory};
use vm_memory::{GuestAddress, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::shared::Shared;
use super::spec::{PAGE, VECTORS, control, region_flags, result, ring_bytes};
use super::{Accelerator, Bell, Buffer, Parts, Properties, Session};
use crate::{Error, Result};

/// Address space of device memory, of which only what is used takes memory.
const MEMORY: usize = 4 << 30;
/// Address space of rings and buffers.
const ARENA: usize = 1 << 30;
/// A kernel may take long on a processor.
const WATCHDOG: Duration = Duration::from_secs(60);
/// What is claimed unless an environment variable says otherwise.
const COMPUTE_CAPABILITY: (u32, u32) = (7, 5);
const DRIVER_VERSION: u32 = 12090;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event that is there until somebody has waited for it.
#[derive(Default)]
struct Signal {
    there: Mutex<bool>,
    arrived: Condvar,
}

impl Signal {
    fn send(&self) {
        *lock(&self.there) = true;
        self.arrived.notify_one();
    }

    /// Returns 1, for the one time that is known of.
    fn wait(&self) -> u64 {
        let mut there = lock(&self.there);
        while !*there {
            there = self
                .arrived
                .wait(there)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *there = false;
        1
    }
}

/// Doorbells and interrupts by queue.
#[derive(Default)]
struct Signals {
    doorbells: Mutex<BTreeMap<u32, Arc<Signal>>>,
    interrupts: Mutex<BTreeMap<u16, Arc<Signal>>>,
}

impl Signals {
    fn doorbell(&self, queue: u32) -> Arc<Signal> {
        lock(&self.doorbells).entry(queue).or_default().clone()
    }

    fn interrupt_of(&self, vector: u16) -> Arc<Signal> {
        lock(&self.interrupts).entry(vector).or_default().clone()
    }
}

impl Host for Signals {
    fn start(&self, queue: Arc<Queue>) -> std::result::Result<(), gpu::Error> {
        let doorbell = self.doorbell(queue.number());
        thread::Builder::new()
            .name("accelerator".into())
            .spawn(move || queue.run(|| doorbell.wait()))
            .map(|_| ())
            .map_err(|error| gpu::Error::HostMemory(error.to_string()))
    }

    fn wake(&self, queue: u32) {
        self.doorbell(queue).send();
    }

    fn interrupt(&self, vector: u16) {
        self.interrupt_of(vector).send();
    }
}

pub struct InProcess {
    properties: Properties,
    machine: Arc<Machine>,
}

struct Machine {
    device: Device,
    signals: Arc<Signals>,
    /// What rings and buffers lie in, at "guest-physical" addresses that are those of this process.
    arena: Arc<DeviceMemory>,
    arena_base: u64,
    /// Interrupt vectors of queues.
    vectors: Mutex<BTreeSet<u16>>,
}

impl InProcess {
    /// # Errors
    /// `OUT_OF_MEMORY` when something else is mapped at the device's addresses, such as another one of these.
    pub fn new() -> Result<Self> {
        let options = Options {
            watchdog: Some(WATCHDOG),
            ..Options::default()
        };
        let device_memory = DeviceMemory::from_region(map(Some(memory::BASE), MEMORY)?.0);
        let backend = Ptx::new(device_memory, options, COMPUTE_CAPABILITY, DRIVER_VERSION);
        let (arena, guest) = map(None, ARENA)?;
        let arena_base = arena.as_ptr().addr() as u64;
        let guest = GuestRegionMmap::new(guest, GuestAddress(arena_base))
            .and_then(|region| GuestMemoryMmap::from_regions(vec![region]).ok())
            .ok_or(Error::OUT_OF_MEMORY)?;
        let signals = Arc::new(Signals::default());
        let claims = backend.properties();
        let properties = Properties {
            name: claims.name.clone(),
            memory: claims.memory,
            multiprocessors: claims.multiprocessors,
            compute_capability: claims.compute_capability,
            driver_version: claims.driver_version as i32,
            pci: (0, 0, 0),
        };
        let device = Device::new(
            Arc::new(backend),
            signals.clone(),
            GuestMemoryAtomic::new(guest),
        );
        Ok(Self {
            properties,
            machine: Arc::new(Machine {
                device,
                signals,
                arena: DeviceMemory::from_region(arena),
                arena_base,
                vectors: Mutex::default(),
            }),
        })
    }
}

/// Maps anonymous memory, which stays for the life of the process: two values for it, for two owners.
#[allow(unsafe_code)]
fn map(address: Option<u64>, bytes: usize) -> Result<(MmapRegion, MmapRegion)> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fixed = address.map_or(0, |_| libc::MAP_FIXED_NOREPLACE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let wanted = address.unwrap_or(0) as *mut libc::c_void;
    // SAFETY: new anonymous memory where nothing is mapped, which MAP_FIXED_NOREPLACE makes sure of.
    let mapped = unsafe { libc::mmap(wanted, bytes, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED || address.is_some() && mapped != wanted {
        return Err(Error::OUT_OF_MEMORY);
    }
    let region = || {
        // SAFETY: the mapping above has this address and size, and is never unmapped.
        unsafe { MmapRegion::build_raw(mapped.cast(), bytes, protection, flags) }
            .map_err(|_| Error::OUT_OF_MEMORY)
    };
    Ok((region()?, region()?))
}

impl Accelerator for InProcess {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn open(&self) -> Result<Arc<dyn Session>> {
        let number = self.machine.control(control::SESSION_OPEN, [0; 4])?;
        Ok(Arc::new(InProcessSession {
            handle: Arc::new(Handle {
                machine: self.machine.clone(),
                number,
            }),
        }))
    }
}

impl Machine {
    fn control(&self, code: u32, args: [u64; 4]) -> Result<u64> {
        loop {
            let reply = self.device.control(&Control { code, args });
            match reply.result {
                result::SUCCESS => return Ok(reply.outs[0]),
                // Soon: what is to end has been told.
                result::NOT_READY => thread::yield_now(),
                error => return Err(Error(error)),
            }
        }
    }

    /// Memory of the arena, from an address that is a multiple of the page size.
    fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Pages> {
        let offset = self
            .arena
            .allocate_aligned(bytes, PAGE)
            .map_err(|error| Error(error.code()))?;
        Ok(Pages {
            machine: self.clone(),
            offset,
            bytes,
        })
    }
}

/// A part of the arena.
struct Pages {
    machine: Arc<Machine>,
    offset: u64,
    bytes: u64,
}

impl Pages {
    fn address(&self) -> u64 {
        self.machine.arena_base + self.offset
    }

    #[allow(unsafe_code)]
    fn shared(&self) -> Shared {
        // SAFETY: the arena is mapped for ever, and this part of it is the owner's.
        unsafe { Shared::new(self.address() as *mut u8, self.bytes as usize) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.machine.arena.release(self.offset, self.bytes);
    }
}

/// An interrupt vector that no other queue has.
struct Vector {
    machine: Arc<Machine>,
    number: u16,
}

impl Vector {
    fn take(machine: &Arc<Machine>) -> Result<Self> {
        let mut taken = lock(&machine.vectors);
        let number = (0..VECTORS).find(|number| !taken.contains(number));
        let number = number.ok_or(Error::OUT_OF_MEMORY)?;
        taken.insert(number);
        Ok(Self {
            machine: machine.clone(),
            number,
        })
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        lock(&self.machine.vectors).remove(&self.number);
    }
}

/// A session that ends with the last of what belongs to it.
struct Handle {
    machine: Arc<Machine>,
    number: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // It exists, so this ends it.
        let _ = self
            .machine
            .control(control::SESSION_CLOSE, [self.number, 0, 0, 0]);
    }
}

struct InProcessSession {
    handle: Arc<Handle>,
}

struct InProcessBell {
    doorbell: Arc<Signal>,
    interrupt: Arc<Signal>,
    queue: u64,
    handle: Arc<Handle>,
    /// Both given back after the queue has ended.
    _vector: Vector,
    _pages: Pages,
}

impl Bell for InProcessBell {
    fn ring(&self) {
        self.doorbell.send();
    }

    fn sleep(&self) {
        self.interrupt.wait();
    }
}

impl Drop for InProcessBell {
    fn drop(&mut self) {
        // It exists, so this ends it.
        let machine = &self.handle.machine;
        let _ = machine.control(control::QUEUE_DESTROY, [self.queue, 0, 0, 0]);
    }
}

struct RegisteredPages {
    region: u64,
    handle: Arc<Handle>,
    /// Given back after the region has ended.
    _pages: Pages,
}

impl Drop for RegisteredPages {
    fn drop(&mut self) {
        let args = [self.handle.number, self.region, 0, 0];
        // It exists, so this ends it.
        let _ = (self.handle.machine).control(control::REGION_UNREGISTER, args);
    }
}

impl Session for InProcessSession {
    fn queue(&self, depth: u32) -> Result<Parts> {
        let machine = &self.handle.machine;
        let pages = machine.allocate(ring_bytes(depth).next_multiple_of(PAGE))?;
        let vector = Vector::take(machine)?;
        let args = [
            self.handle.number,
            pages.address(),
            depth.into(),
            vector.number.into(),
        ];
        let queue = machine.control(control::QUEUE_CREATE, args)?;
        Ok(Parts {
            rings: pages.shared(),
            bell: Box::new(InProcessBell {
                doorbell: machine.signals.doorbell(queue as u32),
                interrupt: machine.signals.interrupt_of(vector.number),
                queue,
                handle: self.handle.clone(),
                _vector: vector,
                _pages: pages,
            }),
        })
    }

    fn buffer(&self, bytes: u64) -> Result<Buffer> {
        let machine = &self.handle.machine;
        let pages = machine.allocate(bytes.next_multiple_of(PAGE))?;
        let list = machine.allocate(PAGE)?;
        let segment = [pages.address(), pages.bytes];
        let segment = segment.map(u64::to_le_bytes).concat();
        list.shared().write(0, &segment)?;
        let writable = region_flags::WRITABLE;
        let args = [self.handle.number, list.address(), 1, writable];
        let region = machine.control(control::REGION_REGISTER, args)?;
        Ok(Buffer {
            region: region as u32,
            memory: pages.shared(),
            _owner: Box::new(RegisteredPages {
                region,
                handle: self.handle.clone(),
                _pages: pages,
            }),
        })
    }

    fn map(&self, address: u64, bytes: u64) -> Result<()> {
        let args = [self.handle.number, address, bytes, 0];
        // Mapped it is already; pinned it must be, as in a guest.
        self.handle.machine.control(control::PIN, args).map(|_| ())
    }

    fn unmap(&self, address: u64, bytes: u64) {
        let args = [self.handle.number, address, bytes, 0];
        // It is pinned, so this takes it back.
        let _ = self.handle.machine.control(control::UNPIN, args);
    }
}
