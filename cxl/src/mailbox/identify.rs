//! Identify Memory Device (section 8.2.9.9.1.1).

use super::firmware::{Revision, revision};
use super::{Command, CommandEffects, Reply, ReturnCode};
use crate::event::LOG_CAPACITY;
use crate::memdev::Memdev;
use crate::memdev::poison::{INJECT_LIMIT, POISON_LIST_CAPACITY};
use crate::{CAPACITY_UNIT, Effect};

pub(super) struct Identify;

/// Sizes in bytes.
pub(super) struct Identity {
    firmware_revision: Revision,
    total: u64,
    volatile_only: u64,
    persistent_only: u64,
    /// 0 if the capacity has no partitions to move.
    partition_alignment: u64,
    event_log_size: u16,
    /// 0 if the device has no dynamic capacity.
    dynamic_log_size: u16,
    lsa_size: u32,
}

impl Identity {
    /// Poison handling capabilities: poison in persistent memory survives every reset.
    const INJECTS_PERSISTENT_POISON: u8 = 1 << 0;
}

impl Reply for Identity {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.firmware_revision);
        for bytes in [
            self.total,
            self.volatile_only,
            self.persistent_only,
            self.partition_alignment,
        ] {
            output.extend((bytes / CAPACITY_UNIT).to_le_bytes());
        }
        for _log in 0..4 {
            output.extend(self.event_log_size.to_le_bytes());
        }
        output.extend(self.lsa_size.to_le_bytes());
        output.extend((POISON_LIST_CAPACITY as u32).to_le_bytes().iter().take(3));
        output.extend((INJECT_LIMIT as u16).to_le_bytes());
        output.push(Self::INJECTS_PERSISTENT_POISON);
        // No QoS capabilities.
        output.push(0);
        output.extend(self.dynamic_log_size.to_le_bytes());
    }
}

impl Command for Identify {
    const OPCODE: u16 = 0x4000;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Identity;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Identity, ReturnCode> {
        let config = memdev.config();
        Ok(Identity {
            firmware_revision: revision(memdev, memdev.firmware().active),
            total: memdev.capacity(),
            volatile_only: config.volatile,
            persistent_only: config.persistent,
            partition_alignment: if config.partitionable == 0 {
                0
            } else {
                CAPACITY_UNIT
            },
            event_log_size: LOG_CAPACITY as u16,
            dynamic_log_size: match config.dynamic.is_empty() {
                true => 0,
                false => LOG_CAPACITY as u16,
            },
            lsa_size: memdev.lsa().len() as u32,
        })
    }
}
