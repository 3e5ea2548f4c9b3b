//! The kernel has all the memory that it will ever use from its first epoch on.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use memsim::kernel::{Demand, HostModel, Kernel, Run};
use memsim::topology::Topology;

/// The system's allocator, with a book for each thread.
struct Counting;

thread_local! {
    /// Allocations, and bytes that are in use.
    static BOOK: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does all of the work; `realloc` is made of the other two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (allocations, bytes) = BOOK.get();
        BOOK.set((allocations + 1, bytes + layout.size() as i64));
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let (allocations, bytes) = BOOK.get();
        BOOK.set((allocations, bytes - layout.size() as i64));
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

const EPOCHS: u32 = 20_000;

/// Lets hosts run for many epochs; returns allocations in them, and by how many bytes more are in use.
fn run(topology: &str, expanders: usize) -> (u64, i64) {
    let topology = Topology::parse(topology).unwrap();
    let mut kernel = Kernel::new(&topology, HostModel::default());
    let hosts = topology.hosts.len();
    let mut demands = vec![vec![Demand::default(); expanders]; hosts];
    let runs = vec![
        Run {
            time_ns: 1e6,
            parallelism: 4.0,
        };
        hosts
    ];
    let mut after_the_first = (0, 0);
    for epoch in 0..EPOCHS {
        for (host, demands) in demands.iter_mut().enumerate() {
            for (index, demand) in demands.iter_mut().enumerate() {
                demand.reads = f64::from((epoch + 7 * (index + host) as u32) % 1000);
                demand.writes = f64::from((epoch + 3 * index as u32) % 300);
            }
        }
        if let [demands] = &demands[..] {
            kernel.epoch(&runs, &[demands]);
        } else {
            kernel.epoch(&runs, &[&demands[0], &demands[1]]);
        }
        if epoch == 0 {
            after_the_first = BOOK.get();
        }
    }
    let (allocations, bytes) = BOOK.get();
    (allocations - after_the_first.0, bytes - after_the_first.1)
}

#[test]
fn epochs_leave_no_memory_behind() {
    // Seven switches of eight expanders below one more switch: 64 nodes.
    let pods: Vec<String> = (0..7)
        .map(|pod| {
            let expanders = (1..=8).map(|i| (pod * 8 + i).to_string());
            format!("({})", expanders.collect::<Vec<String>>().join(","))
        })
        .collect();
    assert_eq!(run(&format!("(({}))", pods.join(",")), 56), (0, 0));
    // Hosts that share are served in turn, for which lists are made; none of them stays.
    let (_, kept) = run("a=((m,n)sw);b=((m,n)sw)", 2);
    assert_eq!(kept, 0);
}
