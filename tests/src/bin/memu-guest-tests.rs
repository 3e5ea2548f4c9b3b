//! Runs the guest tests, one line of JSON per test on standard output.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tests::alive;
use tests::guest::Lab;
use tests::options::{Options, Share};
use tests::suite;

#[derive(Serialize)]
struct Verdict {
    name: &'static str,
    ok: bool,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Why the attempts before the last one failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    again: Vec<String>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'static str>,
}

/// Tests that run side by side where KVM runs in hardware: most of a boot is one processor's work.
const WORKERS: usize = 2;

/// How often a test may run where guests may die for no reason of their own.
const ATTEMPTS: usize = 4;
/// No other attempt begins after so long: a test that fails for a reason of its own is not to use up everybody's time.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A lab with several CPUs loses guests to an error of QEMU's (`xtask/src/lab/emulated.rs` tells which). With one CPU none was
/// lost that we know of; should it happen, then there, and nowhere else, a test that failed runs again, and its verdict says so.
/// Tests run there one after the other.
fn emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpuinfo| cpuinfo.contains("TCG"))
}

fn attempt(test: &suite::Test, lab: &Lab, work: &Path) -> Result<()> {
    alive::task();
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    fs::create_dir_all(work)?;
    (test.run)(&Lab {
        work: work.to_path_buf(),
        ..lab.clone()
    })
}

/// Where a test's files go. Sockets lie in there, and a Unix socket's path may have 107 bytes: a sentence is cut.
fn directory(work: &Path, name: &str) -> PathBuf {
    const LONGEST: usize = 40;
    work.join(name.replace("::", "-").get(..LONGEST).unwrap_or(name))
}

/// Takes a test for this program, unless another one that shares the tests has taken it. A symbolic link is made once, and
/// says from the beginning whose the test is: whoever started the programs gives it to another one when this one's machine
/// dies.
fn claim(share: Option<&Share>, name: &str) -> Result<bool> {
    let Some(Share { claims, owner }) = share else {
        return Ok(true);
    };
    match symlink(owner, claims.join(name.replace("::", "-"))) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot mark {name} as taken")),
    }
}

/// Runs a test, and again where that is worth a try.
fn verdict(test: &suite::Test, lab: &Lab) -> Result<Verdict> {
    if let Some(why) = test.lacks(lab) {
        return Ok(Verdict {
            name: test.name,
            ok: true,
            seconds: 0.0,
            why: None,
            again: Vec::new(),
            skipped: Some(why),
        });
    }
    let work = directory(&lab.work, test.name);
    let start = Instant::now();
    let attempts = if emulated() { ATTEMPTS } else { 1 };
    let mut result = attempt(test, lab, &work);
    let mut again = Vec::new();
    while let Err(error) = &result
        && again.len() + 1 < attempts
        && start.elapsed() < PATIENCE
    {
        again.push(format!("{error:#}"));
        result = attempt(test, lab, &work);
    }
    if result.is_ok() {
        // What a failed test leaves is for whoever looks into it.
        fs::remove_dir_all(&work)?;
    }
    Ok(Verdict {
        name: test.name,
        ok: result.is_ok(),
        seconds: start.elapsed().as_secs_f64(),
        why: result.err().map(|error| format!("{error:#}")),
        again,
        skipped: None,
    })
}

fn main() -> Result<ExitCode> {
    let Options {
        lab,
        list,
        share,
        filters,
    } = Options::from_arguments()?;
    let chosen = suite::all().into_iter().filter(|test| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| test.name.contains(filter.as_str()))
    });
    if list {
        chosen.for_each(|test| println!("{}", test.name));
        return Ok(ExitCode::SUCCESS);
    }
    alive::begin();
    let queue = Mutex::new(chosen);
    let next = || -> Result<Option<suite::Test>> {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        for test in queue.by_ref() {
            if claim(share.as_ref(), test.name)? {
                return Ok(Some(test));
            }
        }
        Ok(None)
    };
    let work = || -> Result<bool> {
        let mut held = true;
        while let Some(test) = next()? {
            let verdict = verdict(&test, &lab)?;
            held &= verdict.ok;
            println!("{}", serde_json::to_string(&verdict)?);
        }
        Ok(held)
    };
    let workers = if emulated() { 1 } else { WORKERS };
    let results: Vec<Result<bool>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a test panicked")))
            })
            .collect()
    });
    let mut held = true;
    for result in results {
        held &= result?;
    }
    Ok(ExitCode::from(u8::from(!held)))
}
