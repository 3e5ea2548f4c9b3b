//! What a run came to: collected epoch by epoch, told as text and JSON. [`crate::html`] draws it.

use memsim::kernel::{Debt, Demand, Kernel, Penalty};
use memsim::law::LINE;
use memsim::topology::Topology;
use serde::Serialize;

use crate::source::{Epoch, Facts};

/// Points of the time series; when there are more, neighbours are merged.
const POINTS: usize = 512;

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was run, or replayed.
    pub command: String,
    /// The topology, as text.
    pub topology: String,
    /// Where the access counts come from.
    pub source: Facts,
    /// Latency of a read from local memory, ns, and where the figure is from.
    pub local_ns: f64,
    /// `given` or `measured`.
    pub local_from: &'static str,
    /// The hosts.
    pub hosts: Vec<HostReport>,
    /// Number of epochs.
    pub epochs: u64,
    /// Epochs in which a path was faster than local memory, so that its advantage is not shown.
    pub not_representable: u64,
    /// From the start to the end of the target, ns.
    pub wall_ns: f64,
    /// Delay that was injected, ns.
    pub paid_ns: f64,
    /// Delay still owed at the end, ns.
    pub owed_ns: f64,
    /// Time that observing cost the target beyond the delay that it was owed, ns.
    pub overhead_ns: f64,
}

/// One host.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HostReport {
    /// Its name.
    pub name: String,
    /// Time that it ran, ns.
    pub ran_ns: f64,
    /// Delay that the topology adds, ns.
    pub added_ns: f64,
    /// Its nodes; local memory first.
    pub nodes: Vec<NodeReport>,
    /// Its time series.
    pub series: Vec<Point>,
}

/// One node as a host uses it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Latency of a read with nothing else under way, ns.
    pub idle_ns: f64,
    /// Lines read.
    pub reads: f64,
    /// Lines written back.
    pub writes: f64,
    /// Back-invalidate snoops.
    pub back_invalidates: f64,
    /// Mean latency of its reads, ns.
    pub mean_ns: f64,
}

/// One point of the time series.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Point {
    /// Modelled time at its end, ns.
    pub until_ns: f64,
    /// Modelled time that it covers, ns.
    pub length_ns: f64,
    /// Delay added in it, ns.
    pub added_ns: f64,
    /// Bytes moved, by node.
    pub bytes: Vec<f64>,
    /// Latency of a read, by node, ns.
    pub latency_ns: Vec<f64>,
    /// What of the added delay is due to each node, ns.
    pub delay_ns: Vec<f64>,
}

impl Report {
    /// An empty report.
    pub fn new(
        topology: &Topology,
        text: String,
        command: String,
        facts: Facts,
        local: (f64, &'static str),
    ) -> Self {
        let hosts = topology.hosts.iter().map(|host| {
            let expanders = host.paths.iter().map(|path| NodeReport {
                name: topology.expanders[path.expander].name.clone(),
                idle_ns: topology.idle_read_ns(path),
                ..NodeReport::default()
            });
            let memory = NodeReport {
                name: "local".into(),
                idle_ns: local.0,
                ..NodeReport::default()
            };
            HostReport {
                name: host.name.clone(),
                nodes: std::iter::once(memory).chain(expanders).collect(),
                ..HostReport::default()
            }
        });
        Self {
            command,
            topology: text,
            source: facts,
            local_ns: local.0,
            local_from: local.1,
            hosts: hosts.collect(),
            epochs: 0,
            not_representable: 0,
            wall_ns: 0.0,
            paid_ns: 0.0,
            owed_ns: 0.0,
            overhead_ns: 0.0,
        }
    }

    /// Takes up an epoch.
    pub fn add(&mut self, epoch: &Epoch, penalties: &[Penalty], kernel: &Kernel) {
        self.epochs += 1;
        self.not_representable +=
            u64::from(penalties.iter().any(|penalty| penalty.not_representable));
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let latencies = std::iter::once(self.local_ns).chain(kernel.latencies(index));
            host.add(
                epoch.runs.get(index).map_or(0.0, |run| run.time_ns),
                penalties.get(index).map_or(0.0, |penalty| penalty.added_ns),
                epoch.demands.get(index).map_or(&[], Vec::as_slice),
                latencies.collect(),
            );
        }
    }

