//! The whole on this machine's own `/dev/kvm`: a guest of a few instructions that walks through CXL memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use memsim::kernel::{Demand, Kernel, Penalty, Run};
use memsim::law::LINE;
use memsim::topology::Topology;
use vm_memory::{Bytes, GuestAddress};

use super::load::LoadFile;
use super::*;
use crate::kvm::{
    Bus, EntryState, HypervisorBit, MemoryMap, Outcome, PAGE, Permission, SystemRequest,
    VcpuControl,
};
use crate::layout::AddressRange;
use crate::memory::{PageSize, Ram, memfd};

const RAM: AddressRange = AddressRange {
    start: 0,
    size: 2 << 20,
};
const CODE: u32 = 0x10_0000;
const WINDOW: u32 = 0x1000_0000;
const SIZE: u32 = 4 << 20;
/// Where the guest counts its rounds.
const ROUNDS: u64 = 0x8000;

struct Nobody;

impl Bus for Nobody {
    fn pio_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn pio_write(&self, _: u16, _: &[u8]) -> Option<SystemRequest> {
        None
    }

    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _: u64, _: &[u8]) -> Option<SystemRequest> {
        None
    }
}

/// A write to every page of the window, and one more round counted, for ever.
fn walk() -> Vec<u8> {
    let mut code = vec![0xbf]; // mov edi, WINDOW
    code.extend(WINDOW.to_le_bytes());
    code.extend([0xff, 0x07]); // inc dword [edi]
    code.extend([0x81, 0xc7]); // add edi, PAGE
    code.extend((PAGE as u32).to_le_bytes());
    code.extend([0x81, 0xff]); // cmp edi, the window's end
    code.extend((WINDOW + SIZE).to_le_bytes());
    code.extend([0x72, 0xf0]); // jb to the inc
    code.extend([0xff, 0x05]); // inc dword [ROUNDS]
    code.extend((ROUNDS as u32).to_le_bytes());
    code.extend([0xeb, 0xe3]); // jmp to the beginning, 29 bytes back
    code
}

/// A guest that walks, timed with an expander of this latency.
struct Walker {
    ram: Ram,
    vcpus: VcpuControl,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Lines that were told.
    counted: Arc<AtomicU64>,
    _vm: Vm,
}

/// What the model is told of the walker's host.
const HOST: Host = Host {
    local_ns: 100.0,
    parallelism: Some(1.0),
    vcpus: 1.0,
};

impl Walker {
    /// `None`, with a line that says so, where there is no KVM.
    fn start(latency: u32) -> Option<Self> {
        Self::start_with(latency, Loss::StandStill)
    }

    fn start_with(latency: u32, loss: Loss) -> Option<Self> {
        let topology = format!("(mem0[&lat={latency}])");
        Self::start_on(&topology, HOST, loss, Neighbours::default())
    }

    fn start_on(topology: &str, host: Host, loss: Loss, neighbours: Neighbours) -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            println!("skipped: no /dev/kvm");
            return None;
        }
        let vm = Vm::new().unwrap();
        let ram = Ram::new(&[RAM], PageSize::Base).unwrap();
        vm.map_ram(&ram).unwrap();
        let file = Arc::new(memfd("window", SIZE.into(), PageSize::Base).unwrap());
        let slots = vm.memslots();
        slots
            .map(WINDOW.into(), SIZE.into(), &file, 0, Permission::ReadWrite)
            .unwrap();
        ram.guest()
            .write_slice(&walk(), GuestAddress(CODE.into()))
            .unwrap();
        let bus: Arc<dyn Bus> = Arc::new(Nobody);
        let vcpus = Vcpus::new(&vm, 1, HypervisorBit::Shown, ram.guest()).unwrap();
        let vcpus = vcpus
            .start(
                EntryState::Pvh {
                    eip: CODE,
                    start_info: 0,
                },
                &bus,
            )
            .unwrap();
        let topology = Topology::parse(topology).unwrap();
        let shared = Arc::new(Shared::default());
        let counted = Arc::new(AtomicU64::new(0));
        let pacer = Pacer {
            shared: Arc::clone(&shared),
            vcpus: vcpus.clone(),
            shown: Box::new(|| vec![Area::new(WINDOW.into(), SIZE.into(), vec![0])]),
            pages: Box::new(Presence::new(slots).unwrap()),
            sampler: Sampler::new(Costs {
                take_away: 10_000.0,
                visit: 10_000.0,
            }),
            sampled: 0.0,
            reckoner: Reckoner::new(&topology, host),
            neighbours,
            epoch: Duration::from_millis(2),
            loss,
            cache: 0,
            counted: {
                let counted = Arc::clone(&counted);
                Box::new(move |path, lines| {
                    assert_eq!(path, 0, "there is one path");
                    counted.fetch_add(lines, Ordering::Relaxed);
                })
            },
            told: Vec::new(),
            facts: control::Timing {
                devices: vec![control::TimedDevice::default()],
                ..Default::default()
            },
        };
        Some(Self {
            ram,
            vcpus,
            shared,
            thread: thread::spawn(move || pacer.run()),
            counted,
            _vm: vm,
        })
    }

    fn rounds(&self) -> u32 {
        self.ram.guest().read_obj(GuestAddress(ROUNDS)).unwrap()
    }

    #[track_caller]
    fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.shared.report()
            );
            thread::yield_now();
        }
    }

    fn end(self) -> control::Timing {
        self.shared.stop();
        self.thread.join().unwrap();
        self.vcpus.finish(Outcome::Quit);
        let _ = self.vcpus.wait();
        self.shared.report()
    }
}

