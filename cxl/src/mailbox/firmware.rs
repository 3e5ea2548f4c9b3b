//! Firmware update (section 8.2.9.3), opcodes 0x0200 to 0x0202.

use super::{BackgroundCommand, Command, CommandEffects, Input, Reply, Request, ReturnCode, Start};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::firmware::{ALIGNMENT, Part, SLOTS};

/// A firmware revision as a field: ASCII, padded with zeroes.
pub(super) type Revision = [u8; Memdev::FIRMWARE_REVISION_LEN];

/// The revision in a slot; all zeroes if it is empty.
pub(super) fn revision(memdev: &Memdev, slot: u8) -> Revision {
    let mut field = [0; Memdev::FIRMWARE_REVISION_LEN];
    let text = memdev.firmware_revision(slot).unwrap_or_default();
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

/// Get FW Info (section 8.2.9.3.1).
pub(super) struct GetFirmwareInfo;

pub(super) struct FirmwareInfo {
    active: u8,
    /// 0 if none is.
    staged: u8,
    revisions: [Revision; SLOTS],
}

impl FirmwareInfo {
    /// Capabilities: Activate FW can do so without a reset.
    const ONLINE_ACTIVATION: u8 = 1 << 0;
}

impl Reply for FirmwareInfo {
    fn encode(&self, output: &mut Vec<u8>) {
        let slots = self.active | self.staged << 3;
        output.extend([SLOTS as u8, slots, Self::ONLINE_ACTIVATION]);
        output.extend([0; 13]);
        output.extend(self.revisions.iter().flatten());
    }
}

impl Command for GetFirmwareInfo {
    const OPCODE: u16 = 0x0200;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = FirmwareInfo;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<FirmwareInfo, ReturnCode> {
        let firmware = memdev.firmware();
        Ok(FirmwareInfo {
            active: firmware.active,
            staged: firmware.staged.unwrap_or(0),
            revisions: [1, 2, 3, 4].map(|slot| revision(memdev, slot)),
        })
    }
}

/// Transfer FW (section 8.2.9.3.2). The last part takes time, as the image is authenticated then.
pub(super) struct TransferFirmware;

pub(super) struct TransferRequest {
    action: u8,
    slot: u8,
    /// In units of 128 bytes.
    offset: u32,
    data: Vec<u8>,
}

impl TransferRequest {
    const FULL: u8 = 0;
    const INITIATE: u8 = 1;
    const CONTINUE: u8 = 2;
    const END: u8 = 3;
    const ABORT: u8 = 4;
}

impl Request for TransferRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [action, slot, _, _] = input.array()?;
        let offset = input.u32()?;
        let _reserved: [u8; 0x78] = input.array()?;
        Some(Self {
            action,
            slot,
            offset,
            data: input.rest().to_vec(),
        })
    }
}

impl BackgroundCommand for TransferFirmware {
    const OPCODE: u16 = 0x0201;
    const EFFECTS: CommandEffects =
        CommandEffects::CONFIGURATION_AFTER_COLD_RESET.and(CommandEffects::ABORTABLE);
    type Request = TransferRequest;
    type Reply = ();

    fn start(
        memdev: &mut Memdev,
        request: TransferRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Start<()>, ReturnCode> {
        let part = match request.action {
            TransferRequest::FULL => Part::Full(request.slot),
            TransferRequest::INITIATE => Part::Initiate,
            TransferRequest::CONTINUE => Part::Continue,
            TransferRequest::END => Part::End(request.slot),
            TransferRequest::ABORT => {
                return memdev.abort_firmware_transfer().map(Start::Done);
            }
            _ => return Err(ReturnCode::InvalidInput),
        };
        let offset = u64::from(request.offset) * ALIGNMENT;
        let operation = memdev.transfer_firmware(part, offset, &request.data)?;
        Ok(operation.map_or(Start::Done(()), Start::Background))
    }
}

/// Activate FW (section 8.2.9.3.3).
pub(super) struct ActivateFirmware;

pub(super) struct ActivateRequest {
    action: u8,
    slot: u8,
}

impl ActivateRequest {
    const ONLINE: u8 = 0;
    const NEXT_COLD_RESET: u8 = 1;
}

impl Request for ActivateRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [action, slot] = input.array()?;
        Some(Self { action, slot })
    }
}

impl BackgroundCommand for ActivateFirmware {
    const OPCODE: u16 = 0x0202;
    const EFFECTS: CommandEffects =
        CommandEffects::CONFIGURATION_AFTER_COLD_RESET.and(CommandEffects::IMMEDIATE_CONFIGURATION);
    type Request = ActivateRequest;
    type Reply = ();

