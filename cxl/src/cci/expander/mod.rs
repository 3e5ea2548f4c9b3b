//! The interfaces of a memory device for its fabric manager.
//!
//! A device with one logical device has the commands of [`Single`], each of several those of [`Own`]. Several behind one
//! port belong to the fabric manager's logical device, FFFFh, with those of [`FmOwned`], which passes messages on; several
//! heads have a pool in common, with those of [`Pool`].

mod dynamic_capacity;
mod logical_devices;
mod multi_headed;

use super::CommandSet;
use super::information::{BackgroundOperationStatus, Component, Identify, Identity};
use super::logs::{GetLog, GetSupportedLogs};
use super::message::Message;
use super::tunnel::{self, Target, TunnelReply, TunnelRequest};
use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Entry, ReturnCode, harmless_commands, run_one_of};
use crate::memdev::fabric::Sharing;
use crate::memdev::{BackgroundStatus, Memdev};
use dynamic_capacity as dc;
use logical_devices as ld;
use multi_headed::{GetHeadInfo, GetMultiHeadedInfo};

impl Component for Memdev {
    const TYPE: u8 = 3;

    fn identity(&self) -> Identity {
        self.config().identity
    }

    fn background(&self) -> (bool, BackgroundStatus) {
        (self.is_background_running(), self.background_status())
    }
}

/// A device of one logical device.
struct Single;

impl CommandSet<Memdev> for Single {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry>> {
        static ENTRIES: [Entry; 5] = [
            Entry::of::<Identify>(),
            Entry::of::<BackgroundOperationStatus>(),
            Entry::of::<GetSupportedLogs<Single>>(),
            Entry::of::<GetLog<Single>>(),
            Entry::of::<TunnelToPool>(),
        ];
        Box::new(
            ENTRIES
                .iter()
                .chain(&dc::ENTRIES)
                .chain(harmless_commands()),
        )
    }
}

/// One of several logical devices.
struct Own;

impl CommandSet<Memdev> for Own {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry>> {
        static ENTRIES: [Entry; 4] = [
            Entry::of::<Identify>(),
            Entry::of::<BackgroundOperationStatus>(),
            Entry::of::<GetSupportedLogs<Own>>(),
            Entry::of::<GetLog<Own>>(),
        ];
        Box::new(ENTRIES.iter().chain(harmless_commands()))
    }
}

/// The logical device that is the fabric manager's.
struct FmOwned;

impl CommandSet<Memdev> for FmOwned {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry>> {
        static ENTRIES: [Entry; 15] = [
            Entry::of::<Identify>(),
            Entry::of::<BackgroundOperationStatus>(),
            Entry::of::<GetSupportedLogs<FmOwned>>(),
            Entry::of::<GetLog<FmOwned>>(),
            Entry::of::<TunnelToLogicalDevice>(),
            Entry::of::<ld::GetInfo>(),
            Entry::of::<ld::GetAllocations>(),
            Entry::of::<ld::SetAllocations>(),
            Entry::of::<ld::GetQosControl>(),
            Entry::of::<ld::SetQosControl>(),
            Entry::of::<ld::GetQosStatus>(),
            Entry::of::<ld::GetBandwidth<ld::Allocated>>(),
            Entry::of::<ld::SetBandwidth<ld::Allocated>>(),
            Entry::of::<ld::GetBandwidth<ld::Limit>>(),
            Entry::of::<ld::SetBandwidth<ld::Limit>>(),
        ];
        Box::new(ENTRIES.iter().chain(&dc::ENTRIES))
    }
}

/// What the heads of a device have in common.
struct Pool;

impl CommandSet<Memdev> for Pool {
    fn entries() -> Box<dyn Iterator<Item = &'static Entry>> {
        static ENTRIES: [Entry; 5] = [
            Entry::of::<Identify>(),
            Entry::of::<GetSupportedLogs<Pool>>(),
            Entry::of::<GetLog<Pool>>(),
            Entry::of::<GetMultiHeadedInfo>(),
            Entry::of::<GetHeadInfo>(),
        ];
        Box::new(ENTRIES.iter())
    }
}

impl Memdev {
    /// Takes a message of the fabric manager's, and answers it.
    ///
    /// # Errors
    /// It is no request.
    pub fn receive(
        &mut self,
        message: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<u8>, ReturnCode> {
        let request = Message::request_from(message)?;
        let answer = match self.sharing() {
            Sharing::LogicalDevices { .. } => self.answer::<FmOwned>(&request, effects),
            Sharing::None | Sharing::Heads { .. } => self.answer::<Single>(&request, effects),
        };
        Ok(answer.to_bytes())
    }

    fn answer<S: CommandSet<Self>>(
        &mut self,
        request: &Message,
        effects: &mut Vec<Effect>,
    ) -> Message {
        let input = &request.payload;
        request.answer(run_one_of(
            self,
            S::entries(),
            request.opcode,
            input,
            effects,
        ))
    }
}

/// Tunnel Management Command from a head to the pool (section 7.6.7.3.1).
pub(crate) struct TunnelToPool;

impl Command for TunnelToPool {
    const OPCODE: u16 = tunnel::OPCODE;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = TunnelRequest;
    type Reply = TunnelReply;

    fn is_supported(memdev: &Memdev) -> bool {
        matches!(memdev.sharing(), Sharing::Heads { .. })
    }

    fn run(
        memdev: &mut Memdev,
        request: TunnelRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<TunnelReply, ReturnCode> {
        match request.open()? {
            (Target::Pool, message) => TunnelReply::of(&memdev.answer::<Pool>(&message, effects)),
            (Target::Number(_), _) => Err(ReturnCode::InvalidInput),
        }
    }
}

/// Tunnel Management Command from the fabric manager's logical device to another (section 7.6.7.3.1). Only this host's is
/// there to answer.
struct TunnelToLogicalDevice;

impl Command for TunnelToLogicalDevice {
    const OPCODE: u16 = tunnel::OPCODE;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = TunnelRequest;
    type Reply = TunnelReply;

    fn run(
        memdev: &mut Memdev,
        request: TunnelRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<TunnelReply, ReturnCode> {
        let (_, own) = memdev.sharing().logical_devices();
        let (target, message) = request.open()?;
        if target != Target::Number(own) {
            return Err(ReturnCode::InvalidInput);
        }
        TunnelReply::of(&memdev.answer::<Own>(&message, effects))
    }
}

#[cfg(test)]
mod tests;
