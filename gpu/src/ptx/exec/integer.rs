//! Integer instructions on lanes.

use super::lanes::{Lanes, low, map1, map2, map3, signed};
use crate::ptx::ir::{AtomOp, CarryOp, IntOp, PrmtMode};

/// `op` on operands of `bits` bits; the result is as wide, or as the operation says.
pub fn evaluate(op: IntOp, bits: u32, is_signed: bool, [a, b, c, d]: &[Lanes; 4]) -> Lanes {
    let sx = |value| signed(value, bits);
    let wide = |value| {
        if is_signed {
            i128::from(signed(value, bits))
        } else {
            i128::from(value)
        }
    };
    let clamp32 = |value: i64| value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u64;
    let mul24 = |x: u64, y: u64| {
        if is_signed {
            (signed(x, 24) * signed(y, 24)) as u64
        } else {
            low(x, 24) * low(y, 24)
        }
    };
    let result_bits = match op {
        IntOp::MulWide | IntOp::MadWide => bits * 2,
        IntOp::Clz | IntOp::Popc | IntOp::Bfind { .. } => 32,
        _ => bits,
    };
    let result = match op {
        IntOp::Add => map2(a, b, u64::wrapping_add),
        IntOp::Sub => map2(a, b, u64::wrapping_sub),
        IntOp::AddSat => map2(a, b, |a, b| clamp32(sx(a) + sx(b))),
        IntOp::SubSat => map2(a, b, |a, b| clamp32(sx(a) - sx(b))),
        IntOp::MulLo => map2(a, b, u64::wrapping_mul),
        IntOp::MulHi => map2(a, b, |a, b| (wide(a).wrapping_mul(wide(b)) >> bits) as u64),
        IntOp::MulWide if is_signed => map2(a, b, |a, b| sx(a).wrapping_mul(sx(b)) as u64),
        IntOp::MulWide => map2(a, b, u64::wrapping_mul),
        IntOp::MadLo => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        IntOp::MadHi => map3(a, b, c, |a, b, c| {
            ((wide(a).wrapping_mul(wide(b)) >> bits) as u64).wrapping_add(c)
        }),
        IntOp::MadHiSat => map3(a, b, c, |a, b, c| {
            clamp32((wide(a).wrapping_mul(wide(b)) >> bits) as i64 + sx(c))
        }),
        IntOp::MadWide if is_signed => map3(a, b, c, |a, b, c| {
            (sx(a).wrapping_mul(sx(b)) as u64).wrapping_add(c)
        }),
        IntOp::MadWide => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        IntOp::Mul24Lo => map2(a, b, mul24),
        IntOp::Mul24Hi => map2(a, b, |a, b| mul24(a, b) >> 16),
        IntOp::Mad24Lo => map3(a, b, c, |a, b, c| mul24(a, b).wrapping_add(c)),
        IntOp::Mad24Hi => map3(a, b, c, |a, b, c| (mul24(a, b) >> 16).wrapping_add(c)),
        IntOp::Sad => map3(a, b, c, |a, b, c| {
            c.wrapping_add((wide(a) - wide(b)).unsigned_abs() as u64)
        }),
        // Division by zero has no defined result; hardware gives all ones, and the dividend as the rest.
        IntOp::Div => map2(a, b, |a, b| match b {
            0 => u64::MAX,
            _ if is_signed => sx(a).wrapping_div(sx(b)) as u64,
            _ => a / b,
        }),
        IntOp::Rem => map2(a, b, |a, b| match b {
            0 => a,
            _ if is_signed => sx(a).wrapping_rem(sx(b)) as u64,
            _ => a % b,
        }),
        IntOp::Min if is_signed => map2(a, b, |a, b| sx(a).min(sx(b)) as u64),
        IntOp::Min => map2(a, b, u64::min),
        IntOp::Max if is_signed => map2(a, b, |a, b| sx(a).max(sx(b)) as u64),
        IntOp::Max => map2(a, b, u64::max),
        IntOp::Neg => map1(a, u64::wrapping_neg),
        IntOp::Abs => map1(a, |a| sx(a).unsigned_abs()),
        IntOp::And => map2(a, b, |a, b| a & b),
        IntOp::Or => map2(a, b, |a, b| a | b),
        IntOp::Xor => map2(a, b, |a, b| a ^ b),
        IntOp::Not => map1(a, |a| !a),
        IntOp::Cnot => map1(a, |a| u64::from(a == 0)),
        IntOp::Shl => map2(a, b, |a, b| if b < u64::from(bits) { a << b } else { 0 }),
        IntOp::Shr if is_signed => map2(a, b, |a, b| (sx(a) >> b.min(63)) as u64),
        IntOp::Shr => map2(a, b, |a, b| if b < u64::from(bits) { a >> b } else { 0 }),
        IntOp::Shf { left, wrap } => map3(a, b, c, |a, b, c| {
            let amount = if wrap { c & 31 } else { c.min(32) };
            let both = b << 32 | a;
            if left {
                (both << amount) >> 32
            } else {
                both >> amount
            }
        }),
        IntOp::Bfe => map3(a, b, c, |a, b, c| bit_field(a, b, c, bits, is_signed)),
        IntOp::Bfi => {
            std::array::from_fn(|lane| insert_field(a[lane], b[lane], c[lane], d[lane], bits))
        }
        IntOp::Bfind { shift } => map1(a, |a| {
            let a = if is_signed && sx(a) < 0 {
                low(!a, bits)
            } else {
                a
            };
            match a.checked_ilog2() {
                None => u64::from(u32::MAX),
                Some(bit) if shift => u64::from(bits - 1 - bit),
                Some(bit) => u64::from(bit),
            }
        }),
        IntOp::Bmsk { wrap } => map2(a, b, |a, b| {
            let (from, width) = if wrap {
                (a & 31, b & 31)
            } else {
                (a.min(32), b.min(32))
            };
            ((1 << width) - 1) << from
        }),
        IntOp::Szext { wrap } => map2(a, b, |a, b| {
            let width = if wrap { b & 31 } else { b.min(32) } as u32;
            match width {
                0 => 0,
                _ if is_signed => signed(a, width) as u64,
                _ => low(a, width),
            }
        }),
        IntOp::Brev => map1(a, |a| a.reverse_bits() >> (64 - bits)),
        IntOp::Clz => map1(a, |a| u64::from(a.leading_zeros() + bits - 64)),
        IntOp::Popc => map1(a, |a| u64::from(a.count_ones())),
        IntOp::Fns => map3(a, b, c, find_nth_set),
        IntOp::Lop3(table) => map3(a, b, c, |a, b, c| lop3(table, a, b, c)),
        IntOp::Prmt(mode) => map3(a, b, c, |a, b, c| permute(mode, a, b, c)),
        IntOp::Dp4a { a_signed, b_signed } => map3(a, b, c, |a, b, c| {
            (0..4).fold(c, |sum, byte| {
                let x = field(a, 8, byte, a_signed);
                let y = field(b, 8, byte, b_signed);
                sum.wrapping_add((x * y) as u64)
            })
        }),
        IntOp::Dp2a {
            a_signed,
            b_signed,
            high,
        } => map3(a, b, c, |a, b, c| {
            (0..2).fold(c, |sum, index| {
                let x = field(a, 16, index, a_signed);
                let y = field(b, 8, index + 2 * u32::from(high), b_signed);
                sum.wrapping_add((x * y) as u64)
            })
        }),
    };
    map1(&result, |value| low(value, result_bits))
}

