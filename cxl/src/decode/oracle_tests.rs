//! Every way count, granularity and arithmetic over every split on root, host bridges and two levels of switches, against
//! the specification's formulas written out here: sections 8.2.4.20.13 (device), 9.13.1 (ports) and 9.18.1.4 (XOR).

use super::*;
use crate::interleave::{Granularity, Ways, XorMaps};

const MIB: u64 = 1 << 20;
/// Begins at a multiple of 256 MiB times 48, so of any window's unit.
const BASE: u64 = 48 * 512 * MIB;

/// How a set is spread over the levels.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Ways of the window, and of each host bridge, switch, and switch below that.
    ways: [u64; 4],
    /// Their granularities.
    granularity: [u64; 4],
    /// Ways and granularity of the whole set.
    set: (u64, u64),
    /// The window's arithmetic.
    xor: XorMaps,
}

/// Ways with which a decoder spends address bits.
fn powers(ways: u64) -> u64 {
    if ways.is_multiple_of(3) {
        ways / 3
    } else {
        ways
    }
}

/// All ways to make `count` of a root's ways and three levels of ports.
fn products(count: u64) -> Vec<[u64; 4]> {
    let mut found = Vec::new();
    for root in [1, 2, 4, 8, 16, 3, 6, 12] {
        for bridge in [1, 2, 4, 8] {
            for switch in [1, 2, 4, 8] {
                for last in [1, 2, 4, 8] {
                    if root * bridge * switch * last == count {
                        found.push([root, bridge, switch, last]);
                    }
                }
            }
        }
    }
    found
}

/// The splits of a set: levels from the root on turn ever slower, or ever faster.
fn splits(count: u64, chunk: u64) -> Vec<Split> {
    let mut splits = Vec::new();
    for ways in products(count) {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
            let mut granularity = [0; 4];
            let mut next = chunk;
            for level in order {
                granularity[level] = next;
                next *= powers(ways[level]);
            }
            // A level of one way may have any granularity.
            for (granularity, ways) in granularity.iter_mut().zip(ways) {
                if ways == 1 {
                    *granularity = chunk;
                }
            }
            if granularity.iter().any(|bytes| *bytes > 16384) {
                continue;
            }
            let root = Granularity::new(granularity[0]).unwrap();
            let spread = XorMaps::spread(Ways::new(ways[0]).unwrap(), root);
            for xor in [XorMaps::NONE, spread] {
                splits.push(Split {
                    ways,
                    granularity,
                    set: (count, chunk),
                    xor,
                });
            }
        }
    }
    splits
}

/// The number of an endpoint below these targets.
fn number(targets: [u64; 4]) -> u32 {
    targets
        .iter()
        .fold(0, |all, target| all * 16 + *target as u32)
}

fn interleave(ways: u64, granularity: u64) -> Interleave {
    Interleave::new(
        Ways::new(ways).unwrap(),
        Granularity::new(granularity).unwrap(),
    )
}

/// The components of a split, all committed for `size` bytes.
fn topology(split: &Split, size: u64) -> Topology {
    let [root, bridge, switch, last] = split.ways;
    let port = |level: usize, below: &dyn Fn(u64) -> Child| {
        let ways = split.ways[level];
        let targets: Vec<u8> = (0..ways as u8).collect();
        let decoder = PortDecoder {
            base: BASE,
            size,
            interleave: interleave(ways, split.granularity[level]),
            targets: targets.clone(),
        };
        Port {
            decoders: vec![decoder],
            dports: targets
                .iter()
                .map(|number| (*number, below(u64::from(*number))))
                .collect(),
        }
    };
    let leaf = |a, b, c, d| Child::Endpoint(EndpointId(number([a, b, c, d])));
    let bridges = (0..root).map(|a| HostBridge {
        uid: a as u32,
        port: port(1, &|b| {
            Child::Switch(port(2, &|c| Child::Switch(port(3, &|d| leaf(a, b, c, d)))))
        }),
    });
    let decoder = EndpointDecoder {
        base: BASE,
        size,
        interleave: interleave(split.set.0, split.set.1),
        dpa: 0,
    };
    let mut endpoints = Vec::new();
    for a in 0..root {
        for b in 0..bridge {
            for c in 0..switch {
                for d in 0..last {
                    endpoints.push(Endpoint {
                        id: EndpointId(number([a, b, c, d])),
                        mem_enable: true,
                        decoders: vec![decoder.clone()],
                        memory: std::iter::once(0..decoder.size).collect(),
                    });
                }
            }
        }
    }
    Topology {
        windows: vec![Cfmws {
            base: BASE,
            size,
            interleave: interleave(root, split.granularity[0]).with_xor(split.xor),
            targets: (0..root as u32).collect(),
        }],
        host_bridges: bridges.collect(),
        endpoints,
    }
}

