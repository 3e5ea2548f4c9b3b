//! Processes that a session waits for.

use std::io::{Read, Write};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Exit status of a command that ran out of time (as timeout(1) has it).
pub const EXIT_TIMEOUT: i32 = 124;
/// Stands for the status of a machine that was stopped because it printed nothing for too long.
pub const EXIT_SILENT: i32 = -1;
/// A child is looked at this often.
const POLL: Duration = Duration::from_millis(20);

/// Waits for the end of `child`; kills it when `timeout` is over, or once it is `silent`.
pub fn wait(mut child: Child, timeout: Option<Duration>, silent: impl Fn() -> bool) -> Result<i32> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(exit_code(status));
        }
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || silent() {
            child.kill()?;
            child.wait()?;
            return Ok(if late { EXIT_TIMEOUT } else { EXIT_SILENT });
        }
        thread::sleep(POLL);
    }
}

/// A shell's view of an exit status: 128 and the signal's number for a death by signal.
fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Hands all of `source` to `sink` as it comes.
pub fn forward(mut source: impl Read, sink: &mut dyn FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        sink(&buffer[..count]);
    }
}

pub fn to_stderr(bytes: &[u8]) {
    // Nobody is left to tell when stderr itself fails.
    let _ = std::io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_command_that_runs_too_long_is_killed() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(
            wait(child, Some(Duration::from_millis(1)), || false).unwrap(),
            EXIT_TIMEOUT
        );
    }

    #[test]
    fn a_machine_that_falls_silent_is_killed() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(wait(child, None, || true).unwrap(), EXIT_SILENT);
    }

    #[test]
    fn death_by_signal_is_told_as_a_shell_tells_it() {
        let child = Command::new("sh")
            .args(["-c", "kill -TERM $$"])
            .spawn()
            .unwrap();
        assert_eq!(wait(child, None, || false).unwrap(), 128 + 15);
    }
}
