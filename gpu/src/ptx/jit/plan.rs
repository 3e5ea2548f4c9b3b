//! What is known of a kernel before code is made: blocks, live variables, places to leave and to enter.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::{Effects, Var, Vars};
use super::shape::{GROUP, Shape, Shapes};
use crate::ptx::ir::{Callee, FloatOp, FloatType, Function, Inst, Op, PredValue, Value};

/// Why a kernel runs on the interpreter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Uncovered {
    /// Line of the PTX text; 0 if it is not one instruction.
    pub line: u32,
    pub what: &'static str,
}

/// Instructions of a kernel beyond which it is not compiled.
const MAX_CODE: usize = 20_000;

/// 32-bit words of a variable's place in a group's frame: lanes of up to 64 bits.
pub const SLOT_WORDS: usize = 2 * GROUP;

#[derive(Debug)]
pub struct Plan {
    pub vars: Vars,
    pub effects: Vec<Effects>,
    pub shapes: Shapes,
    /// First instructions of blocks.
    pub leaders: BTreeSet<usize>,
    /// Where groups may begin to run together.
    pub group_entries: BTreeSet<usize>,
    /// Where single lanes may begin to run.
    pub lane_entries: BTreeSet<usize>,
    /// Where single lanes stop, for their group to run together again.
    pub stops: BTreeSet<usize>,
    /// Variables that are live at each leader.
    pub live: BTreeMap<usize, Vec<Var>>,
    /// A variable's place in a frame, if it is live at any entry.
    pub slots: Vec<Option<usize>>,
    pub slot_count: usize,
    /// Registers whose NaNs may have any payload until somebody looks at their bits.
    pub raw: Vec<bool>,
    /// Registers that hold floating-point numbers.
    pub float: Vec<bool>,
}

/// Whether other threads must come to an instruction before it is executed.
pub fn suspends(op: &Op) -> bool {
    matches!(
        op,
        Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::WarpSync { .. }
            | Op::ActiveMask { .. }
            | Op::Bar { .. }
    )
}

/// Instructions whose guard is a branch.
pub fn is_control(op: &Op) -> bool {
    suspends(op)
        || matches!(
            op,
            Op::Bra { .. } | Op::BrxIdx { .. } | Op::Ret | Op::Exit | Op::Trap
        )
}

/// Where control may go from an instruction, the next one aside.
fn targets(op: &Op) -> &[usize] {
    match op {
        Op::Bra { target } => std::slice::from_ref(target),
        Op::BrxIdx { targets, .. } => targets,
        _ => &[],
    }
}

fn falls_through(inst: &Inst) -> bool {
    inst.guard != PredValue::Const(true)
        || !matches!(
            inst.op,
            Op::Bra { .. } | Op::BrxIdx { .. } | Op::Ret | Op::Exit | Op::Trap
        )
}

impl Plan {
    /// Analyses a kernel; `rows` if a group's threads always lie in one row of the block.
    pub fn new(function: &Function, rows: bool) -> Result<Self, Uncovered> {
        let code = &function.code;
        covered(code)?;
        let vars = Vars::of(function);
        let effects: Vec<Effects> = code.iter().map(|inst| vars.effects(inst)).collect();
        let shapes = Shapes::of(function, rows);
        let mut plan = Self {
            vars,
            shapes,
            leaders: BTreeSet::from([0]),
            group_entries: BTreeSet::from([0]),
            lane_entries: BTreeSet::from([0]),
            stops: BTreeSet::new(),
            live: BTreeMap::new(),
            slots: vec![None; vars.count()],
            slot_count: 0,
            raw: raw(function),
            float: float(function),
            effects,
        };
        for (pc, inst) in code.iter().enumerate() {
            plan.place(pc, inst);
        }
        let entries: Vec<usize> = plan
            .lane_entries
            .iter()
            .chain(&plan.group_entries)
            .copied()
            .collect();
        plan.leaders.extend(entries);
        plan.leaders.retain(|&pc| pc < code.len());
        plan.liveness(code);
        let shared: BTreeSet<Var> = plan.live.values().flatten().copied().collect();
        for var in shared {
            plan.slots[var] = Some(plan.slot_count);
            plan.slot_count += 1;
        }
        Ok(plan)
    }

    /// Enters the places that an instruction makes.
    fn place(&mut self, pc: usize, inst: &Inst) {
        let varying = self.shapes.pred(inst.guard) == Shape::Varying;
        if is_control(&inst.op) {
            self.leaders.extend(targets(&inst.op));
            self.leaders.insert(pc + 1);
            if varying {
                self.lane_entries.extend(targets(&inst.op));
                self.lane_entries.insert(pc + 1);
                // Lanes whose guard holds come back to these.
                if matches!(inst.op, Op::Trap | Op::BrxIdx { .. }) {
                    self.leaders.insert(pc);
                    self.lane_entries.insert(pc);
                }
            }
        }
        let split = match inst.op {
            Op::BrxIdx { index, .. } => self.shapes.value(index) != Shape::UNIFORM,
            Op::Bra { .. } => false,
            _ => self.shapes.widened(inst).is_some(),
        };
        if split {
            self.leaders.insert(pc);
            self.lane_entries.insert(pc);
            self.lane_entries.extend(targets(&inst.op));
        }
        if (varying || split)
            && let Some(rejoin) = inst.rejoin
        {
            self.stops.insert(rejoin);
            self.lane_entries.insert(rejoin);
            self.group_entries.insert(rejoin);
        }
        for &target in targets(&inst.op).iter().filter(|&&target| target <= pc) {
            self.lane_entries.insert(target);
            self.group_entries.insert(target);
        }
        if suspends(&inst.op) {
            self.leaders.insert(pc);
            self.lane_entries.insert(pc + 1);
            self.group_entries.insert(pc + 1);
        }
    }

