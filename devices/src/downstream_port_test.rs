//! The CXL root port and the downstream port of a switch, read like their data sheet: CXL 3.1 sections 8.1 and 9.12, PCIe 6.0 section 7.

use pci::{Link, LinkSpeed, LinkWidth, MsiMessage, ResetKind, spec};

use crate::testing::{Asked, LINK, Probe, downstream_port, root_port};
use crate::{DownstreamPort, DownstreamPortConfig, DownstreamPortKind};

const COMPONENT: u8 = 0;

/// Link capabilities and status, from the start of the PCI Express capability.
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK_STATUS: u16 = 0x12;
const LINK_ACTIVE: u16 = 1 << 13;

/// The uncorrectable error mask of the RAS structure (CXL 3.1 section 8.2.4.17.2).
const UNCORRECTABLE_MASK: u64 = 0x1104;

/// Slot control and status, from the start of the PCI Express capability, and what of them is used here.
const SLOT_CONTROL: u16 = 0x18;
const BUTTON_ENABLE: u16 = 1 << 0;
const INTERRUPT_ENABLE: u16 = 1 << 5;
const POWER_OFF: u16 = 1 << 10;
const SLOT_STATUS: u16 = 0x1a;
const PRESENCE_DETECT: u16 = 1 << 6;

/// MSI message control, address and data, from the start of the capability.
const MSI_CONTROL: u16 = 0x02;
const MSI_ADDRESS: u16 = 0x04;
const MSI_DATA: u16 = 0x0c;

fn probe() -> Probe<DownstreamPort> {
    Probe::new(root_port())
}

#[test]
fn it_is_a_pci_bridge_with_the_port_number_that_decoders_name_it_by() {
    let port = probe();
    assert_eq!(port.config_u32(spec::header::VENDOR_ID), 0x7075_8086);
    assert_eq!(
        port.config_u32(spec::header::REVISION_ID) >> 8,
        0x06_0400,
        "PCI-to-PCI bridge"
    );
    assert_eq!(
        port.config_u8(spec::header::HEADER_TYPE),
        spec::header::TYPE_1
    );
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    assert_eq!(port.config_u32(express + LINK_CAPABILITIES) >> 24, 3);
    assert_eq!(port.function.port_number(), 3);
}

#[test]
fn it_has_the_dvsecs_of_a_cxl_root_port() {
    let ids: Vec<u16> = probe().dvsecs().into_iter().map(|(id, _)| id).collect();
    // Port extensions, global persistent flush, Flex Bus port, register locator.
    assert_eq!(ids, [3, 4, 7, 8]);
}

#[test]
fn the_register_locator_leads_to_the_component_registers() {
    let mut port = probe();
    assert_eq!(port.register_blocks(), [(1, COMPONENT)]);
    assert_eq!(port.bar_size(COMPONENT), 64 << 10);
    // The CXL capability header with three structures: RAS, link and BI decoder, no HDM decoders.
    assert_eq!(port.bar_u32(COMPONENT, 0x1000), 0x0311_0001);
}

#[test]
fn the_link_is_what_both_ends_can_do() {
    let config = DownstreamPortConfig {
        kind: DownstreamPortKind::Root,
        name: "rp0".into(),
        port_number: 0,
        link: LINK,
        slot: None,
    };
    let mut port = Probe::new(DownstreamPort::new(config).unwrap());
    let status = port.capability(spec::capability::PCI_EXPRESS).unwrap() + LINK_STATUS;
    assert_eq!(port.function.link(), None);
    assert_eq!(port.config_u16(status) & LINK_ACTIVE, 0);

    let device = Link {
        speed: LinkSpeed::Gt16,
        width: LinkWidth::X8,
    };
    port.function.connect(device);
    assert_eq!(port.function.link(), Some(device));
    // 16 GT/s is code 4; eight lanes.
    assert_eq!(
        port.config_u16(status) & (LINK_ACTIVE | 0x3ff),
        LINK_ACTIVE | 8 << 4 | 4
    );
}

#[test]
fn every_reset_restores_reset_values_and_keeps_the_link() {
    for kind in [
        ResetKind::Conventional,
        ResetKind::SecondaryBus,
        ResetKind::FunctionLevel,
    ] {
        let mut port = probe();
        let fresh = port.image();
        port.set_config_u32(spec::bridge::PRIMARY_BUS, 0x0021_2120);
        port.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
        port.set_bar_u32(COMPONENT, UNCORRECTABLE_MASK, 0);
        assert_eq!(port.bar_u32(COMPONENT, UNCORRECTABLE_MASK), 0);
        port.asked();

        port.reset(kind);
        assert_eq!(
            port.asked(),
            Asked {
                bars_changed: true,
                ..Asked::default()
            }
        );
        assert_eq!(port.image(), fresh, "{kind:?}");
        assert_eq!(port.function.link(), Some(LINK));
    }
}

