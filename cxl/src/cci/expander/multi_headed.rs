//! Multi-Headed Devices command set (section 7.6.7.5), opcodes 0x5500 and 0x5501.

use super::logical_devices::ListRequest;
use crate::Effect;
use crate::cci::LinkState;
use crate::mailbox::{Command, CommandEffects, Reply, ReturnCode};
use crate::memdev::Memdev;
use crate::memdev::fabric::Sharing;

/// Heads, which of them is this host's, and its link.
fn heads(memdev: &Memdev) -> Result<(u8, u8, LinkState), ReturnCode> {
    match memdev.sharing() {
        Sharing::Heads { count, own, link } => Ok((count, own, link)),
        // Only a device with heads has a pool that could be asked.
        Sharing::None | Sharing::LogicalDevices { .. } => Err(ReturnCode::InternalError),
    }
}

/// Get Multi-Headed Info (section 7.6.7.5.1).
pub(super) struct GetMultiHeadedInfo;

pub(super) struct MultiHeadedInfo {
    heads: u8,
    start: u8,
    /// The head that each logical device is at.
    map: Vec<u8>,
}

impl Reply for MultiHeadedInfo {
    fn encode(&self, output: &mut Vec<u8>) {
        let logical_devices = self.heads;
        output.extend([logical_devices, self.heads, 0, 0]);
        output.extend([self.start, self.map.len() as u8, 0, 0]);
        output.extend(&self.map);
    }
}

impl Command for GetMultiHeadedInfo {
    const OPCODE: u16 = 0x5500;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ListRequest;
    type Reply = MultiHeadedInfo;

    fn run(
        memdev: &mut Memdev,
        request: ListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<MultiHeadedInfo, ReturnCode> {
        let (heads, _, _) = heads(memdev)?;
        let which = request.of(heads.into())?;
        Ok(MultiHeadedInfo {
            heads,
            start: request.start,
            map: which.map(|ld| ld as u8).collect(),
        })
    }
}

/// Get Head Info (section 7.6.7.5.2).
pub(super) struct GetHeadInfo;

/// Heads from a first one on, with their links.
pub(super) struct HeadInfo(Vec<(u8, LinkState)>);

impl Reply for HeadInfo {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.0.len() as u8, 0, 0, 0]);
        for (head, link) in &self.0 {
            output.push(*head);
            link.encode(output);
            output.push(link.flags());
        }
    }
}

impl Command for GetHeadInfo {
    const OPCODE: u16 = 0x5501;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ListRequest;
    type Reply = HeadInfo;

    fn run(
        memdev: &mut Memdev,
        request: ListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<HeadInfo, ReturnCode> {
        let (heads, own, link) = heads(memdev)?;
        // Whoever is at the other heads is not in this machine: their links are down.
        let others = LinkState {
            max_width: link.max_width,
            max_speed: link.max_speed,
            ..LinkState::default()
        };
        let which = request.of(heads.into())?.map(|head| head as u8);
        let of_head = |head: u8| (head, if head == own { link } else { others });
        Ok(HeadInfo(which.map(of_head).collect()))
    }
}
