//! Kernels that clang and NVRTC compiled from C, against the same C compiled for the host.
//!
//! `ptx/kernels.c` says how its compilations and its expected output are made.

mod common;

use common::{Device, integers};

const THREADS: usize = 256;
const EXPECTED: &str = include_str!("ptx/kernels.expected");

/// The hash that fills the input, as in `kernels.c`.
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn check(text: &str) {
    let input: Vec<u32> = (1..=2 * THREADS as u32).map(mix).collect();
    for line in EXPECTED.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let expected: Vec<u32> = words
            .map(|word| u32::from_str_radix(word, 16).unwrap())
            .collect();
        assert_eq!(expected.len(), THREADS);
        for device in Device::both() {
            let kernel = device.kernel(text, name);
            let (out, input) = (device.buffer(4 * THREADS), device.upload(&input));
            device.launch(&kernel, [4, 1, 1], [64, 1, 1], 0, &[out, input]);
            assert_eq!(integers(&device, out, THREADS), expected, "{name}");
        }
    }
}

#[test]
fn unoptimised_code_gives_the_hosts_results() {
    check(include_str!("ptx/kernels.sm_75.O0.ptx"));
}

#[test]
fn optimised_code_gives_the_hosts_results() {
    check(include_str!("ptx/kernels.sm_75.O2.ptx"));
}

#[test]
fn code_for_another_level_gives_the_hosts_results() {
    check(include_str!("ptx/kernels.sm_90.O2.ptx"));
}

#[test]
fn code_of_nvrtc_gives_the_hosts_results_at_every_level() {
    check(include_str!("ptx/kernels.nvrtc.sm_52.ptx"));
    check(include_str!("ptx/kernels.nvrtc.sm_75.ptx"));
    check(include_str!("ptx/kernels.nvrtc.sm_90.ptx"));
}

#[test]
fn code_of_nvrtc_with_debugging_sections_gives_the_hosts_results() {
    check(include_str!("ptx/kernels.nvrtc.sm_80.debug.ptx"));
}
