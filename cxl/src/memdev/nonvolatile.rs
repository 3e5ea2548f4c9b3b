//! What a device remembers without power, besides media and labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Memdev;
use super::features::{Feature, Features};
use super::firmware::Firmware;
use super::poison::PoisonRecord;
use super::repair::SparesUsed;
use super::security::{Passphrases, Security};
use crate::Effect;

/// The settings and counters that survive a power cycle. Whoever owns the device keeps them: see
/// [`Effect::NonVolatileChanged`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NonVolatile {
    /// Bytes of the partitionable capacity that are volatile from the next power cycle on, a multiple of 256 MiB.
    pub partition_volatile: u64,
    /// A loss of power now would count as a dirty shutdown.
    pub shutdown_dirty: bool,
    /// Shutdowns so far that may have lost data.
    pub dirty_shutdowns: u32,
    /// Firmware slots.
    pub firmware: Firmware,
    /// Passphrases.
    pub passphrases: Passphrases,
    /// Saved values of features, as the host wrote them.
    pub features: BTreeMap<Feature, Vec<u8>>,
    /// Spare parts that are used up.
    pub spares_used: SparesUsed,
    /// Bad lines of persistent memory.
    pub poison: Vec<PoisonRecord>,
}

impl Memdev {
    /// What the device would remember if its power failed now.
    pub fn nonvolatile(&self) -> NonVolatile {
        let persistent = self.partition().volatile;
        NonVolatile {
            poison: self.poison.found(persistent, self.capacity() - persistent),
            ..self.nonvolatile.clone()
        }
    }

    /// Comes up with what was remembered.
    pub(super) fn power_up(&mut self) {
        let nonvolatile = &mut self.nonvolatile;
        self.partition_volatile = nonvolatile.partition_volatile;
        if std::mem::take(&mut nonvolatile.shutdown_dirty) {
            nonvolatile.dirty_shutdowns = nonvolatile.dirty_shutdowns.saturating_add(1);
        }
        nonvolatile.firmware.cold_reset();
        self.security = Security::new(&nonvolatile.passphrases);
        self.features = Features::new(&nonvolatile.features);
        self.soft_spares_used = SparesUsed::default();
        self.health.dirty_shutdowns = nonvolatile.dirty_shutdowns;
    }

    /// The power goes. With all that was on the way to media flushed the shutdown is a clean one; else a device with persistent
    /// memory counts a dirty one, whatever its host said (section 9.8.2).
    pub fn power_off(&mut self, flushed: bool, effects: &mut Vec<Effect>) {
        let is_persistent = self.partition().persistent > 0;
        let dirty = !flushed && (is_persistent || self.shutdown_dirty());
        if dirty != self.shutdown_dirty() {
            self.set_shutdown_dirty(dirty, effects);
        }
    }

    /// True if a loss of power now would count as a dirty shutdown.
    pub fn shutdown_dirty(&self) -> bool {
        self.nonvolatile.shutdown_dirty
    }

    pub(crate) fn set_shutdown_dirty(&mut self, dirty: bool, effects: &mut Vec<Effect>) {
        self.nonvolatile.shutdown_dirty = dirty;
        effects.push(Effect::NonVolatileChanged);
    }
}
