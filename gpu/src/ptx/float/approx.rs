//! The functions that PTX lets hardware approximate.
//!
//! They are computed in double precision and rounded once, which is closer than any error the PTX ISA allows
//! for them (2^-22 relative or 2^-21 absolute in single precision).

use super::{Format, Rounding};

/// A function of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `1/x`
    Rcp,
    Sqrt,
    /// `1/sqrt(x)`
    Rsqrt,
    Sin,
    Cos,
    /// Logarithm to base 2.
    Lg2,
    /// 2 to the power of x.
    Ex2,
    Tanh,
}

impl Function {
    /// The function's value in double precision.
    pub fn evaluate(self, x: f64) -> f64 {
        match self {
            Self::Rcp => 1.0 / x,
            Self::Sqrt => x.sqrt(),
            Self::Rsqrt => 1.0 / x.sqrt(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Lg2 => x.log2(),
            Self::Ex2 => x.exp2(),
            Self::Tanh => x.tanh(),
        }
    }

    /// The function in `format`.
    pub fn apply(self, format: Format, bits: u64) -> u64 {
        let x = f64::from_bits(Format::F64.pack(format.unpack(bits), Rounding::NearestEven));
        let value = self.evaluate(x).to_bits();
        format.pack(Format::F64.unpack(value), Rounding::NearestEven)
    }
}
