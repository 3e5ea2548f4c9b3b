//! How fast the epoch kernel is, and that it needs no more memory the longer it runs: a million epochs over a topology of
//! 64 nodes.
//!
//! `cargo bench -p memsim --bench kernel`. The figures are lines of JSON on standard output.

use memsim::kernel::{Demand, HostModel, Kernel, Run};
use memsim::topology::Topology;

const EPOCHS: u32 = 1_000_000;
/// What they may take on one core, s.
const LIMIT: f64 = 2.0;
/// Epochs after which the kernel has all the memory that it needs, and what the process may grow by from then on, KiB.
const WARM: u32 = EPOCHS / 100;
const GROWTH: f64 = 64.0;

fn main() {
    // Seven switches of eight expanders below one more switch: 56 + 7 + 1 = 64 nodes.
    let pods: Vec<String> = (0..7)
        .map(|pod| {
            let expanders: Vec<String> = (1..=8).map(|i| (pod * 8 + i).to_string()).collect();
            format!("({})", expanders.join(","))
        })
        .collect();
    let text = format!("(({}))", pods.join(","));
    let topology = Topology::parse(&text).expect("the topology is well-formed");
    let mut kernel = Kernel::new(&topology, HostModel::default());
    let mut demands = [Demand::default(); 56];
    let start = cpu_seconds();
    let (mut total, mut resident) = (0.0, 0.0);
    for epoch in 0..EPOCHS {
        if epoch == WARM {
            resident = resident_kib();
        }
        for (i, demand) in demands.iter_mut().enumerate() {
            demand.reads = f64::from((epoch + 7 * i as u32) % 1000);
            demand.writes = f64::from((epoch + 3 * i as u32) % 300);
        }
        let run = Run {
            time_ns: 1e6,
            parallelism: 4.0,
        };
        total += kernel.epoch(&[run], &[&demands])[0].added_ns;
    }
    let seconds = cpu_seconds() - start;
    let growth = resident_kib() - resident;
    eprintln!("{:.0} s of delay", total / 1e9);
    let figure = serde_json::json!({
        "name": format!("{EPOCHS} epochs over {} nodes", topology.links.len()),
        "value": seconds,
        "unit": "s",
        "target": format!("at most {LIMIT} s"),
        "ok": seconds <= LIMIT,
    });
    println!("{figure}");
    let figure = serde_json::json!({
        "name": format!("memory that {EPOCHS} epochs take beyond {resident:.0} KiB"),
        "value": growth,
        "unit": "KiB",
        "target": format!("at most {GROWTH} KiB"),
        "ok": growth <= GROWTH,
    });
    println!("{figure}");
}

/// Memory of this process that is in RAM, KiB.
fn resident_kib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("the kernel tells of processes");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a size in kB").parse().expect("a number")
}

/// Time that this process has been on a CPU, s: what others do to the machine is not the kernel's.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("the kernel counts CPU time");
    let nanoseconds = text.split(' ').next().expect("three figures");
    nanoseconds.parse::<f64>().expect("a number") / 1e9
}
