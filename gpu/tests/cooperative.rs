//! Kernels whose threads work together, compiled by NVRTC at several levels (`ptx/cooperative`), against the same computation in
//! Rust.

mod common;

use common::{Device, floats, integers};

const TEXTS: [&str; 4] = [
    include_str!("ptx/cooperative/kernels.sm_60.ptx"),
    include_str!("ptx/cooperative/kernels.sm_75.ptx"),
    include_str!("ptx/cooperative/kernels.sm_90.ptx"),
    include_str!("ptx/cooperative/kernels.sm_80.debug.ptx"),
];

/// Every text on each tier.
fn everywhere(test: impl Fn(&Device, &str)) {
    for text in TEXTS {
        for device in Device::both() {
            test(&device, text);
        }
    }
}

/// Numbers from 0 to 100 without an order.
fn numbers(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 + i / 13) % 101).collect()
}

fn doubles(device: &Device, address: u64, count: usize) -> Vec<f64> {
    let bytes = device.download(address, count * 8);
    let words = bytes.chunks_exact(8);
    words
        .map(|word| f64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn blocks_add_up_in_shared_memory() {
    everywhere(|device, text| {
        let kernel = device.kernel(text, "block_sum");
        let values = numbers(1000);
        let (from, to) = (device.upload(&values), device.upload(&[5_u32]));
        device.launch(&kernel, [3, 1, 1], [128, 1, 1], 0, &[from, 1000, to]);
        assert_eq!(integers(device, to, 1), [5 + values.iter().sum::<u32>()]);
    });
}

#[test]
fn tiles_are_transposed_by_blocks_of_two_dimensions() {
    const N: usize = 50;
    everywhere(|device, text| {
        let kernel = device.kernel(text, "transpose");
        let matrix: Vec<f32> = (0..N * N).map(|i| i as f32).collect();
        let (from, to) = (device.upload(&matrix), device.buffer(4 * N * N));
        device.launch(&kernel, [4, 4, 1], [16, 16, 1], 0, &[from, to, N as u64]);
        let mirrored: Vec<f32> = (0..N * N).map(|i| (i % N * N + i / N) as f32).collect();
        assert_eq!(floats(device, to, N * N), mirrored);
    });
}

/// What lane `lane` of a warp with these values says.
fn told(warp: &[u32], lane: usize) -> [u32; 8] {
    let x = warp[lane];
    let ballot = |holds: &dyn Fn(u32) -> bool| {
        let bits = warp.iter().enumerate();
        bits.fold(0, |bits, (lane, x)| bits | u32::from(holds(*x)) << lane)
    };
    let odds = ballot(&|x| x % 2 == 1);
    let down = if lane % 8 < 5 { lane + 3 } else { lane };
    [
        warp.iter().sum(),
        warp[..=lane].iter().sum(),
        odds,
        u32::from(warp.iter().any(|x| *x > 90)) | u32::from(warp.iter().all(|x| *x < 97)) << 1,
        warp[down],
        warp[lane * 7 % 32],
        match x % 2 {
            1 => warp[odds.trailing_zeros() as usize],
            _ => 0,
        },
        x.leading_zeros() << 16 | ((x.trailing_zeros() + 1) % 33) << 8 | x.count_ones(),
    ]
}

#[test]
fn the_lanes_of_a_warp_tell_each_other() {
    everywhere(|device, text| {
        let kernel = device.kernel(text, "warp");
        let values = numbers(192);
        let (from, to) = (device.upload(&values), device.buffer(32 * values.len()));
        device.launch(&kernel, [2, 1, 1], [96, 1, 1], 0, &[from, to]);
        let expected: Vec<u32> = values
            .chunks(32)
            .flat_map(|warp| (0..32).flat_map(|lane| told(warp, lane)))
            .collect();
        assert_eq!(integers(device, to, expected.len()), expected);
    });
}

#[test]
fn atomics_of_every_size_lose_nothing() {
    everywhere(|device, text| {
        let kernel = device.kernel(text, "statistics");
        let values = numbers(700);
        let from = device.upload(&values);
        let counts = device.upload(&[0_u32; 32]);
        let (least, greatest) = (device.upload(&[u32::MAX]), device.upload(&[1_u32 << 31]));
        let (bits, sum) = (device.upload(&[0_u64]), device.upload(&[0.25_f64]));
        let params = [from, 700, counts, least, greatest, bits, sum];
        device.launch(&kernel, [6, 1, 1], [128, 1, 1], 0, &params);
        let mut expected = [0; 32];
        for value in &values {
            expected[*value as usize % 32] += 1;
        }
        assert_eq!(integers(device, counts, 32), expected);
        assert_eq!(integers(device, least, 1), [*values.iter().min().unwrap()]);
        let most = values.iter().map(|x| *x as i32 - 50).max().unwrap();
        assert_eq!(integers(device, greatest, 1), [most as u32]);
        let all = values.iter().fold(0_u64, |bits, x| bits | 1 << (x % 64));
        assert_eq!(device.download(bits, 8), all.to_le_bytes());
        let total = 0.25 + f64::from(values.iter().sum::<u32>());
        assert_eq!(doubles(device, sum, 1), [total]);
    });
}

#[test]
fn pairs_of_halves_are_rounded_once() {
    const N: usize = 60;
    everywhere(|device, text| {
        let kernel = device.kernel(text, "halves");
        // Products of six and four bits and a half have at most eleven.
        let a: Vec<f32> = (0..2 * N).map(|i| i as f32 % 63.0 - 31.0).collect();
        let b: Vec<f32> = (0..2 * N).map(|i| (i as f32 * 3.0) % 16.0 / 8.0).collect();
        let (a_at, b_at, to) = (device.upload(&a), device.upload(&b), device.buffer(8 * N));
        device.launch(
            &kernel,
            [1, 1, 1],
            [64, 1, 1],
            0,
            &[a_at, b_at, to, N as u64],
        );
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a * b + 0.5).collect();
        assert_eq!(floats(device, to, 2 * N), expected);
    });
}

#[test]
fn arithmetic_is_exact_or_as_near_as_the_instructions_are() {
    const N: usize = 90;
    everywhere(|device, text| {
        let kernel = device.kernel(text, "arithmetic");
        let values: Vec<f64> = (1..=N).map(|i| i as f64 * 0.3).collect();
        let from = device.upload(&values);
        let (to, of_floats) = (device.buffer(32 * N), device.buffer(24 * N));
        device.launch(
            &kernel,
            [3, 1, 1],
            [32, 1, 1],
            0,
            &[from, to, of_floats, N as u64],
        );
        let exact: Vec<f64> = values
            .iter()
            .flat_map(|&x| {
                let cut = (x * -1e6) as i64 as f64 + (x * 1e12) as u64 as f64;
                [x.sqrt(), 7.0 / x, x.mul_add(x, -3.0), cut]
            })
            .collect();
        assert_eq!(doubles(device, to, 4 * N), exact);
        let found = floats(device, of_floats, 6 * N);
        for (&x, found) in values.iter().zip(found.chunks(6)) {
            let y = x as f32;
            assert_eq!(found[..2], [y.sqrt(), 7.0 / y]);
            let y = f64::from(y);
            let near = [y.sqrt().recip(), (y / 8.0).exp(), y.ln(), (y / 16.0).sin()];
            for (found, near) in found[2..].iter().zip(near) {
                // PTX's bounds for these arguments, and a little for the multiplication before.
                let error = (f64::from(*found) - near).abs();
                assert!(error <= 4e-6 * near.abs().max(0.5), "{found} is not {near}");
            }
        }
    });
}

fn ackermann(m: u32, n: u32) -> u32 {
    match (m, n) {
        (0, _) => n + 1,
        (_, 0) => ackermann(m - 1, 1),
        _ => ackermann(m - 1, ackermann(m, n - 1)),
    }
}

#[test]
fn calls_return_and_variables_of_the_module_stay() {
    const PRIMES: [u32; 8] = [2, 3, 5, 7, 11, 13, 17, 19];
    const THREADS: u32 = 64;
    everywhere(|device, text| {
        let kernel = device.kernel(text, "calls");
        let to = device.buffer(16 * THREADS as usize + 4);
        let expected = (0..THREADS).flat_map(|i| {
            let mut own: [u32; 16] = std::array::from_fn(|k| k as u32 * i);
            for k in 0..16 {
                own[((k * 5 + i) % 16) as usize] ^= PRIMES[((k + i) % 8) as usize];
            }
            let swapped = [own[(i + 1) as usize % 16], own[i as usize % 16]];
            let third = own[3];
            let switched = match i % 7 {
                0 => third + 1,
                1 => third.wrapping_mul(3),
                2 => third.wrapping_sub(7),
                3 => third ^ 0x55,
                4 => third << 2,
                _ => !third,
            };
            [ackermann(2, i % 5), swapped[0], swapped[1], switched]
        });
        let mut expected: Vec<u32> = expected.collect();
        for launch in 1..3 {
            device.launch(&kernel, [2, 1, 1], [THREADS / 2, 1, 1], 0, &[to]);
            expected.truncate(4 * THREADS as usize);
            expected.push(launch);
            assert_eq!(integers(device, to, expected.len()), expected);
        }
    });
}
