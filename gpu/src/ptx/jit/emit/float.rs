//! Floating-point arithmetic of 32 and 64 bits.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value as Ir, types};
use cranelift_frontend::FunctionBuilder;

use super::Emitter;
use super::math;
use super::select::flush;
use super::value::{Val, as_float, as_int, cast, choose, integer};
use crate::ptx::float::{Format, Rounding, approx};
use crate::ptx::ir::{FloatMods, FloatOp, FloatType, Reg, Value};
use crate::ptx::jit::shape::Shape;

type Builder<'b, 'f> = &'b mut FunctionBuilder<'f>;

/// A number in every lane of a floating-point type.
pub fn number(b: Builder<'_, '_>, ty: Type, value: f64) -> Ir {
    let lane = ty.lane_type();
    let scalar = if lane == types::F32 {
        b.ins().f32const(value as f32)
    } else {
        b.ins().f64const(value)
    };
    if ty.is_vector() {
        b.ins().splat(ty, scalar)
    } else {
        scalar
    }
}

impl Emitter<'_, '_> {
    /// Emits an operation; false if it has no code of its own.
    pub fn float(
        &mut self,
        op: FloatOp,
        ty: FloatType,
        mods: &FloatMods,
        dst: Reg,
        args: &[Value; 3],
    ) -> bool {
        let double = ty == FloatType::F64;
        let format = if double { Format::F64 } else { Format::F32 };
        let bits = if double { 64 } else { 32 };
        let rounds = matches!(
            op,
            FloatOp::Add
                | FloatOp::Sub
                | FloatOp::Mul
                | FloatOp::Fma
                | FloatOp::Div
                | FloatOp::Rcp
                | FloatOp::Sqrt
        );
        if mods.relu
            || mods.nan
            || mods.xorsign_abs
            || (rounds && mods.rounding != Rounding::NearestEven)
            || matches!(op, FloatOp::ApproxHigh(_))
        {
            return false;
        }
        if let FloatOp::Approx(function) = op
            && (double || !math::has(function))
        {
            return false;
        }
        if matches!(op, FloatOp::Neg | FloatOp::Abs | FloatOp::CopySign) {
            self.sign(op, format, mods, dst, args);
            return true;
        }
        let count = match op {
            FloatOp::Fma => 3,
            FloatOp::Rcp | FloatOp::Sqrt | FloatOp::Approx(_) => 1,
            _ => 2,
        };
        let vals: Vec<Val> = args[..count]
            .iter()
            .map(|&arg| self.operand_raw(arg, bits))
            .collect();
        if let FloatOp::Approx(approx::Function::Sin | approx::Function::Cos) = op {
            return self.trigonometric(op, mods, dst, vals);
        }
        let mods = *mods;
        let result = self.map(&vals, bits, |b, args| {
            let args: Vec<Ir> = args
                .iter()
                .map(|&arg| {
                    let arg = as_float(b, arg);
                    if mods.ftz { flush(b, arg) } else { arg }
                })
                .collect();
            let result = compute(b, op, format, &args);
            finish(b, &mods, result)
        });
        self.write_float(dst, result);
        true
    }

    fn trigonometric(&mut self, op: FloatOp, mods: &FloatMods, dst: Reg, vals: Vec<Val>) -> bool {
        let FloatOp::Approx(function) = op else {
            return false;
        };
        let mods = *mods;
        let result = self.map(&vals, 32, |b, args| {
            let arg = as_float(b, args[0]);
            let arg = if mods.ftz { flush(b, arg) } else { arg };
            let result = math::sine(b, arg, function == approx::Function::Cos);
            finish(b, &mods, result)
        });
        self.write_float(dst, result);
        true
    }

