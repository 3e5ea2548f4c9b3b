//! The thread that samples, reckons, and lets the guest lose time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::area::Area;
use super::neighbours::Neighbours;
use super::reckoner::Reckoner;
use super::sampler::Sampler;
use crate::control;
use crate::kvm::{Pages, RunState, VcpuControl};

/// Debt below which it waits for the next epoch: shorter stops cannot be timed well.
const LEAST_STOP: f64 = 200_000.0;
/// How often to see whether a paused machine goes on, and which ranges are shown.
const IDLE: Duration = Duration::from_millis(10);
const SHOWN: Duration = Duration::from_millis(500);

/// What the thread shares with the others.
#[derive(Debug, Default)]
pub struct Shared {
    stop: Mutex<bool>,
    stopped: Condvar,
    report: Mutex<control::Timing>,
}

impl Shared {
    /// Tells the thread to end.
    pub fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.notify_all();
    }

    /// The books as of the latest epoch.
    pub fn report(&self) -> control::Timing {
        self.lock_report().clone()
    }

    fn lock_report(&self) -> MutexGuard<'_, control::Timing> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; returns whether the thread is to end.
    fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How the guest loses time.
pub enum Loss {
    /// It stands still for it.
    StandStill,
    /// Its clocks are moved forward by so many ns, while it stands still for a moment.
    MoveClocks(Box<dyn Fn(u64) + Send>),
}

/// The thread's own things.
pub struct Pacer {
    pub shared: Arc<Shared>,
    pub vcpus: VcpuControl,
    /// The ranges that the guest sees now.
    pub shown: Box<dyn Fn() -> Vec<Area> + Send>,
    pub pages: Box<dyn Pages>,
    pub sampler: Sampler,
    /// When it had its last turn, by its clock.
    pub sampled: f64,
    pub reckoner: Reckoner,
    /// Those who share its expanders.
    pub neighbours: Neighbours,
    pub epoch: Duration,
    pub loss: Loss,
    /// Bytes of the cache that answers for memory.
    pub cache: u64,
    /// Is told how many lines each path has carried since it was told last.
    pub counted: Box<dyn Fn(usize, u64) + Send>,
    /// How many it was told of.
    pub told: Vec<u64>,
    /// What a report says besides the books.
    pub facts: control::Timing,
}

impl Pacer {
    /// Runs until told to stop.
    pub fn run(mut self) {
        *self.shared.lock_report() = self.report();
        let start = Instant::now();
        let vcpus = self.vcpus.clone();
        let clock = move || start.elapsed().saturating_sub(vcpus.stood_still());
        let mut epoch = (clock(), self.vcpus.cpu_time());
        let mut shown_at: Option<Instant> = None;
        loop {
            if self.vcpus.state() != RunState::Running {
                self.sampler.skip();
                if self.shared.wait(IDLE) {
                    return;
                }
                epoch = (clock(), self.vcpus.cpu_time());
                continue;
            }
            if shown_at.is_none_or(|at| at.elapsed() >= SHOWN) {
                self.sampler.show((self.shown)());
                shown_at = Some(Instant::now());
            }
            let rest = (epoch.0 + self.epoch).saturating_sub(clock());
            let look = self.sample().unwrap_or(rest);
            if self.shared.wait(look.min(rest)) {
                return;
            }
            let now = clock();
            if now < epoch.0 + self.epoch {
                continue;
            }
            let cpu = self.vcpus.cpu_time();
            self.end_of_epoch(now - epoch.0, cpu.saturating_sub(epoch.1));
            epoch = (now, cpu);
        }
    }

    /// Does what is due for the sampler, whose clock is the time that the vCPUs were on a processor: while none is, be it
    /// that the guest is idle or that this very thread is on the only processor, nobody can come for a page. Returns when
    /// to do so again; `None` while that clock stands still.
    fn sample(&mut self) -> Option<Duration> {
        let vcpus = self.vcpus.clone();
        let clock = || vcpus.cpu_time().as_nanos() as f64;
        let due = self.sampler.step(&clock, &*self.pages);
        let now = clock();
        let ran = now - std::mem::replace(&mut self.sampled, now);
        (ran > 0.0).then(|| Duration::from_nanos((due - now) as u64))
    }

    fn end_of_epoch(&mut self, ran: Duration, cpu: Duration) {
        self.sampler.scan(&*self.pages);
        let (ran, cpu) = (ran.as_nanos() as f64, cpu.as_nanos() as f64);
        let paths = self.facts.devices.len();
        let demands = self.sampler.demands(paths, cpu, self.cache);
        self.reckoner
            .epoch(ran, cpu, &demands, &self.neighbours.now());
        // What sampling took from the guest is time that it has lost already.
        self.reckoner.lost(self.sampler.take_cost());
        let (stretch, owed) = (self.reckoner.stretch(), self.reckoner.owed());
        self.neighbours
            .tell(&demands, ran, stretch, owed, self.epoch);
        if self.reckoner.owed() >= LEAST_STOP {
            self.lose(self.reckoner.owed());
        }
        let report = self.report();
        self.tell(&report);
        *self.shared.lock_report() = report;
    }

    /// Tells whole lines; what is left of one is told with the next.
    fn tell(&mut self, report: &control::Timing) {
        self.told.resize(report.devices.len(), 0);
        for (path, (device, told)) in report.devices.iter().zip(&mut self.told).enumerate() {
            let lines = (device.lines as u64).saturating_sub(*told);
            if lines > 0 {
                (self.counted)(path, lines);
                *told += lines;
            }
        }
    }

    /// Lets the guest lose `ns`, all vCPUs together.
    fn lose(&mut self, ns: f64) {
        self.vcpus.hold();
        let lost = match &self.loss {
            Loss::StandStill => {
                let still = Instant::now();
                self.shared.wait(Duration::from_nanos(ns as u64));
                still.elapsed().as_nanos() as f64
            }
            Loss::MoveClocks(move_clocks) => {
                move_clocks(ns as u64);
                ns.floor()
            }
        };
        self.vcpus.release();
        self.reckoner.stood_still(lost);
    }

    fn report(&self) -> control::Timing {
        let facts = &self.facts;
        let mut report = self.reckoner.report();
        report.clock.clone_from(&facts.clock);
        report.topology.clone_from(&facts.topology);
        report.local_latency_measured = facts.local_latency_measured;
        report.source = format!("{}, {} seen", facts.source, self.sampler.visits());
        report.error = self.sampler.error();
        for (device, known) in report.devices.iter_mut().zip(&facts.devices) {
            device.device.clone_from(&known.device);
            device.idle_latency = known.idle_latency;
        }
        report
    }
}
