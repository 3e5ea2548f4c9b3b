use super::*;
use crate::interleave::{Granularity, Ways};

const GIB: u64 = 1 << 30;
const BASE: u64 = 0x10_0000_0000;

fn interleave(ways: u64, granularity: u64) -> Interleave {
    Interleave::new(
        Ways::new(ways).unwrap(),
        Granularity::new(granularity).unwrap(),
    )
}

fn window(interleave: Interleave, targets: &[u32]) -> Cfmws {
    Cfmws {
        base: BASE,
        size: 16 * GIB,
        interleave,
        targets: targets.to_vec(),
    }
}

fn port_decoder(size: u64, interleave: Interleave, targets: &[u8]) -> PortDecoder {
    PortDecoder {
        base: BASE,
        size,
        interleave,
        targets: targets.to_vec(),
    }
}

/// Memory in one piece.
fn piece(range: Span<u64>) -> Vec<Span<u64>> {
    std::iter::once(range).collect()
}

fn endpoint(id: u32, size: u64, interleave: Interleave, dpa: u64) -> Endpoint {
    let decoder = EndpointDecoder {
        base: BASE,
        size,
        interleave,
        dpa,
    };
    Endpoint {
        id: EndpointId(id),
        mem_enable: true,
        decoders: vec![decoder],
        memory: piece(0..16 * GIB),
    }
}

fn leaf(number: u8, id: u32) -> (u8, Child) {
    (number, Child::Endpoint(EndpointId(id)))
}

/// A bridge whose `ports` lead to endpoints.
fn bridge(uid: u32, decoder: PortDecoder, ports: &[(u8, u32)]) -> HostBridge {
    let dports = ports
        .iter()
        .map(|(number, id)| leaf(*number, *id))
        .collect();
    HostBridge {
        uid,
        port: Port {
            decoders: vec![decoder],
            dports,
        },
    }
}

/// Two bridges with two endpoints each, four ways of 256 bytes: bridges alternate first.
fn four_ways() -> Topology {
    let set = interleave(4, 256);
    let below = |targets: &[u8]| port_decoder(GIB, interleave(2, 512), targets);
    Topology {
        windows: vec![window(interleave(2, 256), &[1, 2])],
        host_bridges: vec![
            bridge(1, below(&[0, 1]), &[(0, 10), (1, 11)]),
            bridge(2, below(&[3, 2]), &[(2, 20), (3, 21)]),
        ],
        endpoints: vec![
            endpoint(10, GIB, set, 0),
            endpoint(11, GIB, set, 0),
            endpoint(20, GIB, set, 0x1000_0000),
            endpoint(21, GIB, set, 0),
        ],
    }
}

fn members(topology: &Topology) -> Vec<u32> {
    let mappings = resolve(topology);
    assert_eq!(mappings.len(), 1, "{mappings:?}");
    mappings[0]
        .members
        .iter()
        .map(|member| member.endpoint.0)
        .collect()
}

#[test]
fn one_endpoint_alone_is_mapped() {
    let topology = Topology {
        windows: vec![window(Interleave::NONE, &[7])],
        host_bridges: vec![bridge(
            7,
            port_decoder(GIB, Interleave::NONE, &[3]),
            &[(3, 0)],
        )],
        endpoints: vec![endpoint(0, GIB, Interleave::NONE, 0x1000_0000)],
    };
    let member = Member {
        endpoint: EndpointId(0),
        dpa: 0x1000_0000,
    };
    let expected = Mapping {
        base: BASE,
        size: GIB,
        interleave: Interleave::NONE,
        members: vec![member],
    };
    assert_eq!(resolve(&topology), [expected]);
}

#[test]
fn positions_follow_the_targets_of_every_level() {
    assert_eq!(members(&four_ways()), [10, 21, 11, 20]);
}

#[test]
fn a_range_in_the_middle_of_a_window_and_a_bridge_decoder_is_mapped() {
    let mut topology = four_ways();
    for endpoint in &mut topology.endpoints {
        endpoint.decoders[0].base += GIB;
    }
    for bridge in &mut topology.host_bridges {
        bridge.port.decoders[0].size = 4 * GIB;
    }
    assert_eq!(members(&topology), [10, 21, 11, 20]);
    topology.host_bridges[0].port.decoders[0].size = GIB;
    assert_eq!(resolve(&topology), []);
}

