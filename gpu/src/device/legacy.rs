//! Commands of version 1: one context, one command at a time, data in a buffer of the window.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::execute::Done;
use super::session::Session;
use crate::Error;
use crate::backend::{Kernel, LaunchConfig, Placement};
use crate::protocol::registers::{Command, Outcome};
use crate::protocol::spec::{MAX_NAME, cmd};

/// Bytes of an argument of a kernel in the data buffer.
const SLOT: u64 = 8;

/// What there is of version 1 between two commands.
#[derive(Default)]
pub struct Legacy {
    initialized: bool,
    context: Option<Arc<Session>>,
    /// Contexts made so far.
    contexts: u64,
}

impl Legacy {
    /// The context, if there is one.
    pub fn context(&self) -> Option<&Arc<Session>> {
        self.context.as_ref()
    }

    /// Executes a command; `new_session` makes a session.
    pub fn execute(
        &mut self,
        command: &Command,
        data: VolatileSlice<'_>,
        new_session: impl FnOnce() -> Arc<Session>,
    ) -> Outcome {
        let done = Done::from(self.try_execute(command, data, new_session));
        Outcome {
            result: done.result,
            results: done.values,
            context: self.context.is_some(),
        }
    }

    fn try_execute(
        &mut self,
        command: &Command,
        data: VolatileSlice<'_>,
        new_session: impl FnOnce() -> Arc<Session>,
    ) -> Result<[u64; 4], Error> {
        let [p0, p1, ..] = command.params;
        if command.code == cmd::INIT {
            self.initialized = true;
            return Ok([0; 4]);
        }
        if !self.initialized {
            return Err(Error::NotInitialized);
        }
        let mut answer = 0;
        match command.code {
            cmd::GET_DEVICE_COUNT => answer = 1,
            cmd::CTX_CREATE => {
                self.destroy();
                let session = new_session();
                session.context()?;
                self.context = Some(session);
                self.contexts += 1;
                answer = self.contexts;
            }
            cmd::CTX_DESTROY => {
                self.session()?;
                self.destroy();
            }
            cmd::CTX_SYNC => self.session()?.check()?,
            cmd::MEM_ALLOC => answer = self.session()?.alloc(p0, Placement::Device)?,
            cmd::MEM_FREE => self.session()?.free(p0)?,
            cmd::MEM_COPY_HTOD => {
                let (session, from) = (self.session()?, part(data, p1)?);
                session.apart(|| session.write(p0, from))?;
            }
            cmd::MEM_COPY_DTOH => {
                let (session, to) = (self.session()?, part(data, p1)?);
                session.apart(|| session.read(p0, to))?;
            }
            cmd::MODULE_LOAD_PTX => answer = load(self.session()?, data)?.into(),
            cmd::FUNC_GET => {
                let name = text(data, MAX_NAME as usize);
                let name = String::from_utf8_lossy(&name);
                answer = self.session()?.function(p0, &name)?.0.into();
            }
            cmd::LAUNCH_KERNEL => {
                let session = self.session()?;
                session.apart(|| launch(session, &command.params, data))?;
            }
            _ => return Err(Error::InvalidValue("version 1 has no such command")),
        }
        Ok([answer, 0, 0, 0])
    }

    fn session(&self) -> Result<&Arc<Session>, Error> {
        self.context.as_ref().ok_or(Error::InvalidContext)
    }

    fn destroy(&mut self) {
        if let Some(session) = self.context.take() {
            session.close();
            session.clear();
        }
    }
}

/// The first bytes of the data buffer.
fn part(data: VolatileSlice<'_>, bytes: u64) -> Result<VolatileSlice<'_>, Error> {
    usize::try_from(bytes)
        .ok()
        .and_then(|bytes| data.subslice(0, bytes).ok())
        .ok_or(Error::InvalidValue("more bytes than the data buffer has"))
}

/// A copy of the data buffer up to a NUL, at most `most` bytes.
fn text(data: VolatileSlice<'_>, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; data.len().min(most)];
    data.copy_to(&mut bytes);
    let end = bytes.iter().position(|&byte| byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

/// Loads the text in the data buffer. If it is refused, the buffer holds the log afterwards.
fn load(session: &Session, data: VolatileSlice<'_>) -> Result<u32, Error> {
    let loaded = session.load(&text(data, data.len()));
    if let Some(log) = loaded.as_ref().err().and_then(Error::log) {
        let most = data.len().saturating_sub(1);
        let log: Vec<u8> = log.bytes().take(most).chain([0]).collect();
        data.copy_from(&log);
    }
    loaded
}

fn launch(session: &Session, params: &[u64; 8], data: VolatileSlice<'_>) -> Result<(), Error> {
    let [function, grid, mixed, block, rest, ..] = *params;
    let low = |value: u64| value as u32;
    let high = |value: u64| (value >> 32) as u32;
    let config = LaunchConfig {
        grid: [low(grid), high(grid), low(mixed)],
        block: [high(mixed), low(block), high(block)],
        dynamic_shared: low(rest),
    };
    let kernel = session.kernel(function)?;
    let params = arguments(&*kernel, high(rest).into(), data)?;
    session.launch(&*kernel, &config, &params)
}

/// The parameter buffer of a kernel from a slot of 8 bytes for each argument.
fn arguments(kernel: &dyn Kernel, count: u64, data: VolatileSlice<'_>) -> Result<Vec<u8>, Error> {
    let params = kernel.params();
    if count != params.len() as u64 {
        return Err(Error::InvalidValue(
            "another number of arguments than the kernel has",
        ));
    }
    let mut slots = vec![0; params.len() * SLOT as usize];
    part(data, slots.len() as u64)?.copy_to(&mut slots);
    let mut buffer = Vec::new();
    for (&(offset, bytes), slot) in params.iter().zip(slots.chunks_exact(SLOT as usize)) {
        let value = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| slot.get(..bytes))
            .ok_or(Error::InvalidValue("an argument of more than 8 bytes"))?;
        buffer.resize(offset as usize, 0);
        buffer.extend_from_slice(value);
    }
    Ok(buffer)
}
