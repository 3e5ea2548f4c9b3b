//! The block device (section 5.2).

use std::io;

use vm_memory::GuestMemory;

use super::spec::block as spec;
use super::{Broken, Chain, Device, DeviceType, Identity, Outcome, Progress, Virtqueue};

const QUEUE_SIZES: &[u16] = &[256];
/// Data buffers in one request: the queue less the header and the status.
const SEG_MAX: u32 = 254;
/// Bytes moved between the disk and guest memory in one step.
const STEP: usize = 128 << 10;

/// Where the sectors are.
pub trait Disk: Send {
    /// Bytes. A tail of less than a sector is out of reach.
    fn size(&self) -> u64;

    /// Fills `data` from the byte at `offset` on.
    ///
    /// # Errors
    /// The host's error.
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` from the byte at `offset` on.
    ///
    /// # Errors
    /// The host's error.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all earlier writes survive a loss of power.
    ///
    /// # Errors
    /// The host's error.
    fn flush(&mut self) -> io::Result<()>;
}

/// A disk of 512-byte sectors.
pub struct Block<D> {
    disk: D,
    read_only: bool,
    id: [u8; spec::ID_SIZE],
    /// The driver flushes when it wants to; else each write is stable before it is done (section 5.2.5.2).
    write_back: bool,
    chain: Chain,
    buffer: Box<[u8]>,
}

impl<D: Disk> Block<D> {
    /// A disk whose identity string begins with `id`; 20 bytes of it are shown.
    pub fn new(disk: D, read_only: bool, id: &str) -> Self {
        let mut padded = [0; spec::ID_SIZE];
        for (byte, &value) in padded.iter_mut().zip(id.as_bytes()) {
            *byte = value;
        }
        Self {
            disk,
            read_only,
            id: padded,
            write_back: false,
            chain: Chain::default(),
            buffer: vec![0; STEP].into_boxed_slice(),
        }
    }

    /// Does one request and says how many bytes of its writable part it wrote, the status among them.
    fn request<M: GuestMemory>(&mut self, chain: &Chain, mem: &M) -> Result<u32, Broken> {
        let mut header = [0; spec::HEADER as usize];
        chain.readable.read(mem, 0, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes(sector);
        // The status is the last writable byte; without one there is no way to answer.
        let room = chain
            .writable
            .len()
            .checked_sub(1)
            .ok_or(Broken::TooShort)?;

        let done = match kind {
            spec::T_IN => self.read(chain, mem, sector, room),
            spec::T_OUT => self.write(chain, mem, sector),
            spec::T_FLUSH => self.disk.flush().map(|()| 0).map_err(Failure::from),
            spec::T_GET_ID => {
                let shown = self
                    .id
                    .iter()
                    .zip(0..room)
                    .map(|(&byte, _)| byte)
                    .collect::<Vec<u8>>();
                chain.writable.write(mem, 0, &shown)?;
                Ok(shown.len() as u64)
            }
            _ => Err(Failure::Status(spec::S_UNSUPP)),
        };
        let (status, written) = match done {
            Ok(written) => (spec::S_OK, written),
            Err(Failure::Status(status)) => (status, 0),
            Err(Failure::Broken(broken)) => return Err(broken),
        };
        chain.writable.write(mem, room, &[status])?;
        // A chain holds less than 4 GiB, so that this never saturates.
        Ok(u32::try_from(written + 1).unwrap_or(u32::MAX))
    }

    fn read<M: GuestMemory>(
        &mut self,
        chain: &Chain,
        mem: &M,
        sector: u64,
        len: u64,
    ) -> Result<u64, Failure> {
        let start = self.locate(sector, len)?;
        for (at, step) in steps(len) {
            let data = self.buffer.get_mut(..step).ok_or(Broken::TooLong)?;
            self.disk.read_at(start + at, data)?;
            chain.writable.write(mem, at, data)?;
        }
        Ok(len)
    }

    fn write<M: GuestMemory>(
        &mut self,
        chain: &Chain,
        mem: &M,
        sector: u64,
    ) -> Result<u64, Failure> {
        let len = chain.readable.len().saturating_sub(spec::HEADER);
        if self.read_only {
            return Err(Failure::Status(spec::S_IOERR));
        }
        let start = self.locate(sector, len)?;
        for (at, step) in steps(len) {
            let data = self.buffer.get_mut(..step).ok_or(Broken::TooLong)?;
            chain.readable.read(mem, spec::HEADER + at, data)?;
            self.disk.write_at(start + at, data)?;
        }
        if !self.write_back {
            self.disk.flush()?;
        }
        Ok(0)
    }

    /// Where on the disk `len` bytes from `sector` on begin, if they are whole sectors and all of them are there.
    fn locate(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let inside = |start: &u64| {
            let end = self.disk.size() / spec::SECTOR * spec::SECTOR;
            start.checked_add(len).is_some_and(|reach| reach <= end)
        };
        sector
            .checked_mul(spec::SECTOR)
            .filter(|_| len.is_multiple_of(spec::SECTOR))
            .filter(inside)
            .ok_or(Failure::Status(spec::S_IOERR))
    }
}

/// `len` bytes cut into pieces that fit the buffer: where each begins and how long it is.
fn steps(len: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..len).step_by(STEP).map(move |at| {
        (
            at,
            usize::try_from(len - at).map_or(STEP, |left| left.min(STEP)),
        )
    })
}

/// Why a request did not succeed.
enum Failure {
    /// The driver is told.
    Status(u8),
    /// The driver is past being told.
    Broken(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        log::warn!("virtio block: {error}");
        Self::Status(spec::S_IOERR)
    }
}

impl<D: Disk> Device for Block<D> {
    fn identity(&self) -> Identity {
        let mut config = vec![0; spec::CONFIG_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| {
            for (byte, &value) in config.iter_mut().skip(offset).zip(bytes) {
                *byte = value;
            }
        };
        put(
            spec::CONFIG_CAPACITY,
            &(self.disk.size() / spec::SECTOR).to_le_bytes(),
        );
        put(spec::CONFIG_SEG_MAX, &SEG_MAX.to_le_bytes());
        put(spec::CONFIG_BLK_SIZE, &512_u32.to_le_bytes());
        Identity {
            device_type: DeviceType::Block,
            features: spec::F_SEG_MAX
                | spec::F_BLK_SIZE
                | spec::F_FLUSH
                | if self.read_only { spec::F_RO } else { 0 },
            queue_sizes: QUEUE_SIZES,
            config,
        }
    }

    fn activate(&mut self, features: u64) {
        self.write_back = features & spec::F_FLUSH != 0;
    }

    fn serve<M: GuestMemory>(
        &mut self,
        queues: &mut [Virtqueue],
        mem: &M,
    ) -> Result<Progress, Broken> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let served = queue.serve(mem, &mut chain, |chain| {
            self.request(chain, mem).map(Outcome::Done)
        });
        self.chain = chain;
        served
    }

    fn reset(&mut self) {
        self.write_back = false;
    }
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;