    /// Takes up how the injection went.
    pub fn settle(&mut self, debt: &Debt, overhead_ns: f64, wall_ns: f64, facts: Facts) {
        self.paid_ns = debt.paid_ns();
        self.owed_ns = debt.owed_ns();
        self.overhead_ns = overhead_ns;
        self.wall_ns = wall_ns;
        self.source = facts;
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "memsim: {}\n  topology  {}\n  source    {}: {}\n  error     {}\n  local     {:.1} ns, {}\n",
            self.command,
            self.topology,
            self.source.name,
            self.source.method,
            self.source.error,
            self.local_ns,
            self.local_from
        );
        for host in &self.hosts {
            text += &format!(
                "\n  host {}: ran {}, the topology adds {} ({:.2}x)\n",
                host.name,
                seconds(host.ran_ns),
                seconds(host.added_ns),
                host.slowdown()
            );
            text += "    node          idle ns   mean ns          reads         writes      GB/s\n";
            let time = host.ran_ns + host.added_ns;
            for node in &host.nodes {
                text += &format!(
                    "    {:<12} {:>8.1} {:>9.1} {:>14.0} {:>14.0} {:>9.3}\n",
                    node.name,
                    node.idle_ns,
                    node.mean_ns,
                    node.reads,
                    node.writes,
                    if time > 0.0 {
                        LINE * (node.reads + node.writes) / time
                    } else {
                        0.0
                    }
                );
            }
        }
        text += &format!(
            "\n  {} epochs, wall {}, injected {}, still owed {}, own overhead {} ({:.2}x beyond the delay)\n",
            self.epochs,
            seconds(self.wall_ns),
            seconds(self.paid_ns),
            seconds(self.owed_ns),
            seconds(self.overhead_ns),
            self.overhead_factor()
        );
        if self.not_representable > 0 {
            text += &format!(
                "  warning: in {} epochs a path was faster than local memory; delay cannot show that\n",
                self.not_representable
            );
        }
        text
    }

    /// Run time with the cost of observing, over run time without.
    pub fn overhead_factor(&self) -> f64 {
        let ran: f64 = self.hosts.first().map_or(0.0, |host| host.ran_ns);
        if ran > 0.0 {
            (ran + self.overhead_ns) / ran
        } else {
            1.0
        }
    }
}

impl HostReport {
    /// Takes up an epoch: how long the host ran, what the topology added, and what each node was asked for and how long a
    /// read of it took.
    fn add(&mut self, ran_ns: f64, added_ns: f64, demands: &[Demand], latency_ns: Vec<f64>) {
        self.ran_ns += ran_ns;
        self.added_ns += added_ns;
        for ((node, &latency), demand) in self.nodes.iter_mut().zip(&latency_ns).zip(demands) {
            node.add(demand, latency);
        }
        let moved = |demand: &Demand| LINE * (demand.reads + demand.writes);
        self.series.push(Point {
            until_ns: self.ran_ns + self.added_ns,
            length_ns: ran_ns + added_ns,
            added_ns,
            bytes: demands.iter().map(moved).collect(),
            delay_ns: by_node(added_ns, demands, &latency_ns),
            latency_ns,
        });
        if self.series.len() >= 2 * POINTS {
            self.series = self.series.chunks(2).map(merge).collect();
        }
    }

    /// Modelled time over run time.
    pub fn slowdown(&self) -> f64 {
        if self.ran_ns > 0.0 {
            (self.ran_ns + self.added_ns) / self.ran_ns
        } else {
            1.0
        }
    }
}

impl NodeReport {
    fn add(&mut self, demand: &Demand, latency: f64) {
        if demand.reads > 0.0 {
            let sum = self.mean_ns * self.reads + latency * demand.reads;
            self.mean_ns = sum / (self.reads + demand.reads);
        }
        self.reads += demand.reads;
        self.writes += demand.writes;
        self.back_invalidates += demand.back_invalidates;
    }
}

/// A delay divided among nodes, local memory first: by what their reads waited longer than for local memory, or, where
/// only writes had to wait, by what was moved.
fn by_node(delay_ns: f64, demands: &[Demand], latency_ns: &[f64]) -> Vec<f64> {
    let local = latency_ns.first().copied().unwrap_or_default();
    let nodes = || demands.iter().zip(latency_ns).enumerate();
    let waited = nodes().map(|(_, (demand, latency))| demand.reads * (latency - local).max(0.0));
    let moved = nodes().map(|(node, (demand, _))| {
        if node == 0 {
            0.0
        } else {
            demand.reads + demand.writes + demand.back_invalidates
        }
    });
    let (waited, moved): (Vec<f64>, Vec<f64>) = (waited.collect(), moved.collect());
    let shares = if waited.iter().sum::<f64>() > 0.0 {
        waited
    } else {
        moved
    };
    let all = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    shares.iter().map(|share| delay_ns * share / all).collect()
}

