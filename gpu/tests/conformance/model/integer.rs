//! Integers, logic, bit fields, moves and selections (PTX ISA 9.7.1, 9.7.2, 9.7.6, 9.7.8 and 9.7.9).

use super::super::forms::{Form, bits_of, is_signed};
use super::{Expected, low, source};

/// A value as its type reads it.
fn read(ty: &str, x: u64) -> i128 {
    let bits = bits_of(ty);
    let value = i128::from(low(x, bits));
    if is_signed(ty) && value >> (bits - 1) != 0 {
        value - (1 << bits)
    } else {
        value
    }
}

/// Whether a comparison holds.
pub fn compares<T: PartialOrd>(form: &Form, a: T, b: T) -> bool {
    let test = |names: [&str; 3]| names.iter().any(|name| form.has(name));
    if test(["eq", "equ", "eq"]) {
        a == b
    } else if test(["ne", "neu", "ne"]) {
        a != b
    } else if test(["lt", "ltu", "lo"]) {
        a < b
    } else if test(["le", "leu", "ls"]) {
        a <= b
    } else if test(["gt", "gtu", "hi"]) {
        a > b
    } else if test(["ge", "geu", "hs"]) {
        a >= b
    } else {
        panic!("{} compares nothing", form.name)
    }
}

/// What `setp` and `set` make of a comparison and of a predicate, which is the lowest bit of `c`.
pub fn combined(form: &Form, holds: bool, c: u64) -> bool {
    let c = c & 1 != 0;
    if form.has("and") {
        holds && c
    } else if form.has("or") {
        holds || c
    } else if form.has("xor") {
        holds != c
    } else {
        holds
    }
}

/// The results of `setp p|q`, or that of `set`.
pub fn compared(form: &Form, holds: bool, c: u64) -> Expected {
    let first = combined(form, holds, c);
    if form.opcode == "setp" {
        return Expected::Bits(u64::from(first) | u64::from(combined(form, !holds, c)) << 1);
    }
    Expected::Bits(match (first, form.ty()) {
        (false, _) => 0,
        (true, "f32") => 1f32.to_bits().into(),
        (true, "f16") => 0x3c00,
        (true, "bf16") => 0x3f80,
        (true, ty) => low(u64::MAX, bits_of(ty)),
    })
}

pub fn expected(form: &Form, x: [u64; 4]) -> Expected {
    let source_type = form.source();
    let bits = bits_of(source_type);
    let [a, b, c] = [x[0], x[1], x[2]].map(|x| read(source_type, x));
    let result = match &form.opcode[..] {
        "add" | "sub" | "addc" | "subc" | "madc" => return sum(form, x),
        "mad" if form.has("cc") => return sum(form, x),
        "mul" | "mad" | "mul24" | "mad24" => return product(form, x),
        "sad" => (a - b).abs() + c,
        "div" | "rem" if b == 0 => return Expected::Open,
        "div" => a / b,
        "rem" => a % b,
        "min" => a.min(b),
        "max" => a.max(b),
        "neg" => -a,
        "abs" => a.abs(),
        "and" => a & b,
        "or" => a | b,
        "xor" => a ^ b,
        "not" => !a,
        "cnot" => i128::from(a == 0),
        "shl" => a << low(x[1], 32).min(64),
        "shr" => a >> low(x[1], 32).min(64),
        "mov" => a,
        "selp" => {
            if x[2] & 1 != 0 {
                a
            } else {
                b
            }
        }
        "slct" => return select(form, x),
        "setp" | "set" => return compared(form, compares(form, a, b), x[2]),
        // The first bit to look at is one of the 32.
        "fns" if low(x[1], 32) > 31 => return Expected::Open,
        "cvt" => {
            let (to, width) = (form.ty(), register_of(form.ty()));
            let limits = if is_signed(to) {
                (-(1 << (bits_of(to) - 1)), (1 << (bits_of(to) - 1)) - 1)
            } else {
                (0, (1 << bits_of(to)) - 1)
            };
            let value = if form.has("sat") {
                a.clamp(limits.0, limits.1)
            } else {
                read(to, a as u64)
            };
            return Expected::Bits(low(value as u64, width));
        }
        _ => return Expected::Bits(low(fields(form, x), result_bits(form))),
    };
    Expected::Bits(low(result as u64, bits))
}

/// Bits of the register for a type: the narrowest that PTX has.
pub fn register_of(ty: &str) -> u32 {
    match bits_of(ty) {
        8 => 32,
        bits => bits,
    }
}

pub fn result_bits(form: &Form) -> u32 {
    match &form.opcode[..] {
        "popc" | "clz" | "bfind" => 32,
        "mul" | "mad" if form.has("wide") => 2 * bits_of(form.ty()),
        "cvt" => register_of(form.ty()),
        _ => bits_of(form.ty()),
    }
}

