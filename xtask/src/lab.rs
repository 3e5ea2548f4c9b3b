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
pub struct Session {
    pub command: Vec<String>,
    /// Added to the variables that it inherits.
    pub variables: Vec<(String, String)>,
    pub timeout: Option<Duration>,
    /// An emulated machine that prints nothing for so long is taken for dead.
    pub silence: Option<Duration>,
    /// Memory of an emulated machine, in MiB; a fitting default when `None`.
    pub memory_mib: Option<u64>,
    /// CPUs of an emulated machine; all of the host's when `None`.
    pub cpus: Option<usize>,
    /// Directory that the command may write to; it finds the path in `MEMU_LAB_OUT`.
    pub out: PathBuf,
}

impl Session {
    /// A session with defaults for everything but the command. `MEMU_LAB_OUT` names the writable
    /// directory, else it is `target/lab`.
    pub fn new(command: Vec<String>) -> Session {
        let out = env::var_os("MEMU_LAB_OUT").map(PathBuf::from);
        Session {
            command,
            variables: Vec::new(),
            timeout: None,
            silence: None,
            memory_mib: None,
            cpus: None,
            out: out.unwrap_or_else(|| paths::workspace().join("target/lab")),
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
