//! What each part of a way to memory costs while nothing else is under way.
//!
//! One source for all who tell the guest, or show it, how fast memory is: HMAT and the QoS classes take the processor's
//! side and the host bridge from here, CDAT the media and the switches, and [`crate::timing`] the sum of all of them.

use firmware::Performance;
use pci::LinkSpeed;

use crate::config::Port;

/// Local DRAM of a server (Mess, MICRO'24, table I: 85 to 122 ns unloaded; two channels of DDR5-4800).
pub const RAM: Performance = Performance {
    read_latency: 100.0,
    write_latency: 100.0,
    read_bandwidth: 76.0,
    write_bandwidth: 76.0,
};
/// From a processor to the CXL host bridge: on-chip share of a load (Mess's convention, about 51 ns).
pub const HOST_BRIDGE: Performance = Performance {
    read_latency: 51.0,
    write_latency: 51.0,
    read_bandwidth: 64.0,
    write_bandwidth: 64.0,
};
/// Bytes of a flit, and of those the ones that carry messages (CXL 3.1, 4.2.1: 68-byte flit, four slots of 16 bytes).
const FLIT: f64 = 68.0;
const SLOTS: f64 = 64.0;

/// The link below a port: the time of a flit on the wire, and what is left for messages of the raw bandwidth.
pub fn link(port: &Port) -> Performance {
    let raw = transfers(port.speed) * f64::from(port.width.lanes()) / 8.0;
    Performance {
        read_latency: FLIT / raw,
        write_latency: FLIT / raw,
        read_bandwidth: raw * SLOTS / FLIT,
        write_bandwidth: raw * SLOTS / FLIT,
    }
}

/// Transfers per second and lane, in 10^9.
fn transfers(speed: LinkSpeed) -> f64 {
    match speed {
        LinkSpeed::Gt2_5 => 2.5,
        LinkSpeed::Gt5 => 5.0,
        LinkSpeed::Gt8 => 8.0,
        LinkSpeed::Gt16 => 16.0,
        LinkSpeed::Gt32 => 32.0,
        LinkSpeed::Gt64 => 64.0,
    }
}
