//! A device at work in trapped mode, its kernels and its host beside each other, and its trace played to the model.

use std::sync::Arc;
use std::thread;

use cxl::coherence::model::Model;
use cxl::coherence::{Access, Event, Side, What};
use gpu::backend::ptx::Ptx;
use gpu::backend::{Backend, Kernel, LaunchConfig, Placement};
use gpu::ptx::{Options, Tier};
use gpu::{Coherence, DeviceMemory};
use pci::Function;
use vm_memory::MmapRegion;

use super::type2::Trapped;
use super::type2_test::with_memory;
use crate::coherence::{SharedEngine, TRACE};

const VECTOR_ADD: &str = include_str!("../../gpu/tests/ptx/vector_add.ptx");
const DEVICE: &str = include_str!("../../gpu/tests/ptx/device.ptx");
const MEMORY: u64 = 1 << 20;
const FLOATS: u64 = 512;

fn params(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn launch(kernel: &dyn Kernel, grid: u32, block: u32, params: &[u8]) {
    let config = LaunchConfig {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
    };
    kernel.launch(&config, params).unwrap();
}

#[test]
fn the_trace_of_a_device_at_work_leads_the_model_to_the_same_counters() {
    // So small that both have to give lines up.
    let engine = SharedEngine::new(MEMORY, 2048, 32, true).unwrap();
    let engine = Arc::new(engine);
    let region = Arc::new(MmapRegion::new(MEMORY as usize).unwrap());
    let memory = DeviceMemory::coherent(region, Some(Arc::clone(&engine) as _), true);
    let mut device = with_memory(Some(Trapped {
        memory: Arc::clone(&memory),
        engine: Arc::clone(&engine),
    }));
    let options = Options {
        workers: 2,
        tier: Tier::Interpreter,
        ..Options::default()
    };
    let backend = Ptx::new(memory, options, (7, 5), 12090);
    let context = backend.context().unwrap();
    let [a, b, c] = [(); 3].map(|()| context.alloc(4 * FLOATS, Placement::Mappable).unwrap());
    let offset = |address: u64| address - gpu::memory::BASE;
    let add = context
        .load(VECTOR_ADD)
        .unwrap()
        .function("vector_add")
        .unwrap();
    let count = context.load(DEVICE).unwrap().function("count").unwrap();
    let mut write = |at: u64, value: f32| {
        let (data, mut effects) = (value.to_le_bytes(), Vec::new());
        device.function.bar_write(4, at, &data, &mut effects);
    };
    for i in 0..FLOATS {
        write(offset(a) + 4 * i, i as f32);
        write(offset(b) + 4 * i, 2.0 * i as f32);
    }
    engine.set_bias(offset(c), 4096, true).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            launch(&*add, 4, 128, &params(&[a, b, c, FLOATS]));
            launch(&*count, 1, 32, &params(&[a, 20])[..12]);
        });
        // Beside the kernels, in lines of theirs.
        for i in 0..FLOATS {
            write(offset(a) + 4 * (i * 7 % FLOATS), i as f32);
        }
        engine.flip_bias(offset(b), 4096).unwrap();
    });
    for i in 0..FLOATS {
        let mut data = [0; 4];
        device
            .function
            .bar_read(4, offset(c) + 4 * i, &mut data, &mut Vec::new());
        assert!(f32::from_le_bytes(data) >= 2.0 * i as f32, "{i}");
    }
    context.free(b).unwrap();

    let traced = engine.trace(0, usize::MAX);
    assert_eq!(traced.kept.start, 0, "of {TRACE} steps none had to go");
    assert_eq!(traced.events.len() as u64, traced.kept.end);
    let mut model = Model::new(traced.config);
    model.follow(&traced.events);
    assert_eq!(*model.statistics(), traced.counters);
    let counters = traced.counters;
    assert_eq!((counters.host_reads, counters.host_writes), (512, 3 * 512));
    assert_eq!(
        (counters.device_reads, counters.device_writes),
        (1024, 512 + 640)
    );
    assert!(counters.cache_evictions > 0 && counters.filter_evictions > 0);
    assert!(counters.snoops_for_data > 0 && counters.host_took_back > 0);

    // It is the trace that says so: without one of its accesses the model comes to something else.
    let last_write =
        |event: &Event| (event.by, event.what) == (Side::Host, What::Access(Access::Write));
    let without = traced.events.iter().rposition(last_write).unwrap();
    let mut events = traced.events;
    events.remove(without);
    let mut model = Model::new(traced.config);
    model.follow(&events);
    assert_ne!(*model.statistics(), traced.counters);
}