#[test]
fn a_guest_stands_still_for_what_its_expander_costs_and_goes_on() {
    let Some(walker) = Walker::start(1000) else {
        return;
    };
    walker.wait_until(|walker| walker.shared.report().paid > 5e6);
    assert!(walker.vcpus.stood_still() > Duration::ZERO);
    let rounds = walker.rounds();
    walker.wait_until(|walker| walker.rounds() > rounds);
    let (stood_still, vcpus) = (walker.vcpus.stood_still(), walker.vcpus.clone());
    let counted = Arc::clone(&walker.counted);
    let report = walker.end();
    assert!((report.added - report.paid - report.owed).abs() < 1.0);
    // What sampling cost is paid as well; all else the guest stood still for.
    assert!(vcpus.stood_still() >= stood_still);
    assert!(report.devices[0].lines > 0.0);
    let counted = counted.load(Ordering::Relaxed);
    assert_eq!(counted, report.devices[0].lines as u64, "all were told");
    assert_eq!(report.not_representable, 0);
}

#[test]
fn clocks_are_moved_by_what_is_owed_instead_of_waiting_for_it() {
    let moved = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&moved);
    let move_clocks = move |ns| {
        count.fetch_add(ns, Ordering::Relaxed);
    };
    let Some(walker) = Walker::start_with(1000, Loss::MoveClocks(Box::new(move_clocks))) else {
        return;
    };
    walker.wait_until(|walker| walker.shared.report().paid > 50e6);
    let report = walker.end();
    let moved = moved.load(Ordering::Relaxed) as f64;
    // The rest is what sampling cost.
    assert!(moved > 0.0 && moved <= report.paid, "{moved} {report:?}");
    assert!((report.added - report.paid - report.owed).abs() < 1.0);
}

#[test]
fn an_expander_as_fast_as_the_hosts_own_memory_costs_nothing() {
    let Some(walker) = Walker::start(100) else {
        return;
    };
    let lines = |walker: &Walker| {
        walker
            .shared
            .report()
            .devices
            .first()
            .map(|device| device.lines)
    };
    walker.wait_until(|walker| lines(walker) > Some(1e3));
    let report = walker.end();
    assert!(report.added < 0.1 * report.ran, "{report:?}");
}

#[test]
fn a_paused_machine_owes_nothing_for_its_pause() {
    let Some(walker) = Walker::start(1000) else {
        return;
    };
    walker.wait_until(|walker| walker.shared.report().epochs > 3);
    walker.vcpus.pause();
    let epochs = walker.shared.report().epochs;
    let still = walker.vcpus.stood_still();
    walker.wait_until(|walker| walker.vcpus.stood_still() > still + Duration::from_millis(50));
    // One epoch may have been on its way.
    assert!(walker.shared.report().epochs <= epochs + 1);
    walker.vcpus.resume();
    walker.wait_until(|walker| walker.shared.report().epochs > epochs + 3);
    let _ = walker.end();
}

/// Epochs after which a walk is known as one.
const KNOWN: u64 = 100;

/// Lines that a walker asked for in a ns that it ran, between two reports.
fn asked(before: &control::Timing, after: &control::Timing) -> f64 {
    (after.devices[0].lines - before.devices[0].lines) / (after.ran - before.ran)
}

/// An expander of a pool, as each host sees it: as fast as the host's own memory, but so narrow that it carries a quarter of
/// what a walker of this machine asks for. `None` without KVM.
fn narrow_expander() -> Option<String> {
    let walker = Walker::start(100)?;
    walker.wait_until(|walker| walker.shared.report().epochs > KNOWN);
    let before = walker.shared.report();
    walker.wait_until(|walker| walker.shared.report().epochs > 2 * KNOWN);
    let after = walker.end();
    let carried = 0.25 * LINE * asked(&before, &after);
    let media = 3.0 * carried;
    Some(format!(
        "((mem0[&lat=30,bw={carried:.6},cd={media:.6}])hb[&bw=64]:70)"
    ))
}

