//! Walks along a random cycle of lines, then becomes itself anew, with twice the steps; every other time by a thread that
//! it does not begin with: `exec [MIB [STEPS [TIMES]]]`.

mod common;

use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let (mib, steps, times) = (
        common::figure(1, 64),
        common::figure(2, 1_000_000),
        common::figure(3, 3),
    );
    let buffer = common::cycle(mib);
    common::timed("exec", || common::chase(&buffer, steps));
    if times == 0 {
        return;
    }
    let again = move || {
        let figures = [mib, 2 * steps, times - 1].map(|figure| figure.to_string());
        let error = Command::new("/proc/self/exe").args(figures).exec();
        eprintln!("cannot run once more: {error}");
        std::process::exit(1);
    };
    if times.is_multiple_of(2) {
        again();
    } else if std::thread::spawn(again).join().is_err() {
        std::process::exit(1);
    }
}
