//! The target: a process tree that runs and stands still as a whole.
//!
//! Every thread is traced. A traced thread can be stopped and let go without a signal, so the target
//! cannot see it, ignore it or mask it; threads and children are caught at birth; and the kernel
//! ends the tree should this program die, so nothing is left stopped behind.

use std::collections::BTreeMap;
use std::hint;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::awake::Awake;
use crate::maps;
use crate::sys::{self, Resume, Status, Tid};

/// How long a thread may take to stop before it counts as busy inside the kernel, where it does not
/// access its memory anyway.
const STOP_PATIENCE: Duration = Duration::from_millis(20);
/// Part of an epoch for which the tree must have been on a CPU before it is stopped again, if it has anything to do, and how
/// long to wait for that. Stops that come faster than a busy machine gives it a CPU, those of a timer of its own among them,
/// would else keep it from ever getting on.
const LEAST_PROGRESS: u32 = 4;
const PROGRESS_PATIENCE: Duration = Duration::from_secs(1);
/// How late one who sleeps may wake up, where its CPU has to wake up, too: at every stop, beyond what is owed.
const LATE: Duration = Duration::from_micros(300);
/// Threads whose CPUs are kept awake while the tree stands still.
const ASKED: usize = 64;
/// How long to try to stop what is to be let go of: what is still traced when this program ends, the kernel ends too.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// One traced thread.
#[derive(Debug, Clone)]
pub struct Thread {
    /// The process that it belongs to.
    pub process: Tid,
    /// Whether it is stopped, and for whom.
    pub state: State,
    /// Signal that it gets when it goes on; 0 for none.
    pub signal: i32,
    /// Further ones, which are sent to it then.
    pub later: Vec<i32>,
}

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// On its own.
    Running,
    /// Stopped by us, or with an event that it reported.
    Stopped,
    /// Stopped by job control; it is not ours to let go.
    Suspended,
}

/// What an access source hears of the target while it runs.
pub trait Watch {
    /// A thread was not allowed to access an address. Returns whether that was the source's doing;
    /// then the thread goes on, otherwise it gets its signal.
    fn fault(&mut self, tree: &mut Tree, tid: Tid, address: u64) -> io::Result<bool>;
    /// A thread is about to enter the kernel, by a system call if `call`, else for a signal handler.
    fn enters_kernel(&mut self, tree: &mut Tree, tid: Tid, call: bool) -> io::Result<()>;
    /// Whether threads of a process must report system calls.
    fn wants_calls(&self, process: Tid) -> bool;
    /// A process has become another program, or has ended.
    fn gone(&mut self, process: Tid);
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    leader: Tid,
    threads: BTreeMap<Tid, Thread>,
    ending: Option<Status>,
    held: bool,
    resumed: Instant,
    stopped: Instant,
    ran: Duration,
    /// Time that each process had been on a CPU when it was last looked at, and the sum of all growth since.
    cpu_seen: BTreeMap<Tid, Duration>,
    cpu: Duration,
    awake: Awake,
}

impl Tree {
    /// Starts a command, held at its first instruction, bound to `cpus` unless there are none.
    pub fn launch(command: Command, cpus: &[usize]) -> io::Result<Self> {
        let leader = sys::spawn(command)?;
        if !cpus.is_empty() {
            sys::set_affinity(leader, cpus)?;
        }
        let thread = Thread {
            process: leader,
            state: State::Stopped,
            signal: 0,
            later: Vec::new(),
        };
        Ok(Self {
            leader,
            threads: BTreeMap::from([(leader, thread)]),
            ending: None,
            held: true,
            resumed: Instant::now(),
            stopped: Instant::now(),
            ran: Duration::ZERO,
            cpu_seen: BTreeMap::new(),
            cpu: Duration::ZERO,
            awake: Awake::default(),
        })
    }

    /// The process that was started.
    pub fn leader(&self) -> Tid {
        self.leader
    }

    /// How the process that was started has ended, once it has.
    pub fn ending(&self) -> Option<Status> {
        self.ending
    }