#[test]
fn three_bridges_begin_where_the_window_says() {
    let set = interleave(3, 256);
    let alone = |uid, id| {
        bridge(
            uid,
            port_decoder(4 * GIB, Interleave::NONE, &[0]),
            &[(0, id)],
        )
    };
    let size = 768 << 20;
    let mut topology = Topology {
        windows: vec![window(set, &[1, 2, 3])],
        host_bridges: vec![alone(1, 1), alone(2, 2), alone(3, 3)],
        endpoints: (1..=3).map(|id| endpoint(id, size, set, 0)).collect(),
    };
    assert_eq!(members(&topology), [1, 2, 3]);
    // 256 MiB are 2^20 chunks, one more than a multiple of three.
    for endpoint in &mut topology.endpoints {
        endpoint.decoders[0].base += 256 << 20;
    }
    assert_eq!(members(&topology), [2, 3, 1]);
}

#[test]
fn switches_decode_as_one_more_level() {
    let set = interleave(2, 1024);
    let switch = Port {
        decoders: vec![port_decoder(GIB, set, &[8, 9])],
        dports: vec![leaf(8, 80), leaf(9, 90)],
    };
    let root = Port {
        decoders: vec![port_decoder(GIB, Interleave::NONE, &[0])],
        dports: vec![(0, Child::Switch(switch))],
    };
    let topology = Topology {
        windows: vec![window(Interleave::NONE, &[1])],
        host_bridges: vec![HostBridge { uid: 1, port: root }],
        endpoints: vec![endpoint(80, GIB, set, 0), endpoint(90, GIB, set, 0)],
    };
    assert_eq!(members(&topology), [80, 90]);
}

#[test]
fn an_incomplete_chain_maps_nothing() {
    type Damage = fn(&mut Topology);
    let damages: [(&str, Damage); 13] = [
        ("no window", |t| t.windows.clear()),
        ("short window", |t| t.windows[0].size = GIB / 2),
        ("unknown bridge", |t| t.windows[0].targets[1] = 9),
        ("missing target", |t| t.windows[0].targets.truncate(1)),
        ("uncommitted bridge", |t| {
            t.host_bridges[0].port.decoders.clear()
        }),
        ("empty port", |t| t.host_bridges[0].port.dports.truncate(1)),
        ("bridge granularity below the chunk", |t| {
            t.windows[0].interleave = interleave(2, 512);
            t.host_bridges[0].port.decoders[0].interleave = interleave(2, 256);
        }),
        ("bridge pattern longer than the stripe", |t| {
            t.host_bridges[0].port.decoders[0].interleave = interleave(2, 1024);
        }),
        ("one device twice", |t| {
            t.host_bridges[0].port.decoders[0].targets = vec![0, 0]
        }),
        ("uncommitted endpoint", |t| t.endpoints[3].decoders.clear()),
        ("disabled endpoint", |t| t.endpoints[2].mem_enable = false),
        ("endpoint of another size", |t| {
            t.endpoints[1].decoders[0].size = 2 * GIB
        }),
        ("unknown endpoint", |t| t.endpoints.truncate(3)),
    ];
    for (name, damage) in damages {
        let mut topology = four_ways();
        damage(&mut topology);
        assert_eq!(resolve(&topology), [], "{name}");
    }
}

#[test]
fn several_ranges_come_in_address_order() {
    let mut topology = Topology {
        windows: vec![window(Interleave::NONE, &[1])],
        host_bridges: vec![bridge(
            1,
            port_decoder(GIB, Interleave::NONE, &[0]),
            &[(0, 0), (1, 1)],
        )],
        endpoints: vec![
            endpoint(0, GIB, Interleave::NONE, 0),
            endpoint(1, GIB, Interleave::NONE, 0),
        ],
    };
    let mut second = port_decoder(GIB, Interleave::NONE, &[1]);
    second.base += GIB;
    topology.host_bridges[0].port.decoders.push(second);
    topology.endpoints[1].decoders[0].base += GIB;
    topology.endpoints.reverse();
    let bases: Vec<u64> = resolve(&topology)
        .iter()
        .map(|mapping| mapping.base)
        .collect();
    assert_eq!(bases, [BASE, BASE + GIB]);
}

