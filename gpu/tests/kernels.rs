//! Whole kernels, written by hand or compiled from C by clang, against the same computation in Rust.

mod common;

use common::{Device, floats, integers};
use gpu::{Error, Fault};

#[test]
fn vector_add_is_exact() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/vector_add.ptx"), "vector_add");
        let a: Vec<f32> = (0..1000).map(|i| i as f32 * 0.37).collect();
        let b: Vec<f32> = (0..1000).map(|i| 1.0 / (i + 1) as f32).collect();
        let (a_at, b_at, c_at) = (device.upload(&a), device.upload(&b), device.buffer(4000));
        device.launch(
            &kernel,
            [4, 1, 1],
            [256, 1, 1],
            0,
            &[a_at, b_at, c_at, 1000],
        );
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(floats(&device, c_at, 1000), expected);
    }
}

#[test]
fn saxpy_runs_over_a_grid_stride() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/saxpy.ptx"), "saxpy");
        let x: Vec<f32> = (0..777).map(|i| i as f32 - 300.0).collect();
        let y: Vec<f32> = (0..777).map(|i| (i % 13) as f32).collect();
        let (x_at, y_at) = (device.upload(&x), device.upload(&y));
        let mut params = Vec::new();
        params.extend(x_at.to_le_bytes());
        params.extend(y_at.to_le_bytes());
        params.extend(2.5f32.to_le_bytes());
        params.extend(777u32.to_le_bytes());
        device
            .launch_bytes(&kernel, [2, 1, 1], [64, 1, 1], 0, &params)
            .unwrap();
        let expected: Vec<f32> = x.iter().zip(&y).map(|(&x, &y)| x.mul_add(2.5, y)).collect();
        assert_eq!(floats(&device, y_at, 777), expected);
    }
}

#[test]
fn tiled_matmul_uses_shared_memory_and_barriers() {
    const N: usize = 48;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/matmul.ptx"), "matmul");
        let a: Vec<f32> = (0..N * N).map(|i| ((i * 7) % 11) as f32 * 0.25).collect();
        let b: Vec<f32> = (0..N * N).map(|i| ((i * 5) % 13) as f32 * 0.5).collect();
        let (a_at, b_at, c_at) = (
            device.upload(&a),
            device.upload(&b),
            device.buffer(4 * N * N),
        );
        device.launch(
            &kernel,
            [3, 3, 1],
            [16, 16, 1],
            0,
            &[a_at, b_at, c_at, N as u64],
        );
        let mut expected = vec![0f32; N * N];
        for row in 0..N {
            for column in 0..N {
                for k in 0..N {
                    expected[row * N + column] += a[row * N + k] * b[k * N + column];
                }
            }
        }
        assert_eq!(floats(&device, c_at, N * N), expected);
    }
}

#[test]
fn reduction_with_shuffles_adds_every_element() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/reduce.ptx"), "reduce");
        let data: Vec<u32> = (0..5000u32)
            .map(|i| i.wrapping_mul(2_654_435_761))
            .collect();
        let (data_at, sum_at) = (device.upload(&data), device.buffer(4));
        device.launch(&kernel, [5, 1, 1], [128, 1, 1], 0, &[data_at, sum_at, 5000]);
        let expected = data.iter().fold(0u32, |sum, &x| sum.wrapping_add(x));
        assert_eq!(integers(&device, sum_at, 1), [expected]);
    }
}

#[test]
fn histogram_with_atomics_counts_every_byte() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/histogram.ptx"), "histogram");
        let data: Vec<u32> = (0..4096u32)
            .map(|i| i.wrapping_mul(2_654_435_761) >> 13)
            .collect();
        let (data_at, bins_at) = (device.upload(&data), device.buffer(16 * 4));
        device.launch(
            &kernel,
            [4, 1, 1],
            [96, 1, 1],
            64,
            &[data_at, bins_at, 4096],
        );
        let mut expected = vec![0; 16];
        for value in data {
            expected[value as usize % 16] += 1;
        }
        assert_eq!(integers(&device, bins_at, 16), expected);
    }
}

#[test]
fn softmax_rows_sum_to_one() {
    const COLUMNS: usize = 100;
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/softmax.ptx"), "softmax");
        let x: Vec<f32> = (0..3 * COLUMNS)
            .map(|i| ((i * 37) % 101) as f32 * 0.1 - 5.0)
            .collect();
        let (x_at, y_at) = (device.upload(&x), device.buffer(4 * x.len()));
        device.launch(
            &kernel,
            [3, 1, 1],
            [32, 1, 1],
            0,
            &[x_at, y_at, COLUMNS as u64],
        );
        let y = floats(&device, y_at, x.len());
        for (x, y) in x.chunks(COLUMNS).zip(y.chunks(COLUMNS)) {
            let exps: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (exp, &y) in exps.iter().zip(y) {
                let expected = exp / sum;
                assert!(
                    (f64::from(y) - expected).abs() <= 1e-5 * expected,
                    "{y} {expected}"
                );
            }
        }
    }
}

#[test]
fn an_access_outside_the_contexts_memory_is_error_700_and_stays() {
    for device in Device::both() {
        let kernel = device.kernel(include_str!("ptx/vector_add.ptx"), "vector_add");
        let buffer = device.buffer(4000);
        let params: Vec<u8> = [buffer, buffer, buffer + 4, 1000u64]
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        let error = device
            .launch_bytes(&kernel, [4, 1, 1], [256, 1, 1], 0, &params)
            .unwrap_err();
        assert_eq!(error.code(), 700);
        let Error::Fault {
            fault:
                Fault::IllegalAddress {
                    address,
                    bytes: 4,
                    write: true,
                },
            line,
            ..
        } = error.clone()
        else {
            panic!("{error}");
        };
        assert_eq!(address, buffer + 4000);
        assert!(line > 0);
        assert_eq!(device.context.alloc(16), Err(error));
    }
}

#[test]
fn another_contexts_memory_is_not_reachable() {
    for device in Device::both() {
        let other = device.sibling();
        let secret = other.upload(&[42u32]);
        let kernel = device.kernel(include_str!("ptx/vector_add.ptx"), "vector_add");
        let own = device.buffer(4);
        let params: Vec<u8> = [secret, own, own, 1u64]
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        let error = device
            .launch_bytes(&kernel, [1, 1, 1], [1, 1, 1], 0, &params)
            .unwrap_err();
        assert_eq!(error.code(), 700);
        assert_eq!(integers(&other, secret, 1), [42]);
    }
}
