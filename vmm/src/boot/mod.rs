//! Direct boot of Linux: the kernel, its initrd and command line in guest RAM, and the state in
//! which the first processor enters it.
//!
//! A bzImage is entered at its 64-bit entry point, an ELF `vmlinux` through its PVH note.

mod bzimage;
mod pvh;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile,
};

use crate::error::{Error, HostContext, Result};
use crate::kvm::EntryState;
use crate::layout::AddressRange;

/// Fixed addresses in low RAM, which the kernel takes over once it has read what lies there. The
/// tables of the 64-bit entry (`kvm::EntryState`) lie at 0x500 and from 0x9000 to 0xF000.
mod low_memory {
    /// `hvm_start_info`, its module list and memory map (PVH).
    pub const START_INFO: u64 = 0x6000;
    /// The zero page, `boot_params` (bzImage).
    pub const BOOT_PARAMS: u64 = 0x7000;
    /// The command line, zero-terminated.
    pub const COMMAND_LINE: u64 = 0x2_0000;
    /// First address behind the command line's room.
    pub const COMMAND_LINE_END: u64 = 0x3_0000;
}

/// Where kernels are linked and loaded: the end of the first MiB.
const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);
/// Initrds begin at a page.
const PAGE: u64 = 4096;
/// The first bytes of an ELF file.
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// What a range of the memory map is for. The values are those of ACPI 6.5, table 15.6, and Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// RAM.
    Usable = 1,
    /// Not to be touched unless a driver knows better.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
    /// Memory with a purpose of its own, left to a driver (Linux `E820_TYPE_SOFT_RESERVED`).
    SoftReserved = 0xefff_ffff,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// Where.
    pub range: AddressRange,
    /// What for.
    pub kind: MemoryKind,
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct BootRequest<'a> {
    /// A bzImage or an ELF `vmlinux` with a PVH note.
    pub kernel: &'a Path,
    /// The initial RAM disk, if any.
    pub initrd: Option<&'a Path>,
    /// The command line, without a terminating zero.
    pub command_line: &'a str,
    /// The memory map.
    pub memory_map: &'a [MemoryMapEntry],
    /// Where the ACPI root pointer lies.
    pub rsdp: u64,
}

/// Puts everything that `request` names into `memory`.
///
/// # Errors
/// [`Error::Boot`] with the file and what is wrong with it, [`Error::CommandLine`] if the command
/// line is too long for the kernel, [`Error::Memory`] if RAM does not reach to the boot structures.
pub fn load(memory: &GuestMemoryMmap, request: &BootRequest) -> Result<EntryState> {
    let path = request.kernel;
    let mut kernel = File::open(path).map_err(|error| unusable("kernel", path, error))?;
    let mut magic = [0; ELF_MAGIC.len()];
    let is_elf = kernel.read_exact(&mut magic).is_ok() && magic == ELF_MAGIC;
    kernel
        .rewind()
        .trying(|| format!("read {}", path.display()))?;
    if is_elf {
        pvh::load(memory, request, &mut kernel)
    } else {
        bzimage::load(memory, request, &mut kernel)
    }
}

fn unusable(what: &'static str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Boot {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Neither of the formats.
fn not_a_kernel(path: &Path) -> Error {
    unusable("kernel", path, "not a bzImage nor an ELF with a PVH note")
}

/// Writes the command line. `limit` is in bytes without the terminating zero.
fn write_command_line(memory: &GuestMemoryMmap, line: &str, limit: usize) -> Result<()> {
    let room = low_memory::COMMAND_LINE_END - low_memory::COMMAND_LINE - 1;
    let limit = limit.min(usize::try_from(room).unwrap_or(usize::MAX));
    if line.len() > limit {
        return Err(Error::CommandLine {
            len: line.len(),
            limit,
        });
    }
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(0);
    write(memory, &bytes, low_memory::COMMAND_LINE)
}

/// Loads the initrd as high as it may lie: below `limit` and the hole, above `kernel_end`.
fn load_initrd(
    memory: &GuestMemoryMmap,
    path: Option<&Path>,
    kernel_end: u64,
    limit: u64,
) -> Result<Option<AddressRange>> {
    let Some(path) = path else { return Ok(None) };
    let fail = |why: String| unusable("initrd", path, why);
    let mut file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let size = file
        .seek(SeekFrom::End(0))
        .map_err(|error| fail(error.to_string()))?;
    file.rewind().map_err(|error| fail(error.to_string()))?;
    let start = place_initrd(size, kernel_end, limit.min(low_ram(memory))).ok_or_else(|| {
        fail(format!("{size} bytes do not fit between the kernel and the end of low RAM: give the machine more memory"))
    })?;
    let count = usize::try_from(size).map_err(|_| fail("too large for this host".into()))?;
    read_into(memory, start, &mut file, count).map_err(|error| fail(error.to_string()))?;
    Ok(Some(AddressRange { start, size }))
}

fn read_into(
    memory: &GuestMemoryMmap,
    start: u64,
    file: &mut impl ReadVolatile,
    count: usize,
) -> Result<(), vm_memory::GuestMemoryError> {
    memory.read_exact_volatile_from(GuestAddress(start), file, count)
}

/// The highest page below `end` from which `size` bytes fit, if it is not below `kernel_end`.
fn place_initrd(size: u64, kernel_end: u64, end: u64) -> Option<u64> {
    let start = end.checked_sub(size)? / PAGE * PAGE;
    (start >= kernel_end).then_some(start)
}

/// First address behind the RAM below the hole.
fn low_ram(memory: &GuestMemoryMmap) -> u64 {
    memory
        .find_region(GuestAddress(0))
        .map_or(0, GuestMemoryRegion::len)
}

fn write(memory: &GuestMemoryMmap, bytes: &[u8], at: u64) -> Result<()> {
    memory
        .write_slice(bytes, GuestAddress(at))
        .map_err(|error| Error::Memory(error.to_string()))
}

#[cfg(test)]
mod tests;
