//! Commands that go to a memory device as they are: the ioctl of its character device (linux/cxl_mem.h).

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use crate::hex;

/// `CXL_MEM_SEND_COMMAND`: direction both, size 48, type 0xCE, number 2.
const SEND_COMMAND: u64 = 0xc030_ce02;
/// The command that has an opcode of the caller's.
const RAW: u32 = 2;
/// Room for an answer.
const MOST: usize = 1024;

#[repr(C)]
#[derive(Default)]
struct SendCommand {
    id: u32,
    flags: u32,
    opcode: u16,
    reserved: u16,
    return_code: u32,
    input: Payload,
    output: Payload,
}

#[repr(C)]
#[derive(Default)]
struct Payload {
    size: u32,
    reserved: u32,
    address: u64,
}

/// Sends a command to the memory device behind the file, and prints the device's return code and its answer.
pub fn send(file: &str, opcode: u64, input: &[u8]) -> Result<bool> {
    let device = File::open(file).with_context(|| format!("cannot open {file}"))?;
    let mut answer = vec![0_u8; MOST];
    let mut command = SendCommand {
        id: RAW,
        opcode: u16::try_from(opcode)?,
        input: Payload {
            size: u32::try_from(input.len())?,
            address: input.as_ptr() as u64,
            ..Payload::default()
        },
        output: Payload {
            size: MOST as u32,
            address: answer.as_mut_ptr() as u64,
            ..Payload::default()
        },
        ..SendCommand::default()
    };
    // SAFETY: the structure and both buffers are of the sizes that they state, and outlive the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SEND_COMMAND as _, &raw mut command) };
    if result < 0 {
        let error = io::Error::last_os_error();
        println!(r#"{{"test":"raw","opcode":"{opcode:#06x}","error":"{error}"}}"#);
        return Ok(false);
    }
    answer.truncate(command.output.size as usize);
    println!(
        r#"{{"test":"raw","opcode":"{opcode:#06x}","return_code":{},"answer":"{}"}}"#,
        command.return_code,
        hex::text(&answer)
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_size_that_the_number_says() {
        assert_eq!(size_of::<SendCommand>() as u64, SEND_COMMAND >> 16 & 0x3fff);
    }

    #[test]
    fn a_file_that_takes_no_commands_is_told() {
        assert!(!send("/dev/null", 0xc000, &[]).unwrap());
        assert!(send("/dev/null", 0x1_0000, &[]).is_err());
    }
}
