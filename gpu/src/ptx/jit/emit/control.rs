//! Branches, and the ways out of compiled code.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockCall, InstBuilder, JumpTableData, MemFlagsData, types};

use super::value::{Mask, as_int};
use super::{Emitter, memory};
use crate::ptx::ir::{Inst, Op, PredValue};
use crate::ptx::jit::effects::Var;
use crate::ptx::jit::machine::{Machine, status};
use crate::ptx::jit::shape::{GROUP, Shape};

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
        let fits = if signed {
            let wide = self.b.ins().sextend(types::I64, base);
            let last = self.b.ins().iadd_imm_s(wide, span);
            let cut = self.b.ins().ireduce(types::I32, last);
            let again = self.b.ins().sextend(types::I64, cut);
            self.b.ins().icmp(IntCC::Equal, last, again)
        } else {
            let wide = self.b.ins().uextend(types::I64, base);
            let last = self.b.ins().iadd_imm_s(wide, span);
            let limit = self.b.ins().iconst(types::I64, 1 << 32);
            self.b.ins().icmp(IntCC::UnsignedLessThan, last, limit)
        };
        let (on, out) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(out);
        self.b.ins().brif(fits, on, &[], out, &[]);
        self.b.switch_to_block(out);
        let live = self.live_at(pc);
        self.leave(live, status::SINGLE | pc as u32);
        self.b.switch_to_block(on);
    }
}
