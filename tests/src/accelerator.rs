//! Guests with an accelerator: their hardware, how their programs are started, and what the device has cost.

use crate::guest::Guest;
use anyhow::{Context, Result};

/// Shell words for a program of an ordinary user, and for the programs of CUDA in the image. The path is there because the shell
/// has a lesser program of that name in itself.
pub const USER: &str = r#"
user="/usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
kernels="$user cuda-kernels /usr/share/memu/ptx"
device="$user cuda-device /usr/share/memu/ptx"
"#;

/// Three of them, and an expander. Of the second, each access to its memory is counted; of the third, the pages that change
/// hands are. The watchdogs are off: some kernels wait for a test.
pub const HARDWARE: &str = r#"
[machine]
memory = "1GiB"
vcpus = 2

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 0x1
memory = "512MiB"
watchdog = 0

[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type2"
name = "gpu1"
serial = 0x2
memory = "256MiB"
coherence = "trapped"
watchdog = 0

[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type2"
name = "gpu2"
serial = 0x3
memory = "256MiB"
coherence = "observed"
watchdog = 0

[[host_bridge.root_port]]
name = "rp3"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 0x4
volatile = "256MiB"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
"#;

/// The first accelerator of a guest.
///
/// # Errors
/// It has none, or does not answer.
pub fn gpu(guest: &Guest) -> Result<serde_json::Value> {
    let all = guest.control(&["gpu"])?;
    all.get(0).cloned().context("no accelerator")
}

/// What the device has cost so far: exits that the VMM saw, doorbells, which KVM handles by itself, and launches.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Exits to the VMM.
    pub exits: u64,
    /// Exits to KVM alone.
    pub doorbells: u64,
    /// Kernels.
    pub launches: u64,
}

impl Cost {
    /// Up to now, of the clients that there are.
    ///
    /// # Errors
    /// The guest does not answer, or nobody has used its accelerator.
    pub fn now(guest: &Guest) -> Result<Self> {
        let exits = guest.control(&["exits"])?["devices"]["gpu0"]
            .as_u64()
            .context("the accelerator had no exits")?;
        let view = gpu(guest)?;
        let sessions = view["sessions"].as_array().context("no sessions")?;
        let mut cost = Self {
            exits,
            doorbells: 0,
            launches: 0,
        };
        for session in sessions {
            cost.launches += session["launches"].as_u64().unwrap_or(0);
            let queues = session["queues"].as_array().context("no queues")?;
            let doorbells = queues
                .iter()
                .filter_map(|queue| queue["doorbells"].as_u64());
            cost.doorbells += doorbells.sum::<u64>();
        }
        Ok(cost)
    }

    /// Since an earlier time, with the same clients.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            exits: self.exits - before.exits,
            doorbells: self.doorbells - before.doorbells,
            launches: self.launches - before.launches,
        }
    }
}
