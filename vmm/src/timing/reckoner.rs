//! What an epoch of the guest would have taken on the topology, and what of that is still owed.

use memsim::kernel::{Debt, Demand, HostModel, Kernel, Neighbour, Run};
use memsim::law::LINE;
use memsim::topology::Topology;

use crate::control::{self, TimedDevice};

/// Lines that a core has under way at most: its line-fill buffers and what the prefetchers add.
const MOST_LINES: f64 = 12.0;

/// What the model is told of the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// A load from its own memory, ns.
    pub local_ns: f64,
    /// Misses of a vCPU under way at once, if the user knows.
    pub parallelism: Option<f64>,
    /// Number of vCPUs.
    pub vcpus: f64,
}

impl Host {
    /// The same as the kernel takes it.
    pub fn model(&self) -> HostModel {
        HostModel {
            local_read_ns: self.local_ns,
            local_write_ns: self.local_ns,
            outstanding_lines: MOST_LINES * self.vcpus,
            ..HostModel::default()
        }
    }
}

/// The model and the books.
#[derive(Debug)]
pub struct Reckoner {
    kernel: Kernel,
    host: Host,
    debt: Debt,
    /// Lines that each path has carried.
    lines: Vec<f64>,
    /// GB/s on each path in the latest epoch.
    bandwidth: Vec<f64>,
    /// GB/s that others moved at the end of each path.
    others: Vec<f64>,
    /// What the latest epoch takes over what it took.
    stretch: f64,
    epochs: u64,
    not_representable: u64,
    ran_ns: f64,
    overhead_ns: f64,
    /// For how much longer the guest has stood still than it owed, and has not made up for since.
    ahead_ns: f64,
    parallelism: f64,
}

impl Reckoner {
    /// Books without an entry.
    pub fn new(topology: &Topology, host: Host) -> Self {
        let paths = topology.hosts.first().map_or(0, |host| host.paths.len());
        Self {
            kernel: Kernel::new(topology, host.model()),
            host,
            debt: Debt::default(),
            lines: vec![0.0; paths],
            bandwidth: vec![0.0; paths],
            others: vec![0.0; paths],
            stretch: 1.0,
            epochs: 0,
            not_representable: 0,
            ran_ns: 0.0,
            overhead_ns: 0.0,
            ahead_ns: 0.0,
            parallelism: 1.0,
        }
    }

    /// An epoch in which the guest ran for `ran_ns`, its vCPUs together were on a CPU for `cpu_ns`, and moved
    /// `demands` on its paths, beside what `neighbours` ask of them.
    pub fn epoch(
        &mut self,
        ran_ns: f64,
        cpu_ns: f64,
        demands: &[Demand],
        neighbours: &[Neighbour],
    ) {
        let reads: f64 = demands.iter().map(|demand| demand.reads).sum();
        self.parallelism = self.misses_at_once(reads, cpu_ns);
        // A host that counts processor time in ticks may count more of it than there are vCPUs.
        let busy = (cpu_ns / ran_ns.max(1.0)).clamp(1.0, self.host.vcpus.max(1.0));
        let run = Run {
            time_ns: ran_ns,
            parallelism: self.parallelism * busy,
        };
        let penalty = self.kernel.epoch_among(run, demands, neighbours);
        self.debt.add(penalty.added_ns);
        self.ahead_ns = self.debt.pay(self.ahead_ns);
        self.not_representable += u64::from(penalty.not_representable);
        let took = ran_ns + penalty.added_ns;
        self.stretch = took / ran_ns.max(1.0);
        for (now, demand) in self.bandwidth.iter_mut().zip(demands) {
            *now = demand.reads * LINE / took.max(1.0);
        }
        self.others.fill(0.0);
        for neighbour in neighbours {
            if let Some(others) = self.others.get_mut(neighbour.path) {
                let asked = (neighbour.reads_per_ns + neighbour.writes_per_ns) * LINE;
                *others += asked / neighbour.stretch.max(1.0);
            }
        }
        for (lines, demand) in self.lines.iter_mut().zip(demands) {
            *lines += demand.reads;
        }
        self.epochs += 1;
        self.ran_ns += ran_ns;
    }

