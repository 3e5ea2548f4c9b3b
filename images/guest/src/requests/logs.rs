//! Logs (section 8.2.9.5), and the command effects in one of them.

use std::collections::BTreeSet;

use super::Client;
use crate::interface::{Interface, field};
use anyhow::{Context, Result, ensure};

const GET_SUPPORTED_LOGS: u16 = 0x0400;
const GET_LOG: u16 = 0x0401;
const GET_LOG_CAPABILITIES: u16 = 0x0402;
const CLEAR_LOG: u16 = 0x0403;
const POPULATE_LOG: u16 = 0x0404;
const GET_SUPPORTED_LOGS_SUB_LIST: u16 = 0x0405;

/// Capabilities of a log: the host can clear it, and fill it.
const CLEARABLE: u64 = 1 << 0;
const POPULATABLE: u64 = 1 << 1;

/// UUID of the Command Effects Log (section 8.2.9.5.2.1).
const COMMAND_EFFECTS_LOG: [u8; 16] = 0x0da9c0b5_bf41_4b78_8f79_96b1623b3f17_u128.to_be_bytes();
/// Bytes before the entries of a list of logs, and of each of them.
const LIST_HEADER: usize = 8;
const LIST_ENTRY: usize = 20;
/// So much of a log is asked for at once: fits every answer.
const PART: u64 = 128;

/// A log: its UUID, and its length.
type Log = ([u8; 16], u64);

/// The entries of a list of logs, of which there are `count`.
fn entries(list: &[u8], count: u64) -> Result<Vec<Log>> {
    let entries = list.get(LIST_HEADER..).unwrap_or_default();
    ensure!(
        entries.len() as u64 == count * LIST_ENTRY as u64,
        "{} bytes are not {count} logs",
        entries.len()
    );
    let entries = entries.chunks_exact(LIST_ENTRY);
    entries
        .map(|entry| Ok((entry[..16].try_into()?, field(entry, 16, 4)?)))
        .collect()
}

/// The logs that there are.
fn supported(interface: &dyn Interface) -> Result<Vec<Log>> {
    let list = interface.run(GET_SUPPORTED_LOGS, &[])?;
    entries(&list, field(&list, 0, 2)?)
}

/// All of a log.
fn contents(interface: &dyn Interface, (uuid, len): &Log) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    while (contents.len() as u64) < *len {
        let offset = contents.len() as u64;
        let part = (len - offset).min(PART);
        let place = [offset, part].map(|number| (number as u32).to_le_bytes());
        let request = [&uuid[..], place.as_flattened()].concat();
        let answer = interface.run(GET_LOG, &request)?;
        ensure!(
            answer.len() as u64 == part,
            "{} bytes of a log, not {part}",
            answer.len()
        );
        contents.extend(answer);
    }
    Ok(contents)
}

/// The opcodes in the Command Effects Log.
pub(super) fn commands(interface: &dyn Interface) -> Result<BTreeSet<u16>> {
    let logs = supported(interface)?;
    let log = logs.iter().find(|(uuid, _)| *uuid == COMMAND_EFFECTS_LOG);
    let log = contents(interface, log.context("no Command Effects Log")?)?;
    let opcodes = log.chunks_exact(4).map(|entry| field(entry, 0, 2));
    opcodes.map(|opcode| Ok(u16::try_from(opcode?)?)).collect()
}

/// All logs are as long as they are said to be, one by one as well, and can be cleared and filled where they say so.
pub(super) fn logs(client: &Client<'_>) -> Result<()> {
    let logs = supported(client.interface)?;
    for (index, log) in logs.iter().enumerate() {
        let (uuid, _) = log;
        contents(client.interface, log)?;
        if client.has(GET_SUPPORTED_LOGS_SUB_LIST) {
            let list = client.ask(GET_SUPPORTED_LOGS_SUB_LIST, &[1, index as u8])?;
            ensure!(
                field(&list, 2, 2)? == logs.len() as u64 && field(&list, 4, 1)? == index as u64,
                "log {index} in a list that begins {:02x?}",
                &list[..LIST_HEADER]
            );
            ensure!(entries(&list, field(&list, 0, 1)?)? == [*log]);
        }
        if !client.has(GET_LOG_CAPABILITIES) {
            continue;
        }
        let answer = client.ask_for(GET_LOG_CAPABILITIES, uuid, 4)?;
        let capabilities = field(&answer, 0, 4)?;
        if capabilities & CLEARABLE != 0 && client.interface.passes(CLEAR_LOG, uuid) {
            client.tell(CLEAR_LOG, uuid)?;
            let contents = contents(client.interface, log)?;
            ensure!(contents.iter().all(|byte| *byte == 0), "a log not cleared");
        }
        if capabilities & POPULATABLE != 0 {
            client.begin(POPULATE_LOG, uuid)?;
            client.until("the log", || {
                let contents = contents(client.interface, log)?;
                Ok(contents.iter().find(|byte| **byte != 0).copied())
            })?;
        }
    }
    Ok(())
}
