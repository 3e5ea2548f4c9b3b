//! The functions that PTX lets hardware approximate, in single precision and within the error it states
//! (PTX ISA 9.7.3): about 2^-22 relative, for logarithm and sine absolute near their zeros.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value as Ir};
use cranelift_frontend::FunctionBuilder;

use super::float::number;
use super::value::{as_float, as_int, cast, choose, integer};
use crate::ptx::float::approx::Function;

type Builder<'b, 'f> = &'b mut FunctionBuilder<'f>;

/// Whether a function has code here.
pub fn has(function: Function) -> bool {
    !matches!(function, Function::Tanh)
}

/// A function of one argument other than sine and cosine.
pub fn approximate(b: Builder<'_, '_>, function: Function, x: Ir) -> Ir {
    let ty = b.func.dfg.value_type(x);
    match function {
        Function::Rcp => {
            let one = number(b, ty, 1.0);
            b.ins().fdiv(one, x)
        }
        Function::Sqrt => b.ins().sqrt(x),
        Function::Rsqrt => {
            let root = b.ins().sqrt(x);
            let one = number(b, ty, 1.0);
            b.ins().fdiv(one, root)
        }
        Function::Ex2 => exponential(b, x),
        Function::Lg2 => logarithm(b, x),
        _ => x,
    }
}

/// A polynomial, the highest coefficient first.
fn polynomial(b: Builder<'_, '_>, x: Ir, coefficients: &[f64]) -> Ir {
    let ty = b.func.dfg.value_type(x);
    let mut sum = number(b, ty, coefficients[0]);
    for &coefficient in &coefficients[1..] {
        let next = number(b, ty, coefficient);
        sum = b.ins().fma(sum, x, next);
    }
    sum
}

/// 2^x: the nearest integer goes to the exponent, the rest through the series of exp.
fn exponential(b: Builder<'_, '_>, x: Ir) -> Ir {
    // ln(2)^n / n!
    const SERIES: [f64; 8] = [
        1.525_273_380_405_984e-5,
        1.540_353_039_338_161e-4,
        1.333_355_814_642_844_3e-3,
        9.618_129_107_628_477e-3,
        5.550_410_866_482_158e-2,
        2.402_265_069_591_007e-1,
        std::f64::consts::LN_2,
        1.0,
    ];
    let ty = b.func.dfg.value_type(x);
    // Beyond these limits the result is zero or infinite; NaN stays what it is.
    let (least, most) = (number(b, ty, -152.0), number(b, ty, 130.0));
    let high = b.ins().fcmp(FloatCC::GreaterThan, x, most);
    let low = b.ins().fcmp(FloatCC::LessThan, x, least);
    let (xi, least, most) = (as_int(b, x), as_int(b, least), as_int(b, most));
    let clamped = choose(b, high, most, xi);
    let clamped = choose(b, low, least, clamped);
    let x = cast(b, clamped, ty);
    let whole = b.ins().nearest(x);
    let rest = b.ins().fsub(x, whole);
    let series = polynomial(b, rest, &SERIES);
    let int = b.func.dfg.value_type(xi);
    let exponent = b.ins().fcvt_to_sint_sat(int, whole);
    // Two factors, each a normal number, also for a subnormal or infinite result.
    let half = shift(b, exponent, 1, true);
    let other = b.ins().isub(exponent, half);
    let first = power(b, half);
    let second = power(b, other);
    let product = b.ins().fmul(series, first);
    b.ins().fmul(product, second)
}

/// 2^n as a number.
fn power(b: Builder<'_, '_>, n: Ir) -> Ir {
    let ty = b.func.dfg.value_type(n);
    let bias = integer(b, ty, 127);
    let biased = b.ins().iadd(n, bias);
    let bits = shift(b, biased, -23, false);
    as_float(b, bits)
}

/// A shift of every lane, to the left by a negative amount.
fn shift(b: Builder<'_, '_>, value: Ir, amount: i64, signed: bool) -> Ir {
    let count = b
        .ins()
        .iconst(cranelift_codegen::ir::types::I32, amount.abs());
    match (amount < 0, signed) {
        (true, _) => b.ins().ishl(value, count),
        (false, true) => b.ins().sshr(value, count),
        (false, false) => b.ins().ushr(value, count),
    }
}

