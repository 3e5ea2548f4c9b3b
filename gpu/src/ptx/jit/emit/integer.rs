//! Integer arithmetic.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value as Ir, types};
use cranelift_frontend::FunctionBuilder;

use super::Emitter;
use super::value::{Val, as_int, choose, integer};
use crate::ptx::ir::{IntOp, Value};
use crate::ptx::jit::plan::lane_bits;
use crate::ptx::jit::shape::Shape;

type Builder<'b, 'f> = &'b mut FunctionBuilder<'f>;

impl Emitter<'_, '_> {
    /// The result of an operation on integers of `bits` bits; `None` if it has no code of its own.
    pub fn integer(
        &mut self,
        op: IntOp,
        bits: u32,
        signed: bool,
        args: &[Value; 4],
    ) -> Option<Val> {
        if !matches!(bits, 16 | 32 | 64) {
            return None;
        }
        match op {
            IntOp::MulWide | IntOp::MadWide => return self.wide(op, bits, signed, args),
            IntOp::MulHi | IntOp::MadHi => return self.high(op, bits, signed, args),
            IntOp::Shl | IntOp::Shr => return self.shift(op, bits, signed, args),
            _ => {}
        }
        let lane = lane_bits(bits);
        let val = |emitter: &mut Self, index: usize| {
            let val = emitter.operand(args[index], bits);
            if signed {
                emitter.sign_narrow(val, bits)
            } else {
                val
            }
        };
        let count = match op {
            IntOp::Neg | IntOp::Abs | IntOp::Not | IntOp::Cnot => 1,
            IntOp::Brev | IntOp::Clz | IntOp::Popc => 1,
            IntOp::MadLo | IntOp::Lop3(_) | IntOp::Shf { .. } => 3,
            _ => 2,
        };
        let vals: Vec<Val> = (0..count).map(|index| val(self, index)).collect();
        let ints = |b: Builder<'_, '_>, args: &[Ir]| -> Vec<Ir> {
            args.iter().map(|&arg| as_int(b, arg)).collect()
        };
        let result = match op {
            IntOp::Div | IntOp::Rem => self.each(&vals, lane, |b, args| {
                let args = ints(b, args);
                divide(b, op == IntOp::Rem, signed, args[0], args[1])
            }),
            IntOp::Brev => self.each(&vals, lane, |b, args| {
                let arg = as_int(b, args[0]);
                let turned = b.ins().bitrev(arg);
                b.ins().ushr_imm_u(turned, i64::from(lane - bits))
            }),
            IntOp::Clz | IntOp::Popc => {
                let result = self.each(&vals, lane, |b, args| {
                    let arg = as_int(b, args[0]);
                    if op == IntOp::Popc {
                        b.ins().popcnt(arg)
                    } else {
                        let zeros = b.ins().clz(arg);
                        b.ins().iadd_imm_s(zeros, i64::from(bits) - i64::from(lane))
                    }
                });
                return Some(self.resize(result, 32));
            }
            IntOp::Shf { left, wrap } => self.each(&vals, lane, |b, args| {
                let args = ints(b, args);
                funnel(b, left, wrap, &args)
            }),
            IntOp::Add
            | IntOp::Sub
            | IntOp::MulLo
            | IntOp::MadLo
            | IntOp::Min
            | IntOp::Max
            | IntOp::Neg
            | IntOp::Abs
            | IntOp::Not
            | IntOp::Cnot
            | IntOp::And
            | IntOp::Or
            | IntOp::Xor
            | IntOp::Lop3(_) => self.map(&vals, lane, |b, args| {
                let args = ints(b, args);
                simple(b, op, signed, &args)
            }),
            _ => return None,
        };
        Some(self.cut(result, bits))
    }

    /// Bits above the width become zeros.
    pub fn cut(&mut self, val: Val, bits: u32) -> Val {
        if bits >= val.lane {
            return val;
        }
        let lane = val.lane;
        self.map(&[val], lane, |b, args| {
            let value = as_int(b, args[0]);
            let ty = b.func.dfg.value_type(value);
            let mask = integer(b, ty, (1 << bits) - 1);
            b.ins().band(value, mask)
        })
    }

    /// A value of `bits` bits in lanes of twice as many.
    fn doubled(&mut self, value: Value, bits: u32, signed: bool) -> Val {
        let val = self.operand(value, bits);
        match (bits, signed) {
            (16, true) => self.sign_narrow(val, 16),
            (16, false) => val,
            (_, true) => self.sign_extended(&val),
            (_, false) => self.resize(val, 64),
        }
    }

    fn wide(&mut self, op: IntOp, bits: u32, signed: bool, args: &[Value; 4]) -> Option<Val> {
        if bits == 64 {
            return None;
        }
        let lane = 2 * bits;
        let a = self.doubled(args[0], bits, signed);
        let b = self.doubled(args[1], bits, signed);
        let product = self.map(&[a, b], lane, |b, args| b.ins().imul(args[0], args[1]));
        if op == IntOp::MulWide {
            return Some(product);
        }
        let c = self.operand(args[2], lane);
        Some(self.map(&[product, c], lane, |b, args| {
            let c = as_int(b, args[1]);
            b.ins().iadd(args[0], c)
        }))
    }

