//! Kernels that Triton compiled (`ptx/triton/kernels.py`), against the same computation in Rust. They have two parameters more
//! than their source, for scratch memory that none of them wants.

mod common;

use common::{Device, floats, integers};

const NO_SCRATCH: u64 = 0;

/// What is not exact is within this of what `f64` gives.
fn close(found: f32, expected: f64, relative: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(
        error <= relative * expected.abs().max(1e-6),
        "{found} is not {expected}"
    );
}

/// A number that is neither very large nor very small.
fn number(i: usize) -> f32 {
    ((i * 37) % 101) as f32 * 0.125 - 6.0
}

/// IEEE 754 binary16, of normal numbers and zero.
fn to_half(value: f32) -> u16 {
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    assert_eq!(bits & 0x1fff, 0, "{value} has more than 11 bits");
    let exponent = (bits >> 23 & 0xff) + 15 - 127;
    assert!((1..31).contains(&exponent), "{value}");
    (bits >> 16 & 0x8000 | exponent << 10 | bits >> 13 & 0x3ff) as u16
}

fn from_half(bits: u16) -> f32 {
    let (exponent, fraction) = (
        i32::from(bits >> 10 & 0x1f),
        f32::from(bits & 0x3ff) / 1024.0,
    );
    let magnitude = match exponent {
        0 => fraction * 2_f32.powi(-14),
        _ => (1.0 + fraction) * 2_f32.powi(exponent - 15),
    };
    if bits >> 15 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

#[test]
fn a_masked_sum_stops_where_it_should() {
    const N: usize = 2500;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/triton/add.ptx"), "add");
        let a: Vec<f32> = (0..N).map(number).collect();
        let b: Vec<f32> = (0..N).map(|i| 1.0 / (i + 1) as f32).collect();
        let (a_at, b_at) = (device.upload(&a), device.upload(&b));
        let c_at = device.upload(&[7.0_f32; N + 4]);
        let params = [a_at, b_at, c_at, N as u64, NO_SCRATCH, NO_SCRATCH];
        device.launch(&kernel, [3, 1, 1], [128, 1, 1], 0, &params);
        let mut expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        expected.extend([7.0; 4]);
        assert_eq!(floats(&device, c_at, N + 4), expected);
    }
}

#[test]
fn softmax_reduces_over_warps_by_shared_memory() {
    const COLUMNS: usize = 300;
    const ROWS: usize = 3;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/triton/softmax.ptx"), "softmax");
        let x: Vec<f32> = (0..ROWS * COLUMNS).map(number).collect();
        let (from, to) = (device.upload(&x), device.buffer(4 * ROWS * COLUMNS));
        let params = [to, from, COLUMNS as u64, NO_SCRATCH, NO_SCRATCH];
        device.launch(&kernel, [ROWS as u32, 1, 1], [128, 1, 1], 16, &params);
        let found = floats(&device, to, ROWS * COLUMNS);
        for (x, found) in x.chunks(COLUMNS).zip(found.chunks(COLUMNS)) {
            let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
            for (x, found) in x.iter().zip(found) {
                close(*found, f64::from(*x).exp() / sum, 2e-6);
            }
        }
    }
}

#[test]
fn layer_norm_goes_from_halves_to_halves() {
    const COLUMNS: usize = 200;
    const ROWS: usize = 2;
    const EPSILON: f32 = 1e-5;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/triton/layer_norm.ptx"), "layer_norm");
        let x: Vec<f32> = (0..ROWS * COLUMNS).map(number).collect();
        let weight: Vec<f32> = (0..COLUMNS).map(|i| 1.0 + i as f32 / 64.0).collect();
        let halves: Vec<u8> = x.iter().flat_map(|x| to_half(*x).to_le_bytes()).collect();
        let (from, to) = (device.upload(&halves), device.buffer(2 * ROWS * COLUMNS));
        let weight_at = device.upload(&weight);
        let columns_and_epsilon = COLUMNS as u64 | u64::from(EPSILON.to_bits()) << 32;
        let params = [
            to,
            from,
            weight_at,
            columns_and_epsilon,
            NO_SCRATCH,
            NO_SCRATCH,
        ];
        device.launch(&kernel, [ROWS as u32, 1, 1], [64, 1, 1], 8, &params);
        let found = device.download(to, 2 * ROWS * COLUMNS);
        let found: Vec<f32> = found
            .chunks_exact(2)
            .map(|half| from_half(u16::from_le_bytes([half[0], half[1]])))
            .collect();
        for (x, found) in x.chunks(COLUMNS).zip(found.chunks(COLUMNS)) {
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / COLUMNS as f64;
            let squares = x.iter().map(|x| (f64::from(*x) - mean).powi(2));
            let variance = squares.sum::<f64>() / COLUMNS as f64;
            for ((x, weight), found) in x.iter().zip(&weight).zip(found) {
                let centred = f64::from(*x) - mean;
                let expected =
                    centred / (variance + f64::from(EPSILON)).sqrt() * f64::from(*weight);
                // Half a unit of the last of 11 bits, and what f32 makes of it before.
                close(*found, expected, 6e-4);
            }
        }
    }
}

#[test]
fn a_histogram_counts_by_atomics_whose_results_nobody_wants() {
    const N: usize = 1000;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/triton/histogram.ptx"), "histogram");
        let values: Vec<u32> = (0..N as u32)
            .map(|i| i.wrapping_mul(2_654_435_761) >> 7)
            .collect();
        let (from, to) = (device.upload(&values), device.upload(&[0_u32; 16]));
        let params = [to, from, N as u64, NO_SCRATCH, NO_SCRATCH];
        device.launch(&kernel, [4, 1, 1], [128, 1, 1], 0, &params);
        let mut expected = [0; 16];
        for value in values {
            expected[value as usize % 16] += 1;
        }
        assert_eq!(integers(&device, to, 16), expected);
    }
}

#[test]
fn a_running_sum_shuffles_up() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/triton/running_sum.ptx"), "running_sum");
        let values: Vec<u32> = (0..256).map(|i| i * i % 97).collect();
        let (from, to) = (device.upload(&values), device.buffer(1024));
        let params = [to, from, NO_SCRATCH, NO_SCRATCH];
        device.launch(&kernel, [1, 1, 1], [128, 1, 1], 32, &params);
        let sums = values.iter().scan(0, |sum, value| {
            *sum += value;
            Some(*sum)
        });
        assert_eq!(integers(&device, to, 256), sums.collect::<Vec<u32>>());
    }
}