    /// Operations on the sign's bit alone.
    fn sign(&mut self, op: FloatOp, format: Format, mods: &FloatMods, dst: Reg, args: &[Value; 3]) {
        let bits = format.bits();
        let count = if op == FloatOp::CopySign { 2 } else { 1 };
        let vals: Vec<Val> = args[..count]
            .iter()
            .map(|&arg| self.operand(arg, bits))
            .collect();
        let sign = format.sign() as i64;
        let mods = *mods;
        let result = self.map(&vals, bits, |b, args| {
            let args: Vec<Ir> = args
                .iter()
                .map(|&arg| {
                    if mods.ftz {
                        let number = as_float(b, arg);
                        let number = flush(b, number);
                        as_int(b, number)
                    } else {
                        as_int(b, arg)
                    }
                })
                .collect();
            let ty = b.func.dfg.value_type(args[0]);
            let mask = integer(b, ty, sign);
            let result = match op {
                FloatOp::Neg => b.ins().bxor(args[0], mask),
                FloatOp::Abs => b.ins().band_not(args[0], mask),
                _ => {
                    let sign = b.ins().band(args[0], mask);
                    let size = b.ins().band_not(args[1], mask);
                    b.ins().bor(sign, size)
                }
            };
            let result = as_float(b, result);
            finish(b, &mods, result)
        });
        self.write(dst, result, Shape::UNIFORM);
    }
}

fn compute(b: Builder<'_, '_>, op: FloatOp, format: Format, args: &[Ir]) -> Ir {
    let ty = b.func.dfg.value_type(args[0]);
    match op {
        FloatOp::Add => b.ins().fadd(args[0], args[1]),
        FloatOp::Sub => b.ins().fsub(args[0], args[1]),
        FloatOp::Mul => b.ins().fmul(args[0], args[1]),
        FloatOp::Fma => b.ins().fma(args[0], args[1], args[2]),
        FloatOp::Div => b.ins().fdiv(args[0], args[1]),
        FloatOp::Rcp => {
            let one = number(b, ty, 1.0);
            b.ins().fdiv(one, args[0])
        }
        FloatOp::Sqrt => b.ins().sqrt(args[0]),
        FloatOp::Min | FloatOp::Max => extreme(b, op == FloatOp::Max, format, args[0], args[1]),
        FloatOp::Approx(function) => math::approximate(b, function, args[0]),
        _ => args[0],
    }
}

/// The smaller or larger number, or the only one; of zeros the negative one is smaller.
fn extreme(b: Builder<'_, '_>, max: bool, format: Format, x: Ir, y: Ir) -> Ir {
    let ty = b.func.dfg.value_type(x);
    // The host's instruction gives NaN if either operand is one, and orders the zeros.
    let usual = if max {
        b.ins().fmax(x, y)
    } else {
        b.ins().fmin(x, y)
    };
    let _ = format;
    let (usual, xi, yi) = (as_int(b, usual), as_int(b, x), as_int(b, y));
    let no_x = b.ins().fcmp(FloatCC::Unordered, x, x);
    let no_y = b.ins().fcmp(FloatCC::Unordered, y, y);
    let result = choose(b, no_y, xi, usual);
    let result = choose(b, no_x, yi, result);
    cast(b, result, ty)
}

/// `.ftz` and `.sat` of a result.
fn finish(b: Builder<'_, '_>, mods: &FloatMods, value: Ir) -> Ir {
    let value = if mods.ftz { flush(b, value) } else { value };
    if mods.sat { saturate(b, value) } else { value }
}

/// Into 0.0 to 1.0, NaN to 0.0.
pub fn saturate(b: Builder<'_, '_>, value: Ir) -> Ir {
    let ty = b.func.dfg.value_type(value);
    let (zero, one) = (number(b, ty, 0.0), number(b, ty, 1.0));
    let positive = b.ins().fcmp(FloatCC::GreaterThan, value, zero);
    let below = b.ins().fcmp(FloatCC::LessThan, value, one);
    let (zero, one, bits) = (as_int(b, zero), as_int(b, one), as_int(b, value));
    let upper = choose(b, below, bits, one);
    let result = choose(b, positive, upper, zero);
    cast(b, result, ty)
}
