//! Loads under a timer that fires every millisecond: `timer [MIB [PASSES]]`.

#![allow(unsafe_code)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: libc::c_int) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

fn main() {
    let (mib, passes) = (common::figure(1, 16), common::figure(2, 20));
    let buffer = common::buffer(mib);
    let millisecond = libc::timeval {
        tv_sec: 0,
        tv_usec: 1000,
    };
    let timer = libc::itimerval {
        it_interval: millisecond,
        it_value: millisecond,
    };
    let handler: extern "C" fn(libc::c_int) = tick;
    // SAFETY: the handler does nothing but count; the timer is read, and no old one asked for.
    let refused = unsafe {
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t) == libc::SIG_ERR
            || libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) != 0
    };
    assert!(!refused, "{}", std::io::Error::last_os_error());
    common::timed("timer", || {
        for _ in 0..passes {
            black_box(buffer.iter().step_by(common::LINE_WORDS).sum::<u64>());
        }
        passes * buffer.len() / common::LINE_WORDS
    });
    println!("{} ticks", TICKS.load(Ordering::Relaxed));
}
