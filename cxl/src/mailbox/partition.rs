//! Capacity configuration (section 8.2.9.9.2), opcodes 0x4100 and 0x4101.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::memdev::{Memdev, Partition};
use crate::{CAPACITY_UNIT, Effect};

/// Get Partition Info (section 8.2.9.9.2.1).
pub(super) struct GetPartitionInfo;

pub(super) struct PartitionInfo {
    active: Partition,
    /// If it will change.
    next: Option<Partition>,
}

impl Reply for PartitionInfo {
    fn encode(&self, output: &mut Vec<u8>) {
        let next = self
            .next
            .map_or([0, 0], |next| [next.volatile, next.persistent]);
        for bytes in [self.active.volatile, self.active.persistent]
            .into_iter()
            .chain(next)
        {
            output.extend((bytes / CAPACITY_UNIT).to_le_bytes());
        }
    }
}

impl Command for GetPartitionInfo {
    const OPCODE: u16 = 0x4100;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = PartitionInfo;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<PartitionInfo, ReturnCode> {
        Ok(PartitionInfo {
            active: memdev.partition(),
            next: memdev.next_partition(),
        })
    }
}

/// Set Partition Info (section 8.2.9.9.2.2), of devices with partitionable capacity.
pub(super) struct SetPartitionInfo;

pub(super) struct SetPartitionRequest {
    /// Of the partitionable capacity, in units of 256 MiB.
    volatile: u64,
    flags: u8,
}

impl SetPartitionRequest {
    /// Change at once, which this device does not.
    const IMMEDIATE: u8 = 1;
}

impl Request for SetPartitionRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let request = Self {
            volatile: input.u64()?,
            flags: input.u8()?,
        };
        // Linux gives the payload a length of 10 bytes, the specification one of 9.
        input.u8();
        Some(request)
    }
}

impl Command for SetPartitionInfo {
    const OPCODE: u16 = 0x4101;
    const EFFECTS: CommandEffects = CommandEffects::CONFIGURATION_AFTER_COLD_RESET;
    type Request = SetPartitionRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        memdev.config().partitionable > 0
    }

    fn run(
        memdev: &mut Memdev,
        request: SetPartitionRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if request.flags & SetPartitionRequest::IMMEDIATE != 0 {
            return Err(ReturnCode::InvalidInput);
        }
        request
            .volatile
            .checked_mul(CAPACITY_UNIT)
            .filter(|volatile| memdev.set_next_partition(*volatile, effects))
            .map(|_| ())
            .ok_or(ReturnCode::InvalidInput)
    }
}