    fn start(
        memdev: &mut Memdev,
        ActivateRequest { action, slot }: ActivateRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Start<()>, ReturnCode> {
        match action {
            ActivateRequest::ONLINE => memdev.activate_firmware(slot).map(Start::Background),
            ActivateRequest::NEXT_COLD_RESET => {
                memdev.stage_firmware(slot, effects).map(Start::Done)
            }
            _ => Err(ReturnCode::InvalidInput),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench};
    use super::*;

    const TIME: u64 = 100_000_000;
    const FULL: u8 = 0;
    const INITIATE: u8 = 1;
    const CONTINUE: u8 = 2;
    const END: u8 = 3;
    const ABORT: u8 = 4;
    const ONLINE: u8 = 0;
    const NEXT_COLD_RESET: u8 = 1;

    /// A part of an image, `offset` in units of 128 bytes.
    fn part(action: u8, slot: u8, offset: u32, data: &[u8]) -> Vec<u8> {
        let mut request = vec![action, slot, 0, 0];
        request.extend(offset.to_le_bytes());
        request.extend([0; 0x78]);
        request.extend(data);
        request
    }

    fn store(bench: &mut Bench, slot: u8, image: &str, code: ReturnCode) {
        bench.start(0x0201, &part(FULL, slot, 0, image.as_bytes()), TIME);
        bench.finish(TIME, code);
    }

    /// Active and staged slot, and the revisions.
    fn info(bench: &mut Bench) -> (u8, u8, Vec<String>) {
        let info = bench.run(0x0200, &[]).unwrap();
        assert_eq!((info.len(), info[0], info[2]), (0x50, 4, 1));
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end_matches('\0').into();
        let revisions = info[0x10..].chunks(16).map(text).collect();
        (info[1] & 7, info[1] >> 3, revisions)
    }

    #[test]
    fn a_new_device_runs_what_it_came_with_from_slot_1() {
        let (active, staged, revisions) = info(&mut bench());
        assert_eq!((active, staged), (1, 0));
        assert_eq!(revisions, ["MEMU 1", "", "", ""]);
    }

    #[test]
    fn an_image_in_parts_is_in_its_slot_when_it_has_been_authenticated() {
        let mut bench = bench();
        let mut first = b"MEMU firmware 2.1\n".to_vec();
        first.resize(256, 0);
        assert_eq!(bench.run(0x0201, &part(INITIATE, 0, 0, &first)), Ok(vec![]));
        let next = part(CONTINUE, 0, 2, &[7; 128]);
        assert_eq!(bench.run(0x0201, &next), Ok(vec![]));
        bench.start(0x0201, &part(END, 3, 3, b"end"), TIME);
        assert_eq!(info(&mut bench).2, ["MEMU 1", "", "", ""], "not yet");
        bench.finish(TIME, ReturnCode::Success);
        assert_eq!(
            info(&mut bench),
            (1, 0, ["MEMU 1", "", "2.1", ""].map(String::from).into())
        );
        assert_eq!(bench.effects, [Effect::NonVolatileChanged]);
    }

    #[test]
    fn parts_come_in_order() {
        let mut bench = bench();
        let order = Err(ReturnCode::FirmwareTransferOutOfOrder);
        let busy = Err(ReturnCode::FirmwareTransferInProgress);
        for (request, result) in [
            (part(CONTINUE, 0, 1, &[0; 128]), order.clone()),
            (part(END, 2, 1, &[0; 128]), order.clone()),
            (part(ABORT, 0, 0, &[]), order.clone()),
            (part(INITIATE, 0, 1, &[0; 128]), order.clone()),
            (
                part(INITIATE, 0, 0, &[0; 127]),
                Err(ReturnCode::InvalidInput),
            ),
            (part(INITIATE, 0, 0, &[0; 128]), Ok(vec![])),
            (part(INITIATE, 0, 0, &[0; 128]), busy.clone()),
            (part(FULL, 2, 0, &[0; 128]), busy),
            (part(CONTINUE, 0, 2, &[0; 128]), order.clone()),
            (part(CONTINUE, 0, 1, &[0; 128]), Ok(vec![])),
            (part(ABORT, 0, 0, &[]), Ok(vec![])),
            (part(CONTINUE, 0, 2, &[0; 128]), order),
            (part(5, 0, 0, &[]), Err(ReturnCode::InvalidInput)),
        ] {
            assert_eq!(bench.run(0x0201, &request), result, "{:?}", &request[..8]);
        }
    }

    #[test]
    fn the_active_slot_and_slots_that_are_not_there_take_no_image() {
        let mut bench = bench();
        for slot in [0, 1, 5, 255] {
            let result = bench.run(0x0201, &part(FULL, slot, 0, b"MEMU firmware 2\n"));
            assert_eq!(result, Err(ReturnCode::InvalidFirmwareSlot));
            let empty = bench.run(0x0202, &[ONLINE, slot]);
            assert_eq!(empty, Err(ReturnCode::InvalidFirmwareSlot));
        }
        let empty = bench.run(0x0202, &[NEXT_COLD_RESET, 2]);
        assert_eq!(empty, Err(ReturnCode::InvalidFirmwareSlot));
        assert_eq!(bench.run(0x0202, &[2, 1]), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn what_does_not_authenticate_is_not_stored() {
        let mut bench = bench();
        let code = ReturnCode::FirmwareAuthenticationFailed;
        store(&mut bench, 2, "some other file\n", code);
        assert_eq!(info(&mut bench).2, ["MEMU 1", "", "", ""]);
        assert_eq!(bench.effects, []);
    }

    #[test]
    fn a_staged_image_runs_from_the_next_cold_reset_on() {
        let mut bench = bench();
        store(
            &mut bench,
            2,
            "MEMU firmware 2.1 cold\n",
            ReturnCode::Success,
        );
        let cold = bench.run(0x0202, &[ONLINE, 2]);
        assert_eq!(cold, Err(ReturnCode::FirmwareNeedsColdReset));
        bench.run(0x0202, &[NEXT_COLD_RESET, 2]).unwrap();
        assert_eq!(info(&mut bench).1, 2);
        bench.memdev.reset();
        assert_eq!(info(&mut bench).0, 1);
        bench.memdev.power_cycle();
        let (active, staged, _) = info(&mut bench);
        assert_eq!((active, staged), (2, 0));
        assert_eq!(bench.run(0x4000, &[]).unwrap()[..4], *b"2.1\0");
        // The way back: slot 1 is as it was.
        bench.run(0x0202, &[NEXT_COLD_RESET, 1]).unwrap();
        bench.memdev.power_cycle();
        assert_eq!(bench.run(0x4000, &[]).unwrap()[..6], *b"MEMU 1");
    }

    #[test]
    fn an_image_is_activated_online_in_the_background() {
        let mut bench = bench();
        store(&mut bench, 4, "MEMU firmware 2.1\n", ReturnCode::Success);
        bench.start(0x0202, &[ONLINE, 4], TIME);
        assert_eq!(info(&mut bench).0, 1);
        bench.finish(TIME, ReturnCode::Success);
        assert_eq!(info(&mut bench).0, 4);
    }

    #[test]
    fn a_broken_image_is_rolled_back() {
        let mut bench = bench();
        store(
            &mut bench,
            2,
            "MEMU firmware 2.1 broken\n",
            ReturnCode::Success,
        );
        bench.start(0x0202, &[ONLINE, 2], TIME);
        bench.finish(TIME, ReturnCode::FirmwareRolledBack);
        assert_eq!(info(&mut bench).0, 1);
        bench.run(0x0202, &[NEXT_COLD_RESET, 2]).unwrap();
        bench.memdev.power_cycle();
        assert_eq!(info(&mut bench).0, 1);
    }

    #[test]
    fn an_aborted_authentication_leaves_the_slot_empty() {
        let mut bench = bench();
        bench.start(0x0201, &part(FULL, 2, 0, b"MEMU firmware 2\n"), TIME);
        let second = part(FULL, 3, 0, b"MEMU firmware 3\n");
        assert_eq!(bench.run(0x0201, &second), Err(ReturnCode::Busy));
        bench.run(0x0005, &[]).unwrap();
        assert_eq!(info(&mut bench).2, ["MEMU 1", "", "", ""]);
        bench.start(0x0201, &second, TIME);
    }

    #[test]
    fn an_image_ends_at_the_largest_size() {
        let mut bench = bench();
        let chunk = [0; 1920];
        let mut offset = 0;
        let mut action = INITIATE;
        while offset + 1920 <= 64 << 20 {
            let request = part(action, 0, offset / 128, &chunk);
            assert_eq!(bench.run(0x0201, &request), Ok(vec![]));
            (action, offset) = (CONTINUE, offset + 1920);
        }
        let request = part(CONTINUE, 0, offset / 128, &chunk);
        assert_eq!(bench.run(0x0201, &request), Err(ReturnCode::InvalidInput));
    }
}
