//! Numbers of any format: exact, and rounded once.

/// Directions: `.rn`, `.rna`, `.rz`, `.rm` and `.rp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Nearest,
    Away,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub bits: u32,
    fraction: u32,
    /// The exponent of the largest number, and what is added to an exponent.
    bias: i32,
}

pub const F16: Format = Format {
    bits: 16,
    fraction: 10,
    bias: 15,
};
pub const BF16: Format = Format {
    bits: 16,
    fraction: 7,
    bias: 127,
};
pub const F32: Format = Format {
    bits: 32,
    fraction: 23,
    bias: 127,
};
pub const F64: Format = Format {
    bits: 64,
    fraction: 52,
    bias: 1023,
};

/// A number that is known exactly, or to be a little more than `magnitude` where that is odd and longer than any format asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Real {
    Nan,
    Infinite(bool),
    /// `magnitude * 2^exponent`, negative if the flag says so; zero has a sign, too.
    Finite(bool, u128, i32),
}

fn top(magnitude: u128) -> i32 {
    127 - magnitude.leading_zeros() as i32
}

impl Format {
    /// The format of a scalar type of PTX.
    pub fn of(ty: &str) -> Option<Self> {
        Some(match ty {
            "f16" => F16,
            "bf16" => BF16,
            "f32" | "tf32" => F32,
            "f64" => F64,
            _ => return None,
        })
    }

    /// A format with as many exponents and fewer bits of fraction.
    pub fn short(self, fewer: u32) -> Self {
        Self {
            bits: self.bits - fewer,
            fraction: self.fraction - fewer,
            ..self
        }
    }

    /// The smallest number that is not subnormal.
    pub fn least_normal(self) -> u64 {
        1 << self.fraction
    }

    pub fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }

    pub fn infinity(self) -> u64 {
        let exponents = (1 << (self.bits - 1 - self.fraction)) - 1;
        exponents << self.fraction
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & !self.sign() > self.infinity()
    }

    pub fn is_subnormal(self, bits: u64) -> bool {
        let magnitude = bits & !self.sign();
        magnitude != 0 && magnitude < 1 << self.fraction
    }

    pub fn flush(self, bits: u64) -> u64 {
        if self.is_subnormal(bits) {
            bits & self.sign()
        } else {
            bits
        }
    }

    pub fn one(self) -> u64 {
        (self.bias as u64) << self.fraction
    }

    pub fn decode(self, bits: u64) -> Real {
        let negative = bits & self.sign() != 0;
        let magnitude = bits & !self.sign();
        if magnitude > self.infinity() {
            return Real::Nan;
        }
        if magnitude == self.infinity() {
            return Real::Infinite(negative);
        }
        let field = (magnitude >> self.fraction) as i32;
        let fraction = u128::from(magnitude & ((1 << self.fraction) - 1));
        let unit = 1 - self.bias - self.fraction as i32;
        match field {
            0 => Real::Finite(negative, fraction, unit),
            _ => Real::Finite(negative, fraction | 1 << self.fraction, unit + field - 1),
        }
    }

    /// The number of this format that a direction leads to; `None` for NaN.
    pub fn round(self, real: Real, direction: Direction) -> Option<u64> {
        let sign = |negative: bool| if negative { self.sign() } else { 0 };
        let (negative, magnitude, exponent) = match real {
            Real::Nan => return None,
            Real::Infinite(negative) => return Some(sign(negative) | self.infinity()),
            Real::Finite(negative, 0, _) => return Some(sign(negative)),
            Real::Finite(negative, magnitude, exponent) => (negative, magnitude, exponent),
        };
        let smallest = 1 - self.bias - self.fraction as i32;
        let unit = (exponent + top(magnitude) - self.fraction as i32).max(smallest);
        let shift = unit - exponent;
        // Units, and how many 2^-127 parts of a unit are left over.
        let (mut units, rest) = match shift {
            ..=0 => (magnitude << -shift, 0),
            1..=127 => (magnitude >> shift, magnitude << (128 - shift)),
            128 => (0, magnitude),
            _ => (0, 1),
        };
        let half = 1u128 << 127;
        let up = match direction {
            Direction::Nearest => rest > half || rest == half && units & 1 == 1,
            Direction::Away => rest >= half,
            Direction::Zero => false,
            Direction::Down => negative && rest != 0,
            Direction::Up => !negative && rest != 0,
        };
        units += u128::from(up);
        let mut unit = unit;
        if units == 2 << self.fraction {
            units >>= 1;
            unit += 1;
        }
        let magnitude = if units < 1 << self.fraction {
            units as u64
        } else {
            let field = (unit - smallest + 1) as u64;
            if field >= self.infinity() >> self.fraction {
                let to_infinity = match direction {
                    Direction::Nearest | Direction::Away => true,
                    Direction::Zero => false,
                    Direction::Down => negative,
                    Direction::Up => !negative,
                };
                return Some(sign(negative) | (self.infinity() - u64::from(!to_infinity)));
            }
            (field << self.fraction) + units as u64 - (1 << self.fraction)
        };
        Some(sign(negative) | magnitude)
    }
}

