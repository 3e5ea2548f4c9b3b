use cxl::decode::{Cfmws, Child, Endpoint, EndpointId, HostBridge, Port, Topology, resolve};
use cxl::hdm::{EndpointDecoder, PortDecoder};
use cxl::interleave::XorMaps;
use cxl::{Granularity, Interleave, Ways};

use crate::input::Input;

/// Decoders are made from a few bases and sizes, so that some of them agree.
const UNIT: u64 = 256 << 20;
const ENDPOINTS: u32 = 8;

fn address(input: &mut Input) -> u64 {
    match input.u8() {
        wild @ 0xf8.. => input.u64() >> (wild & 7),
        units => u64::from(units % 16) * UNIT,
    }
}

fn interleave(input: &mut Input) -> Interleave {
    Interleave::new(input.choose(&Ways::ALL), input.choose(&Granularity::ALL))
}

/// The interleave of a window, which alone may have XOR arithmetic.
fn window_interleave(input: &mut Input) -> Interleave {
    let modulo = interleave(input);
    match input.u8() & 1 {
        0 => modulo,
        _ => modulo.with_xor(XorMaps::spread(modulo.ways, modulo.granularity)),
    }
}

fn targets(input: &mut Input, ways: Ways) -> Vec<u8> {
    let mut targets = input.padded(ways.count() as usize);
    targets.iter_mut().for_each(|target| *target %= 4);
    targets
}

fn port(input: &mut Input, depth: u8) -> Port {
    let mut port = Port::default();
    for _ in 0..input.u8() % 3 {
        let interleave = interleave(input);
        port.decoders.push(PortDecoder {
            base: address(input),
            size: address(input),
            targets: targets(input, interleave.ways),
            interleave,
        });
    }
    for number in 0..input.u8() % 5 {
        let child = match input.u8() {
            0xc0.. if depth > 0 => Child::Switch(self::port(input, depth - 1)),
            id => Child::Endpoint(EndpointId(u32::from(id) % ENDPOINTS)),
        };
        port.dports.push((number, child));
    }
    port
}

fn topology(input: &mut Input) -> Topology {
    let mut topology = Topology::default();
    for _ in 0..input.u8() % 3 {
        let interleave = window_interleave(input);
        let targets = targets(input, interleave.ways);
        topology.windows.push(Cfmws {
            base: address(input),
            size: address(input),
            interleave,
            targets: targets.into_iter().map(u32::from).collect(),
        });
    }
    for uid in 0..u32::from(input.u8() % 5) {
        let port = port(input, 2);
        topology.host_bridges.push(HostBridge { uid, port });
    }
    for id in 0..ENDPOINTS {
        let mut decoders = Vec::new();
        for _ in 0..input.u8() % 3 {
            decoders.push(EndpointDecoder {
                base: address(input),
                size: address(input),
                interleave: interleave(input),
                dpa: address(input),
            });
        }
        topology.endpoints.push(Endpoint {
            id: EndpointId(id),
            mem_enable: input.u8() & 1 == 0,
            decoders,
            memory: Vec::new(),
        });
    }
    // Behind all that decodes: a device has memory throughout, or in some pieces.
    for endpoint in &mut topology.endpoints {
        let start = |input: &mut Input| address(input) / 2;
        endpoint.memory = match input.u8() % 4 {
            0 => std::iter::once(0..u64::MAX).collect(),
            pieces => (0..pieces).map(|_| start(input)..address(input)).collect(),
        };
    }
    topology
}

/// Whether a window has all of a range; others may be smaller than it.
fn holds(window: &Cfmws, base: u64, size: u64) -> bool {
    let offset = base.checked_sub(window.base);
    let room = window.size.checked_sub(size);
    offset
        .zip(room)
        .is_some_and(|(offset, room)| offset <= room)
}

/// Decoders of a whole host: what they map is whole, and its two directions agree with each other.
pub fn decode(data: &[u8]) {
    let mut input = Input::new(data);
    let topology = topology(&mut input);
    for mapping in resolve(&topology) {
        let ways = mapping.interleave.ways.count();
        assert_eq!(mapping.members.len() as u64, ways);
        assert!(
            topology
                .windows
                .iter()
                .any(|window| holds(window, mapping.base, mapping.size)),
            "{mapping:x?} lies in no window"
        );
        for member in &mapping.members {
            let end = member.dpa.saturating_add(mapping.member_size());
            let endpoint = &topology.endpoints[member.endpoint.0 as usize];
            assert!(
                endpoint
                    .memory
                    .iter()
                    .any(|piece| piece.start <= member.dpa && end <= piece.end),
                "{member:x?} has no memory in {mapping:x?}"
            );
        }
        for _ in 0..8 {
            let hpa = mapping.base.wrapping_add(input.u64() % mapping.size.max(1));
            let Some((endpoint, dpa)) = mapping.hpa_to_dpa(hpa) else {
                continue;
            };
            assert!(
                mapping
                    .members
                    .iter()
                    .any(|member| member.endpoint == endpoint
                        && dpa.wrapping_sub(member.dpa) < mapping.size),
                "{endpoint:?} has no {dpa:#x} in {mapping:x?}"
            );
            assert_eq!(mapping.dpa_to_hpa(endpoint, dpa), Some(hpa), "{mapping:x?}");
        }
    }
}
