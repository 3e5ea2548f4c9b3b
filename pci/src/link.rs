//! Speed and width of a link.

use std::fmt;
use std::str::FromStr;

/// Data rate of one lane (7.5.3.6, 7.5.3.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LinkSpeed {
    Gt2_5 = 1,
    Gt5 = 2,
    Gt8 = 3,
    Gt16 = 4,
    Gt32 = 5,
    Gt64 = 6,
}

impl LinkSpeed {
    /// All speeds, slowest first.
    pub const ALL: [Self; 6] = [
        Self::Gt2_5,
        Self::Gt5,
        Self::Gt8,
        Self::Gt16,
        Self::Gt32,
        Self::Gt64,
    ];

    /// The encoding of the link registers: its place in the supported link speeds vector, counted from 1.
    pub const fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|speed| speed.code() == code)
    }

    /// The supported link speeds vector, bit 0 = 2.5 GT/s: this speed and all below, as a link must be able to train
    /// at each of them.
    pub(crate) const fn vector(self) -> u32 {
        (1 << self as u8) - 1
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gt2_5 => "2.5GT/s",
            Self::Gt5 => "5GT/s",
            Self::Gt8 => "8GT/s",
            Self::Gt16 => "16GT/s",
            Self::Gt32 => "32GT/s",
            Self::Gt64 => "64GT/s",
        }
    }
}

impl fmt::Display for LinkSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no link speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link speed is one of 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s, 64GT/s")]
pub struct NoSuchSpeed;

impl FromStr for LinkSpeed {
    type Err = NoSuchSpeed;

    fn from_str(text: &str) -> Result<Self, NoSuchSpeed> {
        Self::ALL
            .into_iter()
            .find(|speed| speed.name() == text.replace(' ', ""))
            .ok_or(NoSuchSpeed)
    }
}

/// Number of lanes: 1, 2, 4, 8 or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkWidth(u8);

impl LinkWidth {
    pub const X1: Self = Self(1);
    pub const X2: Self = Self(2);
    pub const X4: Self = Self(4);
    pub const X8: Self = Self(8);
    pub const X16: Self = Self(16);

    pub const fn new(lanes: u8) -> Option<Self> {
        match lanes {
            1 | 2 | 4 | 8 | 16 => Some(Self(lanes)),
            _ => None,
        }
    }

    pub const fn lanes(self) -> u8 {
        self.0
    }
}

impl fmt::Display for LinkWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}", self.0)
    }
}

/// What a link can do, or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub speed: LinkSpeed,
    pub width: LinkWidth,
}

impl Link {
    /// What two ends agree on: the lower speed and the smaller width.
    pub fn negotiate(self, other: Self) -> Self {
        Self {
            speed: self.speed.min(other.speed),
            width: self.width.min(other.width),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.speed, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_read_as_they_print() {
        for speed in LinkSpeed::ALL {
            assert_eq!(speed.to_string().parse(), Ok(speed));
            assert_eq!(LinkSpeed::from_code(speed.code()), Some(speed));
        }
        assert_eq!("32 GT/s".parse(), Ok(LinkSpeed::Gt32));
        assert_eq!("33GT/s".parse::<LinkSpeed>(), Err(NoSuchSpeed));
        assert_eq!(LinkSpeed::from_code(7), None);
    }

    #[test]
    fn a_link_trains_at_what_both_ends_can() {
        let port = Link {
            speed: LinkSpeed::Gt64,
            width: LinkWidth::X8,
        };
        let device = Link {
            speed: LinkSpeed::Gt32,
            width: LinkWidth::X16,
        };
        assert_eq!(port.negotiate(device).to_string(), "32GT/s x8");
        assert_eq!(LinkWidth::new(12), None);
    }
}