/// The endpoint and device address of a host address by the specification's formulas.
fn oracle(split: &Split, hpa: u64) -> (u32, u64) {
    let shift = |bytes: u64| bytes.trailing_zeros();
    let root = {
        let (ways, bits) = (split.ways[0], shift(powers(split.ways[0])));
        let chunk = hpa >> shift(split.granularity[0]);
        let low = if split.xor == XorMaps::NONE {
            chunk % (1 << bits)
        } else {
            let parities = split
                .xor
                .maps()
                .map(|map| u64::from((hpa & map).count_ones() % 2));
            parities.zip(0..).map(|(parity, bit)| parity << bit).sum()
        };
        let third = if ways.is_multiple_of(3) {
            (chunk >> bits) % 3
        } else {
            0
        };
        third << bits | low
    };
    // A port decodes address bits from its granularity on.
    let port = |level: usize| (hpa >> shift(split.granularity[level])) % split.ways[level];
    let (ways, granularity) = split.set;
    let (offset, ig) = (hpa - BASE, shift(granularity));
    let above = offset >> (ig + shift(powers(ways)));
    let above = if ways.is_multiple_of(3) {
        above / 3
    } else {
        above
    };
    let dpa = (above << ig) | (offset % granularity);
    (number([root, port(1), port(2), port(3)]), dpa)
}

/// Marsaglia's xorshift: the same offsets in every run.
fn offsets(size: u64, stripe: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state % size)
    });
    let edges = (0..8).flat_map(move |n| {
        let at = (size / 8 * n).next_multiple_of(stripe).min(size - stripe);
        [at, at + 255, at + 256, at + stripe - 1]
    });
    edges.chain(random.take(64))
}

#[test]
fn every_split_decodes_as_the_formulas_say() {
    let mut checked = 0;
    for ways in Ways::ALL {
        for granularity in Granularity::ALL {
            let size = 512 * MIB * ways.count();
            for split in splits(ways.count(), granularity.bytes()) {
                let found = resolve(&topology(&split, size));
                let [mapping] = found.as_slice() else {
                    panic!("{split:?} resolves to {found:?}");
                };
                let stripe = ways.count() * granularity.bytes();
                for offset in offsets(size, stripe) {
                    let hpa = BASE + offset;
                    let (endpoint, dpa) = oracle(&split, hpa);
                    let expected = Some((EndpointId(endpoint), dpa));
                    assert_eq!(mapping.hpa_to_dpa(hpa), expected, "{split:?} {hpa:#x}");
                    let back = mapping.dpa_to_hpa(EndpointId(endpoint), dpa);
                    assert_eq!(back, Some(hpa), "{split:?} {endpoint:#x} {dpa:#x}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 1000, "{checked} splits");
}

#[test]
fn a_range_in_the_middle_of_an_xor_window_keeps_its_arithmetic() {
    let four =
        interleave(4, 256).with_xor(XorMaps::spread(Ways::new(4).unwrap(), Granularity::MIN));
    let split = Split {
        ways: [4, 1, 1, 1],
        granularity: [256; 4],
        set: (4, 256),
        xor: four.xor,
    };
    let mut topology = topology(&split, 2048 * MIB);
    // The second half of what the host bridges decode.
    for endpoint in &mut topology.endpoints {
        endpoint.decoders[0].base = BASE + 1024 * MIB;
        endpoint.decoders[0].size = 1024 * MIB;
    }
    let mapping = &resolve(&topology)[0];
    for offset in offsets(1024 * MIB, 1024) {
        let hpa = mapping.base + offset;
        let (endpoint, dpa) = oracle(&split, hpa);
        let expected = Some((EndpointId(endpoint), dpa - 256 * MIB));
        assert_eq!(mapping.hpa_to_dpa(hpa), expected, "{hpa:#x}");
    }
}