impl Real {
    pub fn to_f64(self) -> f64 {
        F64.round(self, Direction::Nearest)
            .map_or(f64::NAN, f64::from_bits)
    }

    pub fn from_i128(value: i128) -> Self {
        Self::Finite(value < 0, value.unsigned_abs(), 0)
    }

    pub fn negated(self) -> Self {
        match self {
            Self::Nan => Self::Nan,
            Self::Infinite(negative) => Self::Infinite(!negative),
            Self::Finite(negative, magnitude, exponent) => {
                Self::Finite(!negative, magnitude, exponent)
            }
        }
    }

    fn is_negative(self) -> bool {
        matches!(self, Self::Infinite(true) | Self::Finite(true, ..))
    }

    /// The sum; the direction decides on the sign of a zero.
    pub fn plus(self, other: Self, direction: Direction) -> Self {
        let (a, b) = match (self, other) {
            (Self::Nan, _) | (_, Self::Nan) => return Self::Nan,
            (Self::Infinite(a), Self::Infinite(b)) if a != b => return Self::Nan,
            (Self::Infinite(negative), _) | (_, Self::Infinite(negative)) => {
                return Self::Infinite(negative);
            }
            (Self::Finite(n, m, e), Self::Finite(o, p, f)) => ((n, m, e), (o, p, f)),
        };
        let zero = Self::Finite(direction == Direction::Down, 0, 0);
        match (a.1, b.1) {
            (0, 0) if a.0 == b.0 => return Self::Finite(a.0, 0, 0),
            (0, 0) => return zero,
            (0, _) => return other,
            (_, 0) => return self,
            _ => {}
        }
        let (large, small) = if a.2 + top(a.1) >= b.2 + top(b.1) {
            (a, b)
        } else {
            (b, a)
        };
        // The larger one begins at bit 125 and ends long before bit 0, so that a last bit for all that is cut off the other
        // one is never the one that decides.
        let lift = 125 - top(large.1);
        let (magnitude, exponent) = (large.1 << lift, large.2 - lift);
        let shift = exponent - small.2;
        let other = match shift {
            ..=0 => small.1 << -shift,
            1..=127 => small.1 >> shift | u128::from(small.1 << (128 - shift) != 0),
            _ => 1,
        };
        if large.0 == small.0 {
            return Self::Finite(large.0, magnitude + other, exponent);
        }
        match magnitude.cmp(&other) {
            std::cmp::Ordering::Equal => zero,
            std::cmp::Ordering::Greater => Self::Finite(large.0, magnitude - other, exponent),
            std::cmp::Ordering::Less => Self::Finite(small.0, other - magnitude, exponent),
        }
    }

    pub fn times(self, other: Self) -> Self {
        let negative = self.is_negative() != other.is_negative();
        match (self, other) {
            (Self::Nan, _) | (_, Self::Nan) => Self::Nan,
            (Self::Infinite(_), Self::Finite(_, 0, _))
            | (Self::Finite(_, 0, _), Self::Infinite(_)) => Self::Nan,
            (Self::Infinite(_), _) | (_, Self::Infinite(_)) => Self::Infinite(negative),
            (Self::Finite(_, a, e), Self::Finite(_, b, f)) => Self::Finite(negative, a * b, e + f),
        }
    }

