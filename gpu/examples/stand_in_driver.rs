//! A driver library for the tests of the `cuda` backend: CUDA's interface in front of our own PTX on the CPU.
//!
//! It is not the driver of any device. It keeps the rules that the real one has and that the backend must keep too: a context
//! is a thread's, memory belongs to its context, launches go on after the call.

#![allow(unsafe_code, non_snake_case, clippy::missing_safety_doc)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gpu::ptx::{Context, Function, LaunchConfig, Module, Options};
use gpu::{DeviceMemory, Error};

/// Bytes of device memory.
const MEMORY: u64 = 16 << 20;
const VERSION: c_int = 12040;
const ALREADY_REGISTERED: c_int = 712;
const NOT_REGISTERED: c_int = 713;

#[derive(Default)]
struct State {
    last: usize,
    contexts: BTreeMap<usize, Arc<Context>>,
    modules: BTreeMap<usize, Arc<Module>>,
    functions: BTreeMap<usize, Function>,
    /// What became of the launch in each stream; `None` while it runs.
    streams: BTreeMap<usize, Arc<Mutex<Option<c_int>>>>,
    registered: BTreeMap<usize, usize>,
}

static MEMORY_OF_DEVICE: LazyLock<Arc<DeviceMemory>> =
    LazyLock::new(|| DeviceMemory::new(MEMORY).expect("memory for the device"));
static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn state() -> MutexGuard<'static, State> {
    lock(&STATE)
}

impl State {
    fn number(&mut self) -> usize {
        self.last += 1;
        self.last
    }
}

fn status(result: Result<(), Error>) -> c_int {
    result.map_or_else(|error| error.code() as c_int, |()| 0)
}

/// Calls with the thread's context.
fn current(call: impl FnOnce(&Arc<Context>) -> Result<(), Error>) -> c_int {
    let context = state().contexts.get(&CURRENT.get()).cloned();
    status(
        context
            .ok_or(Error::InvalidContext)
            .and_then(|context| call(&context)),
    )
}

