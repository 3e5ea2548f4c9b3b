//! Drivers that mean harm: random register accesses, random rings, random requests. Nothing may panic, run on for ever, or
//! touch memory that the guest does not have; a device that gave up is as new after a reset.

use std::io;
use std::sync::Arc;

use pci::{Function, ResetKind};
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::testing::{Driver, Recorded};
use super::{
    Block, Console, Device, Disk, Effect, Net, NetPort, PciFunction, Progress, Rng, Virtqueue,
};

const MEMORY: u64 = 0x1_0000;

/// A host that has a little of everything and takes everything.
#[derive(Clone, Copy)]
struct Host;

impl io::Read for Host {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let len = data.len().min(100);
        data.iter_mut().for_each(|byte| *byte = 0xa5);
        Ok(len)
    }
}

impl io::Write for Host {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NetPort for Host {
    fn set_offloads(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for Host {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.size());
        data.fill(0x5a);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.size());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum AccessTo {
    Config(u16, Vec<u8>),
    Bar(u64, Vec<u8>),
}

/// Mostly where registers are, sometimes anywhere.
fn access() -> impl Strategy<Value = AccessTo> {
    let len = prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), 0..9_usize];
    let page = prop_oneof![0..6_u64, 0..8_u64];
    let within = prop_oneof![0..0x40_u64, 0..0x1000_u64];
    let byte = prop_oneof![Just(0_u8), Just(1), Just(0xf), Just(0xff), any::<u8>()];
    (any::<bool>(), page, within, len).prop_flat_map(move |(bar, page, within, len)| {
        vec(byte.clone(), len).prop_map(move |data| {
            if bar {
                AccessTo::Bar((page << 12 | within).min(0x8000 - data.len() as u64), data)
            } else {
                AccessTo::Config(within as u16, data)
            }
        })
    })
}

fn registers(function: &mut PciFunction) -> (Vec<u8>, Vec<u8>) {
    let mut config = vec![0; 0x100];
    for (at, bytes) in (0..).step_by(4).zip(config.chunks_mut(4)) {
        function.config_read(at, bytes);
    }
    let mut bar = vec![0; 0x6000];
    for (at, bytes) in (0..).step_by(4).zip(bar.chunks_mut(4)) {
        function.bar_read(0, at, bytes, &mut Vec::new());
    }
    (config, bar)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// 128 sequences of 100 accesses.
    #[test]
    fn random_accesses_do_no_harm_and_a_reset_undoes_them(accesses in vec(access(), 100)) {
        let new = || PciFunction::new(Net::new(Host, [2; 6]).identity(), Arc::new(Recorded::default()));
        let mut function = new();
        let mut out = Vec::new();
        for access in accesses {
            match access {
                AccessTo::Config(offset, data) => {
                    function.config_write(offset, &data, &mut out);
                    function.config_read(offset, &mut data.clone());
                }
                AccessTo::Bar(offset, data) => {
                    function.bar_write(0, offset, &data, &mut out);
                    function.bar_read(0, offset, &mut data.clone(), &mut out);
                }
            }
            for effect in out.drain(..) {
                if let Effect::Kick { queue } = effect {
                    prop_assert!(queue < 2);
                }
            }
        }
        function.reset(ResetKind::Conventional, &mut out);
        prop_assert_eq!(registers(&mut function), registers(&mut new()));
    }
}

/// Queues of a driver that writes nonsense into its memory: the rings overlap descriptors, tables and buffers.
#[derive(Clone, Debug)]
struct Nonsense {
    memory: Vec<u8>,
    descriptors: Vec<(u64, u32, u16, u16)>,
    heads: Vec<u16>,
    queues: [QueueState; 2],
}

const SIZE: u16 = 16;

fn nonsense() -> impl Strategy<Value = Nonsense> {
    let address = prop_oneof![8 => 0..MEMORY, 1 => any::<u64>(), 1 => MEMORY - 16..MEMORY + 16];
    let len = prop_oneof![8 => 0..0x800_u32, 1 => any::<u32>(), 1 => Just(16_u32)];
    let descriptor = (address, len, 0..8_u16, 0..SIZE + 1);
    let ring = |at: u64| prop_oneof![6 => Just(at), 1 => 0..MEMORY, 1 => any::<u64>()];
    let queue = move |base: u64| {
        (
            ring(base),
            ring(base + 0x400),
            ring(base + 0x800),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(
                |(desc_table, avail_ring, used_ring, event_idx_enabled, ready)| QueueState {
                    max_size: SIZE,
                    size: SIZE,
                    ready,
                    event_idx_enabled,
                    desc_table,
                    avail_ring,
                    used_ring,
                    ..QueueState::default()
                },
            )
    };
    (
        vec(any::<u8>(), 0x1000),
        vec(descriptor, 2 * usize::from(SIZE)),
        vec(0..SIZE, usize::from(SIZE)),
        [queue(0), queue(0x1000)],
    )
        .prop_map(|(memory, descriptors, heads, queues)| Nonsense {
            memory,
            descriptors,
            heads,
            queues,
        })
}

impl Nonsense {
    fn memory(&self) -> GuestMemoryMmap {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        mem.write_slice(&self.memory, GuestAddress(0x2000)).unwrap();
        for (base, descriptors) in [0, 0x1000]
            .into_iter()
            .zip(self.descriptors.chunks(SIZE.into()))
        {
            for (index, &(address, len, flags, next)) in (0..).zip(descriptors) {
                Driver::descriptor_in(&mem, base, index, address, len, flags, next);
            }
            for (slot, head) in (0..).zip(&self.heads) {
                mem.write_obj(*head, GuestAddress(base + 0x404 + 2 * slot))
                    .unwrap();
            }
            mem.write_obj(SIZE, GuestAddress(base + 0x402)).unwrap();
        }
        mem
    }

    /// Serves the queues until the device gives up, is idle, or would go on for ever by right.
    fn run(&self, mut device: impl Device) {
        let mem = self.memory();
        let queues: Result<Vec<_>, _> = self
            .queues
            .iter()
            .map(|&state| Virtqueue::new(state, &mem))
            .collect();
        let Ok(mut queues) = queues else {
            return;
        };
        device.activate(u64::MAX);
        for _ in 0..4 {
            let served = device.serve(&mut queues, &mem);
            for queue in &mut queues {
                queue.take_interrupt(&mem).ok();
            }
            if served != Ok(Progress::More) {
                break;
            }
        }
        device.reset();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn random_rings_do_no_harm(nonsense in nonsense()) {
        nonsense.run(Block::new(Host, false, "host"));
        nonsense.run(Net::new(Host, [2; 6]));
        nonsense.run(Rng::new(Host));
        nonsense.run(Console::new(Host, Host));
    }
}
