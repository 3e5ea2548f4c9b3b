//! `cargo xtask test`: format, lints, the tests of every crate, and the tests that boot guests.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use crate::guests::{GuestProgram, Own, Ready};
use crate::kernel::Track;
use crate::lab::{self, Died, Place, Session};
use crate::report::{Measurement, Report};
use crate::{clients, cmd, paths, ui};

/// The guest tests take minutes where they run in hardware, and most of an hour where they do not.
const GUESTS_TIMEOUT: Duration = Duration::from_secs(75 * 60);
/// How many emulated machines may die under the guest tests.
const DEATHS: usize = 6;
/// Memory of each: the largest guests have 2 GiB, with as much CXL memory.
const LAB_MEMORY_MIB: u64 = 6144;
/// What the names of the tests on the own kernel begin with.
const OWN_SUITE: &str = "own::";
/// What the names of the tests with CUDA programs of other people begin with.
const CLIENTS_SUITE: &str = "cuda::";
/// The package whose tests open `/dev/kvm`.
const KVM_PACKAGE: &str = "vmm";

/// What to run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write the results to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only the guest tests on a kernel with all CXL drivers, which is built if it is not there
    #[arg(long, conflicts_with = "filters")]
    own: bool,
    /// Show what the guests print, all that a test's guests do before its verdict
    #[arg(long)]
    show: bool,
    /// Run only the guest tests whose names contain one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// One line of the guest tests' stdout.
#[derive(Deserialize)]
struct Verdict {
    name: String,
    ok: bool,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    why: Option<String>,
    /// Why the attempts before the last one failed.
    #[serde(default)]
    again: Vec<String>,
    /// Why the test did not run.
    #[serde(default)]
    skipped: Option<String>,
}

/// Runs everything; returns whether all of it held.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut report = Report::default();
    if arguments.filters.is_empty() && !arguments.own {
        check(
            &mut report,
            "formatting",
            cargo(&["fmt", "--all", "--check"]),
        );
        let clippy = [
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ];
        check(&mut report, "lints", cargo(&clippy));
        crate_tests(&mut report)?;
    }
    let mut selection = arguments.filters.clone();
    if arguments.show {
        selection.push("--show".into());
    }
    if arguments.own {
        selection.push(OWN_SUITE.into());
        guest_tests(&mut report, &selection, Own::Yes)?;
    } else {
        guest_tests(&mut report, &selection, Own::IfCached)?;
    }
    report.finish(arguments.json.as_deref())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(paths::workspace());
    cargo
}

/// A check that holds when a command exits with 0.
fn check(report: &mut Report, what: &str, mut command: Command) {
    let result = ui::step(what, || cmd::run(&mut command));
    if let Err(error) = &result {
        eprintln!("{error:#}");
    }
    report.count(result.is_ok());
}

/// `cargo test` of the workspace. Tests that need `/dev/kvm` move to the lab where there is none.
fn crate_tests(report: &mut Report) -> Result<()> {
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--quiet"]);
    if !kvm {
        command.args(["--exclude", KVM_PACKAGE]);
    }
    // Whether a registry answers is not to decide on all other tests.
    match clients::tree() {
        Ok(tree) => drop(command.env(clients::VARIABLE, tree)),
        Err(error) => {
            report.skip("CUDA programs in Python", &format!("{error:#}"));
            command.env(clients::VARIABLE, "");
        }
    }
    ui::note("tests of the crates");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("the pipe is gone")?).lines() {
        let line = line?;
        println!("{line}");
        counts.take(&line);
    }
    let status = child.wait()?;
    counts.add_to(report, status.success());
    if !kvm {
        crate_tests_in_lab(report)?;
    }
    Ok(())
}

/// The tests of [`KVM_PACKAGE`] in the lab.
fn crate_tests_in_lab(report: &mut Report) -> Result<()> {
    let mut build = cargo(&[
        "test",
        "--package",
        KVM_PACKAGE,
        "--no-run",
        "--message-format=json",
    ]);
    let messages = ui::step("building the tests that need /dev/kvm", || {
        cmd::output(&mut build)
    })?;
    let programs = messages.lines().filter_map(test_program);
    let script: String = programs
        .map(|program| format!("'{program}' || status=1\n"))
        .collect();
    let command = ["sh", "-c", &format!("status=0\n{script}exit $status")].map(str::to_owned);
    let mut text = Vec::new();
    let status = ui::step("tests that need /dev/kvm, in the lab", || {
        Session::new(command.into()).run(|bytes| text.extend_from_slice(bytes))
    })?;
    let mut counts = Counts::default();
    for line in String::from_utf8_lossy(&text).lines() {
        println!("{line}");
        counts.take(line);
    }
    let total = counts.passed + counts.failed;
    report.notes.push(format!(
        "{total} tests of {KVM_PACKAGE} ran in the lab, since this machine has no usable /dev/kvm"
    ));
    counts.add_to(report, status == 0);
    Ok(())
}

