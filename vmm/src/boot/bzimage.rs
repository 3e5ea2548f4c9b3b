//! The 64-bit boot protocol of a bzImage (Linux Documentation/arch/x86/boot.rst).

use std::fs::File;

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::bzimage::BzImage;
use vm_memory::{ByteValued, GuestMemoryMmap};

use super::{
    BootRequest, HIGH_MEMORY, load_initrd, low_memory, low_ram, not_a_kernel, unusable, write,
    write_command_line,
};
use crate::error::{Error, Result};
use crate::kvm::EntryState;

/// The 64-bit entry point lies here behind the load address ("64-bit Boot Protocol").
const ENTRY_64: u64 = 0x200;
/// `version` 2.12 brought `xloadflags`.
const VERSION_WITH_XLOADFLAGS: u16 = 0x020c;
/// `xloadflags` bit 0: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;
/// `type_of_loader` of a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags` bit 7: `heap_end_ptr` counts. It does not: no real-mode code runs.
const CAN_USE_HEAP: u8 = 1 << 7;

/// Loads `kernel` with its initrd, command line and zero page.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    request: &BootRequest,
    kernel: &mut File,
) -> Result<EntryState> {
    let path = request.kernel;
    let loaded = BzImage::load(memory, None, kernel, Some(HIGH_MEMORY)).map_err(|error| {
        use linux_loader::loader::{Error as Loader, bzimage::Error as Format};
        match error {
            Loader::Bzimage(Format::ReadBzImageCompressedKernel) => unusable(
                "kernel",
                path,
                "does not fit into low RAM: give the machine more memory",
            ),
            Loader::InvalidKernelStartAddress => unusable("kernel", path, "loads below 1 MiB"),
            _ => not_a_kernel(path),
        }
    })?;
    let header = loaded.setup_header.ok_or_else(|| not_a_kernel(path))?;
    let (version, xloadflags) = (header.version, header.xloadflags);
    if version < VERSION_WITH_XLOADFLAGS || xloadflags & XLF_KERNEL_64 == 0 {
        return Err(unusable(
            "kernel",
            path,
            "has no 64-bit entry point; is it a 32-bit kernel?",
        ));
    }

    let end = kernel_end(&header, loaded.kernel_load.0);
    if end > low_ram(memory) {
        let why = format!("needs RAM up to {end:#x} to unpack: give the machine more memory");
        return Err(unusable("kernel", path, why));
    }
    write_command_line(
        memory,
        request.command_line,
        usize::try_from(header.cmdline_size).unwrap_or(usize::MAX),
    )?;
    let initrd_limit = u64::from(header.initrd_addr_max) + 1;
    let initrd = load_initrd(memory, request.initrd, end, initrd_limit)?;

    let mut params = boot_params {
        hdr: header,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags &= !CAN_USE_HEAP;
    params.hdr.cmd_line_ptr = narrow(low_memory::COMMAND_LINE);
    params.acpi_rsdp_addr = request.rsdp;
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = narrow(initrd.start);
        params.hdr.ramdisk_size = narrow(initrd.size);
    }
    set_memory_map(&mut params, request)?;
    write(memory, params.as_slice(), low_memory::BOOT_PARAMS)?;
    Ok(EntryState::Linux64 {
        rip: loaded.kernel_load.0 + ENTRY_64,
        boot_params: low_memory::BOOT_PARAMS,
    })
}

/// First address behind what the kernel takes while it unpacks itself: `init_size` bytes from where
/// it lies or from where it prefers to lie, whichever is higher.
fn kernel_end(header: &setup_header, load: u64) -> u64 {
    let pref_address = header.pref_address;
    load.max(pref_address)
        .saturating_add(u64::from(header.init_size))
}

fn set_memory_map(params: &mut boot_params, request: &BootRequest) -> Result<()> {
    let mut table = params.e820_table;
    if request.memory_map.len() > table.len() {
        return Err(Error::Memory(format!(
            "the memory map has {} ranges, the zero page holds {}",
            request.memory_map.len(),
            table.len()
        )));
    }
    for (slot, entry) in table.iter_mut().zip(request.memory_map) {
        *slot = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.size,
            r#type: entry.kind as u32,
        };
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(request.memory_map.len()).unwrap_or(u8::MAX);
    Ok(())
}

/// For addresses that were placed below 4 GiB.
fn narrow(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}
