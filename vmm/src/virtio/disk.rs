//! A raw image, or a host's block device, as a disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use devices::virtio::Disk;

use crate::error::{HostContext, Result};

/// An image whose size is what it was when it was opened.
pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    /// Opens the image and locks it: for itself alone to write, or with other readers to read.
    pub fn open(path: &Path, read_only: bool) -> Result<Self> {
        let shown = path.display();
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .trying(|| format!("open the disk {shown}"))?;
        let locked = if read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        locked
            .map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::other("another process uses it"),
                TryLockError::Error(error) => error,
            })
            .trying(|| format!("lock the disk {shown}"))?;
        // Unlike its metadata, the end of a file is told for block devices, too.
        let size = file
            .seek(SeekFrom::End(0))
            .trying(|| format!("find the size of the disk {shown}"))?;
        Ok(Self { file, size })
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(4096).unwrap();
        image
    }

    #[test]
    fn what_is_written_and_flushed_is_in_the_file() {
        let image = image();
        let mut disk = FileDisk::open(image.path(), false).unwrap();
        assert_eq!(disk.size(), 4096);
        disk.write_at(512, b"sector").unwrap();
        disk.flush().unwrap();
        assert_eq!(std::fs::read(image.path()).unwrap()[512..518], *b"sector");
        let mut back = [0; 6];
        disk.read_at(512, &mut back).unwrap();
        assert_eq!(&back, b"sector");
    }

    #[test]
    fn a_read_only_disk_cannot_change_its_file() {
        let image = image();
        let mut disk = FileDisk::open(image.path(), true).unwrap();
        assert!(disk.write_at(0, b"no").is_err());
    }

    #[test]
    fn readers_share_an_image_and_a_writer_has_it_alone() {
        let image = image();
        let first = FileDisk::open(image.path(), true).unwrap();
        let second = FileDisk::open(image.path(), true).unwrap();
        let error = FileDisk::open(image.path(), false)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(error.contains("another process uses it"), "{error}");
        drop((first, second));
        let _writer = FileDisk::open(image.path(), false).unwrap();
        assert!(FileDisk::open(image.path(), true).is_err());
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = FileDisk::open(Path::new("/nowhere/disk.img"), false)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/disk.img"), "{error}");
    }
}
