//! The C functions, by group. Their meaning is CUDA's; the comments here say where this device differs.

mod attributes;
mod coherence;
mod context;
mod copy;
mod device;
mod fill;
mod graph;
mod launch;
mod library;
mod memory;
mod module;
mod pointer;
mod pool;
mod stream;
mod unsupported;

use crate::ffi::Entry;

const GROUPS: [&[Entry]; 14] = [
    coherence::ENTRIES,
    context::ENTRIES,
    copy::ENTRIES,
    device::ENTRIES,
    fill::ENTRIES,
    graph::ENTRIES,
    launch::ENTRIES,
    library::ENTRIES,
    memory::ENTRIES,
    module::ENTRIES,
    pointer::ENTRIES,
    pool::ENTRIES,
    stream::ENTRIES,
    unsupported::ENTRIES,
];

/// Every C function.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    GROUPS.into_iter().flatten()
}
