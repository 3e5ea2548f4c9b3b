//! The address of a function: bus, device, function.

use std::fmt;

/// A routing identifier: bus 0-255, device 0-31, function 0-7 (PCIe 6.0, 2.2.4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// Device and function are taken modulo 32 and 8, as the five and three bits on the wire do.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 0x1f) << 3 | (function as u16 & 7))
    }

    /// From the 16-bit form used in requester identifiers and error source registers.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The 16-bit form: bus in 15:8, device in 7:3, function in 2:0.
    pub const fn bits(self) -> u16 {
        self.0
    }

    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 0x1f
    }

    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl fmt::Display for Bdf {
    /// The form of lspci without the segment: `20:00.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_went_in() {
        let bdf = Bdf::new(0x20, 0x1f, 7);
        assert_eq!((bdf.bus(), bdf.device(), bdf.function()), (0x20, 0x1f, 7));
        assert_eq!(bdf.bits(), 0x20ff);
        assert_eq!(Bdf::from_bits(0x20ff), bdf);
        assert_eq!(bdf.to_string(), "20:1f.7");
    }
}
