//! Floating point: arithmetic, comparisons and conversions (PTX ISA 9.7.3 to 9.7.7 and 9.7.9.21).

use super::super::forms::{Form, bits_of, is_signed};
use super::integer::{compared, compares, register_of};
use super::number::{BF16, Direction, F16, F32, F64, Format, Real};
use super::{Expected, low};

fn direction(form: &Form) -> Direction {
    let any = |names: &[&str]| names.iter().any(|name| form.has(name));
    if any(&["rz", "rzi"]) {
        Direction::Zero
    } else if any(&["rm", "rmi"]) {
        Direction::Down
    } else if any(&["rp", "rpi"]) {
        Direction::Up
    } else if any(&["rna"]) {
        Direction::Away
    } else {
        Direction::Nearest
    }
}

/// Rounds a result, with `.ftz`, `.sat` and `.relu`.
fn finish(form: &Form, format: Format, real: Real) -> Expected {
    let direction = direction(form);
    let Some(bits) = format.round(real, direction) else {
        return if form.has("sat") {
            Expected::Bits(0)
        } else {
            Expected::Nan
        };
    };
    if form.has("ftz") {
        // Whether a number that becomes normal by rounding alone counts as subnormal is open.
        let magnitude = bits & !format.sign();
        if magnitude == format.least_normal() && format.round(real, Direction::Zero) != Some(bits) {
            return Expected::Either(bits, bits & format.sign());
        }
    }
    let bits = if form.has("ftz") {
        format.flush(bits)
    } else {
        bits
    };
    let negative = bits & format.sign() != 0;
    if form.has("sat") {
        return Expected::Bits(if negative { 0 } else { bits.min(format.one()) });
    }
    if form.has("relu") && negative {
        // Whether -0.0 is negative is open.
        return if bits == format.sign() {
            Expected::Either(0, bits)
        } else {
            Expected::Bits(0)
        };
    }
    Expected::Bits(bits)
}

/// A number from one format in another, exactly.
fn bits_or_nan(bits: u64, format: Format) -> Expected {
    if format.is_nan(bits) {
        Expected::Nan
    } else {
        Expected::Bits(bits)
    }
}

pub fn expected(form: &Form, x: [u64; 4]) -> Expected {
    if form.opcode == "cvt" {
        return convert(form, x);
    }
    let Some(format) = Format::of(form.source()) else {
        // `set` of integers with a result in floating point.
        return super::integer::expected(form, x);
    };
    let bits = x.map(|x| {
        let bits = low(x, format.bits);
        if form.has("ftz") {
            format.flush(bits)
        } else {
            bits
        }
    });
    let [a, b, c] = [bits[0], bits[1], bits[2]].map(|bits| format.decode(bits));
    let direction = direction(form);
    let result = match &form.opcode[..] {
        "add" => a.plus(b, direction),
        "sub" => a.plus(b.negated(), direction),
        "mul" => a.times(b),
        "fma" | "mad" => a.times(b).plus(c, direction),
        "div" if form.has("approx") || form.has("full") => return quotient(a, b),
        "div" => a.over(b),
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" if form.has("approx") => {
            return approximation(form, format, bits[0]);
        }
        "rcp" => Real::Finite(false, 1, 0).over(a),
        "sqrt" => a.root(),
        "neg" => return bits_or_nan(bits[0] ^ format.sign(), format),
        "abs" => return bits_or_nan(bits[0] & !format.sign(), format),
        "copysign" => {
            let sign = x[0] & format.sign();
            return bits_or_nan(bits[1] & !format.sign() | sign, format);
        }
        "min" | "max" => return extreme(form, format, bits[0], bits[1]),
        "testp" => return Expected::Bits(tested(form, format, bits[0]).into()),
        "setp" | "set" => return comparison(form, a, b, x[2]),
        opcode => panic!("no definition of `{opcode}`"),
    };
    finish(form, format, result)
}

fn comparison(form: &Form, a: Real, b: Real, c: u64) -> Expected {
    let (a, b) = (a.to_f64(), b.to_f64());
    let nan = a.is_nan() || b.is_nan();
    let unordered = ["equ", "neu", "ltu", "leu", "gtu", "geu"]
        .iter()
        .any(|name| form.has(name));
    let holds = if form.has("num") {
        !nan
    } else if form.has("nan") {
        nan
    } else if nan {
        unordered
    } else {
        compares(form, a, b)
    };
    compared(form, holds, c)
}

fn tested(form: &Form, format: Format, bits: u64) -> bool {
    let magnitude = bits & !format.sign();
    let finite = magnitude < format.infinity();
    match &form.modifiers[0][..] {
        "finite" => finite,
        "infinite" => magnitude == format.infinity(),
        "number" => !format.is_nan(bits),
        "notanumber" => format.is_nan(bits),
        "normal" => finite && magnitude != 0 && !format.is_subnormal(bits),
        "subnormal" => format.is_subnormal(bits),
        class => panic!("no class `{class}`"),
    }
}

fn extreme(form: &Form, format: Format, a: u64, b: u64) -> Expected {
    let mut sign = 0;
    let [mut a, mut b] = [a, b];
    if form.has("xorsign") {
        sign = (a ^ b) & format.sign();
        [a, b] = [a, b].map(|bits| bits & !format.sign());
    }
    let signed = |bits: u64| {
        Expected::Bits(if form.has("xorsign") {
            bits | sign
        } else {
            bits
        })
    };
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => return Expected::Nan,
        (true, _) | (_, true) if form.has("NaN") => return Expected::Nan,
        (true, _) => return signed(b),
        (_, true) => return signed(a),
        _ => {}
    }
    // Ordered as sign and magnitude: -0.0 lies below 0.0.
    let order = |bits: u64| {
        let magnitude = (bits & !format.sign()) as i128;
        if bits & format.sign() != 0 {
            -1 - magnitude
        } else {
            magnitude
        }
    };
    let first = if form.opcode == "min" {
        order(a) <= order(b)
    } else {
        order(a) >= order(b)
    };
    signed(if first { a } else { b })
}

