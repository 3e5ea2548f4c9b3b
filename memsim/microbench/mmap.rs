//! Maps anonymous memory and reads or writes every page of it once: `mmap [MIB [ROUNDS [WRITE]]]`.

#![allow(unsafe_code)]

mod common;

use std::hint::black_box;

const PAGE: usize = 4096;

fn main() {
    let (mib, rounds, write) = (
        common::figure(1, 64),
        common::figure(2, 8),
        common::figure(3, 1) != 0,
    );
    common::timed(if write { "mmap_write" } else { "mmap_read" }, || {
        for _ in 0..rounds {
            pass(mib << 20, write);
        }
        rounds * (mib << 20) / PAGE
    });
}

fn pass(bytes: usize, write: bool) {
    // SAFETY: asks for new memory at a place of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(
        start != libc::MAP_FAILED,
        "the kernel maps no {bytes} bytes"
    );
    // SAFETY: the mapping is `bytes` long, zeroed, and nothing else knows of it.
    let memory = unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), bytes) };
    for page in memory.chunks_mut(PAGE) {
        if write {
            page[0] = 1;
        } else {
            black_box(page[0]);
        }
    }
    // SAFETY: the mapping is ours, and `memory` is not used after this.
    unsafe { libc::munmap(start, bytes) };
}
