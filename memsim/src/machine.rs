//! What the model must know of the machine that it runs on: its caches, and what its own memory costs.
//!
//! The one module of the library that looks outside; programs may say both themselves instead.

use std::path::PathBuf;
use std::time::Instant;

use crate::cache::Shape;
use crate::law::LINE;

/// Data caches of this machine as `/sys` describes them, from the core outwards; those of a common
/// server where it does not.
pub fn caches() -> Vec<Shape> {
    let mut levels: Vec<(u64, Shape)> = (0..8).filter_map(cache).collect();
    levels.sort_by_key(|&(level, _)| level);
    if levels.is_empty() {
        let shape = |size: u64, ways| Shape { size, ways };
        return vec![shape(32 << 10, 8), shape(1 << 20, 16), shape(32 << 20, 16)];
    }
    levels.into_iter().map(|(_, shape)| shape).collect()
}

fn cache(index: u32) -> Option<(u64, Shape)> {
    let folder = PathBuf::from(format!("/sys/devices/system/cpu/cpu0/cache/index{index}"));
    let read = |name: &str| -> Option<String> {
        Some(
            std::fs::read_to_string(folder.join(name))
                .ok()?
                .trim()
                .to_owned(),
        )
    };
    if read("type")? == "Instruction" {
        return None;
    }
    let size = read("size")?;
    let size = match size.strip_suffix('K') {
        Some(kib) => kib.parse::<u64>().ok()? << 10,
        None => size.strip_suffix('M')?.parse::<u64>().ok()? << 20,
    };
    let ways = read("ways_of_associativity")
        .and_then(|ways| ways.parse().ok())
        .filter(|&ways| ways > 0);
    Some((
        read("level")?.parse().ok()?,
        Shape {
            size,
            ways: ways.unwrap_or(16),
        },
    ))
}

/// Latency of this machine's memory, ns: a walk along a random cycle through four times the cache.
pub fn local_latency(cache_bytes: u64) -> f64 {
    const STEPS: usize = 300_000;
    const WORDS: usize = LINE as usize / 4;
    let lines = (4 * cache_bytes).clamp(16 << 20, 256 << 20) as usize / LINE as usize;
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..lines).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Never with itself: the permutation is a single cycle.
        order.swap(last, (random % last as u64) as usize);
    }
    let mut walk = vec![0u32; lines * WORDS];
    for (from, &to) in order.iter().enumerate() {
        walk[from * WORDS] = to;
    }
    drop(order);
    let mut fastest = f64::INFINITY;
    let mut at = 0u32;
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..STEPS / 3 {
            at = walk[at as usize * WORDS];
        }
        fastest = fastest.min(start.elapsed().as_nanos() as f64 / (STEPS / 3) as f64);
    }
    std::hint::black_box(at);
    fastest
}
