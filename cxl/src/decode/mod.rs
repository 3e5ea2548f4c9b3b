//! From committed decoders to the ranges of host memory that they make.
//!
//! A load goes from a fixed memory window to a host bridge, from there through a decoder per port to an
//! endpoint, whose own decoder turns it into a device address (section 9.13). [`resolve`] follows that
//! way for every range some endpoint decodes, and gives the ranges for which all of it fits together.

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

use std::ops::Range as Span;

use crate::hdm::{EndpointDecoder, PortDecoder};
use crate::interleave::{Interleave, XorMaps};

/// Names an endpoint of a [`Topology`]; the caller chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

/// A CXL fixed memory window (CFMWS of the CEDT, section 9.18.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cfmws {
    /// First host address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// How the window is spread over the host bridges, by modulo or XOR arithmetic.
    pub interleave: Interleave,
    /// `_UID`s of host bridges in position order, one per way.
    pub targets: Vec<u32>,
}

/// A host bridge and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// ACPI `_UID`.
    pub uid: u32,
    /// Its decoders and root ports.
    pub port: Port,
}

/// A host bridge or an upstream switch port: decoders in front of downstream ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Committed and enabled decoders.
    pub decoders: Vec<PortDecoder>,
    /// What is behind each port, by port number; a port with nothing behind it is left out.
    pub dports: Vec<(u8, Child)>,
}

/// What is behind a downstream port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// A device.
    Endpoint(EndpointId),
    /// A switch.
    Switch(Port),
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub id: EndpointId,
    /// CXL.mem is enabled in its CXL Control register (section 8.1.3.2).
    pub mem_enable: bool,
    /// Committed and enabled decoders.
    pub decoders: Vec<EndpointDecoder>,
    /// Where it has memory, by device address: what decoders lead to elsewhere, such as dynamic capacity that the host does
    /// not have, is not there.
    pub memory: Vec<Span<u64>>,
}

/// All decoders of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Fixed memory windows.
    pub windows: Vec<Cfmws>,
    /// Host bridges with what is below them.
    pub host_bridges: Vec<HostBridge>,
    /// All devices.
    pub endpoints: Vec<Endpoint>,
}

/// A range of host addresses that is decoded from the window down to the media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First host address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// How the range is spread over the members, with the arithmetic of its window.
    pub interleave: Interleave,
    /// The devices in position order, one per way.
    pub members: Vec<Member>,
}

/// One way of a [`Mapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub endpoint: EndpointId,
    /// First device address of its part.
    pub dpa: u64,
}

impl Mapping {
    /// Bytes of device address space on each member.
    pub fn member_size(&self) -> u64 {
        self.size / self.interleave.ways.count()
    }

    /// The device and device address behind a host address; `None` outside the range.
    pub fn hpa_to_dpa(&self, hpa: u64) -> Option<(EndpointId, u64)> {
        let offset = hpa
            .checked_sub(self.base)
            .filter(|offset| *offset < self.size)?;
        let position = usize::try_from(self.interleave.position(offset)).ok()?;
        let member = self.members.get(position)?;
        let dpa = member.dpa.checked_add(self.interleave.dpa_offset(offset))?;
        Some((member.endpoint, dpa))
    }

    /// The host address of a device address; `None` if the range does not hold it.
    pub fn dpa_to_hpa(&self, endpoint: EndpointId, dpa: u64) -> Option<u64> {
        let (position, member) = (0..)
            .zip(&self.members)
            .find(|(_, member)| member.endpoint == endpoint)?;
        let offset = dpa
            .checked_sub(member.dpa)
            .filter(|offset| *offset < self.member_size())?;
        self.base
            .checked_add(self.interleave.hpa_offset(position, offset)?)
    }

    /// The parts behind which every member has memory, each of them in one piece of it.
    ///
    /// Pieces are not joined where they meet, so that none that is in use changes when another comes or goes.
    fn present(self, memory: impl Fn(EndpointId) -> Option<Vec<Span<u64>>>) -> Vec<Self> {
        let all = 0..self.member_size();
        let mut parts = vec![all.clone()];
        for member in &self.members {
            let pieces = memory(member.endpoint).unwrap_or_default();
            let pieces = pieces.iter().filter_map(|piece| {
                let end = piece.end.checked_sub(member.dpa)?;
                Some(piece.start.saturating_sub(member.dpa)..end)
            });
            parts = pieces
                .flat_map(|piece| parts.iter().map(move |part| overlap(part, &piece)))
                .filter(|part| !part.is_empty())
                .collect();
        }
        if parts == [all] {
            return vec![self];
        }
        parts
            .into_iter()
            .filter_map(|part| self.part(part))
            .collect()
    }

