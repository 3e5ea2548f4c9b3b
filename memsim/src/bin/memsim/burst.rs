//! Bursts: a thread followed instruction by instruction for a short while.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use iced_x86::Register;
use memsim::law::LINE;

use crate::dataflow::{self, Dataflow, Shapes};
use crate::maps::{self, PAGE};
use crate::remote::{self, Failure, Step};
use crate::sys::{self, Registers, Tid};
use crate::tree::Tree;

/// Instructions in a burst.
const LENGTH: usize = 240;
/// The first of them only warm up the set of lines that count as cached.
const WARM_UP: usize = 60;
/// Lines of a page.
const LINES: f64 = PAGE as f64 / LINE;
/// Lines of a visit until a burst has seen one.
const UNSEEN_VISIT: f64 = 4.0;
/// Accesses this close to the stack pointer are to the stack, which is in the nearest cache.
const STACK: u64 = 64 << 10;

/// Weight of what was known before against a new burst: programs move on.
const MEMORY: f64 = 0.25;

/// What bursts have taught. Means fade with [`MEMORY`].
#[derive(Debug, Clone, Default)]
pub struct Burst {
    count: u32,
    visit: f64,
    visit_squared: f64,
    lines: f64,
    written: f64,
    flow: Dataflow,
}

impl Burst {
    /// Bursts so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Mean number of lines of a page that are touched when it is visited.
    pub fn lines_per_visit(&self) -> f64 {
        if self.count == 0 {
            UNSEEN_VISIT
        } else {
            self.visit
        }
    }

    /// Standard deviation of that, relative to it.
    pub fn spread(&self) -> f64 {
        if self.count < 2 {
            return 1.0;
        }
        (self.visit_squared - self.visit * self.visit)
            .max(0.0)
            .sqrt()
            / self.visit
    }

    /// Share of touched lines that were written.
    pub fn write_share(&self) -> f64 {
        if self.lines > 0.0 {
            self.written / self.lines
        } else {
            0.0
        }
    }

    /// Misses under way at once.
    pub fn parallelism(&self) -> Option<f64> {
        self.flow.parallelism()
    }

    /// Takes up one burst: the data accesses as (line, written), the place in the burst of each, and
    /// the page that it began at.
    fn learn(&mut self, accesses: &[(usize, u64, bool)], page: u64) {
        let first = page / LINE as u64;
        let in_page: Vec<(usize, u64)> = accesses
            .iter()
            .filter(|(_, line, _)| (first..first + LINES as u64).contains(line))
            .map(|&(place, line, _)| (place, line - first))
            .collect();
        let lines: HashSet<u64> = accesses.iter().map(|access| access.1).collect();
        let written: HashSet<u64> = accesses
            .iter()
            .filter(|access| access.2)
            .map(|access| access.1)
            .collect();
        let memory = if self.count == 0 { 0.0 } else { MEMORY };
        let learn = |mean: &mut f64, new: f64| *mean = memory * *mean + (1.0 - memory) * new;
        let visit = visit_length(&in_page);
        learn(&mut self.lines, lines.len() as f64);
        learn(&mut self.written, written.len() as f64);
        learn(&mut self.visit, visit);
        learn(&mut self.visit_squared, visit * visit);
        self.flow.fade(memory);
        self.count += 1;
    }
}

/// Lines of a visit to a page, from the accesses to it as (place in the burst, line of the page). A
/// visit that is still under way at the end of the burst, and moves one way, goes on to the end of
/// the page.
fn visit_length(accesses: &[(usize, u64)]) -> f64 {
    let mut order: Vec<u64> = Vec::new();
    for &(_, line) in accesses {
        if !order.contains(&line) {
            order.push(line);
        }
    }
    let seen = order.len().max(1) as f64;
    let under_way = accesses
        .last()
        .is_some_and(|&(place, _)| place >= LENGTH - LENGTH / 4);
    let (Some(&first), Some(&last)) = (order.first(), order.last()) else {
        return 1.0;
    };
    let up = order.windows(2).all(|pair| pair[0] < pair[1]);
    let down = order.windows(2).all(|pair| pair[0] > pair[1]);
    if !under_way || order.len() < 3 || !(up || down) {
        return seen;
    }
    let stride = first.abs_diff(last) as f64 / (seen - 1.0);
    let left = if up {
        LINES - 1.0 - last as f64
    } else {
        last as f64
    };
    (seen + (left / stride).floor()).min(LINES)
}

