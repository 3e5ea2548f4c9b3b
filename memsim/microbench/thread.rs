//! Threads that each load a part of a buffer: `thread [MIB [THREADS [PASSES]]]`.

mod common;

use std::hint::black_box;

fn main() {
    let (mib, threads, passes) = (
        common::figure(1, 256),
        common::figure(2, 4),
        common::figure(3, 8),
    );
    let buffer = common::buffer(mib);
    let part = buffer.len().div_ceil(threads.max(1)).max(1);
    common::timed("thread", || {
        std::thread::scope(|scope| {
            for part in buffer.chunks(part) {
                scope.spawn(move || {
                    for _ in 0..passes {
                        black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
                    }
                });
            }
        });
        passes * buffer.len()
    });
}