    /// The instruction after the last of the block that begins at `leader`.
    pub fn block_end(&self, leader: usize, code: &[Inst]) -> usize {
        self.leaders
            .range(leader + 1..)
            .next()
            .copied()
            .unwrap_or(code.len())
    }

    fn liveness(&mut self, code: &[Inst]) {
        let words = self.vars.count().div_ceil(64);
        let blocks: Vec<(usize, usize)> = self
            .leaders
            .iter()
            .map(|&start| (start, self.block_end(start, code)))
            .collect();
        let mut live: BTreeMap<usize, Vec<u64>> = blocks
            .iter()
            .map(|&(start, _)| (start, vec![0; words]))
            .collect();
        let mut changed = true;
        while changed {
            changed = false;
            for &(start, end) in blocks.iter().rev() {
                let last = &code[end - 1];
                let mut set = vec![0u64; words];
                let next = falls_through(last).then_some(end);
                for successor in targets(&last.op).iter().copied().chain(next) {
                    if let Some(other) = live.get(&successor) {
                        for (word, other) in set.iter_mut().zip(other) {
                            *word |= other;
                        }
                    }
                }
                for pc in (start..end).rev() {
                    let effects = &self.effects[pc];
                    if code[pc].guard == PredValue::Const(true) {
                        for &var in &effects.writes {
                            set[var / 64] &= !(1 << (var % 64));
                        }
                    }
                    for &var in &effects.reads {
                        set[var / 64] |= 1 << (var % 64);
                    }
                }
                if live[&start] != set {
                    live.insert(start, set);
                    changed = true;
                }
            }
        }
        self.live = live
            .into_iter()
            .map(|(start, set)| {
                let vars =
                    (0..self.vars.count()).filter(|var| set[var / 64] >> (var % 64) & 1 != 0);
                (start, vars.collect())
            })
            .collect();
    }

    /// Bits of a variable's lanes in a frame: 32 or 64.
    pub fn lane_bits(&self, function: &Function, var: Var) -> u32 {
        match self.vars.as_register(var) {
            Some(register) => lane_bits(function.registers[register as usize]),
            None => 32,
        }
    }
}

/// Registers of up to 32 bits take 32, others 64.
pub const fn lane_bits(bits: u32) -> u32 {
    if bits > 32 || bits == 0 { 64 } else { 32 }
}

fn covered(code: &[Inst]) -> Result<(), Uncovered> {
    if code.len() > MAX_CODE {
        let what = "a kernel of this length";
        return Err(Uncovered { line: 0, what });
    }
    for inst in code {
        if targets(&inst.op).contains(&0) {
            let what = "a branch to the kernel's beginning";
            return Err(Uncovered {
                line: inst.line,
                what,
            });
        }
        if let Op::Call {
            callee: Callee::Direct(_) | Callee::Indirect(_),
            ..
        } = inst.op
        {
            let what = "a call of a function";
            return Err(Uncovered {
                line: inst.line,
                what,
            });
        }
    }
    Ok(())
}

/// Whether an instruction is arithmetic of the host, which gives a NaN any payload.
fn makes_raw(op: &Op) -> bool {
    match op {
        Op::Float { op, ty, .. } => {
            matches!(ty, FloatType::F32 | FloatType::F64)
                && !matches!(op, FloatOp::Neg | FloatOp::Abs | FloatOp::CopySign)
        }
        Op::Convert { convert, .. } => convert.to.is_float() && convert.to.bytes() >= 4,
        _ => false,
    }
}

fn raw(function: &Function) -> Vec<bool> {
    let vars = Vars::of(function);
    let mut raw = vec![true; function.registers.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for inst in &function.code {
            let is_raw = |value: &Value| match value {
                Value::Reg(register) => raw[*register as usize],
                _ => false,
            };
            let keeps = match &inst.op {
                Op::Mov { src, .. } => is_raw(src),
                Op::Selp { a, b, .. } => is_raw(a) && is_raw(b),
                op => makes_raw(op),
            };
            if keeps {
                continue;
            }
            for var in vars.effects(inst).writes {
                if let Some(register) = vars.as_register(var)
                    && raw[register as usize]
                {
                    raw[register as usize] = false;
                    changed = true;
                }
            }
        }
    }
    raw
}

fn float(function: &Function) -> Vec<bool> {
    let mut float = vec![false; function.registers.len()];
    for inst in &function.code {
        if let Op::Float {
            ty: FloatType::F32 | FloatType::F64,
            dst,
            args,
            ..
        } = &inst.op
        {
            float[*dst as usize] = true;
            for arg in args {
                if let Value::Reg(register) = arg {
                    float[*register as usize] = true;
                }
            }
        }
    }
    float
}
