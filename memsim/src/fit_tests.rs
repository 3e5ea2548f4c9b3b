//! How well the law predicts what it has not seen. Run with `--nocapture` for the tables.

use super::*;
use crate::curve::{self, Curve};

fn table(text: &str) -> Vec<Curve> {
    curve::curves(&curve::parse(text).unwrap())
}

fn mess() -> Vec<Curve> {
    table(include_str!("../data/curves/mess-cxl.csv"))
}

fn other_peaks() -> Vec<(f64, f64)> {
    table(include_str!("../data/curves/mess-cxl-peaks.csv"))
        .iter()
        .map(|curve| (curve.read_share, curve.peak.bandwidth))
        .collect()
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

#[test]
fn the_law_predicts_a_read_share_that_it_was_not_fitted_to() {
    let curves = mess();
    let mut all = Vec::new();
    println!("left out | points | mean error | worst | peak error");
    for left_out in &curves {
        let rest: Vec<Curve> = curves
            .iter()
            .filter(|curve| *curve != left_out)
            .cloned()
            .collect();
        let law = fit(&rest, &other_peaks()).unwrap().law;
        let pairs: Vec<(f64, f64)> = left_out
            .rising
            .iter()
            .map(|point| {
                (
                    law.latency(point.bandwidth, point.read_share),
                    point.latency,
                )
            })
            .collect();
        let errors = Errors::of(pairs.iter().copied());
        let peak = law.peak(left_out.read_share) / left_out.peak.bandwidth - 1.0;
        println!(
            "{:5.0} %  | {:6} | {:8.2} % | {:4.1} % | {:+.2} %",
            percent(left_out.read_share),
            errors.count,
            percent(errors.mean),
            percent(errors.worst),
            percent(peak)
        );
        assert!(peak.abs() < 0.02);
        all.extend(pairs);
    }
    let errors = Errors::of(all);
    println!(
        "all      | {:6} | {:8.2} % | {:4.1} % |",
        errors.count,
        percent(errors.mean),
        percent(errors.worst)
    );
    assert!(errors.mean < 0.03, "mean {}", errors.mean);
    assert!(errors.worst < 0.10, "worst {}", errors.worst);
}

#[test]
fn peaks_of_read_shares_that_were_not_fitted_are_within_two_percent() {
    let law = fit(&mess(), &[]).unwrap().law;
    println!("read share | measured | predicted");
    for (share, peak) in other_peaks() {
        let predicted = law.peak(share);
        println!("{:8.0} % | {peak:8.2} | {predicted:.2}", percent(share));
        assert!(
            (predicted / peak - 1.0).abs() < 0.02,
            "{share}: {predicted} against {peak}"
        );
    }
}

#[test]
fn plateaus_follow_from_outstanding_lines_and_the_posted_write_buffer() {
    let curves = mess();
    let law = fit(&curves, &other_peaks()).unwrap().law;
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
            "Alder Lake",
            include_str!("../data/curves/alder-lake.csv"),
            0.03,
            0.10,
        ),
    ] {
        let errors = fit(&table(text), &[]).unwrap().latencies;
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
    let found = fit(&table(&text), &[]).unwrap();
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
    let error = fit(&table("100,10,100\n50,12,110\n"), &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("two different bandwidths"), "{error}");
}
