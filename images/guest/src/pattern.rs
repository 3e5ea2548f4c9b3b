//! A pattern that every reader can compute for itself: word `k` of a range, counted from the range's
//! beginning, is `m ^ (m >> 32)` with `m = (k + seed) * 0x9e3779b97f4a7c15` modulo 2^64, little-endian.

use anyhow::Result;

use crate::mapping::{Mapping, WORD};

/// Word `index` of the pattern of `seed`.
pub fn word(seed: u64, index: u64) -> u64 {
    let mixed = seed.wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// Writes the pattern to `length` bytes at `offset` of a file or device.
pub fn write(path: &str, offset: u64, length: u64, seed: u64) -> Result<bool> {
    let memory = Mapping::file(path, offset, length)?;
    for index in 0..memory.words() {
        memory.write(index, word(seed, index as u64));
    }
    memory.sync()?;
    println!(
        r#"{{"test":"pattern-write","offset":{offset},"length":{length},"seed":{seed},"ok":true}}"#
    );
    Ok(true)
}

/// Compares `length` bytes at `offset` of a file or device with the pattern.
pub fn check(path: &str, offset: u64, length: u64, seed: u64) -> Result<bool> {
    let memory = Mapping::file(path, offset, length)?;
    let wrong = (0..memory.words()).find(|&index| memory.read(index) != word(seed, index as u64));
    let verdict = match wrong {
        None => r#""ok":true"#.to_owned(),
        Some(index) => format!(
            r#""ok":false,"wrong_at":{},"found":"{:#018x}","expected":"{:#018x}""#,
            offset + (index * WORD) as u64,
            memory.read(index),
            word(seed, index as u64),
        ),
    };
    println!(
        r#"{{"test":"pattern-check","offset":{offset},"length":{length},"seed":{seed},{verdict}}}"#
    );
    Ok(wrong.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn neighbouring_words_and_seeds_differ_in_every_half() {
        assert_eq!(word(0, 0), 0);
        assert_eq!(word(0, 1), 0x9e37_79b9_e17d_05ac);
        assert_eq!(word(3, 4), word(4, 3));
        assert_ne!(word(1, 0) as u32, word(2, 0) as u32);
    }

    #[test]
    fn a_single_wrong_word_is_found() {
        let path = std::env::temp_dir().join(format!("memu-guest-pattern-{}", std::process::id()));
        File::create(&path).unwrap().set_len(3 << 20).unwrap();
        let name = path.to_str().unwrap();
        assert!(write(name, 0x20_1000, 4096, 7).unwrap());
        assert!(check(name, 0x20_1000, 4096, 7).unwrap());
        assert!(!check(name, 0x20_1000, 4096, 8).unwrap());
        fs::remove_file(&path).unwrap();
    }
}
