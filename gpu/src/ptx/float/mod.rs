//! Binary floating point of any format in any rounding direction, in integer arithmetic.
//!
//! The host's own instructions round to nearest even and know two formats. PTX has five formats and
//! five directions, and a result must not depend on the host. So every operation is done exactly on
//! [`Number`]s and rounded once, by [`Format::pack`]. Where the host's arithmetic is the same thing (f32 and f64,
//! to nearest even), the interpreter uses the host's.

pub mod approx;
mod number;

pub use number::Number;

/// Rounding directions (PTX ISA 9.7.9.21 and the tables of the floating-point instructions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `.rn`: to nearest, ties to even.
    NearestEven,
    /// `.rna`: to nearest, ties away from zero.
    NearestAway,
    /// `.rz`
    Zero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

impl Rounding {
    /// Whether a magnitude that lies between two neighbours goes to the larger one. `rest` compares what is
    /// cut off with half the distance, `odd` tells whether the smaller neighbour's last bit is set.
    fn away(self, negative: bool, odd: bool, rest: Rest) -> bool {
        match self {
            Self::NearestEven => rest == Rest::More || rest == Rest::Half && odd,
            Self::NearestAway => rest >= Rest::Half,
            Self::Zero => false,
            Self::Down => negative && rest != Rest::Nothing,
            Self::Up => !negative && rest != Rest::Nothing,
        }
    }
}

/// What rounding cuts off, compared with half a unit in the last place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Nothing,
    Less,
    Half,
    More,
}

/// An interchange format: sign, exponent and fraction from the top bit down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    exponent_bits: u32,
    fraction_bits: u32,
    /// What an operation without a result gives: positive, quiet, payload as the hardware's.
    pub nan: u64,
}

impl Format {
    pub const F16: Self = Self::new(5, 10, 0x7fff);
    pub const BF16: Self = Self::new(8, 7, 0x7fff);
    pub const F32: Self = Self::new(8, 23, 0x7fff_ffff);
    /// Single precision with a short fraction.
    pub const TF32: Self = Self::new(8, 10, 0x3_ffff);
    pub const F64: Self = Self::new(11, 52, 0x7ff8_0000_0000_0000);

    const fn new(exponent_bits: u32, fraction_bits: u32, nan: u64) -> Self {
        Self {
            exponent_bits,
            fraction_bits,
            nan,
        }
    }

    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits + self.fraction_bits
    }

    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// Positive infinity.
    pub const fn infinity(self) -> u64 {
        self.sign() - (1 << self.fraction_bits)
    }

    /// One.
    pub const fn one(self) -> u64 {
        ((1 << (self.exponent_bits - 1)) - 1) << self.fraction_bits
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    pub const fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign() - 1) > self.infinity()
    }

    /// True for numbers below the smallest normal one, without zero.
    pub const fn is_subnormal(self, bits: u64) -> bool {
        bits & self.infinity() == 0 && bits & (self.sign() - 1) != 0
    }

    /// `.ftz`: a subnormal number becomes zero of the same sign.
    pub const fn flush(self, bits: u64) -> u64 {
        if self.is_subnormal(bits) {
            bits & self.sign()
        } else {
            bits
        }
    }

    /// `.sat`: into 0.0 to 1.0, NaN to 0.0.
    pub fn saturate(self, bits: u64) -> u64 {
        if self.is_nan(bits) || bits & self.sign() != 0 {
            0
        } else {
            bits.min(self.one())
        }
    }

    /// The number that `bits` stand for.
    pub fn unpack(self, bits: u64) -> Number {
        let negative = bits & self.sign() != 0;
        let fraction = bits & ((1 << self.fraction_bits) - 1);
        let exponent = (bits >> self.fraction_bits) & ((1 << self.exponent_bits) - 1);
        if self.is_nan(bits) {
            Number::Nan
        } else if bits & self.infinity() == self.infinity() {
            Number::Infinite { negative }
        } else {
            let (fraction, exponent) = if exponent == 0 {
                (fraction, 1)
            } else {
                (fraction | 1 << self.fraction_bits, exponent as i32)
            };
            Number::finite(
                negative,
                u128::from(fraction),
                exponent - self.bias() - self.fraction_bits as i32,
            )
        }
    }

    /// Rounds `number` into this format.
    pub fn pack(self, number: Number, rounding: Rounding) -> u64 {
        let (negative, magnitude, exponent) = match number {
            Number::Nan => return self.nan,
            Number::Infinite { negative } => {
                return self.infinity() | u64::from(negative) << (self.bits() - 1);
            }
            Number::Finite {
                negative,
                magnitude,
                exponent,
            } => (negative, magnitude, exponent),
        };
        let sign = u64::from(negative) << (self.bits() - 1);
        if magnitude == 0 {
            return sign;
        }
        let fraction_bits = self.fraction_bits as i32;
        let smallest = 1 - self.bias();
        let leading = exponent + 127 - magnitude.leading_zeros() as i32;
        let unit = leading.max(smallest) - fraction_bits;
        let (kept, rest) = cut(magnitude, unit - exponent);
        // The leading bit of `kept` adds one to the exponent field, and a carry out of rounding one more.
        let biased = (leading.max(smallest) - smallest) as u64;
        let up = rounding.away(negative, kept & 1 != 0, rest);
        if biased >= 1 << self.exponent_bits {
            return sign | self.overflow(negative, rounding);
        }
        let bits = (biased << self.fraction_bits) + kept + u64::from(up);
        if bits >= self.infinity() {
            sign | self.overflow(negative, rounding)
        } else {
            sign | bits
        }
    }

    /// Too large a magnitude: infinity, or the largest finite number if the direction points below it.
    fn overflow(self, negative: bool, rounding: Rounding) -> u64 {
        let infinite = match rounding {
            Rounding::NearestEven | Rounding::NearestAway => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        self.infinity() - u64::from(!infinite)
    }
}

/// `magnitude >> shift` (a left shift if negative) and what was cut off.
fn cut(magnitude: u128, shift: i32) -> (u64, Rest) {
    if shift <= 0 {
        return ((magnitude << -shift) as u64, Rest::Nothing);
    }
    if shift > 128 {
        return (0, Rest::Less);
    }
    let kept = magnitude.checked_shr(shift as u32).unwrap_or(0);
    let half = 1u128 << (shift - 1);
    let below = magnitude & (half | (half - 1));
    let rest = match below.cmp(&half) {
        _ if below == 0 => Rest::Nothing,
        std::cmp::Ordering::Less => Rest::Less,
        std::cmp::Ordering::Equal => Rest::Half,
        std::cmp::Ordering::Greater => Rest::More,
    };
    (kept as u64, rest)
}

#[cfg(test)]
mod tests;
