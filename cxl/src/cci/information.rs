//! Information and Status command set (section 8.2.9.1), opcodes 0x0001 to 0x0004, of interfaces that are no memory device's
//! mailbox.

use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};
use crate::memdev::BackgroundStatus;

/// What a component is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// PCI subsystem vendor id; 0: it has none.
    pub subsystem_vendor: u16,
    /// PCI subsystem id; 0: it has none.
    pub subsystem: u16,
    /// Device serial number; 0: it has none.
    pub serial: u64,
}

/// A component that says what it is and what it does.
pub(super) trait Component {
    /// Component type (table 8-38).
    const TYPE: u8;

    fn identity(&self) -> Identity;

    /// What runs in the background, and whether it does.
    fn background(&self) -> (bool, BackgroundStatus);
}

/// The longest message, as a power of two.
const MAX_MESSAGE: u8 = PAYLOAD_SIZE.trailing_zeros() as u8;
/// The shortest that a component may be limited to.
const MIN_MESSAGE: u8 = 8;

/// Identify (section 8.2.9.1.1).
pub(super) struct Identify;

pub(super) struct IdentifyReply {
    identity: Identity,
    component: u8,
}

impl Reply for IdentifyReply {
    fn encode(&self, output: &mut Vec<u8>) {
        let identity = &self.identity;
        for id in [
            identity.vendor,
            identity.device,
            identity.subsystem_vendor,
            identity.subsystem,
        ] {
            output.extend(id.to_le_bytes());
        }
        output.extend(identity.serial.to_le_bytes());
        output.extend([MAX_MESSAGE, self.component]);
    }
}

impl<D: Component> Command<D> for Identify {
    const OPCODE: u16 = 0x0001;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = IdentifyReply;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<IdentifyReply, ReturnCode> {
        Ok(IdentifyReply {
            identity: device.identity(),
            component: D::TYPE,
        })
    }
}

/// Background Operation Status (section 8.2.9.1.2).
pub(super) struct BackgroundOperationStatus;

pub(super) struct StatusReply {
    is_running: bool,
    status: BackgroundStatus,
}

impl Reply for StatusReply {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([u8::from(self.is_running) | self.status.percent << 1, 0]);
        output.extend(self.status.opcode.to_le_bytes());
        output.extend(self.status.return_code.to_le_bytes());
        output.extend([0; 2]);
    }
}

impl<D: Component> Command<D> for BackgroundOperationStatus {
    const OPCODE: u16 = 0x0002;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = StatusReply;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<StatusReply, ReturnCode> {
        let (is_running, status) = device.background();
        Ok(StatusReply { is_running, status })
    }
}

/// A component whose answers can be limited in length.
pub(super) trait Limited {
    /// The longest answer, as a power of two.
    fn response_limit(&mut self) -> &mut u8;
}

/// What a component's answers are limited to at first.
pub(super) const NO_LIMIT: u8 = MAX_MESSAGE;

/// A length as a power of two.
pub(super) struct Limit(u8);

impl Reply for Limit {
    fn encode(&self, output: &mut Vec<u8>) {
        output.push(self.0);
    }
}

impl Request for Limit {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.u8()?))
    }
}

/// Get Response Message Limit (section 8.2.9.1.3).
pub(super) struct GetResponseLimit;

impl<D: Limited> Command<D> for GetResponseLimit {
    const OPCODE: u16 = 0x0003;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Limit;

    fn run(device: &mut D, _: (), _: &mut Vec<Effect>) -> Result<Limit, ReturnCode> {
        Ok(Limit(*device.response_limit()))
    }
}

/// Set Response Message Limit (section 8.2.9.1.4).
pub(super) struct SetResponseLimit;

impl<D: Limited> Command<D> for SetResponseLimit {
    const OPCODE: u16 = 0x0004;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_CONFIGURATION;
    type Request = Limit;
    type Reply = Limit;

    fn run(device: &mut D, Limit(limit): Limit, _: &mut Vec<Effect>) -> Result<Limit, ReturnCode> {
        if !(MIN_MESSAGE..=MAX_MESSAGE).contains(&limit) {
            return Err(ReturnCode::InvalidInput);
        }
        *device.response_limit() = limit;
        Ok(Limit(limit))
    }
}