/// Element `index` of `bits` bits.
fn field(value: u64, bits: u32, index: u32, is_signed: bool) -> i64 {
    let value = value >> (bits * index);
    if is_signed {
        signed(value, bits)
    } else {
        low(value, bits) as i64
    }
}

/// `bfe` (PTX ISA 9.7.1.20).
fn bit_field(a: u64, position: u64, length: u64, bits: u32, is_signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let top = u64::from(bits - 1);
    let sign = is_signed && a >> (position + length - 1).min(top) & 1 != 0;
    let available = u64::from(bits).saturating_sub(position).min(length);
    let taken = if available == 0 {
        0
    } else {
        low(a >> position, available as u32)
    };
    if sign && available < 64 {
        taken | u64::MAX << available
    } else {
        taken
    }
}

/// `bfi` (PTX ISA 9.7.1.21).
fn insert_field(a: u64, b: u64, position: u64, length: u64, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let available = u64::from(bits).saturating_sub(position).min(length);
    if available == 0 {
        return b;
    }
    let mask = (u64::MAX >> (64 - available)) << position;
    b & !mask | (a << position) & mask
}

/// `fns` (PTX ISA 9.7.1.17): the offset-th set bit from `base` on, upwards or downwards.
fn find_nth_set(mask: u64, base: u64, offset: u64) -> u64 {
    const NOT_FOUND: u64 = u32::MAX as u64;
    let offset = signed(offset, 32);
    if base > 31 {
        return NOT_FOUND;
    }
    let set = |bit: &u64| mask >> bit & 1 != 0;
    match offset {
        0 if set(&base) => base,
        0 => NOT_FOUND,
        1.. => (base..32)
            .filter(set)
            .nth(offset as usize - 1)
            .unwrap_or(NOT_FOUND),
        _ => (0..=base)
            .rev()
            .filter(set)
            .nth(offset.unsigned_abs() as usize - 1)
            .unwrap_or(NOT_FOUND),
    }
}

