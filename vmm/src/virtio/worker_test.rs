use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use devices::virtio::spec::{common, feature, status};
use devices::virtio::{Effect, Interrupt, PciFunction, Rng};
use pci::Function;
use vm_memory::{Bytes, GuestAddress};

use super::*;

/// Longer than any of this takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x4000;

/// Interrupts that a test waits for.
#[derive(Debug)]
struct Sent(Mutex<Sender<u16>>);

impl Interrupt for Sent {
    fn signal(&self, vector: u16) {
        self.0.lock().unwrap().send(vector).unwrap();
    }

    fn is_pending(&self, _vector: u16) -> bool {
        false
    }
}

/// Counts up.
struct Counter(u8);

impl Read for Counter {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        for byte in data.iter_mut() {
            self.0 += 1;
            *byte = self.0;
        }
        Ok(data.len())
    }
}

struct Bench {
    worker: Worker,
    function: PciFunction,
    memory: GuestMemoryMmap,
    interrupts: Receiver<u16>,
    offered: u16,
}

impl Bench {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let device = Rng::new(Counter(0));
        let (sender, interrupts) = channel();
        let function = PciFunction::new(device.identity(), Arc::new(Sent(Mutex::new(sender))));
        let atomic = GuestMemoryAtomic::new(memory.clone());
        let worker = Worker::start("test", device, None::<std::fs::File>, atomic).unwrap();
        Self {
            worker,
            function,
            memory,
            interrupts,
            offered: 0,
        }
    }

    fn write(&mut self, offset: u64, len: usize, value: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.function
            .bar_write(0, offset, &value.to_le_bytes()[..len], &mut effects);
        effects
    }

    /// Brings the device up as a driver does, with the rings at `rings`.
    fn start(&mut self, rings: u64) {
        self.offered = 0;
        self.memory
            .write_slice(&[0; 0x3000], GuestAddress(DESCRIPTORS))
            .unwrap();
        self.write(common::DRIVER_FEATURE_SELECT, 4, 1);
        self.write(common::DRIVER_FEATURE, 4, feature::VERSION_1 >> 32);
        self.write(common::CONFIG_MSIX_VECTOR, 2, 0);
        self.write(common::QUEUE_MSIX_VECTOR, 2, 1);
        self.write(common::QUEUE_DESC_LOW, 8, rings + DESCRIPTORS);
        self.write(common::QUEUE_DRIVER_LOW, 8, rings + AVAILABLE);
        self.write(common::QUEUE_DEVICE_LOW, 8, rings + USED);
        self.write(common::QUEUE_ENABLE, 2, 1);
        let mut bits = 0;
        for bit in [
            status::ACKNOWLEDGE,
            status::DRIVER,
            status::FEATURES_OK,
            status::DRIVER_OK,
        ] {
            bits |= bit;
            for effect in self.write(common::DEVICE_STATUS, 1, bits.into()) {
                match effect {
                    Effect::Activate(activation) => self.worker.activate(&activation),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Offers one writable buffer of `len` bytes.
    fn offer(&mut self, len: u64) {
        const WRITE: u64 = 2;
        self.memory
            .write_obj(BUFFER, GuestAddress(DESCRIPTORS))
            .unwrap();
        self.memory
            .write_obj(len | WRITE << 32, GuestAddress(DESCRIPTORS + 8))
            .unwrap();
        self.offered += 1;
        self.memory
            .write_obj(self.offered, GuestAddress(AVAILABLE + 2))
            .unwrap();
    }

    fn interrupt(&self) -> u16 {
        self.interrupts
            .recv_timeout(DEADLINE)
            .expect("an interrupt")
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn status(&mut self) -> u8 {
        let mut status = [0];
        self.function
            .bar_read(0, common::DEVICE_STATUS, &mut status, &mut Vec::new());
        status[0]
    }
}

#[test]
fn a_kick_is_answered_with_data_and_an_interrupt() {
    let mut bench = Bench::new();
    bench.start(0);
    bench.offer(3);
    bench.worker.event().unwrap().write(1).unwrap();
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.used(), 1);
    assert_eq!(
        bench
            .memory
            .read_obj::<[u8; 3]>(GuestAddress(BUFFER))
            .unwrap(),
        [1, 2, 3]
    );
}

#[test]
fn buffers_that_lay_ready_before_the_device_ran_are_served() {
    let mut bench = Bench::new();
    bench.worker.pause();
    bench.start(0);
    bench.offer(1);
    bench.worker.resume();
    assert_eq!(bench.interrupt(), 1);
}

#[test]
fn a_paused_device_touches_nothing_and_forgets_no_kick() {
    let mut bench = Bench::new();
    bench.start(0);
    bench.worker.pause();
    bench.offer(1);
    bench.worker.kick();
    // The worker would serve under this lock, so that nothing can happen behind the test's back.
    assert_eq!(bench.worker.engine.serve(), Progress::Idle);
    assert_eq!(bench.used(), 0);
    bench.worker.resume();
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.used(), 1);
}

#[test]
fn after_a_reset_nothing_is_served_until_a_driver_is_back() {
    let mut bench = Bench::new();
    bench.start(0);
    assert!(matches!(
        bench.write(common::DEVICE_STATUS, 1, 0)[..],
        [Effect::Reset]
    ));
    bench.worker.reset();
    bench.offer(1);
    assert_eq!(bench.worker.engine.serve(), Progress::Idle);
    assert_eq!(bench.used(), 0);
    bench.start(0);
    bench.offer(1);
    bench.worker.kick();
    assert_eq!(bench.interrupt(), 1);
}

#[test]
fn a_driver_that_breaks_its_queue_is_told_and_may_start_again() {
    let mut bench = Bench::new();
    bench.start(0);
    bench
        .memory
        .write_obj(u16::MAX, GuestAddress(AVAILABLE + 2))
        .unwrap();
    bench.worker.kick();
    assert_eq!(bench.interrupt(), 0, "the configuration vector");
    assert_ne!(bench.status() & status::NEEDS_RESET, 0);
    bench.write(common::DEVICE_STATUS, 1, 0);
    bench.worker.reset();
    bench.start(0);
    bench.offer(1);
    bench.worker.kick();
    assert_eq!(bench.interrupt(), 1);
    assert_eq!(bench.status() & status::NEEDS_RESET, 0);
}

#[test]
fn rings_outside_memory_are_refused_at_once() {
    let mut bench = Bench::new();
    bench.start(1 << 40);
    assert_eq!(bench.interrupt(), 0);
    assert_ne!(bench.status() & status::NEEDS_RESET, 0);
}
