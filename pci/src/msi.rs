//! MSI with 64-bit address and per-vector masking (6.1.4, 7.7.1): what ports signal with.

use crate::Effect;
use crate::config::ConfigSpace;
use crate::function::MsiMessage;
use crate::spec::{capability, header};
use crate::structure::Structure;
use crate::written::Written;

/// Bytes of the capability with 64-bit address and masks (7.7.1).
const LENGTH: u16 = 0x18;
/// 16 bits (7.7.1.2).
const MESSAGE_CONTROL: u16 = 0x02;
const CONTROL_ENABLE: u16 = 1 << 0;
/// log2 of the vectors that the function has, in 3:1.
const CONTROL_CAPABLE_SHIFT: u16 = 1;
/// log2 of the vectors that software grants, in 6:4.
const CONTROL_ENABLED_SHIFT: u16 = 4;
const CONTROL_ENABLED_MASK: u16 = 7 << CONTROL_ENABLED_SHIFT;
const CONTROL_64_BIT: u16 = 1 << 7;
const CONTROL_MASKABLE: u16 = 1 << 8;
/// 32 bits, dword aligned (7.7.1.3).
const ADDRESS: u16 = 0x04;
/// 32 bits (7.7.1.4).
const ADDRESS_UPPER: u16 = 0x08;
/// 16 bits (7.7.1.5).
const DATA: u16 = 0x0c;
/// 32 bits (7.7.1.7).
const MASK: u16 = 0x10;
/// 32 bits, RO (7.7.1.8).
const PENDING: u16 = 0x14;

/// The MSI capability of one function. All its state is in configuration space.
#[derive(Clone, Copy, Debug)]
pub struct Msi {
    offset: u16,
    vectors: u8,
}

impl Msi {
    /// Adds the capability with 1, 2, 4, 8, 16 or 32 vectors.
    ///
    /// # Panics
    /// For any other number.
    pub fn new(config: &mut ConfigSpace, vectors: u8) -> Self {
        assert!(
            vectors.is_power_of_two() && vectors <= 32,
            "MSI has 1 to 32 vectors, a power of two"
        );
        let capable = (vectors.trailing_zeros() as u16) << CONTROL_CAPABLE_SHIFT;
        let implemented = u32::MAX >> (32 - vectors);
        let offset = Structure::new(LENGTH)
            .u16(
                MESSAGE_CONTROL,
                CONTROL_64_BIT | CONTROL_MASKABLE | capable,
                CONTROL_ENABLE | CONTROL_ENABLED_MASK,
                0,
            )
            .u32(ADDRESS, 0, !3, 0)
            .u32(ADDRESS_UPPER, 0, u32::MAX, 0)
            .u16(DATA, 0, 0xffff, 0)
            .u32(MASK, 0, implemented, 0)
            .add_to(config, capability::MSI);
        Self { offset, vectors }
    }

