//! Poison, the event that it causes, and scans that find it (sections 8.2.9.2 and 8.2.9.9.4).

use super::Client;
use super::settings::MemoryDevice;
use crate::interface::{INVALID_INPUT, SUCCESS, field};
use anyhow::{Context, Result, bail, ensure};

const GET_EVENT_RECORDS: u16 = 0x0100;
const CLEAR_EVENT_RECORDS: u16 = 0x0101;
const GET_EVENT_INTERRUPT_POLICY: u16 = 0x0102;
const SET_EVENT_INTERRUPT_POLICY: u16 = 0x0103;
pub(super) const GET_POISON_LIST: u16 = 0x4300;
const INJECT_POISON: u16 = 0x4301;
const CLEAR_POISON: u16 = 0x4302;
const GET_SCAN_MEDIA_CAPABILITIES: u16 = 0x4303;
const SCAN_MEDIA: u16 = 0x4304;
const GET_SCAN_MEDIA_RESULTS: u16 = 0x4305;

/// The log of informational events.
const INFORMATIONAL: u8 = 0;
/// Bytes before the records of a log and of a list of poison, and of such records.
const HEADER: usize = 0x20;
const EVENT: usize = 0x80;
const POISON: usize = 0x10;
/// Bytes of a line.
pub(super) const LINE: u64 = 64;
/// Poison that was injected, in the low bits of its address.
const INJECTED: u64 = 3;
/// No events for what a scan finds.
const NO_EVENTS: u8 = 1;

/// A range as commands have it: an address, and lines.
pub(super) fn range(dpa: u64, len: u64) -> Vec<u8> {
    [dpa, len / LINE].map(u64::to_le_bytes).concat()
}

/// The records of `len` bytes each behind the header of an answer, of which there are as many as it says at `at`.
fn records(answer: &[u8], at: usize, len: usize) -> Result<Vec<&[u8]>> {
    let count = field(answer, at, 2)? as usize;
    let records = answer.get(HEADER..).unwrap_or_default();
    ensure!(
        records.len() == count * len,
        "{} bytes are not {count} records",
        records.len()
    );
    Ok(records.chunks_exact(len).collect())
}

/// The addresses, with their sources, and the lengths in lines in a list of poison.
fn poison(answer: &[u8], at: usize) -> Result<Vec<(u64, u64)>> {
    let records = records(answer, at, POISON)?.into_iter();
    records
        .map(|record| Ok((field(record, 0, 8)?, field(record, 8, 4)?)))
        .collect()
}

/// What is bad in a range.
pub(super) fn listed(client: &Client<'_>, dpa: u64, len: u64) -> Result<Vec<(u64, u64)>> {
    poison(&client.ask(GET_POISON_LIST, &range(dpa, len))?, 10)
}

/// Makes a line bad that was good.
pub(super) fn inject(client: &Client<'_>, dpa: u64) -> Result<()> {
    ensure!(listed(client, dpa, LINE)?.is_empty(), "{dpa:#x} is bad");
    client.tell(INJECT_POISON, &dpa.to_le_bytes())?;
    let bad = listed(client, dpa, LINE)?;
    ensure!(bad == [(dpa | INJECTED, 1)], "bad is {bad:x?}");
    Ok(())
}

/// Makes a line good again, which was bad.
fn clear(client: &Client<'_>, dpa: u64) -> Result<()> {
    let request = [&dpa.to_le_bytes()[..], &[0xa5; LINE as usize]].concat();
    client.tell(CLEAR_POISON, &request)?;
    let bad = listed(client, dpa, LINE)?;
    ensure!(bad.is_empty(), "still bad: {bad:x?}");
    Ok(())
}

/// How a log notifies.
const NO_INTERRUPT: u8 = 0;
const MSI: u8 = 1;

/// Injected poison is an event for whoever looks.
pub(super) fn events(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    let dpa = device.total - LINE;
    let event = event_of(client, || inject(client, dpa))?;
    let address = field(&event, 0x30, 8)? & !(LINE - 1);
    ensure!(address == dpa, "an event at {address:#x}, not {dpa:#x}");
    clear(client, dpa)
}

/// The last record of the informational log after `act`, while whoever drives the component is not told. The log is empty then.
pub(super) fn event_of(client: &Client<'_>, act: impl FnOnce() -> Result<()>) -> Result<Vec<u8>> {
    let policy = client.ask(GET_EVENT_INTERRUPT_POLICY, &[])?;
    ensure!(policy.len() >= 4, "a policy of {} logs", policy.len());
    for mode in [MSI, NO_INTERRUPT] {
        client.tell(SET_EVENT_INTERRUPT_POLICY, &vec![mode; policy.len()])?;
        let now = client.ask(GET_EVENT_INTERRUPT_POLICY, &[])?;
        let is_set = now.iter().all(|setting| setting & 3 == mode);
        ensure!(is_set, "mode {mode} gives a policy of {now:02x?}");
    }

    take_events(client)?;
    act()?;
    let events = take_events(client)?;
    let left = client.ask_for(GET_EVENT_RECORDS, &[INFORMATIONAL], HEADER)?;
    ensure!(field(&left, 0x14, 2)? == 0);

    client.tell(SET_EVENT_INTERRUPT_POLICY, &policy)?;
    ensure!(client.ask(GET_EVENT_INTERRUPT_POLICY, &[])? == policy);
    events.last().cloned().context("no event")
}

/// Reads and clears all records of the informational log.
fn take_events(client: &Client<'_>) -> Result<Vec<Vec<u8>>> {
    let mut events: Vec<Vec<u8>> = Vec::new();
    loop {
        let log = client.ask(GET_EVENT_RECORDS, &[INFORMATIONAL])?;
        let records = records(&log, 0x14, EVENT)?;
        let Some(first) = records.first() else {
            return Ok(events);
        };
        ensure!(
            !events.iter().any(|event| event == first),
            "a record that was cleared is still there"
        );
        let mut request = vec![INFORMATIONAL, 0, records.len() as u8, 0, 0, 0];
        request.extend(records.iter().flat_map(|record| &record[0x14..0x16]));
        client.tell(CLEAR_EVENT_RECORDS, &request)?;
        events.extend(records.iter().map(|record| record.to_vec()));
    }
}

/// A scan finds what is bad, and another is aborted.
pub(super) fn scan(client: &Client<'_>, device: &MemoryDevice) -> Result<()> {
    let dpa = device.total - 2 * LINE;
    let all = range(0, device.total);
    let time = client.ask_for(GET_SCAN_MEDIA_CAPABILITIES, &all, 4)?;
    ensure!(field(&time, 0, 4)? > 0, "a scan takes no time");
    inject(client, dpa)?;
    let request = [&all[..], &[NO_EVENTS]].concat();
    client.begin(SCAN_MEDIA, &request)?;
    client.asked.borrow_mut().insert(GET_SCAN_MEDIA_RESULTS);
    let results = client.until("what a scan finds", || {
        match client.interface.send(GET_SCAN_MEDIA_RESULTS, &[])? {
            (SUCCESS, results) => Ok(Some(results)),
            (INVALID_INPUT, _) => Ok(None),
            (code, _) => bail!("the scan ends with {code:#x}"),
        }
    })?;
    let found = poison(&results, 18)?;
    ensure!(found.contains(&(dpa | INJECTED, 1)), "found is {found:x?}");
    // All of it has been told.
    client.refused(GET_SCAN_MEDIA_RESULTS, &[], INVALID_INPUT)?;
    clear(client, dpa)?;
    client.aborted(SCAN_MEDIA, &request)
}