/// The test program that a message of `cargo test --no-run` names.
fn test_program(message: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    (message["profile"]["test"] == true)
        .then(|| message["executable"].as_str().map(str::to_owned))?
}

/// What `cargo test` counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    /// Reads a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn take(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Adds what was counted; a run that failed without a failed test (it did not build) is a failure.
    fn add_to(&self, report: &mut Report, ok: bool) {
        report.passed += self.passed;
        report.failed += if ok { self.failed } else { self.failed.max(1) };
        for _ in 0..self.ignored {
            report.skip("a unit test", "marked as ignored");
        }
    }
}

/// The tests that boot guests: in one session where KVM runs in hardware, else in one emulated machine per CPU.
fn guest_tests(report: &mut Report, selection: &[String], own: Own) -> Result<()> {
    let program = GuestProgram {
        name: "memu-guest-tests",
        tracks: &Track::STOCK,
        own,
        needs_qemu: false,
        clients_suite: Some(CLIENTS_SUITE),
        timeout: GUESTS_TIMEOUT,
        arguments: selection.to_vec(),
    };
    let (place, mut homes): (_, Vec<_>) = match Place::here() {
        Place::Direct => ("on this machine's KVM", vec![None]),
        Place::Emulated => (
            "in the lab, since this machine has no VT-x or SVM",
            lab::homes(LAB_MEMORY_MIB).into_iter().map(Some).collect(),
        ),
    };
    ui::note(&format!("tests that boot guests, {place}"));
    let mut ready = program.ready()?;
    ensure!(
        !ready.tests.is_empty(),
        "no guest test's name contains what was asked for; cargo xtask test, without a filter, shows all names"
    );
    ready.session.memory_mib = Some(LAB_MEMORY_MIB);
    homes.truncate(ready.tests.len());
    let labs = Labs {
        claims: Labs::no_claims()?,
        ready,
        verdicts: Mutex::default(),
        deaths: AtomicUsize::new(0),
    };
    let statuses: Vec<Result<i32>> = ui::step("running guests", || {
        Ok(thread::scope(|scope| {
            let labs = &labs;
            let threads: Vec<_> = homes
                .into_iter()
                .map(|home| scope.spawn(move || labs.one_after_the_other(home)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow!("a lab's thread panicked")))
                })
                .collect()
        }))
    })?;
    for name in labs.unanswered() {
        eprintln!("guest test {name} has no verdict");
        report.count(false);
    }
    let deaths = labs.deaths.into_inner();
    let verdicts = labs
        .verdicts
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if deaths > 0 {
        report
            .notes
            .push(format!("labs that died and were replaced: {deaths}"));
    }
    let failures = verdicts
        .iter()
        .filter(|verdict| !verdict.ok && verdict.skipped.is_none())
        .count();
    report
        .notes
        .push(format!("{} tests booted guests {place}", verdicts.len()));
    let again = verdicts
        .iter()
        .filter(|verdict| !verdict.again.is_empty())
        .count();
    if again > 0 {
        report.notes.push(format!(
            "{again} of them ran more than once, as their lines say"
        ));
    }
    // Once more at the end: the end of a log is what people see of it.
    let noteworthy = verdicts
        .iter()
        .filter(|verdict| !verdict.ok || !verdict.again.is_empty());
    report.notes.extend(noteworthy.map(describe));
    for Verdict {
        name,
        ok,
        seconds,
        skipped,
        ..
    } in verdicts
    {
        match skipped {
            Some(why) => report.skip(&name, &why),
            None => report.measure(Measurement {
                name,
                value: seconds,
                unit: "s".into(),
                peer: None,
                ratio: None,
                target: None,
                ok,
            }),
        }
    }
    for status in statuses {
        match status {
            Ok(0) => {}
            Ok(_) if failures > 0 => {}
            Ok(status) => {
                eprintln!("memu-guest-tests ended with status {status}");
                report.count(false);
            }
            Err(error) => {
                eprintln!("guest tests: {error:#}");
                report.count(false);
            }
        }
    }
    Ok(())
}