/// `div.approx` and `div.full`: two units in the last place for divisors up to 2^126.
fn quotient(a: Real, b: Real) -> Expected {
    let value = a.over(b).to_f64();
    let (a, b) = (a.to_f64(), b.to_f64());
    let open = !(2f64.powi(-126)..=2f64.powi(126)).contains(&b.abs()) || a.is_infinite();
    if value.is_nan() {
        return Expected::Nan;
    }
    if open || value != 0.0 && !(2f64.powi(-125)..2f64.powi(127)).contains(&value.abs()) {
        return Expected::Open;
    }
    Expected::Near {
        value,
        relative: 2f64.powi(-22),
        absolute: 0.0,
    }
}

fn approximation(form: &Form, format: Format, bits: u64) -> Expected {
    // In double precision only the upper half counts, and is there.
    let whole = if format == F64 && form.has("ftz") {
        bits & !0xffff_ffff
    } else {
        bits
    };
    let x = format.decode(whole).to_f64();
    let value = match &form.opcode[..] {
        "rcp" => 1.0 / x,
        "sqrt" => x.sqrt(),
        "rsqrt" => 1.0 / x.sqrt(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "lg2" => x.log2(),
        "ex2" => x.exp2(),
        _ => x.tanh(),
    };
    if value.is_nan() {
        return Expected::Nan;
    }
    let periodic = matches!(&form.opcode[..], "sin" | "cos");
    if periodic && x.abs() > std::f64::consts::PI {
        return Expected::Open;
    }
    // Near the ends of the format it is `.ftz` or the hardware that decides.
    let normal = match format {
        F16 => 2f64.powi(-13)..60000.0,
        F64 => 2f64.powi(-1020)..2f64.powi(1020),
        _ => 2f64.powi(-125)..2f64.powi(127),
    };
    if value != 0.0 && value.is_finite() && !normal.contains(&value.abs()) {
        return Expected::Open;
    }
    let subnormal = format.is_subnormal(bits);
    if subnormal && !value.is_finite() {
        return Expected::Open;
    }
    let (relative, absolute) = match (&form.opcode[..], format) {
        ("sin" | "cos", _) => (0.0, 2f64.powi(-20)),
        ("lg2", _) => (2f64.powi(-21), 2f64.powi(-22)),
        ("tanh", F32) => (2f64.powi(-11), 0.0),
        (_, F16) => (2f64.powi(-9), 0.0),
        (_, BF16) => (2f64.powi(-7), 0.0),
        (_, F64) => (2f64.powi(-20), 0.0),
        _ => (2f64.powi(-22), 0.0),
    };
    Expected::Near {
        value,
        relative,
        absolute,
    }
}

fn convert(form: &Form, x: [u64; 4]) -> Expected {
    let (to, from) = (form.ty(), form.source());
    if let Some(half) = to.strip_suffix("x2") {
        let mut form = form.clone();
        form.types[0] = half.to_owned();
        // The first source goes to the upper half.
        let [high, low] = [x[0], x[1]].map(|x| convert(&form, [x, 0, 0, 0]));
        return Expected::Halves(Box::new((form, low, high)));
    }
    let direction = direction(form);
    let value = match Format::of(from) {
        Some(format) => {
            let bits = low(x[0], format.bits);
            // `.ftz` is of single precision alone.
            let flush = form.has("ftz") && format == F32;
            format.decode(if flush { format.flush(bits) } else { bits })
        }
        None => {
            let bits = bits_of(from);
            let value = i128::from(low(x[0], bits));
            let negative = is_signed(from) && value >> (bits - 1) != 0;
            Real::from_i128(if negative { value - (1 << bits) } else { value })
        }
    };
    let Some(format) = Format::of(to) else {
        let bits = bits_of(to);
        let (least, most) = if is_signed(to) {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else {
            (0, (1 << bits) - 1)
        };
        if value == Real::Nan {
            // Zero, but for results of 64 bits on some devices.
            return if bits == 64 {
                Expected::Open
            } else {
                Expected::Bits(0)
            };
        }
        let integer = value.to_integer(direction).clamped(least, most);
        return Expected::Bits(low(integer as u64, register_of(to)));
    };
    let integral = ["rni", "rzi", "rmi", "rpi"]
        .iter()
        .any(|name| form.has(name));
    let value = if integral {
        value.to_integer(direction)
    } else {
        value
    };
    if to == "tf32" {
        return tensor(form, value, direction);
    }
    // `.ftz` flushes results of single precision alone, too.
    let mut form = form.clone();
    if format != F32 {
        form.modifiers.retain(|modifier| modifier != "ftz");
    }
    finish(&form, format, value)
}

/// `tf32`: single precision with ten bits of fraction; the others are open, and zero here.
fn tensor(form: &Form, value: Real, direction: Direction) -> Expected {
    const SHORT: u32 = 13;
    // Rounding to the short fraction is rounding to a format of 19 bits with single precision's exponents.
    let short = Format::short(F32, SHORT);
    match short.round(value, direction) {
        None => Expected::Nan,
        Some(bits) if form.has("relu") && bits & short.sign() != 0 => Expected::Bits(0),
        Some(bits) => Expected::Bits(bits << SHORT),
    }
}
