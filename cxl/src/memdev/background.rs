//! Background operations (section 8.2.8.4.5.1): one at a time, for as long as its work takes.
//!
//! The work that the machine has to do is asked for when an operation starts, and is done when the host's access returns;
//! what the host can see of it appears when the time has passed. The machine is asked for an alarm then, and calls
//! [`Memdev::advance`].

use super::Memdev;
use super::debug::POPULATE_TIME;
use super::repair::RepairRequest;
use crate::Effect;
use crate::mailbox::ReturnCode;

/// What a background operation does when its time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Looks for poison in a range.
    ScanMedia {
        dpa: u64,
        len: u64,
        /// Log what is found.
        log: bool,
    },
    /// Has emptied the device, and enables the media again.
    Sanitize,
    /// Authenticates the image that begins with `head`, and puts it into a slot.
    StoreFirmware { slot: u8, head: Vec<u8> },
    /// Starts the image in a slot.
    ActivateFirmware { slot: u8 },
    /// Puts a spare part in the place of what is bad.
    Repair(RepairRequest),
    /// Dumps the device's state into a log.
    PopulateStateDump,
    /// Has zeroed ranges, each an address and a length.
    ZeroMedia { ranges: Vec<(u64, u64)> },
}

/// How long `len` bytes take at so many ns for a GiB.
pub(super) fn time_for(len: u64, ns_per_gib: u64) -> u64 {
    let time = (u128::from(len) * u128::from(ns_per_gib)) >> 30;
    u64::try_from(time).unwrap_or(u64::MAX)
}

/// A background operation that is to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// How long it takes, in ns.
    pub duration: u64,
    pub work: Work,
}

impl Operation {
    pub(crate) fn populate_state_dump() -> Self {
        Self {
            duration: POPULATE_TIME,
            work: Work::PopulateStateDump,
        }
    }
}

#[derive(Debug)]
struct Running {
    opcode: u16,
    /// By the device's clock, in ns.
    started: u64,
    abortable: bool,
    operation: Operation,
}

/// What the Background Command Status register shows (section 8.2.8.4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundStatus {
    /// The operation that runs, or the last one.
    pub opcode: u16,
    /// 0 to 100; 100 means that it has ended.
    pub percent: u8,
    /// How it ended.
    pub return_code: u16,
}

/// The background operation of a device.
#[derive(Debug, Default)]
pub(crate) struct Background {
    running: Option<Running>,
    ended: BackgroundStatus,
}

impl Background {
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Memdev {
    /// True while a background operation runs.
    pub fn is_background_running(&self) -> bool {
        self.background.running.is_some()
    }

    /// The background operation that runs, or how the last one ended.
    pub fn background_status(&self) -> BackgroundStatus {
        let Some(running) = &self.background.running else {
            return self.background.ended;
        };
        let elapsed = u128::from((self.clock)().saturating_sub(running.started));
        let percent = elapsed * 100 / u128::from(running.operation.duration.max(1));
        BackgroundStatus {
            opcode: running.opcode,
            percent: percent.min(99) as u8,
            return_code: ReturnCode::Success as u16,
        }
    }

    /// What runs in the background, if anything does.
    pub(crate) fn background_work(&self) -> Option<&Work> {
        let running = self.background.running.as_ref()?;
        Some(&running.operation.work)
    }

    /// Starts an operation; none may run.
    pub(crate) fn start_background(
        &mut self,
        opcode: u16,
        abortable: bool,
        operation: Operation,
        effects: &mut Vec<Effect>,
    ) {
        match &operation.work {
            Work::ScanMedia { .. }
            | Work::StoreFirmware { .. }
            | Work::ActivateFirmware { .. }
            | Work::PopulateStateDump
            | Work::Repair(_) => {}
            Work::Sanitize => self.begin_sanitize(effects),
            Work::ZeroMedia { ranges } => {
                for (dpa, len) in ranges {
                    self.zero_media(*dpa, *len, effects);
                }
            }
        }
        let after = operation.duration;
        effects.push(Effect::Alarm { after });
        self.background.running = Some(Running {
            opcode,
            started: (self.clock)(),
            abortable,
            operation,
        });
    }

    /// Ends the background operation if its time has passed. True if it has.
    pub fn advance(&mut self, effects: &mut Vec<Effect>) -> bool {
        let now = (self.clock)();
        let is_over = |running: &mut Running| {
            now.saturating_sub(running.started) >= running.operation.duration
        };
        let Some(Running {
            opcode, operation, ..
        }) = self.background.running.take_if(is_over)
        else {
            return false;
        };
        let code = self.finish(operation.work, effects);
        self.end_background(opcode, code);
        true
    }

    /// Request Abort Background Operation (section 8.2.9.1.5). Ends what runs, if it can be aborted.
    pub(crate) fn abort_background(&mut self) -> Result<(), ReturnCode> {
        let running = self.background.running.take_if(|running| running.abortable);
        let running = running.ok_or(ReturnCode::InvalidInput)?;
        self.end_background(running.opcode, ReturnCode::Aborted);
        Ok(())
    }

    fn end_background(&mut self, opcode: u16, code: ReturnCode) {
        self.background.ended = BackgroundStatus {
            opcode,
            percent: 100,
            return_code: code as u16,
        };
    }

    fn finish(&mut self, work: Work, effects: &mut Vec<Effect>) -> ReturnCode {
        match work {
            Work::ScanMedia { dpa, len, log } => self.finish_scan(dpa, len, log, effects),
            Work::Sanitize => effects.push(Effect::AccessChanged),
            Work::ZeroMedia { .. } => {}
            Work::PopulateStateDump => self.populate_state_dump(),
            Work::StoreFirmware { slot, head } => {
                return self.finish_firmware(slot, &head, effects);
            }
            Work::ActivateFirmware { slot } => return self.finish_activation(slot, effects),
            Work::Repair(request) => return self.finish_repair(request, effects),
        }
        ReturnCode::Success
    }
}
