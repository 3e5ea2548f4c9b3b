//! How well the law predicts what it has not seen. Run with `--nocapture` for the tables.

use super::*;
use crate::curve::{self, Curve};

fn table(text: &str) -> Vec<Curve> {
    curve::curves(&curve::parse(text).unwrap())
}

fn mess() -> Vec<Curve> {
    table(include_str!("../data/curves/mess-cxl.csv"))
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

/// What is known of how well a law predicts curves.
struct Prediction {
    read_share: f64,
    latencies: Errors,
    /// Those of points above four fifths of the peak.
    loaded: Errors,
    peak: f64,
}

/// Fits a law to all curves but those that `left_out` names, and predicts these.
fn predictions(curves: &[Curve], left_out: impl Fn(f64) -> bool) -> Vec<Prediction> {
    let (unseen, seen): (Vec<Curve>, Vec<Curve>) = curves
        .iter()
        .cloned()
        .partition(|curve| left_out(curve.read_share));
    let law = fit(&seen).unwrap().law;
    let pair = |point: &Point| {
        let predicted = law.latency(point.bandwidth, point.read_share);
        (predicted, point.latency)
    };
    unseen
        .iter()
        .map(|curve| {
            let loaded = |point: &&Point| point.bandwidth > 0.8 * curve.peak.bandwidth;
            Prediction {
                read_share: curve.read_share,
                latencies: Errors::of(curve.rising.iter().map(pair)),
                loaded: Errors::of(curve.rising.iter().filter(loaded).map(pair)),
                peak: law.peak(curve.read_share) / curve.peak.bandwidth - 1.0,
            }
        })
        .collect()
}

/// Prints a table of predictions and returns (worst mean, worst point, worst peak).
fn table_of(predictions: &[Prediction]) -> (f64, f64, f64) {
    println!("left out | points | mean error | above 80 % load | worst | peak error");
    let (mut sum, mut points) = (0.0, 0);
    let mut most = (0.0f64, 0.0f64, 0.0f64);
    for prediction in predictions {
        let Prediction {
            read_share,
            latencies,
            loaded,
            peak,
        } = prediction;
        println!(
            "{:5.0} %  | {:6} | {:8.2} % | {:13.2} % | {:4.1} % | {:+.2} %",
            percent(*read_share),
            latencies.count,
            percent(latencies.mean),
            percent(loaded.mean),
            percent(latencies.worst),
            percent(*peak)
        );
        sum += latencies.mean * latencies.count as f64;
        points += latencies.count;
        most.0 = most.0.max(latencies.mean).max(loaded.mean);
        most.1 = most.1.max(latencies.worst);
        most.2 = most.2.max(peak.abs());
    }
    println!(
        "all      | {points:6} | {:8.2} % |                 | {:4.1} % | ±{:.2} %",
        percent(sum / points as f64),
        percent(most.1),
        percent(most.2)
    );
    most
}

#[test]
fn the_law_predicts_every_read_share_that_it_was_not_fitted_to() {
    let curves = mess();
    let left_out = curves.iter().flat_map(|curve| {
        let predicted = predictions(&curves, |share| share == curve.read_share);
        predicted.into_iter()
    });
    let (mean, worst, peak) = table_of(&left_out.collect::<Vec<_>>());
    assert!(
        mean < 0.03 && worst < 0.10 && peak < 0.02,
        "{mean} {worst} {peak}"
    );
}

/// Harder: with a curve go its peak, and curves and peaks of all read shares up to ten points away.
#[test]
fn the_law_predicts_read_shares_of_whose_whole_neighbourhood_it_knows_nothing() {
    let curves = mess();
    let mut all = Vec::new();
    for cluster in [2..=16, 30..=38, 58..=60, 74..=76, 88..=90] {
        all.extend(predictions(&curves, |share| {
            cluster.contains(&(percent(share).round() as u32))
        }));
    }
    assert_eq!(all.len(), curves.len());
    let (mean, worst, peak) = table_of(&all);
    assert!(
        mean < 0.03 && worst < 0.12 && peak < 0.025,
        "{mean} {worst} {peak}"
    );
}

#[test]
fn plateaus_follow_from_outstanding_lines_and_the_posted_write_buffer() {
    let curves = mess();
    let law = fit(&curves).unwrap().law;
    for curve in &curves {
        let predicted = law.latency(1.5 * curve.peak.bandwidth, curve.read_share);
        let error = (predicted / curve.peak.latency - 1.0).abs();
        println!(
            "{:3.0} %: {:.0} ns, predicted {predicted:.0}",
            percent(curve.read_share),
            curve.peak.latency
        );
        assert!(
            error < 0.10,
            "{}: {predicted} against {}",
            curve.read_share,
            curve.peak.latency
        );
    }
}

#[test]
fn one_curve_of_a_memory_bus_is_explained_too() {
    println!("curve | points | mean error | worst");
    for (name, text, mean, worst) in [
        (
            "Graviton 3",
            include_str!("../data/curves/graviton3.csv"),
            0.03,
            0.10,
        ),
        (
            "Skylake remote",
            include_str!("../data/curves/skylake-remote.csv"),
            0.03,
            0.10,
        ),
        (
            "Sapphire Rapids",
            include_str!("../data/curves/spr-local.csv"),
            0.03,
            0.10,
        ),
        (
            "Alder Lake",
            include_str!("../data/curves/alder-lake.csv"),
            0.03,
            0.10,
        ),
    ] {
        let errors = fit(&table(text)).unwrap().latencies;
        println!(
            "{name} | {} | {:.2} % | {:.1} %",
            errors.count,
            percent(errors.mean),
            percent(errors.worst)
        );
        assert!(
            errors.mean < mean && errors.worst < worst,
            "{name}: {errors:?}"
        );
    }
}

#[test]
fn a_table_made_from_a_law_gives_the_law_back() {
    let truth = Profile::named("mess-cxl").unwrap().law();
    let mut text = String::new();
    for share in [0.0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0] {
        let peak = truth.peak(share);
        for load in [0.1, 0.4, 0.6, 0.8, 0.9, 0.95] {
            let bandwidth = load * peak;
            text += &format!(
                "{} {bandwidth} {}\n",
                share * 100.0,
                truth.latency(bandwidth, share)
            );
        }
        text += &format!(
            "{} {peak} {}\n",
            share * 100.0,
            truth.latency(2.0 * peak, share)
        );
    }
    let found = fit(&table(&text)).unwrap();
    assert!(
        (found.law.link.s2m / truth.link.s2m - 1.0).abs() < 1e-3,
        "{found:?}"
    );
    assert!(
        (found.law.link.request_share - truth.link.request_share).abs() < 1e-3,
        "{found:?}"
    );
    assert!(
        (found.law.idle_ns / truth.idle_ns - 1.0).abs() < 5e-3,
        "{found:?}"
    );
    assert!(found.latencies.worst < 0.02, "{found:?}");
}

#[test]
fn a_table_without_load_is_refused() {
    let error = fit(&table("100,10,100\n50,12,110\n"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("two different bandwidths"), "{error}");
}
