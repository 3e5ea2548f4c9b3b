//! Commands that go to a memory device as they are: the ioctl of its character device (linux/cxl_mem.h).

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use crate::hex;
use crate::interface::{BACKGROUND_STARTED, BUSY, Interface};
use crate::requests;

/// `CXL_MEM_SEND_COMMAND`: direction both, size 48, type 0xCE, number 2.
const SEND_COMMAND: u64 = 0xc030_ce02;
/// The command that has an opcode of the caller's.
const RAW: u32 = 2;
/// Clear Log, and the UUID of the vendor debug log (section 8.2.9.5).
const CLEAR_LOG: u16 = 0x0403;
const VENDOR_DEBUG_LOG: [u8; 16] = 0x5e1819d9_11a9_400c_811f_d60719403d86_u128.to_be_bytes();
/// Room for the longest answer.
const MOST: usize = 2048;

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

/// The mailbox of a memory device, as far as Linux lets one have it.
struct MemoryDevice(File);

impl MemoryDevice {
    fn open(file: &str) -> Result<Self> {
        let device = File::open(file).with_context(|| format!("cannot open {file}"))?;
        Ok(Self(device))
    }

    /// Gives the device's return code and its answer, or why Linux does not.
    fn ask(&self, opcode: u16, input: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut answer = vec![0_u8; MOST];
        let mut command = SendCommand {
            id: RAW,
            opcode,
            input: Payload {
                size: input.len() as u32,
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
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), SEND_COMMAND as _, &raw mut command) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        answer.truncate(command.output.size as usize);
        Ok((command.return_code, answer))
    }
}

impl Interface for MemoryDevice {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        match self.ask(opcode, input) {
            Ok((code, answer)) => Ok((u16::try_from(code)?, answer)),
            // Linux does not wait for an operation that it has not begun itself, and keeps all others back while one of its own
            // runs.
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
                Ok((BACKGROUND_STARTED, Vec::new()))
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok((BUSY, Vec::new())),
            Err(error) => Err(error).with_context(|| format!("command {opcode:#06x}")),
        }
    }

    fn passes(&self, opcode: u16, input: &[u8]) -> bool {
        // Linux has other logs than that of the vendor cleared by nobody, and says that it is busy.
        opcode != CLEAR_LOG || input == VENDOR_DEBUG_LOG
    }
}

/// Sends a command to the memory device behind the file, and prints the device's return code and its answer.
pub fn send(file: &str, opcode: u64, input: &[u8]) -> Result<bool> {
    let opcode = u16::try_from(opcode)?;
    match MemoryDevice::open(file)?.ask(opcode, input) {
        Ok((code, answer)) => println!(
            r#"{{"test":"raw","opcode":"{opcode:#06x}","return_code":{code},"answer":"{}"}}"#,
            hex::text(&answer)
        ),
        Err(error) => {
            println!(r#"{{"test":"raw","opcode":"{opcode:#06x}","error":"{error}"}}"#);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks the memory device behind the file all that a library for such devices does.
pub fn ask_all(file: &str) -> Result<bool> {
    requests::memory_device::mailbox(&MemoryDevice::open(file)?)?;
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
