//! Programs that boot guests: they are built here, and run in the lab.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::kernel::{Freshness, Track};
use crate::lab::Session;
use crate::{clients, cmd, image, own, paths, qemu, ui};

/// Where a run's small files are put when it fails, below the lab's writable directory.
const LEFT_BEHIND: &str = "failed";
/// Files of a failed run that are kept are smaller than this (find's notation).
const KEPT_SIZE: &str = "-2048k";

/// A line that the programs print now and then, to show that they live.
const ALIVE: &str = "@@alive";
/// The programs print a line far more often.
const SILENCE: Duration = Duration::from_secs(180);

/// Whether guests boot the own kernel, which takes long to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Own {
    No,
    IfCached,
    Yes,
}

/// A program of the `tests` package and how to run it.
pub struct GuestProgram {
    pub name: &'static str,
    /// Stock kernels that its guests boot.
    pub tracks: &'static [Track],
    /// Whether some of them boot the own kernel.
    pub own: Own,
    /// Whether it compares with QEMU.
    pub needs_qemu: bool,
    /// What the names of the tests begin with whose guests run CUDA programs of other people; `None` if it runs no tests.
    pub clients_suite: Option<&'static str>,
    pub timeout: Duration,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl GuestProgram {
    /// Builds everything that the program needs and runs it in one session of the lab, with each line
    /// of its stdout going to `on_line`. Returns its exit status.
    pub fn run(&self, on_line: impl FnMut(&str) + Send) -> Result<i32> {
        let ready = self.ready()?;
        ui::step("running guests", || ready.run(None, &[], on_line))
    }

    /// Builds everything that the program needs.
    pub fn ready(&self) -> Result<Ready> {
        let mut systems = Vec::new();
        for track in self.tracks {
            systems.push(["--system".into(), system(*track)?]);
        }
        let own = match self.own {
            Own::No => false,
            Own::IfCached => own::cached()?.is_some(),
            Own::Yes => true,
        };
        if own {
            systems.push(["--own".into(), system(Track::Own)?]);
        }
        let programs = build(self.name)?;

        // On a tmpfs of the lab: files that guests map must be on a file system that can map them.
        let mut command: Vec<String> = ["sh", "-c", SCRIPT, "sh"].map(str::to_owned).into();
        command.push(programs.join(self.name).to_string_lossy().into_owned());
        for (option, program) in [("--vmm", "memu-vmm"), ("--ctl", "memu-ctl")] {
            command.extend([
                option.into(),
                programs.join(program).to_string_lossy().into_owned(),
            ]);
        }
        command.extend(systems.into_iter().flatten());
        let tests = self.tests(&programs)?;
        if let Some(suite) = self.clients_suite
            && tests.iter().any(|name| name.starts_with(suite))
        {
            // Whether a registry answers is not to decide on all other tests.
            match clients::image() {
                Ok(image) => {
                    command.extend(["--clients".into(), image.to_string_lossy().into_owned()])
                }
                Err(error) => ui::note(&format!("guests go without CUDA programs: {error:#}")),
            }
        }
        command.extend(self.arguments.iter().cloned());

        let mut session = Session::new(command);
        session.timeout = Some(self.timeout);
        session.silence = Some(SILENCE);
        session
            .variables
            .push(("KEPT_SIZE".into(), KEPT_SIZE.into()));
        if self.needs_qemu {
            session.variables.push((
                "PEER_DIR".into(),
                qemu::wrapper_dir()?.to_string_lossy().into_owned(),
            ));
        }
        Ok(Ready { session, tests })
    }

    /// The names of the tests that it is asked for; none if it runs no tests.
    fn tests(&self, programs: &Path) -> Result<Vec<String>> {
        if self.clients_suite.is_none() {
            return Ok(Vec::new());
        }
        let mut list = Command::new(programs.join(self.name));
        list.arg("--list").args(&self.arguments);
        Ok(cmd::output(&mut list)?.lines().map(str::to_owned).collect())
    }
}

/// A program that is built, with everything that it needs.
pub struct Ready {
    pub session: Session,
    /// The names of the tests that it is asked for.
    pub tests: Vec<String>,
}

impl Ready {
    /// Runs the program with further arguments in one session of the lab, on the host's CPU `home` if that is given, with
    /// each line of its stdout going to `on_line`. Returns its exit status.
    pub fn run(
        &self,
        home: Option<usize>,
        arguments: &[String],
        mut on_line: impl FnMut(&str) + Send,
    ) -> Result<i32> {
        let left_behind = match home {
            Some(cpu) => format!("{LEFT_BEHIND}-{cpu}"),
            None => LEFT_BEHIND.to_owned(),
        };
        let mut session = self.session.clone();
        session.home = home;
        session.command.extend_from_slice(arguments);
        session
            .variables
            .push(("LEFT_BEHIND".into(), left_behind.clone()));
        let mut lines = Lines::new(|line: &str| {
            if line != ALIVE {
                on_line(line);
            }
        });
        let status = session.run(|bytes| lines.take(bytes))?;
        lines.finish();
        if status != 0 {
            ui::note(&format!(
                "what the failed guests left is in {}",
                session.out.join(left_behind).display()
            ));
        }
        Ok(status)
    }
}

/// A kernel with its initramfs, as the programs take it: `VERSION=KERNEL,INITRD`.
fn system(track: Track) -> Result<String> {
    let image = image::initramfs(track, Freshness::Recent)?;
    let version: Vec<&str> = image.kernel.release.splitn(3, '.').take(2).collect();
    let (kernel, initrd) = (image.kernel.vmlinuz(), image.path);
    Ok(format!(
        "{}={},{}",
        version.join("."),
        kernel.display(),
        initrd.display()
    ))
}

/// Runs "$@" with a working directory on a tmpfs; what it leaves there goes to the writable directory.
const SCRIPT: &str = r#"
rm -rf "$MEMU_LAB_OUT/$LEFT_BEHIND"
[ -z "$PEER_DIR" ] || PATH=$PEER_DIR:$PATH
work=$(mktemp -d -p /dev/shm) || exit
"$@" --work "$work"
status=$?
if [ $status != 0 ]; then
	mkdir -p "$MEMU_LAB_OUT/$LEFT_BEHIND"
	cd "$work" && find . -type f -size $KEPT_SIZE -print0 |
		tar -c --null -T - -f - | tar -x --no-same-owner -f - -C "$MEMU_LAB_OUT/$LEFT_BEHIND"
fi
rm -rf "$work"
exit $status
"#;

/// Builds the programs under test and `runner`, optimised; returns their directory.
fn build(runner: &str) -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "vmm",
            "--bin",
            "memu-vmm",
            "--bin",
            "memu-ctl",
        ])
        .args(["--package", "tests", "--bin", runner])
        .current_dir(paths::workspace());
    ui::step("building memu-vmm", || cmd::run(&mut cargo))?;
    Ok(paths::workspace().join("target/release"))
}

/// Cuts a stream of bytes into lines.
struct Lines<F> {
    pending: Vec<u8>,
    on_line: F,
}

impl<F: FnMut(&str)> Lines<F> {
    fn new(on_line: F) -> Lines<F> {
        Lines {
            pending: Vec::new(),
            on_line,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            (self.on_line)(String::from_utf8_lossy(&line).trim_end());
        }
    }

    /// Hands over a last line that has no end.
    fn finish(&mut self) {
        if !self.pending.is_empty() {
            self.take(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let mut seen = Vec::new();
        let mut lines = Lines::new(|line: &str| seen.push(line.to_owned()));
        for piece in ["on", "e\r\ntw", "o\n\nthr", "ee"] {
            lines.take(piece.as_bytes());
        }
        lines.finish();
        lines.finish();
        assert_eq!(seen, ["one", "two", "", "three"]);
    }
}
