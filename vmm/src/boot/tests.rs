//! Kernels of a few bytes, loaded into a small guest.

use std::fs;
use std::path::PathBuf;

use super::*;

const MIB: u64 = 1 << 20;
const RAM: u64 = 64 * MIB;
const KERNEL_BODY: &[u8] = b"the protected-mode kernel";

/// A directory of files that goes away with the test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(RAM).unwrap())]).unwrap()
}

/// A bzImage with one setup sector.
fn bzimage(xloadflags: u16) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x236, &xloadflags.to_le_bytes());
    put(0x238, &255_u32.to_le_bytes()); // cmdline_size
    put(0x258, &(16 * MIB).to_le_bytes()); // pref_address
    put(0x260, &0x10_0000_u32.to_le_bytes()); // init_size
    image.extend_from_slice(KERNEL_BODY);
    image
}

/// An ELF with one segment at 1 MiB and, if asked for, a PVH note with entry 0x10_0010.
fn vmlinux(with_note: bool) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let mut note = Vec::new();
    for word in [4_u32, 4, 18] {
        note.extend(word.to_le_bytes()); // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    }
    note.extend(b"Xen\0");
    note.extend(0x10_0010_u32.to_le_bytes());

    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    for value in [0x10_0000_u64, 64, 0] {
        elf.extend(value.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, 2, 0, 0, 0] {
        elf.extend(value.to_le_bytes());
    }
    let mut program_header = |kind: u32, offset: u64, address: u64, size: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(0_u32.to_le_bytes());
        for value in [offset, address, address, size, size, 4] {
            elf.extend(value.to_le_bytes());
        }
    };
    let note_len = note.len() as u64;
    let note_kind = if with_note { 4 } else { 0 };
    program_header(note_kind, HEADERS, 0, note_len);
    program_header(1, HEADERS + note_len, 0x10_0000, KERNEL_BODY.len() as u64);
    elf.extend(note);
    elf.extend(KERNEL_BODY);
    elf
}

const MAP: [MemoryMapEntry; 2] = [
    MemoryMapEntry {
        range: AddressRange {
            start: 0,
            size: 0x9_fc00,
        },
        kind: MemoryKind::Usable,
    },
    MemoryMapEntry {
        range: AddressRange {
            start: 0xe000_0000,
            size: 256 * MIB,
        },
        kind: MemoryKind::Reserved,
    },
];

fn request<'a>(kernel: &'a Path, initrd: Option<&'a Path>, line: &'a str) -> BootRequest<'a> {
    BootRequest {
        kernel,
        initrd,
        command_line: line,
        memory_map: &MAP,
        rsdp: 0xe_0000,
    }
}

fn word(memory: &GuestMemoryMmap, at: u64) -> u32 {
    memory.read_obj(GuestAddress(at)).unwrap()
}

