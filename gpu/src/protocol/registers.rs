//! The register page of the command window: a state machine that takes an access and says what the guest asks for.

use super::spec::{self, cmd_status, reg, result, status};
use crate::backend::Properties;

/// Registers are dwords; the wider ones are pairs.
const DWORD: u64 = 4;
const PARAMS_END: u64 = reg::PARAM0 + reg::PARAMS as u64 * 8;
const RESULTS_END: u64 = reg::RESULT0 + reg::RESULTS as u64 * 8;
const NAME_END: u64 = reg::DEV_NAME + reg::DEV_NAME_SIZE as u64;
const ARGS_END: u64 = reg::CONTROL_ARG0 + reg::CONTROL_ARGS as u64 * 8;
const OUTS_END: u64 = reg::CONTROL_OUT0 + reg::CONTROL_OUTS as u64 * 8;
const FREE_MEM_HIGH: u64 = reg::FREE_MEM + DWORD;
const TOTAL_MEM_HIGH: u64 = reg::TOTAL_MEM + DWORD;

/// A command of version 1, as it was when [`reg::CMD`] was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// One of [`spec::cmd`], or anything else.
    pub code: u32,
    pub params: [u64; reg::PARAMS],
    /// Which of all commands it is.
    pub serial: u64,
}

/// What became of a [`Command`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `CUresult`.
    pub result: u32,
    pub results: [u64; reg::RESULTS],
    /// Whether there is a context now.
    pub context: bool,
}

/// A command of [`reg::CONTROL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// One of [`spec::control`], or anything else.
    pub code: u32,
    pub args: [u64; reg::CONTROL_ARGS],
}

/// What became of a [`Control`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// `CUresult`.
    pub result: u32,
    pub outs: [u64; reg::CONTROL_OUTS],
}

/// What a write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Execute it beside the guest, then call [`Registers::complete`].
    Command(Command),
    /// Execute it and call [`Registers::reply`] before the guest goes on.
    Control(Control),
    /// The guest wants no rings any more: end all sessions of version 2.
    CloseSessions,
    /// The registers were reset: end everything, before the guest goes on.
    Reset,
}

/// The register page.
#[derive(Clone, Debug)]
pub struct Registers {
    properties: Properties,
    name: [u8; reg::DEV_NAME_SIZE],
    params: [u64; reg::PARAMS],
    cmd: u32,
    cmd_status: u32,
    /// Commands started since power-on.
    serial: u64,
    outcome: Outcome,
    version: u32,
    control: u32,
    args: [u64; reg::CONTROL_ARGS],
    reply: Reply,
    /// Bytes of free memory as they were when the low half was read, so that both halves belong together.
    free: u64,
}

impl Registers {
    /// The page of a device after reset.
    #[must_use]
    pub fn new(properties: Properties) -> Self {
        let mut name = [0; reg::DEV_NAME_SIZE];
        // The last byte stays NUL.
        let text = properties.name.bytes().take(reg::DEV_NAME_SIZE - 1);
        name.iter_mut().zip(text).for_each(|(to, from)| *to = from);
        Self {
            properties,
            name,
            params: [0; reg::PARAMS],
            cmd: 0,
            cmd_status: cmd_status::IDLE,
            serial: 0,
            outcome: Outcome::default(),
            version: spec::VERSION_1,
            control: 0,
            args: [0; reg::CONTROL_ARGS],
            reply: Reply::default(),
            free: 0,
        }
    }

    /// Back to the state after reset. A command that still runs is forgotten.
    pub fn reset(&mut self) {
        let serial = self.serial;
        *self = Self::new(self.properties.clone());
        self.serial = serial;
    }

