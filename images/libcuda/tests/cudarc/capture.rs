//! Streams whose work becomes a graph.

use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{
    CudaContext, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
};

use super::{in_client, kernel};

const FLAGS: CUgraphInstantiate_flags =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

fn context() -> Arc<CudaContext> {
    let context = CudaContext::new(0).unwrap();
    // Buffers would wait for events that were recorded before the capture.
    // SAFETY: each buffer here is used by streams that wait for each other.
    unsafe { context.disable_event_tracking() };
    context
}

fn begin(stream: &CudaStream) {
    stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .unwrap();
}

#[track_caller]
fn refused<T>(result: Result<T, DriverError>, code: CUresult) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(DriverError(found)) => assert_eq!(found, code),
    }
}

#[test]
fn captured_work_is_done_each_time_that_its_graph_is_launched() {
    if !in_client("capture::captured_work_is_done_each_time_that_its_graph_is_launched") {
        return;
    }
    const N: usize = 1000;
    let context = context();
    let add = kernel(
        &context,
        include_str!("../../../../gpu/tests/ptx/vector_add.ptx"),
        "vector_add",
    );
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let ones = first.clone_htod(&vec![1f32; N]).unwrap();
    let mut left = first.clone_htod(&vec![9f32; N]).unwrap();
    let right = first.clone_htod(&vec![9f32; N]).unwrap();
    let sum = first.alloc_zeros::<f32>(N).unwrap();
    first.synchronize().unwrap();
    let config = LaunchConfig::for_num_elems(N as u32);
    let [ones, zeroed, tripled, total] =
        [&ones, &left, &right, &sum].map(|buffer| buffer.device_ptr(&first).0);
    let add_to = |stream: &Arc<CudaStream>, a: u64, b: u64, to: u64| {
        let mut launch = stream.launch_builder(&add);
        launch.arg(&a).arg(&b).arg(&to).arg(&N);
        // SAFETY: three buffers of N elements, as the kernel declares.
        unsafe { launch.launch(config) }.unwrap();
    };

    begin(&first);
    // Two streams from one mark to another: left = 0, right = 1 + 1 + 1, and then sum = sum + left + right.
    first.memset_zeros(&mut left).unwrap();
    let forked = first.record_event(None).unwrap();
    second.wait(&forked).unwrap();
    let captured = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
    assert_eq!(second.capture_status().unwrap(), captured);
    add_to(&second, ones, ones, tripled);
    add_to(&second, tripled, ones, tripled);
    let joined = second.record_event(None).unwrap();
    first.wait(&joined).unwrap();
    add_to(&first, total, zeroed, total);
    add_to(&first, total, tripled, total);
    let graph = first.end_capture(FLAGS).unwrap().unwrap();
    let idle = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    assert_eq!(second.capture_status().unwrap(), idle);

    // Nothing has been done so far.
    assert_eq!(first.clone_dtoh(&left).unwrap(), vec![9f32; N]);
    for times in 1..=3 {
        graph.launch().unwrap();
        assert_eq!(first.clone_dtoh(&sum).unwrap(), vec![3.0 * times as f32; N]);
    }
}

#[test]
fn what_a_capture_cannot_have_spoils_it() {
    if !in_client("capture::what_a_capture_cannot_have_spoils_it") {
        return;
    }
    use CUresult::*;
    let context = context();
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let spoiled = |stream: &Arc<CudaStream>| {
        refused(
            stream.record_event(None),
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        );
        refused(
            stream.end_capture(FLAGS),
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        );
    };

    refused(first.end_capture(FLAGS), CUDA_ERROR_ILLEGAL_STATE);
    let default = context.default_stream();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    refused(
        default.begin_capture(mode),
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    );

    begin(&first);
    refused(first.synchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    spoiled(&first);

    begin(&first);
    refused(context.synchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    spoiled(&first);

    begin(&first);
    // SAFETY: nobody reads it.
    refused(
        unsafe { first.alloc::<u8>(16) },
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    );
    spoiled(&first);

    let outside = second.record_event(None).unwrap();
    begin(&first);
    refused(first.wait(&outside), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    spoiled(&first);

    begin(&first);
    let inside = first.record_event(None).unwrap();
    refused(inside.synchronize(), CUDA_ERROR_CAPTURED_EVENT);
    spoiled(&first);

    // A fork that does something and is not waited for.
    begin(&first);
    second.wait(&first.record_event(None).unwrap()).unwrap();
    let mut buffer = default.alloc_zeros::<u8>(16).unwrap();
    second.memset_zeros(&mut buffer).unwrap();
    refused(first.end_capture(FLAGS), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);

    // Both streams are free again.
    second.synchronize().unwrap();
    begin(&first);
    assert!(first.end_capture(FLAGS).unwrap().is_some());
}

#[test]
fn the_default_stream_does_not_wait_for_a_capture() {
    if !in_client("capture::the_default_stream_does_not_wait_for_a_capture") {
        return;
    }
    let context = context();
    let default = context.default_stream();
    let mut buffer = default.alloc_zeros::<u8>(16).unwrap();
    let mut blocking = std::ptr::null_mut();
    let mut graph = std::ptr::null_mut();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the results go to variables of their types, and the stream is one.
    unsafe {
        sys::cuStreamCreate(&mut blocking, 0).result().unwrap();
        sys::cuStreamBeginCapture_v2(blocking, mode)
            .result()
            .unwrap();
        refused(
            default.memset_zeros(&mut buffer),
            CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
        );
        refused(
            sys::cuStreamEndCapture(blocking, &mut graph).result(),
            CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        );
        assert!(graph.is_null());
        sys::cuStreamDestroy_v2(blocking).result().unwrap();
    }
    default.memset_zeros(&mut buffer).unwrap();
    default.synchronize().unwrap();
}