#[test]
fn addresses_translate_both_ways() {
    let mapping = &resolve(&four_ways())[0];
    assert_eq!(mapping.member_size(), GIB / 4);
    // Chunks 0 to 4 of 256 bytes; the device at position 3 starts at DPA 256 MiB.
    let table = [
        (0x000, 10, 0x000),
        (0x1ab, 21, 0x0ab),
        (0x2ff, 11, 0x0ff),
        (0x300, 20, 0x1000_0000),
        (0x4cd, 10, 0x1cd),
        (GIB - 1, 20, 0x1000_0000 + GIB / 4 - 1),
    ];
    for (offset, id, dpa) in table {
        let id = EndpointId(id);
        assert_eq!(mapping.hpa_to_dpa(BASE + offset), Some((id, dpa)));
        assert_eq!(mapping.dpa_to_hpa(id, dpa), Some(BASE + offset));
    }
    assert_eq!(mapping.hpa_to_dpa(BASE - 1), None);
    assert_eq!(mapping.hpa_to_dpa(BASE + GIB), None);
    assert_eq!(mapping.dpa_to_hpa(EndpointId(10), GIB / 4), None);
    assert_eq!(mapping.dpa_to_hpa(EndpointId(20), 0), None);
    assert_eq!(mapping.dpa_to_hpa(EndpointId(99), 0), None);
}

/// The ranges of host addresses that are mapped, with the first members' device addresses.
fn ranges(topology: &Topology) -> Vec<(u64, u64, u64)> {
    let mappings = resolve(topology);
    let first = |mapping: &Mapping| (mapping.base, mapping.size, mapping.members[0].dpa);
    mappings.iter().map(first).collect()
}

#[test]
fn what_a_device_has_no_memory_for_is_not_mapped() {
    const MIB: u64 = 1 << 20;
    let dpa = 0x1000_0000;
    let mut topology = Topology {
        windows: vec![window(Interleave::NONE, &[7])],
        host_bridges: vec![bridge(
            7,
            port_decoder(GIB, Interleave::NONE, &[3]),
            &[(3, 0)],
        )],
        endpoints: vec![endpoint(0, GIB, Interleave::NONE, dpa)],
    };
    // Memory below the range, two pieces that meet in it, one at its end and beyond, and one behind it.
    topology.endpoints[0].memory = vec![
        0..dpa,
        dpa..dpa + 2 * MIB,
        dpa + 2 * MIB..dpa + 6 * MIB,
        dpa + GIB - 4096..dpa + GIB + MIB,
        dpa + 2 * GIB..u64::MAX,
    ];
    assert_eq!(
        ranges(&topology),
        [
            (BASE, 2 * MIB, dpa),
            (BASE + 2 * MIB, 4 * MIB, dpa + 2 * MIB),
            (BASE + GIB - 4096, 4096, dpa + GIB - 4096),
        ]
    );
    topology.endpoints[0].memory.clear();
    assert_eq!(resolve(&topology), []);
}

#[test]
fn of_a_set_is_mapped_what_all_members_have_memory_for_in_whole_chunks() {
    let mut topology = four_ways();
    let set = resolve(&topology).remove(0);
    // Member 0 begins at device address 0, member 3 at 256 MiB.
    topology.endpoints[0].memory = piece(0x1010..0x4000);
    topology.endpoints[2].memory = vec![0..0x1000_3080, 0x1000_3080..0x2000_0000];
    // Chunks of 256 bytes, of which 0x3000 is half in either piece.
    let mapped = ranges(&topology);
    assert_eq!(
        mapped,
        [
            (BASE + 4 * 0x1100, 4 * 0x1f00, 0x1100),
            (BASE + 4 * 0x3100, 4 * 0xf00, 0x3100),
        ]
    );
    // Every byte is where it was in the whole set.
    for part in resolve(&topology) {
        for hpa in (part.base..part.base + part.size).step_by(64) {
            assert_eq!(part.hpa_to_dpa(hpa), set.hpa_to_dpa(hpa), "{hpa:#x}");
        }
    }
    // By parities the turn of a chunk depends on more than its place in a part.
    topology.windows[0].interleave = interleave(2, 256).with_xor(XorMaps::spread(
        Ways::new(2).unwrap(),
        Granularity::new(256).unwrap(),
    ));
    assert_eq!(resolve(&topology), []);
    for endpoint in &mut topology.endpoints {
        endpoint.memory = piece(0..16 * GIB);
    }
    assert_eq!(resolve(&topology).len(), 1);
}
