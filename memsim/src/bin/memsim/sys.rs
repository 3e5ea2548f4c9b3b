//! The system calls that the standard library has no safe form of: tracing, signals, affinity.
//!
//! Everything else in this program is safe code on top of these.

use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// A thread's id, or a process's.
pub type Tid = i32;
/// A thread's general registers.
pub type Registers = libc::user_regs_struct;
/// What comes with a signal.
pub type SignalInfo = libc::siginfo_t;

/// What is traced of a tree: all that it starts; and if memsim dies, the kernel ends the tree, so
/// that nothing is ever left stopped, or with a page that faults.
const OPTIONS: i32 = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

/// Signals that this program waits for instead of being interrupted by.
const AWAITED: [i32; 5] = [
    libc::SIGCHLD,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
];

/// What `wait` says about a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It ended with this exit code.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It stopped. `event` is a `PTRACE_EVENT` or 0.
    Stopped { signal: i32, event: i32 },
}

/// How a stopped thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Freely.
    Run,
    /// To its next system call.
    ToSyscall,
    /// By one instruction.
    Step,
}

/// Starts a command that stops at its first instruction and is then traced with [`OPTIONS`].
pub fn spawn(mut command: Command) -> io::Result<Tid> {
    let nothing = set_of(&[]);
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing; the
    // set is its own.
    unsafe {
        command.pre_exec(move || {
            // The target does not wait for signals as this program does.
            libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut());
            let parent_death = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            if parent_death < 0 || traced < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
    let tid = command.spawn()?.id() as Tid;
    // A seized thread can be interrupted without a signal, one that asked to be traced cannot. So
    // the child is let go into a stop and seized there.
    wait_for(tid)?;
    request(libc::PTRACE_DETACH, tid, 0, libc::SIGSTOP as usize)?;
    wait_stopped_child(tid)?;
    request(libc::PTRACE_SEIZE, tid, 0, OPTIONS as usize)?;
    wait_for(tid)?;
    // SAFETY: sends a signal to a child that has not been waited for to its end; no memory.
    check(unsafe { libc::kill(tid, libc::SIGCONT) }.into())?;
    Ok(tid)
}

/// Starts a command that writes to a pipe as file descriptor `number`. Not traced.
pub fn spawn_with_pipe(mut command: Command, pipe: PipeWriter, number: RawFd) -> io::Result<Child> {
    let source = pipe.as_raw_fd();
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing; the
    // descriptor is open, since the pipe lives until after the fork.
    unsafe {
        command.pre_exec(move || check(libc::dup2(source, number).into()).map(drop));
    }
    command.spawn()
}

/// Lets a stopped thread go on, with a signal if not 0.
pub fn resume(tid: Tid, how: Resume, signal: i32) -> io::Result<()> {
    let how = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToSyscall => libc::PTRACE_SYSCALL,
        Resume::Step => libc::PTRACE_SINGLESTEP,
    };
    request(how, tid, 0, signal as usize)
}

/// Stops a running thread without a signal.
pub fn interrupt(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Leaves a thread in the stop that job control put it in.
pub fn listen(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, tid, 0, 0)
}

/// Ends the tracing of a stopped thread, which goes on, with a signal if not 0.
pub fn detach(tid: Tid, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, signal as usize)
}

/// The thread that a stopped thread has just made, at the event that says so.
pub fn newborn(tid: Tid) -> io::Result<Tid> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message as usize)?;
    Tid::try_from(message).map_err(io::Error::other)
}

/// Registers of a stopped thread.
pub fn registers(tid: Tid) -> io::Result<Registers> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, tid, 0, &raw mut registers as usize)?;
    Ok(registers)
}

/// Changes the registers of a stopped thread.
pub fn set_registers(tid: Tid, registers: &Registers) -> io::Result<()> {
    request(libc::PTRACE_SETREGS, tid, 0, &raw const *registers as usize)
}

/// The system call at whose entry a thread is stopped, as number and arguments; `None` when it is
/// stopped at the exit of one.
pub fn entered_call(tid: Tid) -> io::Result<Option<(u64, [u64; 6])>> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    request(
        libc::PTRACE_GET_SYSCALL_INFO,
        tid,
        size,
        &raw mut info as usize,
    )?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: at an entry the kernel fills in this member of the union.
    let entry = unsafe { info.u.entry };
    Ok(Some((entry.nr, entry.args)))
}

/// What a thread that stopped with a signal is told about it.
pub fn signal_info(tid: Tid) -> io::Result<SignalInfo> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: SignalInfo = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETSIGINFO, tid, 0, &raw mut info as usize)?;
    Ok(info)
}

/// Changes what a thread will be told about the signal that it is resumed with.
pub fn set_signal_info(tid: Tid, info: &SignalInfo) -> io::Result<()> {
    request(libc::PTRACE_SETSIGINFO, tid, 0, &raw const *info as usize)
}

/// Signals that tell of a thread's own instruction, and must find it at once.
const OWN: [i32; 6] = [
    libc::SIGTRAP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSYS,
];

