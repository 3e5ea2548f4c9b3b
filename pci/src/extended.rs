//! Extended capabilities that hold registers and do nothing.

use crate::config::ConfigSpace;
use crate::express::DevicePortType;
use crate::link::{Link, LinkSpeed};
use crate::spec::extended;
use crate::structure::Structure;

/// Adds the Device Serial Number capability (7.9.3). Linux shows it as the `serial` of a CXL memory device.
pub fn add_serial_number(config: &mut ConfigSpace, serial: u64) -> u16 {
    /// 32 bits each, RO (7.9.3.2).
    const LOWER: u16 = 0x04;
    const UPPER: u16 = 0x08;
    Structure::new(12)
        .u32(LOWER, serial as u32, 0, 0)
        .u32(UPPER, (serial >> 32) as u32, 0, 0)
        .add_extended_to(config, extended::DEVICE_SERIAL_NUMBER, 1)
}

/// Adds the Alternative Routing-ID capability of an endpoint (7.8.8). `next_function` is 0 in the last function.
pub fn add_ari(config: &mut ConfigSpace, next_function: u8) -> u16 {
    /// 16 bits, RO: next function number in 15:8 (7.8.8.2).
    const CAPABILITY: u16 = 0x04;
    Structure::new(8)
        .u16(CAPABILITY, u16::from(next_function) << 8, 0, 0)
        .add_extended_to(config, extended::ARI, 1)
}

/// Adds the Access Control Services capability of a root port or downstream switch port (7.7.11).
pub fn add_acs(config: &mut ConfigSpace) -> u16 {
    /// 16 bits, RO (7.7.11.2).
    const CAPABILITY: u16 = 0x04;
    /// 16 bits, RW where the capability bit is set (7.7.11.3).
    const CONTROL: u16 = 0x06;
    /// Source validation, translation blocking, request and completion redirect, upstream forwarding, direct translated.
    const SERVICES: u16 = 0x1f | 1 << 6;
    Structure::new(8)
        .u16(CAPABILITY, SERVICES, 0, 0)
        .u16(CONTROL, 0, SERVICES, 0)
        .add_extended_to(config, extended::ACS, 1)
}

/// Adds the Secondary PCI Express capability, which a function with a link of 8 GT/s or more has (7.7.3); nothing for a
/// slower one. Every lane shows preset P7 in both directions.
///
/// The further capabilities of 16 GT/s and up (7.7.4 to 7.7.7) are left out: they report how lanes were trained, there
/// are no lanes here, and lspci knows some of them by name only.
pub fn add_link_capabilities(config: &mut ConfigSpace, port_type: DevicePortType, link: Link) {
    /// 32 bits; perform equalization and equalization request interrupt enable, in downstream ports only (7.7.3.2).
    const LINK_CONTROL_3: u16 = 0x04;
    const EQUALIZATION: u32 = 1 << 0 | 1 << 1;
    /// 32 bits, RW1C, a bit a lane (7.7.3.3).
    const LANE_ERROR_STATUS: u16 = 0x08;
    /// 16 bits a lane, HwInit: transmitter preset downstream in 3:0, upstream in 11:8 (7.7.3.4).
    const LANE_EQUALIZATION: u16 = 0x0c;
    const PRESETS: u16 = 7 | 7 << 8;
    if link.speed < LinkSpeed::Gt8 {
        return;
    }
    let lanes = u16::from(link.width.lanes());
    let control = if port_type.is_downstream() {
        EQUALIZATION
    } else {
        0
    };
    let mut registers = Structure::new(LANE_EQUALIZATION + 2 * lanes);
    registers.u32(LINK_CONTROL_3, 0, control, 0).u32(
        LANE_ERROR_STATUS,
        0,
        0,
        u32::MAX >> (32 - lanes),
    );
    for lane in 0..lanes {
        registers.u16(LANE_EQUALIZATION + 2 * lane, PRESETS, 0, 0);
    }
    registers.add_extended_to(config, extended::SECONDARY_PCI_EXPRESS, 1);
}

/// Identity of a Designated Vendor-Specific Extended Capability (7.9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dvsec {
    pub vendor: u16,
    /// 0 to 15.
    pub revision: u8,
    pub id: u16,
}

impl Dvsec {
    /// Bytes of the two headers and the identifier; the vendor's registers begin behind them.
    pub const HEADER_LENGTH: u16 = 0x0a;

