//! A counter of a performance monitoring unit, open while a command runs (perf_event_open(2)).

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::number;

const UNITS: &str = "/sys/bus/event_source/devices";
/// `perf_event_attr` up to its first published size.
const ATTRIBUTES: usize = 64;
/// Flag: do not count yet.
const DISABLED: u64 = 1;
/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_DISABLE`.
const ENABLE: u64 = 0x2400;
const DISABLE: u64 = 0x2401;

/// Runs a command and prints how far the counter went meanwhile, and how many ns passed. The event is a name in the unit's
/// directory, or a number.
pub fn count(unit: &str, event: &str, command: &[&str]) -> Result<bool> {
    let file = |name: &str| -> Result<String> {
        let path = format!("{UNITS}/{unit}/{name}");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim().to_owned())
    };
    let config = match number(event) {
        Ok(config) => config,
        Err(_) => number(file(&format!("events/{event}"))?.trim_start_matches("config="))?,
    };
    let processor = number(
        file("cpumask")?
            .split(['-', ','])
            .next()
            .unwrap_or_default(),
    )?;
    let mut counter = open(number(&file("type")?)?, config, processor)?;

    let start = Instant::now();
    order(&counter, ENABLE)?;
    let status = Command::new(command.first().context("no command")?)
        .args(command.get(1..).unwrap_or_default())
        .status()?;
    order(&counter, DISABLE)?;
    let ns = start.elapsed().as_nanos();
    let mut value = [0; 8];
    counter.read_exact(&mut value)?;
    println!(
        r#"{{"test":"count","event":"{event}","count":{},"ns":{ns}}}"#,
        u64::from_ne_bytes(value)
    );
    Ok(status.success())
}

fn open(kind: u64, config: u64, processor: u64) -> Result<File> {
    let mut attributes = [0_u8; ATTRIBUTES];
    attributes[0..4].copy_from_slice(&u32::try_from(kind)?.to_ne_bytes());
    attributes[4..8].copy_from_slice(&(ATTRIBUTES as u32).to_ne_bytes());
    attributes[8..16].copy_from_slice(&config.to_ne_bytes());
    attributes[40..48].copy_from_slice(&DISABLED.to_ne_bytes());
    let processor = libc::c_int::try_from(processor)?;
    // SAFETY: the attributes are as long as they say, and outlive the call: any process, one processor, no group, no flags.
    let counter = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            -1,
            processor,
            -1,
            0_u64,
        )
    };
    ensure!(
        counter >= 0,
        "no counter of {config:#x}: {}",
        io::Error::last_os_error()
    );
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(i32::try_from(counter)?) })
}

fn order(counter: &File, order: u64) -> Result<()> {
    // SAFETY: the descriptor is open, and the order takes no argument.
    let result = unsafe { libc::ioctl(counter.as_raw_fd(), order as _, 0) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_not_there_is_told() {
        let error = count("no-such-unit", "0x1", &["true"]).unwrap_err();
        assert!(error.to_string().contains("no-such-unit"), "{error}");
    }
}
