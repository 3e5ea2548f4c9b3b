//! Stores to a buffer from one end to the other: `st [MIB [STRIDE_BYTES [PASSES]]]`.

mod common;

use std::hint::black_box;

fn main() {
    let (mib, stride, passes) = (
        common::figure(1, 256),
        common::figure(2, 8),
        common::figure(3, 8),
    );
    let mut buffer = common::buffer(mib);
    let step = (stride / 8).max(1);
    common::timed("st", || {
        for pass in 0..passes {
            for word in black_box(&mut buffer[..]).iter_mut().step_by(step) {
                *word = pass as u64;
            }
        }
        passes * buffer.len().div_ceil(step)
    });
}
