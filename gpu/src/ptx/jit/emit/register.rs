//! What registers and predicates hold: their variables, their places in a frame, operands and results.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value as Ir, types};

use super::value::{
    Mask, Val, as_int, cast, float_type, int_type, integer, integer_type, part_count,
};
use super::{Emitter, memory};
use crate::ptx::ir::{PredValue, Reg, Value};
use crate::ptx::jit::effects::Var;
use crate::ptx::jit::plan::lane_bits;
use crate::ptx::jit::shape::{GROUP, Shape};

impl Emitter<'_, '_> {
    fn shape(&self, var: Var) -> Shape {
        if self.wide {
            self.source.plan.shapes.var(var)
        } else {
            Shape::UNIFORM
        }
    }

    pub fn value_shape(&self, value: Value) -> Shape {
        if self.wide {
            self.source.plan.shapes.value(value)
        } else {
            Shape::UNIFORM
        }
    }

    pub fn pred_shape(&self, pred: PredValue) -> Shape {
        if self.wide {
            self.source.plan.shapes.pred(pred)
        } else {
            Shape::UNIFORM
        }
    }

    pub fn register_bits(&self, register: Reg) -> u32 {
        self.source.function.registers[register as usize]
    }

    /// The variables that hold a register or predicate.
    fn variables(&mut self, var: Var) -> Vec<cranelift_frontend::Variable> {
        if self.variables[var].is_empty() {
            let plan = self.source.plan;
            let vector = self.shape(var) == Shape::Varying;
            let (ty, count) = match plan.vars.as_register(var) {
                Some(register) => {
                    let lane = lane_bits(self.register_bits(register));
                    let ty = integer_type(lane, vector);
                    let ty = if plan.float[register as usize] {
                        float_type(ty)
                    } else {
                        ty
                    };
                    (ty, if vector { part_count(lane) } else { 1 })
                }
                None if vector => (types::I32X4, part_count(32)),
                None => (types::I8, 1),
            };
            self.variables[var] = (0..count).map(|_| self.b.declare_var(ty)).collect();
        }
        self.variables[var].clone()
    }

    /// A variable's parts as they are: for one with a stride, lane 0.
    fn parts(&mut self, var: Var) -> Vec<Ir> {
        let variables = self.variables(var);
        variables
            .into_iter()
            .map(|variable| self.b.use_var(variable))
            .collect()
    }

    fn define(&mut self, var: Var, parts: &[Ir]) {
        for (variable, &part) in self.variables(var).into_iter().zip(parts) {
            let ty = self.b.func.dfg.value_type(part);
            let wanted = {
                // The type that the variable was declared with.
                let is_float = self
                    .source
                    .plan
                    .vars
                    .as_register(var)
                    .is_some_and(|register| self.source.plan.float[register as usize]);
                if is_float {
                    float_type(ty)
                } else {
                    int_type(ty)
                }
            };
            let part = cast(&mut self.b, part, wanted);
            self.b.def_var(variable, part);
        }
    }

    /// Zeros.
    pub fn clear(&mut self, var: Var) {
        let count = self.variables(var).len();
        let vector = count > 1;
        let parts = match self.source.plan.vars.as_register(var) {
            Some(register) => {
                let ty = integer_type(lane_bits(self.register_bits(register)), vector);
                vec![integer(&mut self.b, ty, 0); count]
            }
            None if vector => vec![integer(&mut self.b, types::I32X4, 0); count],
            None => vec![self.b.ins().iconst(types::I8, 0)],
        };
        self.define(var, &parts);
    }

    /// An operand of an operation on `bits` bits, in lanes of 32 or 64 of them.
    pub fn operand(&mut self, value: Value, bits: u32) -> Val {
        let operand = self.operand_raw(value, bits);
        match value {
            Value::Reg(register) if self.source.plan.raw[register as usize] => {
                self.canonical(operand)
            }
            _ => operand,
        }
    }

    /// The same, whose NaNs may have any payload: for arithmetic, which does not see it.
    pub fn operand_raw(&mut self, value: Value, bits: u32) -> Val {
        let base = self.base(value, bits);
        match self.value_shape(value) {
            Shape::Stride(k) if k != 0 && !self.strided => self.spread(&base, k),
            _ => base,
        }
    }

    /// An operand whose stride, if it has one, is left to the caller.
    pub fn base(&mut self, value: Value, bits: u32) -> Val {
        let lane = lane_bits(bits);
        match value {
            Value::Reg(register) => {
                let width = self.register_bits(register);
                let parts = self.parts(self.source.plan.vars.register(register));
                let val = Val {
                    parts,
                    lane: lane_bits(width),
                };
                self.resize(val, lane)
            }
            Value::Imm(value) => {
                let value = if bits < 64 {
                    value & ((1 << bits) - 1)
                } else {
                    value
                };
                self.immediate(value, lane)
            }
            Value::Global { variable, offset } => {
                let address = self.source.globals.get(variable).copied().unwrap_or(0);
                self.immediate(address.wrapping_add_signed(offset), lane)
            }
            Value::Shared { variable, offset } => {
                let at = self.source.shared_offsets.get(variable).copied();
                self.immediate(at.unwrap_or(0).wrapping_add_signed(offset), lane)
            }
            Value::Local(offset) => self.immediate(offset as u64, lane),
            Value::Special(special) => {
                let val = self.special(special);
                self.resize(val, lane)
            }
        }
    }

