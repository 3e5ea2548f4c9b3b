//! Loads and stores that leave no line in the caches: `non_temporal [MIB [PASSES]]`.

#![allow(unsafe_code)]

mod common;

use std::arch::x86_64::{
    _mm_add_epi64, _mm_set1_epi64x, _mm_sfence, _mm_stream_load_si128, _mm_stream_si64,
};
use std::hint::black_box;

fn main() {
    let (mib, passes) = (common::figure(1, 256), common::figure(2, 4));
    let mut buffer = common::buffer(mib);
    common::timed("st_nt", || {
        for pass in 0..passes {
            for word in &mut buffer {
                // SAFETY: the pointer is to a word of the buffer that nothing else borrows.
                unsafe { _mm_stream_si64(std::ptr::from_mut(word).cast(), pass as i64) };
            }
            // SAFETY: every x86-64 machine has the instruction; it touches no memory.
            unsafe { _mm_sfence() };
        }
        passes * buffer.len()
    });
    if !is_x86_feature_detected!("sse4.1") {
        eprintln!("ld_nt: this machine has no non-temporal load");
        return;
    }
    common::timed("ld_nt", || {
        // SAFETY: the machine has the instruction.
        unsafe { load(&buffer, passes) }
    });
}

#[target_feature(enable = "sse4.1")]
fn load(buffer: &[u64], passes: usize) -> usize {
    // SAFETY: sixteen bytes of plain integers are a vector of two; align_to keeps to the buffer.
    let (_, pairs, _) = unsafe { buffer.align_to::<std::arch::x86_64::__m128i>() };
    for _ in 0..passes {
        let mut sum = _mm_set1_epi64x(0);
        for pair in pairs {
            // SAFETY: the reference is valid and aligned to sixteen bytes.
            sum = _mm_add_epi64(sum, unsafe { _mm_stream_load_si128(pair) });
        }
        black_box(sum);
    }
    passes * pairs.len()
}
