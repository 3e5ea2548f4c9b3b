//! Dynamic capacity (section 8.2.9.9.9), opcodes 0x4800 to 0x4803, of devices that have such regions.

use super::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};
use crate::memdev::Memdev;
use crate::memdev::dynamic::{DynamicRegion, Extent, MOST_EXTENTS};
use crate::{CAPACITY_UNIT, Effect};

pub(crate) fn has_regions(memdev: &Memdev) -> bool {
    !memdev.dynamic_regions().is_empty()
}

/// Get Dynamic Capacity Configuration.
pub(super) struct GetConfiguration;

pub(super) struct ConfigurationRequest {
    count: u8,
    start: u8,
}

impl Request for ConfigurationRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [count, start] = input.array()?;
        Some(Self { count, start })
    }
}

pub(super) struct Configuration {
    total: u8,
    regions: Vec<DynamicRegion>,
    extents_left: u32,
}

/// A region, with what stands in the place where a host finds the handle of its DSMAS: 40 bytes.
pub(crate) fn encode_region(region: &DynamicRegion, handle: u32, output: &mut Vec<u8>) {
    /// What is released is emptied.
    const SANITIZE_ON_RELEASE: u8 = 1 << 0;
    output.extend(region.base.to_le_bytes());
    output.extend((region.decode_len / CAPACITY_UNIT).to_le_bytes());
    output.extend(region.len.to_le_bytes());
    output.extend(region.block_size.to_le_bytes());
    output.extend(handle.to_le_bytes());
    output.extend([SANITIZE_ON_RELEASE, 0, 0, 0]);
}

/// How many extents there can be, and can be more; as many tags.
pub(crate) fn encode_limits(extents_left: u32, output: &mut Vec<u8>) {
    for count in [MOST_EXTENTS as u32, extents_left].repeat(2) {
        output.extend(count.to_le_bytes());
    }
}

impl Reply for Configuration {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.total, self.regions.len() as u8]);
        output.extend([0; 6]);
        for region in &self.regions {
            encode_region(region, region.dsmas.into(), output);
        }
        encode_limits(self.extents_left, output);
    }
}

impl Command for GetConfiguration {
    const OPCODE: u16 = 0x4800;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ConfigurationRequest;
    type Reply = Configuration;

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: ConfigurationRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Configuration, ReturnCode> {
        Ok(Configuration {
            total: memdev.dynamic_regions().len() as u8,
            regions: memdev.list_regions(request.start, request.count)?,
            extents_left: memdev.extents_left() as u32,
        })
    }
}

/// Get Dynamic Capacity Extent List.
pub(super) struct GetExtentList;

pub(super) struct ExtentListRequest {
    count: u32,
    start: u32,
}

impl Request for ExtentListRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            count: input.u32()?,
            start: input.u32()?,
        })
    }
}

pub(super) struct ExtentList {
    total: u32,
    generation: u32,
    extents: Vec<Extent>,
}

impl ExtentList {
    const HEADER_LEN: usize = 16;
    /// So many extents fit a payload.
    const MAX: usize = (PAYLOAD_SIZE - Self::HEADER_LEN) / EXTENT_LEN;
}

/// Bytes of an extent in lists and event records.
pub(crate) const EXTENT_LEN: usize = 40;

/// Takes an extent out of a list.
pub(crate) fn decode_extent(input: &mut Input<'_>) -> Option<Extent> {
    let extent = Extent {
        dpa: input.u64()?,
        len: input.u64()?,
        tag: input.array()?,
        shared_sequence: input.u16()?,
    };
    let _reserved: [u8; 6] = input.array()?;
    Some(extent)
}

/// An extent as lists and event records have it.
pub(crate) fn encode_extent(extent: &Extent, output: &mut Vec<u8>) {
    output.extend(extent.dpa.to_le_bytes());
    output.extend(extent.len.to_le_bytes());
    output.extend(extent.tag);
    output.extend(extent.shared_sequence.to_le_bytes());
    output.extend([0; 6]);
}

impl Reply for ExtentList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend((self.extents.len() as u32).to_le_bytes());
        output.extend(self.total.to_le_bytes());
        output.extend(self.generation.to_le_bytes());
        output.extend([0; 4]);
        for extent in &self.extents {
            encode_extent(extent, output);
        }
    }
}

