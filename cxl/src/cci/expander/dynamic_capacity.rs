//! DCD Management command set (section 7.6.7.6), opcodes 0x5600 to 0x5605, of devices with dynamic capacity.
//!
//! The device has one host as far as can be seen here; its number is that of its logical device. Nothing is shared between
//! hosts, so there are no references to tags, 0x5606 to 0x5608, nor is there shared access to enable. Whatever is released
//! is emptied.

use crate::mailbox::dynamic::{
    EXTENT_LEN, decode_extent, encode_extent, encode_limits, encode_region, has_regions,
};
use crate::mailbox::{
    Command, CommandEffects, Entry, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode,
};
use crate::memdev::Memdev;
use crate::memdev::dynamic::{DynamicRegion, Extent, MOST_REGIONS};
use crate::{CAPACITY_UNIT, Effect};

/// All of them.
pub(super) static ENTRIES: [Entry; 6] = [
    Entry::of::<GetInfo>(),
    Entry::of::<GetConfiguration>(),
    Entry::of::<SetConfiguration>(),
    Entry::of::<GetExtentLists>(),
    Entry::of::<InitiateAdd>(),
    Entry::of::<InitiateRelease>(),
];

/// Extents come and go.
const CHANGES: CommandEffects =
    CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);

/// This host's number.
fn own_host(memdev: &Memdev) -> u16 {
    let (_, own) = memdev.sharing().logical_devices();
    own.into()
}

fn check_host(memdev: &Memdev, host: u16) -> Result<(), ReturnCode> {
    if host != own_host(memdev) {
        return Err(ReturnCode::InvalidInput);
    }
    Ok(())
}

/// How extents to be added are selected (section 7.6.7.6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    /// Wherever there is room in a region.
    Free,
    /// In a region, all in one piece.
    Contiguous,
    /// As listed.
    Prescriptive,
}

impl Selection {
    /// Bits 3:0 of the selection policy.
    const MASK: u8 = 0xf;
    /// Bit n for the policy with number n.
    const SUPPORTED: u16 = 0b111;

    fn of(policy: u8) -> Option<Self> {
        match policy {
            0 => Some(Self::Free),
            1 => Some(Self::Contiguous),
            2 => Some(Self::Prescriptive),
            _ => None,
        }
    }
}

/// How extents to be released are selected (section 7.6.7.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Those with a tag.
    TagBased,
    /// As listed.
    Prescriptive,
}

impl Removal {
    /// Bits 3:0 of the flags.
    const MASK: u8 = 0xf;
    /// Bit 4 of the flags: the host is not asked.
    const FORCED: u8 = 1 << 4;
    /// Bit 5 of the flags.
    const SANITIZE: u8 = 1 << 5;
    /// Bit n for the policy with number n.
    const SUPPORTED: u16 = 0b11;

    fn of(policy: u8) -> Option<Self> {
        match policy {
            0 => Some(Self::TagBased),
            1 => Some(Self::Prescriptive),
            _ => None,
        }
    }
}

/// Get DCD Info (section 7.6.7.6.1).
pub(super) struct GetInfo;

pub(super) struct Info {
    /// Of each region: bytes, and the sizes that its blocks can have.
    regions: Vec<(u64, u64)>,
}

impl Reply for Info {
    fn encode(&self, output: &mut Vec<u8>) {
        const HOSTS: u8 = 1;
        output.extend([HOSTS, self.regions.len() as u8, 0, 0]);
        output.extend(Selection::SUPPORTED.to_le_bytes());
        output.extend([0; 2]);
        output.extend(Removal::SUPPORTED.to_le_bytes());
        let sanitizes = self
            .regions
            .iter()
            .fold(0, |regions, _| regions << 1 | 1_u8);
        output.extend([sanitizes, 0]);
        let all: u64 = self.regions.iter().map(|(len, _)| len).sum();
        output.extend((all / CAPACITY_UNIT).to_le_bytes());
        let sizes = self.regions.iter().map(|(_, sizes)| *sizes);
        for sizes in sizes.chain(std::iter::repeat(0)).take(MOST_REGIONS) {
            output.extend(sizes.to_le_bytes());
        }
    }
}

impl Command for GetInfo {
    const OPCODE: u16 = 0x5600;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Info;

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Info, ReturnCode> {
        let regions = memdev.dynamic_regions().iter().enumerate();
        let regions = regions
            .map(|(index, region)| (region.len, memdev.block_sizes(index)))
            .collect();
        Ok(Info { regions })
    }
}

/// Get Host DC Region Configuration (section 7.6.7.6.2).
pub(super) struct GetConfiguration;

pub(super) struct ConfigurationRequest {
    host: u16,
    count: u8,
    start: u8,
}

impl Request for ConfigurationRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let host = input.u16()?;
        let [count, start] = input.array()?;
        Some(Self { host, count, start })
    }
}

pub(super) struct Configuration {
    host: u16,
    total: u8,
    regions: Vec<DynamicRegion>,
    extents_left: u32,
}

impl Reply for Configuration {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.host.to_le_bytes());
        output.extend([self.total, self.regions.len() as u8]);
        for region in &self.regions {
            // Its attributes, of which it has none.
            encode_region(region, 0, output);
        }
        encode_limits(self.extents_left, output);
    }
}

