//! Branches, and the ways out of compiled code.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{Block, BlockCall, InstBuilder, JumpTableData, MemFlagsData, types};

use super::select::integer_condition;
use super::value::{Mask, as_int, integer};
use super::{Emitter, memory};
use crate::ptx::ir::{Inst, Op, PredValue, Test, Value};
use crate::ptx::jit::effects::Var;
use crate::ptx::jit::machine::{Machine, status};
use crate::ptx::jit::shape::{GROUP, Shape};
use crate::ptx::syntax::Scalar;

/// A comparison that a group's first and last lane decide for all between them.
struct Ends {
    bits: u32,
    /// What orders such numbers.
    order: IntCC,
    /// The comparison of `strided` with `bound`.
    condition: IntCC,
    strided: Value,
    stride: i64,
    bound: Value,
    /// Whether the guard is the complement.
    negated: bool,
}

impl Emitter<'_, '_> {
    /// An instruction that ends a block. With a guard it is a branch to itself or to the next.
    pub fn control(&mut self, pc: usize, inst: &Inst) {
        let shape = match inst.guard {
            PredValue::Const(true) => return self.act(pc, inst),
            PredValue::Const(false) => return self.go(pc, pc + 1),
            guard => self.pred_shape(guard),
        };
        let (then, other) = (self.b.create_block(), self.b.create_block());
        if shape == Shape::Varying {
            self.by_ends(pc, inst.guard, then, other);
            let mask = self.pred(inst.guard);
            self.part(pc, &mask, then, other);
        } else {
            let holds = self.pred_scalar(inst.guard);
            self.b.ins().brif(holds, then, &[], other, &[]);
        }
        self.b.switch_to_block(then);
        self.act(pc, inst);
        self.b.switch_to_block(other);
        self.go(pc, pc + 1);
    }

    /// Of a guard that compares values with a stride, the first and the last lane mostly tell what all lanes have: goes to
    /// `then` or `other` where they do, and on where they do not.
    fn by_ends(&mut self, pc: usize, guard: PredValue, then: Block, other: Block) {
        let Some(ends) = self.ends(pc, guard) else {
            return;
        };
        let Ends {
            bits,
            order,
            condition,
            strided,
            stride,
            bound,
            negated,
        } = ends;
        let first = self.base(strided, bits).parts[0];
        let first = as_int(&mut self.b, first);
        let bound = self.operand(bound, bits).parts[0];
        let bound = as_int(&mut self.b, bound);
        let b = &mut self.b;
        let last = b.ins().iadd_imm_s(first, stride * (GROUP as i64 - 1));
        let (low, high) = if stride > 0 {
            (first, last)
        } else {
            (last, first)
        };
        let (holds, fails) = if negated {
            (other, then)
        } else {
            (then, other)
        };
        let (ordered, inner, doubt) = (b.create_block(), b.create_block(), b.create_block());
        b.set_cold_block(doubt);
        // A group's span is far less than all numbers, so that a wrap shows.
        let wraps = b.ins().icmp(order, high, low);
        b.ins().brif(wraps, doubt, &[], ordered, &[]);
        b.switch_to_block(ordered);
        let of_high = b.ins().icmp(condition, high, bound);
        // What holds for the highest value holds for all, or what does not holds for none.
        let falling = matches!(
            condition,
            IntCC::SignedLessThan
                | IntCC::SignedLessThanOrEqual
                | IntCC::UnsignedLessThan
                | IntCC::UnsignedLessThanOrEqual
        );
        if falling {
            b.ins().brif(of_high, holds, &[], inner, &[]);
        } else {
            b.ins().brif(of_high, inner, &[], fails, &[]);
        }
        b.switch_to_block(inner);
        let of_low = b.ins().icmp(condition, low, bound);
        if falling {
            b.ins().brif(of_low, doubt, &[], fails, &[]);
        } else {
            b.ins().brif(of_low, holds, &[], doubt, &[]);
        }
        b.switch_to_block(doubt);
    }