    pub fn pred(&mut self, pred: PredValue) -> Mask {
        match pred {
            PredValue::Const(truth) => Mask {
                parts: vec![self.b.ins().iconst(types::I8, i64::from(truth))],
            },
            PredValue::Reg { index, negated } => {
                let parts = self.parts(self.source.plan.vars.predicate(index));
                let mask = Mask { parts };
                if negated {
                    self.complement(&mask)
                } else {
                    mask
                }
            }
        }
    }

    /// A predicate that is the same in all lanes.
    pub fn pred_scalar(&mut self, pred: PredValue) -> Ir {
        self.pred(pred).parts[0]
    }

    /// Writes a register under the guard in hand. `shape` tells what the value's lanes are like.
    pub fn write(&mut self, register: Reg, val: Val, shape: Shape) {
        let lane = lane_bits(self.register_bits(register));
        let var = self.source.plan.vars.register(register);
        let mut val = self.resize(val, lane);
        if self.shape(var) == Shape::Varying {
            val = match shape {
                Shape::Stride(k) if k != 0 && val.is_scalar() => self.spread(&val, k),
                _ => self.broadcast(&val),
            };
        }
        if let Some(mask) = self.mask.clone() {
            let old = self.parts(var);
            let mask = self.mask_lanes(&mask, lane);
            for ((part, old), mask) in val.parts.iter_mut().zip(old).zip(mask) {
                let (new, old) = (as_int(&mut self.b, *part), as_int(&mut self.b, old));
                *part = self.b.ins().bitselect(mask, new, old);
            }
        }
        self.define(var, &val.parts);
    }

    /// Writes a result of floating-point arithmetic.
    pub fn write_float(&mut self, register: Reg, val: Val) {
        let val = if self.source.plan.raw[register as usize] {
            val
        } else {
            self.canonical(val)
        };
        self.write(register, val, Shape::UNIFORM);
    }

    pub fn write_pred(&mut self, predicate: u32, mask: Mask) {
        self.write_bits(self.source.plan.vars.predicate(predicate), mask);
    }

    pub fn write_bits(&mut self, var: Var, mask: Mask) {
        let mut value = mask;
        if self.shape(var) == Shape::Varying {
            value = self.broadcast_mask(&value);
        }
        if let Some(mask) = self.mask.clone() {
            let old = self.parts(var);
            for ((part, old), &mask) in value.parts.iter_mut().zip(old).zip(&mask.parts) {
                *part = self.b.ins().bitselect(mask, *part, old);
            }
        }
        self.define(var, &value.parts);
    }

    pub fn bits(&mut self, var: Var) -> Mask {
        Mask {
            parts: self.parts(var),
        }
    }

    /// Puts a variable where the frame has it.
    pub fn save(&mut self, var: Var) {
        let Some(slot) = self.source.plan.slots[var] else {
            return;
        };
        let offset = (slot * 8 * GROUP) as i32;
        let plan = self.source.plan;
        let register = plan.vars.as_register(var);
        let lane = plan.lane_bits(self.source.function, var);
        let parts = self.parts(var);
        if !self.wide {
            let value = match register {
                Some(_) => as_int(&mut self.b, parts[0]),
                None => {
                    let wide = self.b.ins().uextend(types::I32, parts[0]);
                    self.b.ins().ineg(wide)
                }
            };
            let base = if lane == 32 { self.lane4 } else { self.lane8 };
            self.b.ins().store(memory(), value, base, offset);
            return;
        }
        let vectors = match (register, self.shape(var)) {
            (None, _) => {
                let mask = Mask { parts };
                self.broadcast_mask(&mask).parts
            }
            (Some(_), Shape::Stride(k)) if k != 0 => {
                let base = Val { parts, lane };
                self.spread(&base, k).parts
            }
            (Some(_), _) => {
                let val = Val { parts, lane };
                self.broadcast(&val).parts
            }
        };
        for (index, part) in vectors.into_iter().enumerate() {
            let at = offset + 16 * index as i32;
            self.b.ins().store(memory(), part, self.frame, at);
        }
    }

    /// Takes a variable from the frame.
    pub fn take(&mut self, var: Var) {
        let Some(slot) = self.source.plan.slots[var] else {
            self.clear(var);
            return;
        };
        let offset = (slot * 8 * GROUP) as i32;
        let plan = self.source.plan;
        let is_register = plan.vars.as_register(var).is_some();
        let lane = plan.lane_bits(self.source.function, var);
        let base = match (self.wide, lane) {
            (true, _) => self.frame,
            (false, 32) => self.lane4,
            (false, _) => self.lane8,
        };
        let vector = self.shape(var) == Shape::Varying;
        let parts = if vector {
            let ty = integer_type(lane, true);
            (0..part_count(lane))
                .map(|index| {
                    self.b
                        .ins()
                        .load(ty, memory(), base, offset + 16 * index as i32)
                })
                .collect()
        } else {
            let value = self
                .b
                .ins()
                .load(integer_type(lane, false), memory(), base, offset);
            if is_register {
                vec![value]
            } else {
                vec![self.b.ins().icmp_imm_s(IntCC::NotEqual, value, 0)]
            }
        };
        self.define(var, &parts);
    }
}
