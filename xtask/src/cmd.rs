//! Running other programs: what they print is kept, and shown when they fail.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that go into the error message.
const SHOWN_LINES: usize = 20;

/// Runs `command` to its end with no stdin and returns its stdout.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the message ends with what it printed last.
pub fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output_bytes(command)?).into_owned())
}

/// Like [`output`], for output that is not text.
pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        let mut text = String::from_utf8_lossy(&stderr).into_owned();
        if text.trim().is_empty() {
            text = String::from_utf8_lossy(&stdout).into_owned();
        }
        bail!(
            "{name} failed ({status}):\n{}",
            last_lines(&text, SHOWN_LINES)
        );
    }
    Ok(stdout)
}

/// Runs `command` to its end, for its effect alone.
pub fn run(command: &mut Command) -> Result<()> {
    output_bytes(command).map(drop)
}

/// The last `count` lines of `text`, indented.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let shown = lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default();
    shown
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_quoted_in_the_error() {
        let error =
            run(Command::new("sh").args(["-c", "echo 'no such thing' >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("no such thing") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "  b\n  c");
        assert_eq!(last_lines("", 2), "");
    }
}
