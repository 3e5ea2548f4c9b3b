//! Sanitize, secure erase and passphrases (sections 8.2.9.9.5 and 8.2.9.9.6).

use super::Client;
use super::media::{GET_POISON_LIST, LINE, inject, listed, range};
use super::settings::{MemoryDevice, last_labels};
use crate::interface::{
    BUSY, INCORRECT_PASSPHRASE, INCORRECT_SECURITY_STATE, MEDIA_DISABLED, SUCCESS, field,
};
use anyhow::{Result, bail, ensure};

const SANITIZE: u16 = 0x4400;
const SECURE_ERASE: u16 = 0x4401;
const GET_SECURITY_STATE: u16 = 0x4500;
const SET_PASSPHRASE: u16 = 0x4501;
const DISABLE_PASSPHRASE: u16 = 0x4502;
const UNLOCK: u16 = 0x4503;
const FREEZE_SECURITY_STATE: u16 = 0x4504;
const PASSPHRASE_SECURE_ERASE: u16 = 0x4505;

/// The user's passphrase, before passphrases in a request.
const USER: u8 = 1;
/// Bits of the security state.
const USER_SET: u64 = 1 << 0;
const FROZEN: u64 = 1 << 3;
const NONE: [u8; 32] = [0; 32];
const RIGHT: [u8; 32] = *b"the passphrase of the user, all!";
const WRONG: [u8; 32] = *b"the passphrase of somebody else!";

/// A request with passphrases of the user's.
fn user(passphrases: &[[u8; 32]]) -> Vec<u8> {
    let mut request = vec![0; 0x20];
    request[0] = USER;
    [&request, passphrases.as_flattened()].concat()
}

/// The security state.
pub(super) fn state(client: &Client<'_>) -> Result<u64> {
    field(&client.ask_for(GET_SECURITY_STATE, &[], 4)?, 0, 4)
}

fn is_state(client: &Client<'_>, expected: u64) -> Result<()> {
    let state = state(client)?;
    ensure!(state == expected, "security state {state:#x}");
    Ok(())
}

/// A passphrase is set, opens what it has to and nothing else does, until the state is frozen, for as long as the device is on.
pub(super) fn passphrases(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    is_state(client, 0)?;
    if !client.has(SET_PASSPHRASE) {
        return Ok(());
    }
    let bad = device.total - LINE;
    client.tell(SET_PASSPHRASE, &user(&[NONE, RIGHT]))?;
    is_state(client, USER_SET)?;
    client.refused(DISABLE_PASSPHRASE, &user(&[WRONG]), INCORRECT_PASSPHRASE)?;
    client.refused(SANITIZE, &[], INCORRECT_SECURITY_STATE)?;
    // It is locked from the next power-on only.
    client.refused(UNLOCK, &RIGHT, INCORRECT_SECURITY_STATE)?;
    client.tell(DISABLE_PASSPHRASE, &user(&[RIGHT]))?;
    is_state(client, 0)?;

    client.tell(SET_PASSPHRASE, &user(&[NONE, RIGHT]))?;
    inject(client, bad)?;
    let erase = user(&[WRONG]);
    client.refused(PASSPHRASE_SECURE_ERASE, &erase, INCORRECT_PASSPHRASE)?;
    client.tell(PASSPHRASE_SECURE_ERASE, &user(&[RIGHT]))?;
    is_state(client, 0)?;
    ensure!(listed(client, bad, LINE)?.is_empty(), "not erased");

    client.tell(FREEZE_SECURITY_STATE, &[])?;
    is_state(client, FROZEN)?;
    let set = user(&[NONE, RIGHT]);
    client.refused(SET_PASSPHRASE, &set, INCORRECT_SECURITY_STATE)
}

/// What is erased and what is sanitized is good; labels outlive the former only.
pub(super) fn erase(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    let bad = device.total - LINE;
    let labels = last_labels(client, device)?;
    inject(client, bad)?;
    client.tell(SECURE_ERASE, &[])?;
    ensure!(listed(client, bad, LINE)?.is_empty(), "not erased");
    ensure!(last_labels(client, device)? == labels, "labels are gone");

    inject(client, bad)?;
    client.begin(SANITIZE, &[])?;
    client.until("the end of a sanitize", || {
        let (code, _) = client.interface.send(GET_POISON_LIST, &range(bad, LINE))?;
        match code {
            SUCCESS => Ok(Some(())),
            MEDIA_DISABLED | BUSY => Ok(None),
            code => bail!("{code:#x} during a sanitize"),
        }
    })?;
    ensure!(listed(client, bad, LINE)?.is_empty(), "not sanitized");
    let labels = last_labels(client, device)?;
    ensure!(labels.iter().all(|byte| *byte == 0), "labels {labels:02x?}");
    Ok(())
}
