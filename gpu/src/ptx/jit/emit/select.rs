//! Moves, predicates and selections.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value as Ir, types};
use cranelift_frontend::FunctionBuilder;

use super::Emitter;
use super::value::{Mask, Val, as_float, as_int, cast, choose, integer, integer_type};
use crate::ptx::ir::{BoolOp, Compare, Op, Space, Test, Value};
use crate::ptx::jit::plan::lane_bits;
use crate::ptx::jit::shape::Shape;
use crate::ptx::syntax::Scalar;

impl Emitter<'_, '_> {
    /// Emits a move, a comparison or a selection; false if it has no code of its own.
    pub fn select(&mut self, op: &Op, shape: Shape) -> bool {
        match op {
            Op::Mov { dst, src } => {
                let raw = self.source.plan.raw[*dst as usize];
                let bits = self.register_bits(*dst);
                let val = if raw {
                    self.operand_raw(*src, bits)
                } else {
                    self.operand(*src, bits)
                };
                self.write(*dst, val, shape);
            }
            Op::Cvta {
                dst,
                space: Space::Generic | Space::Global,
                a,
                ..
            } => {
                let val = self.operand(*a, 64);
                self.write(*dst, val, shape);
            }
            Op::MovPred { dst, src } => {
                let mask = self.pred(*src);
                self.write_pred(*dst, mask);
            }
            Op::LogicPred { op, dst, a, b } => {
                let (a, b) = (self.pred(*a), self.pred(*b));
                let mask = self.combine(*op, &a, &b);
                self.write_pred(*dst, mask);
            }
            Op::Setp {
                compare,
                ty,
                ftz,
                combine,
                dst,
                dst2,
                a,
                b,
            } => {
                let Some(first) = self.compare(*compare, *ty, *ftz, *a, *b) else {
                    return false;
                };
                let second = self.complement(&first);
                let pred = combine.map(|(op, pred)| (op, self.pred(pred)));
                for (dst, mask) in [(dst, first), (dst2, second)] {
                    let mask = match &pred {
                        Some((op, pred)) => self.combine(*op, &mask, pred),
                        None => mask,
                    };
                    if let Some(dst) = dst {
                        self.write_pred(*dst, mask);
                    }
                }
            }
            Op::Set {
                compare,
                ty,
                ftz,
                combine,
                result: result @ (Scalar::U32 | Scalar::S32 | Scalar::F32),
                dst,
                a,
                b,
            } => {
                let Some(mut mask) = self.compare(*compare, *ty, *ftz, *a, *b) else {
                    return false;
                };
                if let Some((op, pred)) = combine {
                    let pred = self.pred(*pred);
                    mask = self.combine(*op, &mask, &pred);
                }
                let truth = if *result == Scalar::F32 {
                    u64::from(1f32.to_bits())
                } else {
                    u64::from(u32::MAX)
                };
                let (yes, no) = (self.immediate(truth, 32), self.immediate(0, 32));
                let val = self.selected(&mask, yes, no);
                self.write(*dst, val, shape);
            }
            Op::Selp { dst, a, b, pred } => {
                let bits = self.register_bits(*dst);
                let raw = self.source.plan.raw[*dst as usize];
                let (a, b) = if raw {
                    (self.operand_raw(*a, bits), self.operand_raw(*b, bits))
                } else {
                    (self.operand(*a, bits), self.operand(*b, bits))
                };
                let mask = self.pred(*pred);
                let val = self.selected(&mask, a, b);
                self.write(*dst, val, shape);
            }
            Op::Pack { dst, bits, srcs } => {
                let lane = lane_bits(self.register_bits(*dst));
                let ty = integer_type(lane, false);
                let zero = integer(&mut self.b, ty, 0);
                let mut all = Val::scalar(zero, lane);
                for (index, src) in srcs.iter().enumerate() {
                    let part = self.operand(*src, *bits);
                    let part = self.resize(part, lane);
                    let shift = i64::from(bits * index as u32);
                    all = self.map(&[all, part], lane, |b, args| {
                        let part = as_int(b, args[1]);
                        let part = b.ins().ishl_imm_u(part, shift);
                        b.ins().bor(args[0], part)
                    });
                }
                self.write(*dst, all, shape);
            }
            Op::Unpack { dsts, bits, src } => {
                let width = *bits * dsts.len() as u32;
                let all = self.operand(*src, width);
                for (index, dst) in dsts.iter().enumerate() {
                    let Some(dst) = dst else { continue };
                    let shift = i64::from(bits * index as u32);
                    let low = if *bits < 64 { (1i64 << bits) - 1 } else { -1 };
                    let part = self.map(std::slice::from_ref(&all), all.lane, |b, args| {
                        let value = as_int(b, args[0]);
                        let part = b.ins().ushr_imm_u(value, shift);
                        let ty = b.func.dfg.value_type(part);
                        let mask = integer(b, ty, low);
                        b.ins().band(part, mask)
                    });
                    self.write(*dst, part, shape);
                }
            }
            _ => return false,
        }
        true
    }

    fn combine(&mut self, op: BoolOp, a: &Mask, b: &Mask) -> Mask {
        let (a, b) = if a.is_scalar() && b.is_scalar() {
            (a.clone(), b.clone())
        } else {
            (self.broadcast_mask(a), self.broadcast_mask(b))
        };
        let parts = a.parts.iter().zip(&b.parts).map(|(&a, &b)| match op {
            BoolOp::And => self.b.ins().band(a, b),
            BoolOp::Or => self.b.ins().bor(a, b),
            BoolOp::Xor => self.b.ins().bxor(a, b),
        });
        Mask {
            parts: parts.collect(),
        }
    }

