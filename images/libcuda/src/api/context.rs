//! Contexts: primary ones, plain ones, and which is current.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::context::{self, Context};
use crate::driver::Driver;
use crate::ffi::{Address, Out, driver_api};
use crate::registry::Handle;
use crate::{Error, Result};

/// `CU_CTX_FLAGS_MASK`.
const FLAGS: u32 = 0xff;
/// The interface version of every context.
const API_VERSION: u32 = 3020;
/// `CU_LIMIT_MAX_L2_FETCH_GRANULARITY` and what comes after it.
const HINTS: std::ops::RangeInclusive<u32> = 5..=6;

fn create(out: Out<Handle>, flags: u32, device: i32) -> Result<()> {
    let driver = Driver::get()?;
    if flags & !FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let context = Context::new(driver.device(device)?, flags)?;
    driver.contexts.keep(context.handle, context.clone());
    context::push(context.handle);
    out.set(context.handle)
}

fn destroy(handle: Handle) -> Result<()> {
    let driver = Driver::get()?;
    let context = driver.contexts.find(handle).ok_or(Error::INVALID_CONTEXT)?;
    if is_primary(driver, &context) {
        return Err(Error::INVALID_CONTEXT);
    }
    if context::current_handle() == handle {
        context::pop()?;
    }
    driver.destroy(&context)
}

fn is_primary(driver: &Driver, context: &Arc<Context>) -> bool {
    driver.devices.iter().any(|device| {
        let primary = device.primary();
        primary
            .context
            .as_ref()
            .is_some_and(|primary| Arc::ptr_eq(primary, context))
    })
}

/// Waits for all work, which a capture would never let end: the attempt spoils it.
fn synchronize(context: &Context) -> Result<()> {
    let captures = context.default_stream.captures_beside(|_| true)?;
    captures.iter().for_each(|capture| capture.invalidate());
    if !captures.is_empty() {
        return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
    }
    context.synchronize()
}

