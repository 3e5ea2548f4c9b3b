//! A context of the accelerator: commands for it.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::queue::{Queue, values_of};
use super::spec::{self, MAX_PARAMS, Param, Submission, bias, flags, op};
use super::{Buffer, Session};
use crate::ffi::Address;
use crate::{Error, Result};

/// Entries of a queue, which is how many launches go with one doorbell.
const DEPTH: u32 = 64;
/// Queues of a context at most; further threads wait for one.
const MOST_QUEUES: usize = 8;
/// Bytes beside a queue, for names, parameters and copies of what is not mapped.
const BUFFER: usize = 256 << 10;
/// Bytes for what the compiler says.
const LOG: usize = 64 << 10;
/// Parameters of launches that go together begin at multiples of this.
const PARAMS_ALIGN: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kernel of a loaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub id: u32,
    /// Offset and bytes of each parameter in what a launch takes.
    pub params: Vec<(u64, u64)>,
    pub max_threads_per_block: u32,
    pub shared_bytes: u64,
    pub const_bytes: u64,
    pub local_bytes: u64,
    pub registers: u32,
}

/// Extent of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// Why a module was not loaded, and what the compiler said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub error: Error,
    pub log: String,
}

/// A context of the accelerator. Each call returns when the accelerator has done it; calls of several threads run at once,
/// and who wants an order waits.
pub struct Channel {
    queues: Mutex<Queues>,
    returned: Condvar,
    /// Kernels may have printed what nobody has taken.
    printed: AtomicBool,
    /// What the processor reaches at the device's addresses: bytes by address.
    mapped: Mutex<BTreeMap<u64, u64>>,
    /// Dropped after the queues.
    session: Arc<dyn Session>,
}

#[derive(Default)]
struct Queues {
    idle: Vec<Worker>,
    made: usize,
}

/// A queue and its buffer.
struct Worker {
    queue: Queue,
    buffer: Buffer,
}

/// A worker that goes back when it is dropped.
struct Lent<'a> {
    channel: &'a Channel,
    worker: Option<Worker>,
}

impl Deref for Lent<'_> {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        self.worker.as_ref().expect("it is taken in drop alone")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Worker {
        self.worker.as_mut().expect("it is taken in drop alone")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        lock(&self.channel.queues).idle.extend(self.worker.take());
        self.channel.returned.notify_one();
    }
}

impl Channel {
    pub fn new(session: Arc<dyn Session>) -> Self {
        Self {
            queues: Mutex::default(),
            returned: Condvar::new(),
            printed: AtomicBool::new(false),
            mapped: Mutex::default(),
            session,
        }
    }

    fn worker(&self) -> Result<Lent<'_>> {
        let mut queues = lock(&self.queues);
        loop {
            if let Some(worker) = queues.idle.pop() {
                return Ok(Lent {
                    channel: self,
                    worker: Some(worker),
                });
            }
            if queues.made < MOST_QUEUES {
                match self.make_worker() {
                    Ok(worker) => {
                        queues.made += 1;
                        queues.idle.push(worker);
                        continue;
                    }
                    // The device has no more: one of ours must do.
                    Err(_) if queues.made > 0 => {}
                    Err(error) => return Err(error),
                }
            }
            queues = self
                .returned
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make_worker(&self) -> Result<Worker> {
        Ok(Worker {
            buffer: self.session.buffer(BUFFER as u64)?,
            queue: Queue::new(self.session.queue(DEPTH)?, DEPTH)?,
        })
    }

    fn command(&self, opcode: u16, args: [u64; 4]) -> Result<[u64; 4]> {
        let command = Submission {
            opcode,
            args,
            ..Submission::default()
        };
        self.worker()?.queue.execute_one(command)
    }

    /// A command that has a name for its span.
    fn named(&self, opcode: u16, module: u32, name: &str) -> Result<[u64; 4]> {
        if name.len() > spec::MAX_NAME as usize {
            return Err(Error::NOT_FOUND);
        }
        let mut worker = self.worker()?;
        worker.buffer.memory.write(0, name.as_bytes())?;
        let command = worker.spanning(opcode, [module.into(), 0, 0, 0], name.len());
        worker.queue.execute_one(command)
    }

    /// Allocates `bytes` of device memory, all zero. The processor reaches it at the same address.
    pub fn allocate(&self, bytes: u64) -> Result<u64> {
        let command = Submission {
            opcode: op::MEM_ALLOC,
            flags: flags::MAPPABLE,
            args: [bytes, 0, 0, 0],
            ..Submission::default()
        };
        let [address, ..] = self.worker()?.queue.execute_one(command)?;
        let whole = bytes.next_multiple_of(spec::PAGE);
        if let Err(error) = self.session.map(address, whole) {
            self.command(op::MEM_FREE, [address, 0, 0, 0])?;
            return Err(error);
        }
        lock(&self.mapped).insert(address, whole);
        Ok(address)
    }

    pub fn free(&self, address: u64) -> Result<()> {
        if let Some(bytes) = lock(&self.mapped).remove(&address) {
            self.session.unmap(address, bytes);
        }
        self.command(op::MEM_FREE, [address, 0, 0, 0]).map(|_| ())
    }

    /// Bytes free and in all.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let [free, all, ..] = self.command(op::MEM_INFO, [0; 4])?;
        Ok((free, all))
    }

