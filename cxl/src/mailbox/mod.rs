//! Mailbox commands of a memory device (section 8.2.9): what each takes, does and answers.
//!
//! A command is a type with an opcode, effects, a request and a reply. The table lists
//! them; [`dispatch`] finds a command, decodes its request and runs it. The Command Effects Log that
//! tells the host what the device can do is made from the same table.

mod alert;
mod background;
pub(crate) mod dynamic;
pub(crate) mod events;
mod features;
mod firmware;
mod health;
mod identify;
mod labels;
pub(crate) mod logs;
mod maintenance;
mod media_operations;
mod partition;
mod poison;
mod sanitize;
mod scan;
mod security;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod timestamp;
pub mod vendor;
mod wire;

pub use wire::{Input, Reply, Request};

use crate::Effect;
use crate::cci::TunnelToPool;
use crate::memdev::Memdev;
use crate::memdev::background::Operation;

/// Bytes of the largest payload.
pub const PAYLOAD_SIZE: usize = 2048;

/// Return codes (table 8-34). Software has a table of these: no other may be returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ReturnCode {
    /// The command completed.
    Success = 0x00,
    /// The command goes on in the background.
    BackgroundStarted = 0x01,
    /// A field of the request is out of its range.
    InvalidInput = 0x02,
    /// The device has no such command.
    Unsupported = 0x03,
    /// The device failed in a way of its own.
    InternalError = 0x04,
    /// The command may work if it is tried again.
    RetryRequired = 0x05,
    /// A background operation runs, and there can be no second one.
    Busy = 0x06,
    /// The media is being sanitized.
    MediaDisabled = 0x07,
    /// A transfer of firmware was begun already.
    FirmwareTransferInProgress = 0x08,
    /// A part of firmware is not the next one.
    FirmwareTransferOutOfOrder = 0x09,
    /// The firmware is none for this device.
    FirmwareAuthenticationFailed = 0x0a,
    /// The slot is not there, empty, or must not be written.
    InvalidFirmwareSlot = 0x0b,
    /// The firmware failed, and the one before it runs again.
    FirmwareRolledBack = 0x0c,
    /// The firmware cannot be activated without a cold reset.
    FirmwareNeedsColdReset = 0x0d,
    /// The handle is not that of the oldest record.
    InvalidHandle = 0x0e,
    /// The device has no such address.
    InvalidPhysicalAddress = 0x0f,
    /// No more poison can be injected before some is cleared.
    InjectPoisonLimitReached = 0x10,
    /// The media has an error that cannot be corrected.
    MediaFailure = 0x11,
    /// The host aborted the operation.
    Aborted = 0x12,
    /// The device is locked, frozen or locked out, or is not.
    IncorrectSecurityState = 0x13,
    /// The passphrase is wrong.
    IncorrectPassphrase = 0x14,
    /// Another mailbox has the command.
    UnsupportedMailbox = 0x15,
    /// The input payload is not as long as the command's.
    InvalidPayloadLength = 0x16,
    /// The device has no such log.
    InvalidLog = 0x17,
    /// Something asynchronous interrupted the command.
    Interrupted = 0x18,
    /// The feature has no such version.
    InvalidFeatureVersion = 0x19,
    /// A feature has no such selection of values.
    InvalidFeatureSelection = 0x1a,
    /// A transfer of a feature's values was begun already.
    FeatureTransferInProgress = 0x1b,
    /// A part of a feature's values is not the next one.
    FeatureTransferOutOfOrder = 0x1c,
    /// The device has nothing left of what the command needs.
    ResourcesExhausted = 0x1d,
    /// Extents of a list overlap.
    InvalidExtentList = 0x1e,
}

