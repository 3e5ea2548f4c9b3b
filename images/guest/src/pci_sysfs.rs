//! The guest's hardware as root sees it: functions in sysfs, mapped registers, I/O ports, and where ACPI puts things.

#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/bus/pci/devices";

/// A PCI function.
#[derive(Debug)]
pub struct Function {
    path: PathBuf,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
}

impl Function {
    /// Every function that the kernel enumerated and that still answers.
    ///
    /// # Errors
    /// sysfs is not mounted.
    pub fn all() -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(DEVICES).context(DEVICES)? {
            let mut function = Self {
                path: entry?.path(),
                vendor: 0,
                device: 0,
            };
            // It may be taken out while one looks.
            let Ok(ids) = function.config_read(0, 4) else {
                continue;
            };
            function.vendor = (ids & 0xffff) as u16;
            function.device = (ids >> 16) as u16;
            if function.vendor != 0xffff {
                all.push(function);
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Takes the function from its driver, so that the kernel does not see its registers change.
    pub fn unbind(&self) {
        if let Some(name) = self.path.file_name().and_then(|name| name.to_str()) {
            let _ = fs::write(self.path.join("driver/unbind"), name);
        }
        let _ = fs::write(self.path.join("enable"), "1");
    }

    /// A little-endian value of `width` bytes from configuration space.
    ///
    /// # Errors
    /// sysfs refuses.
    pub fn config_read(&self, offset: u64, width: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        let width = usize::try_from(width)?;
        File::open(self.path.join("config"))?.read_exact_at(&mut bytes[..width], offset)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes the low `width` bytes of `value` to configuration space.
    ///
    /// # Errors
    /// sysfs refuses.
    pub fn config_write(&self, offset: u64, width: u64, value: u64) -> Result<()> {
        let width = usize::try_from(width)?;
        let file = OpenOptions::new()
            .write(true)
            .open(self.path.join("config"))?;
        Ok(file.write_all_at(&value.to_le_bytes()[..width], offset)?)
    }

    /// Maps BAR `index`.
    ///
    /// # Errors
    /// There is no such memory BAR, or it is not assigned.
    pub fn map_bar(&self, index: usize) -> Result<Bar> {
        let path = self.path.join(format!("resource{index}"));
        let len = fs::metadata(&path)
            .with_context(|| path.display().to_string())?
            .len();
        Bar::map(&path, 0, len)
    }

    /// Common configuration, notification area and notify multiplier of a virtio function, virtio 1.2 section 4.1.4.
    ///
    /// # Errors
    /// The capabilities are not there.
    pub fn virtio_regions(&self) -> Result<(Bar, Bar, u64)> {
        let (mut common, mut notify, mut multiplier) = (None, None, 0);
        let mut next = self.config_read(0x34, 1)?;
        while next != 0 {
            let (id, kind) = (self.config_read(next, 1)?, self.config_read(next + 3, 1)?);
            if id == 9 {
                let bar = usize::try_from(self.config_read(next + 4, 1)?)?;
                let offset = self.config_read(next + 8, 4)?;
                let len = self.config_read(next + 12, 4)?;
                match kind {
                    1 => common = Some(self.map_bar(bar)?.part(offset, len)?),
                    2 => {
                        notify = Some(self.map_bar(bar)?.part(offset, len)?);
                        multiplier = self.config_read(next + 16, 4)?;
                    }
                    _ => {}
                }
            }
            next = self.config_read(next + 1, 1)?;
        }
        Ok((
            common.context("no common configuration")?,
            notify.context("no notification area")?,
            multiplier,
        ))
    }

    /// Resets the function by the kernel's first method for it.
    ///
    /// # Errors
    /// The kernel knows no way or the function did not come back.
    pub fn reset(&self) -> Result<()> {
        fs::write(self.path.join("reset"), "1")
            .with_context(|| format!("reset {}", self.path.display()))
    }
}

/// A range of registers mapped into this process.
#[derive(Debug)]
pub struct Bar {
    base: *mut u8,
    len: u64,
}

impl Bar {
    fn map(path: &Path, offset: u64, len: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        // SAFETY: a fresh mapping of a device file, at an address the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                usize::try_from(len)?,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                libc::off_t::try_from(offset)?,
            )
        };
        if base == libc::MAP_FAILED {
            bail!(
                "mmap {} at {offset:#x}: {}",
                path.display(),
                io::Error::last_os_error()
            );
        }
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    fn part(mut self, offset: u64, len: u64) -> Result<Self> {
        ensure!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "a capability points outside its BAR"
        );
        // SAFETY: inside the mapping, as just checked. The mapping itself is kept until the process ends.
        self.base = unsafe { self.base.add(usize::try_from(offset)?) };
        self.len = len;
        Ok(self)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads `width` (1, 2, 4, 8) bytes at `offset`.
    pub fn read(&self, offset: u64, width: u64) -> u64 {
        let at = self.at(offset, width);
        // SAFETY: `at` checked that the access lies inside the mapping; volatile, since it is a register.
        unsafe {
            match width {
                1 => u64::from(at.read_volatile()),
                2 => u64::from(at.cast::<u16>().read_volatile()),
                4 => u64::from(at.cast::<u32>().read_volatile()),
                _ => at.cast::<u64>().read_volatile(),
            }
        }
    }

    /// Writes the low `width` (1, 2, 4, 8) bytes of `value` at `offset`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low bytes are what is asked for"
    )]
    pub fn write(&self, offset: u64, width: u64, value: u64) {
        let at = self.at(offset, width);
        // SAFETY: as for `read`.
        unsafe {
            match width {
                1 => at.write_volatile(value as u8),
                2 => at.cast::<u16>().write_volatile(value as u16),
                4 => at.cast::<u32>().write_volatile(value as u32),
                _ => at.cast::<u64>().write_volatile(value),
            }
        }
    }

