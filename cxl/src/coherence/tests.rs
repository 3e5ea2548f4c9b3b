//! The engine against rules that are written down apart from it: a table of what each access does, and data that move only
//! with the messages.

mod model;

use super::*;

/// A small generator with a fixed seed, so that a failure comes again (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

const PAGES: u64 = 6;
const LINES_OF_PAGE: u64 = PAGE / LINE;

fn config(cache: (usize, usize), filter: (usize, usize)) -> Config {
    Config {
        capacity: PAGES * PAGE,
        granule: LINE,
        cache: Some(cache),
        filter: Some(filter),
    }
}

fn engine(cache: (usize, usize), filter: (usize, usize)) -> Engine {
    let mut engine = Engine::new(config(cache, filter)).unwrap();
    engine.set_trace(1 << 20);
    engine
}

fn large() -> Engine {
    engine((1024, 16), (1024, 16))
}

fn messages(engine: &mut Engine) -> Vec<Message> {
    said(engine)
        .into_iter()
        .map(|(_, message)| message)
        .collect()
}

/// The messages since the last call, with their lines.
fn said(engine: &mut Engine) -> Vec<(u64, Message)> {
    let trace = engine.take_trace().into_iter();
    let message = |event: Event| match event.what {
        What::Message(message) => Some((event.line, message)),
        What::Access(_) => None,
    };
    trace.filter_map(message).collect()
}

/// Brings a line into a state by the shortest way.
fn bring(engine: &mut Engine, line: u64, host: Host, device: Device) {
    match (host, device) {
        (Host::Invalid, Device::Invalid) => {}
        (Host::Invalid, Device::Exclusive) => engine.device_read(line).unwrap(),
        (Host::Invalid, Device::Modified) => engine.device_write(line).unwrap(),
        (Host::Exclusive, Device::Invalid) => engine.host_read(line).unwrap(),
        (Host::Modified, Device::Invalid) => engine.host_write(line).unwrap(),
        _ => {
            engine.host_read(line).unwrap();
            engine.device_read(line).unwrap();
            if host == Host::Invalid {
                engine.host_evict(line).unwrap();
            }
            if device == Device::Invalid {
                engine.device_evict(line).unwrap();
            }
        }
    }
    assert_eq!(engine.state(line), (host, device));
    engine.take_trace();
}

