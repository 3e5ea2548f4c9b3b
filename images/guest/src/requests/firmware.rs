//! Firmware update (section 8.2.9.3).

use super::Client;
use crate::interface::{OUT_OF_ORDER, field};
use anyhow::{Context, Result, ensure};

const GET_FW_INFO: u16 = 0x0200;
const TRANSFER_FW: u16 = 0x0201;
const ACTIVATE_FW: u16 = 0x0202;
/// Actions of a transfer.
const FULL: u8 = 0;
const INITIATE: u8 = 1;
const CONTINUE: u8 = 2;
const ABORT: u8 = 4;
/// Actions of an activation.
const ONLINE: u8 = 0;
const NEXT_COLD_RESET: u8 = 1;
/// It can be activated without a reset.
const ONLINE_ACTIVATION: u64 = 1 << 0;
/// Slots that there can be, and bytes of the revision in one.
const SLOTS: u8 = 4;
const REVISION: usize = 16;
/// Parts of an image but the last are multiples of this.
const PART: usize = 128;

/// What is in the slots.
struct Info {
    slots: u64,
    active: u8,
    /// 0: none.
    staged: u8,
    capabilities: u64,
    revisions: Vec<Vec<u8>>,
}

impl Info {
    fn of(client: &Client<'_>) -> Result<Self> {
        let info = client.ask_for(GET_FW_INFO, &[], 0x10 + usize::from(SLOTS) * REVISION)?;
        let slots = field(&info, 1, 1)?;
        Ok(Self {
            slots: field(&info, 0, 1)?,
            active: (slots & 7) as u8,
            staged: (slots >> 3 & 7) as u8,
            capabilities: field(&info, 2, 1)?,
            revisions: info[0x10..].chunks(REVISION).map(<[u8]>::to_vec).collect(),
        })
    }

    /// True if there is this revision in a slot.
    fn has(&self, slot: u8, revision: &str) -> bool {
        let field = self.revisions.get(usize::from(slot) - 1);
        field.is_some_and(|field| field.starts_with(format!("{revision}\0").as_bytes()))
    }
}

/// Which slots there are, and what is in them.
pub(super) fn information(client: &Client<'_>) -> Result<()> {
    let Info { slots, active, .. } = Info::of(client)?;
    ensure!(
        (1..=slots).contains(&u64::from(active)),
        "{active} of {slots}"
    );
    Ok(())
}

fn part(action: u8, slot: u8, offset: u32, data: &[u8]) -> Vec<u8> {
    let mut request = vec![0; 0x80];
    request[..2].copy_from_slice(&[action, slot]);
    request[4..8].copy_from_slice(&offset.to_le_bytes());
    [&request, data].concat()
}

fn image(slot: u8, revision: &str) -> Vec<u8> {
    part(
        FULL,
        slot,
        0,
        format!("MEMU firmware {revision}\n").as_bytes(),
    )
}

/// Brings one image into a slot, and begins others that never get there; lets it wait for a reset, and run.
pub(super) fn update(client: &Client<'_>) -> Result<()> {
    let before = Info::of(client)?;
    let mut free = (1..=SLOTS).filter(|slot| ![before.active, before.staged].contains(slot));
    let (slot, other) = (free.next(), free.next());
    let slot = slot.context("no free slot")?;
    let other = other.context("no second free slot")?;

    client.tell(TRANSFER_FW, &part(INITIATE, 0, 0, &[0; PART]))?;
    client.tell(TRANSFER_FW, &part(CONTINUE, 0, 1, &[0; PART]))?;
    client.tell(TRANSFER_FW, &part(ABORT, 0, 0, &[]))?;
    client.refused(TRANSFER_FW, &part(CONTINUE, 0, 2, &[0; PART]), OUT_OF_ORDER)?;

    let is_there = |slot: u8, revision: &str| {
        let info = Info::of(client)?;
        Ok(info.has(slot, revision).then_some(()))
    };
    client.begin(TRANSFER_FW, &image(slot, "7.1"))?;
    client.until("an image in its slot", || is_there(slot, "7.1"))?;
    client.begin(TRANSFER_FW, &image(other, "7.2"))?;
    client.until("another image", || is_there(other, "7.2"))?;
    client.aborted(TRANSFER_FW, &image(other, "7.2"))?;

    client.tell(ACTIVATE_FW, &[NEXT_COLD_RESET, slot])?;
    let staged = Info::of(client)?;
    ensure!(staged.active == before.active, "{} runs", staged.active);
    ensure!(staged.staged == slot, "slot {} is staged", staged.staged);
    ensure!(before.capabilities & ONLINE_ACTIVATION != 0, "not online");
    for slot in [slot, before.active] {
        client.begin(ACTIVATE_FW, &[ONLINE, slot])?;
        client.until("an image that runs", || {
            Ok((Info::of(client)?.active == slot).then_some(()))
        })?;
    }
    Ok(())
}
