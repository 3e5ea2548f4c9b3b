//! The end of a machine's power: global persistent flush (CXL 3.1, section 9.8).

use std::thread;
use std::time::{Duration, Instant};

use cxl::gpf::{Phase2, Timeouts};
use devices::Device;
use pci::NodeId;

use super::{Board, Effects, State};

/// How often to see whether the accelerators have stopped.
const LOOK: Duration = Duration::from_millis(1);

impl Board {
    /// The power of the machine goes: what has caches stops, `write` brings what media were given to where it stays, and
    /// expanders flush.
    ///
    /// # Errors
    /// That of `write`.
    pub fn power_off<E>(&self, write: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let caches_lost = !self.stop_accelerators();
        if caches_lost {
            log::warn!(
                "an accelerator has not stopped in time: persistent expanders count a dirty shutdown"
            );
        }
        let written = write();
        let nodes: Vec<NodeId> = self.lock().expanders.keys().copied().collect();
        for node in nodes {
            let patience = patience(&self.lock(), node).phase2;
            let phase2 = Phase2 {
                caches_lost,
                patience,
                written: written.is_ok(),
            };
            self.flush(node, phase2);
        }
        written
    }

    /// The power of one device goes, which its host has let go of: no port waits for it.
    pub fn power_off_device(&self, node: NodeId) {
        let phase2 = Phase2 {
            caches_lost: false,
            patience: u64::MAX,
            written: true,
        };
        self.flush(node, phase2);
    }

    /// Phase 1: accelerators take up nothing more, and have ended what they were at before the ports above them give up.
    fn stop_accelerators(&self) -> bool {
        let begin = Instant::now();
        for handle in self.lock().accelerators.values() {
            handle.pause();
        }
        loop {
            let late = {
                let state = self.lock();
                let late = state.busy_accelerators();
                late.iter().map(|node| patience(&state, *node).phase1).min()
            };
            match late {
                None => return true,
                Some(patience) if begin.elapsed() >= Duration::from_nanos(patience) => {
                    return false;
                }
                Some(_) => thread::sleep(LOOK),
            }
        }
    }

    /// Phase 2, as it comes to one device.
    fn flush(&self, node: NodeId, phase2: Phase2) {
        let mut state = self.lock();
        let mut effects = Effects::new();
        state.hierarchy.with(node, &mut effects, |model, out| {
            if let Device::Type3(device) = model {
                device.power_off(phase2, out);
            }
        });
        self.perform(state, effects);
    }
}

/// How long the ports above a device wait for it.
fn patience(state: &State, node: NodeId) -> Timeouts {
    const NOBODY_WAITS: Timeouts = Timeouts {
        phase1: 0,
        phase2: 0,
    };
    let path = state.hierarchy.path(node).into_iter();
    let ports = path.filter_map(|node| match state.hierarchy.get(node) {
        Some(Device::DownstreamPort(port)) => Some(port.gpf_timeouts()),
        _ => None,
    });
    ports.reduce(Timeouts::and).unwrap_or(NOBODY_WAITS)
}
