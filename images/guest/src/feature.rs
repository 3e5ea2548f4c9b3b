//! Features of a memory device through fwctl (linux/fwctl, uapi/fwctl/cxl.h).

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

use crate::hex;

/// `FWCTL_RPC`: no direction, no size, type 0x9A, number 1.
const RPC: u64 = 0x9a01;
/// Scope of a call that may change anything at once.
const DEBUG_WRITE_FULL: u32 = 3;
/// Opcodes (CXL 3.1 section 8.2.9.6).
const GET_SUPPORTED_FEATURES: u32 = 0x0500;
const GET_FEATURE: u32 = 0x0501;
const SET_FEATURE: u32 = 0x0502;
/// Bytes of the list's header and of its entries.
const LIST_HEADER: usize = 8;
const LIST_ENTRY: usize = 48;
/// Bytes before an answer: its length and the return code.
const ANSWER_HEADER: usize = 8;
/// Room for an answer.
const MOST: usize = 1024;

#[repr(C)]
struct Rpc {
    size: u32,
    scope: u32,
    input_len: u32,
    output_len: u32,
    input: u64,
    output: u64,
}

/// Calls; gives the return code and the answer, or why there was no call.
fn call(file: &str, opcode: u32, payload: &[u8]) -> Result<io::Result<(u32, Vec<u8>)>> {
    let device = File::open(file).with_context(|| format!("cannot open {file}"))?;
    let mut input = Vec::new();
    // Opcode, flags, length, reserved.
    for word in [opcode, 0, u32::try_from(payload.len())?, 0] {
        input.extend(word.to_le_bytes());
    }
    input.extend(payload);
    // The kernel's structure has room for the shortest payload.
    input.resize(input.len().max(24), 0);
    let mut output = vec![0_u8; MOST];
    let mut rpc = Rpc {
        size: size_of::<Rpc>() as u32,
        scope: DEBUG_WRITE_FULL,
        input_len: u32::try_from(input.len())?,
        output_len: MOST as u32,
        input: input.as_ptr() as u64,
        output: output.as_mut_ptr() as u64,
    };
    // SAFETY: the structure and both buffers are of the sizes that they state, and outlive the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RPC as _, &raw mut rpc) };
    if result < 0 {
        return Ok(Err(io::Error::last_os_error()));
    }
    output.truncate(rpc.output_len as usize);
    ensure!(output.len() >= ANSWER_HEADER, "the answer is cut short");
    let word = |at: usize| {
        u32::from_le_bytes([output[at], output[at + 1], output[at + 2], output[at + 3]])
    };
    let (len, return_code) = (word(0) as usize, word(4));
    let answer = output[ANSWER_HEADER..].iter().take(len);
    Ok(Ok((return_code, answer.copied().collect())))
}

/// Prints the UUID of each feature, and how many bytes can be written of it.
pub fn list(file: &str) -> Result<bool> {
    let mut request = (MOST as u32 - 64).to_le_bytes().to_vec();
    request.extend([0; 4]);
    let (return_code, list) = call(file, GET_SUPPORTED_FEATURES, &request)??;
    for entry in list
        .get(LIST_HEADER..)
        .unwrap_or_default()
        .chunks_exact(LIST_ENTRY)
    {
        let size = u16::from_le_bytes([entry[20], entry[21]]);
        println!(
            r#"{{"test":"features","uuid":"{}","writable":{size}}}"#,
            hex::text(&entry[..16])
        );
    }
    Ok(return_code == 0)
}

/// Prints `len` bytes of a feature's current value.
pub fn get(file: &str, uuid: &str, len: u64) -> Result<bool> {
    let mut request = hex::bytes(uuid)?;
    request.extend([0; 2]);
    request.extend(u16::try_from(len)?.to_le_bytes());
    request.push(0);
    say(call(file, GET_FEATURE, &request)?)
}

/// Writes a feature's value.
pub fn set(file: &str, uuid: &str, value: &str) -> Result<bool> {
    const VERSION: u8 = 1;
    let mut request = hex::bytes(uuid)?;
    // Flags, offset, version, reserved.
    request.extend([0; 6]);
    request.push(VERSION);
    request.extend([0; 9]);
    request.extend(hex::bytes(value)?);
    say(call(file, SET_FEATURE, &request)?)
}

fn say(result: io::Result<(u32, Vec<u8>)>) -> Result<bool> {
    match result {
        Ok((return_code, value)) => {
            println!(
                r#"{{"test":"feature","return_code":{return_code},"value":"{}"}}"#,
                hex::text(&value)
            );
            Ok(return_code == 0)
        }
        Err(error) => {
            println!(r#"{{"test":"feature","error":"{error}"}}"#);
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_no_calls_is_told() {
        assert!(!get("/dev/null", "00", 1).unwrap());
        assert!(list("/dev/null").is_err());
        assert!(set("/no/such/file", "00", "00").is_err());
    }
}