#[test]
fn writes_to_its_registers_ask_for_nothing() {
    let mut port = probe();
    for offset in (0x1000..0x1400).step_by(4) {
        port.set_bar_u32(COMPONENT, offset, u32::MAX);
    }
    assert_eq!(port.asked(), Asked::default());
}

#[test]
fn a_switchs_downstream_port_is_told_from_a_root_port_by_its_ids_and_type() {
    let port = Probe::new(downstream_port());
    assert_eq!(port.config_u32(spec::header::VENDOR_ID), 0xa129_19e5);
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    // Device/Port Type 6, in bits 7:4 (PCIe 6.0 section 7.5.3.2).
    assert_eq!(port.config_u16(express + 2) >> 4 & 0xf, 6);
    assert_eq!(port.config_u32(express + LINK_CAPABILITIES) >> 24, 2);
    assert_eq!(port.function.kind(), DownstreamPortKind::Switch);
}

#[test]
fn a_switchs_downstream_port_has_access_control_and_the_dvsecs_of_a_port() {
    let mut port = Probe::new(downstream_port());
    assert_eq!(port.extended(spec::extended::ACS).len(), 1);
    assert_eq!(port.extended(spec::extended::AER).len(), 1);
    let ids: Vec<u16> = port.dvsecs().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [3, 4, 7, 8]);
    assert_eq!(port.register_blocks(), [(1, COMPONENT)]);
    assert_eq!(port.bar_u32(COMPONENT, 0x1000), 0x0311_0001);
}

/// Turns on MSI with this data.
fn enable_msi(port: &mut Probe<DownstreamPort>, data: u16) {
    let msi = port.capability(spec::capability::MSI).unwrap();
    port.set_config_u16(spec::header::COMMAND, spec::command::BUS_MASTER);
    port.set_config_u32(msi + MSI_ADDRESS, 0xfee0_0000);
    port.set_config_u16(msi + MSI_DATA, data);
    port.set_config_u16(msi + MSI_CONTROL, 1);
    port.asked();
}

#[test]
fn the_slot_is_emptied_in_order_by_button_power_and_hand() {
    let mut port = probe();
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    enable_msi(&mut port, 0x41);
    port.set_config_u16(express + SLOT_CONTROL, BUTTON_ENABLE | INTERRUPT_ENABLE);
    assert_eq!(port.asked(), Asked::default());

    let mut out = Vec::new();
    port.function.press_attention_button(&mut out);
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x41,
    };
    assert_eq!(Asked::of(out).messages, [message]);

    port.set_config_u16(express + SLOT_CONTROL, POWER_OFF);
    assert!(port.asked().slot_power_changed);
    let slot = port.function.slot().unwrap();
    assert_eq!((slot.number, slot.powered), (4, false));
    assert_eq!(port.function.link(), None);

    port.function.change_card(None, &mut Vec::new());
    assert_eq!(
        port.config_u16(express + SLOT_STATUS) & PRESENCE_DETECT,
        0,
        "empty"
    );
}

#[test]
fn a_card_comes_alive_when_its_slot_gets_power() {
    let mut port = probe();
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    port.function.change_card(None, &mut Vec::new());
    port.set_config_u16(express + SLOT_CONTROL, POWER_OFF);
    port.function.change_card(Some(LINK), &mut Vec::new());
    assert_eq!(port.function.link(), None);
    port.asked();
    port.set_config_u16(express + SLOT_CONTROL, 0);
    assert!(port.asked().slot_power_changed);
    assert_eq!(port.function.link(), Some(LINK));
}

#[test]
fn a_port_without_a_slot_says_so() {
    let config = DownstreamPortConfig {
        name: "rp0".into(),
        kind: DownstreamPortKind::Root,
        port_number: 0,
        link: LINK,
        slot: None,
    };
    let port = Probe::new(DownstreamPort::new(config).unwrap());
    assert_eq!(port.function.slot(), None);
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    assert_eq!(
        port.config_u32(express + SLOT_CONTROL - 4),
        0,
        "no slot capabilities"
    );
}