    /// `yes` where the mask holds, else `no`.
    pub fn selected(&mut self, mask: &Mask, yes: Val, no: Val) -> Val {
        let lane = yes.lane;
        if mask.is_scalar() {
            let condition = mask.parts[0];
            return self.map(&[yes, no], lane, |b, args| {
                let (yes, no) = (as_int(b, args[0]), as_int(b, args[1]));
                b.ins().select(condition, yes, no)
            });
        }
        let masks = Val {
            parts: self.mask_lanes(mask, lane),
            lane,
        };
        self.map(&[masks, yes, no], lane, |b, args| {
            let (yes, no) = (as_int(b, args[1]), as_int(b, args[2]));
            b.ins().bitselect(args[0], yes, no)
        })
    }

    fn compare(
        &mut self,
        compare: Compare,
        ty: Scalar,
        ftz: bool,
        a: Value,
        b: Value,
    ) -> Option<Mask> {
        let bits = ty.bytes() as u32 * 8;
        let lane = lane_bits(bits);
        if ty.is_float() {
            if !matches!(ty, Scalar::F32 | Scalar::F64) {
                return None;
            }
            let condition = float_condition(compare);
            let (a, b) = (self.operand_raw(a, bits), self.operand_raw(b, bits));
            let val = self.map(&[a, b], lane, |b, args| {
                let (x, y) = (as_float(b, args[0]), as_float(b, args[1]));
                let (x, y) = if ftz {
                    (flush(b, x), flush(b, y))
                } else {
                    (x, y)
                };
                b.ins().fcmp(condition, x, y)
            });
            return Some(self.mask_of(val.parts));
        }
        if !matches!(bits, 16 | 32 | 64) || matches!(ty, Scalar::U16x2 | Scalar::S16x2) {
            return None;
        }
        let condition = integer_condition(compare.test, ty.is_signed())?;
        let signed = ty.is_signed();
        let (a, b) = (self.operand(a, bits), self.operand(b, bits));
        let (a, b) = if signed {
            (self.sign_narrow(a, bits), self.sign_narrow(b, bits))
        } else {
            (a, b)
        };
        let val = self.map(&[a, b], lane, |b, args| {
            let (x, y) = (as_int(b, args[0]), as_int(b, args[1]));
            b.ins().icmp(condition, x, y)
        });
        Some(self.mask_of(val.parts))
    }

    /// Lanes of fewer than 32 bits, extended by their sign.
    pub fn sign_narrow(&mut self, val: Val, bits: u32) -> Val {
        if bits >= 32 {
            return val;
        }
        let shift = i64::from(32 - bits);
        self.map(&[val], 32, |b, args| {
            let up = as_int(b, args[0]);
            let up = b.ins().ishl_imm_u(up, shift);
            b.ins().sshr_imm_u(up, shift)
        })
    }
}

pub fn integer_condition(test: Test, signed: bool) -> Option<IntCC> {
    Some(match (test, signed) {
        (Test::Eq, _) => IntCC::Equal,
        (Test::Ne, _) => IntCC::NotEqual,
        (Test::Lt, true) => IntCC::SignedLessThan,
        (Test::Le, true) => IntCC::SignedLessThanOrEqual,
        (Test::Gt, true) => IntCC::SignedGreaterThan,
        (Test::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (Test::Lt, false) => IntCC::UnsignedLessThan,
        (Test::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (Test::Gt, false) => IntCC::UnsignedGreaterThan,
        (Test::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
        (Test::Num | Test::Nan, _) => return None,
    })
}

fn float_condition(compare: Compare) -> FloatCC {
    match (compare.test, compare.unordered) {
        (Test::Eq, false) => FloatCC::Equal,
        (Test::Eq, true) => FloatCC::UnorderedOrEqual,
        (Test::Ne, false) => FloatCC::OrderedNotEqual,
        (Test::Ne, true) => FloatCC::NotEqual,
        (Test::Lt, false) => FloatCC::LessThan,
        (Test::Lt, true) => FloatCC::UnorderedOrLessThan,
        (Test::Le, false) => FloatCC::LessThanOrEqual,
        (Test::Le, true) => FloatCC::UnorderedOrLessThanOrEqual,
        (Test::Gt, false) => FloatCC::GreaterThan,
        (Test::Gt, true) => FloatCC::UnorderedOrGreaterThan,
        (Test::Ge, false) => FloatCC::GreaterThanOrEqual,
        (Test::Ge, true) => FloatCC::UnorderedOrGreaterThanOrEqual,
        (Test::Num, _) => FloatCC::Ordered,
        (Test::Nan, _) => FloatCC::Unordered,
    }
}

/// `.ftz`: subnormal numbers of single precision become zeros with their sign.
pub fn flush(b: &mut FunctionBuilder<'_>, value: Ir) -> Ir {
    let ty = b.func.dfg.value_type(value);
    if !matches!(ty, types::F32 | types::F32X4) {
        return value;
    }
    const EXPONENT: i64 = 0x7f80_0000;
    const SIGN: i64 = 0x8000_0000;
    let bits = as_int(b, value);
    let int = b.func.dfg.value_type(bits);
    let exponent = integer(b, int, EXPONENT);
    let exponent = b.ins().band(bits, exponent);
    let zero = integer(b, int, 0);
    let small = b.ins().icmp(IntCC::Equal, exponent, zero);
    let sign = integer(b, int, SIGN);
    let signed_zero = b.ins().band(bits, sign);
    let result = choose(b, small, signed_zero, bits);
    cast(b, result, ty)
}