    /// All threads.
    pub fn threads(&self) -> impl Iterator<Item = (Tid, &Thread)> {
        self.threads.iter().map(|(&tid, thread)| (tid, thread))
    }

    /// All processes, each once.
    pub fn processes(&self) -> Vec<Tid> {
        let mut processes: Vec<Tid> = self.threads.values().map(|thread| thread.process).collect();
        processes.sort_unstable();
        processes.dedup();
        processes
    }

    /// One thread.
    pub fn thread(&self, tid: Tid) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    /// A thread of a process that is stopped by us.
    pub fn stopped_thread(&self, process: Tid) -> Option<Tid> {
        self.threads()
            .find(|(_, thread)| thread.process == process && thread.state == State::Stopped)
            .map(|(tid, _)| tid)
    }

    /// Whether every thread of a process is stopped by us.
    pub fn is_stopped(&self, process: Tid) -> bool {
        self.threads
            .values()
            .filter(|thread| thread.process == process)
            .all(|thread| thread.state == State::Stopped)
    }

    /// How long the tree has been free to run.
    pub fn ran(&self) -> Duration {
        if self.held {
            self.ran
        } else {
            self.ran + self.resumed.elapsed()
        }
    }

    /// When the tree was stopped most lately.
    pub fn stopped_at(&self) -> Instant {
        self.stopped
    }

    /// Time that the tree has been on CPUs.
    pub fn cpu(&mut self) -> Duration {
        for process in self.processes() {
            if let Some(now) = sys::cpu_time(process) {
                let before = self.cpu_seen.insert(process, now).unwrap_or_default();
                self.cpu += now.saturating_sub(before);
            }
        }
        self.cpu
    }

    /// Lets the tree run for an epoch, or longer where it has got nowhere by then.
    pub fn run(&mut self, watch: &mut dyn Watch, epoch: Duration) -> io::Result<()> {
        let (start, before) = (Instant::now(), self.cpu());
        self.let_go(watch)?;
        loop {
            self.run_until(watch, Instant::now() + epoch)?;
            let got_on = self.cpu() - before >= epoch / LEAST_PROGRESS;
            if got_on || self.ending.is_some() || start.elapsed() >= PROGRESS_PATIENCE {
                return Ok(());
            }
            if !self.threads.keys().any(|&tid| maps::is_busy(tid)) {
                return Ok(());
            }
        }
    }

    /// Lets all go on that were stopped.
    fn let_go(&mut self, watch: &dyn Watch) -> io::Result<()> {
        self.held = false;
        self.awake.rest();
        self.resumed = Instant::now();
        let stopped: Vec<Tid> = self
            .threads
            .iter()
            .filter(|(_, thread)| thread.state == State::Stopped)
            .map(|(&tid, _)| tid)
            .collect();
        for tid in stopped {
            self.release(watch, tid)?;
        }
        Ok(())
    }

    /// Answers what happens until a moment, or until the process that was started has ended.
    fn run_until(&mut self, watch: &mut dyn Watch, until: Instant) -> io::Result<()> {
        while self.ending.is_none() {
            self.drain(watch)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ending.is_some() {
                break;
            }
            self.pass_on(sys::wait_signal(left));
        }
        Ok(())
    }

