//! Dynamic capacity, as a fabric manager gives it and asks for it (section 7.6.7.6).

use super::{Client, capacity};
use crate::interface::{INVALID_INPUT, field};
use anyhow::{Result, ensure};

const GET_DCD_INFO: u16 = 0x5600;
const GET_HOST_DC_REGION_CONFIG: u16 = 0x5601;
const SET_DC_REGION_CONFIG: u16 = 0x5602;
const GET_DC_REGION_EXTENT_LIST: u16 = 0x5603;
const INITIATE_DC_ADD: u16 = 0x5604;
const INITIATE_DC_RELEASE: u16 = 0x5605;

/// The device has no such address, or the host does not have what is there.
const INVALID_ADDRESS: u16 = 0x0f;
/// Policies: the device chooses what to add, in one piece; what is to be released is listed, or has a tag.
const CONTIGUOUS: u8 = 1;
const LISTED: u8 = 1;
const BY_TAG: u8 = 0;

/// The regions of a device that has them, and an offer of a block of the first. Linux answers no offers.
pub(super) fn dynamic_capacity(client: &Client<'_>, host: u8) -> Result<()> {
    if !client.has(GET_DCD_INFO) {
        return Ok(());
    }
    let info = client.ask_for(GET_DCD_INFO, &[], 84)?;
    let (count, all) = (info[1], capacity(&info, 12)?);
    let regions = usize::from(count);
    let configuration = client.ask_for(
        GET_HOST_DC_REGION_CONFIG,
        &[host, 0, 8, 0],
        4 + 40 * regions + 16,
    )?;
    let number = |region: usize, at: usize| field(&configuration, 4 + 40 * region + at, 8);
    let lens: Result<Vec<u64>> = (0..regions).map(|region| number(region, 16)).collect();
    ensure!(lens?.iter().sum::<u64>() == all, "regions of {all} bytes");
    let (base, block) = (number(0, 0)?, number(0, 24)?);
    ensure!(
        field(&info, 20, 8)? & block != 0,
        "blocks of a size that they cannot have: {block}"
    );
    let set = |region: u8| [&[region, 0, 0, 0][..], &block.to_le_bytes(), &[1, 0, 0, 0]].concat();
    client.tell(SET_DC_REGION_CONFIG, &set(0))?;
    client.refused(SET_DC_REGION_CONFIG, &set(count), INVALID_INPUT)?;

    let add = |bytes| change(host, CONTIGUOUS, bytes, &[]);
    client.refused(INITIATE_DC_ADD, &add(block + 1), INVALID_INPUT)?;
    client.tell(INITIATE_DC_ADD, &add(block))?;
    // An offer is not the host's yet.
    let extents = [&[host, 0, 0, 0, 8][..], &[0; 7]].concat();
    let list = client.ask_for(GET_DC_REGION_EXTENT_LIST, &extents, 24)?;
    ensure!(field(&list, 12, 4)? == 0, "extents of a host that has none");
    let release = change(host, LISTED, 0, &[(base, block)]);
    client.refused(INITIATE_DC_RELEASE, &release, INVALID_ADDRESS)?;
    let by_tag = change(host, BY_TAG, block, &[]);
    client.refused(INITIATE_DC_RELEASE, &by_tag, INVALID_INPUT)
}

/// What is to be added or released, with a tag of zeroes: policy, bytes where the device chooses, or a list of address and bytes.
fn change(host: u8, policy: u8, bytes: u64, extents: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = vec![host, 0, policy, 0];
    payload.extend(bytes.to_le_bytes());
    payload.extend([0; 16]);
    payload.extend((extents.len() as u32).to_le_bytes());
    for (dpa, len) in extents {
        payload.extend(dpa.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend([0; 24]);
    }
    payload
}
