//! On which NUMA node memory is, and running with code and data on a chosen one.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

/// Memory policy "these nodes and no other" (linux/mempolicy.h).
const MPOL_BIND: libc::c_int = 2;
/// Nodes that fit the one-word node mask used here.
const MAX_NODES: u64 = 64;

/// Lies in .data: not zero.
static DATA: AtomicU64 = AtomicU64::new(0x6d65_6d75);
/// Lies in .bss.
static BSS: AtomicU64 = AtomicU64::new(0);

/// The node of the page at `address`; negative when the page is not there (an errno).
pub fn of(address: usize) -> i32 {
    let pages = [address as *mut libc::c_void];
    let mut status = [-libc::ENOENT];
    // SAFETY: both arrays have the one element that the count says; with no target nodes the call
    // only looks, and an address that is not mapped gives a status, not a fault.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1usize,
            pages.as_ptr(),
            ptr::null::<libc::c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    if result == 0 {
        status[0]
    } else {
        -io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EINVAL)
    }
}

/// Prints the nodes of this program's own pages.
pub fn report_own_pages() -> Result<bool> {
    let on_stack = 0u64;
    let on_heap = vec![1u8; 1 << 20];
    DATA.fetch_add(1, Ordering::Relaxed);
    BSS.fetch_add(1, Ordering::Relaxed);
    let code = of(report_own_pages as fn() -> Result<bool> as usize);
    let data = of((&raw const DATA).addr());
    let bss = of((&raw const BSS).addr());
    let heap = of(on_heap.as_ptr().addr());
    let stack = of((&raw const on_stack).addr());
    println!(
        r#"{{"test":"numa-where","code":{code},"data":{data},"bss":{bss},"heap":{heap},"stack":{stack}}}"#
    );
    Ok([code, data, bss, heap, stack].iter().all(|node| *node >= 0))
}

/// Runs this program with `words`, from a copy that lies on `node` and with all memory from there.
/// Returns only on failure.
pub fn execute_on(node: u64, words: &[&str]) -> Result<bool> {
    ensure!(node < MAX_NODES, "node {node} is beyond {MAX_NODES}");
    let program = copy_on(node)?;
    let mask = 1u64 << node;
    // The kernel takes the mask's size plus one.
    // SAFETY: the mask has the bits that the size says, and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            MPOL_BIND,
            &raw const mask,
            MAX_NODES + 1,
        )
    };
    ensure!(
        result == 0,
        "cannot bind memory to node {node}: {}",
        io::Error::last_os_error()
    );
    Err(Command::new(&program).args(words).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Copies this program to a tmpfs whose pages come from `node`: pages of a running program are those
/// of its file.
fn copy_on(node: u64) -> Result<PathBuf> {
    let dir = PathBuf::from(format!("/run/node{node}"));
    let program = dir.join("memu-guest");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let target = CString::new(dir.as_os_str().as_bytes())?;
    let options = CString::new(format!("mpol=bind:{node}"))?;
    // SAFETY: all five are terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(
            c"node".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    ensure!(
        result == 0,
        "cannot mount a tmpfs on node {node}: {}",
        io::Error::last_os_error()
    );
    fs::copy("/proc/self/exe", &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_mapped_has_no_node() {
        assert!(of(0) < 0);
    }

    #[test]
    fn a_node_beyond_the_mask_is_refused() {
        assert!(execute_on(MAX_NODES, &["numa-where"]).is_err());
    }
}