/// Follows a stopped thread that has just come to a page. Two CPUs that wake each other for every
/// instruction take four times as long as one that switches, so this thread joins the other.
pub fn follow(burst: &mut Burst, tree: &mut Tree, tid: Tid, page: u64) -> Result<(), Failure> {
    let own = sys::affinity()?;
    if let Some(cpu) = maps::last_cpu(tid) {
        sys::set_affinity(0, &[cpu])?;
    }
    let result = remote::undisturbed(tid, || follow_here(burst, tree, tid, page));
    sys::set_affinity(0, &own)?;
    result
}

fn follow_here(burst: &mut Burst, tree: &mut Tree, tid: Tid, page: u64) -> Result<(), Failure> {
    let process = tree.thread(tid).map_or(tid, |thread| thread.process);
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut shapes = Shapes::default();
    let mut cached: HashSet<u64> = HashSet::new();
    let mut accesses = Vec::new();
    for place in 0..LENGTH {
        let registers = sys::registers(tid)?;
        let mut code = [0; dataflow::LONGEST];
        let length = memory.read_at(&mut code, registers.rip).unwrap_or(0);
        let instruction = dataflow::decode(&code[..length], registers.rip);
        let shape = shapes.shape(&instruction);
        if shape.enters_kernel {
            break;
        }
        let mut missed = Vec::new();
        for (address, size, write) in
            shapes.operands(&instruction, |register| value(&registers, register))
        {
            if address.abs_diff(registers.rsp) < STACK {
                continue;
            }
            for line in
                address / LINE as u64..=address.saturating_add(size as u64 - 1) / LINE as u64
            {
                accesses.push((place, line, write));
                if cached.insert(line) {
                    missed.push(line);
                }
            }
        }
        if place >= WARM_UP {
            burst.flow.step(shape, &missed);
        } else {
            burst.flow.train(&missed);
        }
        if remote::step(tree, tid)? == Step::Faulted {
            break;
        }
    }
    burst.flow.close();
    burst.learn(&accesses, page);
    Ok(())
}

/// Value of a register for an address computation.
fn value(registers: &Registers, register: Register) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        // Addresses made of vector registers, as in a gather, stay unknown.
        _ => return None,
    };
    Some(if register.size() == 4 {
        full & 0xffff_ffff
    } else {
        full
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scattered_access_is_a_visit_of_one_line() {
        assert_eq!(visit_length(&[(0, 17), (1, 17)]), 1.0);
    }

    #[test]
    fn a_sweep_that_is_under_way_goes_on_to_the_end_of_the_page() {
        let up: Vec<(usize, u64)> = (0..20).map(|i| (i * 12, i as u64)).collect();
        assert_eq!(visit_length(&up), 64.0);
        let down: Vec<(usize, u64)> = (0..20).map(|i| (i * 12, 63 - i as u64)).collect();
        assert_eq!(visit_length(&down), 64.0);
        let every_fourth: Vec<(usize, u64)> = (0..10).map(|i| (i * 26, 4 * i as u64)).collect();
        assert_eq!(visit_length(&every_fourth), 16.0);
    }

    #[test]
    fn a_visit_that_is_over_is_as_long_as_it_was() {
        let over: Vec<(usize, u64)> = (0..20).map(|i| (i, i as u64)).collect();
        assert_eq!(visit_length(&over), 20.0);
    }

    #[test]
    fn a_new_burst_counts_more_than_older_ones() {
        let mut burst = Burst::default();
        burst.learn(&[(0, 64, true)], 4096);
        assert_eq!((burst.lines_per_visit(), burst.write_share()), (1.0, 1.0));
        burst.learn(&[(0, 64, false), (1, 65, false), (2, 66, false)], 4096);
        assert_eq!(burst.lines_per_visit(), 0.25 + 0.75 * 3.0);
        assert_eq!(burst.write_share(), 0.25 / (0.25 + 0.75 * 3.0));
    }
}
