//! The accelerators as the control socket shows them.

use std::collections::BTreeMap;

use cxl::coherence::Event;
use devices::gpu::device::{QueueView, SessionView, View};
use devices::gpu::protocol::spec;

use super::control::function_name;
use crate::board::State as Models;
use crate::control::{Failure, FailureKind, Gpu, GpuKernel, GpuQueue, GpuSession, GpuTrace};

/// All of them.
pub(super) fn all(models: &Models) -> Vec<Gpu> {
    let accelerators = models.accelerators.iter();
    accelerators
        .filter_map(|(node, handle)| {
            let name = function_name(models, *node)?;
            Some(accelerator(name, handle.view()))
        })
        .collect()
}

/// Steps of the coherence protocol of one of them.
pub(super) fn trace(
    models: &Models,
    device: &str,
    from: u64,
    most: u64,
) -> Result<(GpuTrace, Vec<Event>), Failure> {
    let mut accelerators = models.accelerators.iter();
    let found =
        accelerators.find(|(node, _)| function_name(models, **node).as_deref() == Some(device));
    let (_, handle) = found.ok_or_else(|| {
        let message = format!("there is no accelerator {device}");
        Failure::new(FailureKind::NotFound, message, "take a name from the tree")
    })?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let traced = handle.trace(from, most).ok_or_else(|| {
        let message = format!("accesses to the memory of {device} are not known");
        let mend = "write coherence = \"trapped\" or \"observed\" in its table";
        Failure::new(FailureKind::Conflict, message, mend)
    })?;
    let counters = traced.counters.by_name().into_iter();
    let trace = GpuTrace {
        device: device.into(),
        memory: traced.config.capacity,
        granule: traced.config.granule,
        cache: traced.config.cache,
        snoop_filter: traced.config.filter,
        first: traced.kept.start,
        next: traced.kept.end,
        counters: counters.map(|(name, count)| (name.into(), count)).collect(),
    };
    Ok((trace, traced.events))
}

/// What the memory slots behind the accelerators' BARs are called, by address.
pub(super) fn windows(models: &Models) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for (node, handle) in &models.accelerators {
        let Some(name) = function_name(models, *node) else {
            continue;
        };
        let shown = handle.shown();
        for (window, what) in [(shown.memory, "memory"), (shown.data, "data buffer")] {
            names.extend(window.map(|window| (window.base, format!("{name} {what}"))));
        }
    }
    names
}

fn accelerator(name: String, view: View) -> Gpu {
    let (major, minor) = view.compute_capability;
    let session = |(number, session): (u32, SessionView)| GpuSession {
        number,
        commands: session.commands,
        launches: session.launches,
        kernel_time: session.kernel_time,
        memory: session.memory,
        bytes_in: session.bytes_in,
        bytes_out: session.bytes_out,
        modules: session.modules,
        functions: session.functions,
        regions: session.regions,
        queues: session.queues.into_iter().map(gpu_queue).collect(),
        kernels: session
            .kernels
            .into_iter()
            .map(|(name, count)| GpuKernel {
                name,
                launches: count.launches,
                time: count.time,
            })
            .collect(),
    };
    Gpu {
        name,
        model: view.name,
        backend: match view.backend {
            spec::backend::PTX => "ptx".into(),
            _ => "cuda".into(),
        },
        compute_capability: format!("{major}.{minor}"),
        driver_version: view.driver_version,
        multiprocessors: view.multiprocessors,
        memory: view.memory,
        free: view.free,
        coherence: named(view.coherence),
        sessions: view.sessions.into_iter().map(session).collect(),
    }
}

fn named(counters: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let named = counters.into_iter();
    named.map(|(name, count)| (name.into(), count)).collect()
}

fn gpu_queue(queue: QueueView) -> GpuQueue {
    GpuQueue {
        number: queue.number,
        depth: queue.depth,
        completed: queue.completed,
        waiting: queue.waiting,
        doorbells: queue.doorbells,
        interrupts: queue.interrupts,
        opcode: queue.current.map(|(opcode, _)| opcode),
        since: queue.current.map(|(_, since)| since),
    }
}