impl ReturnCode {
    /// Every code that says that a command failed.
    const ERRORS: [Self; 29] = [
        Self::InvalidInput,
        Self::Unsupported,
        Self::InternalError,
        Self::RetryRequired,
        Self::Busy,
        Self::MediaDisabled,
        Self::FirmwareTransferInProgress,
        Self::FirmwareTransferOutOfOrder,
        Self::FirmwareAuthenticationFailed,
        Self::InvalidFirmwareSlot,
        Self::FirmwareRolledBack,
        Self::FirmwareNeedsColdReset,
        Self::InvalidHandle,
        Self::InvalidPhysicalAddress,
        Self::InjectPoisonLimitReached,
        Self::MediaFailure,
        Self::Aborted,
        Self::IncorrectSecurityState,
        Self::IncorrectPassphrase,
        Self::UnsupportedMailbox,
        Self::InvalidPayloadLength,
        Self::InvalidLog,
        Self::Interrupted,
        Self::InvalidFeatureVersion,
        Self::InvalidFeatureSelection,
        Self::FeatureTransferInProgress,
        Self::FeatureTransferOutOfOrder,
        Self::ResourcesExhausted,
        Self::InvalidExtentList,
    ];

    /// The error with this code.
    fn error(code: u16) -> Option<Self> {
        Self::ERRORS.into_iter().find(|error| *error as u16 == code)
    }
}

/// What a command changes: its entry in the Command Effects Log (section 8.2.9.5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandEffects(u16);

impl CommandEffects {
    /// It only reads.
    pub const NONE: Self = Self(0);
    /// Configuration, from the next cold reset on.
    pub const CONFIGURATION_AFTER_COLD_RESET: Self = Self(1 << 0);
    /// Configuration, at once.
    pub const IMMEDIATE_CONFIGURATION: Self = Self(1 << 1);
    /// Data, at once.
    pub const IMMEDIATE_DATA: Self = Self(1 << 2);
    /// Policy, at once.
    pub const IMMEDIATE_POLICY: Self = Self(1 << 3);
    /// A log, at once.
    pub const IMMEDIATE_LOG: Self = Self(1 << 4);
    /// The security state, at once.
    pub const SECURITY_STATE: Self = Self(1 << 5);
    /// It goes on in the background.
    pub(crate) const BACKGROUND: Self = Self(1 << 6);
    /// Request Abort Background Operation ends it.
    pub const ABORTABLE: Self = Self(1 << 8);

    /// These effects, and `others`.
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// A command of a component: of a memory device, unless it says otherwise.
pub trait Command<D = Memdev> {
    /// Command set and command.
    const OPCODE: u16;
    /// What it changes.
    const EFFECTS: CommandEffects;
    /// Its input payload.
    type Request: Request;
    /// Its output payload.
    type Reply: Reply;
    /// It reads or changes what the host stored.
    const NEEDS_MEDIA: bool = false;

    /// True if this device has the command.
    fn is_supported(_device: &D) -> bool {
        true
    }

    /// Does it.
    fn run(
        device: &mut D,
        request: Self::Request,
        effects: &mut Vec<Effect>,
    ) -> Result<Self::Reply, ReturnCode>;
}

/// A mailbox command that takes time, or can.
trait BackgroundCommand {
    /// Command set and command.
    const OPCODE: u16;
    /// What it changes.
    const EFFECTS: CommandEffects;
    /// Its input payload.
    type Request: Request;
    /// Its output payload, where it does not take time.
    type Reply: Reply;
    /// It reads or changes what the host stored.
    const NEEDS_MEDIA: bool = false;

    /// True if this device has the command.
    fn is_supported(_memdev: &Memdev) -> bool {
        true
    }

    /// Does it, or says what is to be done in the background and does nothing.
    fn start(
        memdev: &mut Memdev,
        request: Self::Request,
        effects: &mut Vec<Effect>,
    ) -> Result<Start<Self::Reply>, ReturnCode>;
}

/// How a [`BackgroundCommand`] begins.
enum Start<R> {
    /// It is done.
    Done(R),
    /// It takes time.
    Background(Operation),
}

/// Decodes an input payload, runs a command and encodes its output payload.
type Handler<D> = fn(&mut D, &[u8], &mut Vec<Effect>) -> Result<Vec<u8>, ReturnCode>;

/// A command in the table of a component.
pub struct Entry<D = Memdev> {
    opcode: u16,
    effects: CommandEffects,
    needs_media: bool,
    is_supported: fn(&D) -> bool,
    run: Handler<D>,
}

impl<D> Entry<D> {
    /// The command of this type.
    pub const fn of<C: Command<D>>() -> Self {
        Self {
            opcode: C::OPCODE,
            effects: C::EFFECTS,
            needs_media: C::NEEDS_MEDIA,
            is_supported: C::is_supported,
            run: run::<D, C>,
        }
    }

