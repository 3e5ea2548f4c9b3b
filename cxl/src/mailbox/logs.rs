//! Logs command set (section 8.2.9.5), opcodes 0x0400 to 0x0405.

use super::{
    BackgroundCommand, Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode,
    Start,
};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::background::Operation;
use crate::memdev::debug::{DEBUG_LOG_LEN, STATE_DUMP_LEN};

/// The logs of a device, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// What commands there are (section 8.2.9.5.2.1).
    CommandEffects,
    /// The last commands (section 8.2.9.5.2.2).
    VendorDebug,
    /// The device's state when the host asked for it (section 8.2.9.5.2.3).
    ComponentStateDump,
}

/// UUID of the Command Effects Log, in the byte order of the payload.
pub(crate) const COMMAND_EFFECTS_LOG: [u8; 16] =
    0x0da9c0b5_bf41_4b78_8f79_96b1623b3f17_u128.to_be_bytes();
const VENDOR_DEBUG_LOG: [u8; 16] = 0x5e1819d9_11a9_400c_811f_d60719403d86_u128.to_be_bytes();
const COMPONENT_STATE_DUMP: [u8; 16] = 0xb3fab4cf_01b6_4332_943e_5e9962f23567_u128.to_be_bytes();

impl Log {
    const ALL: [Self; 3] = [
        Self::CommandEffects,
        Self::VendorDebug,
        Self::ComponentStateDump,
    ];

    fn uuid(self) -> [u8; 16] {
        match self {
            Self::CommandEffects => COMMAND_EFFECTS_LOG,
            Self::VendorDebug => VENDOR_DEBUG_LOG,
            Self::ComponentStateDump => COMPONENT_STATE_DUMP,
        }
    }

    fn with_uuid(uuid: [u8; 16]) -> Result<Self, ReturnCode> {
        let found = Self::ALL.into_iter().find(|log| log.uuid() == uuid);
        found.ok_or(ReturnCode::InvalidLog)
    }

    fn size(self, memdev: &Memdev) -> u32 {
        let size = match self {
            Self::CommandEffects => super::command_effects_log(memdev).len(),
            Self::VendorDebug => DEBUG_LOG_LEN,
            Self::ComponentStateDump => STATE_DUMP_LEN,
        };
        size as u32
    }

    fn contents(self, memdev: &Memdev) -> Vec<u8> {
        match self {
            Self::CommandEffects => super::command_effects_log(memdev),
            Self::VendorDebug => memdev.debug_log(),
            Self::ComponentStateDump => memdev.state_dump(),
        }
    }

    /// What Get Log Capabilities tells: bit 0 the host can clear it, bit 1 the host can populate it.
    fn capabilities(self) -> u32 {
        match self {
            Self::CommandEffects => 0,
            Self::VendorDebug => 0b01,
            Self::ComponentStateDump => 0b11,
        }
    }
}

fn encode_entry(log: Log, memdev_size: u32, output: &mut Vec<u8>) {
    output.extend(log.uuid());
    output.extend(memdev_size.to_le_bytes());
}

/// Get Supported Logs (section 8.2.9.5.1).
pub(super) struct GetSupportedLogs;

/// The logs and their sizes.
pub(super) struct SupportedLogs(Vec<(Log, u32)>);

impl SupportedLogs {
    fn of(memdev: &Memdev) -> Self {
        let logs = Log::ALL.into_iter();
        Self(logs.map(|log| (log, log.size(memdev))).collect())
    }
}

impl Reply for SupportedLogs {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend((self.0.len() as u16).to_le_bytes());
        output.extend([0; 6]);
        for (log, size) in &self.0 {
            encode_entry(*log, *size, output);
        }
    }
}

impl Command for GetSupportedLogs {
    const OPCODE: u16 = 0x0400;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = SupportedLogs;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<SupportedLogs, ReturnCode> {
        Ok(SupportedLogs::of(memdev))
    }
}

/// Get Log (section 8.2.9.5.2).
pub(super) struct GetLog;

pub(crate) struct GetLogRequest {
    pub uuid: [u8; 16],
    pub offset: u32,
    pub len: u32,
}

impl Request for GetLogRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            uuid: input.array()?,
            offset: input.u32()?,
            len: input.u32()?,
        })
    }
}

/// Bytes as they are.
pub(crate) struct Bytes(pub Vec<u8>);

