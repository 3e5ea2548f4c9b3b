//! What `/proc` tells of a process's memory: its areas, and which of their pages are there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::sys::Tid;

/// Bytes of the pages that the kernel maps and protects.
pub const PAGE: u64 = 4096;

/// Pages that one read of the page map covers.
const CHUNK: u64 = 1 << 14;

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Protection as `mprotect` takes it.
    pub protection: i32,
    /// File or special name; empty for anonymous memory.
    pub name: String,
}

/// Reads the areas of a process.
pub fn read(process: Tid) -> io::Result<Vec<Area>> {
    Ok(parse(&std::fs::read_to_string(format!(
        "/proc/{process}/maps"
    ))?))
}

fn parse(text: &str) -> Vec<Area> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let flags = fields.next()?;
            let name = fields.nth(3).unwrap_or_default().to_owned();
            let bit = |flag, bit| if flags.contains(flag) { bit } else { 0 };
            Some(Area {
                start: u64::from_str_radix(start, 16).ok()?,
                end: u64::from_str_radix(end, 16).ok()?,
                protection: bit('r', libc::PROT_READ)
                    | bit('w', libc::PROT_WRITE)
                    | bit('x', libc::PROT_EXEC),
                name,
            })
        })
        .collect()
}

impl Area {
    /// Whether this is data that a program would keep in memory of its own choosing. Code, stacks
    /// and what the kernel maps are not: they are small, hot, and the kernel writes to them.
    pub fn is_data(&self) -> bool {
        self.protection & libc::PROT_READ != 0
            && self.protection & libc::PROT_EXEC == 0
            && (!self.name.starts_with('[') || self.name == "[heap]")
            && !self.name.starts_with("/dev/")
            && !self.name.starts_with("/anon_hugepage")
            && (self.protection & libc::PROT_WRITE != 0 || self.end - self.start >= 1 << 20)
    }
}

/// Calls `found` with runs of pages, as (first address, number), that are in memory and in `area`.
pub fn resident(process: Tid, area: &Area, mut found: impl FnMut(u64, u64)) -> io::Result<()> {
    let map = File::open(format!("/proc/{process}/pagemap"))?;
    let mut bytes = vec![0; (CHUNK * 8) as usize];
    let mut page = area.start / PAGE;
    let end = area.end / PAGE;
    while page < end {
        let count = CHUNK.min(end - page);
        let chunk = &mut bytes[..(count * 8) as usize];
        let read = map.read_at(chunk, page * 8)?;
        let mut run = 0;
        for (index, entry) in chunk[..read].chunks_exact(8).enumerate() {
            // Bit 63 of an entry, the top bit of its last byte: the page is present.
            if entry[7] & 0x80 != 0 {
                run += 1;
            } else if run > 0 {
                found((page + index as u64 - run) * PAGE, run);
                run = 0;
            }
        }
        if run > 0 {
            found((page + read as u64 / 8 - run) * PAGE, run);
        }
        if read == 0 {
            break;
        }
        page += read as u64 / 8;
    }
    Ok(())
}

/// Pages that a process has in memory, from the second figure of `/proc/PID/statm`.
pub fn resident_pages(process: Tid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// CPU that a thread was on last, from the 39th field of its `stat`.
pub fn last_cpu(tid: Tid) -> Option<usize> {
    field(tid, 39)?.parse().ok()
}

/// Whether a thread has work to do: it is on a CPU, waits for one, or stands still because it is traced.
pub fn is_busy(tid: Tid) -> bool {
    matches!(field(tid, 3).as_deref(), Some("R" | "t"))
}

/// A field of a thread's `stat`, counted from 1; the second may hold blanks.
fn field(tid: Tid, number: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    Some(fields.nth(number - 3)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0a000-55d0b000 r-xp 00001000 fe:00 1234 /usr/bin/prog
55d0c000-55d2d000 rw-p 00000000 00:00 0 [heap]
7f00000000-7f00800000 rw-p 00000000 00:00 0 
7f10000000-7f10001000 r--p 00000000 fe:00 77 /usr/lib/small.so
7ffd1000-7ffd3000 rw-p 00000000 00:00 0 [stack]
7ffd4000-7ffd6000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn areas_are_read_with_their_protection_and_name() {
        let areas = parse(MAPS);
        assert_eq!(areas.len(), 6);
        assert_eq!(areas[1].name, "[heap]");
        assert_eq!(areas[1].protection, libc::PROT_READ | libc::PROT_WRITE);
        assert_eq!(areas[2].end - areas[2].start, 8 << 20);
    }

    #[test]
    fn data_is_heap_and_anonymous_memory_but_not_code_or_stacks() {
        let data: Vec<bool> = parse(MAPS).iter().map(Area::is_data).collect();
        assert_eq!(data, [false, true, true, false, false, false]);
    }

    #[test]
    fn pages_of_this_process_are_found_where_they_were_touched() {
        let memory = vec![1u8; 64 * PAGE as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let area = Area {
            start,
            end: start + 32 * PAGE,
            protection: 3,
            name: String::new(),
        };
        let mut pages = 0;
        resident(std::process::id() as Tid, &area, |_, count| pages += count).unwrap();
        assert_eq!(pages, 32);
        assert!(resident_pages(std::process::id() as Tid).unwrap() >= 64);
    }
}
