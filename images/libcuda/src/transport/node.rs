//! The kernel module's device node, `/dev/cxl_gpuN`.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::shared::Shared;
use super::spec::chardev::{self, Info, Number, QueueCreate, RegionRegister};
use super::spec::{PAGE, region_flags, ring_bytes};
use super::{Accelerator, Bell, Buffer, Parts, Properties, Session};
use crate::{Error, Result};

/// Without its number.
const PATH: &str = "/dev/cxl_gpu";
/// The version of the interface.
const INTERFACE: u32 = 1;

/// A device node.
pub struct DeviceNode {
    path: String,
    properties: Properties,
    memory_base: u64,
}

impl DeviceNode {
    /// All that are there and that this user may open, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..)
            .map(|number| format!("{PATH}{number}"))
            .take_while(|path| std::fs::exists(path).unwrap_or(false))
            .filter_map(|path| Self::open(&path).ok())
    }

    /// # Errors
    /// `NO_DEVICE` when nothing of the kind is there, `SYSTEM_DRIVER_MISMATCH` for another version of the kernel module.
    pub fn open(path: &str) -> Result<Self> {
        let file = open(path)?;
        // SAFETY: a structure of integers, for which zeros are values.
        let mut info: Info = unsafe { std::mem::zeroed() };
        request(&file, chardev::IOC_INFO, &mut info)?;
        if info.interface != INTERFACE {
            return Err(Error::SYSTEM_DRIVER_MISMATCH);
        }
        let name = info.name.split(|&byte| byte == 0).next().unwrap_or(&[]);
        Ok(Self {
            path: path.to_owned(),
            properties: Properties {
                name: String::from_utf8_lossy(name).into_owned(),
                memory: info.memory_bytes,
                multiprocessors: info.multiprocessors,
                compute_capability: (info.cc_major, info.cc_minor),
                driver_version: info.driver_version as i32,
                pci: (
                    info.address >> 16,
                    (info.address >> 8) as u8,
                    (info.address as u8) >> 3,
                ),
            },
            memory_base: info.memory_base,
        })
    }
}

fn open(path: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|_| Error::NO_DEVICE)
}

/// An `_IOWR` of the module.
fn request<T>(file: &File, number: u8, argument: &mut T) -> Result<()> {
    const READ_WRITE: u64 = 3;
    let code = READ_WRITE << 30
        | (size_of::<T>() as u64) << 16
        | u64::from(chardev::IOC_MAGIC) << 8
        | u64::from(number);
    // SAFETY: the request's number says how long the argument is, and the argument is that long.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), code, argument) };
    if result < 0 {
        return Err(os_error());
    }
    Ok(())
}

/// The code for the last system call's error.
fn os_error() -> Error {
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOMEM | libc::ENOSPC) => Error::OUT_OF_MEMORY,
        Some(libc::EINVAL) => Error::INVALID_VALUE,
        Some(libc::EPERM | libc::EACCES) => Error::NOT_PERMITTED,
        Some(libc::ENODEV) => Error::DEVICE_UNAVAILABLE,
        _ => Error::OPERATING_SYSTEM,
    }
}

/// A mapping that ends with the value.
struct Mapping {
    address: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a part of the file, or anonymous memory without one.
    fn new(file: Option<(&File, u64)>, bytes: u64) -> Result<Self> {
        let flags = match file {
            Some(_) => libc::MAP_SHARED,
            None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
        };
        let (fd, offset) = file.map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), offset));
        let bytes = bytes as usize;
        // SAFETY: a new mapping where the kernel finds room touches no memory of the program.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(os_error());
        }
        Ok(Self {
            address: address.cast(),
            bytes,
        })
    }

    /// The memory, which must not outlive the mapping.
    fn shared(&self) -> Shared {
        // SAFETY: mapped above for reading and writing; who gets this keeps the mapping with it.
        unsafe { Shared::new(self.address, self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody has its memory any more.
        unsafe { libc::munmap(self.address.cast(), self.bytes) };
    }
}

impl Accelerator for DeviceNode {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn open(&self) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(NodeSession {
            file: Arc::new(open(&self.path)?),
            memory_base: self.memory_base,
        }))
    }
}

/// An open file is a session.
struct NodeSession {
    file: Arc<File>,
    memory_base: u64,
}

