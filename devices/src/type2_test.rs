use std::sync::{Arc, Mutex};

use gpu::backend::Properties;
use gpu::protocol::registers::{Command, Request};
use gpu::protocol::spec::{cmd, reg};
use pci::{Function, ResetKind, spec};

use super::testing::{LINK, MIB, Probe};
use super::type2::{Trapped, Type2, Type2Config};
use crate::Effect;
use crate::coherence::SharedEngine;
use crate::virtio::Interrupt;

/// Vectors that are pending.
#[derive(Debug, Default)]
struct Pending(Mutex<Vec<u16>>);

impl Interrupt for Pending {
    fn signal(&self, vector: u16) {
        self.0.lock().unwrap().push(vector);
    }

    fn is_pending(&self, vector: u16) -> bool {
        self.0.lock().unwrap().contains(&vector)
    }
}

const MEMORY: u64 = 768 * MIB;

fn accelerator() -> Probe<Type2> {
    with_memory(None)
}

pub(super) fn with_memory(trapped: Option<Trapped>) -> Probe<Type2> {
    let config = Type2Config {
        name: "gpu0".into(),
        serial: 0x77,
        cache: 128 * MIB,
        link: LINK,
        performance: super::testing::expander_config().performance,
        memory: MEMORY,
        properties: Properties {
            name: "An accelerator".into(),
            backend: 5,
            memory: MEMORY,
            compute_capability: (7, 5),
            driver_version: 12090,
            multiprocessors: 2,
            max_threads: 1024,
        },
        trapped,
    };
    let interrupt = Pending::default();
    interrupt.signal(9);
    let free = Box::new(|| 0x1_0000_0100);
    Probe::new(Type2::new(config, free, Arc::new(interrupt)).unwrap())
}

/// Gives the BARs 0, 2 and 4 their places and lets them decode.
fn place(device: &mut Probe<Type2>) {
    for (bar, base) in [
        (0, 0x10_0000_0000_u64),
        (2, 0x10_0010_0000),
        (4, 0x20_0000_0000),
    ] {
        let register = spec::header::BAR0 + 4 * bar;
        device.set_config_u32(register, base as u32);
        device.set_config_u32(register + 4, (base >> 32) as u32);
    }
    device.set_config_u16(spec::header::COMMAND, 6);
}

#[test]
fn the_function_is_the_one_of_the_seed() {
    let mut device = accelerator();
    assert_eq!(device.config_u32(0), 0x0d92_8086);
    assert_eq!(device.config_u32(8) >> 8, 0x12_0000, "no memory device");
    assert_eq!(
        [0, 2, 4].map(|bar| device.bar_size(bar)),
        [0x2_0000, 0x8_0000, 1024 * MIB]
    );
    let msix = device.capability(spec::capability::MSIX).unwrap();
    assert_eq!(device.config_u16(msix + 2), 63);
    assert_eq!(device.config_u32(msix + 4), 0x1_0000, "in BAR 0");
    assert_eq!(device.config_u32(msix + 8), 0x1_1000);
    assert_eq!(device.register_blocks(), [(1, 0)]);
}

#[test]
fn the_dvsec_tells_of_cache_io_and_mem() {
    let mut device = accelerator();
    let dvsec = device.dvsec(cxl::dvsec::id::DEVICE);
    assert_eq!(device.config_u16(dvsec + 0x0a), 0x1f);
    assert_eq!(device.config_u16(dvsec + 0x16), 0x8002, "128 times 1 MiB");
    let flex_bus = device.dvsec(cxl::dvsec::id::FLEX_BUS_PORT);
    assert_eq!(device.config_u16(flex_bus + 0x0e) & 7, 7);
    device.set_config_u16(dvsec + 0x0c, 0xffff);
    assert_eq!(device.config_u16(dvsec + 0x0c), 7, "all three enabled");
    assert!(device.function.mem_enable());
    assert!(device.asked().decoders_changed);
}

