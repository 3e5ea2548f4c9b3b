//! A machine around a device for tests: guest memory, threads, doorbells, and a driver.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, MmapRegion,
};

use super::*;
use crate::DeviceMemory;
use crate::backend::ptx::Ptx;
use crate::coherence::Coherence;
use crate::protocol::spec::{Completion, Segment, Submission, ring, ring_bytes};
use crate::ptx::{Options, Tier};

pub const VECTOR_ADD: &str = include_str!("../../tests/ptx/vector_add.ptx");
pub const SPIN: &str = ".version 7.5\n.target sm_75\n.entry spin() { $L: bra $L; }";

/// Bytes of guest memory and of device memory.
pub const GUEST: u64 = 8 << 20;
pub const MEMORY: u64 = 16 << 20;
/// Where rings lie, and the memory of which a client has a region.
pub const RINGS: u64 = 1 << 20;
pub const DATA: u64 = 4 << 20;
pub const DATA_SIZE: u64 = 1 << 20;
/// Nothing here takes that long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Threads and channels in the place of ioeventfds and irqfds.
#[derive(Default)]
pub struct Threads {
    doorbells: Mutex<BTreeMap<u32, SyncSender<()>>>,
    interrupts: Mutex<BTreeMap<u16, SyncSender<()>>>,
}

impl Host for Threads {
    fn start(&self, queue: Arc<Queue>) -> Result<(), Error> {
        let (ring, rung) = mpsc::sync_channel(1);
        self.doorbells.lock().unwrap().insert(queue.number(), ring);
        thread::spawn(move || queue.run(|| rung.recv().map_or(0, |()| 1)));
        Ok(())
    }

    fn wake(&self, queue: u32) {
        if let Some(doorbell) = self.doorbells.lock().unwrap().get(&queue) {
            // Full means that a wake-up is on its way.
            doorbell.try_send(()).ok();
        }
    }

    fn interrupt(&self, vector: u16) {
        if let Some(interrupt) = self.interrupts.lock().unwrap().get(&vector) {
            interrupt.try_send(()).ok();
        }
    }
}

pub struct Machine {
    pub device: Device,
    pub memory: GuestMemoryAtomic<GuestMemoryMmap>,
    pub host: Arc<Threads>,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_watchdog(Some(DEADLINE))
    }

    pub fn with_watchdog(watchdog: Option<Duration>) -> Self {
        let options = Options {
            workers: 2,
            watchdog,
            ..Options::default()
        };
        Self::with(DeviceMemory::new(MEMORY).unwrap(), options)
    }

    /// A machine whose device memory somebody keeps account of, and whose kernels are interpreted.
    pub fn coherent(coherence: Arc<dyn Coherence>, exact: bool) -> Self {
        let options = Options {
            workers: 2,
            watchdog: Some(DEADLINE),
            tier: Tier::Interpreter,
        };
        let region = Arc::new(MmapRegion::new(MEMORY as usize).unwrap());
        let memory = DeviceMemory::coherent(region, Some(coherence), exact);
        Self::with(memory, options)
    }

    fn with(arena: Arc<DeviceMemory>, options: Options) -> Self {
        let guest = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), GUEST as usize)]).unwrap();
        let memory = GuestMemoryAtomic::new(guest);
        let backend = Ptx::new(arena, options, (7, 5), 12090);
        let host = Arc::new(Threads::default());
        Self {
            device: Device::new(Arc::new(backend), host.clone(), memory.clone()),
            memory,
            host,
        }
    }

    pub fn control(&self, code: u32, args: [u64; 4]) -> Reply {
        self.device.control(&Control { code, args })
    }

    /// The first output of a command that succeeds.
    pub fn ask(&self, code: u32, args: [u64; 4]) -> u64 {
        let reply = self.control(code, args);
        assert_eq!(reply.result, 0, "control command {code}");
        reply.outs[0]
    }

    /// Repeats a command while it is not ready.
    pub fn insist(&self, code: u32, args: [u64; 4]) -> u32 {
        loop {
            match self.control(code, args).result {
                600 => thread::yield_now(),
                result => return result,
            }
        }
    }

    /// A client with a queue and a region of its own; `slot` says which memory is its.
    pub fn client(&self, slot: u64) -> Client<'_> {
        let session = self.ask(control::SESSION_OPEN, [0; 4]);
        let data = DATA + slot * DATA_SIZE;
        let region = self.region(session, &[(data, DATA_SIZE)], true);
        let mut client = Client {
            machine: self,
            session,
            region: region as u32,
            data,
            queues: Vec::new(),
        };
        client.add_queue(slot * 4);
        client
    }

    pub fn region(&self, session: u64, segments: &[(u64, u64)], writable: bool) -> u64 {
        let list = GUEST - 0x1000;
        for (index, &(address, bytes)) in (0..).zip(segments) {
            let at = GuestAddress(list + index * size_of::<Segment>() as u64);
            self.memory
                .memory()
                .write_obj([address, bytes], at)
                .unwrap();
        }
        let count = segments.len() as u64;
        let args = [session, list, count, writable.into()];
        self.ask(control::REGION_REGISTER, args)
    }
}

/// A guest process and its driver.
pub struct Client<'a> {
    pub machine: &'a Machine,
    pub session: u64,
    pub region: u32,
    pub data: u64,
    pub queues: Vec<Driver>,
}

/// The driver's end of a queue.
pub struct Driver {
    pub number: u32,
    pub base: u64,
    pub depth: u32,
    interrupted: Receiver<()>,
}

