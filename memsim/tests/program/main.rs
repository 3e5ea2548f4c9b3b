//! The program as a user meets it: exit codes, what it does to a target, what it leaves behind. What it counts and charges is
//! shown with live targets in [`targets`], and with traces, to the line, in [`traces`].

mod targets;
mod traces;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn memsim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memsim"));
    // A given latency spares the measurement.
    if !["calibrate", "-d"]
        .iter()
        .any(|given| arguments.contains(given))
    {
        command.args(["-d", "100"]);
    }
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    memsim(arguments).output().unwrap()
}

fn shell(options: &[&str], script: &str) -> Output {
    run(&[options, &["--", "sh", "-c", script]].concat())
}

fn standard_output(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn standard_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs with a JSON report, in the folder of the microbenchmarks; returns what was said, and the report.
fn observe(options: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut command = memsim(&[&["--json", path.to_str().unwrap()], options].concat());
    let output = command.current_dir(microbenchmarks()).output().unwrap();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let report =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", standard_error(&output)));
    (output, report)
}

fn report(options: &[&str]) -> Value {
    observe(options).1
}

/// Folder of the programs of `microbench/`.
fn microbenchmarks() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_memsim")).with_file_name("examples");
    assert!(
        folder.join("ld").exists(),
        "cargo test builds the examples too"
    );
    folder
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn the_exit_status_of_the_target_is_passed_on() {
    assert_eq!(shell(&[], "exit 7").status.code(), Some(7));
    assert_eq!(shell(&[], "kill -9 $$").status.code(), Some(128 + 9));
    assert_eq!(shell(&[], "kill -SEGV $$").status.code(), Some(128 + 11));
}

#[test]
fn a_target_that_cannot_run_is_told_from_a_bad_option() {
    let missing = run(&["--", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(standard_error(&missing).contains("cannot run /no/such/program"));
    assert_eq!(run(&["--", "/etc/passwd"]).status.code(), Some(126));
    assert_eq!(run(&["--", "/etc"]).status.code(), Some(126));
    let caret = run(&["-o", "(1,(2 3))", "--", "true"]);
    assert_eq!(caret.status.code(), Some(2));
    assert!(
        standard_error(&caret).ends_with("  (1,(2 3))\n        ^\n"),
        "{}",
        standard_error(&caret)
    );
    for (bad, why) in [
        (["-o", "(1[&bw=0])"], "bw must be above zero"),
        (["-o", "(1:-4)"], "a branch length is a latency in ns"),
        (["-o", "@/no/such"], "cannot use /no/such"),
        (["-l", "-1,2"], "every figure must be at least 0 ns"),
        (["-b", "0,1"], "every figure must be at least 0.001 GB/s"),
        (["-b", "-3,1"], "every figure must be at least 0.001 GB/s"),
        (["-w", "-1,2"], "must be zero or more, in ns"),
        (["-i", "0"], "must be from 0.1 to 10000 ms"),
        (["-q", "-1,2"], "must be zero or more, in GB"),
        (["-p", "0"], "0 is not in 1.."),
        (["--parallelism", "0"], "must be one or more"),
        (["--json", "/no/such/report"], "cannot use /no/such/report"),
        (["--trace", "/no/such"], "cannot use /no/such"),
    ] {
        let output = run(&[&bad[..], &["--", "echo", "ran"]].concat());
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(
            standard_error(&output).contains(why),
            "{bad:?}: {}",
            standard_error(&output)
        );
        assert_eq!(standard_output(&output), "", "{bad:?}");
    }
}

#[test]
fn children_and_their_output_are_followed() {
    let output = shell(
        &[],
        "for i in 1 2 3; do sh -c \"echo child $i\" & done; wait; echo end",
    );
    let mut lines: Vec<String> = standard_output(&output)
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.pop().as_deref(), Some("end"));
    lines.sort();
    assert_eq!(lines, ["child 1", "child 2", "child 3"]);
}

#[test]
fn what_outlives_the_target_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (order, answer) = (folder.path().join("order"), folder.path().join("answer"));
    let script = format!(
        "mkfifo {0}; (read word < {0}; echo $word > {1}.part; mv {1}.part {1}) >/dev/null 2>&1 & exit 4",
        order.display(),
        answer.display()
    );
    let output = shell(&["--quiet"], &script);
    assert_eq!(output.status.code(), Some(4), "{}", standard_error(&output));
    // Opened for both, so that a reader that is gone is no reason to wait.
    let mut options = std::fs::OpenOptions::new();
    let mut fifo = options.read(true).write(true).open(&order).unwrap();
    fifo.write_all(b"on\n").unwrap();
    until("an answer of what was left", || answer.exists());
    assert_eq!(std::fs::read_to_string(&answer).unwrap(), "on\n");
}

#[test]
fn a_target_computes_the_same_as_without() {
    // Much memory, many system calls on it, several processes.
    let script = "seq 1 400000 | sort -R --random-source=/bin/sh | sort -n | sha256sum";
    let alone = Command::new("sh").args(["-c", script]).output().unwrap();
    let watched = shell(&["-i", "1", "--quiet"], script);
    assert_eq!(standard_output(&watched), standard_output(&alone));
    assert_eq!(watched.status.code(), Some(0));
}

#[test]
fn a_target_that_forks_all_the_time_loses_no_child() {
    // At an epoch of 1 ms many forks are under way when the target is stopped.
    let script = "n=0; while [ $n -lt 400 ]; do (exit 3); [ $? = 3 ] || echo lost; n=$((n+1)); done; echo $n";
    let output = shell(&["-i", "1", "--quiet"], script);
    assert_eq!(standard_output(&output), "400\n");
    assert_eq!(standard_error(&output), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_target_that_gets_signals_all_the_time_goes_on() {
    let script =
        "trap ' ' USR1 USR2; (while kill -USR1 $$ && kill -USR2 $$; do :; done) 2>/dev/null &
        i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; kill $!; echo $i";
    let output = shell(&["-i", "1", "--quiet"], script);
    assert_eq!(standard_output(&output), "20000\n");
}

#[test]
fn a_target_with_a_fast_timer_goes_on() {
    // Its timer fires as often as it is stopped, and while it is; not one epoch is free of it.
    let timer = microbenchmarks().join("timer");
    let output = run(&[
        "-i",
        "1",
        "-l",
        "300,300",
        "--quiet",
        "--",
        timer.to_str().unwrap(),
        "8",
        "40",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", standard_error(&output));
    let text = standard_output(&output);
    let ticks = text.lines().find_map(|line| line.strip_suffix(" ticks"));
    assert!(ticks.unwrap().parse::<u64>().unwrap() > 0, "{text}");
}

#[test]
fn a_target_that_stops_itself_goes_on_when_it_is_continued() {
    let script = "(while kill -CONT $$; do :; done) & kill -STOP $$; echo back; kill $!";
    let output = shell(&[], script);
    assert_eq!(standard_output(&output), "back\n");
}

#[test]
fn a_signal_to_memsim_reaches_the_target() {
    let mut child = memsim(&["--quiet", "--", "sh", "-c", "echo up; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn nothing_is_left_behind_when_memsim_is_killed() {
    let script = "sleep 1000 & echo $!; echo $$; while :; do :; done";
    let mut child = memsim(&["--quiet", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let processes: Vec<String> = output.lines().take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    for process in processes {
        until("the end of the target", || {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"));
            status.map_or(true, |status| status.contains("State:\tZ"))
        });
    }
}

#[test]
fn calibrate_prints_a_profile_that_reads() {
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/data/curves/mess-cxl.csv");
    let output = run(&["calibrate", table, "--name", "mine"]);
    let profile = memsim::profile::Profile::parse("mine", &standard_output(&output)).unwrap();
    assert!((profile.link.s2m - 26.76).abs() < 0.1, "{profile:?}");
    assert!(standard_error(&output).contains("mean error"));
}

#[test]
fn the_page_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let output = run(&["--html", path.to_str().unwrap(), "--", "true"]);
    assert_eq!(output.status.code(), Some(0));
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"));
    assert!(!page.contains("http"));
}
