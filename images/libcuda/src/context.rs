//! Contexts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::{Device, Driver};
use crate::order::Order;
use crate::registry::Handle;
use crate::stream::Stream;
use crate::transport::Channel;
use crate::{Error, Result};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `cuCtxSetLimit` sets, by `CUlimit`: bytes of a thread's stack, of the output of kernels, and of their heap; how deep
/// kernels that launch kernels may wait, and how many launches of theirs may be pending, which bounds what no kernel does here.
const LIMITS: [(u32, usize); 5] = [(0, 1024), (1, 1 << 20), (2, 8 << 20), (3, 2), (4, 2048)];

/// An address space of the device, with its streams and its first fault.
pub struct Context {
    pub handle: Handle,
    pub device: Arc<Device>,
    pub channel: Channel,
    pub flags: AtomicU32,
    pub order: Order,
    pub default_stream: Arc<Stream>,
    limits: Mutex<BTreeMap<u32, usize>>,
    /// The fault that ended the context.
    fault: Mutex<Option<Error>>,
    /// A failure of work that nobody waited for, until somebody waits.
    late: Mutex<Option<Error>>,
}

impl Context {
    pub fn new(device: &Arc<Device>, flags: u32) -> Result<Arc<Self>> {
        let channel = Channel::new(device.accelerator.open()?);
        Ok(Arc::new_cyclic(|this| Self {
            handle: Handle::fresh(),
            device: device.clone(),
            channel,
            flags: AtomicU32::new(flags),
            order: Order::default(),
            default_stream: Arc::new(Stream::default_of(this.clone())),
            limits: Mutex::new(LIMITS.into()),
            fault: Mutex::default(),
            late: Mutex::default(),
        }))
    }

    /// The fault that has ended the context.
    pub fn check(&self) -> Result<()> {
        lock(&self.fault).map_or(Ok(()), Err)
    }

    /// Keeps an error if it ends the context.
    pub fn note(&self, error: Error) {
        if error.is_sticky() {
            lock(&self.fault).get_or_insert(error);
        }
    }

    /// Keeps an error of work that nobody waits for.
    pub fn note_late(&self, error: Error) {
        self.note(error);
        if !error.is_sticky() {
            lock(&self.late).get_or_insert(error);
        }
    }

    /// The context's fault, or once each failure that nobody has heard of.
    pub fn check_late(&self) -> Result<()> {
        self.check()?;
        lock(&self.late).take().map_or(Ok(()), Err)
    }

    /// Waits for all work.
    pub fn synchronize(&self) -> Result<()> {
        for tail in self.order.tails() {
            tail.wait();
        }
        self.flush_output();
        self.check_late()
    }

    /// Writes what kernels have printed to stdout.
    pub fn flush_output(&self) {
        if let Ok(output) = self.channel.take_output()
            && !output.is_empty()
        {
            let mut stdout = std::io::stdout().lock();
            // As with printf in a program, nobody hears of a closed stdout.
            let _ = stdout.write_all(&output).and_then(|()| stdout.flush());
        }
    }

    pub fn limit(&self, limit: u32) -> Result<usize> {
        let limits = lock(&self.limits);
        limits.get(&limit).copied().ok_or(Error::UNSUPPORTED_LIMIT)
    }

    pub fn set_limit(&self, limit: u32, value: usize) -> Result<()> {
        let mut limits = lock(&self.limits);
        let place = limits.get_mut(&limit).ok_or(Error::UNSUPPORTED_LIMIT)?;
        *place = value;
        Ok(())
    }

    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// The contexts that a thread has made current, the last one on top.
    static CURRENT: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The handle of the thread's current context, null when there is none.
pub fn current_handle() -> Handle {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(Handle::NULL))
}

/// The thread's current context.
///
/// # Errors
/// `INVALID_CONTEXT` without one, `CONTEXT_IS_DESTROYED` when it is gone, and the fault that ended it.
pub fn current() -> Result<Arc<Context>> {
    let context = current_even_if_faulty()?;
    context.check()?;
    Ok(context)
}

/// The thread's current context, whatever its state.
pub fn current_even_if_faulty() -> Result<Arc<Context>> {
    let driver = Driver::get()?;
    match current_handle() {
        Handle::NULL => Err(Error::INVALID_CONTEXT),
        handle => driver
            .contexts
            .find(handle)
            .ok_or(Error::CONTEXT_IS_DESTROYED),
    }
}

pub fn push(context: Handle) {
    CURRENT.with_borrow_mut(|stack| stack.push(context));
}

pub fn pop() -> Result<Handle> {
    CURRENT.with_borrow_mut(|stack| stack.pop().ok_or(Error::INVALID_CONTEXT))
}

/// Replaces the top of the stack; null takes it away.
pub fn set_current(context: Handle) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        if context != Handle::NULL {
            stack.push(context);
        }
    });
}
