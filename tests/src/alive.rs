//! A sign of life on standard output, so that whoever waits for a result can tell a slow test from a dead machine.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The line; `cargo xtask` knows it.
const LINE: &str = "@@alive";
const INTERVAL: Duration = Duration::from_secs(20);
/// Longer than any test takes whose machine is sound: all that a test waits for has a deadline, but what the kernel below it
/// never finishes has none.
const LONGEST: Duration = Duration::from_secs(12 * 60);

/// When something was last begun.
static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);

/// Prints the line now and then, until the process ends or what was begun last should have ended long ago.
pub fn begin() {
    task();
    thread::spawn(|| {
        while !overdue() {
            println!("{LINE}");
            thread::sleep(INTERVAL);
        }
    });
}

/// Something begins that is to end in its time.
pub fn task() {
    *BEGUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

fn overdue() -> bool {
    let begun = *BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    begun.is_some_and(|begun| begun.elapsed() > LONGEST)
}