/// Signals that a stopped thread blocks, a bit for each.
pub fn blocked_signals(tid: Tid) -> io::Result<u64> {
    let mut mask = 0u64;
    let size = size_of_val(&mask);
    request(libc::PTRACE_GETSIGMASK, tid, size, &raw mut mask as usize)?;
    Ok(mask)
}

/// Lets a stopped thread block these signals.
pub fn block(tid: Tid, mask: u64) -> io::Result<()> {
    let size = size_of_val(&mask);
    request(libc::PTRACE_SETSIGMASK, tid, size, &raw const mask as usize)
}

/// `mask`, and all signals that come from outside of a thread.
pub fn and_others(mask: u64) -> u64 {
    let own = OWN.iter().map(|signal| 1u64 << (signal - 1));
    mask | !own.fold(0, |all, bit| all | bit)
}

/// The address at which a thread that stopped with SIGSEGV was not allowed to access its own page;
/// `None` when the signal has another cause.
pub fn forbidden_address(tid: Tid) -> io::Result<Option<u64>> {
    /// `si_code` of an access that the page's protection forbids.
    const SEGV_ACCERR: i32 = 2;
    let info = signal_info(tid)?;
    if info.si_signo != libc::SIGSEGV || info.si_code != SEGV_ACCERR {
        return Ok(None);
    }
    // SAFETY: for SIGSEGV the kernel has filled in the address field of the union.
    Ok(Some(unsafe { info.si_addr() } as u64))
}

/// Whether the signal that a thread stopped with tells of an instruction that could not be executed.
pub fn is_fault(tid: Tid, signal: i32) -> io::Result<bool> {
    // The kernel's own codes are positive; a signal that a process has sent has none of them.
    Ok(matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL
    ) && signal_info(tid)?.si_code > 0)
}

/// What happened to any child or traced thread, if anything.
pub fn wait_any() -> io::Result<Option<(Tid, Status)>> {
    let mut status = 0;
    // SAFETY: the status is ours to be written to.
    let tid =
        check(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) }.into());
    match tid {
        Ok(0) => Ok(None),
        Ok(tid) => Ok(Some((tid as Tid, decode(status)))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for one traced thread.
pub fn wait_for(tid: Tid) -> io::Result<Status> {
    wait(tid, libc::__WALL)
}

fn wait_stopped_child(tid: Tid) -> io::Result<Status> {
    wait(tid, libc::WUNTRACED)
}

fn wait(tid: Tid, options: i32) -> io::Result<Status> {
    let mut status = 0;
    loop {
        // SAFETY: the status is ours to be written to.
        match check(unsafe { libc::waitpid(tid, &raw mut status, options) }.into()) {
            Ok(_) => return Ok(decode(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn decode(status: i32) -> Status {
    if libc::WIFEXITED(status) {
        Status::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Status::Killed(libc::WTERMSIG(status))
    } else {
        Status::Stopped {
            signal: libc::WSTOPSIG(status),
            event: status >> 16,
        }
    }
}

/// From here on the awaited signals are taken by [`wait_signal`] only.
pub fn block_signals() -> io::Result<()> {
    let set = set_of(&AWAITED);
    // SAFETY: both sets are valid for the call; null asks for no old mask.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// Waits until an awaited signal comes or time is over. Returns the signal and whether a process
/// sent it, as opposed to the terminal or the kernel.
pub fn wait_signal(timeout: Duration) -> Option<(i32, bool)> {
    let set = set_of(&AWAITED);
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: all three are valid for the call.
    let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const timeout) };
    (signal > 0).then_some((signal, info.si_code == libc::SI_USER))
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Sends a signal to a process.
pub fn kill(process: Tid, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(process, signal) }.into()).map(drop)
}

/// Sends a signal to one thread of a process.
pub fn kill_thread(process: Tid, tid: Tid, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal) }).map(drop)
}

/// Time that all threads of a process, also those that have ended, have been on a CPU; `None` when it has gone.
pub fn cpu_time(process: Tid) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the clock is ours to be written to.
    if unsafe { libc::clock_getcpuclockid(process, &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is ours to be written to.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) }.into()).ok()?;
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).ok()?))
}

/// Binds a thread, 0 for this one, and what it starts later, to some CPUs.
pub fn set_affinity(tid: Tid, cpus: &[usize]) -> io::Result<()> {
    // SAFETY: the set is plain integers; CPU_SET checks the range itself; the size is the set's.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(result.into()).map(drop)
}

/// From here on this thread runs only where a CPU has nothing else to do.
pub fn yield_to_all() -> io::Result<()> {
    // SAFETY: the structure is plain integers, for which zero is a value, the one that this policy asks for.
    let result = unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter)
    };
    check(result.into()).map(drop)
}

/// CPUs that this thread may run on.
pub fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: the set is plain integers; the size is the set's; CPU_ISSET stays in its range.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        check(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set).into())?;
        Ok((0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &set))
            .collect())
    }
}

fn request(request: libc::c_uint, tid: Tid, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests of this module that write to memory are given the address of a local
    // variable of the type that the request asks for; the others take a number.
    check(unsafe { libc::ptrace(request, tid, address, data) }).map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
