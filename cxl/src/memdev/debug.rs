//! What a device tells of itself for debugging: its last commands, and a dump of its state.

use std::collections::VecDeque;
use std::fmt::Write;

use super::Memdev;
use crate::mailbox::ReturnCode;

/// Commands that the vendor debug log holds.
const COMMANDS: usize = 64;
/// Bytes of a command in it: timestamp (8), opcode (2), return code (2), input length (4).
const COMMAND_LEN: usize = 16;
/// Bytes of the vendor debug log, empty or not.
pub(crate) const DEBUG_LOG_LEN: usize = COMMANDS * COMMAND_LEN;
/// Bytes of the component state dump (section 8.2.9.5.2.3), populated or not.
pub(crate) const STATE_DUMP_LEN: usize = STATE_DUMP_HEADER_LEN + 0x3c0;
const STATE_DUMP_HEADER_LEN: usize = 0x40;
/// The format of our dump: lines of text.
const STATE_DUMP_FORMAT: [u8; 16] = 0x6d656d75_7374_6174_8564_756d70303031_u128.to_be_bytes();
/// To populate the dump, in ns.
pub(super) const POPULATE_TIME: u64 = 10_000_000;

/// The last commands, and the last dump.
#[derive(Debug, Default)]
pub(super) struct Debug {
    commands: VecDeque<[u8; COMMAND_LEN]>,
    dump: Option<Vec<u8>>,
}

impl Memdev {
    /// Notes a command for the vendor debug log.
    pub(crate) fn note_command(&mut self, opcode: u16, code: ReturnCode, input_len: usize) {
        let mut entry = self.timestamp().to_le_bytes().to_vec();
        entry.extend(opcode.to_le_bytes());
        entry.extend((code as u16).to_le_bytes());
        entry.extend((input_len as u32).to_le_bytes());
        if self.debug.commands.len() >= COMMANDS {
            self.debug.commands.pop_front();
        }
        self.debug.commands.extend(entry.first_chunk().copied());
    }

    /// The vendor debug log: the last commands, oldest first, then zeroes.
    pub(crate) fn debug_log(&self) -> Vec<u8> {
        let mut log: Vec<u8> = self.debug.commands.iter().flatten().copied().collect();
        log.resize(DEBUG_LOG_LEN, 0);
        log
    }

    /// The component state dump as it was last populated: data length, timestamp and format, then the data.
    pub(crate) fn state_dump(&self) -> Vec<u8> {
        let mut log = self.debug.dump.clone().unwrap_or_default();
        log.resize(STATE_DUMP_LEN, 0);
        log
    }

    pub(super) fn populate_state_dump(&mut self) {
        let mut text = String::new();
        let partition = self.partition();
        let firmware = self.firmware();
        let lines: [(&str, &dyn std::fmt::Display); 9] = [
            ("volatile", &partition.volatile),
            ("persistent", &partition.persistent),
            ("firmware slot", &firmware.active),
            ("security state", &self.security_state()),
            ("shutdown dirty", &self.shutdown_dirty()),
            ("dirty shutdowns", &self.health().dirty_shutdowns),
            ("event status", &self.events().status()),
            ("poison listed", &self.poison().listed()),
            ("extents", &self.extents().len()),
        ];
        for (what, value) in lines {
            // A String takes whatever is written.
            let _ = writeln!(text, "{what}: {value}");
        }
        let mut dump = (text.len() as u32).to_le_bytes().to_vec();
        // Populated by the host, for no event: auto populate data (1), event log (1), handle (2), reserved (8).
        dump.extend([0; 12]);
        dump.extend(self.timestamp().to_le_bytes());
        dump.extend(STATE_DUMP_FORMAT);
        dump.resize(STATE_DUMP_HEADER_LEN, 0);
        dump.extend(text.bytes());
        dump.truncate(STATE_DUMP_LEN);
        self.debug.dump = Some(dump);
    }

    /// Empties the vendor debug log.
    pub(crate) fn clear_debug_log(&mut self) {
        self.debug.commands.clear();
    }

    /// Forgets the component state dump.
    pub(crate) fn clear_state_dump(&mut self) {
        self.debug.dump = None;
    }
}