/// Bit `4a + 2b + c` of the table is the result for those three bits.
fn lop3(table: u8, a: u64, b: u64, c: u64) -> u64 {
    let term = |index: u8, value: u64| if table >> index & 1 != 0 { value } else { 0 };
    term(0, !a & !b & !c)
        | term(1, !a & !b & c)
        | term(2, !a & b & !c)
        | term(3, !a & b & c)
        | term(4, a & !b & !c)
        | term(5, a & !b & c)
        | term(6, a & b & !c)
        | term(7, a & b & c)
}

/// `prmt` (PTX ISA 9.7.8.7): bytes chosen from the eight of `a` and `b`.
fn permute(mode: PrmtMode, a: u64, b: u64, selector: u64) -> u64 {
    let bytes = (b << 32 | a).to_le_bytes();
    let sel = (selector & 3) as usize;
    let pick = |i: usize| {
        let index = match mode {
            PrmtMode::Index => (selector >> (4 * i)) as usize & 7,
            PrmtMode::F4e => sel + i,
            PrmtMode::B4e => (8 + sel - i) & 7,
            PrmtMode::Rc8 => sel,
            PrmtMode::Ecl => i.max(sel),
            PrmtMode::Ecr => i.min(sel),
            PrmtMode::Rc16 => (i & 1) + 2 * (sel & 1),
        };
        // The nibble's top bit asks for eight copies of the byte's sign.
        if mode == PrmtMode::Index && selector >> (4 * i + 3) & 1 != 0 {
            0u8.wrapping_sub(bytes[index] >> 7)
        } else {
            bytes[index]
        }
    };
    u64::from(u32::from_le_bytes(std::array::from_fn(pick)))
}

/// The operation on each 16-bit half.
pub fn halves(op: IntOp, is_signed: bool, a: &Lanes, b: &Lanes) -> Lanes {
    let zero = [0; 32];
    let part = |shift: u32| {
        let half = |lanes: &Lanes| map1(lanes, |value| low(value >> shift, 16));
        evaluate(op, 16, is_signed, &[half(a), half(b), zero, zero])
    };
    map2(&part(0), &part(16), |low, high| high << 16 | low)
}

/// Extended-precision arithmetic: result and carry-out of each lane. For a subtraction the carry is a borrow.
pub fn carry(
    op: CarryOp,
    bits: u32,
    is_signed: bool,
    carry_in: u32,
    [a, b, c]: &[Lanes; 3],
) -> (Lanes, u32) {
    let mut carry_out = 0;
    let result = std::array::from_fn(|lane| {
        let carry = u128::from(carry_in >> lane & 1);
        let (x, y) = (u128::from(a[lane]), u128::from(b[lane]));
        let product = || {
            if is_signed {
                (i128::from(signed(a[lane], bits)) * i128::from(signed(b[lane], bits))) as u128
            } else {
                x * y
            }
        };
        let (sum, borrow) = match op {
            CarryOp::Add => (x + y + carry, false),
            CarryOp::Sub => (x.wrapping_sub(y).wrapping_sub(carry), x < y + carry),
            CarryOp::MadLo => {
                let low_part = u128::from(low(product() as u64, bits));
                (low_part + u128::from(c[lane]) + carry, false)
            }
            CarryOp::MadHi => {
                let high_part = u128::from(low((product() >> bits) as u64, bits));
                (high_part + u128::from(c[lane]) + carry, false)
            }
        };
        let out = match op {
            CarryOp::Sub => borrow,
            _ => sum >> bits & 1 != 0,
        };
        carry_out |= u32::from(out) << lane;
        low(sum as u64, bits)
    });
    (result, carry_out)
}

/// What an atomic operation on integers leaves in memory.
pub fn atomic(op: AtomOp, bits: u32, is_signed: bool, old: u64, b: u64, c: u64) -> u64 {
    let sx = |value| signed(value, bits);
    match op {
        AtomOp::Add => low(old.wrapping_add(b), bits),
        AtomOp::Min if is_signed => {
            if sx(b) < sx(old) {
                b
            } else {
                old
            }
        }
        AtomOp::Min => old.min(b),
        AtomOp::Max if is_signed => {
            if sx(b) > sx(old) {
                b
            } else {
                old
            }
        }
        AtomOp::Max => old.max(b),
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exch => b,
        AtomOp::Cas if old == b => c,
        AtomOp::Cas => old,
        AtomOp::Inc if old >= b => 0,
        AtomOp::Inc => old + 1,
        AtomOp::Dec if old == 0 || old > b => b,
        AtomOp::Dec => old - 1,
    }
}
