//! The QEMU that emulates the lab's machine, and that the benchmark compares with.
//!
//! It is the newest for the guests' release, whatever the host's: Debian 12's own (7.2) does not let a hypervisor that it
//! emulates see XSETBV, so that guests in the lab would have no AVX, and Debian 13's own (10.0) loses interrupts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;

use crate::paths;
use crate::root::DebianRoot;

const PACKAGE: &str = "qemu-system-x86";
/// Directories with firmware and option ROMs.
const DATA: [&str; 2] = ["usr/share/seabios", "usr/share/qemu"];

/// Program and first arguments of qemu-system-x86_64.
pub fn obtain() -> Result<Vec<PathBuf>> {
    let root = DebianRoot::obtain(&[PACKAGE])?;
    let mut words = root.program("usr/bin/qemu-system-x86_64")?;
    for dir in DATA {
        words.extend(["-L".into(), root.dir.join(dir)]);
    }
    Ok(words)
}

/// A directory with a script `qemu-system-x86_64` that runs it, for programs that look on their path.
pub fn wrapper_dir() -> Result<PathBuf> {
    let words: Vec<String> = obtain()?
        .iter()
        .map(|word| format!("'{}'", word.display()))
        .collect();
    let dir = paths::workspace().join("target/qemu");
    fs::create_dir_all(&dir)?;
    let script = dir.join("qemu-system-x86_64");
    fs::write(
        &script,
        format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}
