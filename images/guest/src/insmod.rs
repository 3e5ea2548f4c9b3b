//! Inserting many modules from one process: a process per module is what takes the time in an
//! emulated guest.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

/// Inserts the modules whose paths `list` names, one a line. A module that fails is reported, and
/// the rest inserted all the same: a guest without the hardware should still come up.
pub fn insert_all(list: &str) -> Result<bool> {
    let text = fs::read_to_string(list).with_context(|| format!("cannot read {list}"))?;
    let mut all = true;
    for path in text.lines() {
        if let Err(error) = insert(path) {
            eprintln!("memu-guest: {path}: {error}");
            all = false;
        }
    }
    Ok(all)
}

fn insert(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open for the whole call, and the parameters are a terminated string.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
