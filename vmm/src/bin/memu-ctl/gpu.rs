//! The accelerators, for people.

use vmm::config::{Node, show_size};
use vmm::control::{Gpu, GpuSession};

pub fn show(gpus: &[Gpu]) -> String {
    gpus.iter()
        .map(|device| accelerator(device).to_string())
        .collect()
}

fn accelerator(device: &Gpu) -> Node {
    let used = device.memory.saturating_sub(device.free);
    let line = format!(
        "{}: {}, {}, compute capability {}, driver {}, {} multiprocessors, {} of {} used",
        device.name,
        device.model,
        device.backend,
        device.compute_capability,
        device.driver_version,
        device.multiprocessors,
        show_size(used),
        show_size(device.memory)
    );
    let sessions = device.sessions.iter().map(session);
    Node::new(
        line,
        coherence(device).into_iter().chain(sessions).collect(),
    )
}

/// What host and device had to tell each other: the counters that are not 0, behind what they count.
fn coherence(device: &Gpu) -> Option<Node> {
    let known = |name: &str| device.coherence.get(name).copied();
    let counts = match known("granule")? {
        0 => "flips of bias".into(),
        64 => "lines of 64 bytes".into(),
        granule => format!(
            "pages of {granule} bytes, at least, in {} epochs",
            known("epochs").unwrap_or_default()
        ),
    };
    let counters = device.coherence.iter();
    let counters = counters
        .filter(|(name, count)| **count > 0 && !["granule", "epochs"].contains(&name.as_str()));
    let counters: Vec<String> = counters
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let counters = match counters.is_empty() {
        true => "none yet".into(),
        false => counters.join(", "),
    };
    Some(Node::leaf(format!("coherence by {counts}: {counters}")))
}

fn session(session: &GpuSession) -> Node {
    let line = format!(
        "session {}: {} of memory, {} commands, {} launches in {}, {} in, {} out, {} modules, {} regions",
        session.number,
        show_size(session.memory),
        session.commands,
        session.launches,
        milliseconds(session.kernel_time),
        show_size(session.bytes_in),
        show_size(session.bytes_out),
        session.modules,
        session.regions
    );
    let queues = session.queues.iter().map(|queue| {
        let now = queue
            .opcode
            .zip(queue.since)
            .map(|(opcode, since)| format!(", executes {opcode:#04x} for {}", milliseconds(since)));
        Node::leaf(format!(
            "queue {}: {} entries, {} completed, {} waiting, {} doorbells, {} interrupts{}",
            queue.number,
            queue.depth,
            queue.completed,
            queue.waiting,
            queue.doorbells,
            queue.interrupts,
            now.unwrap_or_default()
        ))
    });
    let kernels = session.kernels.iter().map(|kernel| {
        Node::leaf(format!(
            "kernel {}: {} launches in {}",
            kernel.name,
            kernel.launches,
            milliseconds(kernel.time)
        ))
    });
    Node::new(line, queues.chain(kernels).collect())
}

fn milliseconds(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}

#[cfg(test)]
mod tests {
    use vmm::control::{GpuKernel, GpuQueue};

    use super::*;

    #[test]
    fn an_accelerator_is_a_tree_of_its_clients() {
        let shown = show(&[Gpu {
            name: "gpu0".into(),
            model: "MEMU".into(),
            backend: "ptx".into(),
            compute_capability: "7.5".into(),
            driver_version: 12090,
            multiprocessors: 2,
            memory: 4 << 30,
            free: 3 << 30,
            coherence: [
                ("host_reads", 3),
                ("requests", 0),
                ("flips_to_host", 1),
                ("epochs", 9),
                ("granule", 4096),
            ]
            .map(|(name, count)| (name.into(), count))
            .into(),
            sessions: vec![GpuSession {
                number: 1,
                commands: 9,
                launches: 2,
                kernel_time: 1_234_567,
                memory: 3 << 20,
                bytes_in: 4096,
                bytes_out: 0,
                modules: 1,
                functions: 1,
                regions: 3,
                queues: vec![GpuQueue {
                    number: 5,
                    depth: 64,
                    completed: 9,
                    waiting: 1,
                    doorbells: 4,
                    interrupts: 2,
                    opcode: Some(0x40),
                    since: Some(2_000_000),
                }],
                kernels: vec![GpuKernel {
                    name: "vector_add".into(),
                    launches: 2,
                    time: 1_234_567,
                }],
            }],
        }]);
        assert_eq!(
            shown,
            "\
gpu0: MEMU, ptx, compute capability 7.5, driver 12090, 2 multiprocessors, 1GiB of 4GiB used
├── coherence by pages of 4096 bytes, at least, in 9 epochs: flips_to_host 1, host_reads 3
└── session 1: 3MiB of memory, 9 commands, 2 launches in 1.234 ms, 4KiB in, 0B out, 1 modules, 3 regions
    ├── queue 5: 64 entries, 9 completed, 1 waiting, 4 doorbells, 2 interrupts, executes 0x40 for 2.000 ms
    └── kernel vector_add: 2 launches in 1.234 ms
"
        );
    }
}
