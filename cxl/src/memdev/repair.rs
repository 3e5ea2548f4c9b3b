//! Maintenance: post package repair and memory sparing (section 8.2.9.7), with the spare parts there are.

use serde::{Deserialize, Serialize};

use super::Memdev;
use super::background::{Operation, Work};
use super::poison::LINE;
use crate::Effect;
use crate::mailbox::ReturnCode;

/// A repair for good takes so long, in ns; one until the next cold reset is an entry in a table, made at once.
const TIME: u64 = 10_000_000;
/// Spare parts of each kind.
pub const SPARES: u8 = 4;

/// The kinds of repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    SoftPpr,
    HardPpr,
    CachelineSparing,
    RowSparing,
    BankSparing,
    RankSparing,
}

/// Maintenance operation classes (table 8-102).
const CLASS_PPR: u8 = 1;
const CLASS_SPARING: u8 = 2;

impl Repair {
    const ALL: [Self; 6] = [
        Self::SoftPpr,
        Self::HardPpr,
        Self::CachelineSparing,
        Self::RowSparing,
        Self::BankSparing,
        Self::RankSparing,
    ];

    /// Class and subclass.
    pub(crate) fn code(self) -> [u8; 2] {
        match self {
            Self::SoftPpr => [CLASS_PPR, 0],
            Self::HardPpr => [CLASS_PPR, 1],
            Self::CachelineSparing => [CLASS_SPARING, 0],
            Self::RowSparing => [CLASS_SPARING, 1],
            Self::BankSparing => [CLASS_SPARING, 2],
            Self::RankSparing => [CLASS_SPARING, 3],
        }
    }

    pub(crate) fn with_code(code: [u8; 2]) -> Option<Self> {
        Self::ALL.into_iter().find(|repair| repair.code() == code)
    }

    pub(crate) fn is_ppr(self) -> bool {
        matches!(self, Self::SoftPpr | Self::HardPpr)
    }

    /// What its feature reads as: the host may ask for it at any time, and memory stays in use and keeps its data.
    pub(super) fn readable(self) -> Vec<u8> {
        /// PPR flags: addresses are device addresses, and there are nibble masks.
        const BY_DPA_AND_NIBBLE: u8 = 0b11;
        /// Sparing restriction flags: hard and soft.
        const HARD_AND_SOFT: u8 = 0b110;
        let [class, subclass] = self.code();
        // Latency (1), capabilities (2) and mode (2) of the operation: none.
        let mut readable = vec![0, 0, 0, 0, 0, class, subclass];
        readable.extend([0; 9]);
        match self.is_ppr() {
            // Flags, restriction flags (2), mode.
            true => readable.extend([BY_DPA_AND_NIBBLE, 0, 0, 0]),
            // Reserved, restriction flags (2).
            false => readable.extend([0, HARD_AND_SOFT, 0]),
        }
        readable
    }
}

/// Spare parts that are used up for good, by kind of repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SparesUsed([u8; Repair::ALL.len()]);

impl SparesUsed {
    fn of(&mut self, repair: Repair) -> &mut u8 {
        &mut self.0[repair as usize]
    }
}

/// A repair that the host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RepairRequest {
    pub repair: Repair,
    /// Only ask whether there is a spare part.
    pub query: bool,
    /// For good, not until the next cold reset.
    pub hard: bool,
    /// The device address, where the repair is by address.
    pub dpa: Option<u64>,
}

impl Memdev {
    fn spares_left(&mut self, repair: Repair) -> u8 {
        let used = *self.nonvolatile.spares_used.of(repair);
        SPARES.saturating_sub(used.saturating_add(*self.soft_spares_used.of(repair)))
    }

    /// Perform Maintenance (section 8.2.9.7.1): what goes on in the background, if anything does.
    pub(crate) fn perform_maintenance(
        &mut self,
        request: RepairRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Operation>, ReturnCode> {
        if let Some(dpa) = request.dpa {
            self.check_lines(dpa - dpa % LINE, LINE)?;
        }
        if self.spares_left(request.repair) == 0 {
            return Err(ReturnCode::ResourcesExhausted);
        }
        if request.query {
            return Ok(None);
        }
        if request.hard {
            return Ok(Some(Operation {
                duration: TIME,
                work: Work::Repair(request),
            }));
        }
        match self.finish_repair(request, effects) {
            ReturnCode::Success => Ok(None),
            code => Err(code),
        }
    }

    /// Puts a spare part in the place of what is bad.
    pub(super) fn finish_repair(
        &mut self,
        RepairRequest {
            repair, hard, dpa, ..
        }: RepairRequest,
        effects: &mut Vec<Effect>,
    ) -> ReturnCode {
        if self.spares_left(repair) == 0 {
            return ReturnCode::ResourcesExhausted;
        }
        match hard {
            true => {
                *self.nonvolatile.spares_used.of(repair) += 1;
                effects.push(Effect::NonVolatileChanged);
            }
            false => *self.soft_spares_used.of(repair) += 1,
        }
        if let Some(dpa) = dpa {
            self.forget_poison(dpa - dpa % LINE, LINE, effects);
        }
        ReturnCode::Success
    }
}