    /// Stops every thread of what outlives the process that was started, even one that is long in the kernel.
    pub fn hold_all(&mut self, watch: &mut dyn Watch) -> io::Result<()> {
        let deadline = Instant::now() + LAST_PATIENCE;
        loop {
            self.hold(watch)?;
            let mut states = self.threads.values().map(|thread| thread.state);
            if !states.any(|state| state == State::Running) || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    /// Stops every thread.
    pub fn hold(&mut self, watch: &mut dyn Watch) -> io::Result<()> {
        if !self.held {
            self.stopped = Instant::now();
            self.ran += self.stopped - self.resumed;
            self.held = true;
        }
        for (&tid, thread) in &self.threads {
            if thread.state == State::Running {
                // One that has just ended is reported by wait.
                tolerate(sys::interrupt(tid))?;
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            self.drain(watch)?;
            let waiting = self
                .threads
                .values()
                .any(|thread| thread.state == State::Running);
            let left = deadline.saturating_duration_since(Instant::now());
            if !waiting || left.is_zero() {
                break;
            }
            self.pass_on(sys::wait_signal(left));
        }
        let threads = self.threads.keys().take(ASKED);
        let cpus = threads.filter_map(|&tid| maps::last_cpu(tid)).collect();
        self.awake.keep(&cpus);
        Ok(())
    }

    /// Stands still until a moment, but answers signals.
    pub fn stand_still(&mut self, until: Instant) {
        while self.ending.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match left.checked_sub(LATE) {
                Some(sleep) => self.pass_on(sys::wait_signal(sleep)),
                None => hint::spin_loop(),
            }
        }
    }

    /// Lets go of whatever outlives the process that was started: it runs on, untraced.
    pub fn detach(&mut self) -> io::Result<()> {
        self.awake.rest();
        for (tid, thread) in std::mem::take(&mut self.threads) {
            if thread.state == State::Stopped {
                for signal in thread.later {
                    tolerate(sys::kill_thread(thread.process, tid, signal))?;
                }
                tolerate(sys::detach(tid, thread.signal))?;
            } else if thread.state == State::Suspended {
                tolerate(sys::interrupt(tid))?;
                if let Ok(Status::Stopped { .. }) = sys::wait_for(tid) {
                    tolerate(sys::detach(tid, libc::SIGSTOP))?;
                }
            }
        }
        Ok(())
    }

    /// A signal for a thread, remembered for when it goes on. Sent anew at once, it would stop the thread again in
    /// whatever is done with it meanwhile.
    pub fn defer_signal(&mut self, tid: Tid, signal: i32) {
        let Some(thread) = self.threads.get_mut(&tid) else {
            return;
        };
        if thread.signal == 0 {
            thread.signal = signal;
        } else if thread.signal != signal && !thread.later.contains(&signal) {
            thread.later.push(signal);
        }
    }

    /// Takes note that a thread has ended while somebody else waited for it.
    pub fn ended(&mut self, watch: &mut dyn Watch, tid: Tid, status: Status) {
        if let Some(thread) = self.threads.remove(&tid)
            && !self
                .threads
                .values()
                .any(|other| other.process == thread.process)
        {
            self.cpu_seen.remove(&thread.process);
            watch.gone(thread.process);
        }
        if tid == self.leader {
            self.ending = Some(status);
        }
    }

    /// Signals to this program go on to the target, except those that the terminal has given it too.
    fn pass_on(&mut self, signal: Option<(i32, bool)>) {
        if let Some((signal, from_process)) = signal
            && signal != libc::SIGCHLD
            && (from_process || signal == libc::SIGHUP || signal == libc::SIGTERM)
            && self.ending.is_none()
            && let Err(error) = sys::kill(self.leader, signal)
        {
            log::warn!("cannot pass signal {signal} on: {error}");
        }
    }

    fn drain(&mut self, watch: &mut dyn Watch) -> io::Result<()> {
        while let Some((tid, status)) = sys::wait_any()? {
            match status {
                Status::Stopped { signal, event } => self.stopped(watch, tid, signal, event)?,
                ended => self.ended(watch, tid, ended),
            }
        }
        Ok(())
    }

    fn stopped(
        &mut self,
        watch: &mut dyn Watch,
        tid: Tid,
        signal: i32,
        event: i32,
    ) -> io::Result<()> {
        // A new thread may report before the one that made it does.
        let process = self
            .threads
            .get(&tid)
            .map_or_else(|| process_of(tid), |thread| thread.process);
        let thread = self.threads.entry(tid).or_insert(Thread {
            process,
            state: State::Stopped,
            signal: 0,
            later: Vec::new(),
        });
        thread.state = State::Stopped;
        match event {
            0 if signal == libc::SIGTRAP | 0x80 => watch.enters_kernel(self, tid, true)?,
            0 => self.signalled(watch, tid, signal)?,
            libc::PTRACE_EVENT_EXEC => {
                let threads = self.threads.iter();
                let others: Vec<Tid> = threads
                    .filter(|(other, t)| t.process == process && **other != tid)
                    .map(|(&t, _)| t)
                    .collect();
                for other in others {
                    self.threads.remove(&other);
                }
                watch.gone(process);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.born(tid)?;
            }
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => {
                thread.state = State::Suspended;
                return tolerate(sys::listen(tid));
            }
            _ => {}
        }
        if !self.held {
            self.release(watch, tid)
        } else if is_inside_call(tid, signal, event)? {
            self.let_finish(tid)
        } else {
            Ok(())
        }
    }

    /// Takes note of what `parent` has just made. Its own first stop may come much later, and until then it would be
    /// forgotten when the tree is let go, and ended with this program.
    fn born(&mut self, parent: Tid) -> io::Result<()> {
        let tid = match sys::newborn(parent) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            tid => tid?,
        };
        // It may have reported before its parent did, and even have ended.
        if is_traced(tid) {
            self.threads.entry(tid).or_insert(Thread {
                process: process_of(tid),
                state: State::Running,
                signal: 0,
                later: Vec::new(),
            });
        }
        Ok(())
    }

    /// Lets a thread out of a system call while the tree is held; it stops again behind it. Where it is now its
    /// registers are not what it will go on with: the kernel has yet to put the call's result into them, so that
    /// no other call can be made in its name.
    fn let_finish(&mut self, tid: Tid) -> io::Result<()> {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.state = State::Running;
            tolerate(sys::interrupt(tid))?;
            tolerate(sys::resume(tid, Resume::Run, 0))?;
        }
        Ok(())
    }

