//! The shipped profiles against what others measured on hardware. Run with `--nocapture` for the table.

use super::*;
use crate::topology::Topology;

/// A line of `data/silicon.csv`.
#[derive(Debug)]
struct Measured {
    class: String,
    profile: String,
    idle_ns: Option<f64>,
    read_share: Option<f64>,
    gbs: Option<f64>,
    system: String,
    source: String,
}

/// Fields of a line; quotes hold commas together.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.iter_mut().last().unwrap().push(c),
        }
    }
    fields
}

fn table() -> Vec<Measured> {
    let text = include_str!("../data/silicon.csv");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(
        lines.next(),
        Some("class,profile,idle_ns,read_share,gbs,system,source")
    );
    lines
        .map(|line| {
            let fields: [String; 7] = fields(line).try_into().unwrap();
            let [class, profile, idle, share, gbs, system, source] = fields;
            let number = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
            Measured {
                idle_ns: number(&idle),
                read_share: number(&share),
                gbs: number(&gbs),
                class,
                profile,
                system,
                source,
            }
        })
        .collect()
}

/// The x16 log is not monotone (3:1 above 2:1), and all profiles of several mixes have two constants for four figures.
fn tolerance(profile: &str) -> f64 {
    match profile {
        "x16-expander" => 0.04,
        "e3s-x8" => 0.025,
        _ => 0.02,
    }
}

#[test]
fn every_profile_is_as_fast_idle_and_as_wide_as_its_system_was_measured() {
    println!("system | idle: measured, modelled | reads | GB/s: measured, modelled");
    for measured in table().iter().filter(|row| !row.profile.is_empty()) {
        let law = Profile::named(&measured.profile).unwrap().law();
        let idle = law.latency(0.0, 1.0);
        let (share, gbs) = (measured.read_share.unwrap(), measured.gbs.unwrap());
        let peak = law.peak(share);
        println!(
            "{:40} | {:5.1} {idle:5.1} | {:3.0} % | {gbs:5.1} {peak:5.1} ({:+.1} %)",
            measured.system,
            measured.idle_ns.unwrap_or(f64::NAN),
            100.0 * share,
            100.0 * (peak / gbs - 1.0)
        );
        if let Some(measured_idle) = measured.idle_ns {
            assert!((idle / measured_idle - 1.0).abs() < 0.015, "{measured:?}");
        }
        let off = (peak / gbs - 1.0).abs();
        assert!(off <= tolerance(&measured.profile), "{measured:?}: {peak}");
    }
}

/// The two capacities from the outer mixes alone; the others are predicted. Header shares are those of another device.
#[test]
fn two_mixes_of_an_expander_predict_its_others() {
    let rows = table();
    for (profile, worst) in [("e3s-x8", 0.03), ("x16-expander", 0.08)] {
        let mixes: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.profile == profile)
            .map(|row| (row.read_share.unwrap(), row.gbs.unwrap()))
            .collect();
        let mut link = Profile::named(profile).unwrap().law().link;
        let (reads, most_mixed) = (mixes[0].1, mixes[3].1);
        link.s2m = reads;
        link.m2s = most_mixed * (0.5 + 0.5 * link.request_share);
        for (share, gbs) in &mixes[1..3] {
            let predicted = link.peak(*share);
            println!("{profile}: {share:.2} reads: {gbs} GB/s, {predicted:.1} predicted");
            assert!(
                (predicted / gbs - 1.0).abs() < worst,
                "{profile}: {share}: {predicted}"
            );
        }
    }
}

#[test]
fn a_default_of_each_class_lies_among_what_was_measured_in_it() {
    let rows = table();
    let through_a_switch = Topology::parse("((1))").unwrap();
    let switch = through_a_switch.idle_read_ns(&through_a_switch.hosts[0].paths[0]);
    let idle = |name| Profile::named(name).unwrap().latency.read;
    for (class, default) in [
        ("local", idle("local-ddr5")),
        ("remote", idle("numa")),
        ("cxl", idle("cxl-a")),
        ("switch", switch),
    ] {
        let measured = rows
            .iter()
            .filter(|row| row.class == class)
            .filter_map(|row| row.idle_ns);
        let (least, most) = measured.fold((f64::INFINITY, 0.0), |(least, most), ns| {
            (f64::min(least, ns), f64::max(most, ns))
        });
        assert!((least..=most).contains(&default), "{class}: {default} ns");
    }
}

#[test]
fn every_figure_names_its_source() {
    for row in table() {
        assert!(!row.source.is_empty() && !row.system.is_empty(), "{row:?}");
        assert!(row.idle_ns.is_some() || row.gbs.is_some(), "{row:?}");
        assert_eq!(row.gbs.is_some(), row.read_share.is_some(), "{row:?}");
    }
}