/// A host whose misses overlap, so that the width of its expander is what it feels.
const WIDE_HOST: Host = Host {
    parallelism: Some(12.0),
    ..HOST
};

/// What two walkers are made to feel while both of them walk, as shares of the time for which they ran: what was added,
/// and what the model says for the lines that they moved, with and without the other.
#[derive(Debug)]
struct Felt {
    added: f64,
    beside: f64,
    alone: f64,
    others: f64,
}

/// Starts two walkers on expanders of a pool with these names.
fn two_walkers(expanders: [&str; 2]) -> Option<[Felt; 2]> {
    let pooled = narrow_expander()?;
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let file = LoadFile::open(&folder.path().join(name)).unwrap();
        Walker::start_on(
            &pooled,
            WIDE_HOST,
            Loss::StandStill,
            Neighbours::of_one(file),
        )
    };
    let [first, second] = expanders.map(start);
    let walkers = [first?, second?];
    let report = |walker: &Walker| walker.shared.report();
    // The first estimates are poor, and one has begun before the other.
    for walker in &walkers {
        walker.wait_until(|walker| report(walker).epochs > KNOWN);
    }
    let later = |before: &[control::Timing; 2]| {
        for (walker, before) in walkers.iter().zip(before) {
            walker.wait_until(|walker| report(walker).ran > before.ran + 50e6);
        }
        walkers.each_ref().map(report)
    };
    // The model is asked once for means of many epochs: those in which a busy machine let both walk steadily.
    let mut latest = walkers.each_ref().map(report);
    let (mut before, mut after) = (latest.clone(), latest.clone());
    let mut steadiest = f64::INFINITY;
    for _ in 0..80 {
        let middle = later(&latest);
        let first = std::mem::replace(&mut latest, later(&middle));
        let halves = first.iter().zip(&middle).zip(&latest);
        let changes = halves.map(|((a, b), c)| (asked(a, b) / asked(b, c) - 1.0).abs());
        let change = changes.fold(0.0, f64::max);
        if change < steadiest {
            (steadiest, before, after) = (change, first, latest.clone());
        }
        if steadiest < 0.1 {
            break;
        }
    }
    drop(walkers.map(Walker::end));

    let run = Run {
        time_ns: 1e7,
        parallelism: 12.0,
    };
    let spans = before.iter().zip(&after);
    let demands: Vec<[Demand; 1]> = spans
        .clone()
        .map(|(before, after)| {
            let reads = asked(before, after) * run.time_ns;
            [Demand {
                reads,
                ..Demand::default()
            }]
        })
        .collect();
    let model = |topology: &str, demands: &[&[Demand]]| -> Vec<Penalty> {
        let topology = Topology::parse(topology).unwrap();
        let mut kernel = Kernel::new(&topology, WIDE_HOST.model());
        kernel.epoch(&[run, run], demands).to_vec()
    };
    let pair = format!("a={pooled};b={pooled}");
    let beside = model(&pair, &[&demands[0], &demands[1]]);
    let felt: Vec<Felt> = spans
        .zip(&demands)
        .zip(beside)
        .map(|(((before, after), demands), beside)| Felt {
            added: (after.added - before.added) / (after.ran - before.ran),
            beside: beside.added_ns / run.time_ns,
            alone: model(&pooled, &[demands])[0].added_ns / run.time_ns,
            others: after.devices[0].others,
        })
        .collect();
    println!("{felt:?}");
    felt.try_into().ok()
}

/// Relative error of the model that is fed with mean figures of many epochs.
const MEANS: f64 = 0.2;

#[test]
fn two_machines_on_one_expander_slow_each_other_as_the_model_says() {
    let Some(felt) = two_walkers(["pool", "pool"]) else {
        return;
    };
    for felt in felt {
        assert!((felt.added / felt.beside - 1.0).abs() < MEANS, "{felt:?}");
        assert!(
            felt.added > 1.5 * felt.alone && felt.others > 0.0,
            "{felt:?}"
        );
    }
}

#[test]
fn two_machines_on_separate_expanders_do_not_slow_each_other() {
    let Some(felt) = two_walkers(["this", "that"]) else {
        return;
    };
    for felt in felt {
        assert!((felt.added / felt.alone - 1.0).abs() < MEANS, "{felt:?}");
        assert_eq!(felt.others, 0.0);
    }
}
