//! A sign of life on standard output, so that whoever waits for a result can tell a slow test from a dead machine.

use std::thread;
use std::time::Duration;

/// The line; `cargo xtask` knows it.
const LINE: &str = "@@alive";
const INTERVAL: Duration = Duration::from_secs(20);

/// Prints the line now and then, until the process ends.
pub fn begin() {
    thread::spawn(|| {
        loop {
            println!("{LINE}");
            thread::sleep(INTERVAL);
        }
    });
}
