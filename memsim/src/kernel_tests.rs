//! Laws that every penalty obeys.

use super::*;
use proptest::prelude::*;

const MILLISECOND: f64 = 1e6;

fn run(time_ns: f64) -> Run {
    Run {
        time_ns,
        parallelism: 1.0,
    }
}

fn reads(lines: f64) -> Demand {
    Demand {
        reads: lines,
        ..Demand::default()
    }
}

fn kernel(text: &str) -> Kernel {
    Kernel::new(&Topology::parse(text).unwrap(), HostModel::default())
}

fn added(kernel: &mut Kernel, time_ns: f64, demands: &[Demand]) -> f64 {
    kernel.epoch(&[run(time_ns)], &[demands])[0].added_ns
}

#[test]
fn a_topology_with_local_memory_only_costs_nothing() {
    assert_eq!(added(&mut kernel("()"), MILLISECOND, &[]), 0.0);
}

#[test]
fn an_epoch_without_accesses_costs_nothing() {
    assert_eq!(
        added(
            &mut kernel("(1,(2,3))"),
            MILLISECOND,
            &[Demand::default(); 3]
        ),
        0.0
    );
}

#[test]
fn a_few_dependent_reads_cost_what_their_path_is_slower_than_local_memory() {
    let mut kernel = kernel("(1[&lat=385])");
    let cost = added(&mut kernel, MILLISECOND, &[reads(10.0)]);
    assert!((cost - 10.0 * 300.0).abs() < 1.0, "{cost}");
}

#[test]
fn reads_that_overlap_share_their_wait() {
    let mut kernel = kernel("(1[&lat=385])");
    let overlapped = Run {
        time_ns: MILLISECOND,
        parallelism: 4.0,
    };
    let cost = kernel.epoch(&[overlapped], &[&[reads(100.0)]])[0].added_ns;
    assert!((cost - 100.0 * 300.0 / 4.0).abs() < 25.0, "{cost}");
}

#[test]
fn writes_beyond_the_link_take_the_time_that_the_link_needs() {
    let mut kernel = kernel("(1[&s2m=20,m2s=10,g=0,cd=100])");
    // 100 MB over 10 GB/s takes 10 ms, one of which has passed.
    let demand = Demand {
        writes: 1e8 / 64.0,
        ..Demand::default()
    };
    let penalty = kernel.epoch(&[run(MILLISECOND)], &[&[demand]])[0];
    assert_eq!(penalty.bandwidth_ns, 9.0 * MILLISECOND);
    assert!(penalty.added_ns >= penalty.bandwidth_ns);
}

#[test]
fn a_switch_with_a_narrow_uplink_is_shared_by_what_is_below_it() {
    let mut kernel = kernel("((1,2)sw[&bw=10])");
    let lines = 1e7 / 64.0;
    let one = kernel.epoch(
        &[Run {
            time_ns: 1e6,
            parallelism: 32.0,
        }],
        &[&[reads(lines)]],
    )[0];
    let demands = [reads(lines), reads(lines)];
    let both = kernel.epoch(
        &[Run {
            time_ns: 1e6,
            parallelism: 32.0,
        }],
        &[&demands],
    )[0];
    assert_eq!(one.bandwidth_ns, 0.0);
    assert!((both.bandwidth_ns - MILLISECOND).abs() < 1.0, "{both:?}");
}

#[test]
fn a_path_faster_than_local_memory_is_marked_and_costs_nothing() {
    let mut kernel = kernel("(1[&lat=50])");
    let penalty = kernel.epoch(&[run(MILLISECOND)], &[&[reads(10.0)]])[0];
    assert!(penalty.not_representable);
    assert_eq!(penalty.added_ns, 0.0);
}

#[test]
fn back_invalidates_cost_a_round_trip_each() {
    let mut kernel = kernel("(1[&lat=300])");
    let demand = Demand {
        back_invalidates: 10.0,
        ..Demand::default()
    };
    let cost = added(&mut kernel, MILLISECOND, &[demand]);
    assert!((cost - 3000.0).abs() < 5.0, "{cost}");
}

/// Each of two hosts asks for a good half of what a shared expander can give.
fn two_hosts(text: &str) -> (f64, f64) {
    let model = HostModel {
        outstanding_lines: 512.0,
        ..HostModel::default()
    };
    let mut kernel = Kernel::new(&Topology::parse(text).unwrap(), model);
    let demand = [reads(0.6 * 16.57e6 / 64.0)];
    let busy = Run {
        time_ns: MILLISECOND,
        parallelism: 512.0,
    };
    let idle = kernel.epoch(&[busy, run(MILLISECOND)], &[&demand, &[]])[0].added_ns;
    let pair = kernel.epoch(&[busy, busy], &[&demand, &demand]);
    assert!(
        (pair[0].added_ns / pair[1].added_ns - 1.0).abs() < 0.01,
        "{pair:?}"
    );
    (idle, pair[0].added_ns)
}

#[test]
fn two_hosts_on_one_expander_slow_each_other() {
    let (alone, together) = two_hosts("((m)sw[&bw=64]);((m)sw[&bw=64])");
    // Together they ask for 1.2 times what the link carries.
    assert!(alone < 0.1 * MILLISECOND, "{alone}");
    assert!(together >= 0.2 * MILLISECOND * 0.999, "{together}");
}

#[test]
fn two_hosts_on_separate_expanders_do_not_slow_each_other() {
    let (alone, together) = two_hosts("((a)s[&bw=64]);((b)t[&bw=64])");
    assert!(
        (alone - together).abs() <= 1e-6 * alone,
        "{alone} {together}"
    );
}

