//! Makes the guest feel what its CXL memory costs. Off unless the configuration names a clock.
//!
//! The model is `memsim`'s, on the topology that the configuration describes ([`model`]). Access counts come from sampled
//! page faults on the ranges that the CXL windows show ([`sampler`]). Once in an epoch it is reckoned by how much longer
//! the epoch would have been ([`reckoner`]), and all vCPUs stand still together for that long, or the guest's clocks are
//! moved forward by it ([`pacer`]). What cannot be lost yet stays owed; nothing is dropped or clamped.
//!
//! Machines whose expanders have one backing (`shared = true`) contend for the expander's link and its media: they tell
//! each other what they ask for ([`load`]), and each reckons with what is left for it. What is above that link is a
//! host's own.

mod area;
mod load;
mod model;
mod neighbours;
mod pacer;
mod reckoner;
mod sampler;
mod walks;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cxl::decode::EndpointId;
use memsim::machine;

use self::area::Area;
use self::neighbours::Neighbours;
use self::pacer::{Loss, Pacer, Shared};
use self::reckoner::{Host, Reckoner};
use self::sampler::{Costs, Sampler};
use crate::board::Board;
use crate::config::{Clock, Config};
use crate::control;
use crate::error::{Error, HostContext, Result};
use crate::kvm::{PageCosts, Presence, Vcpus, Vm, clock_moves, page_costs};
use crate::windows::{Shown, Windows};

/// The timing of a machine that runs; ends when dropped.
#[derive(Debug)]
pub struct Timing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Timing {
    /// Begins to time a machine, if its configuration says so. Measures first what the host's own memory and a sampled
    /// page cost here, which takes about a second.
    ///
    /// # Errors
    /// [`Error::Timing`](crate::Error::Timing) for what cannot be modelled, [`Error::Host`](crate::Error::Host) or
    /// [`Error::Kvm`](crate::Error::Kvm) for what this host does not let be measured.
    pub fn start(
        config: &Config,
        vm: &Arc<Vm>,
        board: &Arc<Board>,
        windows: &Arc<Windows>,
        vcpus: &mut Vcpus,
    ) -> Result<Option<Self>> {
        let settings = config.timing;
        let (clock, loss) = match settings.clock {
            Clock::Off => return Ok(None),
            Clock::Real => ("real", Loss::StandStill),
            Clock::Warp => ("warp", move_clocks(vm, board, vcpus)?),
        };
        let topology = model::topology(config)?;
        let last_level = machine::caches().last().map_or(0, |cache| cache.size);
        let local_ns = match settings.local_latency {
            Some(ns) => f64::from(ns),
            None => machine::local_latency(last_level),
        };
        let costs = page_costs()?;
        let host = Host {
            local_ns,
            parallelism: settings.parallelism.map(f64::from),
            vcpus: f64::from(config.machine.vcpus),
        };
        let paths = topology.hosts.iter().flat_map(|host| &host.paths);
        let devices = paths.map(|path| control::TimedDevice {
            device: topology.expanders[path.expander].name.clone(),
            idle_latency: topology.idle_read_ns(path),
            ..Default::default()
        });
        let facts = control::Timing {
            clock: clock.into(),
            topology: model::text(config),
            source: source(&costs),
            local_latency_measured: settings.local_latency.is_none(),
            devices: devices.collect(),
            ..Default::default()
        };
        let shared = Arc::new(Shared::default());
        let pacer = Pacer {
            shared: Arc::clone(&shared),
            vcpus: vcpus.control(),
            shown: {
                let windows = Arc::clone(windows);
                Box::new(move || areas(&windows))
            },
            pages: Box::new(Presence::new(vm.memslots())?),
            sampler: Sampler::new(Costs {
                take_away: costs.take_away.as_nanos() as f64,
                visit: costs.visit.as_nanos() as f64,
            }),
            sampled: 0.0,
            reckoner: Reckoner::new(&topology, host),
            neighbours: Neighbours::new(config)?,
            epoch: Duration::from_nanos(settings.epoch),
            loss,
            cache: settings.cache.unwrap_or(last_level),
            counted: {
                let board = Arc::downgrade(board);
                Box::new(move |path, lines| {
                    let endpoint = u32::try_from(path).map(EndpointId);
                    if let (Some(board), Ok(endpoint)) = (board.upgrade(), endpoint) {
                        board.count_reads(endpoint, lines);
                    }
                })
            },
            told: Vec::new(),
            facts,
        };
        let thread = thread::Builder::new()
            .name("timing".into())
            .spawn(move || pacer.run())
            .trying(|| "start the thread of the timing".into())?;
        Ok(Some(Self {
            shared,
            thread: Some(thread),
        }))
    }

    /// What the guest was made to feel so far.
    #[must_use]
    pub fn report(&self) -> control::Timing {
        self.shared.report()
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the timing has ended early");
        }
    }
}

/// Takes over the guest's clocks: its time stamp counters, the paravirtual clock, and the PM timer, by which a kernel
/// watches over the others. Timers that count by themselves, such as the PIT, go on with the host.
fn move_clocks(vm: &Arc<Vm>, board: &Arc<Board>, vcpus: &mut Vcpus) -> Result<Loss> {
    if !clock_moves()? {
        return Err(Error::Timing(
            "this host's KVM cannot move a guest's time stamp counter; write timing.clock = \"real\"".into(),
        ));
    }
    vcpus.take_clock()?;
    let (vm, board, vcpus) = (Arc::clone(vm), Arc::downgrade(board), vcpus.control());
    Ok(Loss::MoveClocks(Box::new(move |ns| {
        vcpus.move_clock(ns);
        if let Err(error) = vm.move_clock(ns) {
            log::error!("{error}");
        }
        if let Some(board) = board.upgrade() {
            board.move_clock(ns);
        }
    })))
}

/// What the windows show. A device's number is that of its path in the model.
fn areas(windows: &Windows) -> Vec<Area> {
    let area = |shown: Shown| {
        let members = shown.mapping.members.iter();
        let ways = members.map(|member| member.endpoint.0 as usize).collect();
        Area::new(shown.mapping.base, shown.mapping.size, ways)
    };
    windows.shown().into_iter().map(area).collect()
}

fn source(costs: &PageCosts) -> String {
    format!(
        "sampled page faults: {:.1} µs to take a page away, {:.1} µs for the guest to come for it",
        costs.take_away.as_secs_f64() * 1e6,
        costs.visit.as_secs_f64() * 1e6
    )
}
