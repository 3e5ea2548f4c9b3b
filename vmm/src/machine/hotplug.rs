//! Devices that come to the running machine and leave it, at the slots of its ports.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cxl::decode::EndpointId;
use devices::{Device, DownstreamPort, Effect};
use pci::{Link, NodeId, Parent};

use super::build::{Surroundings, expander, media_spec};
use crate::board::{Board, Effects, Expander, Responder, State};
use crate::config::{Config, Type3};
use crate::control::{Failure, FailureKind, Removal};
use crate::error::Error;
use crate::windows::Windows;

/// How long a guest may take to switch off a slot after its button was pressed. Linux waits five seconds for the person to
/// change their mind, and then takes the memory offline.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether there still is a machine to wait for.
const LOOK: Duration = Duration::from_millis(200);

/// The slots of a machine.
pub(crate) struct Slots {
    board: Arc<Board>,
    windows: Arc<Windows>,
    inventory: Mutex<Arc<Config>>,
}

impl Slots {
    /// The slots of the machine that `config` describes.
    pub(super) fn new(config: &Arc<Config>, board: &Arc<Board>, windows: &Arc<Windows>) -> Self {
        Self {
            board: Arc::clone(board),
            windows: Arc::clone(windows),
            inventory: Mutex::new(Arc::clone(config)),
        }
    }

    /// The configuration with what has come and without what has gone: what a reboot finds.
    pub(super) fn inventory(&self) -> MutexGuard<'_, Arc<Config>> {
        self.inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a device into the slot of a port, closes the latch and presses the button, so that the guest switches it on.
    /// `table` has the keys of a device in the configuration file; its relative paths are relative to `file`.
    pub(super) fn add(&self, port: &str, file: &Path, table: toml::Table) -> Result<(), Failure> {
        let mut inventory = self.inventory();
        let (place, configured) = inventory.port_named(port).ok_or_else(|| no_port(port))?;
        let link = Link {
            speed: configured.speed,
            width: configured.width,
        };
        if !configured.hot_plug {
            return Err(no_slot(port));
        }
        if configured.device.is_some() {
            return Err(Failure::new(
                FailureKind::Conflict,
                format!("the slot of {port} is not empty"),
                "remove what is in it, or take another port",
            ));
        }
        let changed = inventory
            .with_device(&place, file, table)
            .map_err(|error| bad_device(&error))?;
        let device = changed.device(&place).ok_or_else(|| no_port(port))?;
        // The media first: its lock keeps another machine's device from being touched.
        let endpoint = self
            .windows
            .attach(media_spec(device))
            .map_err(host_refuses)?;
        let inserted = self.insert(port, device, link, endpoint);
        match &inserted {
            Ok(()) => *inventory = Arc::new(changed),
            Err(_) => self.let_go(&device.name, endpoint)?,
        }
        inserted
    }

    /// Makes the model of a device and puts it into the slot of a port that is empty; the guest is told.
    fn insert(
        &self,
        port: &str,
        device: &Type3,
        link: Link,
        endpoint: usize,
    ) -> Result<(), Failure> {
        let nonvolatile = Arc::clone(&self.board.lock().nonvolatile);
        // The timing of a machine knows the devices that it began with.
        let surroundings = Surroundings {
            nonvolatile: &nonvolatile,
            timed: false,
        };
        let (model, labels) = expander(device, link, surroundings).map_err(host_refuses)?;
        let mut state = self.board.lock();
        let (port, _) = state.port_named(port).ok_or_else(|| no_port(port))?;
        let model = Device::Type3(Box::new(model));
        let node = state.hierarchy.add(port, 0, 0, model).map_err(|error| {
            let mend = "take another port";
            Failure::new(FailureKind::Conflict, error.to_string(), mend)
        })?;
        let endpoint = EndpointId(u32::try_from(endpoint).unwrap_or(u32::MAX));
        state.expanders.insert(node, Expander { endpoint, labels });
        let effects = at_slot(&mut state, port, |port, out| {
            port.change_card(Some(link), out);
            port.press_attention_button(out);
        });
        self.board.perform(state, effects);
        Ok(())
    }

