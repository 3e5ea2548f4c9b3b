//! The kept inputs, and as many that are made up here, through every target.

use std::fs;
use std::path::Path;

/// Inputs made up per target; with some 50 accesses each, well over 10,000 accesses.
const MADE_UP: u64 = 400;

/// xorshift64*: the same inputs in every run.
fn made_up(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    let len = next() % 1024;
    (0..len).map(|_| next() as u8).collect()
}

#[test]
fn every_target_withstands_the_corpus() {
    for (name, target) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&directory).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", directory.display());
    }
}

#[test]
fn every_target_withstands_inputs_without_a_pattern() {
    for (_, target) in fuzz::TARGETS {
        (0..MADE_UP).for_each(|seed| target(&made_up(seed)));
    }
}