impl Command for GetExtentList {
    const OPCODE: u16 = 0x4801;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ExtentListRequest;
    type Reply = ExtentList;

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: ExtentListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<ExtentList, ReturnCode> {
        Ok(ExtentList {
            total: memdev.extents().len() as u32,
            generation: memdev.extents_generation(),
            extents: memdev.list_extents(request.start, request.count, ExtentList::MAX)?,
        })
    }
}

/// A list of ranges, perhaps with more to come in the next one.
pub(super) struct UpdatedExtents {
    more: bool,
    extents: Vec<Extent>,
}

impl UpdatedExtents {
    /// Flags: the list goes on in the next command.
    const MORE: u8 = 1 << 0;
}

impl Request for UpdatedExtents {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let count = input.u32()?;
        let [flags, _, _, _] = input.array()?;
        let extent = |input: &mut Input<'_>| {
            let (dpa, len) = (input.u64()?, input.u64()?);
            let _reserved = input.u64()?;
            Some(Extent {
                dpa,
                len,
                ..Extent::default()
            })
        };
        // A count beyond the payload ends with its first missing extent.
        let extents = (0..count).map(|_| extent(input)).collect::<Option<_>>()?;
        Some(Self {
            more: flags & Self::MORE != 0,
            extents,
        })
    }
}

/// Add Dynamic Capacity Response.
pub(super) struct AddResponse;

impl Command for AddResponse {
    const OPCODE: u16 = 0x4802;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_CONFIGURATION;
    type Request = UpdatedExtents;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: UpdatedExtents,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.accept_extents(&request.extents, request.more, effects)
    }
}

/// Release Dynamic Capacity.
pub(super) struct Release;

