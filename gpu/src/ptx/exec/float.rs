//! Floating-point instructions on lanes: arithmetic, comparison, conversion.

use super::lanes::{Lanes, low, map1, map3, mask_of, signed};
use crate::ptx::float::{Format, Number, Rounding, approx};
use crate::ptx::ir::{BoolOp, Compare, Convert, FloatClass, FloatMods, FloatOp, FloatType, Test};
use crate::ptx::syntax::Scalar;

/// The format of a type or of its halves, and whether there are two of them.
fn format_of(ty: FloatType) -> (Format, bool) {
    match ty {
        FloatType::F16 => (Format::F16, false),
        FloatType::F16x2 => (Format::F16, true),
        FloatType::Bf16 => (Format::BF16, false),
        FloatType::Bf16x2 => (Format::BF16, true),
        FloatType::F32 => (Format::F32, false),
        FloatType::F64 => (Format::F64, false),
    }
}

fn scalar_format(scalar: Scalar) -> Option<Format> {
    Some(match scalar {
        Scalar::F16 => Format::F16,
        Scalar::Bf16 => Format::BF16,
        Scalar::F32 | Scalar::Tf32 => Format::F32,
        Scalar::F64 => Format::F64,
        _ => return None,
    })
}

pub fn evaluate(op: FloatOp, ty: FloatType, mods: &FloatMods, [a, b, c]: &[Lanes; 3]) -> Lanes {
    if ty == FloatType::F32
        && mods.rounding == Rounding::NearestEven
        && let Some(result) = host_single(op, mods, a, b, c)
    {
        return result;
    }
    let (format, packed) = format_of(ty);
    if !packed {
        return map3(a, b, c, |a, b, c| scalar(op, format, mods, a, b, c));
    }
    let half = |shift: u32, a: u64, b: u64, c: u64| {
        let part = |value: u64| low(value >> shift, 16);
        scalar(op, format, mods, part(a), part(b), part(c)) << shift
    };
    map3(a, b, c, |a, b, c| half(0, a, b, c) | half(16, a, b, c))
}

/// Single precision to nearest even is the host's arithmetic.
fn host_single(op: FloatOp, mods: &FloatMods, a: &Lanes, b: &Lanes, c: &Lanes) -> Option<Lanes> {
    Some(match op {
        FloatOp::Add => host_lanes(mods, a, b, c, |a, b, _| a + b),
        FloatOp::Sub => host_lanes(mods, a, b, c, |a, b, _| a - b),
        FloatOp::Mul => host_lanes(mods, a, b, c, |a, b, _| a * b),
        FloatOp::Div => host_lanes(mods, a, b, c, |a, b, _| a / b),
        FloatOp::Fma => host_lanes(mods, a, b, c, f32::mul_add),
        _ => return None,
    })
}

fn host_lanes(
    mods: &FloatMods,
    a: &Lanes,
    b: &Lanes,
    c: &Lanes,
    f: impl Fn(f32, f32, f32) -> f32,
) -> Lanes {
    let input = |bits: u64| {
        let bits = if mods.ftz {
            Format::F32.flush(bits)
        } else {
            bits
        };
        f32::from_bits(bits as u32)
    };
    map3(a, b, c, |a, b, c| {
        let value = f(input(a), input(b), input(c));
        let bits = if value.is_nan() {
            Format::F32.nan
        } else {
            u64::from(value.to_bits())
        };
        finish(Format::F32, mods, bits)
    })
}

/// `.ftz`, `.sat` and `.relu` of a result.
fn finish(format: Format, mods: &FloatMods, bits: u64) -> u64 {
    let bits = if mods.ftz { format.flush(bits) } else { bits };
    let bits = if mods.sat {
        format.saturate(bits)
    } else {
        bits
    };
    if mods.relu && bits & format.sign() != 0 {
        0
    } else {
        bits
    }
}

