//! A page that goes bad while a program has it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::mapping::{Mapping, WORD};

const PAGE: usize = 4096;
/// The pages of the program; the one in the middle is to go bad.
const PAGES: usize = 3;
/// `/proc/self/pagemap`: present (63), page frame number (54:0) (Linux Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FRAME_MASK: u64 = (1 << 55) - 1;
/// What the child says of its signal: code, address, and the address's lowest valid bit.
const REPORT: usize = 3 * 8;

/// Says where a page is, waits for a line on standard input while somebody poisons it, loads it in a child of its own, and
/// prints what became of the child. Holds if the child got the SIGBUS of lost memory for that page, and if the pages on both
/// sides are as they were.
pub fn meet() -> Result<bool> {
    let mut memory = Mapping::anonymous(PAGES * PAGE)?;
    for (word, at) in memory.as_mut_slice().iter_mut().zip(0..) {
        *word = at;
    }
    let page = memory.address().addr() + PAGE;
    println!(r#"{{"test":"poison","hpa":"{:#x}"}}"#, hpa(page)?);
    println!("@@STEP poison");
    io::stdin().lock().read_line(&mut String::new())?;

    let [code, address, lsb] = load_in_a_child(&memory, PAGE / WORD)?;
    let caught = code == i64::from(libc::BUS_MCEERR_AR) && usize::try_from(address) == Ok(page);
    let words = 0..memory.words();
    let intact = words
        .filter(|word| word / (PAGE / WORD) != 1)
        .all(|word| memory.read(word) == word as u64);
    println!(
        r#"{{"test":"poison","code":{code},"address":"{address:#x}","page":"{page:#x}","lsb":{lsb},"intact":{intact},"ok":{}}}"#,
        caught && intact
    );
    Ok(caught && intact)
}

/// The physical address of the page at `address`.
fn hpa(address: usize) -> Result<u64> {
    let mut entry = [0; 8];
    let pages = File::open("/proc/self/pagemap").context("cannot open the page map")?;
    pages.read_exact_at(&mut entry, (address / PAGE * WORD) as u64)?;
    let entry = u64::from_le_bytes(entry);
    ensure!(
        entry & PRESENT != 0 && entry & FRAME_MASK != 0,
        "the page map does not say where the page is"
    );
    Ok((entry & FRAME_MASK) * PAGE as u64)
}

/// Where the handler of the child writes what it was told.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Loads a word in a child and gives what its SIGBUS said.
fn load_in_a_child(memory: &Mapping, word: usize) -> Result<[i64; 3]> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both ends.
    ensure!(unsafe { libc::pipe(ends.as_mut_ptr()) } == 0, "no pipe");
    // SAFETY: both descriptors are new and nobody else's.
    let (mut from, to) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    io::stdout().flush()?;
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "cannot fork");
    if child == 0 {
        PIPE.store(to.as_raw_fd(), Ordering::Relaxed);
        catch_sigbus();
        memory.read(word);
        // SAFETY: leaves without touching what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    drop(to);
    let mut report = Vec::new();
    from.read_to_end(&mut report)?;
    // SAFETY: the child is ours; its status is not asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let report: [u8; REPORT] = report
        .try_into()
        .ok()
        .context("the load of the page raised no signal")?;
    let mut numbers = [0; 3];
    for (number, bytes) in numbers.iter_mut().zip(report.chunks_exact(8)) {
        *number = i64::from_ne_bytes(bytes.try_into()?);
    }
    Ok(numbers)
}

fn catch_sigbus() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is complete, and outlives the call.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid structure. Behind the address, aligned like it, the SIGBUS of lost memory has the
    // lowest valid bit of it as a short (sigaction(2), si_addr_lsb).
    let (code, address, lsb) = unsafe {
        let address = (*info).si_addr() as i64;
        let lsb = info.cast::<u8>().add(0x18).cast::<i16>().read();
        (i64::from((*info).si_code), address, i64::from(lsb))
    };
    let report = [code, address, lsb].map(i64::to_ne_bytes);
    let bytes = report.as_flattened();
    // SAFETY: both calls are among those that a handler may make; the bytes live through the first.
    unsafe {
        libc::write(
            PIPE.load(Ordering::Relaxed),
            bytes.as_ptr().cast(),
            bytes.len(),
        );
        libc::_exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_good_memory_raises_no_signal() {
        let memory = Mapping::anonymous(PAGE).unwrap();
        let error = load_in_a_child(&memory, 0).unwrap_err();
        assert!(error.to_string().contains("raised no signal"), "{error}");
    }
}