fn select(form: &Form, x: [u64; 4]) -> Expected {
    let first = if form.types[1] == "f32" {
        let c = f32::from_bits(x[2] as u32);
        let c = if form.has("ftz") && c.is_subnormal() {
            0.0
        } else {
            c
        };
        // NaN selects the second one.
        c >= 0.0
    } else {
        x[2] as i32 >= 0
    };
    Expected::Bits(source(form, if first { x[0] } else { x[1] }))
}

/// Sums, saturated or with a carry. The carry that goes in is the lowest bit of the last source, the one that comes out stands
/// above a narrow result; a form of 64 bits that ends in `.cc` gives it alone.
fn sum(form: &Form, x: [u64; 4]) -> Expected {
    let ty = form.ty();
    let bits = bits_of(ty);
    let unsigned = |x: u64| u128::from(low(x, bits));
    if form.has("sat") {
        let (a, b) = (read(ty, x[0]), read(ty, x[1]));
        let value = if form.opcode == "add" { a + b } else { a - b };
        let value = value.clamp(-(1 << 31), (1 << 31) - 1);
        return Expected::Bits(low(value as u64, bits));
    }
    let carry = u128::from(x[3] & 1);
    let subtracts = form.opcode.starts_with("sub");
    let multiplies = form.opcode.starts_with("mad");
    let carry_in = if form.opcode.ends_with('c') { carry } else { 0 };
    let (first, second) = if multiplies {
        let product = if is_signed(ty) {
            (read(ty, x[0]) * read(ty, x[1])) as u128
        } else {
            unsigned(x[0]) * unsigned(x[1])
        };
        let half = if form.has("hi") {
            product >> bits
        } else {
            product
        };
        (u128::from(low(half as u64, bits)), unsigned(x[2]))
    } else {
        (unsigned(x[0]), unsigned(x[1]))
    };
    let total = if subtracts {
        first.wrapping_sub(second).wrapping_sub(carry_in)
    } else {
        first + second + carry_in
    };
    let result = low(total as u64, bits);
    let carry_out = (total >> bits & 1) as u64;
    Expected::Bits(match (form.has("cc"), bits) {
        (true, 32) => result | carry_out << 32,
        (true, _) => carry_out,
        (false, _) => result,
    })
}

fn product(form: &Form, x: [u64; 4]) -> Expected {
    let ty = form.ty();
    let bits = bits_of(ty);
    let adds = form.opcode.starts_with("mad");
    if form.opcode.ends_with("24") {
        let narrow = |x: u64| {
            let value = i128::from(x & 0xff_ffff);
            if is_signed(ty) && value >> 23 != 0 {
                value - (1 << 24)
            } else {
                value
            }
        };
        let product = narrow(x[0]) * narrow(x[1]);
        let part = if form.has("hi") {
            product >> 16
        } else {
            product
        };
        let part = low(part as u64, 32);
        return Expected::Bits(low(part.wrapping_add(if adds { x[2] } else { 0 }), 32));
    }
    let (a, b) = (read(ty, x[0]), read(ty, x[1]));
    let product = if is_signed(ty) {
        (a * b) as u128
    } else {
        a as u128 * b as u128
    };
    if form.has("wide") {
        let result = (product as u64).wrapping_add(if adds { x[2] } else { 0 });
        return Expected::Bits(low(result, 2 * bits));
    }
    let part = if form.has("hi") {
        product >> bits
    } else {
        product
    };
    let part = low(part as u64, bits);
    if form.has("sat") {
        let value = read(ty, part) + read(ty, x[2]);
        return Expected::Bits(low(value.clamp(-(1 << 31), (1 << 31) - 1) as u64, 32));
    }
    Expected::Bits(low(part.wrapping_add(if adds { x[2] } else { 0 }), bits))
}