impl Bytes {
    /// `len` bytes of `source` from `offset` on, if there are so many and they fit a payload.
    pub(crate) fn of(source: &[u8], offset: u32, len: u32) -> Result<Self, ReturnCode> {
        let (offset, len) = (offset as usize, len as usize);
        let bytes = offset
            .checked_add(len)
            .filter(|_| len <= PAYLOAD_SIZE)
            .and_then(|end| source.get(offset..end))
            .ok_or(ReturnCode::InvalidInput)?;
        Ok(Self(bytes.to_vec()))
    }
}

impl Reply for Bytes {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(&self.0);
    }
}

impl Command for GetLog {
    const OPCODE: u16 = 0x0401;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = GetLogRequest;
    type Reply = Bytes;

    fn run(
        memdev: &mut Memdev,
        request: GetLogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Bytes, ReturnCode> {
        let log = Log::with_uuid(request.uuid)?.contents(memdev);
        Bytes::of(&log, request.offset, request.len)
    }
}

/// Names a log.
pub(super) struct LogRequest {
    uuid: [u8; 16],
}

impl Request for LogRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            uuid: input.array()?,
        })
    }
}

/// Get Log Capabilities (section 8.2.9.5.3).
pub(super) struct GetLogCapabilities;

pub(super) struct LogCapabilities(u32);

impl Reply for LogCapabilities {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.0.to_le_bytes());
    }
}

impl Command for GetLogCapabilities {
    const OPCODE: u16 = 0x0402;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = LogRequest;
    type Reply = LogCapabilities;

    fn run(
        _: &mut Memdev,
        request: LogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<LogCapabilities, ReturnCode> {
        let log = Log::with_uuid(request.uuid)?;
        Ok(LogCapabilities(log.capabilities()))
    }
}

/// Clear Log (section 8.2.9.5.4).
pub(super) struct ClearLog;

impl Command for ClearLog {
    const OPCODE: u16 = 0x0403;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_LOG;
    type Request = LogRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        request: LogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        match Log::with_uuid(request.uuid)? {
            Log::CommandEffects => return Err(ReturnCode::Unsupported),
            Log::VendorDebug => memdev.clear_debug_log(),
            Log::ComponentStateDump => memdev.clear_state_dump(),
        }
        Ok(())
    }
}

/// Populate Log (section 8.2.9.5.5).
pub(super) struct PopulateLog;

impl BackgroundCommand for PopulateLog {
    const OPCODE: u16 = 0x0404;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_LOG.and(CommandEffects::ABORTABLE);
    type Request = LogRequest;
    type Reply = ();

    fn start(
        _: &mut Memdev,
        request: LogRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Start<()>, ReturnCode> {
        match Log::with_uuid(request.uuid)? {
            Log::CommandEffects | Log::VendorDebug => Err(ReturnCode::Unsupported),
            Log::ComponentStateDump => Ok(Start::Background(Operation::populate_state_dump())),
        }
    }
}

/// Get Supported Logs Sub-List (section 8.2.9.5.6).
pub(super) struct GetSupportedLogsSubList;

pub(super) struct SubListRequest {
    count: u8,
    start: u8,
}

impl Request for SubListRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [count, start] = input.array()?;
        Some(Self { count, start })
    }
}

pub(super) struct SubList {
    start: u8,
    logs: Vec<(Log, u32)>,
}

impl Reply for SubList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.logs.len() as u8, 0]);
        output.extend((Log::ALL.len() as u16).to_le_bytes());
        output.extend([self.start, 0, 0, 0]);
        for (log, size) in &self.logs {
            encode_entry(*log, *size, output);
        }
    }
}

impl Command for GetSupportedLogsSubList {
    const OPCODE: u16 = 0x0405;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = SubListRequest;
    type Reply = SubList;