    /// The guest stood still for so much, ns. Who wakes up late has let it lose some of what it will owe next; of a delay by
    /// more than what was owed the rest is overhead.
    pub fn stood_still(&mut self, ns: f64) {
        let owed = self.owed();
        let beyond = self.debt.pay(ns);
        let ahead = beyond.min(owed);
        self.ahead_ns += ahead;
        self.overhead_ns += beyond - ahead;
    }

    /// What the latest epoch takes on the topology over what it took, at least 1.
    pub fn stretch(&self) -> f64 {
        self.stretch.max(1.0)
    }

    /// What the guest owes by now, ns.
    pub fn owed(&self) -> f64 {
        self.debt.owed_ns()
    }

    /// Little's law: as many lines as arrive while one is under way, in the host's own memory, were under way at once.
    /// One where they are few; a vCPU that computes for longer than it waits still waits for each.
    fn misses_at_once(&self, reads: f64, cpu_ns: f64) -> f64 {
        let estimated = reads * self.host.local_ns / cpu_ns.max(1.0);
        let known = self.host.parallelism;
        known
            .unwrap_or(estimated)
            .clamp(1.0, MOST_LINES.max(known.unwrap_or_default()))
    }

    /// The guest lost so much, ns. What it did not owe is overhead.
    pub fn lost(&mut self, ns: f64) {
        self.overhead_ns += self.debt.pay(ns);
    }

