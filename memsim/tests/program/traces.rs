//! Traces, on a clock of their own: what is charged to whom, to the line.

use super::*;

/// Room for two pages of 4 KiB, for one, and for all, GB.
const TWO_PAGES: &str = "0.0000083";
const ONE_PAGE: &str = "0.0000042";
const PLENTY: &str = "1";

/// Replays a trace; returns the report.
fn replay(options: &[&str], trace: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    std::fs::write(&path, trace).unwrap();
    let trace = ["--trace", path.to_str().unwrap(), "--parallelism", "1"];
    report(&[&trace, options].concat())
}

/// A line read from each of these pages of 4 KiB, in turn, by the first host.
fn pages(numbers: impl IntoIterator<Item = u64>) -> String {
    let record = |page: u64| format!("0 0 r {:x}\n", page << 12);
    numbers.into_iter().map(record).collect()
}

/// What a host did with each of its nodes, local memory first.
fn of_nodes<const N: usize>(report: &Value, host: usize, what: [&str; N]) -> Vec<[u64; N]> {
    let nodes = report["hosts"][host]["nodes"].as_array().unwrap();
    let lines = |node: &Value| what.map(|what| node[what].as_f64().unwrap() as u64);
    nodes.iter().map(lines).collect()
}

fn reads(report: &Value, host: usize) -> Vec<u64> {
    of_nodes(report, host, ["reads"])
        .into_iter()
        .flatten()
        .collect()
}

fn added(report: &Value, host: usize) -> f64 {
    report["hosts"][host]["added_ns"].as_f64().unwrap()
}

fn assert_close(value: f64, expected: f64) {
    assert!(
        (value / expected - 1.0).abs() < 0.01,
        "{value}, not {expected}"
    );
}

#[test]
fn first_touch_fills_node_after_node() {
    let capacity = [TWO_PAGES, ONE_PAGE, PLENTY].join(",");
    let report = replay(&["-o", "(1,2)", "-q", &capacity], &pages(0..6));
    assert_eq!(reads(&report, 0), [2, 1, 3]);
}

#[test]
fn pages_are_interleaved_by_weight_over_local_memory_and_expanders() {
    let placed = |policy: [&str; 2]| {
        let options = [&policy[..], &["-o", "(1,2)", "-q", PLENTY]].concat();
        reads(&replay(&options, &pages(0..6)), 0)
    };
    assert_eq!(placed(["--policy", "interleave:2,0,1"]), [4, 0, 2]);
    assert_eq!(placed(["--policy", "interleave"]), [2, 2, 2]);
    assert_eq!(placed(["-k", "interleave,none,none,none"]), [2, 2, 2]);
}

#[test]
fn what_lies_on_one_page_of_the_chosen_size_goes_to_one_node() {
    // Page numbers 0, 1, 512 and 262144 of 4 KiB; 0, 0, 1, 512 of 2 MiB; 0, 0, 0, 1 of 1 GiB.
    let trace = "0 0 r 0 1\n0 0 r 1000 2\n0 0 r 200000 4\n0 0 r 40000000 8\n";
    for (size, expected) in [
        ("4k", [1 + 4 + 8, 2]),
        ("page", [1 + 4 + 8, 2]),
        ("2m", [1 + 2 + 8, 4]),
        ("hugepage_2M", [1 + 2 + 8, 4]),
        ("1g", [1 + 2 + 4, 8]),
        ("hugepage_1G", [1 + 2 + 4, 8]),
    ] {
        let policy = ["--policy", "interleave:1,1", "-o", "(1)", "-q", "100"];
        let report = replay(&[&policy[..], &["-m", size]].concat(), trace);
        assert_eq!(reads(&report, 0), expected, "{size}");
    }
}

#[test]
fn a_page_that_is_promoted_is_charged_on_both_of_its_nodes() {
    let capacity = [TWO_PAGES, PLENTY].join(",");
    let expander = "(1[&lat=400,wlat=400])";
    // Local are page 0, which is hot, and page 1. Page 2 is seen twice on the expander and takes the place of page 1, the
    // cooler one, when it is seen for the third time.
    let trace = pages([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 1]);
    let placed = |policy: &str| {
        let options = ["--policy", policy, "-o", expander, "-q", &capacity];
        replay(&options, &trace)
    };
    let what = ["reads", "writes"];
    let first_touch = placed("first-touch");
    assert_eq!(of_nodes(&first_touch, 0, what), [[7, 0], [4, 0]]);
    assert_close(added(&first_touch, 0), 4.0 * 300.0);
    let promoted = placed("promote:3");
    assert_eq!(of_nodes(&promoted, 0, what), [[8 + 64, 64], [3 + 64, 64]]);
    // Nobody waits for one write at a time: 64 are under way at once.
    assert_close(added(&promoted, 0), 67.0 * 300.0 + 64.0 * 300.0 / 64.0);
}

#[test]
fn a_large_page_costs_all_of_its_lines_when_it_is_promoted() {
    let trace = "0 0 r 0\n0 0 r 200000\n0 0 r 3fffc0\n0 0 r 200000\n";
    // Room for one page of 2 MiB.
    let options = ["--policy", "promote:3", "-m", "2m", "-q", "0.0022,1"];
    let report = replay(&[&options[..], &["-o", "(1)"]].concat(), trace);
    let lines = 2 << 20 >> 6;
    assert_eq!(
        of_nodes(&report, 0, ["reads", "writes"]),
        [[2 + lines, lines], [2 + lines, lines]]
    );
}