impl Client<'_> {
    /// A queue at the ring memory with this index.
    pub fn add_queue(&mut self, index: u64) -> usize {
        let depth = 64;
        let base = RINGS + index * ring_bytes(depth);
        let vector = index as u16;
        let (send, interrupted) = mpsc::sync_channel(1);
        let interrupts = &self.machine.host.interrupts;
        interrupts.lock().unwrap().insert(vector, send);
        let args = [self.session, base, depth.into(), vector.into()];
        let number = self.machine.ask(control::QUEUE_CREATE, args) as u32;
        self.queues.push(Driver {
            number,
            base,
            depth,
            interrupted,
        });
        self.queues.len() - 1
    }

    fn index(&self, queue: usize, offset: u64) -> u32 {
        let at = GuestAddress(self.queues[queue].base + offset);
        self.machine
            .memory
            .memory()
            .load(at, Ordering::SeqCst)
            .unwrap()
    }

    pub fn set_index(&self, queue: usize, offset: u64, value: u32) {
        let at = GuestAddress(self.queues[queue].base + offset);
        let memory = self.machine.memory.memory();
        memory.store(value, at, Ordering::SeqCst).unwrap();
    }

    pub fn doorbell(&self, queue: usize) {
        self.machine.host.wake(self.queues[queue].number);
    }

    pub fn submit(&self, queue: usize, command: &Submission) {
        let driver = &self.queues[queue];
        let tail = self.index(queue, ring::SQ_TAIL);
        let slot = u64::from(tail % driver.depth) * 64;
        let at = GuestAddress(driver.base + ring::ENTRIES + slot);
        let fixed = u64::from(command.opcode)
            | u64::from(command.flags) << 16
            | u64::from(command.region) << 32;
        let spanned = u64::from(command.bytes) | u64::from(command.reserved) << 32;
        let [a0, a1, a2, a3] = command.args;
        let words = [fixed, command.offset, spanned, command.tag, a0, a1, a2, a3];
        self.machine.memory.memory().write_obj(words, at).unwrap();
        self.set_index(queue, ring::SQ_TAIL, tail.wrapping_add(1));
        if self.index(queue, ring::WANT_DOORBELL) != 0 {
            self.doorbell(queue);
        }
    }

    /// The next completion, for which it waits as a driver does: by interrupt.
    pub fn reap(&self, queue: usize) -> Completion {
        let driver = &self.queues[queue];
        let head = self.index(queue, ring::CQ_HEAD);
        loop {
            self.set_index(queue, ring::WANT_INTERRUPT, 1);
            if self.index(queue, ring::CQ_TAIL) != head {
                break;
            }
            driver.interrupted.recv_timeout(DEADLINE).unwrap();
        }
        self.set_index(queue, ring::WANT_INTERRUPT, 0);
        let slot = u64::from(head % driver.depth) * 64;
        let at = crate::protocol::spec::completions_offset(driver.depth) + slot;
        let memory = self.machine.memory.memory();
        let words: [u64; 8] = memory.read_obj(GuestAddress(driver.base + at)).unwrap();
        self.set_index(queue, ring::CQ_HEAD, head.wrapping_add(1));
        if self.index(queue, ring::WANT_DOORBELL) != 0 {
            self.doorbell(queue);
        }
        Completion {
            tag: words[0],
            result: words[1] as u32,
            index: (words[1] >> 32) as u32,
            started: words[2],
            ended: words[3],
            values: [words[4], words[5], words[6], words[7]],
        }
    }

    /// Waits until a queue has stopped for a mistake of its driver, and says why.
    pub fn stopped(&self, queue: usize) -> u32 {
        loop {
            let status = self.index(queue, ring::STATUS);
            if status != 0 {
                return status;
            }
            self.queues[queue]
                .interrupted
                .recv_timeout(DEADLINE)
                .unwrap();
        }
    }

    /// Executes one command and waits for it.
    pub fn run(&self, command: Submission) -> Completion {
        self.submit(0, &command);
        self.reap(0)
    }

    /// The values of a command that succeeds.
    pub fn ok(&self, command: Submission) -> [u64; 4] {
        let completion = self.run(command);
        assert_eq!(completion.result, 0, "{command:x?}");
        completion.values
    }

    /// A command whose span is all of `bytes`, put at `offset` of the client's region.
    pub fn with(&self, offset: u64, bytes: &[u8], command: Submission) -> Submission {
        let at = GuestAddress(self.data + offset);
        self.machine.memory.memory().write_slice(bytes, at).unwrap();
        Submission {
            region: self.region,
            offset,
            bytes: bytes.len() as u32,
            ..command
        }
    }

    pub fn at(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let at = GuestAddress(self.data + offset);
        let memory = self.machine.memory.memory();
        memory.read_slice(&mut data, at).unwrap();
        data
    }

    /// Loads a text and gets a kernel of it.
    pub fn kernel(&self, text: &str, name: &str) -> u64 {
        let load = command(op::MODULE_LOAD, [0; 4]);
        let [module, ..] = self.ok(self.with(0, text.as_bytes(), load));
        let get = command(op::FUNC_GET, [module, 0, 0, 0]);
        self.ok(self.with(0, name.as_bytes(), get))[0]
    }

    pub fn close(&self) -> u32 {
        let args = [self.session, 0, 0, 0];
        self.machine.insist(control::SESSION_CLOSE, args)
    }
}

pub use crate::protocol::spec::op;

/// A command without a span.
pub fn command(opcode: u16, args: [u64; 4]) -> Submission {
    Submission {
        opcode,
        args,
        ..Submission::default()
    }
}

/// A launch of so many blocks of so many threads, in one dimension.
pub fn launch(function: u64, grid: u32, block: u32) -> Submission {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let args = [function, pair(grid, 1), pair(1, block), pair(1, 1)];
    command(op::LAUNCH_KERNEL, args)
}
