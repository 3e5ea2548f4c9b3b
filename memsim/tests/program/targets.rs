//! Live targets: whose accesses are counted, and who is held for them.

use super::*;

/// Pages sampled, behind a cache that the microbenchmarks' buffers do not fit into.
const SAMPLED: [&str; 6] = ["--source", "faults", "--llc", "1", "-i", "5"];
/// A pointer chase over 16 MiB, each of whose steps reads a line.
const CHASE: &str = "./ptr_chasing 16";
const STEPS: usize = 500_000;
/// Counts are estimates, and early in a run rough ones: a part of what there was that nothing but chance could reach
/// without the accesses that a test is about.
const ROUGHLY: f64 = 0.2;
/// Where others have the machine, memsim hardly gets to stop a target and counts next to nothing: then the target goes on for
/// longer, up to so many times.
const LONGEST: usize = 16;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn nodes(report: &Value) -> &Vec<Value> {
    report["hosts"][0]["nodes"].as_array().unwrap()
}

fn sum(report: &Value, key: &str) -> f64 {
    nodes(report).iter().map(|node| number(&node[key])).sum()
}

/// A shell under memsim, in the folder of the microbenchmarks, on an expander so many ns away; its reads come one by one.
fn watched(ns: u32, script: &str) -> (Output, Value) {
    let topology = format!("(1[&lat={ns}])");
    let options = ["-o", &topology, "--parallelism", "1", "--quiet"];
    observe(&[&SAMPLED[..], &options, &["--", "sh", "-c", script]].concat())
}

/// A target between two looks at the clock.
fn clocked(target: &str) -> String {
    format!("date +%s%N; {target}; code=$?; date +%s%N; exit $code")
}

/// The target lost the delay, by its own clock, but for some that it still owed at its end. Its memory is so far away that
/// it does not take half of that time when nobody holds it.
fn assert_felt(output: &Output, report: &Value) {
    let text = standard_output(output);
    let times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let felt = times.last().unwrap() - times[0];
    let paid = number(&report["paid_ns"]);
    assert!(paid > 0.0 && felt >= 0.5 * paid, "{felt} {paid}");
}

/// Lets a target run, so many times as long, until roughly what it reads was counted: `lines`, so many times as many.
fn counted(lines: f64, run: impl Fn(usize) -> (Output, Value)) -> (Output, Value) {
    let mut times = 1;
    loop {
        let (output, report) = run(times);
        let (reads, least) = (sum(&report, "reads"), ROUGHLY * lines * times as f64);
        if reads >= least {
            return (output, report);
        }
        assert!(
            times < LONGEST,
            "{reads} of {least}: {} {}",
            report["source"],
            standard_error(&output)
        );
        times *= 2;
    }
}

/// How many accesses a microbenchmark says that it has made.
fn accesses(line: &str) -> usize {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let place = words.iter().position(|word| *word == "accesses").unwrap();
    words[place - 1].parse().unwrap()
}

