//! The PVH boot protocol of an ELF kernel (Xen docs/misc/pvh.pandoc and
//! public/arch-x86/hvm/start_info.h).

use std::fs::File;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::GuestMemoryMmap;

use super::{
    BootRequest, HIGH_MEMORY, load_initrd, low_memory, low_ram, not_a_kernel, unusable, write,
    write_command_line,
};
use crate::error::Result;
use crate::kvm::EntryState;

/// First word of the start info.
const MAGIC: u32 = 0x336e_c578;
/// Version 1 brought the memory map.
const VERSION: u32 = 1;
/// Bytes of `hvm_start_info`, `hvm_modlist_entry` and `hvm_memmap_table_entry`.
const START_INFO_SIZE: u64 = 56;
const MODULE_SIZE: u64 = 32;
/// Linux's COMMAND_LINE_SIZE less the terminating zero; an ELF does not say.
const COMMAND_LINE_LIMIT: usize = 2047;

/// Loads `kernel` with its initrd, command line and start info.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    request: &BootRequest,
    kernel: &mut File,
) -> Result<EntryState> {
    let path = request.kernel;
    let loaded = Elf::load(memory, None, kernel, Some(HIGH_MEMORY)).map_err(|error| {
        use linux_loader::loader::{Error as Loader, elf::Error as Format};
        match error {
            Loader::Elf(Format::ReadKernelImage) => unusable(
                "kernel",
                path,
                "does not fit into low RAM: give the machine more memory",
            ),
            _ => not_a_kernel(path),
        }
    })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(not_a_kernel(path));
    };
    let eip = u32::try_from(entry.0).map_err(|_| not_a_kernel(path))?;
    if loaded.kernel_end > low_ram(memory) {
        let why = format!(
            "needs RAM up to {:#x}: give the machine more memory",
            loaded.kernel_end
        );
        return Err(unusable("kernel", path, why));
    }
    write_command_line(memory, request.command_line, COMMAND_LINE_LIMIT)?;
    let initrd = load_initrd(memory, request.initrd, loaded.kernel_end, low_ram(memory))?;

    let module = low_memory::START_INFO + START_INFO_SIZE;
    let memory_map = module + MODULE_SIZE;
    let entries = u32::try_from(request.memory_map.len()).unwrap_or(u32::MAX);
    let mut info = Fields::default();
    info.u32(MAGIC)
        .u32(VERSION)
        .u32(0)
        .u32(initrd.is_some().into());
    info.u64(module)
        .u64(low_memory::COMMAND_LINE)
        .u64(request.rsdp);
    info.u64(memory_map).u32(entries).u32(0);
    let (start, size) = initrd.map_or((0, 0), |initrd| (initrd.start, initrd.size));
    info.u64(start).u64(size).u64(0).u64(0);
    // The types of start_info.h are those of E820.
    for entry in request.memory_map {
        info.u64(entry.range.start)
            .u64(entry.range.size)
            .u32(entry.kind as u32)
            .u32(0);
    }
    if info.0.len() as u64 > low_memory::BOOT_PARAMS - low_memory::START_INFO {
        return Err(crate::Error::Memory(
            "the memory map has too many ranges for PVH".into(),
        ));
    }
    write(memory, &info.0, low_memory::START_INFO)?;
    let start_info = u32::try_from(low_memory::START_INFO).unwrap_or(u32::MAX);
    Ok(EntryState::Pvh { eip, start_info })
}

/// Little-endian fields, one after the other.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}
