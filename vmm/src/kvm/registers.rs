//! The registers with which the first processor enters the kernel.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, KvmContext, Result};

/// Where the tables of the 64-bit entry lie, in memory that the kernel takes over later. The kernel
/// loads its own before it uses that memory.
const GDT: u64 = 0x500;
/// Page tables: one PML4, one PDPT, four page directories.
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PAGE_DIRECTORIES: u64 = 0xb000;
/// The identity map covers the first 4 GiB: kernel, initrd, zero page and command line.
const MAPPED_GIB: u64 = 4;
const ENTRIES_PER_TABLE: u64 = 512;
const TABLE_SIZE: u64 = 4096;
/// Top of the stack that the kernel starts with, growing down below the zero page's successor.
const STACK_TOP: u64 = 0x8ff0;

/// Page table entry bits (Intel SDM 3, 4.5).
const PTE_PRESENT: u64 = 1 << 0;
const PTE_WRITABLE: u64 = 1 << 1;
const PTE_LARGE: u64 = 1 << 7;
const LARGE_PAGE_SHIFT: u64 = 21;

/// Control register bits (Intel SDM 3, 2.5) and EFER bits (2.2.1).
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// RFLAGS bit 1 is always set; interrupts are off.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Segment types (Intel SDM 3, 3.4.5.1 and 3.5).
const TYPE_CODE_EXECUTE_READ: u8 = 0xb;
const TYPE_DATA_READ_WRITE: u8 = 0x3;
const TYPE_TSS_32_BUSY: u8 = 0xb;
/// Selectors that the 64-bit boot protocol fixes: `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;
/// The entries of the GDT: two unused, code, data, TSS.
const GDT_ENTRIES: usize = 5;

/// How the first processor enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// The 64-bit boot protocol: long mode, identity map, RSI holds the zero page (Linux
    /// Documentation/arch/x86/boot.rst, "64-bit boot protocol").
    Linux64 {
        /// First instruction.
        rip: u64,
        /// The zero page.
        boot_params: u64,
    },
    /// The PVH boot protocol: protected mode without paging, EBX holds the start info (Xen
    /// docs/misc/pvh.pandoc).
    Pvh {
        /// First instruction, below 4 GiB.
        eip: u32,
        /// `hvm_start_info`, below 4 GiB.
        start_info: u32,
    },
}

/// Sets the registers of `vcpu` and writes the tables they refer to.
pub(super) fn enter(vcpu: &VcpuFd, entry: EntryState, memory: &GuestMemoryMmap) -> Result<()> {
    let mut sregs = vcpu.get_sregs().attempting("read the system registers")?;
    let regs = match entry {
        EntryState::Linux64 { rip, boot_params } => {
            write_tables(memory)?;
            long_mode(&mut sregs);
            kvm_regs {
                rip,
                rsi: boot_params,
                rsp: STACK_TOP,
                rbp: STACK_TOP,
                ..flags()
            }
        }
        EntryState::Pvh { eip, start_info } => {
            protected_mode(&mut sregs);
            kvm_regs {
                rip: eip.into(),
                rbx: start_info.into(),
                ..flags()
            }
        }
    };
    vcpu.set_sregs(&sregs)
        .attempting("set the system registers")?;
    vcpu.set_regs(&regs).attempting("set the registers")
}

fn flags() -> kvm_regs {
    kvm_regs {
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    }
}

fn long_mode(sregs: &mut kvm_sregs) {
    flat_segments(sregs, true);
    sregs.gdt.base = GDT;
    #[allow(clippy::cast_possible_truncation)] // 39.
    let limit = (GDT_ENTRIES * 8 - 1) as u16;
    sregs.gdt.limit = limit;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.efer = EFER_LME | EFER_LMA;
}

fn protected_mode(sregs: &mut kvm_sregs) {
    flat_segments(sregs, false);
    sregs.cr4 = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.efer = 0;
}

fn flat_segments(sregs: &mut kvm_sregs, long: bool) {
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: BOOT_CS,
        type_: TYPE_CODE_EXECUTE_READ,
        l: long.into(),
        db: (!long).into(),
        ..flat
    };
    let data = kvm_segment {
        selector: BOOT_DS,
        type_: TYPE_DATA_READ_WRITE,
        db: 1,
        ..flat
    };
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    // The smallest 32-bit TSS; PVH wants this limit.
    sregs.tr = kvm_segment {
        selector: BOOT_TSS,
        type_: TYPE_TSS_32_BUSY,
        limit: 0x67,
        present: 1,
        ..Default::default()
    };
}

fn write_tables(memory: &GuestMemoryMmap) -> Result<()> {
    let write = |value: u64, at: u64| {
        memory
            .write_obj(value, GuestAddress(at))
            .map_err(|e| Error::Memory(e.to_string()))
    };
    // The descriptors of the segments above: flat 64-bit code, flat data, a TSS at 0.
    let gdt: [u64; GDT_ENTRIES] = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_0000_0067,
    ];
    for (descriptor, at) in gdt.into_iter().zip((GDT..).step_by(8)) {
        write(descriptor, at)?;
    }
    write(PDPT | PTE_PRESENT | PTE_WRITABLE, PML4)?;
    for gib in 0..MAPPED_GIB {
        let directory = PAGE_DIRECTORIES + gib * TABLE_SIZE;
        write(directory | PTE_PRESENT | PTE_WRITABLE, PDPT + gib * 8)?;
    }
    for page in 0..MAPPED_GIB * ENTRIES_PER_TABLE {
        let target = page << LARGE_PAGE_SHIFT;
        write(
            target | PTE_PRESENT | PTE_WRITABLE | PTE_LARGE,
            PAGE_DIRECTORIES + page * 8,
        )?;
    }
    Ok(())
}