    /// The quotient, with one bit for what is left over.
    pub fn over(self, other: Self) -> Self {
        let negative = self.is_negative() != other.is_negative();
        match (self, other) {
            (Self::Nan, _) | (_, Self::Nan) => Self::Nan,
            (Self::Infinite(_), Self::Infinite(_)) => Self::Nan,
            (Self::Finite(_, 0, _), Self::Finite(_, 0, _)) => Self::Nan,
            (Self::Infinite(_), _) | (_, Self::Finite(_, 0, _)) => Self::Infinite(negative),
            (_, Self::Infinite(_)) | (Self::Finite(_, 0, _), _) => Self::Finite(negative, 0, 0),
            (Self::Finite(_, a, e), Self::Finite(_, b, f)) => {
                let lift = 126 - top(a);
                let a = a << lift;
                let quotient = (a / b) << 1 | u128::from(!a.is_multiple_of(b));
                Self::Finite(negative, quotient, e - lift - f - 1)
            }
        }
    }

    /// The square root, with one bit for what is left over.
    pub fn root(self) -> Self {
        match self {
            Self::Nan | Self::Infinite(true) => Self::Nan,
            Self::Infinite(false) | Self::Finite(_, 0, _) => self,
            Self::Finite(true, ..) => Self::Nan,
            Self::Finite(false, magnitude, exponent) => {
                let mut lift = 125 - top(magnitude);
                if (exponent - lift) % 2 != 0 {
                    lift -= 1;
                }
                let square = magnitude << lift;
                let root = square.isqrt();
                let rest = u128::from(root * root != square);
                Self::Finite(false, root << 1 | rest, (exponent - lift) / 2 - 1)
            }
        }
    }

    /// Rounded to an integer; a large number stays as it is, and so does infinity.
    pub fn to_integer(self, direction: Direction) -> Self {
        let Self::Finite(negative, magnitude, exponent @ ..=-1) = self else {
            return self;
        };
        let shift = exponent.unsigned_abs();
        let (mut units, rest) = match shift {
            1..=127 => (magnitude >> shift, magnitude << (128 - shift)),
            _ => (0, u128::from(magnitude != 0)),
        };
        let half = 1u128 << 127;
        units += u128::from(match direction {
            Direction::Nearest => rest > half || rest == half && units & 1 == 1,
            Direction::Away => rest >= half,
            Direction::Zero => false,
            Direction::Down => negative && rest != 0,
            Direction::Up => !negative && rest != 0,
        });
        Self::Finite(negative, units, 0)
    }

    /// The integer's value between two bounds.
    pub fn clamped(self, least: i128, most: i128) -> i128 {
        match self {
            Self::Nan => 0,
            Self::Infinite(negative) => {
                if negative {
                    least
                } else {
                    most
                }
            }
            Self::Finite(negative, magnitude, exponent) => {
                let large = magnitude != 0 && top(magnitude) + exponent > 100;
                match (large, negative) {
                    (true, true) => least,
                    (true, false) => most,
                    (false, _) => {
                        let value = (magnitude << exponent.max(0)) as i128;
                        (if negative { -value } else { value }).clamp(least, most)
                    }
                }
            }
        }
    }
}

#[test]
fn the_model_agrees_with_the_hosts_arithmetic() {
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        0.1,
        3e200,
        -7e-300,
        5e-324,
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
    ];
    let same = |real: Real, host: f64| match F64.round(real, Direction::Nearest) {
        Some(bits) => bits == host.to_bits(),
        None => host.is_nan(),
    };
    for a in values {
        let x = F64.decode(a.to_bits());
        assert!(same(x.root(), a.sqrt()), "{a}");
        for b in values {
            let y = F64.decode(b.to_bits());
            assert!(same(x.plus(y, Direction::Nearest), a + b), "{a} + {b}");
            assert!(same(x.times(y), a * b), "{a} * {b}");
            assert!(same(x.over(y), a / b), "{a} / {b}");
            for c in values {
                let z = F64.decode(c.to_bits());
                assert!(
                    same(x.times(y).plus(z, Direction::Nearest), a.mul_add(b, c)),
                    "{a} {b} {c}"
                );
            }
        }
    }
}
