//! `cargo xtask lab`: runs a command where KVM works.
//!
//! On a machine with VT-x or SVM that is the machine itself. Elsewhere QEMU emulates one in software
//! (TCG), SVM included: Debian's kernel boots in it with the host's root file system, and offers a
//! true, if slow, `/dev/kvm`. The command finds its files at the same paths in both places.

mod child;
mod emulated;

use std::env;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use self::child::{forward, wait};
use self::emulated::{Emulated, Streams};
use crate::paths;

pub use self::emulated::Died;

/// Environment variables that a command keeps, besides those that begin with `MEMU_`.
const KEPT_VARIABLES: [&str; 8] = [
    "HOME",
    "PATH",
    "USER",
    "TERM",
    "LANG",
    "CARGO_HOME",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// A command for the lab.
#[derive(Clone)]
pub struct Session {
    pub command: Vec<String>,
    /// Added to the variables that it inherits.
    pub variables: Vec<(String, String)>,
    pub timeout: Option<Duration>,
    /// An emulated machine that prints nothing for so long is taken for dead.
    pub silence: Option<Duration>,
    /// Memory of an emulated machine, in MiB; a fitting default when `None`.
    pub memory_mib: Option<u64>,
    /// CPUs of an emulated machine. With one, which `None` means, all of QEMU lives on one CPU of the host and the
    /// machine is sound; with more, its guests hang and its kernel dies at times, as `emulated` tells.
    pub cpus: Option<usize>,
    /// The host's CPU for an emulated machine with one; any when `None`.
    pub home: Option<usize>,
    /// Directory that the command may write to; it finds the path in `MEMU_LAB_OUT`.
    pub out: PathBuf,
}

impl Session {
    /// A session with defaults for everything but the command.
    pub fn new(command: Vec<String>) -> Session {
        Session {
            command,
            variables: Vec::new(),
            timeout: None,
            silence: None,
            memory_mib: None,
            cpus: None,
            home: None,
            out: out(),
        }
    }

    /// Runs the command with its stdout going to `sink`, and returns its exit status.
    pub fn run(&self, sink: impl FnMut(&[u8]) + Send) -> Result<i32> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create {}", self.out.display()))?;
        match Place::here() {
            Place::Direct => self.run_directly(sink),
            Place::Emulated => Emulated::prepare(self)?.run(Streams::Captured(Box::new(sink))),
        }
    }

    /// Runs the command on this terminal.
    pub fn run_on_terminal(&self) -> Result<i32> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create {}", self.out.display()))?;
        match Place::here() {
            Place::Direct => {
                let child = self.direct_command().spawn();
                wait(
                    child.with_context(|| format!("cannot run {}", self.command[0]))?,
                    self.timeout,
                    || false,
                )
            }
            Place::Emulated => Emulated::prepare(self)?.run(Streams::Terminal),
        }
    }

    fn run_directly(&self, mut sink: impl FnMut(&[u8]) + Send) -> Result<i32> {
        let mut child = self
            .direct_command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.command[0]))?;
        let stdout = child.stdout.take().context("the pipe is gone")?;
        thread::scope(|scope| {
            scope.spawn(move || forward(stdout, &mut sink));
            wait(child, self.timeout, || false)
        })
    }

    fn direct_command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env("MEMU_LAB_OUT", &self.out);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The shell script that gives the command its directory and variables.
    fn script(&self) -> Result<String> {
        let mut script = String::from("#!/bin/sh\n");
        let inherited = env::vars()
            .filter(|(name, _)| name.starts_with("MEMU_") || KEPT_VARIABLES.contains(&&**name));
        for (name, value) in inherited.chain(self.variables.iter().cloned()) {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
        script.push_str(&format!(
            "export MEMU_LAB_OUT={}\n",
            quoted(&self.out.to_string_lossy())
        ));
        script.push_str(&format!(
            "cd {} || exit\n",
            quoted(&env::current_dir()?.to_string_lossy())
        ));
        script.push_str("exec");
        for word in &self.command {
            script.push_str(&format!(" {}", quoted(word)));
        }
        script.push('\n');
        Ok(script)
    }
}

/// The writable directory of a session: `MEMU_LAB_OUT` names it, else it is `target/lab`.
pub fn out() -> PathBuf {
    env::var_os("MEMU_LAB_OUT").map_or_else(|| paths::workspace().join("target/lab"), PathBuf::from)
}

/// Where a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here: this machine's KVM runs kernels in hardware.
    Direct,
    /// In a machine that QEMU emulates.
    Emulated,
}

impl Place {
    /// `MEMU_LAB=emulated` asks for emulation where it is not needed.
    pub fn here() -> Place {
        if env::var("MEMU_LAB").is_ok_and(|wish| wish == "emulated") {
            return Place::Emulated;
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kvm = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if has_virtualisation(&cpuinfo) && kvm.is_ok() {
            Place::Direct
        } else {
            Place::Emulated
        }
    }
}

/// The host's CPUs that this process may use.
pub fn host_cpus() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map(numbers)
        .filter(|cpus| !cpus.is_empty())
        .unwrap_or_else(|| vec![0])
}

/// The host's CPUs on which emulated machines with so much memory, one on each, have enough of it; at least one.
pub fn homes(memory_mib: u64) -> Vec<usize> {
    let most = usize::try_from(emulated::spare_memory_mib() / memory_mib).unwrap_or(usize::MAX);
    let mut cpus = host_cpus();
    cpus.truncate(most.max(1));
    cpus
}

/// The numbers that a list like `0-2,5` names; what is no number is passed over.
fn numbers(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// Whether the CPU's flags name VT-x or SVM. A KVM without them (a software one) does not run stock
/// kernels.
fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| {
        line.split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    })
}

/// Whether a session may take over this process's terminal.
pub fn on_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// `word` as a shell takes it literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd;

    #[test]
    fn only_vmx_and_svm_count_as_virtualisation() {
        assert!(has_virtualisation("processor : 0\nflags\t\t: fpu vmx lm\n"));
        assert!(has_virtualisation("flags : svm\n"));
        assert!(!has_virtualisation("flags : fpu hypervisor vmx_like\n"));
        assert!(!has_virtualisation(""));
    }

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(numbers("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(numbers("7"), [7]);
        assert_eq!(numbers("x"), [0; 0]);
    }

    #[test]
    fn a_quoted_word_reaches_the_command_as_it_was() {
        let word = "it's $HOME; \"x\" \\ \n";
        let printed = cmd::output(
            Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(word))),
        )
        .unwrap();
        assert_eq!(printed, word);
    }
}