/// The labs of a run, which share its tests.
struct Labs {
    ready: Ready,
    /// Where they mark the tests that they take.
    claims: PathBuf,
    verdicts: Mutex<Vec<Verdict>>,
    /// Labs that died.
    deaths: AtomicUsize,
}

impl Labs {
    /// An empty directory for claims.
    fn no_claims() -> Result<PathBuf> {
        let claims = lab::out().join("claims");
        if claims.exists() {
            fs::remove_dir_all(&claims)?;
        }
        fs::create_dir_all(&claims)?;
        // A lab has the directory at its true path.
        Ok(fs::canonicalize(claims)?)
    }

    /// Runs tests in a lab. Like a guest there, the emulated machine itself may die; then another one goes on.
    fn one_after_the_other(&self, home: Option<usize>) -> Result<i32> {
        let owner = home.map(|cpu| cpu.to_string());
        let share = owner.as_ref().map(|owner| {
            let claims = self.claims.to_string_lossy().into_owned();
            ["--claims".into(), claims, "--owner".into(), owner.clone()]
        });
        loop {
            // Labs print at the same time.
            let mut shown = Vec::new();
            let status = self
                .ready
                .run(home, share.as_ref().map_or(&[], |share| share), |line| {
                    if let Ok(verdict) = serde_json::from_str(line) {
                        let mut verdicts =
                            self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                        shown
                            .drain(..)
                            .for_each(|line: String| ui::result_line(&line));
                        show(&verdict);
                        verdicts.push(verdict);
                    } else {
                        shown.push(line.to_owned());
                    }
                });
            shown.iter().for_each(|line| ui::result_line(line));
            match status {
                Err(error)
                    if error.is::<Died>()
                        && self.deaths.fetch_add(1, Ordering::Relaxed) < DEATHS =>
                {
                    eprintln!("guest tests: {error:#}");
                }
                status => return status,
            }
            if let Some(owner) = &owner {
                self.give_back(owner)?;
            }
        }
    }

    /// Frees what a lab took and has not answered.
    fn give_back(&self, owner: &str) -> Result<()> {
        for name in self.unanswered() {
            let claim = self.claims.join(name.replace("::", "-"));
            if fs::read_link(&claim).is_ok_and(|of| of == Path::new(owner)) {
                fs::remove_file(&claim)
                    .with_context(|| format!("cannot give {name} to another lab"))?;
            }
        }
        Ok(())
    }

    /// The tests without a verdict.
    fn unanswered(&self) -> Vec<&str> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let has_none = |name: &&str| verdicts.iter().all(|verdict| verdict.name != *name);
        let names = self.ready.tests.iter().map(String::as_str);
        names.filter(has_none).collect()
    }
}

/// Shows a verdict.
fn show(verdict: &Verdict) {
    ui::result_line(&describe(verdict));
    // In full: a log is all that is left of a failure elsewhere.
    for (number, why) in verdict.again.iter().enumerate() {
        eprintln!("attempt {} of {}: {why}", number + 1, verdict.name);
    }
}

/// One line on a guest test.
fn describe(verdict: &Verdict) -> String {
    let Verdict {
        name,
        ok,
        seconds,
        why,
        again,
        skipped,
    } = verdict;
    let first = |line: &str| line.lines().next().unwrap_or("").to_owned();
    match (skipped, ok) {
        (Some(why), _) => format!("guest test {name} ... skipped: {why}"),
        (None, true) if !again.is_empty() => {
            let failures: Vec<String> = again.iter().map(|why| first(why)).collect();
            format!(
                "guest test {name} ... ok ({seconds:.0} s) at attempt {}; before: {}",
                again.len() + 1,
                failures.join("; ")
            )
        }
        (None, true) => format!("guest test {name} ... ok ({seconds:.0} s)"),
        (None, false) => format!(
            "guest test {name} ... FAILED ({seconds:.0} s): {}",
            why.as_deref().unwrap_or("")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let mut counts = Counts::default();
        counts.take("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        counts.take("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured");
        counts.take("test a ... ok");
        assert_eq!(
            counts,
            Counts {
                passed: 5,
                failed: 4,
                ignored: 1
            }
        );
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        let mut report = Report::default();
        Counts::default().add_to(&mut report, false);
        assert_eq!(report.failed, 1);
    }

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/vmm-1"}"#;
        assert_eq!(test_program(message).as_deref(), Some("/t/vmm-1"));
        assert_eq!(
            test_program(r#"{"profile":{"test":false},"executable":"/t/x"}"#),
            None
        );
        assert_eq!(test_program("not json"), None);
    }
}