    fn run(
        memdev: &mut Memdev,
        SubListRequest { count, start }: SubListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<SubList, ReturnCode> {
        if usize::from(start) >= Log::ALL.len() {
            return Err(ReturnCode::InvalidInput);
        }
        let SupportedLogs(logs) = SupportedLogs::of(memdev);
        let logs = logs.into_iter().skip(start.into()).take(count.into());
        Ok(SubList {
            start,
            logs: logs.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench};
    use super::*;

    const POPULATE_TIME: u64 = 10_000_000;

    fn get(bench: &mut Bench, uuid: [u8; 16], offset: u32, len: u32) -> Vec<u8> {
        let request = [&uuid[..], &offset.to_le_bytes(), &len.to_le_bytes()].concat();
        bench.run(0x0401, &request).unwrap()
    }

    #[test]
    fn all_logs_are_listed_whole_or_in_part() {
        let mut bench = bench();
        let all = bench.run(0x0400, &[]).unwrap();
        assert_eq!((all.len(), all[0]), (8 + 3 * 20, 3));
        let part = bench.run(0x0405, &[5, 1]).unwrap();
        assert_eq!(part[..8], [2, 0, 3, 0, 1, 0, 0, 0]);
        assert_eq!(part[8..], all[8 + 20..]);
        assert_eq!(bench.run(0x0405, &[1, 3]), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn a_log_is_cleared_and_populated_if_it_can_be() {
        let mut bench = bench();
        for (uuid, capabilities) in [
            (COMMAND_EFFECTS_LOG, 0),
            (VENDOR_DEBUG_LOG, 1),
            (COMPONENT_STATE_DUMP, 3),
        ] {
            let told = bench.run(0x0402, &uuid).unwrap();
            assert_eq!(told, [capabilities, 0, 0, 0]);
            let cleared = bench.run(0x0403, &uuid).is_ok();
            assert_eq!(cleared, capabilities & 1 != 0);
            let populated = bench.run(0x0404, &uuid);
            let started = Err(ReturnCode::BackgroundStarted);
            let refused = Err(ReturnCode::Unsupported);
            assert_eq!(
                populated,
                if capabilities & 2 != 0 {
                    started
                } else {
                    refused
                }
            );
        }
        for opcode in [0x0402, 0x0403, 0x0404] {
            assert_eq!(bench.run(opcode, &[9; 16]), Err(ReturnCode::InvalidLog));
        }
    }

    #[test]
    fn the_vendor_debug_log_has_the_last_commands_and_how_they_ended() {
        let mut bench = bench();
        assert_eq!(get(&mut bench, VENDOR_DEBUG_LOG, 0, 1024), [0; 1024]);
        bench.run(0x4000, &[]).unwrap();
        bench.run(0x4102, &[0xff; 8]).unwrap_err();
        let log = get(&mut bench, VENDOR_DEBUG_LOG, 0, 1024);
        // Timestamp, opcode, return code, length of the input.
        assert_eq!(log[8..16], [0x00, 0x40, 0, 0, 0, 0, 0, 0]);
        assert_eq!(log[24..32], [0x02, 0x41, 2, 0, 8, 0, 0, 0]);
        assert_eq!(log[32..], [0; 1024 - 32], "reading it is not in it");
        for _ in 0..100 {
            bench.run(0x4200, &[]).unwrap();
        }
        let log = get(&mut bench, VENDOR_DEBUG_LOG, 0, 1024);
        assert!(log.chunks(16).all(|entry| entry[8..10] == [0x00, 0x42]));
        bench.run(0x0403, &VENDOR_DEBUG_LOG).unwrap();
        assert_eq!(get(&mut bench, VENDOR_DEBUG_LOG, 0, 16), [0; 16]);
    }

    #[test]
    fn the_state_dump_tells_the_state_at_the_time_it_was_populated() {
        let mut bench = bench();
        assert_eq!(get(&mut bench, COMPONENT_STATE_DUMP, 0, 1024), [0; 1024]);
        bench.run(0x0301, &5_u64.to_le_bytes()).unwrap();
        bench.run(0x4301, &[0; 8]).unwrap();
        bench.effects.clear();
        bench.start(0x0404, &COMPONENT_STATE_DUMP, POPULATE_TIME);
        bench.finish(POPULATE_TIME, ReturnCode::Success);
        bench.run(0x4302, &[0; 72]).unwrap();
        let dump = get(&mut bench, COMPONENT_STATE_DUMP, 0, 1024);
        let len = usize::from(u16::from_le_bytes([dump[0], dump[1]]));
        let timestamp = u64::from_le_bytes(dump[0x10..0x18].try_into().unwrap());
        assert_eq!(timestamp, 5 + POPULATE_TIME);
        let text = String::from_utf8(dump[0x40..0x40 + len].to_vec()).unwrap();
        assert!(text.contains("poison listed: 1\n"), "{text}");
        bench.run(0x0403, &COMPONENT_STATE_DUMP).unwrap();
        assert_eq!(get(&mut bench, COMPONENT_STATE_DUMP, 0, 1024), [0; 1024]);
    }
}
