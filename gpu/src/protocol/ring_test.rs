use super::*;

const BASE: u64 = 0x1000;
const DEPTH: u32 = 64;

struct Driver {
    memory: GuestMemoryMmap,
    ring: Ring,
}

impl Driver {
    fn new() -> Self {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), (BASE + ring_bytes(DEPTH)) as usize)])
                .unwrap();
        let ring = Ring::new(&memory, BASE, DEPTH.into()).unwrap();
        Self { memory, ring }
    }

    fn index(&self, offset: u64) -> u32 {
        self.memory.read_obj(GuestAddress(BASE + offset)).unwrap()
    }

    fn set(&self, offset: u64, value: u32) {
        self.memory
            .write_obj(value, GuestAddress(BASE + offset))
            .unwrap();
    }

    /// Writes an entry with this tag.
    fn submit(&self, tag: u64) {
        let tail = self.index(ring::SQ_TAIL);
        let slot = BASE + ring::ENTRIES + u64::from(tail % DEPTH) * 64;
        self.memory.write_obj(tag, GuestAddress(slot + 24)).unwrap();
        self.set(ring::SQ_TAIL, tail.wrapping_add(1));
    }

    fn next(&mut self) -> Result<Next, Broken> {
        self.ring.next(&self.memory)
    }

    fn taken(&mut self) -> Option<(u32, u64)> {
        match self.next() {
            Ok(Next::Command(index, submission)) => Some((index, submission.tag)),
            _ => None,
        }
    }

    fn complete(&mut self, tag: u64) -> Result<bool, Broken> {
        let completion = Completion {
            tag,
            ..Completion::default()
        };
        self.ring.complete(&self.memory, &completion)
    }
}

#[test]
fn entries_stand_in_memory_as_the_structures_say() {
    let bytes: [u8; 64] = std::array::from_fn(|at| at as u8);
    let submission = decode(&bytes);
    assert_eq!(submission.opcode, 0x0100);
    assert_eq!(submission.flags, 0x0302);
    assert_eq!(submission.region, 0x0706_0504);
    assert_eq!(submission.offset, 0x0f0e_0d0c_0b0a_0908);
    assert_eq!(submission.bytes, 0x1312_1110);
    assert_eq!(submission.tag, 0x1f1e_1d1c_1b1a_1918);
    assert_eq!(submission.args[3], 0x3f3e_3d3c_3b3a_3938);
    assert_eq!(
        [
            std::mem::offset_of!(Submission, offset),
            std::mem::offset_of!(Submission, bytes),
            std::mem::offset_of!(Submission, tag),
            std::mem::offset_of!(Submission, args),
            std::mem::offset_of!(Completion, index),
            std::mem::offset_of!(Completion, ended),
            std::mem::offset_of!(Completion, values),
        ],
        [8, 16, 24, 32, 12, 24, 32]
    );
    let completion = Completion {
        tag: 1,
        result: 2,
        index: 3,
        started: 4,
        ended: 5,
        values: [6, 7, 8, 9],
    };
    let words: Vec<u8> = encode(&completion).chunks(4).map(|word| word[0]).collect();
    assert_eq!(words, [1, 0, 2, 3, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0]);
}

#[test]
fn submissions_come_in_order_and_around_the_end() {
    let mut driver = Driver::new();
    for tag in 0..200 {
        driver.submit(tag);
        assert_eq!(driver.taken(), Some((tag as u32, tag)));
        assert_eq!(driver.complete(tag), Ok(false));
        driver.set(ring::CQ_HEAD, driver.index(ring::CQ_TAIL));
    }
    assert_eq!(driver.index(ring::SQ_HEAD), 200);
    assert_eq!(driver.index(ring::CQ_TAIL), 200);
    let slot = BASE + completions_offset(DEPTH) + u64::from(199 % DEPTH) * 64;
    let tag: u64 = driver.memory.read_obj(GuestAddress(slot)).unwrap();
    assert_eq!(tag, 199);
}

#[test]
fn indices_wrap() {
    let mut driver = Driver::new();
    let near = u32::MAX - 1;
    driver.ring.taken = near;
    driver.ring.written = near;
    driver.set(ring::SQ_TAIL, near);
    driver.set(ring::CQ_HEAD, near);
    for tag in 0..4 {
        driver.submit(tag);
    }
    for tag in 0..4 {
        assert_eq!(driver.taken(), Some((near.wrapping_add(tag as u32), tag)));
        driver.complete(tag).unwrap();
    }
    assert_eq!(driver.index(ring::CQ_TAIL), 2);
}

#[test]
fn a_doorbell_is_wanted_only_while_the_device_sleeps() {
    let mut driver = Driver::new();
    assert_eq!(driver.index(ring::WANT_DOORBELL), 1);
    driver.ring.awake(&driver.memory).unwrap();
    driver.submit(1);
    assert_eq!(driver.taken(), Some((0, 1)));
    assert_eq!(driver.index(ring::WANT_DOORBELL), 0);
    assert_eq!(driver.next(), Ok(Next::Nothing));
    assert_eq!(driver.index(ring::WANT_DOORBELL), 1);
}

#[test]
fn a_full_completion_ring_holds_submissions_back() {
    let mut driver = Driver::new();
    for tag in 0..u64::from(DEPTH) {
        driver.submit(tag);
        driver.taken().unwrap();
        driver.complete(tag).unwrap();
    }
    driver.submit(99);
    assert_eq!(driver.next(), Ok(Next::Nothing));
    assert_eq!(driver.index(ring::WANT_DOORBELL), 1);
    driver.set(ring::CQ_HEAD, 1);
    assert_eq!(driver.taken(), Some((DEPTH, 99)));
}

#[test]
fn an_interrupt_is_wanted_by_the_driver() {
    let mut driver = Driver::new();
    driver.submit(1);
    driver.taken().unwrap();
    driver.set(ring::WANT_INTERRUPT, 1);
    assert_eq!(driver.complete(1), Ok(true));
}

#[test]
fn senseless_indices_break_the_ring() {
    let mut driver = Driver::new();
    driver.set(ring::SQ_TAIL, DEPTH + 1);
    assert_eq!(driver.next(), Err(Broken::Submissions));
    driver.set(ring::SQ_TAIL, u32::MAX);
    assert_eq!(driver.next(), Err(Broken::Submissions));
    let mut driver = Driver::new();
    driver.set(ring::CQ_HEAD, 1);
    assert_eq!(driver.next(), Err(Broken::Completions));
    driver.ring.stop(&driver.memory, Broken::Completions.code());
    assert_eq!(driver.index(ring::STATUS), 1);
}

#[test]
fn a_ring_lies_in_guest_memory_and_has_a_depth_that_queues_have() {
    let memory = Driver::new().memory;
    for (base, depth) in [
        (BASE + 0x1000, 64),
        (BASE + 1, 64),
        (u64::MAX - 0xfff, 64),
        (BASE, 32),
        (BASE, 65),
        (BASE, 8192),
        (BASE, 1 << 32 | 64),
        (BASE, 128),
    ] {
        assert!(
            Ring::new(&memory, base, depth).is_err(),
            "{base:#x} {depth}"
        );
    }
}