    /// Whether a command of version 1 runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.cmd_status == cmd_status::RUNNING
    }

    /// Whether rings are on.
    #[must_use]
    pub fn has_rings(&self) -> bool {
        self.version == spec::VERSION_2
    }

    /// Ends the command with this number, if it still runs.
    pub fn complete(&mut self, serial: u64, outcome: Outcome) {
        if self.is_busy() && serial == self.serial {
            self.outcome = outcome;
            self.cmd_status = cmd_status::COMPLETE;
        }
    }

    /// Ends the control command at hand.
    pub fn reply(&mut self, reply: Reply) {
        self.reply = reply;
    }

    /// Reads 4 or 8 naturally aligned bytes; other reads give 0. `free` are the bytes of free memory now.
    pub fn read(&mut self, offset: u64, data: &mut [u8], free: impl Fn() -> u64) {
        data.fill(0);
        if !is_whole(offset, data.len()) {
            return;
        }
        for (index, bytes) in (0..).zip(data.chunks_mut(4)) {
            // Within the address space, since the whole access is aligned.
            let at = offset + DWORD * index;
            if at == reg::FREE_MEM {
                self.free = free();
            }
            bytes.copy_from_slice(&self.dword(at).to_le_bytes());
        }
    }

    /// Writes 4 or 8 naturally aligned bytes; other writes do nothing.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<Request> {
        if !is_whole(offset, data.len()) {
            return None;
        }
        let mut request = None;
        for (index, bytes) in (0..).zip(data.chunks(4)) {
            let at = offset + DWORD * index;
            let value = bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u32::from(byte));
            request = request.or(self.write_dword(at, value));
        }
        request
    }

    fn status(&self) -> u32 {
        let failed = self.cmd_status == cmd_status::COMPLETE && self.outcome.result != 0;
        [
            (true, status::READY),
            (self.is_busy(), status::BUSY),
            (failed, status::ERROR),
            (self.outcome.context, status::CTX_ACTIVE),
        ]
        .iter()
        .filter(|(set, _)| *set)
        .fold(0, |bits, (_, bit)| bits | bit)
    }

    fn dword(&self, offset: u64) -> u32 {
        let properties = &self.properties;
        match offset {
            reg::MAGIC => spec::MAGIC,
            reg::VERSION => spec::VERSION_1,
            reg::STATUS => self.status(),
            reg::CMD => self.cmd,
            reg::CMD_STATUS => self.cmd_status,
            reg::CMD_RESULT => self.outcome.result,
            reg::PARAM0..PARAMS_END => half(&self.params, offset - reg::PARAM0),
            reg::RESULT0..RESULTS_END => half(&self.outcome.results, offset - reg::RESULT0),
            reg::DEV_NAME..NAME_END => {
                let at = (offset - reg::DEV_NAME) as usize;
                let bytes = self.name.iter().skip(at).take(4);
                bytes
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u32::from(byte))
            }
            reg::TOTAL_MEM => low(properties.memory),
            TOTAL_MEM_HIGH => high(properties.memory),
            reg::FREE_MEM => low(self.free),
            FREE_MEM_HIGH => high(self.free),
            reg::CC_MAJOR => properties.compute_capability.0,
            reg::CC_MINOR => properties.compute_capability.1,
            reg::MP_COUNT => properties.multiprocessors,
            reg::MAX_THREADS => properties.max_threads,
            reg::WARP_SIZE => crate::ptx::WARP as u32,
            reg::BACKEND => properties.backend,
            reg::VERSION_MAX => spec::VERSION_2,
            reg::VERSION_SELECT => self.version,
            reg::QUEUES => spec::QUEUES,
            reg::SESSIONS => spec::SESSIONS,
            reg::MAX_DEPTH => spec::MAX_DEPTH,
            reg::DRIVER_VERSION => properties.driver_version,
            reg::CONTROL => self.control,
            reg::CONTROL_RESULT => self.reply.result,
            reg::CONTROL_ARG0..ARGS_END => half(&self.args, offset - reg::CONTROL_ARG0),
            reg::CONTROL_OUT0..OUTS_END => half(&self.reply.outs, offset - reg::CONTROL_OUT0),
            _ => 0,
        }
    }

    fn write_dword(&mut self, offset: u64, value: u32) -> Option<Request> {
        match offset {
            reg::PARAM0..PARAMS_END => set_half(&mut self.params, offset - reg::PARAM0, value),
            reg::CONTROL_ARG0..ARGS_END => {
                set_half(&mut self.args, offset - reg::CONTROL_ARG0, value);
            }
            reg::CMD if !self.is_busy() => {
                self.cmd = value;
                self.cmd_status = cmd_status::RUNNING;
                self.serial += 1;
                return Some(Request::Command(Command {
                    code: value,
                    params: self.params,
                    serial: self.serial,
                }));
            }
            reg::VERSION_SELECT => {
                let before = self.version;
                if matches!(value, spec::VERSION_1 | spec::VERSION_2) {
                    self.version = value;
                }
                if before == spec::VERSION_2 && !self.has_rings() {
                    return Some(Request::CloseSessions);
                }
            }
            reg::CONTROL => {
                self.control = value;
                self.reply = Reply {
                    result: result::NOT_INITIALIZED,
                    ..Reply::default()
                };
                if self.has_rings() {
                    return Some(Request::Control(Control {
                        code: value,
                        args: self.args,
                    }));
                }
            }
            _ => {}
        }
        None
    }
}

/// Whether an access reaches registers: an aligned dword or quadword.
fn is_whole(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// The dword at `offset` bytes of an array of quadwords.
fn half(values: &[u64], offset: u64) -> u32 {
    let value = values.get((offset / 8) as usize).copied().unwrap_or(0);
    if offset.is_multiple_of(8) {
        low(value)
    } else {
        high(value)
    }
}

fn set_half(values: &mut [u64], offset: u64, dword: u32) {
    if let Some(value) = values.get_mut((offset / 8) as usize) {
        let shift = offset % 8 * 8;
        *value = *value & !(u64::from(u32::MAX) << shift) | u64::from(dword) << shift;
    }
}

#[cfg(test)]
#[path = "registers_test.rs"]
mod tests;
