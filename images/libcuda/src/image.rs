//! Module images: PTX text, alone or in a fat binary.
//!
//! The layout of fat binaries is undocumented; the fields here are those that `fatbinary` of CUDA 12 and 13 writes.

use std::io::Read;

use crate::driver::Driver;
use crate::ffi::Address;
use crate::{Error, Result};

/// First word of what `nvcc` puts into a program: a version and the address of a fat binary.
const WRAPPER_MAGIC: u32 = 0x4662_43b1;
const WRAPPER_DATA: u64 = 8;
/// First word of a fat binary: its header's and its content's length follow.
const FATBIN_MAGIC: u32 = 0xba55_ed50;
const FATBIN_HEADER_LENGTH: u64 = 6;
const FATBIN_LENGTH: u64 = 8;
const FATBIN_HEADER: usize = 16;
/// First word of machine code.
const ELF_MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");
/// A program's images together are smaller.
const MOST: u64 = 1 << 30;

/// The PTX text of the image at an address.
///
/// # Errors
/// `NO_BINARY_FOR_GPU` for an image with machine code alone, `INVALID_IMAGE` for one that is damaged.
pub fn ptx_at(image: Address) -> Result<String> {
    if image.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // A text of one or two characters has its end before the fourth byte.
    let magic: [u8; 4] = match image.value::<u8>(0) {
        byte if byte == WRAPPER_MAGIC as u8 || byte == FATBIN_MAGIC as u8 || byte == 0x7f => {
            image.value(0)
        }
        _ => return text(&image.text()),
    };
    match u32::from_le_bytes(magic) {
        WRAPPER_MAGIC => {
            let inner = Address(image.value(WRAPPER_DATA));
            if inner.is_null() || inner.value::<u32>(0) != FATBIN_MAGIC {
                return Err(Error::INVALID_IMAGE);
            }
            ptx_at(inner)
        }
        FATBIN_MAGIC => {
            let length = image
                .value::<u64>(FATBIN_LENGTH)
                .saturating_add(image.value::<u16>(FATBIN_HEADER_LENGTH).into());
            if length > MOST {
                return Err(Error::INVALID_IMAGE);
            }
            ptx_of_fatbin(image.bytes(length as usize))
        }
        ELF_MAGIC => Err(Error::NO_BINARY_FOR_GPU),
        _ => Err(Error::INVALID_IMAGE),
    }
}

/// The PTX text of an image of known length.
pub fn ptx_of(image: &[u8]) -> Result<String> {
    match image.first_chunk() {
        Some(magic) if u32::from_le_bytes(*magic) == FATBIN_MAGIC => ptx_of_fatbin(image),
        Some(magic) if u32::from_le_bytes(*magic) == ELF_MAGIC => Err(Error::NO_BINARY_FOR_GPU),
        _ => text(image),
    }
}

/// A text, without the zeros that may end it.
fn text(bytes: &[u8]) -> Result<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let bytes = &bytes[..end.unwrap_or(bytes.len())];
    let text = std::str::from_utf8(bytes).map_err(|_| Error::INVALID_IMAGE)?;
    Ok(text.to_owned())
}

/// Names of the kernels that a text defines, in its order.
pub fn kernels(ptx: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = ptx;
    while let Some(at) = rest.find([DIRECTIVE, COMMENT]) {
        let found = &rest[at..];
        rest = match found.strip_prefix("/*") {
            Some(comment) => comment.split_once("*/").map_or("", |(_, behind)| behind),
            None if found.starts_with("//") => found.split_once('\n').map_or("", |(_, next)| next),
            None => {
                if let Some(name) = entry_name(found) {
                    names.push(name.to_owned());
                }
                &found[1..]
            }
        };
    }
    names
}

const DIRECTIVE: char = '.';
const COMMENT: char = '/';

/// The name behind `.entry`.
fn entry_name(text: &str) -> Option<&str> {
    let behind = text.strip_prefix(".entry")?;
    let name = behind.trim_start();
    if name.len() == behind.len() {
        return None;
    }
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%')));
    Some(&name[..end.unwrap_or(name.len())])
}

/// Header of an entry of a fat binary.
mod entry {
    /// 1 for PTX, 2 for machine code.
    pub const KIND: usize = 0;
    pub const HEADER_LENGTH: usize = 4;
    pub const LENGTH: usize = 8;
    /// Of a compressed payload, without what pads it.
    pub const COMPRESSED_LENGTH: usize = 16;
    /// Compute capability, as 75.
    pub const CAPABILITY: usize = 28;
    pub const FLAGS: usize = 40;
    pub const UNCOMPRESSED_LENGTH: usize = 56;
    pub const SHORTEST_HEADER: usize = 64;