    /// The comparison that a guard is, if it orders a value with a stride and one that is the same in all lanes.
    fn ends(&self, pc: usize, guard: PredValue) -> Option<Ends> {
        let PredValue::Reg { index, negated } = guard else {
            return None;
        };
        let plan = self.source.plan;
        let var = plan.vars.predicate(index);
        let &leader = plan.leaders.range(..=pc).next_back()?;
        let writes = |at: usize, var: &Var| plan.effects[at].writes.contains(var);
        let at = (leader..pc).rev().find(|&at| writes(at, &var))?;
        let inst = &self.code()[at];
        let Op::Setp {
            compare,
            ty: ty @ (Scalar::U32 | Scalar::S32 | Scalar::U64 | Scalar::S64),
            combine: None,
            dst: Some(dst),
            dst2: None,
            a,
            b,
            ..
        } = &inst.op
        else {
            return None;
        };
        // Its operands must still be what they were.
        let changed = |var: &Var| (at + 1..pc).any(|later| writes(later, var));
        let plain = |value: &Value| matches!(value, Value::Reg(_) | Value::Imm(_));
        if *dst != index
            || inst.guard != PredValue::Const(true)
            || plan.effects[at].reads.iter().any(changed)
            || !plain(a)
            || !plain(b)
        {
            return None;
        }
        let condition = integer_condition(compare.test, ty.is_signed())?;
        if matches!(condition, IntCC::Equal | IntCC::NotEqual) {
            return None;
        }
        let (condition, strided, stride, bound) = match (self.value_shape(*a), self.value_shape(*b))
        {
            (Shape::Stride(k), Shape::UNIFORM) if k != 0 => (condition, *a, k, *b),
            (Shape::UNIFORM, Shape::Stride(k)) if k != 0 => (condition.swap_args(), *b, k, *a),
            _ => return None,
        };
        Some(Ends {
            bits: ty.bytes() as u32 * 8,
            order: integer_condition(Test::Lt, ty.is_signed())?,
            condition,
            strided,
            stride,
            bound,
            negated,
        })
    }

    /// Goes to `then` if a predicate holds for all lanes of the group, to `other` if for none, and out of it if
    /// they disagree.
    fn part(&mut self, pc: usize, mask: &Mask, then: Block, other: Block) {
        const ALL: i64 = (1 << GROUP) - 1;
        let taken = self.mask_bits(mask);
        let (some, mixed) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(mixed);
        let all = self.b.ins().icmp_imm_s(IntCC::Equal, taken, ALL);
        self.b.ins().brif(all, then, &[], some, &[]);
        self.b.switch_to_block(some);
        self.b.ins().brif(taken, mixed, &[], other, &[]);
        self.b.switch_to_block(mixed);
        let table = self.field(types::I64, offset_of!(Machine, taken));
        let at = self.b.ins().ishl_imm_u(self.index, 2);
        let at = self.b.ins().iadd(table, at);
        self.b.ins().store(memory(), taken, at, 0);
        let inst = &self.code()[pc];
        let mut live: Vec<Var> = self.live_at(pc + 1).to_vec();
        match &inst.op {
            Op::Bra { target } => live.extend(self.live_at(*target)),
            Op::Ret | Op::Exit => {}
            _ => live.extend(self.live_at(pc)),
        }
        live.sort_unstable();
        live.dedup();
        self.leave(&live, status::PARTED | pc as u32);
    }

    /// Does what a control instruction does for all lanes.
    fn act(&mut self, pc: usize, inst: &Inst) {
        match &inst.op {
            Op::Bra { target } => self.go(pc, *target),
            Op::BrxIdx { index, targets } => {
                if self.value_shape(*index) != Shape::UNIFORM {
                    let live = self.live_at(pc);
                    self.leave(live, status::SINGLE | pc as u32);
                    return;
                }
                let index = self.operand(*index, 32).parts[0];
                let index = as_int(&mut self.b, index);
                let wrong = self.b.create_block();
                self.b.set_cold_block(wrong);
                let ways: Vec<Block> = targets.iter().map(|_| self.b.create_block()).collect();
                let pool = &mut self.b.func.dfg.value_lists;
                let default = BlockCall::new(wrong, [], pool);
                let calls: Vec<BlockCall> = ways
                    .iter()
                    .map(|&way| BlockCall::new(way, [], pool))
                    .collect();
                let table = self
                    .b
                    .create_jump_table(JumpTableData::new(default, &calls));
                self.b.ins().br_table(index, table);
                self.b.switch_to_block(wrong);
                self.fail(pc);
                for (&way, &target) in ways.iter().zip(targets) {
                    self.b.switch_to_block(way);
                    self.go(pc, target);
                }
            }
            Op::Ret | Op::Exit => self.leave(&[], status::EXIT),
            Op::Trap => self.fail(pc),
            _ => {
                let live = self.live_at(pc);
                self.leave(live, status::SUSPENDED | pc as u32);
            }
        }
    }