#[test]
fn a_snoop_costs_a_round_trip() {
    let of = |kind: &str| replay(&["-o", "(1[&lat=400])"], &format!("0 0 {kind} 40 10\n"));
    let what = ["reads", "writes", "back_invalidates"];
    let snooped = of("s");
    assert_eq!(of_nodes(&snooped, 0, what), [[0; 3], [0, 0, 10]]);
    assert_close(added(&snooped, 0), 10.0 * 400.0);
    // Of a read, what local memory would have taken is in the run time already.
    let read = of("r");
    assert_eq!(of_nodes(&read, 0, what), [[0; 3], [10, 0, 0]]);
    assert_close(added(&read, 0), 10.0 * 300.0);
}

/// The same three pages, each read by one host and written by the other.
fn two_hosts_of_three_pages() -> String {
    let record = |page: u64| format!("0 a r {0:x}\n0 b w {0:x}\n", page << 12);
    (0..3).map(record).collect()
}

#[test]
fn each_host_has_its_own_local_memory_and_the_expanders_that_it_reaches() {
    let capacity = [ONE_PAGE, PLENTY].join(",");
    let trace = two_hosts_of_three_pages();
    let topology = ["-o", "a=(m);b=(n)", "-q"];
    let report = replay(&[&topology[..], &[&capacity]].concat(), &trace);
    assert_eq!(reads(&report, 0), [1, 2]);
    assert_eq!(of_nodes(&report, 1, ["writes"]), [[1], [2]]);
    let interleaved = ["-o", "a=(m);b=(n)", "-q", PLENTY, "--policy", "interleave"];
    let report = replay(&interleaved, &trace);
    assert_eq!(reads(&report, 0), [2, 1]);
    assert_eq!(of_nodes(&report, 1, ["writes"]), [[2], [1]]);
}

#[test]
fn hosts_that_share_an_expander_have_an_equal_part_of_it() {
    let capacity = ["0", TWO_PAGES, PLENTY].join(",");
    let topology = ["-o", "a=((m,n)sw);b=((m,n)sw)", "-q", &capacity];
    let report = replay(&topology, &two_hosts_of_three_pages());
    assert_eq!(reads(&report, 0), [0, 1, 2]);
    assert_eq!(of_nodes(&report, 1, ["writes"]), [[0], [1], [2]]);
}

#[test]
fn a_promotion_is_charged_to_the_host_whose_page_it_is() {
    let capacity = [ONE_PAGE, PLENTY].join(",");
    let trace = "0 a r 0\n0 b r 0\n0 b r 1000\n0 b r 1000\n";
    let options = ["-o", "a=(m);b=(n)", "--policy", "promote:2", "-q"];
    let report = replay(&[&options[..], &[&capacity]].concat(), trace);
    let what = ["reads", "writes"];
    assert_eq!(of_nodes(&report, 0, what), [[1, 0], [0, 0]]);
    assert_eq!(of_nodes(&report, 1, what), [[2 + 64, 64], [1 + 64, 64]]);
}

#[test]
fn the_report_has_the_time_series_of_every_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let options = ["-o", "a=(m);b=(n,o)", "--html", path.to_str().unwrap()];
    // Two epochs of 10 ms; only the second host does something in the second one.
    let report = replay(
        &options,
        "0 a r 0 1000
0 b w 0 2000
15e6 b r 0 500
",
    );
    let bytes = |host: usize| -> Vec<f64> {
        let series = report["hosts"][host]["series"].as_array().unwrap();
        let of_first_expander = |point: &Value| point["bytes"][1].as_f64().unwrap_or(0.0);
        series.iter().map(of_first_expander).collect()
    };
    assert_eq!(bytes(0), [64_000.0, 0.0]);
    assert_eq!(bytes(1), [128_000.0, 32_000.0]);
    let page = std::fs::read_to_string(&path).unwrap();
    let sections: Vec<&str> = page.split("<h2>Host ").skip(1).collect();
    assert_eq!(sections.len(), 2);
    for (section, (host, nodes)) in sections.iter().zip([("a<", 2), ("b<", 3)]) {
        assert!(section.starts_with(host), "{section}");
        let curves: Vec<&str> = section.split("<polyline").skip(1).collect();
        assert_eq!(curves.len(), 3 * nodes);
        // The first chart is of bandwidth: at its top is the expander's, not that of local memory.
        assert!(!curves[0].contains(",10.0") && curves[1].contains(",10.0"));
    }
}

/// Two hosts that would each write 9.9 GB/s for 10 ms; a cxl-a link carries 11.2.
fn two_busy_hosts() -> String {
    let mut trace = String::from("# time host kind address lines\n");
    for step in 0..1000 {
        for host in ["a", "b"] {
            trace += &format!("{} {host} w {:x} 1553\n", step * 10_000, 1 << 20);
        }
    }
    trace
}

#[test]
fn two_hosts_slow_each_other_on_a_shared_expander_only() {
    let trace = two_busy_hosts();
    let both = |topology: &str| {
        let report = replay(&["-o", topology], &trace);
        added(&report, 0) + added(&report, 1)
    };
    let shared = both("a=((m)sw[&bw=64]);b=((m)sw[&bw=64])");
    let apart = both("a=((m)sw[&bw=64]);b=((n)tw[&bw=64])");
    // 20 MB take 17.8 ms through one link, whatever else: 7.8 ms for each of the two.
    assert!(
        shared >= 0.99 * 2.0 * 7.8e6 && apart < 0.7 * shared,
        "{shared} {apart}"
    );
}

#[test]
fn a_bad_trace_is_named_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.trace");
    std::fs::write(&path, "0 h0 r 40\n5 h0 q 40\n").unwrap();
    let output = run(&["--trace", path.to_str().unwrap(), "-o", "(1)"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        standard_error(&output).contains("trace, line 2"),
        "{}",
        standard_error(&output)
    );
}
