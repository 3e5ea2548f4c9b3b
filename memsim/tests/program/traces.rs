//! Traces, on a clock of their own: what is charged to whom, to the line.

use super::*;

/// Replays a trace; returns the report.
fn replay(options: &[&str], trace: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    std::fs::write(&path, trace).unwrap();
    let trace = ["--trace", path.to_str().unwrap(), "--parallelism", "1"];
    report(&[&trace, options].concat())
}

fn added(report: &Value, host: usize) -> f64 {
    report["hosts"][host]["added_ns"].as_f64().unwrap()
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
