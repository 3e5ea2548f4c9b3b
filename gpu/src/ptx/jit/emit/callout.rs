//! Instructions that the interpreter executes.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, Value as Ir, types};
use cranelift_codegen::isa::CallConv;

use super::value::{Mask, Val, as_int};
use super::{Emitter, constant, memory};
use crate::ptx::ir::Value;
use crate::ptx::jit::effects::Var;
use crate::ptx::jit::machine::Machine;
use crate::ptx::jit::shape::{GROUP, Shape};

/// Beside the lanes: whether they run together.
pub const TOGETHER: u32 = 1 << 31;

/// The routine's signature: machine, instruction, first thread of the group, lanes.
pub fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params = vec![
        AbiParam::new(types::I64),
        AbiParam::new(types::I32),
        AbiParam::new(types::I32),
        AbiParam::new(types::I32),
    ];
    signature
}

impl Emitter<'_, '_> {
    /// Has the interpreter execute the instruction in hand for the lanes whose guard holds.
    pub fn callout(&mut self) {
        let lanes = self.mask.clone();
        let skip = lanes.as_ref().map(|mask| {
            let bits = self.mask_bits(mask);
            let (some, after) = (self.b.create_block(), self.b.create_block());
            (bits, some, after)
        });
        if let Some((bits, some, after)) = skip {
            // Without a lane there is nothing to do, and the registers keep their values.
            self.b.ins().brif(bits, some, &[], after, &[]);
            self.b.switch_to_block(some);
            self.exchange(Some(bits));
            self.b.ins().jump(after, &[]);
            self.b.switch_to_block(after);
        } else {
            self.exchange(None);
        }
    }

    /// Gives the operands, calls, and takes the results.
    fn exchange(&mut self, lanes: Option<Ir>) {
        let pc = self.pc;
        let plan = self.source.plan;
        for (place, &var) in plan.effects[pc].reads.iter().enumerate() {
            self.give(place, var);
        }
        self.call_out(pc, lanes);
        let fault = {
            let flags = MemFlagsData::trusted();
            let offset = offset_of!(Machine, fault) as i32;
            self.b.ins().load(types::I32, flags, self.machine, offset)
        };
        let (fine, failed) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(failed);
        self.b.ins().brif(fault, failed, &[], fine, &[]);
        self.b.switch_to_block(failed);
        self.abandon();
        self.b.switch_to_block(fine);
        for (place, &var) in plan.effects[pc].writes.iter().enumerate() {
            self.receive(place, var);
        }
    }

    /// Calls the routine. `lanes` are the lanes for which the interpreter is to execute the instruction.
    pub fn call_out(&mut self, pc: usize, lanes: Option<Ir>) {
        let b = &mut self.b;
        let signature = b.import_signature(signature(CallConv::PreserveAll));
        let offset = offset_of!(Machine, callout) as i32;
        let routine = b.ins().load(types::I64, constant(), self.machine, offset);
        let inst = b.ins().iconst(types::I32, pc as i64);
        let index = b.ins().ireduce(types::I32, self.index);
        let (first, own) = if self.wide {
            let shift = i64::from(GROUP.trailing_zeros());
            let first = b.ins().ishl_imm_u(index, shift);
            let all = b.ins().iconst(types::I32, (1 << GROUP) - 1);
            (first, lanes.unwrap_or(all))
        } else {
            let first = b.ins().band_imm_u(index, i64::from(!(GROUP as u32 - 1)));
            let lane = b.ins().band_imm_u(index, GROUP as i64 - 1);
            let one = b.ins().iconst(types::I32, 1);
            (first, b.ins().ishl(one, lane))
        };
        let lanes = if self.wide {
            b.ins().bor_imm_u(own, i64::from(TOGETHER))
        } else {
            own
        };
        b.ins()
            .call_indirect(signature, routine, &[self.machine, inst, first, lanes]);
    }

    fn place(&mut self, place: usize) -> (Ir, i32) {
        let exchange = self.field(types::I64, offset_of!(Machine, exchange));
        let base = if self.wide {
            exchange
        } else {
            let lane = self.b.ins().isub(self.lane8, self.frame);
            self.b.ins().iadd(exchange, lane)
        };
        (base, (place * 8 * GROUP) as i32)
    }

    /// Puts a variable's lanes where the interpreter finds them, extended to 64 bits.
    fn give(&mut self, place: usize, var: Var) {
        let (base, offset) = self.place(place);
        let plan = self.source.plan;
        let val = match (plan.vars.as_register(var), plan.vars.as_predicate(var)) {
            (Some(register), _) => self.operand(Value::Reg(register), 64),
            _ => {
                let mask = self.bits(var);
                if mask.is_scalar() {
                    Val::scalar(self.b.ins().uextend(types::I64, mask.parts[0]), 64)
                } else {
                    let parts = self.mask_lanes(&mask, 64);
                    Val { parts, lane: 64 }
                }
            }
        };
        let val = self.broadcast(&val);
        for (index, &part) in val.parts.iter().enumerate() {
            let part = as_int(&mut self.b, part);
            let at = offset + 16 * index as i32;
            self.b.ins().store(memory(), part, base, at);
        }
    }

    /// Takes a variable's lanes from where the interpreter has put them.
    fn receive(&mut self, place: usize, var: Var) {
        let (base, offset) = self.place(place);
        let plan = self.source.plan;
        let wide = self.wide && plan.shapes.var(var) == Shape::Varying;
        let parts = if wide {
            (0..GROUP / 2)
                .map(|index| {
                    let at = offset + 16 * index as i32;
                    self.b.ins().load(types::I64X2, memory(), base, at)
                })
                .collect()
        } else {
            vec![self.b.ins().load(types::I64, memory(), base, offset)]
        };
        let val = Val { parts, lane: 64 };
        match plan.vars.as_register(var) {
            Some(register) => self.write(register, val, Shape::UNIFORM),
            None => {
                let mask = if wide {
                    self.mask_of(val.parts)
                } else {
                    let truth = self.b.ins().icmp_imm_s(IntCC::NotEqual, val.parts[0], 0);
                    Mask { parts: vec![truth] }
                };
                self.write_bits(var, mask);
            }
        }
    }
}