impl Command for GetConfiguration {
    const OPCODE: u16 = 0x5601;
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
        check_host(memdev, request.host)?;
        Ok(Configuration {
            host: request.host,
            total: memdev.dynamic_regions().len() as u8,
            regions: memdev.list_regions(request.start, request.count)?,
            extents_left: memdev.extents_left() as u32,
        })
    }
}

/// Set DC Region Configuration (section 7.6.7.6.3), of a region without extents.
pub(super) struct SetConfiguration;

pub(super) struct RegionSettings {
    region: u8,
    block_size: u64,
    sanitizes: bool,
}

impl Request for RegionSettings {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [region, _, _, _] = input.array()?;
        let block_size = input.u64()?;
        let [flags, _, _, _] = input.array()?;
        Some(Self {
            region,
            block_size,
            sanitizes: flags & 1 != 0,
        })
    }
}

impl Command for SetConfiguration {
    const OPCODE: u16 = 0x5602;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_CONFIGURATION;
    type Request = RegionSettings;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: RegionSettings,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if !request.sanitizes {
            return Err(ReturnCode::InvalidInput);
        }
        memdev.set_block_size(request.region, request.block_size, effects)
    }
}

/// Get DC Region Extent Lists (section 7.6.7.6.4).
pub(super) struct GetExtentLists;

pub(super) struct ExtentListRequest {
    host: u16,
    count: u32,
    start: u32,
}

impl Request for ExtentListRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let host = input.u16()?;
        let _reserved = input.u16()?;
        Some(Self {
            host,
            count: input.u32()?,
            start: input.u32()?,
        })
    }
}

pub(super) struct ExtentList {
    host: u16,
    start: u32,
    total: u32,
    generation: u32,
    extents: Vec<Extent>,
}

impl ExtentList {
    const HEADER_LEN: usize = 24;
    /// Bytes of the messages that a list comes in, one in the other: of two tunnels, and its own.
    const MESSAGES: usize = 48;
    /// So many extents fit.
    const MAX: usize = (PAYLOAD_SIZE - Self::MESSAGES - Self::HEADER_LEN) / EXTENT_LEN;
}

impl Reply for ExtentList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.host.to_le_bytes());
        output.extend([0; 2]);
        output.extend(self.start.to_le_bytes());
        output.extend((self.extents.len() as u32).to_le_bytes());
        output.extend(self.total.to_le_bytes());
        output.extend(self.generation.to_le_bytes());
        output.extend([0; 4]);
        for extent in &self.extents {
            encode_extent(extent, output);
        }
    }
}

impl Command for GetExtentLists {
    const OPCODE: u16 = 0x5603;
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
        check_host(memdev, request.host)?;
        Ok(ExtentList {
            host: request.host,
            start: request.start,
            total: memdev.extents().len() as u32,
            generation: memdev.extents_generation(),
            extents: memdev.list_extents(request.start, request.count, ExtentList::MAX)?,
        })
    }
}

/// What is to be added, or released.
pub(super) struct Change {
    host: u16,
    /// Selection policy, or flags with the removal policy.
    policy: u8,
    region: u8,
    len: u64,
    tag: [u8; 16],
    extents: Vec<Extent>,
}

impl Request for Change {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let host = input.u16()?;
        let [policy, region] = input.array()?;
        let (len, tag) = (input.u64()?, input.array()?);
        let count = input.u32()?;
        // A count beyond the payload ends with its first missing extent.
        let extents = (0..count).map(|_| decode_extent(input));
        Some(Self {
            host,
            policy,
            region,
            len,
            tag,
            extents: extents.collect::<Option<_>>()?,
        })
    }
}

/// Initiate Dynamic Capacity Add (section 7.6.7.6.5): the host hears of an offer.
pub(super) struct InitiateAdd;

impl Command for InitiateAdd {
    const OPCODE: u16 = 0x5604;
    const EFFECTS: CommandEffects = CHANGES;
    type Request = Change;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: Change,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        check_host(memdev, request.host)?;
        let policy = Selection::of(request.policy & Selection::MASK);
        let extents = match policy.ok_or(ReturnCode::InvalidInput)? {
            Selection::Prescriptive => request.extents,
            policy => {
                let Change {
                    region, len, tag, ..
                } = request;
                let whole = policy == Selection::Contiguous;
                memdev.free_extents(region, len, tag, whole)?
            }
        };
        memdev.offer_extents(&extents, effects)
    }
}

/// Initiate Dynamic Capacity Release (section 7.6.7.6.6): the host is asked, or loses it.
pub(super) struct InitiateRelease;

impl Command for InitiateRelease {
    const OPCODE: u16 = 0x5605;
    const EFFECTS: CommandEffects = CHANGES;
    type Request = Change;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_regions(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: Change,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        check_host(memdev, request.host)?;
        let flags = request.policy;
        if flags & !(Removal::MASK | Removal::FORCED | Removal::SANITIZE) != 0 {
            return Err(ReturnCode::InvalidInput);
        }
        let policy = Removal::of(flags & Removal::MASK);
        let extents = match policy.ok_or(ReturnCode::InvalidInput)? {
            Removal::Prescriptive => request.extents,
            Removal::TagBased => memdev.tagged_extents(request.tag, request.len)?,
        };
        memdev.reclaim_extents(&extents, flags & Removal::FORCED != 0, effects)
    }
}

#[cfg(test)]
#[path = "dynamic_capacity_tests.rs"]
mod tests;
