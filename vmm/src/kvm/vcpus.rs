//! The processors of a machine as threads: start, pause, resume, stop.
//!
//! A pause or stop is a state under a lock and a signal to each thread. The signal's handler sets
//! `immediate_exit`, so that it does not matter whether it strikes inside the guest, in a device
//! model or just before `KVM_RUN`: the thread finishes the access at hand, leaves the guest and
//! looks at the state.

use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::Cap;
use serde::Serialize;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::cpuid::{CpuProfile, HypervisorBit};
use super::crash::{Cause, Crash};
use super::exits::ExitCounts;
use super::registers::EntryState;
use super::vcpu::{Bus, Step, SystemRequest, Vcpu};
use super::vm::Vm;
use super::{msr, poison};
use crate::error::{Error, HostContext, KvmContext, Result};

/// How a run of the machine ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The guest switched itself off.
    PowerOff,
    /// The guest wants to start anew.
    Reset,
    /// The user ended it.
    Quit,
    /// The guest died.
    Dead(Box<Crash>),
}

impl From<SystemRequest> for Outcome {
    fn from(request: SystemRequest) -> Self {
        match request {
            SystemRequest::PowerOff => Self::PowerOff,
            SystemRequest::Reset => Self::Reset,
        }
    }
}

/// What the processors do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// They run.
    Running,
    /// They stand still and can go on.
    Paused,
    /// They have ended or are about to.
    Stopped,
}

/// The processors of a machine, before it starts.
#[derive(Debug)]
pub struct Vcpus {
    vcpus: Vec<Vcpu>,
    tsc_khz: Option<u32>,
    control: VcpuControl,
}

impl Vcpus {
    /// Makes the `count` processors of `vm`, with local APIC ids from 0 on. `memory` is for the
    /// tables of the entry state and for crash dumps.
    ///
    /// # Errors
    /// [`Error::MissingCapability`] if KVM has fewer, [`Error::Kvm`] with the call that failed.
    pub fn new(
        vm: &Vm,
        count: u8,
        hypervisor: HypervisorBit,
        memory: &GuestMemoryMmap,
    ) -> Result<Self> {
        if usize::from(count) > vm.kvm().get_max_vcpus() {
            return Err(Error::MissingCapability("room for so many vCPUs"));
        }
        // A guest that takes itself for bare metal probes registers that only bare metal has.
        if hypervisor == HypervisorBit::Hidden && vm.kvm().check_extension(Cap::X86UserSpaceMsr) {
            msr::exit_on_unknown(vm.fd())?;
        }
        let fds = (0..count)
            .map(|id| {
                vm.fd()
                    .create_vcpu(u64::from(id))
                    .attempting("create a vCPU")
            })
            .collect::<Result<Vec<_>>>()?;
        let tsc_khz = fds
            .first()
            .and_then(|fd| fd.get_tsc_khz().ok())
            .filter(|&frequency| frequency != 0);
        let profile = CpuProfile::new(vm.kvm(), count, hypervisor, tsc_khz)?;
        let vcpus = (0..count)
            .zip(fds)
            .map(|(id, fd)| Vcpu::new(vm, fd, id, &profile, memory.clone()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            vcpus,
            tsc_khz,
            control: VcpuControl::default(),
        })
    }

    /// Frequency of the guest's TSC in kHz, if the host's is stable.
    #[must_use]
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    /// Lets [`VcpuControl::move_clock`] move the guest's time stamp counters.
    ///
    /// # Errors
    /// [`Error::MissingCapability`] if the host's is not stable, [`Error::Kvm`] if KVM cannot.
    pub fn take_clock(&mut self) -> Result<()> {
        let khz = self.tsc_khz.ok_or(Error::MissingCapability(
            "time stamp counter of a known frequency",
        ))?;
        let base = super::warp::base();
        self.vcpus
            .iter_mut()
            .try_for_each(|vcpu| vcpu.take_tsc(base, khz))
    }

    /// The handle by which others pause, resume and stop the processors.
    #[must_use]
    pub fn control(&self) -> VcpuControl {
        self.control.clone()
    }

