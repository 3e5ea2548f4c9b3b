//! Health of a device, and the alerts it raises (sections 8.2.9.9.3.1 to 8.2.9.9.3.3).

use crate::event::ModuleEventType;

/// What Get Health Info reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthInfo {
    /// Health status: bit 0 maintenance needed, 1 performance degraded, 2 replacement needed.
    pub status: u8,
    /// Media status: 0 normal, 1 not ready, 2 write persistency lost, 3 all data lost, and so on to 9.
    pub media: u8,
    /// What lies beyond a threshold.
    pub additional: AdditionalStatus,
    /// Used part of the life, in percent.
    pub life_used: u8,
    /// Degrees Celsius.
    pub temperature: i16,
    /// Shutdowns that may have lost data.
    pub dirty_shutdowns: u32,
    /// Corrected errors of volatile memory.
    pub corrected_volatile: u32,
    /// Corrected errors of persistent memory.
    pub corrected_persistent: u32,
}

impl Default for HealthInfo {
    /// A new device at 25 degrees.
    fn default() -> Self {
        Self {
            status: 0,
            media: 0,
            additional: AdditionalStatus::default(),
            life_used: 0,
            temperature: 25,
            dirty_shutdowns: 0,
            corrected_volatile: 0,
            corrected_persistent: 0,
        }
    }
}

impl HealthInfo {
    /// The reply of Get Health Info, and part of a memory module event record.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![
            self.status,
            self.media,
            self.additional.bits(),
            self.life_used,
        ];
        bytes.extend(self.temperature.to_le_bytes());
        bytes.extend(self.dirty_shutdowns.to_le_bytes());
        bytes.extend(self.corrected_volatile.to_le_bytes());
        bytes.extend(self.corrected_persistent.to_le_bytes());
        bytes
    }
}

/// How a value stands to its thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Within them.
    #[default]
    Normal,
    /// At or beyond an enabled warning threshold.
    Warning,
    /// At or beyond the critical threshold.
    Critical,
}

/// Additional Status: the levels of what has thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdditionalStatus {
    /// Life used.
    pub life_used: Level,
    /// Temperature.
    pub temperature: Level,
    /// Corrected errors of volatile memory; never critical.
    pub corrected_volatile: Level,
    /// Corrected errors of persistent memory; never critical.
    pub corrected_persistent: Level,
}

impl AdditionalStatus {
    fn bits(self) -> u8 {
        self.life_used as u8
            | (self.temperature as u8) << 2
            | (self.corrected_volatile as u8) << 4
            | (self.corrected_persistent as u8) << 5
    }

    /// What got worse since `before`, with its new level.
    pub(super) fn worse_than(self, before: Self) -> impl Iterator<Item = (ModuleEventType, Level)> {
        let corrected = |status: Self| status.corrected_volatile.max(status.corrected_persistent);
        [
            (ModuleEventType::LifeUsed, before.life_used, self.life_used),
            (
                ModuleEventType::Temperature,
                before.temperature,
                self.temperature,
            ),
            (
                ModuleEventType::MediaStatus,
                corrected(before),
                corrected(self),
            ),
        ]
        .into_iter()
        .filter(|(_, before, now)| now > before)
        .map(|(what, _, now)| (what, now))
    }
}

/// An alert that the host can program: its bit in the fields of the alert configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// Life used.
    LifeUsed = 1 << 0,
    /// Device over-temperature.
    OverTemperature = 1 << 1,
    /// Device under-temperature.
    UnderTemperature = 1 << 2,
    /// Corrected volatile memory errors.
    CorrectedVolatile = 1 << 3,
    /// Corrected persistent memory errors.
    CorrectedPersistent = 1 << 4,
}

impl Alert {
    /// The bits of all alerts.
    pub const ALL: u8 = 0x1f;

    /// True if `bits` has this alert.
    pub fn is_in(self, bits: u8) -> bool {
        bits & self as u8 != 0
    }
}

/// Thresholds at which the device warns, if their alerts are enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warnings {
    /// Percent.
    pub life_used: u8,
    /// Degrees Celsius.
    pub over_temperature: i16,
    /// Degrees Celsius.
    pub under_temperature: i16,
    /// Count.
    pub corrected_volatile: u16,
    /// Count.
    pub corrected_persistent: u16,
}

/// The alert configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// Enabled alerts ("valid alerts"), as bits of [`Alert`].
    pub enabled: u8,
    /// Warning thresholds.
    pub warnings: Warnings,
}

impl Alerts {
    /// Percent of life used that is critical.
    pub const CRITICAL_LIFE_USED: u8 = 95;
    /// Degrees Celsius that are critically hot.
    pub const CRITICAL_OVER_TEMPERATURE: i16 = 95;
    /// Degrees Celsius that are critically cold.
    pub const CRITICAL_UNDER_TEMPERATURE: i16 = -20;

    /// True if every warning comes before its critical threshold.
    pub fn is_consistent(&self) -> bool {
        self.warnings.life_used <= Self::CRITICAL_LIFE_USED
            && self.warnings.over_temperature <= Self::CRITICAL_OVER_TEMPERATURE
            && self.warnings.under_temperature >= Self::CRITICAL_UNDER_TEMPERATURE
    }

    /// The levels of `health` by these thresholds.
    pub(super) fn judge(&self, health: &HealthInfo) -> AdditionalStatus {
        let level = |critical: bool, warnings: &[(Alert, bool)]| {
            let warn = |(alert, beyond): &(Alert, bool)| *beyond && alert.is_in(self.enabled);
            match (critical, warnings.iter().any(warn)) {
                (true, _) => Level::Critical,
                (false, true) => Level::Warning,
                (false, false) => Level::Normal,
            }
        };
        let Warnings {
            life_used,
            over_temperature,
            under_temperature,
            corrected_volatile,
            corrected_persistent,
        } = self.warnings;
        AdditionalStatus {
            life_used: level(
                health.life_used >= Self::CRITICAL_LIFE_USED,
                &[(Alert::LifeUsed, health.life_used >= life_used)],
            ),
            temperature: level(
                health.temperature >= Self::CRITICAL_OVER_TEMPERATURE
                    || health.temperature <= Self::CRITICAL_UNDER_TEMPERATURE,
                &[
                    (
                        Alert::OverTemperature,
                        health.temperature >= over_temperature,
                    ),
                    (
                        Alert::UnderTemperature,
                        health.temperature <= under_temperature,
                    ),
                ],
            ),
            corrected_volatile: level(
                false,
                &[(
                    Alert::CorrectedVolatile,
                    health.corrected_volatile >= corrected_volatile.into(),
                )],
            ),
            corrected_persistent: level(
                false,
                &[(
                    Alert::CorrectedPersistent,
                    health.corrected_persistent >= corrected_persistent.into(),
                )],
            ),
        }
    }
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            enabled: 0,
            warnings: Warnings {
                life_used: 75,
                over_temperature: 85,
                under_temperature: -10,
                corrected_volatile: 1000,
                corrected_persistent: 1000,
            },
        }
    }
}