driver_api! {
    7000 fn cuDevicePrimaryCtxRetain(out: Out<Handle>, device: i32) {
        let driver = Driver::get()?;
        let device = driver.device(device)?;
        let mut primary = device.primary();
        let context = match &primary.context {
            Some(context) => context.clone(),
            None => {
                let context = Context::new(device, primary.flags)?;
                driver.contexts.keep(context.handle, context.clone());
                primary.context = Some(context.clone());
                context
            }
        };
        primary.users += 1;
        out.set(context.handle)
    }

    7000 fn cuDevicePrimaryCtxRelease(device: i32) | 11000 cuDevicePrimaryCtxRelease_v2 {
        let driver = Driver::get()?;
        let last = {
            let mut primary = driver.device(device)?.primary();
            primary.users = primary.users.checked_sub(1).ok_or(Error::INVALID_CONTEXT)?;
            if primary.users == 0 { primary.context.take() } else { None }
        };
        last.map_or(Ok(()), |context| driver.destroy(&context))
    }

    7000 fn cuDevicePrimaryCtxReset(device: i32) | 11000 cuDevicePrimaryCtxReset_v2 {
        let driver = Driver::get()?;
        let context = driver.device(device)?.primary().context.take();
        context.map_or(Ok(()), |context| driver.destroy(&context))
    }

    7000 fn cuDevicePrimaryCtxSetFlags(device: i32, flags: u32) | 11000 cuDevicePrimaryCtxSetFlags_v2 {
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let mut primary = Driver::get()?.device(device)?.primary();
        primary.flags = flags;
        if let Some(context) = &primary.context {
            context.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    }

    7000 fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        let primary = Driver::get()?.device(device)?.primary();
        flags.set(primary.flags)?;
        active.set(primary.context.is_some().into())
    }

    2000 fn cuCtxCreate(out: Out<Handle>, flags: u32, device: i32) | 3020 cuCtxCreate_v2 {
        create(out, flags, device)
    }

    11040 fn cuCtxCreate_v3(out: Out<Handle>, _affinity: Address, count: i32, flags: u32, device: i32) {
        if count != 0 {
            return Err(Error::UNSUPPORTED_EXEC_AFFINITY);
        }
        create(out, flags, device)
    }

    12050 fn cuCtxCreate_v4(out: Out<Handle>, _params: Address, flags: u32, device: i32) {
        create(out, flags, device)
    }

    2000 fn cuCtxDestroy(context: Handle) | 4000 cuCtxDestroy_v2 {
        destroy(context)
    }

    2000 fn cuCtxAttach(out: Out<Handle>, flags: u32) {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        out.set(context::current()?.handle)
    }

    2000 fn cuCtxDetach(context: Handle) {
        destroy(context)
    }

    2000 fn cuCtxPushCurrent(context: Handle) | 4000 cuCtxPushCurrent_v2 {
        Driver::get()?.contexts.find(context).ok_or(Error::INVALID_CONTEXT)?;
        context::push(context);
        Ok(())
    }

    2000 fn cuCtxPopCurrent(out: Out<Handle>) | 4000 cuCtxPopCurrent_v2 {
        Driver::get()?;
        out.set_if_wanted(context::pop()?);
        Ok(())
    }

    4000 fn cuCtxSetCurrent(context: Handle) {
        let driver = Driver::get()?;
        if context != Handle::NULL {
            driver.contexts.find(context).ok_or(Error::INVALID_CONTEXT)?;
        }
        context::set_current(context);
        Ok(())
    }

    4000 fn cuCtxGetCurrent(out: Out<Handle>) {
        Driver::get()?;
        out.set(context::current_handle())
    }

    2000 fn cuCtxGetDevice(device: Out<i32>) {
        device.set(context::current_even_if_faulty()?.device.ordinal)
    }

    13000 fn cuCtxGetDevice_v2(device: Out<i32>, context: Handle) {
        device.set(Driver::get()?.context(context)?.device.ordinal)
    }

    7000 fn cuCtxGetFlags(flags: Out<u32>) {
        flags.set(context::current_even_if_faulty()?.flags())
    }

    12010 fn cuCtxSetFlags(flags: u32) {
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        context::current()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    12000 fn cuCtxGetId(context: Handle, id: Out<u64>) {
        id.set(Driver::get()?.context(context)?.handle.0 as u64)
    }

    3020 fn cuCtxGetApiVersion(context: Handle, version: Out<u32>) {
        Driver::get()?.context(context)?;
        version.set(API_VERSION)
    }

    2000 fn cuCtxSynchronize() {
        synchronize(&*context::current_even_if_faulty()?)
    }

    13000 fn cuCtxSynchronize_v2(context: Handle) {
        synchronize(&*Driver::get()?.context(context)?)
    }

    3010 fn cuCtxGetLimit(value: Out<usize>, limit: u32) {
        let context = context::current()?;
        value.set(if HINTS.contains(&limit) { 0 } else { context.limit(limit)? })
    }

    3010 fn cuCtxSetLimit(limit: u32, value: usize) {
        let context = context::current()?;
        if HINTS.contains(&limit) { Ok(()) } else { context.set_limit(limit, value) }
    }

    3020 fn cuCtxGetCacheConfig(config: Out<u32>) {
        context::current()?;
        config.set(0)
    }

    // A hint, like that for shared memory: there are no such caches.
    3020 fn cuCtxSetCacheConfig(_config: u32) {
        context::current().map(|_| ())
    }

    4020 fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        context::current()?;
        // Banks of four bytes.
        config.set(1)
    }

    4020 fn cuCtxSetSharedMemConfig(_config: u32) {
        context::current().map(|_| ())
    }

    5050 fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        context::current()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(0);
        Ok(())
    }

    11000 fn cuCtxResetPersistingL2Cache() {
        context::current().map(|_| ())
    }

    4000 fn cuCtxEnablePeerAccess(peer: Handle, _flags: u32) {
        Driver::get()?.context(peer)?;
        Err(Error::PEER_ACCESS_UNSUPPORTED)
    }

    4000 fn cuCtxDisablePeerAccess(peer: Handle) {
        Driver::get()?.context(peer)?;
        Err(Error::PEER_ACCESS_NOT_ENABLED)
    }
}
