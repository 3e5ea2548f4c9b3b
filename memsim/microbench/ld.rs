//! Loads a buffer from one end to the other: `ld [MIB [STRIDE_BYTES [PASSES]]]`.

mod common;

use std::hint::black_box;

fn main() {
    let (mib, stride, passes) = (
        common::figure(1, 256),
        common::figure(2, 8),
        common::figure(3, 8),
    );
    let buffer = common::buffer(mib);
    let step = (stride / 8).max(1);
    common::timed("ld", || {
        for _ in 0..passes {
            let mut sum = 0u64;
            for word in buffer.iter().step_by(step) {
                sum = sum.wrapping_add(*word);
            }
            black_box(sum);
        }
        passes * buffer.len().div_ceil(step)
    });
}
