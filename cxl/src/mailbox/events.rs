//! Events command set (section 8.2.9.2), opcodes 0x0100 to 0x0103.

use super::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};
use crate::Effect;
use crate::event::{EventLogs, InterruptMode, Overflow, RECORD_LEN};

/// A component with event logs.
pub(crate) trait Logging {
    /// Them.
    fn logs(&self) -> &EventLogs;
    /// Them, to be changed.
    fn logs_mut(&mut self) -> &mut EventLogs;
}

/// Get Event Records (section 8.2.9.2.2).
pub(crate) struct GetEventRecords;

/// Names a log.
pub(crate) struct EventLogRequest {
    log: u8,
}

impl Request for EventLogRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self { log: input.u8()? })
    }
}

pub(crate) struct EventRecords {
    overflow: Overflow,
    /// There are more than these.
    more: bool,
    records: Vec<[u8; RECORD_LEN]>,
}

impl EventRecords {
    const HEADER_LEN: usize = 0x20;
    /// So many fit a payload.
    const MAX: usize = (PAYLOAD_SIZE - Self::HEADER_LEN) / RECORD_LEN;
}

impl Reply for EventRecords {
    fn encode(&self, output: &mut Vec<u8>) {
        let flags = u8::from(self.overflow.count > 0) | u8::from(self.more) << 1;
        output.extend([flags, 0]);
        output.extend(self.overflow.count.to_le_bytes());
        output.extend(self.overflow.first.to_le_bytes());
        output.extend(self.overflow.last.to_le_bytes());
        output.extend((self.records.len() as u16).to_le_bytes());
        output.extend([0; 10]);
        output.extend(self.records.iter().flatten());
    }
}

impl<D: Logging> Command<D> for GetEventRecords {
    const OPCODE: u16 = 0x0100;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = EventLogRequest;
    type Reply = EventRecords;

    fn run(
        device: &mut D,
        request: EventLogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<EventRecords, ReturnCode> {
        let log = device.logs().numbered(request.log);
        let log = log.ok_or(ReturnCode::InvalidInput)?;
        Ok(EventRecords {
            overflow: log.overflow(),
            more: log.len() > EventRecords::MAX,
            records: log.records().take(EventRecords::MAX).copied().collect(),
        })
    }
}

/// Clear Event Records (section 8.2.9.2.3).
pub(crate) struct ClearEventRecords;

pub(crate) struct ClearRequest {
    log: u8,
    flags: u8,
    handles: Vec<u16>,
}

impl ClearRequest {
    /// Clear all records instead of the named ones.
    const ALL: u8 = 1;
}

impl Request for ClearRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [log, flags, count, _, _, _] = input.array()?;
        let handles = (0..count).map(|_| input.u16()).collect::<Option<_>>()?;
        Some(Self {
            log,
            flags,
            handles,
        })
    }
}

impl<D: Logging> Command<D> for ClearEventRecords {
    const OPCODE: u16 = 0x0101;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_LOG;
    type Request = ClearRequest;
    type Reply = ();

    fn run(device: &mut D, request: ClearRequest, _: &mut Vec<Effect>) -> Result<(), ReturnCode> {
        let log = device.logs_mut().numbered_mut(request.log);
        let log = log.ok_or(ReturnCode::InvalidInput)?;
        match request.flags & ClearRequest::ALL {
            0 if request.handles.is_empty() => Err(ReturnCode::InvalidInput),
            0 => log.clear(&request.handles),
            _ if request.handles.is_empty() => log.clear_all(),
            _ => Err(ReturnCode::InvalidInput),
        }
    }
}

/// Get Event Interrupt Policy (section 8.2.9.2.4).
pub(crate) struct GetInterruptPolicy;

/// One byte per log: mode in bits 1:0, message number in bits 7:4. The one of dynamic capacity may be left out.
pub(crate) struct InterruptPolicy(Vec<u8>);

impl Reply for InterruptPolicy {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(&self.0);
    }
}

impl Request for InterruptPolicy {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let mut settings = input.array::<4>()?.to_vec();
        settings.extend(input.u8());
        Some(Self(settings))
    }
}

const MODE_MASK: u8 = 0b11;
const MODE_NONE: u8 = 0;
const MODE_MSI: u8 = 1;

impl<D: Logging> Command<D> for GetInterruptPolicy {
    const OPCODE: u16 = 0x0102;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = InterruptPolicy;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<InterruptPolicy, ReturnCode> {
        let logs = device.logs().all();
        let settings = logs.map(|log| match log.mode() {
            InterruptMode::None => MODE_NONE,
            InterruptMode::Msi => MODE_MSI | log.vector() << 4,
        });
        Ok(InterruptPolicy(settings.collect()))
    }
}

/// Set Event Interrupt Policy (section 8.2.9.2.5).
///
/// The device has no firmware interrupts, so a log notifies by MSI or not at all.
pub(crate) struct SetInterruptPolicy;

impl<D: Logging> Command<D> for SetInterruptPolicy {
    const OPCODE: u16 = 0x0103;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = InterruptPolicy;
    type Reply = ();

    fn run(
        device: &mut D,
        InterruptPolicy(settings): InterruptPolicy,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if settings.len() > device.logs().all().count() {
            return Err(ReturnCode::InvalidPayloadLength);
        }
        let modes = settings.iter().map(|setting| match setting & MODE_MASK {
            MODE_NONE => Ok(InterruptMode::None),
            MODE_MSI => Ok(InterruptMode::Msi),
            _ => Err(ReturnCode::InvalidInput),
        });
        let modes = modes.collect::<Result<Vec<_>, _>>()?;
        for (log, mode) in device.logs_mut().all_mut().zip(modes) {
            log.set_mode(mode);
        }
        Ok(())
    }
}