    pub const KIND_PTX: u16 = 1;
    pub const FLAG_LZ4: u64 = 0x2000;
    pub const FLAG_ZSTD: u64 = 0x8000;
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.copied().ok_or(Error::INVALID_IMAGE)
}

/// Of a fat binary's PTX texts the one for the newest device that is not newer than ours, else that for the oldest.
fn ptx_of_fatbin(image: &[u8]) -> Result<String> {
    let (major, minor) = Driver::compute_capability();
    let ours = major * 10 + minor;
    let mut best: Option<(u32, &[u8])> = None;
    let header = usize::from(u16::from_le_bytes(field(
        image,
        FATBIN_HEADER_LENGTH as usize,
    )?));
    let mut rest = image
        .get(header.max(FATBIN_HEADER)..)
        .ok_or(Error::INVALID_IMAGE)?;
    while rest.len() >= entry::SHORTEST_HEADER {
        let header = u32::from_le_bytes(field(rest, entry::HEADER_LENGTH)?) as usize;
        let length = u64::from_le_bytes(field(rest, entry::LENGTH)?);
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| header.checked_add(length))
            .filter(|end| header >= entry::SHORTEST_HEADER && *end <= rest.len())
            .ok_or(Error::INVALID_IMAGE)?;
        let (this, others) = rest.split_at(end);
        rest = others;
        if u16::from_le_bytes(field(this, entry::KIND)?) != entry::KIND_PTX {
            continue;
        }
        let capability = u32::from_le_bytes(field(this, entry::CAPABILITY)?);
        let better = best.is_none_or(|(so_far, _)| {
            if so_far > ours {
                capability < so_far
            } else {
                capability <= ours && capability > so_far
            }
        });
        if better {
            best = Some((capability, this));
        }
    }
    let (_, best) = best.ok_or(Error::NO_BINARY_FOR_GPU)?;
    text(&payload(best)?)
}

/// What any decoder of zstd is to have room for at once (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW: u64 = 8 << 20;

/// Bytes that so many compressed ones can stand for: memory is taken for no more, whatever an entry claims.
fn most_of(compressed: u64, lz4: bool) -> u64 {
    if lz4 {
        // A byte makes a match longer by 255 at most.
        compressed.saturating_mul(255)
    } else {
        // A block has a header of three bytes, at least one byte, and at most 128 KiB of content.
        (compressed / 4).saturating_mul(128 << 10)
    }
}

/// The content of an entry, uncompressed.
fn payload(entry: &[u8]) -> Result<Vec<u8>> {
    let header = u32::from_le_bytes(field(entry, entry::HEADER_LENGTH)?) as usize;
    let flags = u64::from_le_bytes(field(entry, entry::FLAGS)?);
    let body = entry.get(header..).ok_or(Error::INVALID_IMAGE)?;
    if flags & (entry::FLAG_LZ4 | entry::FLAG_ZSTD) == 0 {
        return Ok(body.to_vec());
    }
    let compressed = u32::from_le_bytes(field(entry, entry::COMPRESSED_LENGTH)?) as usize;
    let body = body.get(..compressed).ok_or(Error::INVALID_IMAGE)?;
    let length = u64::from_le_bytes(field(entry, entry::UNCOMPRESSED_LENGTH)?);
    let lz4 = flags & entry::FLAG_LZ4 != 0;
    if length > MOST.min(most_of(body.len() as u64, lz4)) {
        return Err(Error::INVALID_IMAGE);
    }
    if lz4 {
        return lz4_flex::block::decompress(body, length as usize)
            .map_err(|_| Error::INVALID_IMAGE);
    }
    let window = length.max(ZSTD_WINDOW);
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(body, window);
    let decoder = decoder.map_err(|_| Error::INVALID_IMAGE)?;
    let mut text = Vec::new();
    decoder
        .take(length)
        .read_to_end(&mut text)
        .map_err(|_| Error::INVALID_IMAGE)?;
    Ok(text)
}

#[cfg(test)]
mod hostile_test;

#[cfg(test)]
mod tests {
    use super::*;

    pub const PTX: &str = ".version 7.5\n.target sm_75\n.address_size 64\n";

