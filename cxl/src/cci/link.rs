//! What a fabric manager is told of a link (sections 7.6.7.1.2 and 7.6.7.5.2). Widths and speeds have the codes of PCI
//! Express's link registers.

/// A link: what its port can do, and what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Lanes there are.
    pub max_width: u8,
    /// The fastest speed.
    pub max_speed: u8,
    /// Lanes in use; 0 while the link is down.
    pub width: u8,
    /// Speed in use; 0 while the link is down.
    pub speed: u8,
    /// Whatever is at the other end is held in reset.
    pub in_reset: bool,
    /// There is something at the other end.
    pub is_present: bool,
    /// The slot is off.
    pub is_off: bool,
}

impl LinkState {
    const LTSSM_DETECT: u8 = 0;
    const LTSSM_L0: u8 = 4;

    /// Maximum width, width, supported speeds, maximum speed, speed, state, and first lane.
    pub(super) fn encode(&self, output: &mut Vec<u8>) {
        let supported = (1_u16 << self.max_speed.min(8)) - 1;
        let ltssm = match self.width {
            0 => Self::LTSSM_DETECT,
            _ => Self::LTSSM_L0,
        };
        output.extend([
            self.max_width,
            self.width,
            supported as u8,
            self.max_speed,
            self.speed,
            ltssm,
            0,
        ]);
    }

    /// Bit 1 reset, bit 2 presence, bit 3 power off; lanes are never reversed.
    pub(super) fn flags(&self) -> u8 {
        u8::from(self.in_reset) << 1 | u8::from(self.is_present) << 2 | u8::from(self.is_off) << 3
    }
}
