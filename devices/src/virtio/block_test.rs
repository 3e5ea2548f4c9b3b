use super::super::testing::{Access, Driver};
use super::*;
use crate::virtio::spec::feature;

const HEADER: u64 = Driver::DATA;
const BUFFER: u64 = Driver::DATA + 0x1000;
const STATUS: u64 = Driver::DATA + 0x800;
const SECTORS: u64 = 8;
/// What a test finds where no status was written.
const UNTOUCHED: u8 = 0xee;

/// A disk in memory that counts its flushes and can be told to fail.
struct TestDisk {
    bytes: Vec<u8>,
    flushes: u32,
    failing: bool,
}

impl TestDisk {
    fn check(&self) -> io::Result<()> {
        if self.failing {
            Err(io::Error::other("the disk is broken"))
        } else {
            Ok(())
        }
    }
}

impl Disk for TestDisk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.check()?;
        data.copy_from_slice(&self.bytes[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.flushes += 1;
        Ok(())
    }
}

struct Bench {
    driver: Driver,
    queues: [Virtqueue; 1],
    block: Block<TestDisk>,
}

impl Bench {
    fn new(read_only: bool) -> Self {
        // A tail of less than a sector, which nobody must reach.
        let bytes = (0..SECTORS * spec::SECTOR + 100)
            .map(|at| (at / spec::SECTOR) as u8)
            .collect();
        let driver = Driver::new(16);
        let queues = [driver.queue()];
        let mut block = Block::new(
            TestDisk {
                bytes,
                flushes: 0,
                failing: false,
            },
            read_only,
            "disk-0",
        );
        block.activate(feature::VERSION_1 | spec::F_FLUSH);
        Self {
            driver,
            queues,
            block,
        }
    }

    /// Does a request as a driver does, with its data in two buffers, and gives the status and the length used.
    fn request(&mut self, kind: u32, sector: u64, len: u32, access: Access) -> (u8, u32) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.driver.put(HEADER, &header);
        self.driver.put(STATUS, &[UNTOUCHED]);
        let half = len / 2;
        let head = self.driver.offer(&[
            (HEADER, 16, Access::Read),
            (BUFFER, half, access),
            (BUFFER + u64::from(half), len - half, access),
            (STATUS, 1, Access::Write),
        ]);
        assert_eq!(self.serve(), Ok(Progress::Idle));
        let [(used, written)] = self.driver.used()[..] else {
            panic!("not one completion")
        };
        assert_eq!(used, head);
        (self.driver.bytes(STATUS, 1)[0], written)
    }

    fn serve(&mut self) -> Result<Progress, Broken> {
        self.block.serve(&mut self.queues, self.driver.mem())
    }
}

#[test]
fn a_read_brings_sectors_into_memory() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.request(spec::T_IN, 3, 1024, Access::Write),
        (spec::S_OK, 1025)
    );
    assert_eq!(bench.driver.bytes(BUFFER, 512), [3; 512]);
    assert_eq!(bench.driver.bytes(BUFFER + 512, 512), [4; 512]);
}

#[test]
fn a_write_takes_sectors_to_the_disk() {
    let mut bench = Bench::new(false);
    bench.driver.put(BUFFER, &[0x5a; 512]);
    assert_eq!(
        bench.request(spec::T_OUT, 7, 512, Access::Read),
        (spec::S_OK, 1)
    );
    assert_eq!(bench.block.disk.bytes[7 * 512..8 * 512], [0x5a; 512]);
    assert_eq!(bench.block.disk.bytes[6 * 512..7 * 512], [6; 512]);
    assert_eq!(bench.block.disk.flushes, 0);
}

#[test]
fn a_flush_reaches_the_disk() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.request(spec::T_FLUSH, 0, 0, Access::Write),
        (spec::S_OK, 1)
    );
    assert_eq!(bench.block.disk.flushes, 1);
}

#[test]
fn without_the_flush_feature_each_write_is_flushed() {
    let mut bench = Bench::new(false);
    bench.block.activate(feature::VERSION_1);
    bench.request(spec::T_OUT, 0, 512, Access::Read);
    assert_eq!(bench.block.disk.flushes, 1);
}

