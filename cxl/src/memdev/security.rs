//! Security of persistent memory: passphrases, lock, freeze (section 8.2.9.9.6).
//!
//! A device with a user passphrase comes up locked after a cold reset: nobody gets at its persistent memory until it is
//! unlocked. Three wrong passphrases in a row, and that kind is not accepted any more before the next cold reset.

use serde::{Deserialize, Serialize};

use super::Memdev;
use crate::Effect;
use crate::mailbox::ReturnCode;

/// A passphrase: 32 bytes, all of which count.
pub type Passphrase = [u8; 32];

/// Wrong passphrases in a row that lock the kind out.
pub const ATTEMPTS: u8 = 3;

/// The two kinds of passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassphraseType {
    User,
    Master,
}

/// What survives: a passphrase that is not set cannot be guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Passphrases {
    /// Opens the device.
    pub user: Option<Passphrase>,
    /// Erases it when the user's is lost.
    pub master: Option<Passphrase>,
}

/// What a cold reset forgets.
#[derive(Debug, Default)]
pub(super) struct Security {
    locked: bool,
    frozen: bool,
    /// Wrong ones in a row: user's, master's.
    failures: [u8; 2],
}

impl Security {
    /// As it is after a cold reset.
    pub(super) fn new(passphrases: &Passphrases) -> Self {
        Self {
            locked: passphrases.user.is_some(),
            ..Self::default()
        }
    }
}

/// Bits of the security state (section 8.2.9.9.6.1).
mod state {
    pub const USER_SET: u32 = 1 << 0;
    pub const MASTER_SET: u32 = 1 << 1;
    pub const LOCKED: u32 = 1 << 2;
    pub const FROZEN: u32 = 1 << 3;
    pub const USER_LIMIT: u32 = 1 << 4;
    pub const MASTER_LIMIT: u32 = 1 << 5;
}

impl Memdev {
    /// The security state as Get Security State tells it.
    pub(crate) fn security_state(&self) -> u32 {
        let Security {
            locked,
            frozen,
            failures: [user, master],
        } = self.security;
        let Passphrases {
            user: user_set,
            master: master_set,
        } = self.nonvolatile.passphrases;
        [
            (user_set.is_some(), state::USER_SET),
            (master_set.is_some(), state::MASTER_SET),
            (locked, state::LOCKED),
            (frozen, state::FROZEN),
            (user >= ATTEMPTS, state::USER_LIMIT),
            (master >= ATTEMPTS, state::MASTER_LIMIT),
        ]
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .fold(0, |state, (_, bit)| state | bit)
    }

    /// True if nobody can get at the persistent memory.
    pub fn is_locked(&self) -> bool {
        self.security.locked
    }

    /// Fails if part of `dpa..dpa + len` is locked.
    pub(crate) fn check_unlocked(&self, dpa: u64, len: u64) -> Result<(), ReturnCode> {
        let end = dpa.saturating_add(len);
        match self.is_locked() && end > self.partition().volatile {
            true => Err(ReturnCode::IncorrectSecurityState),
            false => Ok(()),
        }
    }

    /// Sanitize is for a device without a passphrase, secure erase for one that is not locked.
    pub(crate) fn check_erasable(&self, even_passphrase: bool) -> Result<(), ReturnCode> {
        let has_passphrase = self.nonvolatile.passphrases.user.is_some();
        match self.is_locked() || has_passphrase && !even_passphrase {
            true => Err(ReturnCode::IncorrectSecurityState),
            false => Ok(()),
        }
    }

    fn passphrase_mut(&mut self, kind: PassphraseType) -> &mut Option<Passphrase> {
        match kind {
            PassphraseType::User => &mut self.nonvolatile.passphrases.user,
            PassphraseType::Master => &mut self.nonvolatile.passphrases.master,
        }
    }

    fn check_not_frozen(&self) -> Result<(), ReturnCode> {
        match self.security.frozen {
            true => Err(ReturnCode::IncorrectSecurityState),
            false => Ok(()),
        }
    }

    /// Compares a passphrase with the one that is set, and counts how often it was wrong. One that is not set is right
    /// whatever it is.
    fn authenticate(
        &mut self,
        kind: PassphraseType,
        passphrase: &Passphrase,
    ) -> Result<(), ReturnCode> {
        let right = self
            .passphrase_mut(kind)
            .is_none_or(|set| set == *passphrase);
        let [user, master] = &mut self.security.failures;
        let failures = match kind {
            PassphraseType::User => user,
            PassphraseType::Master => master,
        };
        if *failures >= ATTEMPTS {
            return Err(ReturnCode::IncorrectSecurityState);
        }
        *failures = if right { 0 } else { *failures + 1 };
        right.then_some(()).ok_or(ReturnCode::IncorrectPassphrase)
    }

    /// Set Passphrase (section 8.2.9.9.6.2).
    pub(crate) fn set_passphrase(
        &mut self,
        kind: PassphraseType,
        current: &Passphrase,
        new: &Passphrase,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_not_frozen()?;
        self.check_erasable(true)?;
        self.authenticate(kind, current)?;
        *self.passphrase_mut(kind) = Some(*new);
        effects.push(Effect::NonVolatileChanged);
        Ok(())
    }

    /// Disable Passphrase (section 8.2.9.9.6.3).
    pub(crate) fn disable_passphrase(
        &mut self,
        kind: PassphraseType,
        current: &Passphrase,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_not_frozen()?;
        self.check_erasable(true)?;
        if self.passphrase_mut(kind).is_none() {
            return Err(ReturnCode::IncorrectSecurityState);
        }
        self.authenticate(kind, current)?;
        *self.passphrase_mut(kind) = None;
        effects.push(Effect::NonVolatileChanged);
        Ok(())
    }

    /// Unlock (section 8.2.9.9.6.4).
    pub(crate) fn unlock(
        &mut self,
        passphrase: &Passphrase,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_not_frozen()?;
        if !self.security.locked {
            return Err(ReturnCode::IncorrectSecurityState);
        }
        self.authenticate(PassphraseType::User, passphrase)?;
        self.security.locked = false;
        effects.push(Effect::AccessChanged);
        Ok(())
    }

    /// Freeze Security State (section 8.2.9.9.6.5), until the next cold reset.
    pub(crate) fn freeze_security(&mut self) {
        self.security.frozen = true;
    }

    /// Passphrase Secure Erase (section 8.2.9.9.6.6). The master's erases a locked device, too, and takes the user's
    /// passphrase away.
    pub(crate) fn passphrase_secure_erase(
        &mut self,
        kind: PassphraseType,
        passphrase: &Passphrase,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        self.check_not_frozen()?;
        match kind {
            PassphraseType::User => self.check_erasable(true)?,
            PassphraseType::Master if self.nonvolatile.passphrases.master.is_none() => {
                self.check_erasable(false)?;
            }
            PassphraseType::Master => {}
        }
        self.authenticate(kind, passphrase)?;
        self.zero_media(0, self.address_space(), effects);
        if self.nonvolatile.passphrases.user.take().is_some() {
            effects.push(Effect::NonVolatileChanged);
        }
        if std::mem::take(&mut self.security.locked) {
            effects.push(Effect::AccessChanged);
        }
        Ok(())
    }
}
