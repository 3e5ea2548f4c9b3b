//! The mailbox of a memory device, for its host, and the interface that it has for a fabric manager.

use super::dynamic_capacity::dynamic_capacity;
use super::{Client, firmware, logs, media, security, settings};
use crate::interface::{Interface, TUNNEL, Target, Tunnel, field};
use anyhow::{Result, ensure};

const IDENTIFY: u16 = 0x0001;
const BACKGROUND_OPERATION_STATUS: u16 = 0x0002;
/// Kinds of components (table 8-38).
pub(super) const SWITCH: u64 = 0;
pub(super) const TYPE_3: u64 = 3;

/// All that its host can ask of it; its contents and its labels are lost.
///
/// # Errors
/// It does not do what it is asked for.
pub fn mailbox(interface: &dyn Interface) -> Result<()> {
    let client = Client::of("a memory device", interface)?;
    let device = settings::identity(&client)?;
    settings::timestamp(&client)?;
    settings::partition(&client, &device)?;
    settings::labels(&client, &device)?;
    settings::health(&client)?;
    settings::alerts(&client)?;
    settings::shutdown(&client)?;
    logs::logs(&client)?;
    firmware::update(&client)?;
    media::events(&client, &device)?;
    media::scan(&client, &device)?;
    security::erase(&client, &device)?;
    security::passphrases(&client, &device)?;
    client.finish()
}

/// What every component says of itself; gives its kind.
pub(super) fn information(client: &Client<'_>) -> Result<u64> {
    let identity = client.ask_for(IDENTIFY, &[], 0x12)?;
    if client.has(BACKGROUND_OPERATION_STATUS) {
        let status = client.ask_for(BACKGROUND_OPERATION_STATUS, &[], 8)?;
        ensure!(status[0] & 1 == 0, "something runs: {status:02x?}");
    }
    field(&identity, 0x11, 1)
}

/// All that a fabric manager can ask of a device, or of a logical device, and of the pool that it is at if it has one.
pub(super) fn managed(interface: &dyn Interface) -> Result<()> {
    let client = Client::of("a device for its fabric manager", interface)?;
    ensure!(information(&client)? == TYPE_3, "no memory device");
    settings::identity(&client)?;
    settings::time(&client)?;
    settings::health(&client)?;
    firmware::information(&client)?;
    security::state(&client)?;
    dynamic_capacity(&client, 0)?;
    if client.has(TUNNEL) {
        client.asked.borrow_mut().insert(TUNNEL);
        super::fabric::pool(&Tunnel {
            through: interface,
            to: Target::Pool,
        })?;
    }
    client.finish()
}
