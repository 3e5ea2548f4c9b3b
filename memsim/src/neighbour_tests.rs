//! Hosts with a kernel each, that tell each other what they ask for, against one kernel that knows them all.

use super::*;
use crate::law::LINE;
use proptest::prelude::*;

const MILLISECOND: f64 = 1e6;
const EXPANDER: &str = "((m[&lat=200,s2m=20,m2s=20,cd=44])sw[&bw=64])";

fn busy(parallelism: f64) -> Run {
    Run {
        time_ns: MILLISECOND,
        parallelism,
    }
}

fn demand(reads: f64, writes: f64) -> Demand {
    Demand {
        reads,
        writes,
        ..Demand::default()
    }
}

fn kernel(text: &str) -> Kernel {
    Kernel::new(&Topology::parse(text).unwrap(), HostModel::default())
}

fn neighbour(demand: &Demand, penalty: &Penalty) -> Neighbour {
    Neighbour {
        path: 0,
        reads_per_ns: demand.reads / MILLISECOND,
        writes_per_ns: demand.writes / MILLISECOND,
        stretch: 1.0 + penalty.added_ns / MILLISECOND,
    }
}

/// What each of two hosts is told to add after so many epochs in which each heard of the other's latest.
fn apart(demands: [Demand; 2], run: Run, epochs: usize) -> [f64; 2] {
    let mut kernels = [kernel(EXPANDER), kernel(EXPANDER)];
    let mut penalties = [Penalty::default(); 2];
    for _ in 0..epochs {
        for own in 0..2 {
            let other = neighbour(&demands[1 - own], &penalties[1 - own]);
            penalties[own] = kernels[own].epoch_among(run, &demands[own..=own], &[other]);
        }
    }
    penalties.map(|penalty| penalty.added_ns)
}

#[test]
fn a_neighbour_at_another_expander_costs_nothing() {
    let mut kernel = kernel("(a,b)");
    let demands = [demand(1e5, 1e4), demand(0.0, 0.0)];
    let alone = kernel.epoch(&[busy(8.0)], &[&demands])[0];
    let other = Neighbour {
        path: 1,
        ..neighbour(&demand(1e6, 1e6), &Penalty::default())
    };
    let beside = kernel.epoch_among(busy(8.0), &demands, &[other]);
    assert!((beside.added_ns / alone.added_ns - 1.0).abs() < 1e-4);
}

#[test]
fn a_neighbour_at_the_same_expander_costs_what_its_load_makes_one_wait() {
    let mut kernel = kernel(EXPANDER);
    let demands = [demand(1e5, 0.0)];
    let alone = kernel.epoch_among(busy(32.0), &demands, &[]).added_ns;
    // Together they ask for 24.3 GB/s of 20, of which this one's part is small.
    let other = neighbour(&demand(2.8e5, 0.0), &Penalty::default());
    let beside = kernel.epoch_among(busy(32.0), &demands, &[other]).added_ns;
    assert!(beside > 1.02 * alone, "{alone} {beside}");
    let again = kernel.epoch(&[busy(32.0)], &[&demands])[0].added_ns;
    assert!((again / alone - 1.0).abs() < 1e-4, "{alone} {again}");
}

proptest! {
    #[test]
    fn hosts_that_tell_each_other_come_to_what_one_kernel_says(
        reads in [1e3..6e5f64, 1e3..6e5f64],
        writes in [0.0..3e5f64, 0.0..3e5f64],
        wide in 1.0..32.0f64,
    ) {
        let demands = [demand(reads[0], writes[0]), demand(reads[1], writes[1])];
        let run = busy(wide);
        let mut both = kernel(&format!("a={EXPANDER};b={EXPANDER}"));
        let together = both.epoch(&[run, run], &[&demands[..1], &demands[1..]]).to_vec();
        for (apart, together) in apart(demands, run, 40).into_iter().zip(together) {
            let ratio = (MILLISECOND + apart) / (MILLISECOND + together.added_ns);
            prop_assert!((ratio - 1.0).abs() < 0.02, "{apart} {together:?}");
        }
    }

    #[test]
    fn a_host_keeps_its_fair_part_whatever_its_neighbours_ask_for(
        reads in 1e3..1e6f64,
        asked in prop::collection::vec((0.0..1e6f64, 0.0..1e6f64, 1.0..1e3f64), 1..15),
    ) {
        let demands = [demand(reads, 0.0)];
        let hosts = 1.0 + asked.len() as f64;
        let others: Vec<Neighbour> = asked
            .into_iter()
            .map(|(reads_per_ns, writes_per_ns, stretch)| {
                Neighbour { path: 0, reads_per_ns, writes_per_ns, stretch }
            })
            .collect();
        let mut kernel = kernel(EXPANDER);
        let added = kernel.epoch_among(busy(32.0), &demands, &others).added_ns;
        // What it would need alone on a link that is so much narrower, and what a read takes longer there; before a full
        // server it waits for as long again at most.
        let alone = f64::max(reads * LINE / 20.0 * hosts, MILLISECOND);
        let most = 2.0 * alone + 12.0 * reads;
        prop_assert!(MILLISECOND + added <= most, "{added} {alone}");
    }
}