/// log2(x): the exponent, and the series of the area hyperbolic tangent for a fraction around one.
fn logarithm(b: Builder<'_, '_>, x: Ir) -> Ir {
    /// 2 / (n ln 2) for n = 9, 7, 5, 3, 1.
    const SERIES: [f64; 5] = [
        3.205_988_979_753_252e-1,
        4.121_985_831_111_324e-1,
        5.770_780_163_555_854e-1,
        9.617_966_939_259_756e-1,
        2.885_390_081_777_926_8,
    ];
    /// The square root of a half.
    const ROOT: i64 = 0x3f35_04f3;
    let ty = b.func.dfg.value_type(x);
    let bits = as_int(b, x);
    let int = b.func.dfg.value_type(bits);
    // Subnormal numbers are scaled by 2^23.
    let smallest = number(b, ty, f64::from(f32::MIN_POSITIVE));
    let tiny = b.ins().fcmp(FloatCC::LessThan, x, smallest);
    let scale = number(b, ty, 8_388_608.0);
    let scaled = b.ins().fmul(x, scale);
    let scaled = as_int(b, scaled);
    let bits_scaled = choose(b, tiny, scaled, bits);
    let (shifted, none) = (integer(b, int, 23), integer(b, int, 0));
    let scaling = choose(b, tiny, shifted, none);
    // The exponent counts from the square root of a half, so that the fraction lies around one.
    let root = integer(b, int, ROOT);
    let above = b.ins().isub(bits_scaled, root);
    let exponent = shift(b, above, 23, true);
    let shifted_exponent = shift(b, exponent, -23, false);
    let fraction = b.ins().isub(bits_scaled, shifted_exponent);
    let fraction = as_float(b, fraction);
    let exponent = b.ins().isub(exponent, scaling);
    let exponent = b.ins().fcvt_from_sint(ty, exponent);
    let one = number(b, ty, 1.0);
    let above_one = b.ins().fsub(fraction, one);
    let sum = b.ins().fadd(fraction, one);
    let ratio = b.ins().fdiv(above_one, sum);
    let square = b.ins().fmul(ratio, ratio);
    let series = polynomial(b, square, &SERIES);
    let result = b.ins().fma(ratio, series, exponent);
    // Zero, infinity, NaN and negative numbers.
    let zero = number(b, ty, 0.0);
    let infinity = number(b, ty, f64::INFINITY);
    let minus = number(b, ty, f64::NEG_INFINITY);
    let nan = number(b, ty, f64::NAN);
    let finite = b.ins().fcmp(FloatCC::LessThan, x, infinity);
    let (result, minus, nan) = (as_int(b, result), as_int(b, minus), as_int(b, nan));
    let result = choose(b, finite, result, bits);
    let is_zero = b.ins().fcmp(FloatCC::Equal, x, zero);
    let negative = b.ins().fcmp(FloatCC::LessThan, x, zero);
    let result = choose(b, is_zero, minus, result);
    let result = choose(b, negative, nan, result);
    cast(b, result, ty)
}

/// sin(x) or cos(x): what is left of the nearest multiple of a quarter turn, through either series.
pub fn sine(b: Builder<'_, '_>, x: Ir, cosine: bool) -> Ir {
    // A quarter turn in three parts, the first two with few bits, so that their multiples are exact.
    const PARTS: [f64; 3] = [
        -1.570_796_251_296_997,
        -7.549_789_415_861_596e-8,
        -5.390_302_529_957_765e-15,
    ];
    const SINE: [f64; 4] = [
        2.755_731_922_398_589e-6,
        -1.984_126_984_126_984e-4,
        8.333_333_333_333_333e-3,
        -1.666_666_666_666_666_6e-1,
    ];
    const COSINE: [f64; 5] = [
        2.480_158_730_158_73e-5,
        -1.388_888_888_888_889e-3,
        4.166_666_666_666_666_4e-2,
        -0.5,
        1.0,
    ];
    let ty = b.func.dfg.value_type(x);
    let turns = number(b, ty, std::f64::consts::FRAC_2_PI);
    let turns = b.ins().fmul(x, turns);
    let turns = b.ins().nearest(turns);
    let mut rest = x;
    for part in PARTS {
        let part = number(b, ty, part);
        rest = b.ins().fma(turns, part, rest);
    }
    let bits = as_int(b, x);
    let int = b.func.dfg.value_type(bits);
    let quarter = b.ins().fcvt_to_sint_sat(int, turns);
    let quarter = if cosine {
        let one = integer(b, int, 1);
        b.ins().iadd(quarter, one)
    } else {
        quarter
    };
    let square = b.ins().fmul(rest, rest);
    let odd_series = polynomial(b, square, &SINE);
    let cube = b.ins().fmul(square, rest);
    let odd = b.ins().fma(odd_series, cube, rest);
    let even = polynomial(b, square, &COSINE);
    let (one, two) = (integer(b, int, 1), integer(b, int, 2));
    let zero = integer(b, int, 0);
    let is_even = b.ins().band(quarter, one);
    let is_even = b.ins().icmp(IntCC::NotEqual, is_even, zero);
    let (odd, even) = (as_int(b, odd), as_int(b, even));
    let result = choose(b, is_even, even, odd);
    let sign = b.ins().band(quarter, two);
    let sign = shift(b, sign, -30, false);
    let result = b.ins().bxor(result, sign);
    cast(b, result, ty)
}
