//! What a person sees: one line per step, with the time it took. All of it on stderr, so that
//! stdout carries results only.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A terminal's line is rewritten this often while a step runs.
const TERMINAL_TICK: Duration = Duration::from_millis(500);
/// A log gets a line after this time instead, and then after twice the time before, up to the limit.
const LOG_TICK: Duration = Duration::from_secs(10);
const LOG_TICK_LIMIT: Duration = Duration::from_secs(160);
/// Returns to the beginning of a terminal's line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Prints one line of information.
pub fn note(text: &str) {
    eprintln!("memu: {text}");
}

/// Prints a line of results, while a step may be showing its progress.
pub fn result_line(text: &str) {
    if stderr().is_terminal() {
        eprint!("{CLEAR}");
    }
    println!("{text}");
}

/// Runs `work`, showing `what` and the elapsed time.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    step_watched(what, String::new, work)
}

/// Like [`step`], with `progress` asked now and then for a word on how far the work has come.
pub fn step_watched<T>(
    what: &str,
    progress: impl Fn() -> String + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let terminal = stderr().is_terminal();
    let start = Instant::now();
    let (done, ticker) = channel::<()>();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            let mut tick = if terminal { TERMINAL_TICK } else { LOG_TICK };
            while ticker.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                let line = format!(
                    "memu: {what} ... {} s {}",
                    start.elapsed().as_secs(),
                    progress()
                );
                if terminal {
                    eprint!("{CLEAR}{line}");
                    let _ = stderr().flush();
                } else {
                    eprintln!("{line}");
                    tick = (tick * 2).min(LOG_TICK_LIMIT);
                }
            }
        });
        let result = work();
        drop(done);
        result
    });
    let verdict = if result.is_ok() { "done" } else { "failed" };
    let rewrite = if terminal { CLEAR } else { "" };
    eprintln!(
        "{rewrite}memu: {what}: {verdict} ({:.1} s)",
        start.elapsed().as_secs_f64()
    );
    result
}