fn bytes<const N: usize>(memory: &GuestMemoryMmap, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn failure(kernel: &[u8], initrd: Option<&[u8]>, line: &str) -> String {
    let files = Files::new();
    let kernel = files.add("kernel", kernel);
    let initrd = initrd.map(|bytes| files.add("initrd", bytes));
    load(&ram(), &request(&kernel, initrd.as_deref(), line))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_bzimage_is_entered_at_its_64_bit_entry_with_a_zero_page() {
    let files = Files::new();
    let kernel = files.add("bzImage", &bzimage(1));
    let initrd = files.add("initrd", b"initrd!");
    let memory = ram();
    let entry = load(&memory, &request(&kernel, Some(&initrd), "console=ttyS0")).unwrap();

    assert_eq!(
        entry,
        EntryState::Linux64 {
            rip: 0x10_0200,
            boot_params: 0x7000
        }
    );
    assert_eq!(bytes::<25>(&memory, 0x10_0000), KERNEL_BODY);
    assert_eq!(bytes::<14>(&memory, 0x2_0000), *b"console=ttyS0\0");
    assert_eq!(word(&memory, 0x7070), 0xe_0000, "acpi_rsdp_addr");
    assert_eq!(bytes::<1>(&memory, 0x71e8), [2], "e820_entries");
    assert_eq!(bytes::<1>(&memory, 0x7210), [0xff], "type_of_loader");
    assert_eq!(word(&memory, 0x7228), 0x2_0000, "cmd_line_ptr");
    assert_eq!(
        word(&memory, 0x72d0 + 8),
        0x9_fc00,
        "size of the first e820 entry"
    );
    assert_eq!(word(&memory, 0x72d0 + 20 + 16), 2, "type of the second");
    let start = word(&memory, 0x7218);
    assert_eq!(
        u64::from(start),
        RAM - 4096,
        "the initrd takes the last page of RAM"
    );
    assert_eq!(word(&memory, 0x721c), 7, "ramdisk_size");
    assert_eq!(bytes::<7>(&memory, start.into()), *b"initrd!");
}

#[test]
fn an_elf_is_entered_at_its_pvh_note_with_a_start_info() {
    let files = Files::new();
    let kernel = files.add("vmlinux", &vmlinux(true));
    let initrd = files.add("initrd", b"initrd!");
    let memory = ram();
    let entry = load(&memory, &request(&kernel, Some(&initrd), "quiet")).unwrap();

    assert_eq!(
        entry,
        EntryState::Pvh {
            eip: 0x10_0010,
            start_info: 0x6000
        }
    );
    assert_eq!(bytes::<25>(&memory, 0x10_0000), KERNEL_BODY);
    assert_eq!(word(&memory, 0x6000), 0x336e_c578, "magic");
    assert_eq!(word(&memory, 0x600c), 1, "modules");
    let modules = word(&memory, 0x6010);
    assert_eq!(
        bytes::<6>(&memory, word(&memory, 0x6018).into()),
        *b"quiet\0"
    );
    assert_eq!(word(&memory, 0x6020), 0xe_0000, "rsdp");
    let map = word(&memory, 0x6028);
    assert_eq!(word(&memory, 0x6030), 2, "memory map entries");
    assert_eq!(
        bytes::<7>(&memory, word(&memory, modules.into()).into()),
        *b"initrd!"
    );
    assert_eq!(word(&memory, u64::from(map) + 24), 0xe000_0000);
    assert_eq!(word(&memory, u64::from(map) + 24 + 16), 2);
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    for broken in [&b"#!/bin/sh\n"[..], b"", &[0; 4096], &vmlinux(false)] {
        let message = failure(broken, None, "");
        assert!(message.starts_with("kernel /"), "{message}");
        assert!(
            message.ends_with("not a bzImage nor an ELF with a PVH note"),
            "{message}"
        );
    }
}

#[test]
fn a_kernel_without_a_64_bit_entry_is_refused() {
    assert!(failure(&bzimage(0), None, "").contains("no 64-bit entry point"));
}

#[test]
fn a_missing_kernel_or_initrd_is_named() {
    let files = Files::new();
    let missing = files.0.path().join("missing");
    let message = load(&ram(), &request(&missing, None, ""))
        .unwrap_err()
        .to_string();
    assert!(message.contains("missing: No such file"), "{message}");
    let kernel = files.add("kernel", &bzimage(1));
    let message = load(&ram(), &request(&kernel, Some(&missing), ""))
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("initrd /"), "{message}");
}

#[test]
fn a_command_line_may_be_as_long_as_the_kernel_says() {
    let files = Files::new();
    let kernel = files.add("kernel", &bzimage(1));
    load(&ram(), &request(&kernel, None, &"x".repeat(255))).unwrap();
    let message = failure(&bzimage(1), None, &"x".repeat(256));
    assert!(
        message.contains("256 bytes") && message.contains("takes 255"),
        "{message}"
    );
    assert!(failure(&vmlinux(true), None, &"x".repeat(2048)).contains("takes 2047"));
}

#[test]
fn a_kernel_or_initrd_too_large_for_ram_is_refused() {
    let mut kernel = bzimage(1);
    kernel[0x260..0x264].copy_from_slice(&0x0400_0000_u32.to_le_bytes());
    assert!(failure(&kernel, None, "").contains("more memory"));
    let initrd = vec![0; usize::try_from(RAM - 16 * MIB).unwrap()];
    assert!(failure(&bzimage(1), Some(&initrd), "").contains("more memory"));
}

#[test]
fn a_memory_map_too_long_for_its_place_is_refused() {
    let files = Files::new();
    let map = [MAP[0]; 256];
    for kernel in [bzimage(1), vmlinux(true)] {
        let kernel = files.add("kernel", &kernel);
        let wanted = BootRequest {
            memory_map: &map,
            ..request(&kernel, None, "")
        };
        let message = load(&ram(), &wanted).unwrap_err().to_string();
        assert!(message.contains("memory map"), "{message}");
    }
}

#[test]
fn initrds_lie_as_high_as_they_may() {
    assert_eq!(place_initrd(4096, 0, 0x1_0000), Some(0xf000));
    assert_eq!(place_initrd(4097, 0, 0x1_0000), Some(0xe000));
    assert_eq!(place_initrd(1, 0xf000, 0x1_0000), Some(0xf000));
    assert_eq!(place_initrd(4097, 0xf000, 0x1_0000), None);
    assert_eq!(place_initrd(u64::MAX, 0, 0x1_0000), None);
}
