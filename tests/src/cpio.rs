//! The `newc` archive that the kernel unpacks after the cached initramfs, so that each test brings its own `/test`.
//!
//! Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

/// One archive under construction. Parents must be added before what is in them.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

const MODE_DIRECTORY: u32 = 0o040_755;
const MODE_PROGRAM: u32 = 0o100_755;

impl Cpio {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, mode 0755.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, MODE_DIRECTORY, &[]);
    }

    /// Adds an executable file, mode 0755.
    pub fn program(&mut self, path: &str, data: &[u8]) {
        self.entry(path, MODE_PROGRAM, data);
    }

    /// The finished archive, with its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(data.len()).expect("a test file is smaller than 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path is short");
        // inode, mode, uid, gid, links, mtime, size, device major and minor (file, then node), name length, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Cpio::new();
        archive.directory("test");
        archive.program("test/run", b"#!/bin/sh\n");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("test/run\0"));
        assert!(text.contains("TRAILER!!!"));
        // Size of the second entry: field 7 of 13.
        let second = text
            .rfind("070701")
            .and_then(|last| text[..last].rfind("070701"))
            .unwrap();
        assert_eq!(&text[second + 6 + 8 * 6..second + 6 + 8 * 7], "0000000a");
    }
}
