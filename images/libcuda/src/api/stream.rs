//! Streams and events.

use std::sync::Arc;

use crate::capture::{self, Capture, Info};
use crate::context;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, StreamCallback, driver_api};
use crate::registry::Handle;
use crate::stream::{DISABLE_TIMING, Event, NON_BLOCKING, Stream};
use crate::{Error, Result};

/// `CU_EVENT_BLOCKING_SYNC`.
const BLOCKING_SYNC: u32 = 1;

fn create(out: Out<Handle>, flags: u32, priority: i32) -> Result<()> {
    if flags & !NON_BLOCKING != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let context = context::current()?;
    let stream = Stream::new(Arc::downgrade(&context), flags, priority);
    let handle = stream.handle;
    Driver::get()?.streams.keep(handle, Arc::new(stream));
    out.set(handle)
}

fn elapsed(milliseconds: Out<f32>, start: Handle, end: Handle) -> Result<()> {
    let events = &Driver::get()?.events;
    let (start, end) = (events.get(start)?, events.get(end)?);
    milliseconds.set(end.milliseconds_since(&start)?)
}

/// Tells whether a stream is captured, and `more` if so.
fn capture_info(
    stream: Handle,
    status: Out<u32>,
    more: impl FnOnce(&Info) -> Result<()>,
) -> Result<()> {
    let stream = Driver::get()?.stream(stream)?;
    if !stream.implicit_captures()?.is_empty() {
        return Err(Error::STREAM_CAPTURE_IMPLICIT);
    }
    let Some(capture) = stream.capture_place().clone() else {
        return status.set(capture::NONE);
    };
    let info = capture.info(stream.handle);
    status.set(info.status)?;
    more(&info)
}