fn scalar(op: FloatOp, format: Format, mods: &FloatMods, a: u64, b: u64, c: u64) -> u64 {
    let flush = |bits| if mods.ftz { format.flush(bits) } else { bits };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let number = |bits| format.unpack(bits);
    let rounding = mods.rounding;
    let pack = |number| format.pack(number, rounding);
    let bits = match op {
        FloatOp::Add => pack(number(a).add(number(b), rounding)),
        FloatOp::Sub => pack(number(a).add(number(b).negated(), rounding)),
        FloatOp::Mul => pack(number(a).multiply(number(b))),
        FloatOp::Fma => pack(number(a).multiply(number(b)).add(number(c), rounding)),
        FloatOp::Div => pack(number(a).divide(number(b))),
        FloatOp::Rcp => pack(number(format.one()).divide(number(a))),
        FloatOp::Sqrt => pack(number(a).square_root()),
        FloatOp::Approx(function) => function.apply(format, a),
        FloatOp::ApproxHigh(function) => approximate_high(function, a),
        FloatOp::Neg => a ^ format.sign(),
        FloatOp::Abs => a & !format.sign(),
        FloatOp::CopySign => b & !format.sign() | a & format.sign(),
        FloatOp::Min | FloatOp::Max => extreme(op == FloatOp::Max, format, mods, a, b),
    };
    finish(format, mods, bits)
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` (PTX ISA 9.7.3.14 and 9.7.3.18): the operand's lower half is
/// ignored, the result's is zero.
fn approximate_high(function: approx::Function, a: u64) -> u64 {
    const HIGH: u64 = 0xffff_ffff_0000_0000;
    let value = function.evaluate(f64::from_bits(Format::F64.flush(a & HIGH)));
    if value.is_nan() {
        Format::F64.nan
    } else {
        Format::F64.flush(value.to_bits()) & HIGH
    }
}

/// `min` and `max`: the operand that is a number, if one is not; -0.0 lies below +0.0.
fn extreme(max: bool, format: Format, mods: &FloatMods, a: u64, b: u64) -> u64 {
    let sign = if mods.xorsign_abs {
        (a ^ b) & format.sign()
    } else {
        0
    };
    let (a, b) = if mods.xorsign_abs {
        (a & !format.sign(), b & !format.sign())
    } else {
        (a, b)
    };
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => return format.nan,
        (true, false) | (false, true) if mods.nan => return format.nan,
        (true, false) => return b | sign,
        (false, true) => return a | sign,
        (false, false) => {}
    }
    let below = order(format, a) < order(format, b);
    (if below != max { a } else { b }) | sign
}

/// Integers in the order of the numbers.
fn order(format: Format, bits: u64) -> i64 {
    let magnitude = (bits & (format.sign() - 1)) as i64;
    if bits & format.sign() != 0 {
        -magnitude - 1
    } else {
        magnitude
    }
}

/// A comparison of each lane, as a mask.
pub fn compare(compare: Compare, ty: Scalar, ftz: bool, a: &Lanes, b: &Lanes) -> u32 {
    match scalar_format(ty) {
        Some(format) => mask_of(|lane| compare_floats(compare, format, ftz, a[lane], b[lane])),
        None if ty.is_signed() => {
            let bits = ty.bytes() as u32 * 8;
            mask_of(|lane| {
                test(
                    compare.test,
                    signed(a[lane], bits).cmp(&signed(b[lane], bits)),
                )
            })
        }
        None => mask_of(|lane| test(compare.test, a[lane].cmp(&b[lane]))),
    }
}

/// A comparison of the lower and of the upper half of each lane.
pub fn compare_halves(
    compare: Compare,
    format: Format,
    ftz: bool,
    a: &Lanes,
    b: &Lanes,
) -> (u32, u32) {
    let half = |shift: u32| {
        mask_of(|lane| {
            let part = |value: u64| low(value >> shift, 16);
            compare_floats(compare, format, ftz, part(a[lane]), part(b[lane]))
        })
    };
    (half(0), half(16))
}

/// The format of packed types.
pub fn packed_format(ty: Scalar) -> Option<Format> {
    match ty {
        Scalar::F16x2 => Some(Format::F16),
        Scalar::Bf16x2 => Some(Format::BF16),
        _ => None,
    }
}

fn compare_floats(compare: Compare, format: Format, ftz: bool, a: u64, b: u64) -> bool {
    let nan = format.is_nan(a) || format.is_nan(b);
    match compare.test {
        Test::Num => !nan,
        Test::Nan => nan,
        _ if nan => compare.unordered,
        condition => {
            let value = |bits: u64| {
                let bits = if ftz { format.flush(bits) } else { bits };
                // Both zeros are equal.
                order(format, if bits == format.sign() { 0 } else { bits })
            };
            test(condition, value(a).cmp(&value(b)))
        }
    }
}

fn test(test: Test, order: std::cmp::Ordering) -> bool {
    match test {
        Test::Eq => order.is_eq(),
        Test::Ne => order.is_ne(),
        Test::Lt => order.is_lt(),
        Test::Le => order.is_le(),
        Test::Gt => order.is_gt(),
        Test::Ge => order.is_ge(),
        Test::Num => true,
        Test::Nan => false,
    }
}

pub fn combine(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

/// `testp`.
pub fn classify(class: FloatClass, ty: FloatType, a: &Lanes) -> u32 {
    let (format, _) = format_of(ty);
    mask_of(|lane| {
        let magnitude = a[lane] & (format.sign() - 1);
        match class {
            FloatClass::Finite => magnitude < format.infinity(),
            FloatClass::Infinite => magnitude == format.infinity(),
            FloatClass::Number => magnitude <= format.infinity(),
            FloatClass::NotANumber => magnitude > format.infinity(),
            FloatClass::Normal => {
                magnitude & format.infinity() != 0 && magnitude < format.infinity()
            }
            FloatClass::Subnormal => format.is_subnormal(magnitude),
        }
    })
}

/// What `set` writes for true: 1.0 or all ones.
pub fn truth(result: Scalar) -> u64 {
    scalar_format(result).map_or(u64::from(u32::MAX), Format::one)
}

/// Whether `slct` takes its first operand: `c` is at least zero, and a number.
pub fn at_least_zero(float: bool, c: u64) -> bool {
    if float {
        !Format::F32.is_nan(c) && (c & Format::F32.sign() == 0 || c == Format::F32.sign())
    } else {
        signed(c, 32) >= 0
    }
}

pub fn convert(convert: &Convert, src: &Lanes) -> Lanes {
    map1(src, |bits| convert_one(convert, bits))
}

fn convert_one(convert: &Convert, bits: u64) -> u64 {
    let from_bits = convert.from.bytes() as u32 * 8;
    let bits = low(bits, from_bits);
    let number = match scalar_format(convert.from) {
        Some(format) => {
            // `.ftz` is of single precision alone.
            let bits = if convert.ftz && convert.from == Scalar::F32 {
                format.flush(bits)
            } else {
                bits
            };
            format.unpack(bits)
        }
        None if convert.from.is_signed() => {
            Number::from_integer(i128::from(signed(bits, from_bits)))
        }
        None => Number::from_integer(i128::from(bits)),
    };
    match scalar_format(convert.to) {
        Some(format) => to_float(convert, format, number),
        None => to_integer(convert, number),
    }
}

fn to_float(convert: &Convert, format: Format, number: Number) -> u64 {
    let number = match number {
        Number::Finite { negative, .. } if convert.integral => {
            match number.to_integer(convert.rounding) {
                // An integer of this size already: all its bits are above the point.
                None | Some(i128::MIN | i128::MAX) => number,
                Some(value) => Number::finite(negative, value.unsigned_abs(), 0),
            }
        }
        _ => number,
    };
    let bits = match (convert.to, number) {
        // The upper bits of a number of single precision.
        (Scalar::Tf32, Number::Finite { .. } | Number::Infinite { .. }) => {
            let short = Format::TF32;
            short.pack(number, convert.rounding) << (format.bits() - short.bits())
        }
        _ => format.pack(number, convert.rounding),
    };
    let bits = if convert.ftz && convert.to == Scalar::F32 {
        format.flush(bits)
    } else {
        bits
    };
    let bits = if convert.sat {
        format.saturate(bits)
    } else {
        bits
    };
    if convert.relu && bits & format.sign() != 0 {
        0
    } else {
        bits
    }
}

/// Integers out of range wrap if they come from integers, unless `.sat`; from floating point they clamp,
/// and NaN becomes 0.
fn to_integer(convert: &Convert, number: Number) -> u64 {
    let bits = convert.to.bytes() as u32 * 8;
    let Some(value) = number.to_integer(convert.rounding) else {
        return 0;
    };
    if convert.sat || convert.from.is_float() {
        let (least, most) = if convert.to.is_signed() {
            (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
        } else {
            (0, (1i128 << bits) - 1)
        };
        low(value.clamp(least, most) as u64, bits)
    } else {
        low(value as u64, bits)
    }
}
