//! Threads that wait for each other: barriers, and instructions in which lanes of a warp see each other.

use super::{APART, GROUPS, Worker, kind, mask, place};
use crate::Fault;
use crate::ptx::exec::block::BARRIERS;
use crate::ptx::exec::collective;
use crate::ptx::exec::lanes::{WARP, lanes_of};
use crate::ptx::exec::warp::Failure;
use crate::ptx::ir::{BarOp, Op, PredValue, Value};
use crate::ptx::jit::machine::status;
use crate::ptx::jit::shape::GROUP;

const BARRIER_LIMIT: u64 = BARRIERS as u64;

impl Worker<'_> {
    /// The instruction that a thread waits at, if it is one of the wanted kind.
    fn waits_at(&self, thread: usize, wanted: impl Fn(&Op) -> bool) -> Option<usize> {
        let code = self.code_of(thread);
        let pc = place(code);
        (kind(code) == status::SUSPENDED && wanted(&self.function.code[pc].op)).then_some(pc)
    }

    /// Executes instructions in which lanes of a warp see each other, once all that they need are there.
    pub(super) fn collectives(&mut self) -> Result<bool, Failure> {
        let collective = |op: &Op| !matches!(op, Op::Bar { .. });
        let waits = self.at.iter().any(|&code| {
            code == APART
                || kind(code) == status::SUSPENDED
                    && collective(&self.function.code[place(code)].op)
        });
        if !waits {
            return Ok(false);
        }
        let mut passed = false;
        for warp in 0..self.groups.div_ceil(GROUPS) {
            let first = warp * WARP;
            let count = WARP.min(self.threads - first);
            let places: Vec<Option<usize>> = (0..count)
                .map(|lane| self.waits_at(first + lane, collective))
                .collect();
            let alive = mask(count, |lane| self.code_of(first + lane) != status::EXIT);
            let mut done = 0u32;
            for lane in 0..count {
                let Some(pc) = places[lane] else { continue };
                if done >> lane & 1 != 0 {
                    continue;
                }
                let op = &self.function.code[pc].op;
                let sync = matches!(op, Op::WarpSync { .. });
                let here = mask(count, |other| match places[other] {
                    Some(at) if sync => {
                        matches!(self.function.code[at].op, Op::WarpSync { .. })
                    }
                    at => at == Some(pc),
                });
                let needed = match collective::members(op) {
                    Some(members) => self.value(first + lane, members) as u32 & alive,
                    None => here,
                };
                // A lane executes with those that it names, and itself.
                let needed = needed | 1 << lane;
                if needed & !here != 0 {
                    continue;
                }
                if !sync {
                    self.together(pc, warp, needed)?;
                }
                done |= needed;
                passed = true;
                let mut by_place: Vec<(usize, usize)> = lanes_of(needed)
                    .filter_map(|lane| Some((places[lane]?, first + lane)))
                    .collect();
                by_place.sort_unstable();
                for chunk in by_place.chunk_by(|a, b| a.0 == b.0) {
                    let lanes: Vec<usize> = chunk.iter().map(|&(_, lane)| lane).collect();
                    self.advance(&lanes, chunk[0].0);
                }
            }
        }
        Ok(passed)
    }

    /// An operand for one thread that waits.
    fn value(&self, thread: usize, value: Value) -> u64 {
        match value {
            Value::Imm(value) => value,
            Value::Reg(register) => {
                let var = self.variant.plan.vars.register(register);
                self.frames.get(thread, var)
            }
            value => {
                let identity = &self.identities[thread / WARP];
                identity.value(self.launch, &self.registers, value)[thread % WARP]
            }
        }
    }

    /// Lets the threads pass whose barrier is complete (PTX ISA 9.7.13.1).
    pub(super) fn barriers(&mut self) -> Result<bool, Failure> {
        let code = self.at[0];
        let all = code != APART
            && self.threads.is_multiple_of(GROUP)
            && self.at.iter().all(|&at| at == code);
        if all && kind(code) == status::SUSPENDED {
            let pc = place(code);
            // The usual case: everybody is here.
            if let Op::Bar {
                op: BarOp::Sync,
                id: Value::Imm(0..BARRIER_LIMIT),
                threads: None,
            } = self.function.code[pc].op
            {
                self.at.fill(status::STOPPED | (pc + 1) as u32);
                return Ok(true);
            }
        }
        let is_barrier = |op: &Op| matches!(op, Op::Bar { .. });
        let mut waiting: Vec<Vec<(usize, usize)>> = vec![Vec::new(); BARRIERS];
        let mut passed = false;
        for thread in 0..self.threads {
            let Some(pc) = self.waits_at(thread, is_barrier) else {
                continue;
            };
            let inst = &self.function.code[pc];
            let Op::Bar { op, id, threads } = &inst.op else {
                continue;
            };
            let id = self.value(thread, *id) as usize;
            let expected = threads.map(|threads| self.value(thread, threads) as u32);
            let Some(barrier) = self.arrived.get_mut(id) else {
                let fault = Fault::IllegalInstruction("a barrier above 15");
                return Err((self.launch.function, inst.line, fault));
            };
            barrier.1 = barrier.1.or(expected);
            if *op == BarOp::Arrive {
                barrier.0 += 1;
                passed = true;
                self.advance(&[thread], pc);
            } else {
                waiting[id].push((pc, thread));
            }
        }
        let alive = (0..self.threads)
            .filter(|&thread| self.code_of(thread) != status::EXIT)
            .count();
        for (id, mut threads) in waiting.into_iter().enumerate() {
            let (arrived, expected) = self.arrived[id];
            let count = arrived + threads.len() as u32;
            if count == 0 || count < expected.unwrap_or(alive as u32) {
                continue;
            }
            self.arrived[id] = (0, None);
            let holding = self.holding(&threads);
            threads.sort_unstable();
            for chunk in threads.chunk_by(|a, b| a.0 == b.0) {
                let pc = chunk[0].0;
                let lanes: Vec<usize> = chunk.iter().map(|&(_, thread)| thread).collect();
                self.answer(pc, &lanes, count, holding);
                self.advance(&lanes, pc);
                passed = true;
            }
        }
        Ok(passed)
    }

    /// Of threads at a barrier, those whose predicate holds.
    fn holding(&self, threads: &[(usize, usize)]) -> u32 {
        let holds = |&&(pc, thread): &&(usize, usize)| {
            let Op::Bar { op, .. } = self.function.code[pc].op else {
                return false;
            };
            match op {
                BarOp::Popc { pred, .. } | BarOp::And { pred, .. } | BarOp::Or { pred, .. } => {
                    self.holds(thread, pred)
                }
                BarOp::Sync | BarOp::Arrive => false,
            }
        };
        threads.iter().filter(holds).count() as u32
    }

    fn holds(&self, thread: usize, pred: PredValue) -> bool {
        match pred {
            PredValue::Const(truth) => truth,
            PredValue::Reg { index, negated } => {
                let var = self.variant.plan.vars.predicate(index);
                (self.frames.get(thread, var) != 0) != negated
            }
        }
    }

    /// Gives threads that pass a barrier its result.
    fn answer(&mut self, pc: usize, lanes: &[usize], count: u32, holding: u32) {
        let Op::Bar { op, .. } = self.function.code[pc].op else {
            return;
        };
        let vars = self.variant.plan.vars;
        let (var, value) = match op {
            BarOp::Sync | BarOp::Arrive => return,
            BarOp::Popc { dst, .. } => (vars.register(dst), u64::from(holding)),
            BarOp::And { dst, .. } => (vars.predicate(dst), u64::from(holding == count)),
            BarOp::Or { dst, .. } => (vars.predicate(dst), u64::from(holding != 0)),
        };
        for &lane in lanes {
            self.frames.set(lane, var, value);
        }
    }
}