/// All states that may be, and what each access says and leaves. Written from the tables of sections 3.3 and 3.5: S is a
/// copy for reading, E and M the only one.
#[test]
fn every_access_in_every_state_says_what_the_protocol_says() {
    use Device as D;
    use Host as H;
    use Message::*;
    type Row = (H, D, [(H, D, &'static [Message]); 4]);
    const TABLE: &[Row] = &[
        (
            H::Invalid,
            D::Invalid,
            [
                (H::Exclusive, D::Invalid, &[MemRd, CmpE]),
                (H::Modified, D::Invalid, &[MemRdOwn, CmpE]),
                (H::Invalid, D::Exclusive, &[Fill]),
                (H::Invalid, D::Modified, &[Fill]),
            ],
        ),
        (
            H::Invalid,
            D::Shared,
            [
                (H::Shared, D::Shared, &[MemRd, CmpS]),
                (H::Modified, D::Invalid, &[MemRdOwn, Yield, CmpE]),
                (H::Invalid, D::Shared, &[]),
                (H::Invalid, D::Modified, &[]),
            ],
        ),
        (
            H::Invalid,
            D::Exclusive,
            [
                (H::Shared, D::Shared, &[MemRd, Yield, CmpS]),
                (H::Modified, D::Invalid, &[MemRdOwn, Yield, CmpE]),
                (H::Invalid, D::Exclusive, &[]),
                (H::Invalid, D::Modified, &[]),
            ],
        ),
        (
            H::Invalid,
            D::Modified,
            [
                (H::Shared, D::Shared, &[MemRd, WriteBack, CmpS]),
                (H::Modified, D::Invalid, &[MemRdOwn, WriteBack, CmpE]),
                (H::Invalid, D::Modified, &[]),
                (H::Invalid, D::Modified, &[]),
            ],
        ),
        (
            H::Shared,
            D::Invalid,
            [
                (H::Shared, D::Invalid, &[]),
                (H::Modified, D::Invalid, &[MemInv, CmpE]),
                (H::Shared, D::Shared, &[Fill]),
                (H::Invalid, D::Modified, &[BiSnpInv, BiRspI, Fill]),
            ],
        ),
        (
            H::Shared,
            D::Shared,
            [
                (H::Shared, D::Shared, &[]),
                (H::Modified, D::Invalid, &[MemInv, Yield, CmpE]),
                (H::Shared, D::Shared, &[]),
                (H::Invalid, D::Modified, &[BiSnpInv, BiRspI]),
            ],
        ),
        (
            H::Exclusive,
            D::Invalid,
            [
                (H::Exclusive, D::Invalid, &[]),
                (H::Modified, D::Invalid, &[]),
                (H::Shared, D::Shared, &[BiSnpData, BiRspS, Fill]),
                (H::Invalid, D::Modified, &[BiSnpInv, BiRspI, Fill]),
            ],
        ),
        (
            H::Modified,
            D::Invalid,
            [
                (H::Modified, D::Invalid, &[]),
                (H::Modified, D::Invalid, &[]),
                (H::Shared, D::Shared, &[BiSnpData, MemWr, BiRspS, Fill]),
                (H::Invalid, D::Modified, &[BiSnpInv, MemWr, BiRspI, Fill]),
            ],
        ),
    ];
    type Access = fn(&mut Engine, u64) -> Result<(), Error>;
    let accesses: [Access; 4] = [
        Engine::host_read,
        Engine::host_write,
        Engine::device_read,
        Engine::device_write,
    ];
    for &(host, device, outcomes) in TABLE {
        for (access, (then_host, then_device, said)) in accesses.iter().zip(outcomes) {
            let mut engine = large();
            bring(&mut engine, 3 * LINE, host, device);
            access(&mut engine, 3 * LINE + 17).unwrap();
            let state = engine.state(3 * LINE);
            assert_eq!(state, (then_host, then_device), "{host:?} {device:?}");
            assert_eq!(messages(&mut engine), said, "{host:?} {device:?}");
        }
    }
}

#[test]
fn a_page_in_device_bias_is_the_devices_without_a_word() {
    let mut engine = large();
    engine.host_write(0).unwrap();
    engine.host_read(LINE).unwrap();
    engine.host_read(PAGE).unwrap();
    engine.take_trace();
    assert_eq!(engine.set_bias(0, 100, Bias::Device), Ok(1));
    assert_eq!(engine.set_bias(0, PAGE, Bias::Device), Ok(0));
    use Message::*;
    let first = [BiSnpInv, MemWr, BiRspI, BiSnpInv, BiRspI];
    assert_eq!(messages(&mut engine), first);
    assert_eq!(engine.statistics().flipped_lines, 2);
    for line in 0..LINES_OF_PAGE {
        engine.device_write(line * LINE).unwrap();
    }
    assert!(messages(&mut engine).iter().all(|said| *said == Fill));
    assert_eq!(engine.bias(PAGE - 1), Bias::Device);
    assert_eq!(engine.state(PAGE).0, Host::Exclusive, "another page");

    // The host comes back: all that the device holds of the page goes to memory first.
    engine.host_read(5 * LINE).unwrap();
    let said = messages(&mut engine);
    let (flushed, rest) = said.split_at(LINES_OF_PAGE as usize);
    assert!(flushed.iter().all(|said| *said == WriteBack));
    assert_eq!(rest, [MemRd, CmpE]);
    assert_eq!(engine.bias(0), Bias::Host);
    let statistics = engine.statistics();
    assert_eq!(
        (
            statistics.flips_to_device,
            statistics.flips_to_host,
            statistics.host_took_back
        ),
        (1, 1, 1)
    );
    assert_eq!(statistics.flipped_lines, 2 + LINES_OF_PAGE);
}

#[test]
fn flipping_goes_both_ways() {
    let mut engine = large();
    engine.set_bias(PAGE, PAGE, Bias::Device).unwrap();
    assert_eq!(engine.flip_bias(0, 3 * PAGE), Ok(3));
    let biases = [0, 1, 2].map(|page| engine.bias(page * PAGE));
    assert_eq!(biases, [Bias::Device, Bias::Host, Bias::Device]);
    assert_eq!(engine.pages_in_device_bias(), 2);
    assert_eq!(engine.flip_bias(PAGE, 0), Ok(0));
}

#[test]
fn a_full_snoop_filter_takes_lines_from_the_host() {
    let mut engine = engine((64, 16), (4, 4));
    for line in 0..4 {
        engine.host_write(line * LINE).unwrap();
    }
    // Used again, so line 1 is the oldest.
    engine.host_read(0).unwrap();
    engine.take_trace();
    engine.host_read(9 * LINE).unwrap();
    use Message::*;
    let said = said(&mut engine);
    let (new, old) = (9 * LINE, LINE);
    assert_eq!(
        said,
        [
            (new, MemRd),
            (old, BiSnpInv),
            (old, MemWr),
            (old, BiRspI),
            (new, CmpE)
        ]
    );
    assert_eq!(engine.state(LINE).0, Host::Invalid);
    assert_eq!(engine.state(0).0, Host::Modified);
    assert_eq!(
        (engine.statistics().filter_evictions, engine.lines().0),
        (1, 4)
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = Config {
        capacity: PAGE,
        ..config((16, 16), (16, 16))
    };
    for wrong in [
        Config {
            capacity: PAGE + 1,
            ..config
        },
        Config {
            cache: Some((17, 16)),
            ..config
        },
        Config {
            cache: Some((16, 0)),
            ..config
        },
        Config {
            filter: Some((0, 1)),
            ..config
        },
        Config {
            granule: 128,
            ..config
        },
    ] {
        assert!(Engine::new(wrong).is_err(), "{wrong:?}");
    }
    let mut engine = Engine::new(config).unwrap();
    for beyond in [PAGE, u64::MAX] {
        assert!(engine.host_read(beyond).is_err());
        assert!(engine.host_write(beyond).is_err());
        assert!(engine.device_read(beyond).is_err());
        assert!(engine.device_write(beyond).is_err());
        assert!(engine.set_bias(beyond, 1, Bias::Device).is_err());
        assert!(engine.flip_bias(1, beyond).is_err());
        assert!(engine.discard(beyond, u64::MAX).is_err());
    }
    assert_eq!(*engine.statistics(), Statistics::default());
    assert_eq!(engine.steps, 0);
}

#[test]
fn memory_that_begins_anew_is_held_by_nobody() {
    let mut engine = large();
    engine.host_write(0).unwrap();
    engine.device_write(LINE).unwrap();
    engine.host_write(PAGE).unwrap();
    engine.set_bias(2 * PAGE, PAGE, Bias::Device).unwrap();
    engine.take_trace();
    engine.discard(0, 2 * LINE).unwrap();
    engine.discard(2 * PAGE, PAGE - 1).unwrap();
    assert_eq!(engine.bias(2 * PAGE), Bias::Device);
    engine.discard(2 * PAGE, PAGE).unwrap();
    assert_eq!(messages(&mut engine), []);
    assert_eq!(engine.lines(), (1, 0));
    assert_eq!(engine.bias(2 * PAGE), Bias::Host);
    assert_eq!(engine.state(PAGE).0, Host::Modified);
}

#[test]
fn each_step_is_kept_with_who_did_it_and_what_it_changed() {
    let mut engine = large();
    engine.host_write(5).unwrap();
    engine.device_read(LINE - 1).unwrap();
    engine.set_bias(0, 1, Bias::Device).unwrap();
    let trace = engine.trace(0, 100);
    assert_eq!(engine.trace(0, 100), trace, "and stays");
    let lines: Vec<String> = trace
        .iter()
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    let expected = [
        r#"{"number":0,"by":"host","what":"write","line":0,"before":["I","I"],"after":["M","I"]}"#,
        r#"{"number":1,"by":"host","what":"MemRdOwn","line":0,"before":["I","I"],"after":["I","I"]}"#,
        r#"{"number":2,"by":"device","what":"CmpE","line":0,"before":["I","I"],"after":["M","I"]}"#,
        r#"{"number":3,"by":"device","what":"read","line":0,"before":["M","I"],"after":["S","S"]}"#,
        r#"{"number":4,"by":"device","what":"BiSnpData","line":0,"before":["M","I"],"after":["M","I"]}"#,
        r#"{"number":5,"by":"host","what":"MemWr","line":0,"before":["M","I"],"after":["M","I"]}"#,
        r#"{"number":6,"by":"host","what":"BiRspS","line":0,"before":["M","I"],"after":["S","I"]}"#,
        r#"{"number":7,"by":"device","what":"Fill","line":0,"before":["S","I"],"after":["S","S"]}"#,
        r#"{"number":8,"by":"device","what":"device-bias","line":0,"before":["S","S"],"after":["I","S"]}"#,
        r#"{"number":9,"by":"device","what":"BiSnpInv","line":0,"before":["S","S"],"after":["S","S"]}"#,
        r#"{"number":10,"by":"host","what":"BiRspI","line":0,"before":["S","S"],"after":["I","S"]}"#,
    ];
    assert_eq!(lines, expected);
    for (line, event) in lines.iter().zip(&trace) {
        assert_eq!(&serde_json::from_str::<Event>(line).unwrap(), event);
    }
    assert_eq!(engine.trace(4, 2), trace[4..6]);
    assert_eq!(engine.trace(11, 2), []);
    engine.discard(64, 128).unwrap();
    let last = serde_json::to_string(&engine.trace(11, 9)).unwrap();
    assert!(
        last.contains(r#""what":{"discard":128},"line":64"#),
        "{last}"
    );
}

#[test]
fn the_oldest_steps_go_where_there_is_no_room() {
    let mut engine = large();
    engine.set_trace(4);
    assert_eq!(engine.traced(), 0..0);
    for line in 0..3 {
        engine.host_read(line * LINE).unwrap();
    }
    assert_eq!(engine.traced(), 5..9);
    let numbers: Vec<u64> = engine
        .trace(0, 9)
        .iter()
        .map(|event| event.number)
        .collect();
    assert_eq!(numbers, [5, 6, 7, 8]);
    // A step that is gone cannot be told how its access ended.
    engine.set_trace(1);
    engine.host_write(PAGE).unwrap();
    assert_eq!(engine.trace(0, 9).len(), 1);
}

#[test]
fn pages_take_the_place_of_lines_where_only_they_are_known() {
    let mut engine = Engine::new(Config {
        granule: PAGE,
        cache: None,
        filter: None,
        ..config((16, 16), (16, 16))
    })
    .unwrap();
    engine.set_trace(100);
    for page in 0..PAGES {
        engine.host_write(page * PAGE + 8).unwrap();
    }
    use Message::*;
    engine.take_trace();
    engine.device_read(2 * PAGE - 1).unwrap();
    let said = said(&mut engine);
    assert_eq!(
        said,
        [BiSnpData, MemWr, BiRspS, Fill].map(|message| (PAGE, message))
    );
    assert_eq!(engine.state(PAGE + 100), (Host::Shared, Device::Shared));
    // A page that begins anew only in part is still held.
    engine.discard(PAGE, PAGE - 64).unwrap();
    assert_eq!(engine.state(PAGE).0, Host::Shared);
    engine.discard(PAGE, PAGE).unwrap();
    assert_eq!(engine.state(PAGE), (Host::Invalid, Device::Invalid));
    assert_eq!(engine.statistics().link_bytes, (PAGES + 1) * PAGE);
    assert_eq!(engine.lines().0 as u64, PAGES - 1);
}
