//! Damaged and lying fat binaries: any answer will do that is soon there and takes no more memory than it can need.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;

use super::tests::{PTX, entry_of, fatbin};
use super::*;

thread_local! {
    /// The largest piece of memory that this thread has asked for.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

// SAFETY: all is left to the system's allocator; the cell needs no memory and no destructor.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn note(bytes: usize) {
    // A thread that ends has none any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

/// Reads an image; no piece of memory for it is larger than what its bytes can stand for.
#[track_caller]
fn withstands(image: &[u8]) -> Result<String> {
    LARGEST.set(0);
    let result = ptx_of(image);
    let largest = LARGEST.get() as u64;
    // A buffer that grows doubles.
    let most = 2 * most_of(image.len() as u64, false).clamp(ZSTD_WINDOW, MOST) + 4096;
    assert!(
        largest <= most,
        "{largest} bytes for {} of {image:x?}",
        image.len()
    );
    result
}

/// How an entry's content is packed.
#[derive(Clone, Copy, Debug)]
enum Packing {
    Plain,
    Lz4,
    Zstd,
}

fn packed(packing: Packing, capability: u32, text: &str) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let (flags, body) = match packing {
        Packing::Plain => (0, text.as_bytes().to_vec()),
        Packing::Lz4 => (entry::FLAG_LZ4, lz4_flex::block::compress(text.as_bytes())),
        Packing::Zstd => (
            entry::FLAG_ZSTD,
            ruzstd::encoding::compress_to_vec(text.as_bytes(), level),
        ),
    };
    entry_of(entry::KIND_PTX, capability, flags, &body, text.len())
}

fn packing() -> impl Strategy<Value = Packing> {
    prop_oneof![
        Just(Packing::Plain),
        Just(Packing::Lz4),
        Just(Packing::Zstd)
    ]
}

/// A text that is worth packing.
fn text() -> impl Strategy<Value = String> {
    ("[a-z;% ]{1,40}", 1..40usize).prop_map(|(line, times)| format!("{PTX}{}", line.repeat(times)))
}

/// Fat binaries of some entries, and the text that each is to give.
fn images() -> impl Strategy<Value = (Vec<u8>, String)> {
    prop::collection::vec((packing(), text()), 1..4).prop_map(|entries| {
        // The second one is for our device.
        let capabilities = [90, 75, 52];
        let image: Vec<Vec<u8>> = capabilities
            .iter()
            .zip(&entries)
            .map(|(capability, (packing, text))| packed(*packing, *capability, text))
            .collect();
        (
            fatbin(&image),
            entries[usize::from(entries.len() > 1)].1.clone(),
        )
    })
}

/// Numbers that are wrong in a length or a flag.
fn wild() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u16>().prop_map(u64::from),
        (0..64u32).prop_map(|bit| 1u64 << bit),
        (0..64u32).prop_map(|bit| (1u64 << bit) - 1),
        Just(MOST),
        Just(MOST + 1),
    ]
}

#[derive(Clone, Debug)]
enum Damage {
    /// Only so much of it is there.
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    /// A field of a header, or of the frame behind one.
    Field(usize, u64, usize),
    /// The rest is another image's.
    Splice(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (0..110usize, wild(), 1..=8usize).prop_map(|(at, value, bytes)| Damage::Field(at, value, bytes)),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(to, from)| Damage::Splice(to, from)),
    ]
}

fn damaged(mut image: Vec<u8>, other: &[u8], damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if image.is_empty() {
            break;
        }
        match damage {
            Damage::Cut(at) => image.truncate(at.index(image.len())),
            Damage::Byte(at, byte) => {
                let at = at.index(image.len());
                image[at] = *byte;
            }
            Damage::Field(at, value, bytes) => {
                if let Some(field) = image.get_mut(*at..at + bytes) {
                    field.copy_from_slice(&value.to_le_bytes()[..*bytes]);
                }
            }
            Damage::Splice(to, from) => {
                image.truncate(to.index(image.len()));
                image.extend(&other[from.index(other.len())..]);
            }
        }
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_whole_fat_binary_gives_its_text((image, text) in images()) {
        prop_assert_eq!(withstands(&image), Ok(text));
    }

    #[test]
    fn a_damaged_fat_binary_is_refused_or_read(
        (image, _) in images(),
        (other, _) in images(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        // What comes of it is open.
        let _ = withstands(&damaged(image, &other, &damages));
    }

    #[test]
    fn bytes_without_a_pattern_behind_the_headers_are_refused_or_read(
        flags in prop_oneof![Just(entry::FLAG_LZ4), Just(entry::FLAG_ZSTD)],
        zstd_magic in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        claimed in wild(),
    ) {
        let mut body = if zstd_magic { vec![0x28, 0xb5, 0x2f, 0xfd] } else { Vec::new() };
        body.extend(bytes);
        let _ = withstands(&fatbin(&[entry_of(entry::KIND_PTX, 75, flags, &body, claimed as usize)]));
    }
}

#[test]
fn a_fat_binary_cut_anywhere_is_refused() {
    for packing in [Packing::Plain, Packing::Lz4, Packing::Zstd] {
        let image = fatbin(&[packed(packing, 75, &PTX.repeat(20))]);
        for length in FATBIN_HEADER..image.len() {
            assert!(
                withstands(&image[..length]).is_err(),
                "{packing:?} {length}"
            );
        }
    }
}

#[test]
fn what_an_entry_claims_takes_no_memory() {
    for (packing, flag) in [
        (Packing::Lz4, entry::FLAG_LZ4),
        (Packing::Zstd, entry::FLAG_ZSTD),
    ] {
        let mut image = fatbin(&[packed(packing, 75, PTX)]);
        let at = FATBIN_HEADER + entry::UNCOMPRESSED_LENGTH;
        image[at..at + 8].copy_from_slice(&MOST.to_le_bytes());
        assert_eq!(withstands(&image), Err(Error::INVALID_IMAGE), "{flag:#x}");
        assert!(LARGEST.get() < 1 << 20, "{}", LARGEST.get());
    }
    // A frame with a window of 128 MiB (descriptor 0x88), and one with two gigabytes of content in a single segment.
    for header in [
        &[0x28, 0xb5, 0x2f, 0xfd, 0, 0x88][..],
        &[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x80],
    ] {
        let mut body = header.to_vec();
        body.extend([0; 64]);
        let image = fatbin(&[entry_of(entry::KIND_PTX, 75, entry::FLAG_ZSTD, &body, 1000)]);
        assert_eq!(withstands(&image), Err(Error::INVALID_IMAGE));
        assert!(LARGEST.get() <= 1 << 20, "{}", LARGEST.get());
    }
}