    /// Its opcode.
    pub const fn opcode(&self) -> u16 {
        self.opcode
    }
}

impl Entry {
    const fn in_background<C: BackgroundCommand>() -> Self {
        Self {
            opcode: C::OPCODE,
            effects: C::EFFECTS.and(CommandEffects::BACKGROUND),
            needs_media: C::NEEDS_MEDIA,
            is_supported: C::is_supported,
            run: start::<C>,
        }
    }
}

/// Every command there is, by opcode.
static COMMANDS: [Entry; 50] = [
    Entry::of::<background::RequestAbort>(),
    Entry::of::<events::GetEventRecords>(),
    Entry::of::<events::ClearEventRecords>(),
    Entry::of::<events::GetInterruptPolicy>(),
    Entry::of::<events::SetInterruptPolicy>(),
    Entry::of::<firmware::GetFirmwareInfo>(),
    Entry::in_background::<firmware::TransferFirmware>(),
    Entry::in_background::<firmware::ActivateFirmware>(),
    Entry::of::<timestamp::GetTimestamp>(),
    Entry::of::<timestamp::SetTimestamp>(),
    Entry::of::<logs::GetSupportedLogs>(),
    Entry::of::<logs::GetLog>(),
    Entry::of::<logs::GetLogCapabilities>(),
    Entry::of::<logs::ClearLog>(),
    Entry::in_background::<logs::PopulateLog>(),
    Entry::of::<logs::GetSupportedLogsSubList>(),
    Entry::of::<features::GetSupportedFeatures>(),
    Entry::of::<features::GetFeature>(),
    Entry::of::<features::SetFeature>(),
    Entry::in_background::<maintenance::PerformMaintenance>(),
    Entry::of::<identify::Identify>(),
    Entry::of::<partition::GetPartitionInfo>(),
    Entry::of::<partition::SetPartitionInfo>(),
    Entry::of::<labels::GetLsa>(),
    Entry::of::<labels::SetLsa>(),
    Entry::of::<health::GetHealthInfo>(),
    Entry::of::<alert::GetAlertConfiguration>(),
    Entry::of::<alert::SetAlertConfiguration>(),
    Entry::of::<health::GetShutdownState>(),
    Entry::of::<health::SetShutdownState>(),
    Entry::of::<poison::GetPoisonList>(),
    Entry::of::<poison::InjectPoison>(),
    Entry::of::<poison::ClearPoison>(),
    Entry::of::<scan::GetScanMediaCapabilities>(),
    Entry::in_background::<scan::ScanMedia>(),
    Entry::of::<scan::GetScanMediaResults>(),
    Entry::in_background::<sanitize::Sanitize>(),
    Entry::of::<sanitize::SecureErase>(),
    Entry::in_background::<media_operations::MediaOperations>(),
    Entry::of::<security::GetSecurityState>(),
    Entry::of::<security::SetPassphrase>(),
    Entry::of::<security::DisablePassphrase>(),
    Entry::of::<security::Unlock>(),
    Entry::of::<security::FreezeSecurityState>(),
    Entry::of::<security::PassphraseSecureErase>(),
    Entry::of::<dynamic::GetConfiguration>(),
    Entry::of::<dynamic::GetExtentList>(),
    Entry::of::<dynamic::AddResponse>(),
    Entry::of::<dynamic::Release>(),
    Entry::of::<TunnelToPool>(),
];

/// Runs the command with this opcode and input payload; gives its output payload, or the code that it returned instead:
/// [`ReturnCode::BackgroundStarted`] if it goes on.
pub fn dispatch(
    memdev: &mut Memdev,
    opcode: u16,
    input: &[u8],
    effects: &mut Vec<Effect>,
) -> Result<Vec<u8>, ReturnCode> {
    /// The command set whose use is not worth a note in the debug log, which is read with it.
    const LOGS: u16 = 0x04;
    let result = execute(memdev, opcode, input, effects);
    if opcode >> 8 != LOGS {
        let code = result.as_ref().err().copied();
        memdev.note_command(opcode, code.unwrap_or(ReturnCode::Success), input.len());
    }
    result
}

fn execute(
    memdev: &mut Memdev,
    opcode: u16,
    input: &[u8],
    effects: &mut Vec<Effect>,
) -> Result<Vec<u8>, ReturnCode> {
    let entry = find(memdev, commands(memdev), opcode)?;
    if let Some(code) = memdev.take_failure() {
        return Err(code);
    }
    if entry.needs_media && memdev.is_media_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    (entry.run)(memdev, input, effects)
}

/// What only reads, and keeps nothing in mind between two calls: what another may ask while the host uses the mailbox.
const HARMLESS: [u16; 8] = [
    0x0200, 0x0300, 0x4000, 0x4100, 0x4200, 0x4201, 0x4203, 0x4500,
];

/// The commands that are of the device and not of the mailbox, and disturb nobody.
pub(crate) fn harmless_commands() -> impl Iterator<Item = &'static Entry> {
    let harmless = |entry: &&Entry| HARMLESS.contains(&entry.opcode);
    COMMANDS.iter().filter(harmless)
}

