//! One machine: puts the parts of a configuration together, runs it, and takes it apart.

mod accelerators;
mod build;
mod control;
mod errors;
mod extents;
mod gpu;
mod hotplug;
mod inject;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use self::hotplug::Slots;
use crate::board::Board;
use crate::config::Config;
use crate::control::Server;
use crate::error::Result;
use crate::kvm::{Outcome, VcpuControl, Vm};
use crate::nonvolatile::NonVolatileStore;
use crate::terminal::{Target, Terminal};
use crate::timing::Timing;
use crate::windows::Windows;

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered off, or the user quit.
    Off,
    /// The guest died; its registers have been printed.
    Crashed,
}

/// The running machine, as the control socket and the terminals see it. A reboot replaces it.
#[derive(Clone, Default)]
pub(crate) struct Current(Arc<Mutex<Option<Arc<Running>>>>);

/// The parts of a running machine.
pub(crate) struct Running {
    /// The configuration it was made from.
    pub config: Arc<Config>,
    /// Memory slots and interrupts.
    pub vm: Arc<Vm>,
    /// The device models.
    pub board: Arc<Board>,
    /// The CXL windows.
    pub windows: Arc<Windows>,
    /// Where devices come and go.
    pub slots: Slots,
    /// The processors.
    pub vcpus: VcpuControl,
    /// What makes the guest feel the cost of CXL memory; `None`: nothing does.
    pub timing: Option<Timing>,
}

impl Current {
    /// The running machine, if there is one.
    pub fn get(&self) -> Option<Arc<Running>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, running: Option<Arc<Running>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    fn quit(&self) {
        if let Some(running) = self.get() {
            running.vcpus.finish(Outcome::Quit);
        }
    }
}

/// The consoles, which outlive reboots.
pub(crate) struct Terminals {
    serial: Terminal,
    virtio: Vec<Terminal>,
}

impl Terminals {
    fn open(config: &Config, current: &Current) -> Result<Self> {
        let open = |target: &Target| {
            let current = current.clone();
            let terminal = Terminal::open(target, move || current.quit())?;
            if let Some(path) = terminal.path() {
                log::warn!("{target}: {}", path.display());
            }
            Ok(terminal)
        };
        Ok(Self {
            serial: open(&config.serial)?,
            virtio: config
                .virtio_consoles
                .iter()
                .map(open)
                .collect::<Result<_>>()?,
        })
    }
}

/// Runs the machine that `config` describes until it is switched off; a reboot starts it anew.
///
/// # Errors
/// What kept it from starting, with what to do about it.
pub fn run(config: Config) -> Result<Ending> {
    crate::kvm::require_hardware_virtualization()?;
    let mut config = Arc::new(config);
    let current = Current::default();
    let terminals = Terminals::open(&config, &current)?;
    let nonvolatile = Arc::new(NonVolatileStore::default());
    let backend = Arc::new(control::Control::new(current.clone()));
    let _server = config
        .control
        .as_deref()
        .map(|path| Server::start(path, backend))
        .transpose()?;
    loop {
        let ended = run_once(&config, &terminals, &nonvolatile, &current);
        current.set(None);
        let (outcome, left) = ended?;
        config = left;
        match outcome {
            Outcome::PowerOff | Outcome::Quit => return Ok(Ending::Off),
            Outcome::Reset => log::info!("the guest reboots"),
            Outcome::Dead(crash) => {
                crate::terminal::restore();
                eprintln!("{crash}");
                return Ok(Ending::Crashed);
            }
        }
    }
}

/// One life of the machine, from power-on to its end, with the configuration that it leaves.
fn run_once(
    config: &Arc<Config>,
    terminals: &Terminals,
    nonvolatile: &Arc<NonVolatileStore>,
    current: &Current,
) -> Result<(Outcome, Arc<Config>)> {
    let (running, start) = build::machine(config, terminals, nonvolatile)?;
    let running = Arc::new(running);
    current.set(Some(Arc::clone(&running)));
    start()?;
    let outcome = running.vcpus.wait();
    running.board.power_off(|| running.windows.sync())?;
    let config = running.slots.inventory();
    Ok((outcome, Arc::clone(&config)))
}