    /// Puts the first processor at `entry` and starts all of them.
    ///
    /// # Errors
    /// [`Error::Kvm`] if the registers are refused, [`Error::Host`] if a thread cannot start; those
    /// that did are stopped.
    pub fn start(self, entry: EntryState, bus: &Arc<dyn Bus>) -> Result<VcpuControl> {
        register_signal_handler(SIGRTMIN(), on_kick).attempting("handle the vCPUs' signal")?;
        poison::catch()?;
        if let Some(first) = self.vcpus.first() {
            first.enter(entry)?;
        }
        for vcpu in self.vcpus {
            if let Err(error) = self.control.spawn(vcpu, Arc::clone(bus)) {
                self.control.finish(Outcome::Quit);
                let _ = self.control.wait();
                return Err(error);
            }
        }
        Ok(self.control)
    }
}

/// The processors of a machine while they run. Clones are handles to the same processors.
#[derive(Clone, Debug, Default)]
pub struct VcpuControl(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified on every change of `state`.
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    exits: ExitCounts,
    /// How far the guest's time stamp counters are ahead of the host's time, ns.
    ahead: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The user wants them to stand still.
    paused: bool,
    /// So does whoever lets the guest lose time.
    held: bool,
    /// Since when all of them have stood still.
    still_since: Option<Instant>,
    /// For how long they did before.
    stood_still: Duration,
    /// Threads that have not ended.
    live: usize,
    /// Threads that stand still.
    parked: usize,
    /// Set once; the first reason to stop is the one that counts.
    outcome: Option<Outcome>,
}

impl VcpuControl {
    /// Stops the guest's time. When this returns no vCPU executes a guest instruction or is inside
    /// a device model. The caller must hold no lock that the bus takes, and not be a vCPU itself.
    pub fn pause(&self) {
        self.stand_still(|state| state.paused = true);
    }

    /// Lets the guest go on, unless it is held as well.
    pub fn resume(&self) {
        self.go_on(|state| state.paused = false);
    }

    /// As [`Self::pause`], for a moment, and independent of it: a held machine is not said to be
    /// paused, and one that is paused stays so when it is released.
    pub fn hold(&self) {
        self.stand_still(|state| state.held = true);
    }

    /// Ends what [`Self::hold`] began.
    pub fn release(&self) {
        self.go_on(|state| state.held = false);
    }

    /// Moves the guest's time stamp counters forward by so many ns, which [`Vcpus::take_clock`] has made
    /// possible. The processors must be held, and take note when they go on.
    pub fn move_clock(&self, ns: u64) {
        self.0.ahead.fetch_add(ns, Ordering::Relaxed);
    }

    fn stand_still(&self, why: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        why(&mut state);
        self.0.kick();
        while state.stands_still() && state.outcome.is_none() && state.parked < state.live {
            state = self.0.wait_for_change(state);
        }
        if state.stands_still() {
            state.still_since.get_or_insert_with(Instant::now);
        }
    }

