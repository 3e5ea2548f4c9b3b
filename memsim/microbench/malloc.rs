//! Allocates, fills and frees blocks of many sizes: `malloc [BLOCKS [ROUNDS]]`.

mod common;

use std::hint::black_box;

fn main() {
    let (blocks, rounds) = (common::figure(1, 2_000), common::figure(2, 50));
    common::timed("malloc", || {
        let mut bytes = 0;
        for round in 0..rounds {
            let mut held: Vec<Vec<u8>> = Vec::with_capacity(blocks);
            for block in 0..blocks {
                let size = 64 << ((block * 7 + round) % 11);
                bytes += size;
                held.push(vec![block as u8; size]);
            }
            black_box(&held);
        }
        bytes / 64
    });
}