    /// Whether software has enabled MSI.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.u16(self.offset + MESSAGE_CONTROL) & CONTROL_ENABLE != 0
    }

    /// What the vector sends at present; `None` while MSI is off, the vector is masked, or there is no such vector.
    /// Where software granted fewer vectors, several share one (6.1.4).
    pub fn message(&self, config: &ConfigSpace, vector: u8) -> Option<MsiMessage> {
        let masked = config
            .u32(self.offset + MASK)
            .checked_shr(u32::from(vector))?
            & 1
            != 0;
        if vector >= self.vectors || masked || !self.is_enabled(config) || !config.is_bus_master() {
            return None;
        }
        let control = config.u16(self.offset + MESSAGE_CONTROL);
        let granted = 1u16 << ((control & CONTROL_ENABLED_MASK) >> CONTROL_ENABLED_SHIFT).min(5);
        let granted = granted.min(u16::from(self.vectors));
        let low = u64::from(config.u32(self.offset + ADDRESS));
        let high = u64::from(config.u32(self.offset + ADDRESS_UPPER));
        // The function may change only the low bits of the data, as many as it was granted.
        let data =
            config.u16(self.offset + DATA) & !(granted - 1) | u16::from(vector) & (granted - 1);
        Some(MsiMessage {
            address: high << 32 | low,
            data: u32::from(data),
        })
    }

    /// The function wants the vector sent. While it is masked this is remembered in its pending bit.
    pub fn trigger(&self, config: &mut ConfigSpace, vector: u8) -> Option<MsiMessage> {
        let message = self.message(config, vector);
        if message.is_none() && vector < self.vectors && self.is_enabled(config) {
            let pending = config.u32(self.offset + PENDING) | 1 << vector;
            config.set_u32(self.offset + PENDING, pending);
        }
        message
    }

    /// Follows a configuration write: sends what had been waiting and now may go.
    pub fn written<E: From<Effect>>(
        &self,
        config: &mut ConfigSpace,
        written: &Written,
        out: &mut Vec<E>,
    ) {
        if !written.touches(self.offset, LENGTH) && !written.touches(header::COMMAND, 2) {
            return;
        }
        let mut pending = config.u32(self.offset + PENDING);
        for vector in 0..self.vectors {
            if pending >> vector & 1 != 0
                && let Some(message) = self.message(config, vector)
            {
                pending &= !(1 << vector);
                out.push(Effect::Msi(message).into());
            }
        }
        config.set_u32(self.offset + PENDING, pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, read_u32, rule, walk};

    const MESSAGE: MsiMessage = MsiMessage {
        address: 0x1_fee0_1000,
        data: 0x4024,
    };

    fn send(config: &mut ConfigSpace, msi: &Msi, offset: u16, data: &[u8]) -> Vec<Effect> {
        let mut out = Vec::new();
        if let Some(written) = config.write(offset, data, &mut out) {
            msi.written(config, &written, &mut out);
        }
        out
    }

    /// A port with MSI programmed and on.
    fn enabled(vectors: u8, granted_log2: u8) -> (ConfigSpace, Msi) {
        let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        let msi = Msi::new(&mut config, vectors);
        let address = MESSAGE.address.to_le_bytes();
        send(&mut config, &msi, msi.offset + ADDRESS, &address[..4]);
        send(&mut config, &msi, msi.offset + ADDRESS_UPPER, &address[4..]);
        send(
            &mut config,
            &msi,
            msi.offset + DATA,
            &0x4024u16.to_le_bytes(),
        );
        send(&mut config, &msi, header::COMMAND, &[4, 0]);
        send(
            &mut config,
            &msi,
            msi.offset + MESSAGE_CONTROL,
            &[1 | granted_log2 << 4, 0],
        );
        (config, msi)
    }

    #[test]
    fn registers_follow_their_access_rules() {
        let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        let msi = Msi::new(&mut config, 4);
        walk(
            &mut config,
            msi.offset,
            &[
                rule("header and control", 0x00, 0x0184_0005, 0x0071_0000, 0),
                rule("address", 0x04, 0, 0xffff_fffc, 0),
                rule("upper address", 0x08, 0, u32::MAX, 0),
                rule("data", 0x0c, 0, 0xffff, 0),
                rule("mask", 0x10, 0, 0xf, 0),
                rule("pending", 0x14, 0, 0, 0),
            ],
        );
    }

    #[test]
    fn one_vector_sends_the_data_as_it_stands() {
        let (mut config, msi) = enabled(2, 0);
        assert_eq!(msi.trigger(&mut config, 0), Some(MESSAGE));
        assert_eq!(
            msi.trigger(&mut config, 1),
            Some(MESSAGE),
            "two share what one was granted"
        );
        assert_eq!(msi.trigger(&mut config, 2), None);
        assert_eq!(msi.trigger(&mut config, 255), None);
    }

    #[test]
    fn granted_vectors_change_the_low_bits_of_the_data() {
        let (config, msi) = enabled(4, 1);
        let data = |vector| msi.message(&config, vector).map(|message| message.data);
        assert_eq!(
            [0, 1, 2, 3].map(data),
            [0x4024, 0x4025, 0x4024, 0x4025].map(Some)
        );
        let (config, msi) = enabled(4, 7);
        assert_eq!(
            msi.message(&config, 3).map(|message| message.data),
            Some(0x4027),
            "no more than there are"
        );
    }

    #[test]
    fn a_masked_vector_waits() {
        let (mut config, msi) = enabled(2, 0);
        send(&mut config, &msi, msi.offset + MASK, &[1, 0, 0, 0]);
        assert_eq!(msi.trigger(&mut config, 0), None);
        assert_eq!(read_u32(&config, msi.offset + PENDING), 1);
        let out = send(&mut config, &msi, msi.offset + MASK, &[0, 0, 0, 0]);
        assert_eq!(out, [Effect::Msi(MESSAGE)]);
        assert_eq!(read_u32(&config, msi.offset + PENDING), 0);
        assert_eq!(
            send(&mut config, &msi, msi.offset + MASK, &[0, 0, 0, 0]),
            [],
            "once"
        );
    }

    #[test]
    fn nothing_is_sent_while_off() {
        let (mut config, msi) = enabled(2, 0);
        send(&mut config, &msi, header::COMMAND, &[0, 0]);
        assert_eq!(msi.message(&config, 0), None, "not a bus master");
        send(&mut config, &msi, header::COMMAND, &[4, 0]);
        send(&mut config, &msi, msi.offset + MESSAGE_CONTROL, &[0, 0]);
        assert!(!msi.is_enabled(&config));
        assert_eq!(msi.trigger(&mut config, 0), None);
        assert_eq!(
            read_u32(&config, msi.offset + PENDING),
            0,
            "pending needs MSI on"
        );
    }
}