impl Command for Release {
    const OPCODE: u16 = 0x4803;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    type Request = UpdatedExtents;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: UpdatedExtents,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.release_extents(&request.extents, request.more, effects)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench, bench_of, config};
    use super::*;
    use crate::memdev::MemdevConfig;

    const MIB: u64 = 1 << 20;
    /// Behind the 3 GiB of other memory.
    const BASE: u64 = 3 << 30;
    const BLOCK: u64 = 2 * MIB;
    const DYNAMIC_LOG: u8 = 4;

    fn region(base: u64) -> DynamicRegion {
        DynamicRegion {
            base,
            decode_len: 512 * MIB,
            len: 256 * MIB,
            block_size: BLOCK,
            dsmas: 7,
        }
    }

    fn dynamic() -> Bench {
        bench_of(MemdevConfig {
            dynamic: vec![region(BASE), region(BASE + 512 * MIB)],
            ..config()
        })
    }

    /// Extent `number` of `blocks` blocks, tagged with its number.
    fn extent(number: u64, blocks: u64) -> Extent {
        Extent {
            dpa: BASE + number * BLOCK,
            len: blocks * BLOCK,
            tag: [number as u8; 16],
            shared_sequence: 0,
        }
    }

    fn list(extents: &[Extent], more: u8) -> Vec<u8> {
        let mut request = (extents.len() as u32).to_le_bytes().to_vec();
        request.extend([more, 0, 0, 0]);
        for extent in extents {
            request.extend(extent.dpa.to_le_bytes());
            request.extend(extent.len.to_le_bytes());
            request.extend([0; 8]);
        }
        request
    }

    fn offer(bench: &mut Bench, extents: &[Extent]) {
        bench
            .memdev
            .offer_extents(extents, &mut Vec::new())
            .unwrap();
    }

    #[test]
    fn a_device_without_regions_has_no_such_commands() {
        let mut bench = bench();
        for opcode in 0x4800..0x4804 {
            assert_eq!(bench.run(opcode, &[0; 8]), Err(ReturnCode::Unsupported));
        }
        let dynamic_log = bench.run(0x0100, &[DYNAMIC_LOG]);
        assert_eq!(dynamic_log, Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn the_configuration_lists_regions_and_room() {
        let mut bench = dynamic();
        let reply = bench.run(0x4800, &[8, 1]).unwrap();
        assert_eq!(reply.len(), 8 + 40 + 16);
        assert_eq!(reply[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        let words: Vec<u64> = reply[8..40]
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [BASE + 512 * MIB, 2, 256 * MIB, BLOCK]);
        assert_eq!(reply[40..48], [7, 0, 0, 0, 1, 0, 0, 0]);
        let most = MOST_EXTENTS as u8;
        assert_eq!(reply[48..56], [most, 0, 0, 0, most, 0, 0, 0]);
        assert_eq!(bench.run(0x4800, &[1, 2]), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn an_offer_is_an_event_and_becomes_the_hosts_when_it_is_accepted() {
        let mut bench = dynamic();
        // Notification of the dynamic capacity log alone, by its own vector.
        bench.run(0x0103, &[0, 0, 0, 0, 1]).unwrap();
        assert_eq!(bench.run(0x0102, &[]).unwrap(), [0, 0, 0, 0, 0x61]);
        let offered = [extent(0, 1), extent(4, 2)];
        bench
            .memdev
            .offer_extents(&offered, &mut bench.effects)
            .unwrap();
        assert_eq!(bench.effects, [Effect::Interrupt { vector: 6 }]);
        assert_eq!(bench.memdev.events().status(), 1 << DYNAMIC_LOG);
        let records = bench.run(0x0100, &[DYNAMIC_LOG]).unwrap();
        assert_eq!(records[0x14..0x16], [2, 0]);
        let data = |n: usize| &records[0x20 + n * 128 + 48..][..80];
        // Add capacity, region 0, more to come; the extent with its tag.
        assert_eq!(data(0)[..8], [0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(data(1)[..8], [0; 8]);
        assert_eq!(data(1)[8..16], (BASE + 4 * BLOCK).to_le_bytes());
        assert_eq!(data(1)[24..40], [4; 16]);

        assert_eq!(bench.memdev.extents(), []);
        bench.effects.clear();
        // All of the first, half of the second.
        let wanted = [extent(0, 1), extent(4, 1)];
        assert_eq!(bench.run(0x4802, &list(&wanted, 0)), Ok(vec![]));
        assert_eq!(bench.effects, [Effect::AccessChanged]);
        assert_eq!(bench.memdev.extents(), wanted);
        let reply = bench.run(0x4801, &[9, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        // One here of two, first generation.
        assert_eq!(
            reply[..16],
            [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(reply[16..24], (BASE + 4 * BLOCK).to_le_bytes());
        assert_eq!(reply.len(), 16 + 40);
        let behind = bench.run(0x4801, &[1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(behind, Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn an_empty_answer_declines_the_oldest_offer() {
        let mut bench = dynamic();
        offer(&mut bench, &[extent(0, 1)]);
        offer(&mut bench, &[extent(1, 1)]);
        assert_eq!(bench.run(0x4802, &list(&[], 0)), Ok(vec![]));
        assert_eq!(bench.memdev.extents(), []);
        let declined = bench.run(0x4802, &list(&[extent(0, 1)], 0));
        assert_eq!(declined, Err(ReturnCode::InvalidPhysicalAddress));
        assert_eq!(bench.run(0x4802, &list(&[extent(1, 1)], 0)), Ok(vec![]));
        let nothing = bench.run(0x4802, &list(&[], 0));
        assert_eq!(nothing, Err(ReturnCode::InvalidInput), "nothing is offered");
    }

    #[test]
    fn lists_come_in_parts() {
        let mut bench = dynamic();
        offer(&mut bench, &[extent(0, 4)]);
        assert_eq!(bench.run(0x4802, &list(&[extent(0, 1)], 1)), Ok(vec![]));
        assert_eq!(bench.memdev.extents(), []);
        let twice = bench.run(0x4802, &list(&[extent(0, 1)], 1));
        assert_eq!(twice, Err(ReturnCode::InvalidExtentList));
        assert_eq!(bench.run(0x4802, &list(&[extent(0, 2)], 1)), Ok(vec![]));
        assert_eq!(bench.run(0x4802, &list(&[extent(2, 2)], 0)), Ok(vec![]));
        assert_eq!(bench.memdev.extents().len(), 2);
    }

    #[test]
    fn the_host_gives_back_extents_and_parts_of_them() {
        let mut bench = dynamic();
        offer(&mut bench, &[extent(0, 8)]);
        bench.run(0x4802, &list(&[extent(0, 8)], 0)).unwrap();
        bench.effects.clear();
        assert_eq!(
            bench.run(0x4803, &list(&[extent(2, 1), extent(7, 1)], 0)),
            Ok(vec![])
        );
        // Out of reach, and then empty.
        let zeroed = |number| Effect::MediaZeroed {
            dpa: BASE + number * BLOCK,
            len: BLOCK,
        };
        assert_eq!(bench.effects, [Effect::AccessChanged, zeroed(2), zeroed(7)]);
        let left: Vec<(u64, u64)> = bench
            .memdev
            .extents()
            .iter()
            .map(|extent| ((extent.dpa - BASE) / BLOCK, extent.len / BLOCK))
            .collect();
        assert_eq!(left, [(0, 2), (3, 4)]);
        for (request, code) in [
            (list(&[extent(2, 1)], 0), ReturnCode::InvalidPhysicalAddress),
            (list(&[extent(0, 4)], 0), ReturnCode::InvalidPhysicalAddress),
            (
                list(&[extent(0, 1), extent(0, 2)], 0),
                ReturnCode::InvalidExtentList,
            ),
            (list(&[], 0), ReturnCode::InvalidInput),
            (vec![0xff; 8], ReturnCode::InvalidPayloadLength),
        ] {
            assert_eq!(bench.run(0x4803, &request), Err(code), "{request:?}");
        }
    }

    #[test]
    fn the_owner_asks_for_an_extent_or_takes_it() {
        let mut bench = dynamic();
        offer(&mut bench, &[extent(0, 2)]);
        bench.run(0x4802, &list(&[extent(0, 2)], 0)).unwrap();
        bench
            .run(0x0101, &[DYNAMIC_LOG, 0, 1, 0, 0, 0, 1, 0])
            .unwrap();
        for (force, left) in [(false, 1), (true, 0)] {
            let wanted = extent(0, 2);
            bench
                .memdev
                .reclaim_extent(&wanted, force, &mut Vec::new())
                .unwrap();
            assert_eq!(bench.memdev.extents().len(), left);
        }
        let records = bench.run(0x0100, &[DYNAMIC_LOG]).unwrap();
        let types = [0, 1].map(|n| records[0x20 + n * 128 + 48]);
        assert_eq!(types, [1, 2], "release, forced release");
        let gone = bench
            .memdev
            .reclaim_extent(&extent(0, 2), true, &mut Vec::new());
        assert_eq!(gone, Err(ReturnCode::InvalidPhysicalAddress));
    }

    #[test]
    fn impossible_offers_are_refused() {
        let mut bench = dynamic();
        offer(&mut bench, &[extent(0, 2)]);
        let mut small = extent(4, 1);
        small.len = BLOCK / 2;
        let many: Vec<Extent> = (0..64).map(|n| extent(10 + n, 1)).collect();
        for (extents, code) in [
            (vec![], ReturnCode::InvalidExtentList),
            (vec![extent(1, 1)], ReturnCode::InvalidExtentList),
            (
                vec![extent(4, 2), extent(5, 1)],
                ReturnCode::InvalidExtentList,
            ),
            (vec![small], ReturnCode::InvalidPhysicalAddress),
            (vec![extent(128, 1)], ReturnCode::InvalidPhysicalAddress),
            (vec![extent(127, 2)], ReturnCode::InvalidPhysicalAddress),
            (many, ReturnCode::ResourcesExhausted),
        ] {
            let result = bench.memdev.offer_extents(&extents, &mut Vec::new());
            assert_eq!(result, Err(code));
        }
    }

    #[test]
    fn a_release_that_would_leave_too_many_extents_is_refused() {
        let mut bench = dynamic();
        let offered: Vec<Extent> = (0..MOST_EXTENTS as u64 - 1)
            .map(|n| extent(2 * n, 1))
            .collect();
        offer(&mut bench, &offered);
        bench.run(0x4802, &list(&offered, 0)).unwrap();
        let large = Extent {
            dpa: BASE + 512 * MIB,
            len: 3 * BLOCK,
            ..Extent::default()
        };
        offer(&mut bench, &[large]);
        bench.run(0x4802, &list(&[large], 0)).unwrap();
        let middle = Extent {
            dpa: large.dpa + BLOCK,
            len: BLOCK,
            ..large
        };
        let result = bench.run(0x4803, &list(&[middle], 0));
        assert_eq!(result, Err(ReturnCode::ResourcesExhausted));
        assert_eq!(bench.memdev.extents().len(), MOST_EXTENTS);
    }
}