    /// Whether the processor reaches a range by itself.
    fn is_mapped(&self, address: u64, bytes: u64) -> bool {
        let mapped = lock(&self.mapped);
        let before = mapped.range(..=address).next_back();
        before.is_some_and(|(&base, &length)| {
            let offset = address - base;
            offset <= length && bytes <= length - offset
        })
    }

    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        if self.is_mapped(to, bytes.len() as u64) {
            Address(to).copy_from(Address(bytes.as_ptr().addr() as u64), bytes.len());
            return Ok(());
        }
        let mut worker = self.worker()?;
        for (part, at) in bytes.chunks(BUFFER).zip((to..).step_by(BUFFER)) {
            worker.buffer.memory.write(0, part)?;
            let command = worker.spanning(op::MEM_COPY_HTOD, [at, 0, 0, 0], part.len());
            worker.queue.execute_one(command)?;
        }
        Ok(())
    }

    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        if self.is_mapped(from, bytes.len() as u64) {
            Address(bytes.as_mut_ptr().addr() as u64).copy_from(Address(from), bytes.len());
            return Ok(());
        }
        let mut worker = self.worker()?;
        for (part, at) in bytes.chunks_mut(BUFFER).zip((from..).step_by(BUFFER)) {
            let command = worker.spanning(op::MEM_COPY_DTOH, [at, 0, 0, 0], part.len());
            worker.queue.execute_one(command)?;
            worker.buffer.memory.read(0, part)?;
        }
        Ok(())
    }

    /// Copies within the device; the ranges may overlap.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        self.command(op::MEM_COPY_DTOD, [to, from, bytes, 0])
            .map(|_| ())
    }

    /// Repeats a pattern of 1, 2 or 4 bytes `count` times.
    pub fn fill(&self, to: u64, pattern: &[u8], count: u64) -> Result<()> {
        let mut value = [0; 8];
        value[..pattern.len()].copy_from_slice(pattern);
        let args = [to, u64::from_le_bytes(value), pattern.len() as u64, count];
        self.command(op::MEM_SET, args).map(|_| ())
    }

    /// Puts pages into device bias or host bias.
    pub fn set_bias(&self, address: u64, bytes: u64, device: bool) -> Result<()> {
        let bias = if device { bias::DEVICE } else { bias::HOST };
        self.command(op::BIAS_SET, [address, bytes, bias, 0])
            .map(|_| ())
    }

    /// Puts each page into the other bias.
    pub fn flip_bias(&self, address: u64, bytes: u64) -> Result<()> {
        self.command(op::BIAS_FLIP, [address, bytes, 0, 0])
            .map(|_| ())
    }

    /// Whether the page of an address is in device bias.
    pub fn is_device_biased(&self, address: u64) -> Result<bool> {
        let [is, ..] = self.command(op::BIAS_GET, [address, 0, 0, 0])?;
        Ok(is == bias::DEVICE)
    }

    /// The device's counters of coherence.
    pub fn coherence_statistics(&self) -> Result<Vec<u64>> {
        let mut worker = self.worker()?;
        let most = spec::STATISTICS.len();
        let command = worker.spanning(op::COHERENCE_STATISTICS, [0; 4], most * size_of::<u64>());
        let [count, ..] = worker.queue.execute_one(command)?;
        let mut counters = Vec::new();
        for index in 0..most.min(count as usize) {
            let mut counter = [0; size_of::<u64>()];
            worker
                .buffer
                .memory
                .read(index * counter.len(), &mut counter)?;
            counters.push(u64::from_le_bytes(counter));
        }
        Ok(counters)
    }

    /// Compiles a PTX text; the number of its module.
    pub fn load(&self, ptx: &str) -> std::result::Result<u32, LoadError> {
        self.try_load(ptx).map_err(|error| LoadError {
            error,
            log: String::new(),
        })?
    }

    fn try_load(&self, ptx: &str) -> Result<std::result::Result<u32, LoadError>> {
        if ptx.len() > spec::MAX_MODULE as usize {
            return Err(Error::OUT_OF_MEMORY);
        }
        let buffer = self.session.buffer((ptx.len() + LOG) as u64)?;
        buffer.memory.write(0, ptx.as_bytes())?;
        let command = Submission {
            opcode: op::MODULE_LOAD,
            region: buffer.region,
            bytes: ptx.len() as u32,
            args: [buffer.region.into(), ptx.len() as u64, LOG as u64, 0],
            ..Submission::default()
        };
        let mut completion = spec::Completion::default();
        self.worker()?
            .queue
            .execute([command], |done| completion = *done)?;
        let error = match values_of(&completion) {
            Ok([module, ..]) => return Ok(Ok(module as u32)),
            Err(error) => error,
        };
        let mut log = vec![0; LOG.min(completion.values[1] as usize)];
        buffer.memory.read(ptx.len(), &mut log)?;
        Ok(Err(LoadError {
            error,
            log: String::from_utf8_lossy(&log).into_owned(),
        }))
    }

    pub fn unload(&self, module: u32) -> Result<()> {
        self.command(op::MODULE_UNLOAD, [module.into(), 0, 0, 0])
            .map(|_| ())
    }

    /// A kernel by name.
    pub fn kernel(&self, module: u32, name: &str) -> Result<Kernel> {
        let [id, count, ..] = self.named(op::FUNC_GET, module, name)?;
        let [threads, sizes, local_bytes, _] = self.command(op::FUNC_ATTRIBUTES, [id, 0, 0, 0])?;
        Ok(Kernel {
            id: id as u32,
            params: self.params(id, count as usize)?,
            max_threads_per_block: threads as u32,
            registers: (threads >> 32) as u32,
            shared_bytes: sizes & u64::from(u32::MAX),
            const_bytes: sizes >> 32,
            local_bytes,
        })
    }

    fn params(&self, function: u64, count: usize) -> Result<Vec<(u64, u64)>> {
        let bytes = count * size_of::<Param>();
        if count == 0 || bytes > BUFFER {
            return Ok(Vec::new());
        }
        let mut worker = self.worker()?;
        let command = worker.spanning(op::FUNC_PARAMS, [function, 0, 0, 0], bytes);
        worker.queue.execute_one(command)?;
        let param = |index: usize| {
            let at = index * size_of::<Param>();
            let param: Param = worker.buffer.memory.read_entry(at as u64)?;
            Ok((param.offset.into(), param.bytes.into()))
        };
        (0..count).map(param).collect()
    }

    /// Address and bytes of a global variable.
    pub fn global(&self, module: u32, name: &str) -> Result<(u64, u64)> {
        let [address, bytes, ..] = self.named(op::GLOBAL_GET, module, name)?;
        Ok((address, bytes))
    }

    /// Runs kernels one after the other, with one doorbell where their parameters find room together. `done` hears of the end
    /// of each.
    pub fn launch(
        &self,
        launches: &[(u32, Grid, &[u8])],
        mut done: impl FnMut(Result<()>),
    ) -> Result<()> {
        let mut worker = self.worker()?;
        let mut rest = launches;
        while !rest.is_empty() {
            let mut commands = Vec::new();
            let mut at = 0usize;
            for (kernel, grid, params) in rest {
                if params.len() > MAX_PARAMS as usize {
                    return Err(Error::INVALID_VALUE);
                }
                if at + params.len() > BUFFER {
                    break;
                }
                worker.buffer.memory.write(at, params)?;
                commands.push(launch_command(
                    *kernel,
                    grid,
                    worker.buffer.region,
                    at,
                    params,
                ));
                at = (at + params.len()).next_multiple_of(PARAMS_ALIGN);
            }
            rest = &rest[commands.len()..];
            worker.queue.execute(commands, |end| {
                let end = values_of(end);
                // One that has ended in a fault may have printed before.
                if end.is_err() || end.is_ok_and(|[waiting, ..]| waiting > 0) {
                    self.printed.store(true, Ordering::Release);
                }
                done(end.map(|_| ()));
            })?;
        }
        Ok(())
    }

    /// Takes what kernels have printed. The device is asked only when there may be something.
    pub fn take_output(&self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        if !self.printed.swap(false, Ordering::AcqRel) {
            return Ok(output);
        }
        let mut worker = self.worker()?;
        loop {
            let command = worker.spanning(op::TAKE_OUTPUT, [0; 4], BUFFER);
            let [bytes, ..] = worker.queue.execute_one(command)?;
            let mut part = vec![0; BUFFER.min(bytes as usize)];
            worker.buffer.memory.read(0, &mut part)?;
            output.extend(&part);
            if part.is_empty() {
                return Ok(output);
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        for (address, bytes) in std::mem::take(&mut *lock(&self.mapped)) {
            self.session.unmap(address, bytes);
        }
    }
}

impl Worker {
    /// A command with the first bytes of the buffer for its span.
    fn spanning(&self, opcode: u16, args: [u64; 4], bytes: usize) -> Submission {
        Submission {
            opcode,
            region: self.buffer.region,
            bytes: bytes as u32,
            args,
            ..Submission::default()
        }
    }
}

fn launch_command(
    kernel: u32,
    grid: &Grid,
    region: u32,
    offset: usize,
    params: &[u8],
) -> Submission {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]) = (grid.grid, grid.block);
    let (region, offset) = match params.len() {
        0 => (0, 0),
        _ => (region, offset as u64),
    };
    Submission {
        opcode: op::LAUNCH_KERNEL,
        region,
        offset,
        bytes: params.len() as u32,
        args: [
            pair(kernel, grid.shared_bytes),
            pair(grid_x, grid_y),
            pair(grid_z, block_x),
            pair(block_y, block_z),
        ],
        ..Submission::default()
    }
}