#[test]
fn the_example_line_of_the_original_runs_with_every_microbenchmark() {
    // Accesses, as the program counts its own: nothing is cut short.
    for (target, made) in [
        ("./ld 16 64 100", vec![100 * 262_144]),
        ("./st 16 64 100", vec![100 * 262_144]),
        ("./ptr_chasing 16 500000", vec![500_000]),
        ("./ptr_chasing 16 500000 1", vec![500_000]),
        ("./non_temporal 16 40", vec![40 << 21, 40 << 20]),
        ("./malloc 2000 10", vec![3_721_582]),
        ("./mmap 32 20", vec![20 << 13]),
        ("./mmap 32 20 0", vec![20 << 13]),
        ("./thread 16 3 100", vec![100 << 21]),
    ] {
        let example = [
            "-t",
            target,
            "-i",
            "5",
            "-c",
            "0,2",
            "-d",
            "85",
            "-c",
            "100,100",
            "-w",
            "85.5,86.5,87.5,85.5,86.5,87.5,88.",
            "-o",
            "(1,(2,3))",
        ];
        let (output, report) =
            observe(&[&["--source", "faults", "--llc", "1"], &example[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
        assert!(standard_error(&output).contains("topology  (1,(2,3))"));
        let own: Vec<usize> = standard_output(&output).lines().map(accesses).collect();
        assert_eq!(own, made, "{target}");
        // The first hundred GB are local memory, for which nothing is added.
        assert_eq!(report["local_ns"], 85.0);
        let local = &nodes(&report)[0];
        let lines = number(&local["reads"]) + number(&local["writes"]);
        assert!(lines > 0.0, "{target}: {}", report["source"]);
        assert_eq!(lines, sum(&report, "reads") + sum(&report, "writes"));
        assert_eq!(report["hosts"][0]["added_ns"], 0.0, "{target}");
    }
}

#[test]
fn accesses_of_a_child_of_a_child_are_counted_and_delay_it_whatever_signals_it_ignores() {
    // What a shell ignores its children ignore too.
    let ignoring = "trap '' HUP INT QUIT TERM TSTP TTIN TTOU USR1 USR2";
    let (output, report) = counted(STEPS as f64, |times| {
        let chase = format!("{CHASE} {}", times * STEPS);
        let child = clocked(&format!("sh -c '{chase} & wait; exit 3'"));
        watched(5000, &format!("{ignoring}; {child}"))
    });
    assert_eq!(output.status.code(), Some(3), "{}", standard_error(&output));
    assert_felt(&output, &report);
    let added = number(&report["hosts"][0]["added_ns"]);
    let settled = number(&report["paid_ns"]) + number(&report["owed_ns"]);
    let difference = (settled - added).abs();
    assert!(difference <= 1e-6 * added + 1.0, "{settled} {added}");
    assert_eq!(report["source"]["name"], "faults");
}

#[test]
fn accesses_of_threads_are_counted_and_delay_them() {
    // The first thread touches each page and then only waits for the others. That these read more than all lines twice is
    // asked for; they do so three hundred times, but soon.
    let lines = f64::from(16 << 20) / 64.0;
    let (output, report) = counted(2.0 * lines / ROUGHLY, |times| {
        watched(600, &clocked(&format!("./thread 16 3 {}", times * 300)))
    });
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    assert_felt(&output, &report);
}

#[test]
fn a_sampled_target_that_becomes_another_program_is_followed_into_it() {
    // By its only thread, and by another one; pages of the old program are closed at that moment.
    // Each goes twice as far as the one before, so that roughly what all read is more than what the first one did.
    let (output, report) = counted(1.5 * STEPS as f64, |times| {
        watched(1000, &format!("exec ./exec 16 {} 3", times * STEPS / 10))
    });
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    let text = standard_output(&output);
    let steps: Vec<usize> = text.lines().map(accesses).collect();
    assert_eq!(steps, [1, 2, 4, 8].map(|times| times * steps[0]));
    assert!(number(&report["paid_ns"]) > 0.0);
}

#[test]
fn valgrind_counts_every_miss_of_a_stream() {
    let version = Command::new("valgrind").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: valgrind is not installed here");
        return;
    }
    let stream = |passes: &str| {
        let options = ["--source", "valgrind", "--llc", "1", "-o", "(1[&lat=400])"];
        let target = ["--quiet", "--", "./ld", "8", "64", passes];
        let one_by_one = ["--parallelism", "1"];
        let (output, report) = observe(&[&options[..], &one_by_one, &target].concat());
        assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
        assert_eq!(report["source"]["name"], "valgrind");
        let added = number(&report["hosts"][0]["added_ns"]);
        (sum(&report, "reads"), added)
    };
    let (once, twice) = (stream("1"), stream("2"));
    let (reads, added) = (twice.0 - once.0, twice.1 - once.1);
    // Whatever a cache of 1 MiB has kept of a pass over 8 MiB, the next one puts out before it comes there.
    let lines = f64::from(8 << 20) / 64.0;
    assert!((reads / lines - 1.0).abs() < 0.01, "{reads}");
    assert!(
        (added / (300.0 * reads) - 1.0).abs() < 0.01,
        "{added} {reads}"
    );
}

#[test]
fn local_memory_alone_costs_nothing() {
    let (_, report) = counted(STEPS as f64, |times| {
        let chase = format!("{CHASE} {}", times * STEPS);
        observe(&[&SAMPLED[..], &["-o", "()", "-t", &chase]].concat())
    });
    assert_eq!(report["hosts"][0]["added_ns"], 0.0);
    assert_eq!(report["paid_ns"], 0.0);
}
