//! cudarc, unmodified, as a client: it loads the library by name.
// A launch is unsafe in cudarc: what the kernel is given is the caller's word.
#![allow(unsafe_code)]

#[path = "cudarc/capture.rs"]
mod capture;
mod common;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{Library, succeed};
use cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// Runs a test again in a process that finds the library, or returns true in that one.
fn in_client(test: &str) -> bool {
    if std::env::var_os("CXL_CUDA_DEVICE").is_some() {
        return true;
    }
    let library = Library::new();
    let this = std::env::current_exe().unwrap();
    let output = succeed(library.command(this).args(["--exact", test]));
    assert!(output.contains("1 passed"), "{output}");
    false
}

fn kernel(context: &Arc<CudaContext>, text: &str, name: &str) -> CudaFunction {
    let module = context.load_module(Ptx::from_src(text)).unwrap();
    module.load_function(name).unwrap()
}

#[test]
fn saxpy_in_the_default_stream() {
    if !in_client("saxpy_in_the_default_stream") {
        return;
    }
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.compute_capability().unwrap(), (7, 5));
    assert!(context.name().unwrap().contains("MEMU"));
    let stream = context.default_stream();
    let saxpy = kernel(
        &context,
        include_str!("../../../gpu/tests/ptx/saxpy.ptx"),
        "saxpy",
    );
    let x: Vec<f32> = (0..777).map(|i| i as f32 - 300.0).collect();
    let y: Vec<f32> = (0..777).map(|i| (i % 13) as f32).collect();
    let x_device = stream.clone_htod(&x).unwrap();
    let mut y_device = stream.clone_htod(&y).unwrap();
    let (factor, count) = (2.5f32, 777u32);
    let mut launch = stream.launch_builder(&saxpy);
    launch
        .arg(&x_device)
        .arg(&mut y_device)
        .arg(&factor)
        .arg(&count);
    let config = LaunchConfig::for_num_elems(count);
    // SAFETY: the arguments are those that the kernel declares, and the buffers are as long as it is told.
    unsafe { launch.launch(config) }.unwrap();
    let result = stream.clone_dtoh(&y_device).unwrap();
    let expected: Vec<f32> = x
        .iter()
        .zip(&y)
        .map(|(x, y)| x.mul_add(factor, *y))
        .collect();
    assert_eq!(result, expected);
}

#[test]
fn two_streams_ordered_by_an_event() {
    if !in_client("two_streams_ordered_by_an_event") {
        return;
    }
    const N: usize = 64 << 10;
    let context = CudaContext::new(0).unwrap();
    let add = kernel(
        &context,
        include_str!("../../../gpu/tests/ptx/vector_add.ptx"),
        "vector_add",
    );
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let ones = first.clone_htod(&vec![1f32; N]).unwrap();
    let mut twos = first.alloc_zeros::<f32>(N).unwrap();
    let mut fours = second.alloc_zeros::<f32>(N).unwrap();
    let config = LaunchConfig::for_num_elems(N as u32);
    let mut launch = first.launch_builder(&add);
    launch.arg(&ones).arg(&ones).arg(&mut twos).arg(&N);
    // SAFETY: three buffers of N elements, as the kernel declares.
    unsafe { launch.launch(config) }.unwrap();
    let event = first.record_event(None).unwrap();
    second.wait(&event).unwrap();
    let mut launch = second.launch_builder(&add);
    launch.arg(&twos).arg(&twos).arg(&mut fours).arg(&N);
    // SAFETY: as above.
    unsafe { launch.launch(config) }.unwrap();
    assert_eq!(second.clone_dtoh(&fours).unwrap(), vec![4f32; N]);
}

#[test]
fn a_reduction_with_shuffles_and_a_histogram_with_atomics() {
    if !in_client("a_reduction_with_shuffles_and_a_histogram_with_atomics") {
        return;
    }
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let data: Vec<u32> = (0..5000u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    let data_device = stream.clone_htod(&data).unwrap();
    let count = data.len();

    let reduce = kernel(
        &context,
        include_str!("../../../gpu/tests/ptx/reduce.ptx"),
        "reduce",
    );
    let mut sum = stream.alloc_zeros::<u32>(1).unwrap();
    let config = LaunchConfig {
        grid_dim: (5, 1, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut launch = stream.launch_builder(&reduce);
    launch.arg(&data_device).arg(&mut sum).arg(&count);
    // SAFETY: the arguments are those that the kernel declares.
    unsafe { launch.launch(config) }.unwrap();
    let expected = data.iter().fold(0u32, |sum, x| sum.wrapping_add(*x));
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), [expected]);

    let histogram = kernel(
        &context,
        include_str!("../../../gpu/tests/ptx/histogram.ptx"),
        "histogram",
    );
    let mut bins = stream.alloc_zeros::<u32>(16).unwrap();
    let config = LaunchConfig {
        shared_mem_bytes: 64,
        ..config
    };
    let mut launch = stream.launch_builder(&histogram);
    launch.arg(&data_device).arg(&mut bins).arg(&count);
    // SAFETY: the arguments are those that the kernel declares.
    unsafe { launch.launch(config) }.unwrap();
    let mut expected = vec![0u32; 16];
    for value in &data {
        expected[*value as usize % 16] += 1;
    }
    assert_eq!(stream.clone_dtoh(&bins).unwrap(), expected);
}

#[test]
fn threads_that_share_a_stream_keep_it_going() {
    if !in_client("threads_that_share_a_stream_keep_it_going") {
        return;
    }
    const THREADS: usize = 4;
    const ROUNDS: usize = 2000;
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let (done, ends) = mpsc::channel();
    for _ in 0..THREADS {
        let (context, stream, done) = (context.clone(), stream.clone(), done.clone());
        thread::spawn(move || {
            context.bind_to_thread().unwrap();
            for _ in 0..ROUNDS {
                let zeros = stream.alloc_zeros::<u32>(10).unwrap();
                stream.record_event(None).unwrap();
                drop(zeros);
            }
            stream.synchronize().unwrap();
            done.send(()).unwrap();
        });
    }
    for _ in 0..THREADS {
        ends.recv_timeout(Duration::from_secs(120))
            .expect("a thread waits for work that never begins");
    }
}
