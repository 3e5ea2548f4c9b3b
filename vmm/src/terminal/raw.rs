//! The user's terminal in raw mode, and back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use crate::error::{HostContext, Result};

/// The terminal in raw mode and the modes it had before.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Gives the user's terminal its modes back, if they were changed. For ways out of the program that
/// drop nothing.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((terminal, modes)) = saved {
        // On the way out there is nobody to tell.
        let _ = tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

/// The user's terminal is in raw mode until this is dropped, or a thread panics.
#[derive(Debug)]
pub(super) struct RawMode;

impl RawMode {
    /// Puts `terminal` into raw mode.
    pub(super) fn enter(terminal: &OwnedFd) -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        let what = || "put the terminal into raw mode".into();
        let modes = tcgetattr(terminal).trying(what)?;
        let handle = terminal.try_clone().trying(what)?;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some((handle, modes));
        make_raw(terminal)?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Bytes go in as they are typed. On the way out a line feed still returns the carriage, so that
/// messages of the program stay readable between the guest's.
pub(super) fn make_raw(terminal: &impl AsFd) -> Result<()> {
    let set = || -> io::Result<()> {
        let mut modes = tcgetattr(terminal)?;
        modes.make_raw();
        modes.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(terminal, OptionalActions::Now, &modes)?;
        Ok(())
    };
    set().trying(|| "put a terminal into raw mode".into())
}
