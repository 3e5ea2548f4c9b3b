//! What memory costs: bandwidth, dependent loads, and a fill that is summed.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::mapping::{Mapping, WORD};
use crate::node;
use crate::pattern;

/// Words per cache line: dependent loads go from line to line.
const LINE_WORDS: usize = 64 / WORD;

/// Rounds of which the shortest is reported.
const ROUNDS: u64 = 5;

/// `bytes` of `file` from its beginning, or of anonymous memory.
fn map(bytes: usize, file: Option<&str>) -> Result<Mapping> {
    match file {
        Some(path) => Mapping::file(path, 0, bytes as u64),
        None => Mapping::anonymous(bytes),
    }
}

/// Prints the bandwidth of sequential fills, reads and copies over `bytes` of memory. Copies come from anonymous memory.
pub fn bandwidth(bytes: usize, passes: u64, file: Option<&str>) -> Result<bool> {
    ensure!(passes > 0, "at least one pass");
    let (mut target, mut source) = (map(bytes, file)?, Mapping::anonymous(bytes)?);
    let (target, source) = (target.as_mut_slice(), source.as_mut_slice());
    // The first touch allocates; it is not what is measured.
    target.fill(1);
    source.fill(2);
    let node = node::of(target.as_ptr().addr());

    let moved = bytes as f64 * passes as f64;
    let fill = seconds(|| (0..passes).for_each(|pass| black_box(&mut *target).fill(pass)));
    let read = seconds(|| {
        for _ in 0..passes {
            black_box(
                black_box(&*target)
                    .iter()
                    .fold(0u64, |sum, word| sum.wrapping_add(*word)),
            );
        }
    });
    let copy = seconds(|| {
        (0..passes).for_each(|_| black_box(&mut *target).copy_from_slice(black_box(&*source)))
    });
    println!(
        r#"{{"test":"bw","node":{node},"kib":{},"fill_gbs":{:.3},"read_gbs":{:.3},"copy_gbs":{:.3}}}"#,
        bytes >> 10,
        moved / fill / 1e9,
        moved / read / 1e9,
        moved / copy / 1e9,
    );
    Ok(true)
}

/// Prints the bandwidth of sequential loads of one word each, which also a hypervisor that emulates every access can do:
/// vector instructions on its CXL memory are illegal ones.
pub fn sequential(bytes: usize, passes: u64, file: Option<&str>) -> Result<bool> {
    ensure!(passes > 0, "at least one pass");
    let mut memory = map(bytes, file)?;
    let memory = memory.as_mut_slice();
    memory.iter_mut().for_each(|word| {
        *black_box(word) = 1;
    });
    let mut sum = 0u64;
    let read = shortest(|| {
        for _ in 0..passes {
            for word in &*memory {
                sum = sum.wrapping_add(*black_box(word));
            }
        }
    });
    ensure!(
        sum == (ROUNDS * passes).wrapping_mul(memory.len() as u64),
        "the words read are not those written"
    );
    println!(
        r#"{{"test":"read","kib":{},"read_gbs":{:.6}}}"#,
        bytes >> 10,
        bytes as f64 * passes as f64 / read / 1e9,
    );
    Ok(true)
}

/// Loads each of whose addresses the load before it returned, over all lines of a memory.
struct Chase {
    memory: Mapping,
    at: u64,
}

impl Chase {
    /// One round over the lines first, so that no load meets a page for the first time.
    fn over(mut memory: Mapping) -> Self {
        let words = memory.as_mut_slice();
        thread_cycle(words);
        let lines = words.len() / LINE_WORDS;
        let mut chase = Self { memory, at: 0 };
        chase.go_on(lines as u64);
        chase
    }

    fn node(&mut self) -> i32 {
        node::of(self.memory.as_mut_slice().as_ptr().addr())
    }