fn merge(points: &[Point]) -> Point {
    let mut merged = Point::default();
    for point in points {
        let weight = point.length_ns;
        for (index, &bytes) in point.bytes.iter().enumerate() {
            merged.bytes.resize(merged.bytes.len().max(index + 1), 0.0);
            merged.bytes[index] += bytes;
        }
        for (index, &latency) in point.latency_ns.iter().enumerate() {
            merged
                .latency_ns
                .resize(merged.latency_ns.len().max(index + 1), 0.0);
            merged.latency_ns[index] += latency * weight;
        }
        for (index, &delay) in point.delay_ns.iter().enumerate() {
            merged
                .delay_ns
                .resize(merged.delay_ns.len().max(index + 1), 0.0);
            merged.delay_ns[index] += delay;
        }
        merged.until_ns = point.until_ns;
        merged.length_ns += weight;
        merged.added_ns += point.added_ns;
    }
    let length = if merged.length_ns > 0.0 {
        merged.length_ns
    } else {
        1.0
    };
    for latency in &mut merged.latency_ns {
        *latency /= length;
    }
    merged
}

/// A time for people.
pub fn seconds(ns: f64) -> String {
    if ns >= 1e9 {
        format!("{:.3} s", ns / 1e9)
    } else if ns >= 1e6 {
        format!("{:.3} ms", ns / 1e6)
    } else {
        format!("{:.1} µs", ns / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memsim::kernel::{HostModel, Run};

    pub fn sample(epochs: u32) -> Report {
        let topology = Topology::parse("(1,(2,3))").unwrap();
        let mut kernel = Kernel::new(&topology, HostModel::default());
        let facts = Facts {
            name: "trace",
            method: "a test".into(),
            error: "none".into(),
        };
        let mut report = Report::new(
            &topology,
            "(1,(2,3))".into(),
            "prog <x>".into(),
            facts.clone(),
            (85.0, "given"),
        );
        let mut debt = Debt::default();
        for _ in 0..epochs {
            let demand = |reads| Demand {
                reads,
                ..Demand::default()
            };
            let epoch = Epoch {
                runs: vec![Run {
                    time_ns: 1e6,
                    parallelism: 1.0,
                }],
                demands: vec![vec![demand(5.0), demand(100.0), demand(200.0), demand(0.0)]],
            };
            let penalties = kernel
                .epoch(&epoch.runs, &[&epoch.demands[0][1..]])
                .to_vec();
            debt.add(penalties[0].added_ns);
            report.add(&epoch, &penalties, &kernel);
        }
        debt.pay(debt.owed_ns());
        report.settle(&debt, 1e4, 3e6, facts);
        report
    }

    #[test]
    fn totals_add_up_over_epochs() {
        let report = sample(10);
        let host = &report.hosts[0];
        assert_eq!(host.ran_ns, 1e7);
        assert_eq!(host.nodes[2].reads, 2000.0);
        assert!(host.nodes[2].mean_ns > host.nodes[1].mean_ns);
        assert!((report.paid_ns / host.added_ns - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_run_keeps_a_bounded_series_that_loses_nothing() {
        let report = sample(5000);
        let host = &report.hosts[0];
        assert!(host.series.len() < 2 * POINTS);
        let bytes: f64 = host.series.iter().map(|point| point.bytes[1]).sum();
        assert_eq!(bytes, 5000.0 * 100.0 * 64.0);
        let delay: f64 = host.series.iter().flat_map(|point| &point.delay_ns).sum();
        assert!((delay / host.added_ns - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_delay_is_divided_among_the_nodes_that_cause_it() {
        let demand = |reads, writes| Demand {
            reads,
            writes,
            ..Demand::default()
        };
        let latencies = [100.0, 150.0, 400.0];
        let reads = [demand(9.0, 0.0), demand(60.0, 5.0), demand(10.0, 0.0)];
        assert_eq!(by_node(12.0, &reads, &latencies), [0.0, 6.0, 6.0]);
        let writes = [demand(9.0, 9.0), demand(0.0, 1.0), demand(0.0, 3.0)];
        assert_eq!(by_node(12.0, &writes, &latencies), [0.0, 3.0, 9.0]);
        assert_eq!(by_node(0.0, &[], &latencies), [0.0; 0]);
    }

    #[test]
    fn the_text_names_source_error_and_overhead() {
        let text = sample(1).text();
        for part in [
            "source    trace",
            "error     none",
            "own overhead",
            "host h0",
            "idle ns",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_report_is_valid_json() {
        let text = serde_json::to_string(&sample(3)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["hosts"][0]["nodes"][1]["name"], "1");
    }

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_quotes() {
        let topology = Topology::parse("(1,(2,3))").unwrap();
        let page = crate::html::page(&sample(40), &topology);
        assert!(page.contains("prog &lt;x&gt;"));
        assert!(!page.contains("src=") && !page.contains("href="));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert_eq!(page.matches("<polyline").count(), 3 * 4);
    }
}
