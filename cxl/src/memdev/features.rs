//! Features: settings that the host finds by UUID (sections 8.2.9.6, 8.2.9.7.2 and 8.2.9.9.11).
//!
//! What the host writes of a feature is a few bytes; what it reads is made from them. There are three selections: the
//! current bytes, the default ones, and those that become current again after a reset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Memdev;
use super::repair::Repair;
use crate::Effect;
use crate::mailbox::{CommandEffects, ReturnCode};

/// The features of a device, in the order of their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Device patrol scrub control (section 8.2.9.9.11.1).
    PatrolScrub,
    /// DDR5 error check scrub control (section 8.2.9.9.11.2).
    ErrorCheckScrub,
    /// Soft post package repair (section 8.2.9.7.2.1).
    SoftPpr,
    /// Hard post package repair (section 8.2.9.7.2.2).
    HardPpr,
    /// Memory sparing of cache lines (section 8.2.9.7.2.3).
    CachelineSparing,
    /// Memory sparing of rows.
    RowSparing,
    /// Memory sparing of banks.
    BankSparing,
    /// Memory sparing of ranks.
    RankSparing,
    /// A vendor's feature, and the only one that Linux leaves to programs: 16 bytes that mean nothing to the device.
    AssetTag,
}

/// Field replaceable units with an error check scrub of their own.
const MEDIA_UNITS: usize = 2;
/// Bytes of the asset tag.
const ASSET_TAG: usize = 16;
/// A patrol scrub takes at least so many hours.
const LEAST_SCRUB_HOURS: u8 = 1;

impl Feature {
    /// All of them, by index.
    pub const ALL: [Self; 9] = [
        Self::PatrolScrub,
        Self::ErrorCheckScrub,
        Self::SoftPpr,
        Self::HardPpr,
        Self::CachelineSparing,
        Self::RowSparing,
        Self::BankSparing,
        Self::RankSparing,
        Self::AssetTag,
    ];
    /// The only version of all of them, to get and to set.
    pub(crate) const VERSION: u8 = 1;
    /// Setting one changes what the device does at once.
    pub(crate) const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_CONFIGURATION;
    /// Attribute flags: changeable; saved values survive a cold reset (code 4 in bits 3:1) and a firmware update; there
    /// are default and saved values.
    pub(crate) const ATTRIBUTES: u32 = 1 | 4 << 1 | 1 << 4 | 1 << 5 | 1 << 6;

    /// The feature with this UUID, in the byte order of the payload.
    pub(crate) fn with_uuid(uuid: [u8; 16]) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.uuid() == uuid)
    }

    /// Its UUID, in the byte order of the payload.
    pub(crate) fn uuid(self) -> [u8; 16] {
        match self {
            Self::PatrolScrub => 0x96dad7d6_fde8_482b_a733_75774e06db8a_u128,
            Self::ErrorCheckScrub => 0xe5b13f22_2328_4a14_b8ba_b9691e893386,
            Self::SoftPpr => 0x892ba475_fad8_474e_9d3e_692c917568bb,
            Self::HardPpr => 0x80ea4521_786f_4127_afb1_ec7459fb0e24,
            Self::CachelineSparing => 0x96c33386_91dd_44c7_9ecb_fdaf6503bac4,
            Self::RowSparing => 0x450ebf67_b135_4f97_a498_c2d57f279bed,
            Self::BankSparing => 0x78b79636_90ac_4b64_a4ef_faac5d18a863,
            Self::RankSparing => 0x34dbaff5_0552_4281_8f76_da0b5e7a76a7,
            Self::AssetTag => 0x0b49e493_eba4_4bdf_8b5a_3ed6b97fe5a1,
        }
        .to_be_bytes()
    }

    /// The maintenance that it is about.
    fn repair(self) -> Option<Repair> {
        match self {
            Self::PatrolScrub | Self::ErrorCheckScrub | Self::AssetTag => None,
            Self::SoftPpr => Some(Repair::SoftPpr),
            Self::HardPpr => Some(Repair::HardPpr),
            Self::CachelineSparing => Some(Repair::CachelineSparing),
            Self::RowSparing => Some(Repair::RowSparing),
            Self::BankSparing => Some(Repair::BankSparing),
            Self::RankSparing => Some(Repair::RankSparing),
        }
    }

    /// What the host would have written for the default values.
    pub(crate) fn default_bytes(self) -> Vec<u8> {
        match self {
            // Every 24 hours, enabled.
            Self::PatrolScrub => vec![24, scrub::ENABLE],
            // Entries per DRAM; rows with errors are counted, and told from 256 on.
            Self::ErrorCheckScrub => [&[0][..], &[3, 0].repeat(MEDIA_UNITS)].concat(),
            // Nothing is done unless the host asks for it.
            Self::SoftPpr | Self::HardPpr => vec![0; 3],
            Self::CachelineSparing | Self::RowSparing | Self::BankSparing | Self::RankSparing => {
                vec![0; 2]
            }
            Self::AssetTag => vec![0; ASSET_TAG],
        }
    }

    /// True if the host may write this.
    fn accepts(self, bytes: &[u8]) -> bool {
        if bytes.len() != self.default_bytes().len() {
            return false;
        }
        match (self, bytes) {
            (Self::PatrolScrub, [hours, flags]) => {
                *hours >= LEAST_SCRUB_HOURS && flags & !scrub::ENABLE == 0
            }
            (Self::ErrorCheckScrub, [log, units @ ..]) => {
                let is_valid = |unit: &[u8]| match unit {
                    [config, 0] => {
                        ecs::THRESHOLDS.contains(&(config & ecs::THRESHOLD))
                            && config & !(ecs::THRESHOLD | ecs::COUNT_CODEWORDS | ecs::RESET) == 0
                    }
                    _ => false,
                };
                *log <= ecs::LOG_PER_UNIT && units.chunks(2).all(is_valid)
            }
            (Self::AssetTag, _) => true,
            // The device initiates no repair of its own.
            (_, modes) => modes.iter().all(|byte| *byte == 0),
        }
    }

    /// What is kept of what the host wrote: bits that ask for something to be done once read as zero.
    fn settled(self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self == Self::ErrorCheckScrub {
            let configs = bytes.iter_mut().skip(1).step_by(2);
            configs.for_each(|config| *config &= !ecs::RESET);
        }
        bytes
    }

    /// What the host reads where these bytes have been written.
    pub(crate) fn readable(self, bytes: &[u8]) -> Vec<u8> {
        match (self, bytes) {
            (Self::PatrolScrub, [hours, flags]) => {
                vec![scrub::CYCLE_CHANGEABLE, *hours, LEAST_SCRUB_HOURS, *flags]
            }
            (Self::ErrorCheckScrub, [log, units @ ..]) => {
                let mut readable = vec![*log];
                for config in units.chunks(2) {
                    // No capabilities, the configuration, no flags.
                    readable.push(0);
                    readable.extend(config);
                    readable.push(0);
                }
                readable
            }
            (Self::AssetTag, tag) => tag.to_vec(),
            _ => self.repair().map_or(Vec::new(), Repair::readable),
        }
    }
}