#[test]
fn sharing_never_makes_a_host_faster() {
    let model = HostModel {
        outstanding_lines: 24.0,
        ..HostModel::default()
    };
    let kernel = |text: &str| Kernel::new(&Topology::parse(text).unwrap(), model);
    let demand = [reads(1.5e6)];
    let busy = Run {
        time_ns: 1e7,
        parallelism: 1000.0,
    };
    let alone = kernel("((m)sw[&bw=64])").epoch(&[busy], &[&demand])[0].added_ns;
    let shared = kernel("((m)sw[&bw=64]);((m)sw[&bw=64])")
        .epoch(&[busy, busy], &[&demand, &demand])[0]
        .added_ns;
    assert!(shared > alone, "{shared} {alone}");
}

#[test]
fn a_light_host_is_not_throttled_to_the_pace_of_a_heavy_one() {
    let mut kernel = kernel("((m)sw);((m)sw)");
    let (light, heavy) = ([reads(1000.0)], [reads(1e6)]);
    let busy = Run {
        time_ns: MILLISECOND,
        parallelism: 32.0,
    };
    let penalties = kernel.epoch(&[busy, busy], &[&light, &heavy]);
    assert!(
        penalties[0].added_ns < 0.1 * penalties[1].added_ns,
        "{penalties:?}"
    );
}

#[test]
fn latency_at_a_full_link_is_bounded_by_the_lines_under_way() {
    let mut kernel = kernel("(1[&bw=10,lat=200])");
    let run = Run {
        time_ns: MILLISECOND,
        parallelism: 32.0,
    };
    // 20 MB in a millisecond: twice what the link carries, with nobody waiting for the writes.
    let demand = Demand {
        reads: 1e3,
        writes: 2e7 / 64.0,
        back_invalidates: 0.0,
    };
    kernel.epoch(&[run], &[&[demand]]);
    let latency = kernel.latencies(0).next().unwrap();
    assert!(
        latency > 200.0 && 1e3 * latency <= 32.0 * 2.01 * MILLISECOND,
        "{latency}"
    );
}

proptest! {
    #[test]
    fn more_reads_never_cost_less(lines in 0.0..2e6f64, more in 0.0..1e6f64, wide in 1.0..32.0f64) {
        let mut kernel = kernel("(1,(2,3))");
        let cost = |kernel: &mut Kernel, lines: f64| {
            let run = Run { time_ns: MILLISECOND, parallelism: wide };
            kernel.epoch(&[run], &[&[reads(1e3), reads(lines)]])[0].added_ns
        };
        let (low, high) = (cost(&mut kernel, lines), cost(&mut kernel, lines + more));
        prop_assert!(high >= low * (1.0 - 1e-5), "{low} {high}");
    }

    #[test]
    fn more_writes_never_cost_less(lines in 0.0..2e6f64, more in 0.0..1e6f64) {
        let mut kernel = kernel("(1,(2,3))");
        let cost = |kernel: &mut Kernel, lines: f64| {
            let demand = Demand { reads: 5e3, writes: lines, back_invalidates: 0.0 };
            added(kernel, MILLISECOND, &[demand])
        };
        let (low, high) = (cost(&mut kernel, lines), cost(&mut kernel, lines + more));
        prop_assert!(high >= low * (1.0 - 1e-5), "{low} {high}");
    }

    #[test]
    fn hosts_that_share_nothing_cost_what_each_costs_alone(a in 0.0..1e6f64, b in 0.0..1e6f64) {
        let mut both = kernel("(a);((b)s)");
        let (a, b) = ([reads(a)], [reads(b)]);
        let pair = both.epoch(&[run(MILLISECOND), run(MILLISECOND)], &[&a, &b]).to_vec();
        let first = added(&mut kernel("(a)"), MILLISECOND, &a);
        let second = added(&mut kernel("((b)s)"), MILLISECOND, &b);
        prop_assert!((pair[0].added_ns - first).abs() <= 1e-5 * first + 1e-6);
        prop_assert!((pair[1].added_ns - second).abs() <= 1e-5 * second + 1e-6);
    }

    #[test]
    fn the_solution_is_one(reads in 1.0..1e6f64, writes in 0.0..1e6f64, wide in 1.0..12.0f64) {
        let mut kernel = kernel("((1)s)");
        let run = Run { time_ns: MILLISECOND, parallelism: wide };
        let demand = Demand { reads, writes, back_invalidates: 0.0 };
        let penalty = kernel.epoch(&[run], &[&[demand]])[0];
        prop_assert!(penalty.added_ns >= penalty.bandwidth_ns * (1.0 - 1e-9));
        let latency = kernel.latencies(0).next().unwrap();
        let model = HostModel::default();
        let asked = reads * (latency - model.local_read_ns) / wide
            + writes * (latency - model.local_write_ns) / model.write_parallelism;
        prop_assert!(
            (asked / penalty.added_ns - 1.0).abs() < 1e-2
                || penalty.added_ns < penalty.bandwidth_ns * (1.0 + 1e-6),
            "{asked} {penalty:?}"
        );
    }

    #[test]
    fn no_delay_is_lost(steps in prop::collection::vec((0.0..1e7f64, 0.0..1e7f64), 1..100)) {
        let mut debt = Debt::default();
        let (mut added, mut stood, mut beyond) = (0.0, 0.0, 0.0);
        for (penalty, pause) in steps {
            debt.add(penalty);
            added += penalty;
            beyond += debt.pay(pause);
            stood += pause;
            prop_assert!(debt.owed_ns() >= 0.0);
        }
        prop_assert!((debt.paid_ns() + debt.owed_ns() - added).abs() < 1e-3);
        prop_assert!((debt.paid_ns() + beyond - stood).abs() < 1e-3);
    }
}
