//! What the microbenchmarks share: figures from the command line, a buffer, a stop-watch.

#![allow(dead_code, reason = "every program uses its own part")]

use std::hint::black_box;
use std::time::Instant;

/// Words of a line.
pub const LINE_WORDS: usize = 8;

/// The `place`-th figure of the command line, or a default.
pub fn figure(place: usize, default: usize) -> usize {
    std::env::args()
        .nth(place)
        .map_or(default, |text| match text.parse() {
            Ok(figure) => figure,
            Err(_) => {
                eprintln!("argument {place} is '{text}', not a number");
                std::process::exit(2);
            }
        })
}

/// A buffer of so many MiB, every page touched.
pub fn buffer(mib: usize) -> Vec<u64> {
    let mut buffer = vec![0u64; (mib << 20) / 8];
    for (index, word) in buffer.iter_mut().enumerate().step_by(512) {
        *word = index as u64;
    }
    black_box(buffer)
}

/// Runs `work`, which returns how many accesses it made, and prints what one took.
pub fn timed(name: &str, work: impl FnOnce() -> usize) {
    let start = Instant::now();
    let accesses = work();
    let ns = start.elapsed().as_nanos() as f64;
    println!(
        "{name}: {accesses} accesses in {:.3} s, {:.2} ns each",
        ns / 1e9,
        ns / accesses.max(1) as f64
    );
}

/// A cycle through all lines of a buffer in random order: the first word of each line is the index
/// of the first word of the next.
pub fn cycle(mib: usize) -> Vec<u64> {
    let lines = (mib << 20) / (8 * LINE_WORDS);
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..lines).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(last, (random % last as u64) as usize);
    }
    let mut buffer = vec![0u64; lines * LINE_WORDS];
    for (from, &to) in order.iter().enumerate() {
        buffer[from * LINE_WORDS] = u64::from(to) * LINE_WORDS as u64;
    }
    buffer
}

/// Goes so many steps along a cycle, each load waiting for the one before; returns how many.
pub fn chase(cycle: &[u64], steps: usize) -> usize {
    let mut at = 0u64;
    for _ in 0..steps {
        at = cycle[at as usize];
    }
    black_box(at);
    steps
}
