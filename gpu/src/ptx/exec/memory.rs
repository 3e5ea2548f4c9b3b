//! What a warp's loads, stores and atomics reach, and the checks they pass.

use std::cell::Cell;
use std::ops::Range;

use super::integer;
use super::lanes::WARP;
use crate::Fault;
use crate::memory::{BASE, DeviceMemory};
use crate::ptx::float::{Format, Rounding};
use crate::ptx::ir::{AtomOp, Space};
use crate::ptx::lower::MAX_LOCAL;
use crate::ptx::syntax::Scalar;

/// Generic addresses of a block's shared memory begin here.
pub const SHARED_WINDOW: u64 = 0x6000_0000_0000;
/// Generic addresses of a thread's local memory.
pub const LOCAL_WINDOW: u64 = 0x6100_0000_0000;
/// Generic addresses of a kernel's parameters.
pub const PARAM_WINDOW: u64 = 0x6200_0000_0000;
/// Bytes of each window.
const WINDOW: u64 = 1 << 32;

/// The window of a space that has one.
pub const fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Generic | Space::Global => 0,
    }
}

/// Whether a generic address lies in a space.
pub fn lies_in(space: Space, address: u64) -> bool {
    match space {
        Space::Generic => true,
        Space::Global => ![Space::Shared, Space::Local, Space::Param]
            .into_iter()
            .any(|other| lies_in(other, address)),
        _ => (window(space)..window(space) + WINDOW).contains(&address),
    }
}

/// Global memory as one context sees it: the arena, and the ranges of it that are the context's.
pub struct GlobalMemory<'a> {
    pub memory: &'a DeviceMemory,
    /// Device addresses, sorted.
    pub allocations: &'a [Range<u64>],
    /// Where the last access was found; the next is likely there too.
    pub last: Cell<usize>,
}

impl GlobalMemory<'_> {
    /// The arena's offset of an access that the context may make.
    fn check(&self, address: u64, bytes: u64, write: bool) -> Result<u64, Fault> {
        let inside = |range: &Range<u64>| {
            range.start <= address && address < range.end && range.end - address >= bytes
        };
        let last = self.allocations.get(self.last.get());
        if !last.is_some_and(inside) {
            let next = self
                .allocations
                .partition_point(|range| range.start <= address);
            let found = next
                .checked_sub(1)
                .filter(|&index| inside(&self.allocations[index]));
            match found {
                Some(index) => self.last.set(index),
                None => {
                    return Err(Fault::IllegalAddress {
                        address,
                        bytes,
                        write,
                    });
                }
            }
        }
        Ok(address - BASE)
    }
}

/// Memory of a block: shared bytes, and each thread's local bytes beside them.
pub struct Spaces<'a> {
    pub global: GlobalMemory<'a>,
    pub shared: Vec<u8>,
    pub params: &'a [u8],
}

fn get(memory: &[u8], offset: u64, bytes: u64) -> Option<u64> {
    let source = memory.get(usize::try_from(offset).ok()?..)?;
    // Lengths known to the compiler make each of these one load.
    Some(match bytes {
        1 => u64::from(*source.first()?),
        2 => u64::from(u16::from_le_bytes(*source.first_chunk()?)),
        4 => u64::from(u32::from_le_bytes(*source.first_chunk()?)),
        _ => u64::from_le_bytes(*source.first_chunk()?),
    })
}

fn put(memory: &mut [u8], offset: u64, bytes: u64, value: u64) -> Option<()> {
    let target = memory.get_mut(usize::try_from(offset).ok()?..)?;
    match bytes {
        1 => *target.first_mut()? = value as u8,
        2 => *target.first_chunk_mut()? = (value as u16).to_le_bytes(),
        4 => *target.first_chunk_mut()? = (value as u32).to_le_bytes(),
        _ => *target.first_chunk_mut()? = value.to_le_bytes(),
    }
    Some(())
}

/// The space of a generic address and the address in it.
pub fn resolve(space: Space, address: u64) -> (Space, u64) {
    if space != Space::Generic {
        return (space, address);
    }
    for space in [Space::Shared, Space::Local, Space::Param] {
        if lies_in(space, address) {
            return (space, address - window(space));
        }
    }
    (Space::Global, address)
}

fn check_alignment(address: u64, bytes: u64) -> Result<(), Fault> {
    if address.is_multiple_of(bytes) {
        Ok(())
    } else {
        Err(Fault::Misaligned { address, bytes })
    }
}

