//! System calls made in a target's name: how the protection of its pages is changed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::maps::{self, PAGE};
use crate::sys::{self, Resume, Status, Tid};
use crate::tree::{Tree, Watch};

/// Bytes of the instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Makes system calls through stopped threads. No code of the target is changed: the instruction
/// that enters the kernel is borrowed from the vDSO that every process has.
#[derive(Debug, Default)]
pub struct Remote {
    /// Address of a `syscall` instruction in each process; none in one that is not 64-bit.
    gates: HashMap<Tid, Option<u64>>,
}

/// Why a remote call was not made.
#[derive(Debug)]
pub enum Failure {
    /// The thread has ended meanwhile.
    Ended(Status),
    /// The kernel would not trace it, or the process has no vDSO.
    System(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Remote {
    /// Forgets a process.
    pub fn forget(&mut self, process: Tid) {
        self.gates.remove(&process);
    }

    /// Changes the protection of pages, each given by its address, through a thread that is stopped, but not at the entry
    /// of a system call. Returns of each whether the kernel did it.
    pub fn protect(
        &mut self,
        tree: &mut Tree,
        tid: Tid,
        pages: &[(u64, i32)],
    ) -> Result<Vec<bool>, Failure> {
        let process = tree.thread(tid).map_or(tid, |thread| thread.process);
        let gate = *self.gates.entry(process).or_insert_with(|| {
            find_gate(process)
                .inspect_err(|error| {
                    log::warn!("pages of process {process} are not sampled: {error}")
                })
                .ok()
        });
        match gate {
            Some(gate) if !pages.is_empty() => undisturbed(tid, || through(gate, tree, tid, pages)),
            _ => Ok(vec![false; pages.len()]),
        }
    }

    /// Takes back the system call at whose entry a thread is stopped, so that it can make others
    /// first. It makes the call again when it goes on.
    pub fn retreat(&self, tid: Tid) -> Result<(), Failure> {
        let saved = sys::registers(tid)?;
        let mut registers = saved;
        // The kernel skips a system call of no number.
        registers.orig_rax = u64::MAX;
        sys::set_registers(tid, &registers)?;
        sys::resume(tid, Resume::ToSyscall, 0)?;
        match sys::wait_for(tid)? {
            Status::Stopped { .. } => {}
            ended => return Err(Failure::Ended(ended)),
        }
        registers = saved;
        registers.rip -= SYSCALL.len() as u64;
        registers.rax = saved.orig_rax;
        registers.orig_rax = u64::MAX;
        Ok(sys::set_registers(tid, &registers)?)
    }
}

/// mprotect of each page through a `syscall` instruction at `gate`. Returns whether the kernel did it.
fn through(
    gate: u64,
    tree: &mut Tree,
    tid: Tid,
    pages: &[(u64, i32)],
) -> Result<Vec<bool>, Failure> {
    let saved = sys::registers(tid)?;
    let mut call = saved;
    call.rip = gate;
    call.rax = libc::SYS_mprotect as u64;
    // Not in a system call: nothing for the kernel to restart.
    call.orig_rax = u64::MAX;
    call.rsi = PAGE;
    let mut done = Vec::with_capacity(pages.len());
    for &(address, protection) in pages {
        (call.rdi, call.rdx) = (address, protection as u64);
        sys::set_registers(tid, &call)?;
        // What stops this step is a fault of the thread's own instruction, which was on its way.
        while step(tree, tid)? == Step::Faulted {}
        done.push(sys::registers(tid)?.rax == 0);
    }
    sys::set_registers(tid, &saved)?;
    Ok(done)
}

/// Keeps signals from a stopped thread while something else is done with it. Blocked ones stay where they are, with all
/// that they tell; were they taken and sent anew, a thread that gets many would do nothing else.
pub fn undisturbed<T>(tid: Tid, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let mask = sys::blocked_signals(tid)?;
    sys::block(tid, sys::and_others(mask))?;
    let result = work();
    if !matches!(result, Err(Failure::Ended(_))) {
        sys::block(tid, mask)?;
    }
    result
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The instruction was executed.
    Done,
    /// An instruction faulted, this one or the one at which the thread had been stopped. Its signal
    /// is gone: it comes anew when the thread gets to the instruction again.
    Faulted,
}

/// Lets a stopped thread execute one instruction. Signals that come meanwhile, which few can for one that is
/// [`undisturbed`], wait.
pub fn step(tree: &mut Tree, tid: Tid) -> Result<Step, Failure> {
    loop {
        sys::resume(tid, Resume::Step, 0)?;
        match sys::wait_for(tid)? {
            Status::Stopped {
                signal: libc::SIGTRAP,
                event: 0,
            } => return Ok(Step::Done),
            Status::Stopped { signal, event: 0 } if sys::is_fault(tid, signal)? => {
                return Ok(Step::Faulted);
            }
            Status::Stopped { signal, event: 0 } => tree.defer_signal(tid, signal),
            Status::Stopped { .. } => {}
            ended => return Err(Failure::Ended(ended)),
        }
    }
}

/// Passes on a failure that is one, after telling the tree of a thread that has ended.
pub fn settle(
    tree: &mut Tree,
    watch: &mut dyn Watch,
    tid: Tid,
    result: Result<(), Failure>,
) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Ended(status)) => {
            tree.ended(watch, tid, status);
            Ok(())
        }
        Err(Failure::System(error)) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        Err(Failure::System(error)) => Err(error),
    }
}

fn find_gate(process: Tid) -> io::Result<u64> {
    let missing = || io::Error::other(format!("process {process} has no 64-bit vDSO"));
    let area = maps::read(process)?
        .into_iter()
        .find(|area| area.name == "[vdso]")
        .ok_or_else(missing)?;
    let mut code = vec![0; (area.end - area.start) as usize];
    File::open(format!("/proc/{process}/mem"))?.read_exact_at(&mut code, area.start)?;
    let offset = code
        .windows(SYSCALL.len())
        .position(|bytes| bytes == SYSCALL)
        .ok_or_else(missing)?;
    Ok(area.start + offset as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Addresses of the first page are never mapped.
    const NOWHERE: u64 = 0x10;

    #[test]
    fn a_fault_met_in_a_step_leaves_no_signal_behind() {
        let mut tree = Tree::launch(Command::new("true"), &[]).unwrap();
        let tid = tree.leader();
        let saved = sys::registers(tid).unwrap();
        let mut lost = saved;
        lost.rip = NOWHERE;
        sys::set_registers(tid, &lost).unwrap();
        assert_eq!(step(&mut tree, tid).unwrap(), Step::Faulted);
        assert_ne!(tree.thread(tid).unwrap().signal, libc::SIGSEGV);

        sys::set_registers(tid, &saved).unwrap();
        assert_eq!(step(&mut tree, tid).unwrap(), Step::Done);
        sys::resume(tid, Resume::Run, 0).unwrap();
        assert_eq!(sys::wait_for(tid).unwrap(), Status::Exited(0));
    }
}
