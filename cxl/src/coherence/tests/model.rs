//! A model of the whole that shares nothing with the engine, and random accesses in which both have to agree.

use super::*;

/// Rules about the whole, apart from the engine: lines are kept with the time of their last use, and everything is found by
/// looking at all of them.
#[derive(Default)]
struct Model {
    /// Rank of the host's and of the device's copy (0 to 3: I, S, E, M), each with the time of its last use.
    lines: Vec<(u8, u64, u8, u64)>,
    device_bias: Vec<bool>,
    ways: (u64, u64),
    sets: (u64, u64),
    clock: u64,
    counts: Statistics,
}

impl Model {
    fn new(cache: (u64, u64), filter: (u64, u64)) -> Self {
        Self {
            lines: vec![(0, 0, 0, 0); (PAGES * LINES_OF_PAGE) as usize],
            device_bias: vec![false; PAGES as usize],
            ways: (cache.1, filter.1),
            sets: (cache.0 / cache.1, filter.0 / filter.1),
            ..Self::default()
        }
    }

    fn page(line: usize) -> usize {
        line / LINES_OF_PAGE as usize
    }

    fn flush_device(&mut self, line: usize) {
        if self.lines[line].2 == 3 {
            self.counts.device_write_backs += 1;
        }
        self.lines[line].2 = 0;
    }

    /// The host is left with a copy of at most this rank.
    fn snoop(&mut self, line: usize, rank: u8) {
        match rank {
            0 => self.counts.snoops_to_invalidate += 1,
            _ => self.counts.snoops_for_data += 1,
        }
        self.counts.snoop_responses += 1;
        if self.lines[line].0 == 3 {
            self.counts.host_write_backs += 1;
            self.counts.link_bytes += 64;
        }
        self.lines[line].0 = rank;
    }

    /// The line that has been used least lately of those in the set of another one, if the set is full.
    fn victim(&self, line: usize, of_host: bool) -> Option<usize> {
        let (ways, sets) = match of_host {
            true => (self.ways.1, self.sets.1 as usize),
            false => (self.ways.0, self.sets.0 as usize),
        };
        let used = |at: &usize| {
            let (host, host_time, device, device_time) = self.lines[*at];
            match of_host {
                true => (host, host_time),
                false => (device, device_time),
            }
        };
        let rivals = (0..self.lines.len()).filter(|at| at % sets == line % sets && used(at).0 > 0);
        let rivals: Vec<usize> = rivals.collect();
        (rivals.len() as u64 == ways)
            .then(|| rivals.into_iter().min_by_key(|at| used(at).1).unwrap())
    }

    fn host(&mut self, line: usize, write: bool) {
        self.clock += 1;
        match write {
            true => self.counts.host_writes += 1,
            false => self.counts.host_reads += 1,
        }
        if self.device_bias[Self::page(line)] {
            self.counts.host_took_back += 1;
            self.flip_to_host(Self::page(line));
        }
        let rank = self.lines[line].0;
        if rank >= 2 || (rank == 1 && !write) {
            self.counts.host_hits += 1;
            self.lines[line].0 = if write { 3 } else { rank };
        } else {
            self.counts.requests += 1;
            if rank == 1 {
                self.counts.host_upgrades += 1;
            } else {
                self.counts.link_bytes += 64;
                if let Some(victim) = self.victim(line, true) {
                    self.counts.filter_evictions += 1;
                    self.snoop(victim, 0);
                }
            }
            let device = self.lines[line].2;
            if write {
                self.flush_device(line);
            } else if device > 0 {
                self.counts.device_write_backs += u64::from(device == 3);
                self.lines[line].2 = 1;
            }
            self.lines[line].0 = match (write, device) {
                (true, _) => 3,
                (false, 0) => 2,
                (false, _) => 1,
            };
        }
        self.lines[line].1 = self.clock;
    }

    fn device(&mut self, line: usize, write: bool) {
        self.clock += 1;
        match write {
            true => self.counts.device_writes += 1,
            false => self.counts.device_reads += 1,
        }
        let (host, _, rank, _) = self.lines[line];
        match (rank, write) {
            (0, _) => self.counts.device_misses += 1,
            (1, true) => self.counts.device_upgrades += 1,
            _ => self.counts.device_hits += 1,
        }
        if write && host > 0 {
            self.snoop(line, 0);
        } else if !write && host > 1 {
            self.snoop(line, 1);
        }
        if rank == 0 {
            if let Some(victim) = self.victim(line, false) {
                self.counts.cache_evictions += 1;
                self.flush_device(victim);
            }
            self.counts.device_fills += 1;
        }
        self.lines[line].2 = match (write, rank, host) {
            (true, ..) => 3,
            (false, 0, 0) => 2,
            (false, 0, _) => 1,
            (false, ..) => rank,
        };
        self.lines[line].3 = self.clock;
    }

    fn lines_of(page: usize) -> std::ops::Range<usize> {
        page * LINES_OF_PAGE as usize..(page + 1) * LINES_OF_PAGE as usize
    }

    fn flip_to_host(&mut self, page: usize) {
        self.counts.flips_to_host += 1;
        for line in Self::lines_of(page) {
            if self.lines[line].2 > 0 {
                self.counts.flipped_lines += 1;
                self.flush_device(line);
            }
        }
        self.device_bias[page] = false;
    }

    fn flip_to_device(&mut self, page: usize) {
        self.counts.flips_to_device += 1;
        for line in Self::lines_of(page) {
            if self.lines[line].0 > 0 {
                self.counts.flipped_lines += 1;
                self.snoop(line, 0);
            }
        }
        self.device_bias[page] = true;
    }
}