    fn high(&mut self, op: IntOp, bits: u32, signed: bool, args: &[Value; 4]) -> Option<Val> {
        let high = if bits == 64 {
            let a = self.operand(args[0], 64);
            let b = self.operand(args[1], 64);
            self.each(&[a, b], 64, |b, args| {
                let (x, y) = (as_int(b, args[0]), as_int(b, args[1]));
                if signed {
                    b.ins().smulhi(x, y)
                } else {
                    b.ins().umulhi(x, y)
                }
            })
        } else {
            let product = self.wide(IntOp::MulWide, bits, signed, args)?;
            let lane = product.lane;
            let high = self.map(&[product], lane, |b, args| {
                b.ins().ushr_imm_u(args[0], i64::from(bits))
            });
            self.resize(high, lane_bits(bits))
        };
        if op == IntOp::MulHi {
            return Some(self.cut(high, bits));
        }
        let lane = high.lane;
        let c = self.operand(args[2], bits);
        let sum = self.map(&[high, c], lane, |b, args| {
            let c = as_int(b, args[1]);
            b.ins().iadd(args[0], c)
        });
        Some(self.cut(sum, bits))
    }

    /// Shifts: by the width or more they give zeros, or copies of the sign.
    fn shift(&mut self, op: IntOp, bits: u32, signed: bool, args: &[Value; 4]) -> Option<Val> {
        let lane = lane_bits(bits);
        let arithmetic = op == IntOp::Shr && signed;
        let val = self.operand(args[0], bits);
        let val = if arithmetic {
            self.sign_narrow(val, bits)
        } else {
            val
        };
        let emit = move |b: Builder<'_, '_>, value: Ir, amount: Ir| match (op, arithmetic) {
            (IntOp::Shl, _) => b.ins().ishl(value, amount),
            (_, true) => b.ins().sshr(value, amount),
            _ => b.ins().ushr(value, amount),
        };
        if let Value::Imm(amount) = args[1] {
            let amount = amount & u64::from(u32::MAX);
            if amount >= u64::from(bits) && !arithmetic {
                return Some(self.immediate(0, lane));
            }
            let amount = amount.min(u64::from(bits) - 1) as i64;
            let result = self.map(&[val], lane, |b, args| {
                let value = as_int(b, args[0]);
                let amount = b.ins().iconst(types::I32, amount);
                emit(b, value, amount)
            });
            return Some(self.cut(result, bits));
        }
        let most = i64::from(bits) - 1;
        let clamp = move |b: Builder<'_, '_>, amount: Ir| {
            let limit = b.ins().iconst(types::I32, most);
            let below = b.ins().icmp(IntCC::UnsignedLessThanOrEqual, amount, limit);
            (below, b.ins().umin(amount, limit))
        };
        let guarded = move |b: Builder<'_, '_>, value: Ir, below: Ir, amount: Ir| {
            let shifted = emit(b, value, amount);
            if arithmetic {
                return shifted;
            }
            let ty = b.func.dfg.value_type(shifted);
            let zero = integer(b, ty, 0);
            if ty.is_vector() {
                b.ins().select(below, shifted, zero)
            } else {
                choose(b, below, shifted, zero)
            }
        };
        let amount = self.operand(args[1], 32);
        let result = if amount.is_scalar() && self.value_shape(args[1]) == Shape::UNIFORM {
            let scalar = as_int(&mut self.b, amount.parts[0]);
            let (below, scalar) = clamp(&mut self.b, scalar);
            self.map(&[val], lane, |b, args| {
                let value = as_int(b, args[0]);
                guarded(b, value, below, scalar)
            })
        } else {
            let amount = self.resize(amount, lane);
            self.each(&[val, amount], lane, |b, args| {
                let (value, amount) = (as_int(b, args[0]), as_int(b, args[1]));
                let amount = if lane == 64 {
                    b.ins().ireduce(types::I32, amount)
                } else {
                    amount
                };
                let (below, amount) = clamp(b, amount);
                guarded(b, value, below, amount)
            })
        };
        Some(self.cut(result, bits))
    }
}