fn store<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: the interface says that results go to valid pointers.
    unsafe { to.write(value) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    store(version, VERSION)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    store(count, 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if ordinal == 0 { store(device, 40) } else { 101 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) -> c_int {
    for (at, byte) in b"Stand-in\0".iter().enumerate().take(len as usize) {
        // SAFETY: the buffer has `len` bytes.
        unsafe { name.add(at).write(*byte as c_char) };
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let known = match attribute {
        1 => 1024,
        16 => 2,
        75 => 8,
        76 => 9,
        _ => 0,
    };
    store(value, known)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxCreate_v2(to: *mut *mut c_void, _flags: c_uint, device: c_int) -> c_int {
    if device != 40 {
        return 101;
    }
    // The backend's own watchdog is on trial.
    let options = Options {
        workers: 1,
        watchdog: None,
        ..Options::default()
    };
    let mut state = state();
    let number = state.number();
    let context = Context::new(Arc::clone(&MEMORY_OF_DEVICE), options);
    state.contexts.insert(number, context);
    CURRENT.set(number);
    store(to, number as *mut c_void)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: *mut c_void) -> c_int {
    let gone = state().contexts.remove(&(context as usize));
    if gone.is_some() { 0 } else { 201 }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    CURRENT.set(context as usize);
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    current(|context| context.check())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    store(free, MEMORY_OF_DEVICE.available() as usize) | store(total, MEMORY as usize)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    current(|context| {
        store(address, context.alloc(bytes as u64)?);
        // A real device does not clear memory.
        context.set(context_address(address), &[0xdb], bytes as u64)
    })
}

fn context_address(address: *mut u64) -> u64 {
    // SAFETY: written just before.
    unsafe { address.read() }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    current(|context| context.free(address))
}

/// Registered memory of the host at an address of the device: both have it at the same.
fn registered(address: u64, bytes: usize) -> Option<*mut u8> {
    let address = usize::try_from(address).ok()?;
    let state = state();
    let (start, length) = state.registered.range(..=address).next_back()?;
    let inside = address - start;
    (inside < *length && bytes <= length - inside).then_some(address as *mut u8)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_int {
    if let Some(to) = registered(to, bytes) {
        // SAFETY: the caller's promises, now and when it registered the memory.
        unsafe { to.copy_from(from.cast(), bytes) };
        return 0;
    }
    // SAFETY: the caller's promise.
    let from = unsafe { std::slice::from_raw_parts(from.cast(), bytes) };
    current(|context| context.write(to, from))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_int {
    if let Some(from) = registered(from, bytes) {
        // SAFETY: the caller's promises, now and when it registered the memory.
        unsafe { from.copy_to(to.cast(), bytes) };
        return 0;
    }
    // SAFETY: the caller's promise.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast(), bytes) };
    current(|context| context.read(from, to))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> c_int {
    if to.abs_diff(from) < bytes as u64 {
        return 1;
    }
    current(|context| context.copy(to, from, bytes as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(address: u64, value: u8, count: usize) -> c_int {
    current(|context| context.set(address, &[value], count as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16_v2(address: u64, value: u16, count: usize) -> c_int {
    current(|context| context.set(address, &value.to_le_bytes(), count as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32_v2(address: u64, value: c_uint, count: usize) -> c_int {
    current(|context| context.set(address, &value.to_le_bytes(), count as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, _: c_uint) -> c_int {
    match state().registered.insert(address as usize, bytes) {
        None => 0,
        Some(_) => ALREADY_REGISTERED,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostUnregister(address: *mut c_void) -> c_int {
    match state().registered.remove(&(address as usize)) {
        Some(_) => 0,
        None => NOT_REGISTERED,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    to: *mut *mut c_void,
    image: *const c_void,
    count: c_uint,
    options: *mut c_int,
    values: *mut *mut c_void,
) -> c_int {
    // SAFETY: an image is a text that ends with NUL; there are as many options as values.
    let (text, options, values) = unsafe {
        (
            CStr::from_ptr(image.cast()).to_string_lossy(),
            std::slice::from_raw_parts(options, count as usize),
            std::slice::from_raw_parts(values, count as usize),
        )
    };
    current(|context| match Module::load(context, &text) {
        Ok(module) => {
            let mut state = state();
            let number = state.number();
            state.modules.insert(number, module);
            store(to, number as *mut c_void);
            Ok(())
        }
        Err(error) => {
            if let ([5, 6], [buffer, size]) = (options, values) {
                let log = error.log().unwrap_or_default();
                let len = log.len().min(*size as usize - 1);
                // SAFETY: the buffer has `size` bytes.
                unsafe {
                    ptr::copy_nonoverlapping(log.as_ptr(), buffer.cast(), len);
                    buffer.cast::<u8>().add(len).write(0);
                }
            }
            Err(error)
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: *mut c_void) -> c_int {
    let gone = state().modules.remove(&(module as usize));
    if gone.is_some() { 0 } else { 400 }
}

fn text<'a>(name: *const c_char) -> std::borrow::Cow<'a, str> {
    // SAFETY: names end with NUL.
    unsafe { CStr::from_ptr(name) }.to_string_lossy()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetFunction(
    to: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    let mut state = state();
    let Some(module) = state.modules.get(&(module as usize)) else {
        return 400;
    };
    match module.function(&text(name)) {
        Ok(function) => {
            let number = state.number();
            state.functions.insert(number, function);
            store(to, number as *mut c_void)
        }
        Err(error) => error.code() as c_int,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    let state = state();
    let Some(module) = state.modules.get(&(module as usize)) else {
        return 400;
    };
    match module.global(&text(name)) {
        Ok((at, size)) => store(address, at) | store(bytes, size as usize),
        Err(error) => error.code() as c_int,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncGetAttribute(to: *mut c_int, attribute: c_int, of: *mut c_void) -> c_int {
    let state = state();
    let Some(function) = state.functions.get(&(of as usize)) else {
        return 400;
    };
    let attributes = function.attributes();
    let value = match attribute {
        0 => u64::from(attributes.max_threads_per_block),
        1 => attributes.shared_bytes,
        2 => attributes.const_bytes,
        3 => attributes.local_bytes,
        4 => attributes.registers.into(),
        _ => return 1,
    };
    store(to, value as c_int)
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the interface has so many")]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: *mut c_void,
    params: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> c_int {
    let (function, done) = {
        let state = state();
        let function = state.functions.get(&(function as usize)).cloned();
        let stream = state.streams.get(&(stream as usize)).cloned();
        match function.zip(stream) {
            Some(both) => both,
            None => return 400,
        }
    };
    let mut buffer = Vec::new();
    for (index, &(offset, bytes)) in function.params().iter().enumerate() {
        // SAFETY: there is a pointer for each parameter, to a value of its size.
        let value = unsafe {
            std::slice::from_raw_parts((*params.add(index)).cast::<u8>(), bytes as usize)
        };
        buffer.resize(offset as usize, 0);
        buffer.extend_from_slice(value);
    }
    let config = LaunchConfig {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
    };
    *lock(&done) = None;
    std::thread::spawn(move || {
        let result = status(function.launch(&config, &buffer));
        *lock(&done) = Some(result);
    });
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(to: *mut *mut c_void, _flags: c_uint) -> c_int {
    let mut state = state();
    let number = state.number();
    state.streams.insert(number, Arc::new(Mutex::new(Some(0))));
    store(to, number as *mut c_void)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> c_int {
    let gone = state().streams.remove(&(stream as usize));
    if gone.is_some() { 0 } else { 400 }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: *mut c_void) -> c_int {
    let stream = state().streams.get(&(stream as usize)).cloned();
    stream.map_or(400, |stream| lock(&stream).unwrap_or(600))
}