    fn go_on(&mut self, loads: u64) {
        let memory = self.memory.as_mut_slice();
        for _ in 0..loads {
            self.at = memory[self.at as usize];
        }
        black_box(self.at);
    }
}

/// Prints the time of one load whose address the load before it returned.
pub fn chase(bytes: usize, loads: u64, file: Option<&str>) -> Result<bool> {
    ensure!(loads > 0, "at least one load");
    let mut chase = Chase::over(map(bytes, file)?);
    let node = chase.node();
    let elapsed = shortest(|| chase.go_on(loads));
    println!(
        r#"{{"test":"chase","node":{node},"kib":{},"loads":{loads},"ns_per_load":{:.2}}}"#,
        bytes >> 10,
        elapsed * 1e9 / loads as f64,
    );
    Ok(true)
}

/// Prints the same for each of several steps, as soon as it is over: what others do meanwhile is in it, such as a machine
/// that stands still now and then.
pub fn chase_in_steps(bytes: usize, loads: u64, steps: u64) -> Result<bool> {
    ensure!(loads > 0, "at least one load");
    let mut chase = Chase::over(map(bytes, None)?);
    let node = chase.node();
    for step in 0..steps {
        let elapsed = seconds(|| chase.go_on(loads));
        println!(
            r#"{{"test":"chase-in-steps","node":{node},"step":{step},"loads":{loads},"ns_per_load":{:.2}}}"#,
            elapsed * 1e9 / loads as f64,
        );
    }
    Ok(true)
}

/// Threads one random cycle through all cache lines of `memory` (Sattolo's shuffle): the first word
/// of a line is the index of the next line's first word.
fn thread_cycle(memory: &mut [u64]) {
    let lines = memory.len() / LINE_WORDS;
    for line in 0..lines {
        memory[line * LINE_WORDS] = (line * LINE_WORDS) as u64;
    }
    for line in (1..lines).rev() {
        let other = (pattern::word(1, line as u64) % line as u64) as usize;
        memory.swap(line * LINE_WORDS, other * LINE_WORDS);
    }
}

/// Fills `bytes` with a pattern, sums it, and compares the sum with the pattern's own.
pub fn fill_sum(bytes: usize) -> Result<bool> {
    let mut memory = Mapping::anonymous(bytes)?;
    let memory = memory.as_mut_slice();
    let start = Instant::now();
    let mut expected = 0u64;
    for (index, word) in memory.iter_mut().enumerate() {
        // Cheap on purpose: the test counts what the memory costs, not what the pattern does.
        *word = (index as u64) ^ 0x5a5a_5a5a_5a5a_5a5a;
        expected = expected.wrapping_add(*word);
    }
    let sum = black_box(&*memory)
        .iter()
        .fold(0u64, |sum, word| sum.wrapping_add(*word));
    let (node, ok) = (node::of(memory.as_ptr().addr()), sum == expected);
    println!(
        r#"{{"test":"fill-sum","node":{node},"mib":{},"seconds":{:.6},"sum":"{sum:#018x}","ok":{ok}}}"#,
        bytes >> 20,
        start.elapsed().as_secs_f64(),
    );
    Ok(ok)
}

/// Seconds of the shortest of several rounds: whatever else a busy host does only adds.
fn shortest(mut work: impl FnMut()) -> f64 {
    (0..ROUNDS)
        .map(|_| seconds(&mut work))
        .fold(f64::INFINITY, f64::min)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cycle_visits_every_line_once() {
        let mut memory = vec![0u64; 64 * LINE_WORDS];
        thread_cycle(&mut memory);
        let mut seen = [false; 64];
        let mut at = 0;
        for _ in 0..64 {
            assert!(!std::mem::replace(&mut seen[at / LINE_WORDS], true));
            at = memory[at] as usize;
        }
        assert_eq!(at, 0);
    }

    #[test]
    fn what_was_filled_sums_up() {
        assert!(fill_sum(1 << 20).unwrap());
    }
}
