//! Random accesses in which the engine and the model have to agree.

use super::*;
use crate::coherence::model::Model;

/// The version of each line in memory and in both copies; they move with the messages alone.
struct Data {
    memory: Vec<u64>,
    host: Vec<Option<u64>>,
    device: Vec<Option<u64>>,
}

impl Data {
    fn follow(&mut self, event: &Event) {
        let What::Message(message) = event.what else {
            return;
        };
        let line = (event.line / LINE) as usize;
        match message {
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
fn agree(cache: (usize, usize), filter: (usize, usize), seed: u64) {
    let mut engine = engine(cache, filter);
    let mut model = Model::new(engine.config());
    let mut replayed = Model::new(engine.config());
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
            98 => engine.discard(line * LINE, LINE).unwrap(),
            _ => drop(engine.set_bias(address, 1, Bias::Host).unwrap()),
        }
        let (by, access) = match choice {
            0..25 => (Side::Host, Access::Read),
            25..45 => (Side::Host, Access::Write),
            45..70 => (Side::Device, Access::Read),
            70..90 => (Side::Device, Access::Write),
            90..93 => (Side::Host, Access::Evict),
            93..96 => (Side::Device, Access::Evict),
            96..98 => (Side::Device, Access::DeviceBias),
            98 => (Side::Device, Access::Discard(LINE)),
            _ => (Side::Device, Access::HostBias),
        };
        model.access(by, access, address - address % LINE);
        let trace = engine.take_trace();
        trace.iter().for_each(|event| data.follow(event));
        replayed.follow(&trace);
        if let 90..93 = choice {
            // What the host has written back it has given up; nothing else says so.
            data.host[at] = None;
        }
        if choice == 98 {
            (data.host[at], data.device[at]) = (None, None);
            data.memory[at] = newest[at];
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
            let expected = model.ranks(other * LINE);
            assert_eq!((host, device), expected, "step {step}, line {other}");
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
            *model.statistics(),
            "step {step}, choice {choice}"
        );
    }
    let (host, device) = engine.lines();
    assert!(host <= filter.0 && device <= cache.0);
    assert_eq!(replayed.statistics(), model.statistics());
    let counts = model.statistics();
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
