//! The device under test.

use cxl::cdat::Performance;
use cxl::memdev::Clock;
use cxl::memdev::dynamic::DynamicRegion;
use devices::{Part, Type3, Type3Config};
use pci::{Link, LinkSpeed, LinkWidth};

/// Every link here.
pub const LINK: Link = Link {
    speed: LinkSpeed::Gt32,
    width: LinkWidth::X16,
};
/// What everything costs here.
pub const PERFORMANCE: Performance = Performance {
    read_latency: 150,
    write_latency: 250,
    read_bandwidth: 16.0,
    write_bandwidth: 16.0,
};

/// An expander of 256 MiB volatile and 256 MiB persistent memory, as much that can be either, and addresses for as much that
/// comes and goes, with a label storage area of 4 KiB. Its clock stands still.
pub fn expander() -> Type3 {
    expander_of(Part::Whole)
}

/// The same, or such a part of a device.
pub fn expander_of(part: Part) -> Type3 {
    expander_with(part, Box::new(|| 0))
}

/// The same with this clock.
pub fn expander_with(part: Part, clock: Clock) -> Type3 {
    let config = Type3Config {
        name: "mem0".into(),
        serial: 1,
        volatile: 256 << 20,
        persistent: 256 << 20,
        partitionable: 256 << 20,
        dynamic: vec![DynamicRegion {
            base: 768 << 20,
            decode_len: 256 << 20,
            len: 256 << 20,
            block_size: 2 << 20,
            dsmas: 2,
        }],
        labels: vec![0; 4096],
        nonvolatile: cxl::memdev::NonVolatile::default(),
        link: LINK,
        decoders: 4,
        performance: PERFORMANCE,
        part,
        counts_reads: true,
    };
    Type3::new(config, clock).expect("a legal device")
}
