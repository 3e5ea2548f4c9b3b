//! Walks along a random cycle of lines, each load waiting for the one before:
//! `ptr_chasing [MIB [STEPS [STORE]]]`; with STORE 1 every line is also written.

mod common;

use std::hint::black_box;

fn main() {
    let (mib, steps, store) = (
        common::figure(1, 256),
        common::figure(2, 20_000_000),
        common::figure(3, 0) != 0,
    );
    let mut buffer = common::cycle(mib);
    common::timed(
        if store {
            "ptr_chasing, stores"
        } else {
            "ptr_chasing"
        },
        || {
            let mut at = 0u64;
            for step in 0..steps {
                let next = buffer[at as usize];
                if store {
                    buffer[at as usize + 1] = step as u64;
                }
                at = next;
            }
            black_box(at);
            steps
        },
    );
}
