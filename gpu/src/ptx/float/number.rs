//! Exact numbers and the operations that PTX rounds.

use super::{Rest, Rounding, cut};

/// A number before rounding.
///
/// A finite one is `magnitude * 2^exponent`. Where the exact value has more bits than a magnitude holds, the
/// lowest bit is set to stand for all that is missing; it lies so far below any format's last bit
/// that every rounding direction sees what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Nan,
    Infinite {
        negative: bool,
    },
    Finite {
        negative: bool,
        magnitude: u128,
        exponent: i32,
    },
}

/// Where [`normal`] puts the leading bit: two bits below the top, room for a carry and a sign.
const LEADING: u32 = 125;

impl Number {
    pub const fn finite(negative: bool, magnitude: u128, exponent: i32) -> Self {
        Self::Finite {
            negative,
            magnitude,
            exponent,
        }
    }

    pub const fn from_integer(value: i128) -> Self {
        Self::finite(value < 0, value.unsigned_abs(), 0)
    }

    #[must_use]
    pub const fn negated(self) -> Self {
        match self {
            Self::Nan => Self::Nan,
            Self::Infinite { negative } => Self::Infinite {
                negative: !negative,
            },
            Self::Finite {
                negative,
                magnitude,
                exponent,
            } => Self::finite(!negative, magnitude, exponent),
        }
    }

    const fn is_negative(self) -> bool {
        match self {
            Self::Nan => false,
            Self::Infinite { negative } | Self::Finite { negative, .. } => negative,
        }
    }

    /// `self + other`. The sign of an exact zero depends on the direction (IEEE 754, 6.3).
    #[must_use]
    pub fn add(self, other: Self, rounding: Rounding) -> Self {
        let (
            Self::Finite {
                negative: a_negative,
                magnitude: a,
                exponent: a_exponent,
            },
            Self::Finite {
                negative: b_negative,
                magnitude: b,
                exponent: b_exponent,
            },
        ) = (self, other)
        else {
            return match (self, other) {
                (Self::Nan, _) | (_, Self::Nan) => Self::Nan,
                (Self::Infinite { negative: a }, Self::Infinite { negative: b }) if a != b => {
                    Self::Nan
                }
                (Self::Infinite { .. }, _) => self,
                _ => other,
            };
        };
        let zero = |negative| Self::finite(negative, 0, 0);
        match (a, b) {
            (0, 0) if a_negative == b_negative => return zero(a_negative),
            (0, 0) => return zero(rounding == Rounding::Down),
            (0, _) => return other,
            (_, 0) => return self,
            _ => {}
        }
        let (a, a_exponent) = normal(a, a_exponent);
        let (b, b_exponent) = normal(b, b_exponent);
        let exponent = a_exponent.max(b_exponent);
        let a = shift_right(a, (exponent - a_exponent) as u32);
        let b = shift_right(b, (exponent - b_exponent) as u32);
        if a_negative == b_negative {
            return Self::finite(a_negative, a + b, exponent);
        }
        match a.cmp(&b) {
            std::cmp::Ordering::Equal => zero(rounding == Rounding::Down),
            std::cmp::Ordering::Greater => Self::finite(a_negative, a - b, exponent),
            std::cmp::Ordering::Less => Self::finite(b_negative, b - a, exponent),
        }
    }

    /// `self * other`; exact for magnitudes of at most 64 bits.
    #[must_use]
    pub fn multiply(self, other: Self) -> Self {
        let negative = self.is_negative() != other.is_negative();
        match (self, other) {
            (Self::Nan, _) | (_, Self::Nan) => Self::Nan,
            (
                Self::Finite {
                    magnitude: a,
                    exponent: a_exponent,
                    ..
                },
                Self::Finite {
                    magnitude: b,
                    exponent: b_exponent,
                    ..
                },
            ) => Self::finite(negative, a * b, a_exponent + b_exponent),
            (Self::Finite { magnitude: 0, .. }, _) | (_, Self::Finite { magnitude: 0, .. }) => {
                Self::Nan
            }
            _ => Self::Infinite { negative },
        }
    }