/// The version of each line in memory and in both copies; they move with the messages alone.
struct Data {
    memory: Vec<u64>,
    host: Vec<Option<u64>>,
    device: Vec<Option<u64>>,
}

impl Data {
    fn follow(&mut self, event: &Event) {
        let line = (event.line / LINE) as usize;
        match event.message {
            Message::MemRd | Message::MemRdOwn | Message::MemInv => {}
            // With the data that memory has now.
            Message::CmpS | Message::CmpE => {
                self.host[line].get_or_insert(self.memory[line]);
            }
            Message::MemWr => self.memory[line] = self.host[line].unwrap(),
            Message::MemClnEvct | Message::BiRspI => self.host[line] = None,
            Message::BiRspS | Message::BiSnpData | Message::BiSnpInv => {}
            Message::Fill => self.device[line] = Some(self.memory[line]),
            Message::WriteBack => self.memory[line] = self.device[line].unwrap(),
            Message::Yield => {}
        }
    }
}

fn rank(state: (Host, Device)) -> (u8, u8) {
    let host = match state.0 {
        Host::Invalid => 0,
        Host::Shared => 1,
        Host::Exclusive => 2,
        Host::Modified => 3,
    };
    let device = match state.1 {
        Device::Invalid => 0,
        Device::Shared => 1,
        Device::Exclusive => 2,
        Device::Modified => 3,
    };
    (host, device)
}

/// Random accesses of both sides: the engine's states and counters are those of the model at every step, each load finds
/// what was stored last, and nobody writes while another one may read.
fn agree(cache: (u64, u64), filter: (u64, u64), seed: u64) {
    let sizes = |(lines, ways): (u64, u64)| (lines as usize, ways as usize);
    let mut engine = engine(sizes(cache), sizes(filter));
    let mut model = Model::new(cache, filter);
    let lines = PAGES * LINES_OF_PAGE;
    let mut data = Data {
        memory: vec![0; lines as usize],
        host: vec![None; lines as usize],
        device: vec![None; lines as usize],
    };
    let mut newest = vec![0; lines as usize];
    let mut random = Random(seed);
    for step in 1..=20_000 {
        // Most accesses go to a few lines, so that both sides meet.
        let line = match random.below(3) {
            0 => random.below(lines),
            _ => random.below(16) * 23 % lines,
        };
        let (at, address) = (line as usize, line * LINE + random.below(LINE));
        let choice = random.below(100);
        match choice {
            0..25 => engine.host_read(address).unwrap(),
            25..45 => engine.host_write(address).unwrap(),
            45..70 => engine.device_read(address).unwrap(),
            70..90 => engine.device_write(address).unwrap(),
            90..93 => engine.host_evict(address).unwrap(),
            93..96 => engine.device_evict(address).unwrap(),
            96..98 => drop(engine.set_bias(address, 1, Bias::Device).unwrap()),
            _ => drop(engine.set_bias(address, 1, Bias::Host).unwrap()),
        }
        match choice {
            0..25 => model.host(at, false),
            25..45 => model.host(at, true),
            45..70 => model.device(at, false),
            70..90 => model.device(at, true),
            90..93 => match model.lines[at].0 {
                0 => {}
                3 => {
                    model.counts.host_write_backs += 1;
                    model.counts.link_bytes += 64;
                    model.lines[at].0 = 0;
                }
                _ => {
                    model.counts.host_clean_evictions += 1;
                    model.lines[at].0 = 0;
                }
            },
            93..96 => model.flush_device(at),
            96..98 if !model.device_bias[Model::page(at)] => model.flip_to_device(Model::page(at)),
            98.. if model.device_bias[Model::page(at)] => model.flip_to_host(Model::page(at)),
            _ => {}
        }
        for event in engine.take_trace() {
            data.follow(&event);
        }
        if let 90..93 = choice {
            // What the host has written back it has given up; nothing else says so.
            data.host[at] = None;
        }
        match choice {
            0..25 => assert_eq!(data.host[at], Some(newest[at]), "step {step}, line {line}"),
            45..70 => assert_eq!(
                data.device[at],
                Some(newest[at]),
                "step {step}, line {line}"
            ),
            25..45 => {
                data.host[at] = Some(step);
                newest[at] = step;
            }
            70..90 => {
                data.device[at] = Some(step);
                newest[at] = step;
            }
            _ => {}
        }
        for other in 0..lines {
            let (host, device) = rank(engine.state(other * LINE));
            let expected = &model.lines[other as usize];
            assert_eq!(
                (host, device),
                (expected.0, expected.2),
                "step {step}, line {other}"
            );
            assert!(
                host < 2 || device == 0,
                "step {step}: a writer beside a reader"
            );
            assert!(
                device < 2 || host == 0,
                "step {step}: a writer beside a reader"
            );
        }
        assert_eq!(
            *engine.statistics(),
            model.counts,
            "step {step}, choice {choice}"
        );
    }
    let (host, device) = engine.lines();
    assert!(host as u64 <= filter.0 && device as u64 <= cache.0);
    let counts = model.counts;
    assert!(counts.host_took_back > 0 && counts.snoops_for_data > 0 && counts.host_upgrades > 0);
}

#[test]
fn random_accesses_agree_with_the_model_where_everything_fits() {
    agree((1024, 16), (1024, 16), 1);
}

#[test]
fn random_accesses_agree_with_the_model_in_a_small_cache_and_filter() {
    agree((32, 4), (16, 2), 2);
    agree((8, 8), (8, 1), 3);
}