fn simple(b: Builder<'_, '_>, op: IntOp, signed: bool, args: &[Ir]) -> Ir {
    let ty = b.func.dfg.value_type(args[0]);
    match op {
        IntOp::Add => b.ins().iadd(args[0], args[1]),
        IntOp::Sub => b.ins().isub(args[0], args[1]),
        IntOp::MulLo => b.ins().imul(args[0], args[1]),
        IntOp::MadLo => {
            let product = b.ins().imul(args[0], args[1]);
            b.ins().iadd(product, args[2])
        }
        IntOp::Min | IntOp::Max => {
            let condition = match (op == IntOp::Min, signed) {
                (true, true) => IntCC::SignedLessThan,
                (true, false) => IntCC::UnsignedLessThan,
                (false, true) => IntCC::SignedGreaterThan,
                (false, false) => IntCC::UnsignedGreaterThan,
            };
            let first = b.ins().icmp(condition, args[0], args[1]);
            choose(b, first, args[0], args[1])
        }
        IntOp::Neg => b.ins().ineg(args[0]),
        IntOp::Abs => b.ins().iabs(args[0]),
        IntOp::Not => b.ins().bnot(args[0]),
        IntOp::Cnot => {
            let (zero, one) = (integer(b, ty, 0), integer(b, ty, 1));
            let is_zero = b.ins().icmp(IntCC::Equal, args[0], zero);
            choose(b, is_zero, one, zero)
        }
        IntOp::And => b.ins().band(args[0], args[1]),
        IntOp::Or => b.ins().bor(args[0], args[1]),
        IntOp::Xor => b.ins().bxor(args[0], args[1]),
        IntOp::Lop3(table) => lop3(b, table, args),
        _ => args[0],
    }
}

/// The rows of `lop3`'s table, each the conjunction of its operands or their complements.
fn lop3(b: Builder<'_, '_>, table: u8, args: &[Ir]) -> Ir {
    const A: u8 = 0xf0;
    const B: u8 = 0xcc;
    const C: u8 = 0xaa;
    let [x, y, z] = [args[0], args[1], args[2]];
    match table {
        t if t == A & B & C => {
            let both = b.ins().band(x, y);
            return b.ins().band(both, z);
        }
        t if t == A ^ B ^ C => {
            let both = b.ins().bxor(x, y);
            return b.ins().bxor(both, z);
        }
        t if t == A | B | C => {
            let both = b.ins().bor(x, y);
            return b.ins().bor(both, z);
        }
        _ => {}
    }
    let ty = b.func.dfg.value_type(x);
    let mut result = integer(b, ty, 0);
    for row in (0..8u8).filter(|row| table >> row & 1 != 0) {
        let mut term = integer(b, ty, -1);
        for (bit, value) in [(4, x), (2, y), (1, z)] {
            term = if row & bit != 0 {
                b.ins().band(term, value)
            } else {
                b.ins().band_not(term, value)
            };
        }
        result = b.ins().bor(result, term);
    }
    result
}

/// Division of scalars: by zero it gives all ones, and the dividend as the rest.
fn divide(b: Builder<'_, '_>, rest: bool, signed: bool, x: Ir, y: Ir) -> Ir {
    let ty = b.func.dfg.value_type(x);
    let (zero, one) = (integer(b, ty, 0), integer(b, ty, 1));
    let by_zero = b.ins().icmp(IntCC::Equal, y, zero);
    // By -1 it is a negation, which cannot overflow; the instruction could.
    let by_less = integer(b, ty, -1);
    let by_less = b.ins().icmp(IntCC::Equal, y, by_less);
    let special = if signed {
        b.ins().bor(by_zero, by_less)
    } else {
        by_zero
    };
    let divisor = b.ins().select(special, one, y);
    let (usual, at_zero, at_less) = match (rest, signed) {
        (false, true) => (
            b.ins().sdiv(x, divisor),
            by_zero_quotient(b, ty),
            b.ins().ineg(x),
        ),
        (false, false) => (b.ins().udiv(x, divisor), by_zero_quotient(b, ty), zero),
        (true, true) => (b.ins().srem(x, divisor), x, zero),
        (true, false) => (b.ins().urem(x, divisor), x, zero),
    };
    let result = if signed {
        b.ins().select(by_less, at_less, usual)
    } else {
        usual
    };
    b.ins().select(by_zero, at_zero, result)
}

fn by_zero_quotient(b: Builder<'_, '_>, ty: cranelift_codegen::ir::Type) -> Ir {
    integer(b, ty, -1)
}

/// `shf`: both words shifted as one (PTX ISA 9.7.8.3).
fn funnel(b: Builder<'_, '_>, left: bool, wrap: bool, args: &[Ir]) -> Ir {
    let low = b.ins().uextend(types::I64, args[0]);
    let high = b.ins().uextend(types::I64, args[1]);
    let high = b.ins().ishl_imm_u(high, 32);
    let both = b.ins().bor(high, low);
    let amount = if wrap {
        b.ins().band_imm_u(args[2], 31)
    } else {
        let limit = b.ins().iconst(types::I32, 32);
        b.ins().umin(args[2], limit)
    };
    let result = if left {
        let shifted = b.ins().ishl(both, amount);
        b.ins().ushr_imm_u(shifted, 32)
    } else {
        b.ins().ushr(both, amount)
    };
    b.ins().ireduce(types::I32, result)
}