    /// Lets go of what belongs to a device besides its model.
    fn let_go(&self, device: &str, endpoint: usize) -> Result<(), Failure> {
        self.board.lock().nonvolatile.forget(device);
        self.windows.detach(endpoint).map_err(host_refuses)
    }

    /// Takes a device out of its slot: with notice, once the guest has switched the slot off, or by surprise. Who waits for
    /// the guest gives up when the machine has `ended`.
    pub(super) fn remove(
        &self,
        device: &str,
        removal: Removal,
        ended: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        if removal == Removal::Orderly {
            self.ask_for_power_off(device, ended)?;
        }
        let mut inventory = self.inventory();
        let mut state = self.board.lock();
        let (node, endpoint) = state
            .expander_named(device)
            .map(|(node, expander)| (node, expander.endpoint))
            .ok_or_else(|| no_device(device))?;
        let port = slot_of(&state, node).ok_or_else(|| no_slot(device))?;
        let mut effects = at_slot(&mut state, port, |port, out| port.change_card(None, out));
        for (gone, _) in state.hierarchy.remove(node) {
            state.expanders.remove(&gone);
            state.counts.remove(&Responder::Function(gone));
        }
        effects.push((port, Effect::DecodersChanged));
        self.board.perform(state, effects);
        let place = inventory
            .devices()
            .find(|(_, known)| known.name == device)
            .map(|(place, _)| place);
        if let Some(place) = place {
            *inventory = Arc::new(inventory.without_device(&place));
        }
        self.let_go(device, endpoint.0 as usize)
    }

    /// Presses the button of the slot that a device is in, and waits until the guest has switched it off.
    fn ask_for_power_off(&self, device: &str, ended: impl Fn() -> bool) -> Result<(), Failure> {
        let mut state = self.board.lock();
        let (node, _) = state
            .expander_named(device)
            .ok_or_else(|| no_device(device))?;
        let port = slot_of(&state, node).ok_or_else(|| no_slot(device))?;
        if is_off(&state, port) {
            drop(state);
        } else {
            let effects = at_slot(&mut state, port, DownstreamPort::press_attention_button);
            self.board.perform(state, effects);
        }
        let pressed = Instant::now();
        while !self.board.wait_for_slot(LOOK, |state| is_off(state, port)) {
            if ended() || pressed.elapsed() > PATIENCE {
                return Err(Failure::new(
                    FailureKind::Conflict,
                    format!("the guest has not switched off the slot of {device}"),
                    "see why in the guest's log and ask again, or pull it out by surprise",
                ));
            }
        }
        self.board.power_off_device(node);
        Ok(())
    }
}

/// Does something at the slot of a port, and gives what the port asks for.
fn at_slot(
    state: &mut State,
    port: NodeId,
    act: impl FnOnce(&mut DownstreamPort, &mut Vec<Effect>),
) -> Effects {
    let mut effects = Effects::new();
    state.hierarchy.with(port, &mut effects, |model, out| {
        if let Device::DownstreamPort(port) = model {
            act(port, out);
        }
    });
    effects
}

/// The port with a slot that a device is in.
fn slot_of(state: &State, device: NodeId) -> Option<NodeId> {
    let Parent::Bridge(port) = state.hierarchy.parent(device)? else {
        return None;
    };
    match state.hierarchy.get(port)? {
        Device::DownstreamPort(model) => model.slot().map(|_| port),
        _ => None,
    }
}

fn is_off(state: &State, port: NodeId) -> bool {
    match state.hierarchy.get(port) {
        Some(Device::DownstreamPort(port)) => port.slot().is_some_and(|slot| !slot.powered),
        _ => false,
    }
}

fn no_port(port: &str) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("there is no port {port}"),
        "take a name from the tree",
    )
}

fn no_device(device: &str) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("there is no device {device}"),
        "take a name from the tree",
    )
}

fn no_slot(what: &str) -> Failure {
    Failure::new(
        FailureKind::Conflict,
        format!("{what} has no slot with hot-plug"),
        "set hotplug = true at its port and start the machine anew",
    )
}

fn bad_device(mistakes: &crate::config::Diagnostics) -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        mistakes.to_string(),
        "nothing was added",
    )
}

fn host_refuses(error: Error) -> Failure {
    Failure::new(
        FailureKind::Internal,
        error.to_string(),
        "see to it on the host, and look at the tree",
    )
}