impl Spaces<'_> {
    /// Reads 1, 2, 4 or 8 bytes for a thread with this local memory.
    pub fn load(&self, local: &[u8], space: Space, address: u64, bytes: u64) -> Result<u64, Fault> {
        check_alignment(address, bytes)?;
        let (space, offset) = resolve(space, address);
        let value = match space {
            Space::Shared => get(&self.shared, offset, bytes),
            Space::Local => get(local, offset, bytes),
            Space::Param => get(self.params, offset, bytes),
            Space::Global | Space::Generic => {
                let offset = self.global.check(address, bytes, false)?;
                self.global.memory.load(offset, bytes)
            }
        };
        value.ok_or(Fault::IllegalAddress {
            address,
            bytes,
            write: false,
        })
    }

    pub fn store(
        &mut self,
        local: &mut [u8],
        space: Space,
        address: u64,
        bytes: u64,
        value: u64,
    ) -> Result<(), Fault> {
        check_alignment(address, bytes)?;
        let (space, offset) = resolve(space, address);
        let done = match space {
            Space::Shared => put(&mut self.shared, offset, bytes, value),
            Space::Local => put(local, offset, bytes, value),
            Space::Param => None,
            Space::Global | Space::Generic => {
                let offset = self.global.check(address, bytes, true)?;
                self.global.memory.store(offset, bytes, value)
            }
        };
        done.ok_or(Fault::IllegalAddress {
            address,
            bytes,
            write: true,
        })
    }

    /// An atomic operation; the old value.
    pub fn atomic(
        &mut self,
        space: Space,
        address: u64,
        op: AtomOp,
        ty: Scalar,
        b: u64,
        c: u64,
    ) -> Result<u64, Fault> {
        let bytes = ty.bytes();
        check_alignment(address, bytes)?;
        let illegal = Fault::IllegalAddress {
            address,
            bytes,
            write: true,
        };
        let change = |old: u64| new_value(op, ty, old, b, c);
        match resolve(space, address) {
            (Space::Shared, offset) => {
                let old = get(&self.shared, offset, bytes).ok_or(illegal)?;
                put(&mut self.shared, offset, bytes, change(old));
                Ok(old)
            }
            (Space::Local | Space::Param, _) => Err(Fault::InvalidAddressSpace),
            (Space::Global | Space::Generic, _) => {
                let offset = self.global.check(address, bytes, true)?;
                self.global
                    .memory
                    .update(offset, bytes, change)
                    .ok_or(illegal)
            }
        }
    }

    /// A C string of at most `limit` bytes at a generic address.
    pub fn string(&self, local: &[u8], address: u64, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        while text.len() < limit {
            let at = address.wrapping_add(text.len() as u64);
            match self.load(local, Space::Generic, at, 1)? {
                0 => break,
                byte => text.push(byte as u8),
            }
        }
        Ok(text)
    }
}

fn new_value(op: AtomOp, ty: Scalar, old: u64, b: u64, c: u64) -> u64 {
    let add = |format: Format, a: u64, b: u64| {
        let sum = format
            .unpack(a)
            .add(format.unpack(b), Rounding::NearestEven);
        format.pack(sum, Rounding::NearestEven)
    };
    let halves = |format: Format| {
        add(format, old & 0xffff, b & 0xffff)
            | add(format, old >> 16 & 0xffff, b >> 16 & 0xffff) << 16
    };
    match ty {
        Scalar::F16 => add(Format::F16, old, b),
        Scalar::Bf16 => add(Format::BF16, old, b),
        Scalar::F16x2 => halves(Format::F16),
        Scalar::Bf16x2 => halves(Format::BF16),
        Scalar::F32 => add(Format::F32, old, b),
        Scalar::F64 => add(Format::F64, old, b),
        _ => integer::atomic(op, ty.bytes() as u32 * 8, ty.is_signed(), old, b, c),
    }
}

/// Local memory of a warp's threads, one after the other, grown frame by frame.
#[derive(Default)]
pub struct LocalMemory {
    bytes: Vec<u8>,
    /// Bytes that each thread may use.
    end: usize,
    /// Bytes from one thread to the next.
    each: usize,
}

impl LocalMemory {
    /// Makes room up to `end` bytes for every thread.
    pub fn grow(&mut self, end: u64) -> Result<(), Fault> {
        if end > MAX_LOCAL {
            return Err(Fault::StackOverflow);
        }
        self.end = self.end.max(end as usize);
        let each = self.end.next_multiple_of(16);
        if each > self.each {
            let mut bytes = vec![0; each * WARP];
            if self.each > 0 {
                let threads = bytes.chunks_mut(each).zip(self.bytes.chunks(self.each));
                for (new, old) in threads {
                    new[..old.len()].copy_from_slice(old);
                }
            }
            self.bytes = bytes;
            self.each = each;
        }
        Ok(())
    }

    pub fn thread(&mut self, lane: usize) -> &mut [u8] {
        &mut self.bytes[lane * self.each..lane * self.each + self.end]
    }

    /// Where the first thread's bytes begin on the host.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Copies bytes of one thread from frame to frame; both ranges were made by [`Self::grow`].
    pub fn copy(&mut self, lane: usize, from: u64, to: u64, bytes: u64) {
        let thread = self.thread(lane);
        let (from, to, bytes) = (from as usize, to as usize, bytes as usize);
        if from + bytes <= thread.len() && to + bytes <= thread.len() {
            thread.copy_within(from..from + bytes, to);
        }
    }
}
