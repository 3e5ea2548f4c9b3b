//! Identity, capacity, labels, health and what can be set of them (sections 8.2.9.4 and 8.2.9.9.1 to 8.2.9.9.3).

use super::{Client, capacity};
use crate::interface::field;
use anyhow::{Result, ensure};

const GET_TIMESTAMP: u16 = 0x0300;
const SET_TIMESTAMP: u16 = 0x0301;
const IDENTIFY_MEMORY_DEVICE: u16 = 0x4000;
const GET_PARTITION_INFO: u16 = 0x4100;
const SET_PARTITION_INFO: u16 = 0x4101;
const GET_LSA: u16 = 0x4102;
const SET_LSA: u16 = 0x4103;
const GET_HEALTH_INFO: u16 = 0x4200;
const GET_ALERT_CONFIGURATION: u16 = 0x4201;
const SET_ALERT_CONFIGURATION: u16 = 0x4202;
const GET_SHUTDOWN_STATE: u16 = 0x4203;
const SET_SHUTDOWN_STATE: u16 = 0x4204;

/// What a memory device is.
pub(super) struct MemoryDevice {
    /// Bytes.
    pub total: u64,
    /// Bytes that always are volatile.
    volatile: u64,
    /// Bytes that can be moved at once from one partition to the other; 0: none can.
    alignment: u64,
    /// Bytes of labels.
    pub labels: u64,
}

/// What it says it is, which its partitions have to come to.
pub(super) fn identity(client: &Client<'_>) -> Result<MemoryDevice> {
    let identity = client.ask_for(IDENTIFY_MEMORY_DEVICE, &[], 0x45)?;
    let device = MemoryDevice {
        total: capacity(&identity, 0x10)?,
        volatile: capacity(&identity, 0x18)?,
        alignment: capacity(&identity, 0x28)?,
        labels: field(&identity, 0x38, 4)?,
    };
    let partition = client.ask_for(GET_PARTITION_INFO, &[], 0x20)?;
    let (volatile, persistent) = (capacity(&partition, 0)?, capacity(&partition, 8)?);
    ensure!(
        volatile + persistent == device.total && device.total > 0,
        "{volatile} and {persistent} are not {}",
        device.total
    );
    Ok(device)
}

/// Health, alerts and shutdown state as they are.
pub(super) fn health(client: &Client<'_>) -> Result<()> {
    let health = client.ask_for(GET_HEALTH_INFO, &[], 0x12)?;
    let life_used = field(&health, 3, 1)?;
    ensure!(life_used <= 100, "{life_used} % of its life used");
    client.ask_for(GET_ALERT_CONFIGURATION, &[], 0x10)?;
    client.ask_for(GET_SHUTDOWN_STATE, &[], 1)?;
    Ok(())
}

/// A clock, whether it is set or not.
pub(super) fn time(client: &Client<'_>) -> Result<()> {
    client.ask_for(GET_TIMESTAMP, &[], 8).map(|_| ())
}

/// A clock that is set goes on from there.
pub(super) fn timestamp(client: &Client<'_>) -> Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let now = || field(&client.ask_for(GET_TIMESTAMP, &[], 8)?, 0, 8);
    let set = now()? + 1000 * SECOND;
    client.tell(SET_TIMESTAMP, &set.to_le_bytes())?;
    let then = now()?;
    ensure!(
        (set..set + 500 * SECOND).contains(&then),
        "{then} after {set}"
    );
    client.tell(SET_TIMESTAMP, &(then - 1000 * SECOND).to_le_bytes())
}

/// Another partition is the next one, until it is not any more.
pub(super) fn partition(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    if device.alignment == 0 {
        return Ok(());
    }
    let set = |volatile: u64| {
        let units = (volatile >> 28).to_le_bytes();
        client.tell(SET_PARTITION_INFO, &[&units[..], &[0]].concat())?;
        client.ask_for(GET_PARTITION_INFO, &[], 0x20)
    };
    let before = client.ask_for(GET_PARTITION_INFO, &[], 0x20)?;
    let movable = capacity(&before, 0)? - device.volatile;
    let wanted = if movable == 0 { device.alignment } else { 0 };
    let next = capacity(&set(wanted)?, 0x10)?;
    ensure!(
        next == device.volatile + wanted,
        "{next} bytes will be volatile"
    );
    ensure!(set(movable)? == before, "it does not stay as it was");
    Ok(())
}

/// Labels are what was written last.
pub(super) fn labels(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    if device.labels == 0 {
        return Ok(());
    }
    const LEN: u64 = 64;
    let offset = device.labels - LEN;
    let [offset, len] = [offset, LEN].map(|number| (number as u32).to_le_bytes());
    let read = || client.ask_for(GET_LSA, &[offset, len].concat(), LEN as usize);
    let before = read()?;
    let wanted: Vec<u8> = before.iter().map(|byte| !byte).collect();
    for labels in [&wanted, &before] {
        client.tell(SET_LSA, &[&offset[..], &[0; 4], labels].concat())?;
        ensure!(read()? == *labels, "other labels than were written");
    }
    Ok(())
}

/// The last bytes of the labels.
pub(super) fn last_labels(client: &Client<'_>, device: &MemoryDevice) -> Result<Vec<u8>> {
    const LEN: u64 = 16;
    if device.labels == 0 {
        return Ok(Vec::new());
    }
    let request = [device.labels - LEN, LEN].map(|number| (number as u32).to_le_bytes());
    client.ask_for(GET_LSA, request.as_flattened(), LEN as usize)
}

/// A warning has the threshold that was set, and is off again afterwards.
pub(super) fn alerts(client: &Client<'_>) -> Result<()> {
    /// The warning about the life that is used.
    const LIFE_USED: u8 = 1 << 0;
    let get = || client.ask_for(GET_ALERT_CONFIGURATION, &[], 0x10);
    let before = get()?;
    let threshold = if before[3] == 60 { 61 } else { 60 };
    let set = |enable: u8, threshold: u8| {
        let request = [&[LIFE_USED, enable, threshold, 0][..], &[0; 8]].concat();
        client.tell(SET_ALERT_CONFIGURATION, &request)
    };
    set(LIFE_USED, threshold)?;
    let alerts = get()?;
    ensure!(
        alerts[0] & LIFE_USED != 0 && alerts[3] == threshold,
        "alerts {alerts:02x?}"
    );
    set(LIFE_USED, before[3])?;
    set(before[0] & LIFE_USED, before[3])?;
    ensure!(get()? == before, "alerts do not stay as they were");
    Ok(())
}

/// The shutdown state is what was set.
pub(super) fn shutdown(client: &Client<'_>) -> Result<()> {
    let get = || client.ask_for(GET_SHUTDOWN_STATE, &[], 1);
    let before = get()?;
    for state in [before[0] ^ 1, before[0]] {
        client.tell(SET_SHUTDOWN_STATE, &[state])?;
        ensure!(get()? == [state], "not in the state {state}");
    }
    Ok(())
}
