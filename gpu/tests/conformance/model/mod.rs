//! What an instruction gives, from its definition in the PTX ISA, in arithmetic that has nothing in common with the interpreter's
//! or the compiler's.

mod float;
pub mod integer;
pub mod number;

use super::forms::{Form, bits_of};

/// What a result must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    Bits(u64),
    /// Either of two, where the definition leaves it open.
    Either(u64, u64),
    Nan,
    /// An approximation of a number.
    Near {
        value: f64,
        relative: f64,
        absolute: f64,
    },
    /// What the definition leaves open.
    Open,
    /// Of the lower and of the upper half, by the form for one of them.
    Halves(Box<(Form, Self, Self)>),
}

impl Expected {
    /// Whether an instruction's result, in a register of its type, is right.
    pub fn allows(&self, form: &Form, result: u64) -> bool {
        match *self {
            Self::Bits(bits) => result == bits,
            Self::Either(a, b) => result == a || result == b,
            Self::Halves(ref halves) => {
                let (half, low, high) = &**halves;
                result >> 32 == 0
                    && low.allows(half, result & 0xffff)
                    && high.allows(half, result >> 16)
            }
            Self::Nan => number::Format::of(form.ty()).is_some_and(|format| format.is_nan(result)),
            Self::Near {
                value,
                relative,
                absolute,
            } => {
                let Some(format) = number::Format::of(form.ty()) else {
                    return false;
                };
                let found = format.decode(result).to_f64();
                if value.is_infinite() || value == 0.0 {
                    return found == value;
                }
                (found - value).abs() <= (value.abs() * relative).max(absolute)
            }
            Self::Open => true,
        }
    }
}

/// What an instruction makes of its sources, which are the low bits of `x`.
pub fn expected(form: &Form, x: [u64; 4]) -> Expected {
    // Packed types are two instructions at once.
    if let Some(half) = half_of(form) {
        let part = |shift: u32| {
            let mut half_x = x.map(|x| x >> shift & 0xffff);
            if half.opcode == "setp" {
                // There is one predicate to combine both with.
                half_x[2] = x[2];
            }
            expected(&half, half_x)
        };
        return match (&half.opcode[..], part(0), part(16)) {
            // A predicate for each half.
            ("setp", Expected::Bits(low), Expected::Bits(high)) => {
                Expected::Bits(low & 1 | (high & 1) << 1)
            }
            (_, low, high) => Expected::Halves(Box::new((half.clone(), low, high))),
        };
    }
    let float = form.types.iter().any(|ty| number::Format::of(ty).is_some());
    let moves = matches!(&form.opcode[..], "mov" | "selp" | "slct");
    if float && !moves {
        float::expected(form, x)
    } else {
        integer::expected(form, x)
    }
}

/// The instruction on one half of a packed type.
fn half_of(form: &Form) -> Option<Form> {
    if form.opcode == "cvt" {
        return None;
    }
    let half = form.ty().strip_suffix("x2")?;
    let mut form = form.clone();
    form.types = form
        .types
        .iter()
        .map(|ty| ty.strip_suffix("x2").unwrap_or(ty).to_owned())
        .collect();
    form.types[0] = half.to_owned();
    Some(form)
}

/// The low bits of a value.
pub fn low(value: u64, bits: u32) -> u64 {
    if bits == 64 {
        value
    } else {
        value & ((1 << bits) - 1)
    }
}

pub fn source(form: &Form, x: u64) -> u64 {
    low(x, bits_of(form.source()))
}
