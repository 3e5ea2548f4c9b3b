//! Sampled page faults against exact instrumentation: the same programs, the delay that each source comes to per access,
//! and what each costs beyond the delay.
//!
//! `cargo bench -p memsim --bench reference` (needs valgrind and a quiet machine; a minute or two). The instrumented runs
//! are shorter, since valgrind is a hundred times slower; delays are given per access. The figures are lines of JSON on
//! standard output, the rest is on standard error.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

/// A program to run.
struct Case {
    name: &'static str,
    program: &'static str,
    /// Arguments and number of accesses of a run that is sampled, and of one that is instrumented.
    long: (&'static [&'static str], f64),
    short: (&'static [&'static str], f64),
}

const CASES: [Case; 2] = [
    Case {
        name: "pointer chase",
        program: "ptr_chasing",
        long: (&["128", "8000000"], 8e6),
        short: (&["16", "300000"], 3e5),
    },
    Case {
        name: "stream of loads",
        program: "ld",
        long: (&["128", "64", "80"], 80.0 * 2_097_152.0),
        short: (&["16", "64", "4"], 4.0 * 262_144.0),
    },
];

/// Last-level cache of the model, MiB: small against the buffers of the programs, so that short runs
/// are about memory.
const CACHE: &str = "2";
/// Runs of each kind, of which the middle one counts. A sampled run is held against the native one just before it: others on
/// the machine, and on what it may itself be a guest of, slow down both, by a quarter from one minute to the next.
const ROUNDS: usize = 5;
/// How far a delay may be off, and what a run may take beyond it, as a multiple of the native run.
const TOLERANCE: f64 = 0.15;
const OVERHEAD: f64 = 1.3;

fn main() {
    let programs = programs();
    for case in &CASES {
        let path = programs.join(case.program);
        let (arguments, accesses) = case.long;
        let (mut delays, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let native = native(&path, arguments);
            let sampled = memsim("faults", &path, arguments);
            delays.push(sampled.added_ns / accesses);
            costs.push((sampled.wall_ns - sampled.added_ns) / native);
            eprintln!(
                "{}: native {:.2} s, sampled {:.2} s, of which delay {:.2} s",
                case.name,
                native / 1e9,
                sampled.wall_ns / 1e9,
                sampled.added_ns / 1e9
            );
        }
        let (arguments, accesses) = case.short;
        let empty = memsim("valgrind", &path, &["16", "0", "0"]);
        let exact = memsim("valgrind", &path, arguments);
        let reference = (exact.added_ns - empty.added_ns) / accesses;
        let instrumented = exact.wall_ns / native(&path, arguments);

        let (delay, cost) = (middle(delays), middle(costs));
        let off = delay / reference - 1.0;
        print(json!({
            "name": format!("{}, 400 ns: sampled delay / exact delay", case.name),
            "value": delay / reference,
            "unit": "x",
            "peer": format!("{delay:.1} ns against {reference:.1} ns an access"),
            "target": format!("within {:.0} %", 100.0 * TOLERANCE),
            "ok": off.abs() <= TOLERANCE,
        }));
        print(json!({
            "name": format!("{}: run time beyond the delay / native run", case.name),
            "value": cost,
            "unit": "x",
            "peer": format!("exact instrumentation by valgrind: {instrumented:.0} x"),
            "ratio": cost / instrumented,
            "target": format!("at most {OVERHEAD} x"),
            "ok": cost <= OVERHEAD,
        }));
    }
}

fn print(figure: Value) {
    println!("{figure}");
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Time of a run without memsim, ns.
fn native(program: &Path, arguments: &[&str]) -> f64 {
    let start = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the microbenchmark runs");
    assert!(output.status.success(), "{}", program.display());
    start.elapsed().as_nanos() as f64
}

struct Outcome {
    added_ns: f64,
    wall_ns: f64,
}

fn memsim(source: &str, program: &Path, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder for the report");
    let json = folder.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_memsim"))
        .args([
            "--quiet",
            "-d",
            "120",
            "-o",
            "(1[&lat=400])",
            "--llc",
            CACHE,
            "--source",
            source,
            "--json",
        ])
        .arg(&json)
        .arg("--")
        .arg(program)
        .args(arguments)
        .output()
        .expect("memsim runs");
    assert!(
        output.status.success(),
        "{source}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&json).expect("the report is there");
    let report: Value = serde_json::from_str(&text).expect("the report is JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    Outcome {
        added_ns: number(&report["hosts"][0]["added_ns"]),
        wall_ns: number(&report["wall_ns"]),
    }
}

/// Builds the microbenchmarks; returns their folder.
fn programs() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "memsim",
            "--examples",
        ])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the microbenchmarks build");
    let program = Path::new(env!("CARGO_BIN_EXE_memsim"));
    program
        .parent()
        .expect("a program is in a folder")
        .join("examples")
}