driver_api! {
    2000 fn cuStreamCreate(stream: Out<Handle>, flags: u32) {
        create(stream, flags, 0)
    }

    5050 fn cuStreamCreateWithPriority(stream: Out<Handle>, flags: u32, _priority: i32) {
        // There is one priority.
        create(stream, flags, 0)
    }

    2000 fn cuStreamDestroy(stream: Handle) | 4000 cuStreamDestroy_v2 {
        let driver = Driver::get()?;
        // Its work goes on to its end.
        let removed = driver.streams.remove(stream)?;
        let capture = removed.capture_place().take();
        if let Some(capture) = capture {
            capture.forsake(driver, stream);
        }
        Ok(())
    }

    2000 fn cuStreamSynchronize(stream: Handle) | 7000 cuStreamSynchronize_ptsz {
        Driver::get()?.stream(stream)?.synchronize()
    }

    2000 fn cuStreamQuery(stream: Handle) | 7000 cuStreamQuery_ptsz {
        let stream = Driver::get()?.stream(stream)?;
        stream.context()?.check()?;
        if stream.is_idle()? { Ok(()) } else { Err(Error::NOT_READY) }
    }

    5050 fn cuStreamGetPriority(stream: Handle, priority: Out<i32>) | 7000 cuStreamGetPriority_ptsz {
        priority.set(Driver::get()?.stream(stream)?.priority)
    }

    5050 fn cuStreamGetFlags(stream: Handle, flags: Out<u32>) | 7000 cuStreamGetFlags_ptsz {
        flags.set(Driver::get()?.stream(stream)?.flags)
    }

    12000 fn cuStreamGetId(stream: Handle, id: Out<u64>) | 12000 cuStreamGetId_ptsz {
        let stream = Driver::get()?.stream(stream)?;
        // The default stream's number is that of its context.
        let handle = match stream.handle {
            Handle::NULL => stream.context()?.handle,
            handle => handle,
        };
        id.set(handle.0 as u64)
    }

    12080 fn cuStreamGetDevice(stream: Handle, device: Out<i32>) | 12080 cuStreamGetDevice_ptsz {
        device.set(Driver::get()?.stream(stream)?.context()?.device.ordinal)
    }

    9020 fn cuStreamGetCtx(stream: Handle, context: Out<Handle>) | 9020 cuStreamGetCtx_ptsz {
        context.set(Driver::get()?.stream(stream)?.context()?.handle)
    }

    12050 fn cuStreamGetCtx_v2(stream: Handle, context: Out<Handle>, green: Out<Handle>) | 12050 cuStreamGetCtx_v2_ptsz {
        context.set(Driver::get()?.stream(stream)?.context()?.handle)?;
        green.set_if_wanted(Handle::NULL);
        Ok(())
    }

    3020 fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) | 7000 cuStreamWaitEvent_ptsz {
        let driver = Driver::get()?;
        let event = driver.events.get(event)?;
        driver.stream(stream)?.wait_for(&event)
    }

    5000 fn cuStreamAddCallback(
        stream: Handle,
        callback: StreamCallback,
        data: Address,
        flags: u32,
    ) | 7000 cuStreamAddCallback_ptsz {
        let handle = stream;
        let stream = Driver::get()?.stream(stream)?;
        callback.check()?;
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        stream.submit(move || {
            callback.call(handle, 0, data);
            Ok(())
        })
    }

    10000 fn cuStreamBeginCapture(stream: Handle) | 10000 cuStreamBeginCapture_ptsz {
        let driver = Driver::get()?;
        Capture::begin(driver, &*driver.stream(stream)?, None, 0)
    }

    10010 fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) | 10010 cuStreamBeginCapture_v2_ptsz {
        let driver = Driver::get()?;
        Capture::begin(driver, &*driver.stream(stream)?, None, mode)
    }

    12030 fn cuStreamBeginCaptureToGraph(
        stream: Handle,
        graph: Handle,
        after: In<Handle>,
        _edges: Address,
        count: usize,
        mode: u32,
    ) | 12030 cuStreamBeginCaptureToGraph_ptsz {
        let driver = Driver::get()?;
        let into = Some((graph, after.array(count)?));
        Capture::begin(driver, &*driver.stream(stream)?, into, mode)
    }

    10000 fn cuStreamEndCapture(stream: Handle, graph: Out<Handle>) | 10000 cuStreamEndCapture_ptsz {
        let driver = Driver::get()?;
        graph.set(Handle::NULL)?;
        graph.set(Capture::end(driver, &*driver.stream(stream)?)?)
    }

    10010 fn cuThreadExchangeStreamCaptureMode(mode: Address) {
        if mode.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        mode.out().set(capture::exchange_mode(mode.value(0))?)
    }

    10000 fn cuStreamIsCapturing(stream: Handle, status: Out<u32>) | 10000 cuStreamIsCapturing_ptsz {
        capture_info(stream, status, |_| Ok(()))
    }

    10010 fn cuStreamGetCaptureInfo(stream: Handle, status: Out<u32>, id: Out<u64>) | 10010 cuStreamGetCaptureInfo_ptsz {
        capture_info(stream, status, |info| {
            id.set_if_wanted(info.id);
            Ok(())
        })
    }

    11030 fn cuStreamGetCaptureInfo_v2(
        stream: Handle,
        status: Out<u32>,
        id: Out<u64>,
        graph: Out<Handle>,
        after: Out<In<Handle>>,
        count: Out<usize>,
    ) | 11030 cuStreamGetCaptureInfo_v2_ptsz {
        capture_info(stream, status, |info| {
            id.set_if_wanted(info.id);
            graph.set_if_wanted(info.graph);
            after.set_if_wanted(info.ends);
            count.set_if_wanted(info.count);
            Ok(())
        })
    }

    12030 fn cuStreamGetCaptureInfo_v3(
        stream: Handle,
        status: Out<u32>,
        id: Out<u64>,
        graph: Out<Handle>,
        after: Out<In<Handle>>,
        edges: Out<In<u64>>,
        count: Out<usize>,
    ) | 12030 cuStreamGetCaptureInfo_v3_ptsz {
        capture_info(stream, status, |info| {
            id.set_if_wanted(info.id);
            graph.set_if_wanted(info.graph);
            after.set_if_wanted(info.ends);
            edges.set_if_wanted(info.edges);
            count.set_if_wanted(info.count);
            Ok(())
        })
    }

    2000 fn cuEventCreate(event: Out<Handle>, flags: u32) {
        if flags & !(BLOCKING_SYNC | DISABLE_TIMING) != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let context = context::current()?;
        event.set(Driver::get()?.events.add(Arc::new(Event::new(&context, flags))))
    }

    2000 fn cuEventDestroy(event: Handle) | 4000 cuEventDestroy_v2 {
        Driver::get()?.events.remove(event).map(|_| ())
    }

    2000 fn cuEventRecord(event: Handle, stream: Handle) | 7000 cuEventRecord_ptsz {
        let driver = Driver::get()?;
        let event = driver.events.get(event)?;
        event.record(&*driver.stream(stream)?)
    }

    11010 fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) | 11010 cuEventRecordWithFlags_ptsz {
        if flags > 1 {
            return Err(Error::INVALID_VALUE);
        }
        // `CU_EVENT_RECORD_EXTERNAL` would make a node of it.
        if flags == 1 && Driver::get()?.stream(stream)?.capture()?.is_some() {
            return Err(Error::NOT_SUPPORTED);
        }
        let driver = Driver::get()?;
        let event = driver.events.get(event)?;
        event.record(&*driver.stream(stream)?)
    }

    2000 fn cuEventQuery(event: Handle) {
        if Driver::get()?.events.get(event)?.is_complete()? { Ok(()) } else { Err(Error::NOT_READY) }
    }

    2000 fn cuEventSynchronize(event: Handle) {
        Driver::get()?.events.get(event)?.synchronize()
    }

    2000 fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }

    12080 fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }
}