    fn go_on(&self, why: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        why(&mut state);
        if !state.stands_still()
            && let Some(since) = state.still_since.take()
        {
            state.stood_still += since.elapsed();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// For how long all processors together have stood still so far, paused or held.
    #[must_use]
    pub fn stood_still(&self) -> Duration {
        let state = self.0.lock();
        let now = state.still_since.map(|since| since.elapsed());
        state.stood_still + now.unwrap_or_default()
    }

    /// CPU time of all processors together: what halted ones and waiting ones leave out.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let threads = self.0.threads();
        threads.iter().filter_map(cpu_time).sum()
    }

    /// What the processors do now.
    #[must_use]
    pub fn state(&self) -> RunState {
        let state = self.0.lock();
        match (&state.outcome, state.paused) {
            (Some(_), _) => RunState::Stopped,
            (None, true) => RunState::Paused,
            (None, false) => RunState::Running,
        }
    }

    /// Ends the run, unless it has ended already. Returns at once; may be called from anywhere.
    pub fn finish(&self, outcome: Outcome) {
        self.0.lock().outcome.get_or_insert(outcome);
        self.0.changed.notify_all();
        self.0.kick();
    }

    /// Waits until the run has ended and all threads are gone, and says how it ended.
    #[must_use]
    pub fn wait(&self) -> Outcome {
        let mut state = self.0.lock();
        let outcome = loop {
            match &state.outcome {
                Some(outcome) if state.live == 0 => break outcome.clone(),
                _ => state = self.0.wait_for_change(state),
            }
        };
        drop(state);
        let threads = std::mem::take(&mut *self.0.threads());
        for thread in threads {
            // A panic has become the outcome already.
            let _ = thread.join();
        }
        outcome
    }

    /// Exits by cause.
    #[must_use]
    pub fn exits(&self) -> &ExitCounts {
        &self.0.exits
    }

    fn spawn(&self, vcpu: Vcpu, bus: Arc<dyn Bus>) -> Result<()> {
        let control = self.clone();
        let id = vcpu.id();
        self.0.lock().live += 1;
        // Held until the thread is in the list: a kick must reach every thread that runs.
        let mut threads = self.0.threads();
        let thread = thread::Builder::new()
            .name(format!("vcpu{id}"))
            .spawn(move || {
                let _ended = Ended {
                    control: &control,
                    id,
                };
                control.run(vcpu, &*bus);
            });
        match thread {
            Ok(thread) => {
                threads.push(thread);
                Ok(())
            }
            Err(error) => {
                drop(threads);
                self.0.lock().live -= 1;
                Err(error).trying(|| format!("start the thread of vCPU {id}"))
            }
        }
    }

    /// The life of one vCPU thread.
    fn run(&self, mut vcpu: Vcpu, bus: &dyn Bus) {
        let _kickable = Kickable::new(&mut vcpu);
        poison::enter_vcpu_thread();
        while self.0.may_run() {
            // Nobody has executed an instruction since the clock was moved.
            vcpu.follow_clock(self.0.ahead.load(Ordering::Relaxed));
            loop {
                match vcpu.step(bus, &self.0.exits) {
                    Step::Continue => {}
                    Step::Kicked => break,
                    Step::Request(request) => {
                        self.finish(request.into());
                        break;
                    }
                    Step::Dead(crash) => {
                        self.finish(Outcome::Dead(crash));
                        break;
                    }
                }
            }
            // Before the state is read again: a later kick must not be lost.
            vcpu.clear_immediate_exit();
        }
    }
}

impl State {
    /// Whether the processors are to stand still.
    fn stands_still(&self) -> bool {
        self.paused || self.held
    }
}

/// CPU time of a thread; `None` for one that has ended.
fn cpu_time(thread: &JoinHandle<()>) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the handle keeps the thread from being joined, so its id is valid; both calls write
    // into variables of ours and fail for a thread that has ended.
    let found = unsafe {
        libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (seconds, nanoseconds) = (time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?);
    found.then(|| Duration::new(seconds, nanoseconds))
}

impl Shared {
    /// Stands still while paused or held; false once the run has ended.
    fn may_run(&self) -> bool {
        let mut state = self.lock();
        if state.stands_still() {
            state.parked += 1;
            self.changed.notify_all();
            while state.stands_still() && state.outcome.is_none() {
                state = self.wait_for_change(state);
            }
            state.parked -= 1;
        }
        state.outcome.is_none()
    }

    fn kick(&self) {
        for thread in self.threads().iter() {
            // Fails only for a thread that has ended.
            let _ = thread.kill(SIGRTMIN());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a vCPU thread has ended, however it did.
struct Ended<'a> {
    control: &'a VcpuControl,
    id: u8,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let crash = Crash::new(self.id, Cause::Panicked);
            self.control.finish(Outcome::Dead(Box::new(crash)));
        }
        self.control.0.lock().live -= 1;
        self.control.0.changed.notify_all();
    }
}

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null in other threads.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// While it lives, a signal to this thread makes its vCPU leave the guest.
struct Kickable;

impl Kickable {
    fn new(vcpu: &mut Vcpu) -> Self {
        IMMEDIATE_EXIT.set(vcpu.immediate_exit());
        Self
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: the flag lies in the vCPU's shared page, which is mapped until the vCPU is
        // dropped; `Kickable` clears the pointer before that, in the thread that this handler
        // interrupts. One byte, written as a whole.
        unsafe { flag.write_volatile(1) };
    }
}