    /// The whole chunks in `offsets` of every member's part.
    fn part(&self, offsets: Span<u64>) -> Option<Self> {
        let ways = self.interleave.ways.count();
        let chunk = match ways {
            1 => 1,
            // Which member a chunk belongs to depends on all bits of its address then, and not on its turn.
            _ if self.interleave.xor != XorMaps::NONE => return None,
            _ => self.interleave.granularity.bytes(),
        };
        let start = offsets.start.checked_next_multiple_of(chunk)?;
        let end = offsets.end - offsets.end % chunk;
        let len = end.checked_sub(start).filter(|len| *len > 0)?;
        let member = |member: &Member| {
            let dpa = member.dpa.checked_add(start)?;
            Some(Member { dpa, ..*member })
        };
        Some(Self {
            base: self.base.checked_add(start.checked_mul(ways)?)?,
            size: len.checked_mul(ways)?,
            interleave: self.interleave,
            members: self.members.iter().map(member).collect::<Option<_>>()?,
        })
    }
}

fn overlap(one: &Span<u64>, other: &Span<u64>) -> Span<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

/// A range that some endpoint decodes: what all decoders on the way have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: u64,
    size: u64,
    interleave: Interleave,
}

/// The completely and consistently decoded ranges, by increasing host address.
///
/// A range is among them if every position of its interleave set is routed, through each level, to a
/// device of its own, enabled, whose decoder has the same base, size, ways and granularity; and of it what all of these
/// devices have memory for.
pub fn resolve(topology: &Topology) -> Vec<Mapping> {
    let mut ranges: Vec<Range> = Vec::new();
    for endpoint in topology
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.mem_enable)
    {
        for range in endpoint.decoders.iter().map(Range::of) {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
    }
    let mut mappings: Vec<Mapping> = ranges
        .iter()
        .filter_map(|range| topology.mapping(range))
        .flat_map(|mapping| mapping.present(|id| Some(topology.endpoint(id)?.memory.clone())))
        .collect();
    mappings.sort_by_key(|mapping| mapping.base);
    mappings
}

impl Topology {
    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// The mapping of `range`, if all of it is decoded.
    fn mapping(&self, range: &Range) -> Option<Mapping> {
        let window = self
            .windows
            .iter()
            .find(|window| range.lies_in(window.base, window.size))?;
        let interleave = range.interleave.with_xor(window.interleave.xor);
        let mut members: Vec<Option<Member>> = vec![None; interleave.ways.count() as usize];
        for chunk in 0..interleave.ways.count() {
            let offset = chunk.checked_mul(interleave.granularity.bytes())?;
            let id = self.route(window, range, range.base.checked_add(offset)?)?;
            if members.iter().flatten().any(|member| member.endpoint == id) {
                return None;
            }
            let endpoint = self.endpoint(id)?;
            let decoder = endpoint
                .decoders
                .iter()
                .find(|decoder| endpoint.mem_enable && Range::of(decoder) == *range)?;
            let position = usize::try_from(interleave.position(offset)).ok()?;
            *members.get_mut(position)? = Some(Member {
                endpoint: id,
                dpa: decoder.dpa,
            });
        }
        Some(Mapping {
            base: range.base,
            size: range.size,
            interleave,
            members: members.into_iter().collect::<Option<_>>()?,
        })
    }

    /// The endpoint to which the hardware sends `hpa`, the first byte of a chunk of `range`.
    fn route(&self, window: &Cfmws, range: &Range, hpa: u64) -> Option<EndpointId> {
        let uid = range.target(window.base, window.interleave, &window.targets, hpa)?;
        let bridge = self.host_bridges.iter().find(|bridge| bridge.uid == uid)?;
        let mut port = &bridge.port;
        loop {
            match port.route(range, hpa)? {
                Child::Endpoint(id) => return Some(*id),
                Child::Switch(below) => port = below,
            }
        }
    }
}

impl Port {
    fn route(&self, range: &Range, hpa: u64) -> Option<&Child> {
        let decoder = self
            .decoders
            .iter()
            .find(|decoder| range.lies_in(decoder.base, decoder.size))?;
        let number = range.target(decoder.base, decoder.interleave, &decoder.targets, hpa)?;
        let (_, child) = self.dports.iter().find(|(dport, _)| *dport == number)?;
        Some(child)
    }
}

impl Range {
    fn of(decoder: &EndpointDecoder) -> Self {
        Self {
            base: decoder.base,
            size: decoder.size,
            interleave: decoder.interleave,
        }
    }

    fn lies_in(&self, base: u64, size: u64) -> bool {
        self.base
            .checked_sub(base)
            .and_then(|offset| offset.checked_add(self.size))
            .is_some_and(|end| end <= size)
    }

    /// The target of a level that starts at `base` for the chunk of this range at `hpa`.
    ///
    /// What holds for the first stripe of the range then holds for all of it: the level's chunks are
    /// whole chunks of the range, and its pattern repeats within a stripe of the range. With XOR arithmetic the
    /// pattern is another in each stripe, and the range's own positions follow it.
    fn target<T: Copy>(&self, base: u64, level: Interleave, targets: &[T], hpa: u64) -> Option<T> {
        let offset = hpa.checked_sub(base)?;
        let chunk = self.interleave.granularity.bytes();
        let alone = level.ways.count() == 1;
        let agrees = offset.is_multiple_of(chunk)
            && level.granularity.bytes().is_multiple_of(chunk)
            && self.interleave.stripe().is_multiple_of(level.stripe());
        if !alone && !agrees {
            return None;
        }
        let position = usize::try_from(level.position(offset)).ok()?;
        targets.get(position).copied()
    }
}