/// Runs a command of a component that has these and no others.
pub(crate) fn run_one_of<D: 'static>(
    device: &mut D,
    entries: impl Iterator<Item = &'static Entry<D>>,
    opcode: u16,
    input: &[u8],
    effects: &mut Vec<Effect>,
) -> Result<Vec<u8>, ReturnCode> {
    let entry = find(device, entries, opcode)?;
    (entry.run)(device, input, effects)
}

fn find<D: 'static>(
    device: &D,
    mut entries: impl Iterator<Item = &'static Entry<D>>,
    opcode: u16,
) -> Result<&'static Entry<D>, ReturnCode> {
    entries
        .find(|entry| entry.opcode == opcode && (entry.is_supported)(device))
        .ok_or(ReturnCode::Unsupported)
}

fn decode<R: Request>(input: &[u8]) -> Result<R, ReturnCode> {
    let mut input = Input::new(input);
    R::decode(&mut input)
        .filter(|_| input.is_empty())
        .ok_or(ReturnCode::InvalidPayloadLength)
}

fn encode(reply: &impl Reply) -> Vec<u8> {
    let mut output = Vec::new();
    reply.encode(&mut output);
    output
}

fn run<D, C: Command<D>>(
    device: &mut D,
    input: &[u8],
    effects: &mut Vec<Effect>,
) -> Result<Vec<u8>, ReturnCode> {
    Ok(encode(&C::run(device, decode(input)?, effects)?))
}

fn start<C: BackgroundCommand>(
    memdev: &mut Memdev,
    input: &[u8],
    effects: &mut Vec<Effect>,
) -> Result<Vec<u8>, ReturnCode> {
    let operation = match C::start(memdev, decode(input)?, effects)? {
        Start::Done(reply) => return Ok(encode(&reply)),
        Start::Background(operation) => operation,
    };
    if memdev.is_background_running() {
        return Err(ReturnCode::Busy);
    }
    let abortable = C::EFFECTS.contain(CommandEffects::ABORTABLE);
    memdev.start_background(C::OPCODE, abortable, operation, effects);
    Err(ReturnCode::BackgroundStarted)
}

/// The standard commands, and those of this device's vendor.
fn commands(memdev: &Memdev) -> impl Iterator<Item = &'static Entry> {
    COMMANDS.iter().chain(memdev.vendor_commands())
}

/// The Command Effects Log: opcode and effects of every command the device has.
fn command_effects_log(memdev: &Memdev) -> Vec<u8> {
    effects_log(memdev, commands(memdev))
}

/// The Command Effects Log of a component with these commands.
pub(crate) fn effects_log<D: 'static>(
    device: &D,
    entries: impl Iterator<Item = &'static Entry<D>>,
) -> Vec<u8> {
    entries
        .filter(|entry| (entry.is_supported)(device))
        .flat_map(|entry| [entry.opcode, entry.effects.bits()])
        .flat_map(u16::to_le_bytes)
        .collect()
}
