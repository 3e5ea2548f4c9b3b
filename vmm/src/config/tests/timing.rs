//! `[timing]`: what it means, and what it may not say.

use super::messages::{TREE, expect};
use super::*;

#[test]
fn time_is_off_unless_a_clock_is_named() {
    let files = Files::new();
    let plain = files.parse(TREE).unwrap();
    assert_eq!(plain.timing.clock, Clock::Off);
    let timed = files
        .parse(&format!("timing.clock = \"real\"\n{TREE}"))
        .unwrap();
    let expected = Timing {
        clock: Clock::Real,
        epoch: 10_000_000,
        local_latency: None,
        parallelism: None,
        cache: None,
    };
    assert_eq!(timed.timing, expected);
}

#[test]
fn timing_needs_memory_to_time() {
    expect(
        "timing.clock = \"real\"\n[boot]\nkernel = \"kernel\"\n",
        &[
            "host0.toml:1: timing.clock: the machine has no CXL memory to time; give it an expander, or remove this line",
        ],
    );
}

#[test]
fn an_epoch_is_from_a_millisecond_to_a_second() {
    expect(
        &format!("timing.epoch = 1000\n{TREE}"),
        &[
            "host0.toml:1: timing.epoch: 1000 is out of range; write a number from 1000000 to 1000000000",
        ],
    );
}