    /// Adds the capability. `bytes` is the whole structure, headers included, whose content is ignored; masks as in
    /// [`ConfigSpace::add_capability`], and what they say of the headers must be nothing.
    ///
    /// # Panics
    /// If it does not fit, or `bytes` is shorter than the headers.
    pub fn add_to(
        self,
        config: &mut ConfigSpace,
        bytes: &[u8],
        writable: &[u8],
        write_1_clear: &[u8],
    ) -> u16 {
        /// 32 bits, RO: vendor in 15:0, revision in 19:16, length in 31:20 (7.9.6.2).
        const HEADER_1: u16 = 0x04;
        /// 16 bits, RO (7.9.6.3).
        const HEADER_2: u16 = 0x08;
        assert!(
            bytes.len() >= usize::from(Self::HEADER_LENGTH),
            "a DVSEC has a header"
        );
        let offset =
            config.add_extended_capability(extended::DVSEC, 1, bytes, writable, write_1_clear);
        let length = bytes.len() as u32;
        let revision = u32::from(self.revision & 0xf);
        config.init_u32(
            offset + HEADER_1,
            u32::from(self.vendor) | revision << 16 | length << 20,
        );
        config.init_u16(offset + HEADER_2, self.id);
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkWidth;
    use crate::testing::{ids, rule, walk};

    fn endpoint() -> ConfigSpace {
        ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10))
    }

    #[test]
    fn serial_number_reads_low_half_first() {
        let mut config = endpoint();
        let base = add_serial_number(&mut config, 0x1122_3344_5566_7788);
        walk(
            &mut config,
            base,
            &[
                rule("header", 0, 0x0001_0003, 0, 0),
                rule("lower", 4, 0x5566_7788, 0, 0),
                rule("upper", 8, 0x1122_3344, 0, 0),
            ],
        );
    }

    #[test]
    fn ari_names_the_next_function() {
        let mut config = endpoint();
        let base = add_ari(&mut config, 3);
        walk(
            &mut config,
            base,
            &[
                rule("header", 0, 0x0001_000e, 0, 0),
                rule("capability and control", 4, 0x0300, 0, 0),
            ],
        );
    }

    #[test]
    fn acs_lets_software_choose_what_it_offers() {
        let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        let base = add_acs(&mut config);
        walk(
            &mut config,
            base,
            &[
                rule("header", 0, 0x0001_000d, 0, 0),
                rule("capability and control", 4, 0x005f, 0x005f_0000, 0),
            ],
        );
    }

    #[test]
    fn secondary_pci_express_comes_with_8_gt_per_second() {
        for speed in LinkSpeed::ALL {
            let mut config = endpoint();
            let link = Link {
                speed,
                width: LinkWidth::X4,
            };
            add_link_capabilities(&mut config, DevicePortType::Endpoint, link);
            let there = config
                .find_extended_capability(extended::SECONDARY_PCI_EXPRESS)
                .is_some();
            assert_eq!(there, speed >= LinkSpeed::Gt8, "{speed}");
        }
    }

    #[test]
    fn secondary_pci_express_has_a_register_for_each_lane() {
        for (lanes, width) in [1u16, 2, 4, 8, 16].into_iter().zip([
            LinkWidth::X1,
            LinkWidth::X2,
            LinkWidth::X4,
            LinkWidth::X8,
            LinkWidth::X16,
        ]) {
            for (port_type, control) in
                [(DevicePortType::Endpoint, 0), (DevicePortType::RootPort, 3)]
            {
                let mut config = endpoint();
                add_link_capabilities(
                    &mut config,
                    port_type,
                    Link {
                        speed: LinkSpeed::Gt32,
                        width,
                    },
                );
                walk(
                    &mut config,
                    0x100,
                    &[
                        rule("header", 0, 0x0001_0019, 0, 0),
                        rule("link control 3", 4, 0, control, 0),
                        rule("lane errors", 8, 0, 0, u32::MAX >> (32 - lanes)),
                        rule(
                            "behind the last lane",
                            0x0c + (2 * lanes).next_multiple_of(4),
                            0,
                            0,
                            0,
                        ),
                    ],
                );
                let presets = (0..lanes)
                    .filter(|lane| config.u16(0x10c + 2 * lane) == 0x0707)
                    .count();
                assert_eq!(presets, usize::from(lanes));
            }
        }
    }

    #[test]
    fn dvsec_fills_in_its_headers() {
        let mut config = endpoint();
        let mut bytes = [0; 0x10];
        bytes[0x0a] = 0x1e;
        let dvsec = Dvsec {
            vendor: 0x1e98,
            revision: 2,
            id: 7,
        };
        let mut writable = [0; 0x10];
        writable[0x0c] = 0x05;
        let base = dvsec.add_to(&mut config, &bytes, &writable, &[]);
        walk(
            &mut config,
            base,
            &[
                rule("header", 0, 0x0001_0023, 0, 0),
                rule("vendor, revision, length", 4, 0x0102_1e98, 0, 0),
                rule("identifier and first register", 8, 0x001e_0007, 0, 0),
                rule("second register", 0xc, 0, 0x05, 0),
            ],
        );
    }
}
