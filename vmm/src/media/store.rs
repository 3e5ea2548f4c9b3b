//! One store of bytes: a file that holds a device's media or a set's, or memory for as long as the machine runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek};

use super::{MediaError, MediaSpec};
use crate::memory::{PageSize, memfd};

/// A store of bytes.
#[derive(Debug)]
pub struct Store {
    file: Arc<File>,
    path: Option<PathBuf>,
    len: u64,
}

impl Store {
    /// Memory for the device or set `name`, all zeros.
    ///
    /// # Errors
    /// [`MediaError::Memory`].
    pub fn memory(name: &str, len: u64) -> Result<Self, MediaError> {
        let file = memfd(name, len, PageSize::Base).map_err(|source| MediaError::Memory {
            device: name.into(),
            source: io::Error::other(source),
        })?;
        Ok(Self {
            file: Arc::new(file),
            path: None,
            len,
        })
    }

    /// The backing file of a device. One that does not exist, or is empty, is made with the device's capacity.
    ///
    /// # Errors
    /// [`MediaError::File`], [`MediaError::InUse`], [`MediaError::Capacity`].
    pub fn open(path: &Path, spec: &MediaSpec) -> Result<Self, MediaError> {
        let mut store = Self::create(path)?;
        let operation = if spec.shared {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        flock(&store.file, operation).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => MediaError::InUse { path: path.into() },
            error => failed(path, "lock the file")(error.into()),
        })?;
        if store.len == 0 {
            store
                .file
                .set_len(spec.capacity)
                .map_err(failed(path, "give the file its size"))?;
            store.len = spec.capacity;
        }
        if store.len != spec.capacity {
            return Err(MediaError::Capacity {
                path: path.into(),
                device: spec.name.clone(),
                found: store.len,
                wanted: spec.capacity,
            });
        }
        Ok(store)
    }

    /// The file of an interleave set, as long as it is. Its members' locks protect it.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn open_set(path: &Path) -> Result<Self, MediaError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed(path, "open the file"))?;
        Self::with_file(path, file)
    }

    /// A new, empty file for an interleave set of `len` bytes; what was there before is gone.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn create_set(path: &Path, len: u64) -> Result<Self, MediaError> {
        let mut store = Self::create(path)?;
        let resize = |len| {
            store
                .file
                .set_len(len)
                .map_err(failed(path, "give the file its size"))
        };
        resize(0)?;
        resize(len)?;
        store.len = len;
        Ok(store)
    }

    fn create(path: &Path) -> Result<Self, MediaError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed(path, "open the file"))?;
        Self::with_file(path, file)
    }

    fn with_file(path: &Path, file: File) -> Result<Self, MediaError> {
        let len = file
            .metadata()
            .map_err(failed(path, "look at the file"))?
            .len();
        Ok(Self {
            file: Arc::new(file),
            path: Some(path.into()),
            len,
        })
    }

    /// The file behind it.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its place in the file system; `None` for memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), MediaError> {
        self.file
            .read_exact_at(data, offset)
            .map_err(self.failed("read"))
    }

    /// Stores `data` from `offset` on.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), MediaError> {
        self.file
            .write_all_at(data, offset)
            .map_err(self.failed("write"))
    }

    /// Puts zeroes into `len` bytes from `offset` on, and gives their memory or disk space back.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, hole, offset, len)
            .map_err(|error| self.failed("erase bytes in")(error.into()))
    }

    /// Waits until everything written is on the disk. Memory has nothing to wait for.
    ///
    /// # Errors
    /// [`MediaError::File`].
    pub fn sync(&self) -> Result<(), MediaError> {
        match self.path {
            Some(_) => self.file.sync_all().map_err(self.failed("sync")),
            None => Ok(()),
        }
    }

    /// Where data begins at or behind `offset`: everything before it is a hole of the file, and reads as zeros.
    #[must_use]
    pub fn next_data(&self, offset: u64) -> u64 {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(next) => next,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            // Where the file system does not tell, there is data everywhere.
            Err(_) => offset,
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> MediaError + use<> {
        failed(self.path.as_deref().unwrap_or(Path::new("memory")), what)
    }
}

pub(super) fn failed(
    path: &Path,
    what: &'static str,
) -> impl FnOnce(io::Error) -> MediaError + use<> {
    let path = path.to_path_buf();
    move |source| MediaError::File { path, what, source }
}
