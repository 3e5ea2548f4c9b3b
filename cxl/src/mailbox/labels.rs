//! Label storage area (sections 8.2.9.9.2.3 and 8.2.9.9.2.4), opcodes 0x4102 and 0x4103.

use super::logs::Bytes;
use super::{Command, CommandEffects, Input, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;

/// Get LSA.
pub(super) struct GetLsa;

pub(super) struct GetLsaRequest {
    offset: u32,
    len: u32,
}

impl Request for GetLsaRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            offset: input.u32()?,
            len: input.u32()?,
        })
    }
}

impl Command for GetLsa {
    const OPCODE: u16 = 0x4102;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    const NEEDS_MEDIA: bool = true;
    type Request = GetLsaRequest;
    type Reply = Bytes;

    fn is_supported(memdev: &Memdev) -> bool {
        !memdev.lsa().is_empty()
    }

    fn run(
        memdev: &mut Memdev,
        request: GetLsaRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Bytes, ReturnCode> {
        Bytes::of(memdev.lsa(), request.offset, request.len)
    }
}

/// Set LSA.
pub(super) struct SetLsa;

pub(super) struct SetLsaRequest {
    offset: u32,
    data: Vec<u8>,
}

impl Request for SetLsaRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let offset = input.u32()?;
        let _reserved = input.u32()?;
        Some(Self {
            offset,
            data: input.rest().to_vec(),
        })
    }
}

impl Command for SetLsa {
    const OPCODE: u16 = 0x4103;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_DATA;
    const NEEDS_MEDIA: bool = true;
    type Request = SetLsaRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        GetLsa::is_supported(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        SetLsaRequest { offset, data }: SetLsaRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let start = offset as usize;
        let target = start
            .checked_add(data.len())
            .and_then(|end| memdev.lsa_mut().get_mut(start..end))
            .ok_or(ReturnCode::InvalidInput)?;
        target.copy_from_slice(&data);
        effects.push(Effect::LsaWritten {
            offset,
            len: data.len() as u32,
        });
        Ok(())
    }
}