    /// Goes to an instruction. A way back costs fuel, so that no loop keeps others from running for ever.
    pub fn go(&mut self, from: usize, to: usize) {
        if to >= self.code().len() {
            self.leave(&[], status::EXIT);
            return;
        }
        // What the lanes wait at needs no code.
        let target = self.block_at(to);
        if to > from {
            self.b.ins().jump(target, &[]);
            return;
        }
        let (on, empty) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(empty);
        let fuel = self.b.use_var(self.fuel);
        let less = self.b.ins().iadd_imm_s(fuel, -1);
        self.b.def_var(self.fuel, less);
        self.b.ins().brif(less, on, &[], empty, &[]);
        self.b.switch_to_block(on);
        self.b.ins().jump(target, &[]);
        self.b.switch_to_block(empty);
        let live = self.live_at(to);
        self.leave(live, status::YIELDED | to as u32);
    }

    /// A single lane comes to where its group may run together again.
    pub fn stop(&mut self, leader: usize) {
        let (here, body) = (self.b.create_block(), self.body_at(leader));
        let flags = MemFlagsData::trusted();
        let offset = offset_of!(Machine, alone) as i32;
        let alone = self.b.ins().load(types::I32, flags, self.machine, offset);
        self.b.ins().brif(alone, body, &[], here, &[]);
        self.b.switch_to_block(here);
        let live = self.live_at(leader);
        self.leave(live, status::STOPPED | leader as u32);
        self.b.switch_to_block(body);
    }

    /// Leaves compiled code: the variables go to the frame, the status to who called.
    pub fn leave(&mut self, vars: &[Var], code: u32) {
        for &var in vars {
            self.save(var);
        }
        let end = code == status::EXIT;
        let code = self.b.ins().iconst(types::I32, i64::from(code));
        let Some(next) = self.next_group else {
            self.b.ins().return_(&[code]);
            return;
        };
        // In code for blocks every group's status is the kernel's end from the start.
        let blocks = self.row_block.is_some();
        if !(blocks && end) {
            let table = self.field(types::I64, offset_of!(Machine, status));
            let at = self.b.ins().ishl_imm_u(self.index, 2);
            let at = self.b.ins().iadd(table, at);
            self.b.ins().store(memory(), code, at, 0);
        }
        if blocks && !end {
            let flags = MemFlagsData::trusted();
            let offset = offset_of!(Machine, left) as i32;
            let one = self.b.ins().iconst(types::I32, 1);
            self.b.ins().store(flags, one, self.machine, offset);
        }
        self.b.ins().jump(next, &[]);
    }

    /// Leaves at once, because of a fault.
    pub fn abandon(&mut self) {
        if let Some(block) = self.row_block {
            self.b.ins().return_(&[block]);
        } else if self.wide {
            self.b.ins().return_(&[]);
        } else {
            let code = self.b.ins().iconst(types::I32, i64::from(status::FAULT));
            self.b.ins().return_(&[code]);
        }
    }

    /// An instruction that cannot be executed: the interpreter's side records the fault.
    fn fail(&mut self, pc: usize) {
        self.call_out(pc, None);
        self.abandon();
    }

    /// Before an instruction that widens a value with a stride: lanes whose values overflow go on singly.
    pub fn check_width(&mut self, pc: usize, inst: &Inst) {
        let Some((value, stride, signed)) = self.source.plan.shapes.widened(inst) else {
            return;
        };
        let base = self.base(value, 32).parts[0];
        let base = as_int(&mut self.b, base);
        let span = stride * (GROUP as i64 - 1);
        // Where lane 0 must be for the last one to fit.
        let (condition, limit) = match (signed, span > 0) {
            (true, true) => (IntCC::SignedLessThanOrEqual, i64::from(i32::MAX) - span),
            (true, false) => (IntCC::SignedGreaterThanOrEqual, i64::from(i32::MIN) - span),
            (false, true) => (IntCC::UnsignedLessThanOrEqual, i64::from(u32::MAX) - span),
            (false, false) => (IntCC::UnsignedGreaterThanOrEqual, -span),
        };
        let limit = integer(&mut self.b, types::I32, limit);
        let fits = self.b.ins().icmp(condition, base, limit);
        let (on, out) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(out);
        self.b.ins().brif(fits, on, &[], out, &[]);
        self.b.switch_to_block(out);
        let live = self.live_at(pc);
        self.leave(live, status::SINGLE | pc as u32);
        self.b.switch_to_block(on);
    }
}
