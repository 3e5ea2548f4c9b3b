use std::collections::VecDeque;

use super::super::testing::{Access, Driver};
use super::*;

const DATA: u64 = Driver::DATA;

/// A wire whose other end a test holds.
#[derive(Default)]
struct Wire {
    to_guest: VecDeque<Vec<u8>>,
    from_guest: Vec<Vec<u8>>,
    offloads: Option<u64>,
}

impl Read for Wire {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let frame = self.to_guest.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        data[..frame.len()].copy_from_slice(&frame);
        Ok(frame.len())
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.from_guest.push(data.to_vec());
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NetPort for Wire {
    fn set_offloads(&mut self, features: u64) -> io::Result<()> {
        self.offloads = Some(features);
        Ok(())
    }
}

/// A frame of `len` bytes behind an empty header.
fn frame(len: u8) -> Vec<u8> {
    [0; spec::HEADER].into_iter().chain(1..=len).collect()
}

struct Bench {
    rx: Driver,
    tx: Driver,
    queues: [Virtqueue; 2],
    net: Net<Wire>,
}

impl Bench {
    fn new(features: u64) -> Self {
        let rx = Driver::new(8);
        let tx = rx.second();
        let queues = [rx.queue(), tx.queue()];
        let mut net = Net::new(Wire::default(), [2, 0, 0, 0, 0, 7]);
        net.activate(features);
        Self {
            rx,
            tx,
            queues,
            net,
        }
    }

    fn serve(&mut self) -> Result<Progress, Broken> {
        self.net.serve(&mut self.queues, self.rx.mem())
    }

    fn arrive(&mut self, frame: Vec<u8>) {
        self.net.port.to_guest.push_back(frame);
    }
}

#[test]
fn a_frame_of_the_guest_goes_out_with_its_header() {
    let mut bench = Bench::new(0);
    bench.tx.put(DATA, &frame(30));
    let head = bench
        .tx
        .offer(&[(DATA, 12, Access::Read), (DATA + 12, 30, Access::Read)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.net.port.from_guest, [frame(30)]);
    assert_eq!(bench.tx.used(), [(head, 0)]);
}

#[test]
fn a_frame_for_the_guest_waits_for_a_buffer() {
    let mut bench = Bench::new(0);
    bench.arrive(frame(30));
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), []);
    let head = bench
        .rx
        .offer(&[(DATA, 20, Access::Write), (DATA + 20, 100, Access::Write)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), [(head, 42)]);
    // One buffer, says the header (section 5.1.6.4).
    assert_eq!(bench.rx.bytes(DATA + 10, 2), [1, 0]);
    assert_eq!(bench.rx.bytes(DATA + 12, 30), (1..=30).collect::<Vec<u8>>());
}

#[test]
fn frames_keep_their_order() {
    let mut bench = Bench::new(0);
    for len in [5, 6, 7] {
        bench.arrive(frame(len));
        bench
            .rx
            .offer(&[(DATA + 0x100 * u64::from(len), 0x100, Access::Write)]);
    }
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), [(0, 17), (1, 18), (2, 19)]);
}

#[test]
fn a_frame_too_large_for_its_buffer_is_dropped_and_the_buffer_kept() {
    let mut bench = Bench::new(0);
    bench.arrive(frame(100));
    bench.arrive(frame(20));
    let head = bench.rx.offer(&[(DATA, 64, Access::Write)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), [(head, 32)]);
}

#[test]
fn a_frame_spreads_over_mergeable_buffers() {
    let mut bench = Bench::new(spec::F_MRG_RXBUF);
    bench.arrive(frame(100));
    let a = bench.rx.offer(&[(DATA, 50, Access::Write)]);
    let b = bench.rx.offer(&[(DATA + 0x100, 50, Access::Write)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), [], "112 bytes do not fit 100");
    let c = bench.rx.offer(&[(DATA + 0x200, 50, Access::Write)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert_eq!(bench.rx.used(), [(a, 50), (b, 50), (c, 12)]);
    assert_eq!(bench.rx.bytes(DATA + 10, 2), [3, 0]);
    let mut bytes = bench.rx.bytes(DATA + 12, 38);
    bytes.extend(bench.rx.bytes(DATA + 0x100, 50));
    bytes.extend(bench.rx.bytes(DATA + 0x200, 12));
    assert_eq!(bytes, (1..=100).collect::<Vec<u8>>());
}

#[test]
fn a_reset_forgets_frames_and_buffers() {
    let mut bench = Bench::new(spec::F_MRG_RXBUF);
    bench.arrive(frame(100));
    bench.rx.offer(&[(DATA, 50, Access::Write)]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    bench.net.reset();
    assert_eq!((bench.net.held, bench.net.waiting), (0, None));
}

#[test]
fn a_frame_without_a_whole_header_breaks_the_device() {
    let mut short_send = Bench::new(0);
    short_send.tx.offer(&[(DATA, 11, Access::Read)]);
    assert_eq!(short_send.serve(), Err(Broken::TooShort));

    let mut short_buffer = Bench::new(0);
    short_buffer.arrive(frame(1));
    short_buffer.rx.offer(&[(DATA, 11, Access::Write)]);
    assert_eq!(short_buffer.serve(), Err(Broken::TooShort));
}

#[test]
fn a_frame_longer_than_any_is_not_sent() {
    let mut bench = Bench::new(0);
    let head = bench.tx.offer(&[
        (DATA, 0x1_0000, Access::Read),
        (DATA, 0x1_0000, Access::Read),
    ]);
    assert_eq!(bench.serve(), Ok(Progress::Idle));
    assert!(bench.net.port.from_guest.is_empty());
    assert_eq!(bench.tx.used(), [(head, 0)]);
}

#[test]
fn buffers_without_room_do_not_pile_up() {
    let mut bench = Bench::new(spec::F_MRG_RXBUF);
    bench.arrive(frame(100));
    bench.rx.offer(&[(DATA, 12, Access::Write)]);
    for _ in 0..7 {
        bench.rx.offer(&[(DATA, 0, Access::Write)]);
    }
    assert_eq!(bench.serve(), Err(Broken::Available));
    assert_eq!(bench.net.held, 8);
}

#[test]
fn the_wire_learns_what_the_driver_can_take() {
    let bench = Bench::new(spec::F_GUEST_CSUM | spec::F_GUEST_TSO4);
    assert_eq!(
        bench.net.port.offloads,
        Some(spec::F_GUEST_CSUM | spec::F_GUEST_TSO4)
    );
    assert_eq!(bench.net.identity().config, [2, 0, 0, 0, 0, 7]);
}