#[test]
fn the_cdat_has_one_range_of_volatile_memory_and_what_it_costs() {
    let cdat = accelerator().cdat();
    assert_eq!(cdat.len(), 160);
    let number = |at: usize, len: usize| {
        let bytes = cdat[at..at + len].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    // Behind the header a DSMAS: type, length and flags; base and length.
    assert_eq!([number(16, 1), number(18, 2), number(21, 1)], [0, 24, 0]);
    assert_eq!([number(24, 8), number(32, 8)], [0, MEMORY]);
    // A DSLBIS for each property: its type, base unit and value.
    let costs = [40, 64, 88, 112].map(|at| {
        assert_eq!([number(at, 1), number(at + 2, 2)], [1, 24]);
        (number(at + 6, 1), number(at + 8, 8) * number(at + 16, 2))
    });
    let performance = super::testing::expander_config().performance;
    let (picoseconds, megabytes) = (1000, 1000.0);
    let bandwidth = |gigabytes: f64| (gigabytes * megabytes) as u64;
    assert_eq!(
        costs,
        [
            (1, performance.read_latency * picoseconds),
            (2, performance.write_latency * picoseconds),
            (4, bandwidth(performance.read_bandwidth)),
            (5, bandwidth(performance.write_bandwidth)),
        ]
    );
    // A DSEMTS: all of it, for specific purposes.
    assert_eq!([number(136, 1), number(138, 2), number(141, 1)], [4, 24, 1]);
    assert_eq!([number(144, 8), number(152, 8)], [0, MEMORY]);
}

#[test]
fn trapped_memory_is_memory_and_each_access_is_counted() {
    let bytes = 1 << 20;
    let memory = gpu::DeviceMemory::new(bytes).unwrap();
    let engine = Arc::new(SharedEngine::new(bytes, 64 << 10, 1024, true).unwrap());
    let mut device = with_memory(Some(Trapped {
        memory: Arc::clone(&memory),
        engine: Arc::clone(&engine),
    }));
    place(&mut device);
    assert_eq!(device.function.memory_window(), None);
    assert!(device.function.data_window().is_some());
    let mut write =
        |offset, data: &[u8]| device.function.bar_write(4, offset, data, &mut Vec::new());
    write(0x1000, &7_u64.to_le_bytes());
    // Beyond the memory is nothing, nor in part of an access.
    write(bytes - 4, &[1; 8]);
    write(u64::MAX, &[1]);
    let mut read = |offset| {
        let mut data = [0xff; 8];
        device
            .function
            .bar_read(4, offset, &mut data, &mut Vec::new());
        u64::from_le_bytes(data)
    };
    assert_eq!(read(0x1000), 7);
    assert_eq!(read(bytes - 4), 0);
    assert_eq!(read(u64::MAX), 0);
    assert_eq!(memory.load(0x1000, 8), Some(7));
    let counters = engine.counters();
    assert_eq!((counters.host_writes, counters.host_reads), (1, 1));
    assert_eq!((counters.requests, counters.host_hits), (1, 1));
}

#[test]
fn the_windows_follow_the_bars() {
    let mut device = accelerator();
    assert_eq!(device.function.data_window(), None);
    assert_eq!(device.function.doorbells().count(), 0);
    place(&mut device);
    assert!(device.asked().bars_changed);
    let data = device.function.data_window().unwrap();
    assert_eq!((data.base, data.size), (0x10_0010_1000, 0xf000));
    let memory = device.function.memory_window().unwrap();
    assert_eq!((memory.base, memory.size), (0x20_0000_0000, MEMORY));
    let doorbells: Vec<_> = device.function.doorbells().collect();
    assert_eq!(doorbells.len(), 64);
    assert_eq!(doorbells[63], (63, 0x10_0017_f000));
}

#[test]
fn commands_come_back_as_effects() {
    let mut device = accelerator();
    assert_eq!(device.bar_u32(2, reg::MAGIC), 0x4358_4c32);
    assert_eq!(device.bar_u64(2, reg::TOTAL_MEM), MEMORY);
    assert_eq!(device.bar_u64(2, reg::FREE_MEM), 0x1_0000_0100);
    device.set_bar_u64(2, reg::PARAM0, 4096);
    device.set_bar_u32(2, reg::CMD, cmd::MEM_ALLOC);
    let effects = device.take_effects();
    let [
        Effect::Accelerator(Request::Command(Command {
            code,
            params,
            serial,
        })),
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((code, params[0]), (cmd::MEM_ALLOC, 4096));
    device.function.complete(serial, Default::default());
    assert_eq!(device.bar_u32(2, reg::CMD_STATUS), 3);
    // Nothing else of the window has registers.
    assert_eq!(device.bar_u64(2, 0x1000), 0);
    device.set_bar_u32(2, 0x1010, cmd::INIT);
    assert!(device.take_effects().is_empty());
}

#[test]
fn pending_bits_stand_behind_the_vectors() {
    let mut device = accelerator();
    assert_eq!(device.bar_u32(0, 0x1_000c), 1, "vector 0 is masked");
    assert_eq!(device.bar_u64(0, 0x1_1000), 1 << 9);
    assert_eq!(device.bar_u64(0, 0x1_1008), 0);
}

#[test]
fn a_reset_ends_what_runs() {
    let mut device = accelerator();
    place(&mut device);
    device.set_bar_u32(2, reg::CMD, cmd::INIT);
    device.take_effects();
    for (kind, decoders) in [
        (ResetKind::FunctionLevel, 0),
        (ResetKind::SecondaryBus, 1),
        (ResetKind::Conventional, 1),
    ] {
        device.reset(kind);
        let effects = device.take_effects();
        let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|e| wanted(e)).count();
        assert_eq!(
            count(|effect| matches!(effect, Effect::Accelerator(Request::Reset))),
            1
        );
        assert_eq!(
            count(|effect| matches!(effect, Effect::DecodersChanged)),
            decoders,
            "{kind:?}"
        );
        assert_eq!(device.bar_u32(2, reg::CMD_STATUS), 0);
        assert_eq!(device.function.memory_window(), None);
    }
    assert!(device.function.config().bar(0).is_none());
}