    fn signalled(&mut self, watch: &mut dyn Watch, tid: Tid, signal: i32) -> io::Result<()> {
        if signal == libc::SIGSEGV
            && let Some(address) = sys::forbidden_address(tid)?
            && watch.fault(self, tid, address)?
        {
            return Ok(());
        }
        if watch.wants_calls(self.threads.get(&tid).map_or(tid, |thread| thread.process)) {
            // Whatever the source now does to the thread loses what came with the signal.
            let info = sys::signal_info(tid)?;
            watch.enters_kernel(self, tid, false)?;
            tolerate(sys::set_signal_info(tid, &info))?;
        }
        self.defer_signal(tid, signal);
        Ok(())
    }

    fn release(&mut self, watch: &dyn Watch, tid: Tid) -> io::Result<()> {
        let Some(thread) = self
            .threads
            .get_mut(&tid)
            .filter(|t| t.state == State::Stopped)
        else {
            return Ok(());
        };
        let how = if watch.wants_calls(thread.process) {
            Resume::ToSyscall
        } else {
            Resume::Run
        };
        thread.state = State::Running;
        for signal in std::mem::take(&mut thread.later) {
            tolerate(sys::kill_thread(thread.process, tid, signal))?;
        }
        tolerate(sys::resume(tid, how, std::mem::take(&mut thread.signal)))
    }
}

/// Whether a stop is in the middle of a system call, not before or behind it.
fn is_inside_call(tid: Tid, signal: i32, event: i32) -> io::Result<bool> {
    match event {
        libc::PTRACE_EVENT_FORK
        | libc::PTRACE_EVENT_VFORK
        | libc::PTRACE_EVENT_CLONE
        | libc::PTRACE_EVENT_EXEC => Ok(true),
        // A thread that has just ended is in no call.
        0 if signal == libc::SIGTRAP | 0x80 => match sys::entered_call(tid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            call => Ok(call?.is_some()),
        },
        _ => Ok(false),
    }
}

/// The process that a thread belongs to; itself where that cannot be read any more.
fn process_of(tid: Tid) -> Tid {
    status_of(tid, "Tgid:").unwrap_or(tid)
}

/// Whether somebody traces a thread, which ends with the wait for its end.
fn is_traced(tid: Tid) -> bool {
    status_of(tid, "TracerPid:").is_some_and(|tracer| tracer != 0)
}

/// A number of a thread's status.
fn status_of(tid: Tid, key: &str) -> Option<Tid> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

/// A thread may end at any moment; a request to one that has is no error.
pub fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}