    /// What goes to the control socket; what is not the reckoner's to know stays empty.
    pub fn report(&self) -> control::Timing {
        let latencies = self.kernel.latencies(0);
        let moved = self
            .lines
            .iter()
            .zip(self.bandwidth.iter().zip(&self.others));
        let devices = latencies.zip(moved);
        control::Timing {
            local_latency: self.host.local_ns,
            epochs: self.epochs,
            not_representable: self.not_representable,
            ran: self.ran_ns,
            added: self.debt.added_ns(),
            paid: self.debt.paid_ns(),
            owed: self.debt.owed_ns(),
            overhead: self.overhead_ns + self.ahead_ns,
            parallelism: self.parallelism,
            devices: devices
                .map(|(latency, (&lines, (&bandwidth, &others)))| TimedDevice {
                    latency,
                    lines,
                    bandwidth,
                    others,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: f64 = 10e6;
    const HOST: Host = Host {
        local_ns: 100.0,
        parallelism: None,
        vcpus: 2.0,
    };

    fn reckoner(host: Host) -> Reckoner {
        let topology = "((a[&lat=99,bw=32]:0,b[&lat=349,bw=32]:0)[&bw=64]:51)";
        Reckoner::new(&Topology::parse(topology).unwrap(), host)
    }

    /// What the guest owes after an epoch on one vCPU.
    fn owed(host: Host, demands: &[Demand]) -> f64 {
        let mut reckoner = reckoner(host);
        reckoner.epoch(EPOCH, EPOCH, demands, &[]);
        reckoner.owed()
    }

    fn reads(a: f64, b: f64) -> [Demand; 2] {
        [a, b].map(|reads| Demand {
            reads,
            ..Demand::default()
        })
    }

    #[test]
    fn a_dependent_load_costs_what_its_path_is_longer_than_the_hosts() {
        // One load after another, all of them misses: 100 ns each.
        let loads = EPOCH / HOST.local_ns;
        for (demands, more) in [(reads(loads, 0.0), 50.0), (reads(0.0, loads), 300.0)] {
            let owed = owed(HOST, &demands);
            assert!((owed / loads / more - 1.0).abs() < 0.01, "{}", owed / loads);
        }
    }

    #[test]
    fn loads_that_overlap_wait_together() {
        let loads = 4.0 * EPOCH / HOST.local_ns;
        let mut reckoner = reckoner(HOST);
        reckoner.epoch(EPOCH, EPOCH, &reads(loads, 0.0), &[]);
        let owed = reckoner.owed();
        assert!((reckoner.report().parallelism - 4.0).abs() < 1e-9);
        assert!((owed / (loads * 50.0 / 4.0) - 1.0).abs() < 0.05, "{owed}");
    }

    #[test]
    fn the_user_may_know_how_many_overlap() {
        let host = Host {
            parallelism: Some(2.0),
            ..HOST
        };
        let demands = reads(1e4, 0.0);
        assert!((owed(HOST, &demands) / owed(host, &demands) - 2.0).abs() < 0.01);
    }

    #[test]
    fn one_vcpu_never_waits_for_two_loads_at_once_however_its_time_is_counted() {
        let host = Host {
            vcpus: 1.0,
            parallelism: Some(1.0),
            ..HOST
        };
        let owed = |cpu| {
            let mut reckoner = reckoner(host);
            reckoner.epoch(EPOCH, cpu, &reads(0.0, 1e4), &[]);
            reckoner.owed()
        };
        assert_eq!(owed(1.4 * EPOCH), owed(0.6 * EPOCH));
    }

    #[test]
    fn nothing_that_is_owed_is_lost_and_nothing_is_paid_twice() {
        let mut reckoner = reckoner(HOST);
        for i in 0..98 {
            reckoner.epoch(EPOCH, EPOCH, &reads(0.0, f64::from(i) * 1e3), &[]);
            // Now and then less than owed, now and then more.
            reckoner.lost(reckoner.owed() * f64::from(i % 4) / 2.0);
        }
        let report = reckoner.report();
        assert!((report.paid + report.owed - report.added).abs() < 1e-3);
        assert!(report.overhead > 0.0 && report.owed > 0.0);
        assert_eq!((report.epochs, report.ran), (98, 98.0 * EPOCH));
    }

    #[test]
    fn who_stood_still_for_too_long_is_ahead_by_as_much_but_not_by_more_than_it_owed() {
        let mut reckoner = reckoner(HOST);
        let epoch = |reckoner: &mut Reckoner| {
            let before = reckoner.report().added;
            reckoner.epoch(EPOCH, EPOCH, &reads(0.0, 1e4), &[]);
            reckoner.report().added - before
        };
        let first = epoch(&mut reckoner);
        reckoner.stood_still(1.25 * first);
        assert_eq!(reckoner.owed(), 0.0);
        assert!((reckoner.report().overhead / (0.25 * first) - 1.0).abs() < 1e-9);
        let second = epoch(&mut reckoner);
        assert!((reckoner.owed() / (second - 0.25 * first) - 1.0).abs() < 1e-9);
        assert_eq!(reckoner.report().overhead, 0.0);
        let owed = reckoner.owed();
        reckoner.stood_still(10.0 * owed);
        epoch(&mut reckoner);
        let report = reckoner.report();
        assert!((report.paid + report.owed - report.added).abs() < 1e-3);
        assert!(
            (report.overhead / (8.0 * owed) - 1.0).abs() < 1e-9,
            "the rest"
        );
    }

    #[test]
    fn a_path_as_fast_as_the_hosts_own_memory_costs_nothing_and_is_noted() {
        let host = Host {
            local_ns: 200.0,
            ..HOST
        };
        let mut reckoner = reckoner(host);
        reckoner.epoch(EPOCH, EPOCH, &reads(1e4, 0.0), &[]);
        assert_eq!(reckoner.owed(), 0.0);
        assert_eq!(reckoner.report().not_representable, 1);
    }

    #[test]
    fn a_guest_that_does_not_touch_its_expanders_owes_nothing() {
        assert_eq!(owed(HOST, &reads(0.0, 0.0)), 0.0);
    }
}