    pub fn entry_of(kind: u16, capability: u32, flags: u64, body: &[u8], plain: usize) -> Vec<u8> {
        let padded = body.len().next_multiple_of(8);
        let mut entry = vec![0; 64];
        let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &kind.to_le_bytes());
        put(2, &0x101u16.to_le_bytes());
        put(4, &64u32.to_le_bytes());
        put(8, &(padded as u64).to_le_bytes());
        put(16, &(body.len() as u32).to_le_bytes());
        put(28, &capability.to_le_bytes());
        put(40, &(flags | 0x11).to_le_bytes());
        put(56, &(plain as u64).to_le_bytes());
        entry.extend(body);
        entry.resize(64 + padded, 0);
        entry
    }

    pub fn fatbin(entries: &[Vec<u8>]) -> Vec<u8> {
        let content: Vec<u8> = entries.concat();
        let mut image = FATBIN_MAGIC.to_le_bytes().to_vec();
        image.extend(1u16.to_le_bytes());
        image.extend(16u16.to_le_bytes());
        image.extend((content.len() as u64).to_le_bytes());
        image.extend(content);
        image
    }

    fn at(image: &[u8]) -> Result<String> {
        ptx_at(Address(image.as_ptr() as u64))
    }

    #[test]
    fn a_text_ends_with_its_zero() {
        let image = format!("{PTX}\0rubbish");
        assert_eq!(at(image.as_bytes()).unwrap(), PTX);
        assert_eq!(ptx_of(PTX.as_bytes()).unwrap(), PTX);
    }

    #[test]
    fn kernels_are_named_in_their_order() {
        let ptx = ".version 7.5 // .entry no\n/* .entry none */ .visible .entry _Z1fPi(\n.param .u64 a) { bra $l; }\n\
                   .entry g() { .reg .f32 %f; }\n.func h() { }";
        assert_eq!(kernels(ptx), ["_Z1fPi", "g"]);
        assert!(kernels("").is_empty());
    }

    #[test]
    fn machine_code_is_no_binary_for_this_device() {
        assert_eq!(at(b"\x7fELF\x02\x01"), Err(Error::NO_BINARY_FOR_GPU));
        let image = fatbin(&[entry_of(2, 75, 0, b"\x7fELF", 0)]);
        assert_eq!(at(&image), Err(Error::NO_BINARY_FOR_GPU));
    }

    #[test]
    fn a_fat_binary_gives_the_text_for_the_newest_device_up_to_ours() {
        let entries = [(52, "old"), (75, "ours"), (90, "new")];
        let all: Vec<Vec<u8>> = entries
            .iter()
            .map(|(capability, text)| entry_of(1, *capability, 0, text.as_bytes(), 0))
            .collect();
        assert_eq!(at(&fatbin(&all)).unwrap(), "ours");
        assert_eq!(at(&fatbin(&all[2..])).unwrap(), "new");
        assert_eq!(at(&fatbin(&all[..1])).unwrap(), "old");
    }

    #[test]
    fn a_wrapper_leads_to_its_fat_binary() {
        let image = fatbin(&[entry_of(1, 75, 0, PTX.as_bytes(), 0)]);
        let mut wrapper = WRAPPER_MAGIC.to_le_bytes().to_vec();
        wrapper.extend(1u32.to_le_bytes());
        wrapper.extend((image.as_ptr() as u64).to_le_bytes());
        wrapper.extend(0u64.to_le_bytes());
        assert_eq!(at(&wrapper).unwrap(), PTX);
    }

    #[test]
    fn lz4_texts_are_unpacked() {
        // One sequence of literals alone: its length, then the bytes.
        let mut body = vec![0xf0, (PTX.len() - 15) as u8];
        body.extend(PTX.bytes());
        let image = fatbin(&[entry_of(1, 75, entry::FLAG_LZ4, &body, PTX.len())]);
        assert_eq!(at(&image).unwrap(), PTX);
    }

    #[test]
    fn zstd_texts_are_unpacked() {
        // A frame of one raw block (RFC 8878): magic, a single segment of one byte's length, the block's header, its bytes.
        let mut body = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, PTX.len() as u8];
        let block = (PTX.len() as u32) << 3 | 1;
        body.extend(&block.to_le_bytes()[..3]);
        body.extend(PTX.bytes());
        let image = fatbin(&[entry_of(1, 75, entry::FLAG_ZSTD, &body, PTX.len())]);
        assert_eq!(at(&image).unwrap(), PTX);
    }

    #[test]
    fn damaged_fat_binaries_are_invalid_images() {
        let mut image = fatbin(&[entry_of(1, 75, 0, PTX.as_bytes(), 0)]);
        // The entry's length.
        image[16 + 8..16 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(at(&image), Err(Error::INVALID_IMAGE));
        for flag in [entry::FLAG_LZ4, entry::FLAG_ZSTD] {
            let image = fatbin(&[entry_of(1, 75, flag, b"not compressed", 100)]);
            assert_eq!(at(&image), Err(Error::INVALID_IMAGE));
        }
    }
}