    /// `self / other`, for magnitudes of at most 64 bits.
    #[must_use]
    pub fn divide(self, other: Self) -> Self {
        let negative = self.is_negative() != other.is_negative();
        match (self, other) {
            (Self::Nan, _)
            | (_, Self::Nan)
            | (Self::Infinite { .. }, Self::Infinite { .. })
            | (Self::Finite { magnitude: 0, .. }, Self::Finite { magnitude: 0, .. }) => Self::Nan,
            (Self::Infinite { .. }, _) | (_, Self::Finite { magnitude: 0, .. }) => {
                Self::Infinite { negative }
            }
            (_, Self::Infinite { .. }) => Self::finite(negative, 0, 0),
            (
                Self::Finite {
                    magnitude: a,
                    exponent: a_exponent,
                    ..
                },
                Self::Finite {
                    magnitude: b,
                    exponent: b_exponent,
                    ..
                },
            ) => {
                if a == 0 {
                    return Self::finite(negative, 0, 0);
                }
                let (a, a_exponent) = normal(a, a_exponent);
                let quotient = a / b;
                let rest = u128::from(a % b != 0);
                Self::finite(negative, quotient << 1 | rest, a_exponent - b_exponent - 1)
            }
        }
    }

    /// The square root.
    #[must_use]
    pub fn square_root(self) -> Self {
        match self {
            Self::Finite { magnitude: 0, .. } | Self::Infinite { negative: false } => self,
            Self::Finite {
                negative: false,
                magnitude,
                exponent,
            } => {
                let (magnitude, exponent) = normal(magnitude, exponent);
                // An even exponent halves exactly.
                let odd = exponent.rem_euclid(2);
                let (magnitude, exponent) = (magnitude << odd, exponent - odd);
                let root = magnitude.isqrt();
                let rest = u128::from(root * root != magnitude);
                Self::finite(false, root << 1 | rest, exponent / 2 - 1)
            }
            _ => Self::Nan,
        }
    }

    /// The integer that `rounding` chooses, clamped to what an `i128` holds; `None` for NaN.
    pub fn to_integer(self, rounding: Rounding) -> Option<i128> {
        match self {
            Self::Nan => None,
            Self::Infinite { negative: true } => Some(i128::MIN),
            Self::Infinite { negative: false } => Some(i128::MAX),
            Self::Finite {
                negative,
                magnitude,
                exponent,
            } => {
                let size = 128 - magnitude.leading_zeros() as i32 + exponent;
                if magnitude != 0 && size > 64 {
                    return Some(if negative { i128::MIN } else { i128::MAX });
                }
                let (kept, rest) = if magnitude == 0 {
                    (0, Rest::Nothing)
                } else {
                    cut(magnitude, -exponent)
                };
                let up = rounding.away(negative, kept & 1 != 0, rest);
                let value = i128::from(kept) + i128::from(up);
                Some(if negative { -value } else { value })
            }
        }
    }
}

/// Moves the leading bit of a magnitude that is not zero to [`LEADING`].
fn normal(magnitude: u128, exponent: i32) -> (u128, i32) {
    let leading = 127 - magnitude.leading_zeros();
    if leading <= LEADING {
        let shift = LEADING - leading;
        (magnitude << shift, exponent - shift as i32)
    } else {
        let shift = leading - LEADING;
        (shift_right(magnitude, shift), exponent + shift as i32)
    }
}

/// A right shift that leaves a trace of the bits it drops in the lowest bit.
fn shift_right(magnitude: u128, shift: u32) -> u128 {
    let kept = magnitude.checked_shr(shift).unwrap_or(0);
    let back = kept.checked_shl(shift).unwrap_or(0);
    kept | u128::from(back != magnitude)
}
