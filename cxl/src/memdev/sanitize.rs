//! Emptying the media: sanitize, secure erase and media operations (section 8.2.9.9.5).

use super::Memdev;
use super::background::{Work, time_for};
use crate::Effect;

/// A sanitize takes at least this long, in ns.
const LEAST_TIME: u64 = 500_000_000;
/// ns to sanitize a GiB more.
const TIME_PER_GIB: u64 = 100_000_000;

impl Memdev {
    /// How long it takes to empty so many bytes, in ns.
    pub(crate) fn sanitize_time(len: u64) -> u64 {
        time_for(len, TIME_PER_GIB).saturating_add(LEAST_TIME)
    }

    /// True while the media is being sanitized: nobody can get at it then.
    pub fn is_media_disabled(&self) -> bool {
        matches!(self.background_work(), Some(Work::Sanitize))
    }

    /// Puts zeroes into `dpa..dpa + len`, which is good then.
    pub(crate) fn zero_media(&mut self, dpa: u64, len: u64, effects: &mut Vec<Effect>) {
        effects.push(Effect::MediaZeroed { dpa, len });
        self.forget_poison(dpa, len, effects);
    }

    /// Empties media and labels.
    pub(super) fn begin_sanitize(&mut self, effects: &mut Vec<Effect>) {
        self.zero_media(0, self.address_space(), effects);
        self.lsa.fill(0);
        if !self.lsa.is_empty() {
            let len = self.lsa.len() as u32;
            effects.push(Effect::LsaWritten { offset: 0, len });
        }
        effects.push(Effect::AccessChanged);
    }
}