#[test]
fn the_identity_is_told() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.request(spec::T_GET_ID, 0, 20, Access::Write),
        (spec::S_OK, 21)
    );
    assert_eq!(bench.driver.bytes(BUFFER, 8), b"disk-0\0\0");
}

#[test]
fn a_read_only_disk_refuses_writes_and_says_so_beforehand() {
    let mut bench = Bench::new(true);
    assert_ne!(bench.block.identity().features & spec::F_RO, 0);
    assert_eq!(Bench::new(false).block.identity().features & spec::F_RO, 0);
    let before = bench.block.disk.bytes.clone();
    bench.driver.put(BUFFER, &[0x5a; 512]);
    assert_eq!(
        bench.request(spec::T_OUT, 0, 512, Access::Read),
        (spec::S_IOERR, 1)
    );
    assert_eq!(bench.block.disk.bytes, before);
    assert_eq!(
        bench.request(spec::T_IN, 0, 512, Access::Write).0,
        spec::S_OK
    );
}

#[test]
fn sectors_beyond_the_end_are_refused() {
    let mut bench = Bench::new(false);
    for (sector, len) in [
        (8, 512),
        (7, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (1 << 55, 512),
    ] {
        assert_eq!(
            bench.request(spec::T_IN, sector, len, Access::Write),
            (spec::S_IOERR, 1),
            "read {sector}"
        );
        assert_eq!(
            bench.request(spec::T_OUT, sector, len, Access::Read),
            (spec::S_IOERR, 1),
            "write {sector}"
        );
    }
}

#[test]
fn a_part_of_a_sector_is_refused() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.request(spec::T_IN, 0, 100, Access::Write),
        (spec::S_IOERR, 1)
    );
    assert_eq!(
        bench.request(spec::T_OUT, 0, 513, Access::Read),
        (spec::S_IOERR, 1)
    );
}

#[test]
fn an_unknown_request_is_unsupported() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.request(99, 0, 512, Access::Write),
        (spec::S_UNSUPP, 1)
    );
}

#[test]
fn a_host_error_becomes_an_io_error() {
    let mut bench = Bench::new(false);
    bench.block.disk.failing = true;
    assert_eq!(
        bench.request(spec::T_IN, 0, 512, Access::Write),
        (spec::S_IOERR, 1)
    );
    assert_eq!(
        bench.request(spec::T_OUT, 0, 512, Access::Read),
        (spec::S_IOERR, 1)
    );
    assert_eq!(
        bench.request(spec::T_FLUSH, 0, 0, Access::Write),
        (spec::S_IOERR, 1)
    );
}

#[test]
fn a_request_that_cannot_be_answered_breaks_the_device() {
    let mut no_status = Bench::new(false);
    no_status.driver.offer(&[(HEADER, 16, Access::Read)]);
    assert_eq!(no_status.serve(), Err(Broken::TooShort));

    let mut short_header = Bench::new(false);
    short_header
        .driver
        .offer(&[(HEADER, 15, Access::Read), (STATUS, 1, Access::Write)]);
    assert_eq!(short_header.serve(), Err(Broken::TooShort));

    let mut nowhere = Bench::new(false);
    nowhere.driver.offer(&[
        (HEADER, 16, Access::Read),
        (1 << 40, 512, Access::Write),
        (STATUS, 1, Access::Write),
    ]);
    assert_eq!(nowhere.serve(), Err(Broken::Address));
}

#[test]
fn a_request_larger_than_a_step_is_moved_whole() {
    let steps: Vec<_> = steps(STEP as u64 * 2 + 512).collect();
    assert_eq!(
        steps,
        [(0, STEP), (STEP as u64, STEP), (STEP as u64 * 2, 512)]
    );
}

#[test]
fn the_configuration_tells_capacity_and_limits() {
    let config = Bench::new(false).block.identity().config;
    assert_eq!(config[..8], SECTORS.to_le_bytes());
    assert_eq!(config[12..16], 254_u32.to_le_bytes());
    assert_eq!(config[20..24], 512_u32.to_le_bytes());
}