/// Patrol scrub attributes.
mod scrub {
    pub const CYCLE_CHANGEABLE: u8 = 1 << 0;
    pub const ENABLE: u8 = 1 << 0;
}

/// Error check scrub attributes.
mod ecs {
    /// Log entries are per field replaceable unit, not per DRAM.
    pub const LOG_PER_UNIT: u8 = 1;
    /// Errors per Gb of cells from which on they are told: codes of 256, 1024 and 4096.
    pub const THRESHOLD: u8 = 0b111;
    pub const THRESHOLDS: [u8; 3] = [3, 4, 5];
    pub const COUNT_CODEWORDS: u8 = 1 << 3;
    pub const RESET: u8 = 1 << 4;
}

/// Which of a feature's values (section 8.2.9.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    Current,
    Default,
    Saved,
}

/// The values that the host wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    current: BTreeMap<Feature, Vec<u8>>,
    transfer: Option<Transfer>,
}

/// Values of a feature that come in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transfer {
    feature: Feature,
    bytes: Vec<u8>,
}

/// A part of a feature's values, and which one (section 8.2.9.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeaturePart {
    Full,
    Initiate,
    Continue,
    Finish,
}

impl Features {
    /// After a reset the saved values are current.
    pub(super) fn new(saved: &BTreeMap<Feature, Vec<u8>>) -> Self {
        let sound = saved
            .iter()
            .filter(|(feature, bytes)| feature.accepts(bytes));
        Self {
            current: sound
                .map(|(feature, bytes)| (*feature, bytes.clone()))
                .collect(),
            transfer: None,
        }
    }
}

impl Memdev {
    /// What a feature's values read as.
    pub(crate) fn feature(&self, feature: Feature, selection: Selection) -> Vec<u8> {
        let written = match selection {
            Selection::Current => self.features.current.get(&feature),
            Selection::Saved => self.nonvolatile.features.get(&feature),
            Selection::Default => None,
        };
        let written = written.filter(|bytes| feature.accepts(bytes));
        match written {
            Some(bytes) => feature.readable(bytes),
            None => feature.readable(&feature.default_bytes()),
        }
    }

    /// Takes a part of a feature's values. The last one makes them current and, if they are to be saved, the saved ones.
    pub(crate) fn set_feature(
        &mut self,
        feature: Feature,
        part: FeaturePart,
        offset: u16,
        data: &[u8],
        save: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let begins = matches!(part, FeaturePart::Full | FeaturePart::Initiate);
        let mut bytes = match (&self.features.transfer, begins) {
            (Some(_), true) => return Err(ReturnCode::FeatureTransferInProgress),
            (Some(transfer), false) if transfer.feature != feature => {
                return Err(ReturnCode::FeatureTransferInProgress);
            }
            (None, false) => return Err(ReturnCode::FeatureTransferOutOfOrder),
            (Some(transfer), false) => transfer.bytes.clone(),
            (None, true) => Vec::new(),
        };
        if usize::from(offset) != bytes.len() {
            return Err(ReturnCode::FeatureTransferOutOfOrder);
        }
        bytes.extend(data);
        let is_last = matches!(part, FeaturePart::Full | FeaturePart::Finish);
        if !is_last {
            if bytes.len() > feature.default_bytes().len() {
                return Err(ReturnCode::InvalidInput);
            }
            self.features.transfer = Some(Transfer { feature, bytes });
            return Ok(());
        }
        self.features.transfer = None;
        if !feature.accepts(&bytes) {
            return Err(ReturnCode::InvalidInput);
        }
        let bytes = feature.settled(bytes);
        if save {
            self.nonvolatile.features.insert(feature, bytes.clone());
            effects.push(Effect::NonVolatileChanged);
        }
        self.features.current.insert(feature, bytes);
        Ok(())
    }

    /// Forgets the parts so far.
    pub(crate) fn abort_feature_transfer(&mut self) -> Result<(), ReturnCode> {
        let transfer = self.features.transfer.take();
        transfer.ok_or(ReturnCode::FeatureTransferOutOfOrder)?;
        Ok(())
    }
}
