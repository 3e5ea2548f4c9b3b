//! The two ways to configuration space: the memory-mapped one and the I/O ports of old.

use crate::Bdf;

/// The enhanced configuration access mechanism: 4 KiB a function, 1 MiB a bus (7.2.2).
pub struct Ecam;

impl Ecam {
    /// Bytes of the whole region: buses 0 to 255.
    pub const SIZE: u64 = 256 << 20;

    /// Which register an offset into the region means; `None` beyond the last bus.
    pub const fn decode(offset: u64) -> Option<(Bdf, u16)> {
        if offset >= Self::SIZE {
            return None;
        }
        Some((
            Bdf::from_bits((offset >> 12) as u16),
            (offset & 0xfff) as u16,
        ))
    }
}

/// The CONFIG_ADDRESS register at port 0xCF8 and the window at 0xCFC (PCI Local Bus 3.0, 3.2.2.3.2). It reaches the first
/// 256 bytes of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigAddressPort {
    address: u32,
}

impl ConfigAddressPort {
    /// Port of the address register.
    pub const ADDRESS_PORT: u16 = 0xcf8;
    /// First port of the data window, which has four.
    pub const DATA_PORT: u16 = 0xcfc;

    /// Turns an access to the data window into a configuration access.
    const ENABLE: u32 = 1 << 31;
    /// Bits that hold: enable, bus, device, function, dword.
    const WRITABLE: u32 = Self::ENABLE | 0x00ff_fffc;

    /// Read of the address port. Only an access to the whole dword means this register; others give all ones.
    pub fn read(&self, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(dword) => *dword = self.address.to_le_bytes(),
            Err(_) => data.fill(0xff),
        }
    }

    /// Write of the address port. Writes of less than a dword are not for this register.
    pub fn write(&mut self, data: &[u8]) {
        if let Ok(dword) = <[u8; 4]>::try_from(data) {
            self.address = u32::from_le_bytes(dword) & Self::WRITABLE;
        }
    }

    /// Which register an access to the data window means; `None` while the window is closed, or for another port.
    pub fn target(&self, port: u16) -> Option<(Bdf, u16)> {
        let lane = port.checked_sub(Self::DATA_PORT).filter(|lane| *lane < 4)?;
        if self.address & Self::ENABLE == 0 {
            return None;
        }
        Some((
            Bdf::from_bits((self.address >> 8) as u16),
            (self.address & 0xfc) as u16 + lane,
        ))
    }

    /// Closes the window.
    pub fn reset(&mut self) {
        self.address = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecam_gives_each_function_4_kib() {
        assert_eq!(Ecam::decode(0), Some((Bdf::new(0, 0, 0), 0)));
        let offset = 0x20 << 20 | 3 << 15 | 2 << 12 | 0x104;
        assert_eq!(Ecam::decode(offset), Some((Bdf::new(0x20, 3, 2), 0x104)));
        assert_eq!(
            Ecam::decode(Ecam::SIZE - 1),
            Some((Bdf::new(255, 31, 7), 0xfff))
        );
        assert_eq!(Ecam::decode(Ecam::SIZE), None);
    }

    #[test]
    fn the_data_window_is_closed_until_enabled() {
        let mut port = ConfigAddressPort::default();
        port.write(&0x0001_0a40u32.to_le_bytes());
        assert_eq!(port.target(0xcfc), None);
        port.write(&0x8001_0a43u32.to_le_bytes());
        assert_eq!(port.target(0xcfc), Some((Bdf::new(1, 1, 2), 0x40)));
        assert_eq!(port.target(0xcff), Some((Bdf::new(1, 1, 2), 0x43)));
        assert_eq!(port.target(0xd00), None);
        assert_eq!(port.target(0xcf8), None);
        port.reset();
        assert_eq!(port.target(0xcfc), None);
    }

    #[test]
    fn the_address_register_takes_whole_dwords_only() {
        let mut port = ConfigAddressPort::default();
        port.write(&0xffff_ffffu32.to_le_bytes());
        let mut dword = [0; 4];
        port.read(&mut dword);
        assert_eq!(
            u32::from_le_bytes(dword),
            0x80ff_fffc,
            "reserved bits read as zero"
        );
        port.write(&[0x12]);
        port.write(&[0x34, 0x12]);
        port.read(&mut dword);
        assert_eq!(u32::from_le_bytes(dword), 0x80ff_fffc);
        let mut byte = [0];
        port.read(&mut byte);
        assert_eq!(byte, [0xff]);
    }
}