struct NodeBell {
    doorbell: Mapping,
    interrupts: File,
    queue: u32,
    file: Arc<File>,
    /// Unmapped after the queue has ended.
    _rings: Mapping,
}

impl Bell for NodeBell {
    fn ring(&self) {
        // SAFETY: the first word of the queue's doorbell page, which is mapped as long as this value lives.
        let doorbell = unsafe { AtomicU32::from_ptr(self.doorbell.address.cast()) };
        doorbell.store(1, Ordering::Release);
    }

    fn sleep(&self) {
        // An error is a return that comes too soon.
        let _ = (&self.interrupts).read(&mut [0; 8]);
    }
}

impl Drop for NodeBell {
    fn drop(&mut self) {
        let mut queue = Number {
            number: self.queue,
            reserved: 0,
        };
        // It exists, so this ends it.
        let _ = request(&self.file, chardev::IOC_QUEUE_DESTROY, &mut queue);
    }
}

struct NodeRegion {
    region: u32,
    file: Arc<File>,
    /// Unmapped after the region has ended.
    _memory: Mapping,
}

impl Drop for NodeRegion {
    fn drop(&mut self) {
        let mut region = Number {
            number: self.region,
            reserved: 0,
        };
        // It exists, so this ends it.
        let _ = request(&self.file, chardev::IOC_REGION_UNREGISTER, &mut region);
    }
}

fn event_file() -> Result<File> {
    // SAFETY: eventfd takes numbers and makes a file.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(os_error());
    }
    // SAFETY: the file is new, and nobody else has it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

impl Session for NodeSession {
    fn queue(&self, depth: u32) -> Result<Parts> {
        let interrupts = event_file()?;
        let mut create = QueueCreate {
            depth,
            eventfd: interrupts.as_raw_fd(),
            ..QueueCreate::default()
        };
        request(&self.file, chardev::IOC_QUEUE_CREATE, &mut create)?;
        let queue = create.queue;
        let mapped = || {
            let rings = chardev::MAP_RINGS + u64::from(queue) * chardev::RING_STRIDE;
            let doorbell = chardev::MAP_DOORBELLS + u64::from(queue) * PAGE;
            let bytes = ring_bytes(depth).next_multiple_of(PAGE);
            Ok((
                Mapping::new(Some((&self.file, rings)), bytes)?,
                Mapping::new(Some((&self.file, doorbell)), PAGE)?,
            ))
        };
        let (rings, doorbell) = mapped().inspect_err(|_: &Error| {
            let mut number = Number {
                number: queue,
                reserved: 0,
            };
            // It exists, so this ends it.
            let _ = request(&self.file, chardev::IOC_QUEUE_DESTROY, &mut number);
        })?;
        Ok(Parts {
            rings: rings.shared(),
            bell: Box::new(NodeBell {
                doorbell,
                interrupts,
                queue,
                file: self.file.clone(),
                _rings: rings,
            }),
        })
    }

    fn buffer(&self, bytes: u64) -> Result<Buffer> {
        let memory = Mapping::new(None, bytes.next_multiple_of(PAGE))?;
        let mut register = RegionRegister {
            address: memory.address.addr() as u64,
            bytes: memory.bytes as u64,
            flags: region_flags::WRITABLE,
            ..RegionRegister::default()
        };
        request(&self.file, chardev::IOC_REGION_REGISTER, &mut register)?;
        Ok(Buffer {
            region: register.region,
            memory: memory.shared(),
            _owner: Box::new(NodeRegion {
                region: register.region,
                file: self.file.clone(),
                _memory: memory,
            }),
        })
    }

    fn map(&self, address: u64, bytes: u64) -> Result<()> {
        let offset = chardev::MAP_MEMORY + (address - self.memory_base);
        let wanted = address as *mut libc::c_void;
        // SAFETY: a new mapping where nothing is mapped, which MAP_FIXED_NOREPLACE makes sure of.
        let mapped = unsafe {
            libc::mmap(
                wanted,
                bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
                self.file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if mapped == wanted {
            Ok(())
        } else {
            Err(os_error())
        }
    }

    fn unmap(&self, address: u64, bytes: u64) {
        // SAFETY: the range was mapped by `map`; it holds device memory that is given up.
        unsafe { libc::munmap(address as *mut libc::c_void, bytes as usize) };
    }
}