/// Instructions on bits, as the ISA's own programs say.
fn fields(form: &Form, x: [u64; 4]) -> u64 {
    let ty = form.source();
    let bits = bits_of(ty);
    let a = low(x[0], bits);
    let words = x.map(|x| x as u32);
    let bit = |value: u64, at: u32| value >> at & 1;
    match &form.opcode[..] {
        "popc" => (0..bits).map(|at| bit(a, at)).sum(),
        "clz" => (0..bits).rev().take_while(|at| bit(a, *at) == 0).count() as u64,
        "brev" => (0..bits).map(|at| bit(a, at) << (bits - 1 - at)).sum(),
        "bfind" => {
            let a = if is_signed(ty) && bit(a, bits - 1) == 1 {
                low(!a, bits)
            } else {
                a
            };
            match (0..bits).rev().find(|at| bit(a, *at) == 1) {
                Some(at) if form.has("shiftamt") => (bits - 1 - at).into(),
                Some(at) => at.into(),
                None => u32::MAX.into(),
            }
        }
        "bfe" => {
            let (position, length) = (words[1] & 0xff, words[2] & 0xff);
            let last = bits - 1;
            let sign = if !is_signed(ty) || length == 0 {
                0
            } else {
                bit(a, (position + length - 1).min(last))
            };
            let field = |at: u32| {
                if at < length && position + at <= last {
                    bit(a, position + at)
                } else {
                    sign
                }
            };
            (0..bits).map(|at| field(at) << at).sum()
        }
        "bfi" => {
            let (position, length) = (words[2] & 0xff, words[3] & 0xff);
            let mut result = low(x[1], bits);
            for at in (0..length).take_while(|at| position + at < bits) {
                result = result & !(1 << (position + at)) | bit(a, at) << (position + at);
            }
            result
        }
        "fns" => fns(words[0], words[1], words[2] as i32).into(),
        "bmsk" => {
            let clamp = form.has("clamp");
            let (start, length) = (words[0] & 31, words[1] & 31);
            let from = if clamp && words[0] >= 32 {
                0
            } else {
                u32::MAX << start
            };
            let beyond = start + length >= 32 || clamp && (words[0] >= 32 || words[1] >= 32);
            let above = match (beyond, length) {
                (true, _) => 0,
                (_, 0) => u32::MAX,
                _ => u32::MAX << (start + length),
            };
            (from & !above).into()
        }
        "szext" => {
            let length = words[1] & 31;
            let too_large = form.has("clamp") && words[1] >= 32;
            let above = if too_large { 0 } else { u32::MAX << length };
            let negative =
                length != 0 && !too_large && ty == "s32" && words[0] >> (length - 1) & 1 == 1;
            (words[0] & !above | if negative { above } else { 0 }).into()
        }
        "shf" => {
            let both = u64::from(words[1]) << 32 | u64::from(words[0]);
            let by = if form.has("wrap") {
                words[2] & 31
            } else {
                words[2].min(32)
            };
            if form.has("l") {
                (u128::from(both) << by >> 32) as u64
            } else {
                both >> by
            }
        }
        "prmt" => permute(form, words),
        "lop3" => (0..32)
            .map(|at| {
                let index = bit(x[0], at) << 2 | bit(x[1], at) << 1 | bit(x[2], at);
                (LOP3_TABLE >> index & 1) << at
            })
            .sum(),
        "dp4a" | "dp2a" => dot(form, words).into(),
        opcode => panic!("no definition of `{opcode}`"),
    }
}

/// The table that forms of `lop3` are tried with: true for 1, 2, 5 and 7 of a, b and c.
pub const LOP3_TABLE: u64 = 0b1010_0110;

fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if mask >> (base & 31) & 1 == 1 {
            base
        } else {
            u32::MAX
        };
    }
    let (mut at, mut count) = (i64::from(base), offset.unsigned_abs() - 1);
    while (0..32).contains(&at) {
        if mask >> at & 1 == 1 {
            if count == 0 {
                return at as u32;
            }
            count -= 1;
        }
        at += i64::from(offset.signum());
    }
    u32::MAX
}

fn permute(form: &Form, [a, b, c, _]: [u32; 4]) -> u64 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let from = (c & 3) as usize;
    // By the table of modes: which byte becomes each byte of the result, lowest first.
    let chosen: [usize; 4] = if form.has("f4e") {
        [from, from + 1, from + 2, from + 3]
    } else if form.has("b4e") {
        [from, from + 7, from + 6, from + 5].map(|byte| byte % 8)
    } else if form.has("rc8") {
        [from; 4]
    } else if form.has("ecl") {
        [0, 1, 2, 3].map(|byte: usize| byte.max(from))
    } else if form.has("ecr") {
        [0, 1, 2, 3].map(|byte: usize| byte.min(from))
    } else if form.has("rc16") {
        let half = (from & 1) * 2;
        [half, half + 1, half, half + 1]
    } else {
        let mut result = [0; 4];
        for (at, byte) in result.iter_mut().enumerate() {
            let selector = (c >> (4 * at) & 0xf) as usize;
            *byte = bytes[selector & 7];
            if selector & 8 != 0 {
                *byte = if *byte & 0x80 != 0 { 0xff } else { 0 };
            }
        }
        return u32::from_le_bytes(result).into();
    };
    u32::from_le_bytes(chosen.map(|byte| bytes[byte])).into()
}

fn dot(form: &Form, [a, b, c, _]: [u32; 4]) -> u32 {
    let part = |ty: &str, value: u32, bits: u32, at: u32| {
        let value = i64::from(value >> (bits * at) & ((1 << bits) - 1));
        if ty == "s32" && value >> (bits - 1) != 0 {
            value - (1 << bits)
        } else {
            value
        }
    };
    let (left, right) = (&form.types[0], &form.types[1]);
    let sum: i64 = if form.opcode == "dp4a" {
        (0..4)
            .map(|at| part(left, a, 8, at) * part(right, b, 8, at))
            .sum()
    } else {
        let first = if form.has("hi") { 2 } else { 0 };
        (0..2)
            .map(|at| part(left, a, 16, at) * part(right, b, 8, first + at))
            .sum()
    };
    (sum as u32).wrapping_add(c)
}