    fn at(&self, offset: u64, width: u64) -> *mut u8 {
        assert!(
            offset + width <= self.len && offset.is_multiple_of(width),
            "access at {offset:#x}/{width} of {:#x}",
            self.len
        );
        // SAFETY: inside the mapping, as just asserted.
        unsafe { self.base.add(offset as usize) }
    }
}

/// Maps physical addresses; needs `iomem=relaxed` on the kernel command line.
///
/// # Errors
/// `/dev/mem` refuses.
pub fn physical(base: u64, len: u64) -> Result<Bar> {
    Bar::map(Path::new("/dev/mem"), base, len)
}

/// Reads an I/O port.
///
/// # Errors
/// `/dev/port` refuses.
pub fn port_read(port: u64, width: u64) -> Result<u64> {
    allow_ports()?;
    let port = u16::try_from(port)?;
    let value: u32;
    // SAFETY: `iopl` granted the port; what hardware answers has no effect on this process's memory.
    unsafe {
        match width {
            1 => std::arch::asm!("in al, dx", "movzx eax, al", in("dx") port, out("eax") value),
            2 => std::arch::asm!("in ax, dx", "movzx eax, ax", in("dx") port, out("eax") value),
            _ => std::arch::asm!("in eax, dx", in("dx") port, out("eax") value),
        }
    }
    Ok(u64::from(value))
}

/// Writes an I/O port.
///
/// # Errors
/// `/dev/port` refuses.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the low bytes are what is asked for"
)]
pub fn port_write(port: u64, width: u64, value: u64) -> Result<()> {
    allow_ports()?;
    let port = u16::try_from(port)?;
    // SAFETY: as for `port_read`.
    unsafe {
        match width {
            1 => std::arch::asm!("out dx, al", in("dx") port, in("al") value as u8),
            2 => std::arch::asm!("out dx, ax", in("dx") port, in("ax") value as u16),
            _ => std::arch::asm!("out dx, eax", in("dx") port, in("eax") value as u32),
        }
    }
    Ok(())
}

fn allow_ports() -> Result<()> {
    // SAFETY: changes only this thread's I/O privilege.
    let result = unsafe { libc::iopl(3) };
    ensure!(result == 0, "iopl: {}", io::Error::last_os_error());
    Ok(())
}

fn table(name: &str) -> Result<Vec<u8>> {
    let path = Path::new("/sys/firmware/acpi/tables").join(name);
    fs::read(&path).with_context(|| path.display().to_string())
}

fn u64_at(table: &[u8], at: usize) -> Result<u64> {
    let bytes = table.get(at..at + 8).context("a table ends too early")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Base and number of buses of the ECAM, from MCFG (PCI Firmware 3.3 section 4.1.2).
///
/// # Errors
/// No MCFG or a short one.
pub fn ecam() -> Result<(u64, u64)> {
    let mcfg = table("MCFG")?;
    let first = u64::from(*mcfg.get(54).context("MCFG is short")?);
    let last = u64::from(*mcfg.get(55).context("MCFG is short")?);
    Ok((u64_at(&mcfg, 44)?, last - first + 1))
}

/// The sub-tables of CEDT (CXL 3.1 section 9.18.1) of one type.
fn cedt(kind: u8) -> Result<Vec<Vec<u8>>> {
    let cedt = table("CEDT")?;
    let mut found = Vec::new();
    let mut rest = cedt.get(36..).context("CEDT is short")?;
    while let [this, _, low, high, ..] = *rest {
        let len = usize::from(u16::from_le_bytes([low, high]));
        ensure!(
            len >= 4 && len <= rest.len(),
            "CEDT sub-table of {len} bytes"
        );
        if this == kind {
            found.push(rest[..len].to_vec());
        }
        rest = &rest[len..];
    }
    Ok(found)
}

/// Bases of the host bridges' component registers.
///
/// # Errors
/// No CEDT or a malformed one.
pub fn chbcr() -> Result<Vec<u64>> {
    cedt(0)?.iter().map(|chbs| u64_at(chbs, 16)).collect()
}

/// Base and size of the fixed memory windows.
///
/// # Errors
/// No CEDT or a malformed one.
pub fn windows() -> Result<Vec<(u64, u64)>> {
    cedt(1)?
        .iter()
        .map(|window| Ok((u64_at(window, 8)?, u64_at(window, 16)?)))
        .collect()
}
