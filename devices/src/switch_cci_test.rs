//! The mailbox of a switch, read like its data sheet: CXL 3.1 sections 7.2.9, 8.1.9 and 8.2.8, PCIe 6.0 section 7.

use pci::{ResetKind, spec};

use crate::testing::{Asked, Probe, upstream_port, upstream_port_config};
use crate::{SwitchCci, UpstreamPort, UpstreamPortConfig};

const DEVICE: u8 = 0;
/// The device registers block (CXL 3.1 section 8.1.9.1).
const DEVICE_BLOCK: u8 = 3;
/// Mailbox control.
const CONTROL: u64 = 0x104;

fn probe() -> Probe<SwitchCci> {
    Probe::new(upstream_port().add_cci(Box::new(|| 0)))
}

#[test]
fn it_is_a_fabric_managers_interface_in_a_device_of_several_functions() {
    let cci = probe();
    assert_eq!(cci.config_u32(spec::header::VENDOR_ID), 0xa123_19e5);
    let class = cci.config_u32(spec::header::REVISION_ID) >> 8;
    assert_eq!(class, 0x0c_0b00, "CXL fabric management host interface");
    let mut upstream = upstream_port();
    let alone = Probe::new(upstream_port()).config_u8(spec::header::HEADER_TYPE);
    let _cci = upstream.add_cci(Box::new(|| 0));
    let beside = Probe::new(upstream).config_u8(spec::header::HEADER_TYPE);
    assert_eq!((alone, beside), (1, 0x81));
    assert_eq!(cci.config_u8(spec::header::HEADER_TYPE), 0x80);
    for id in [spec::capability::MSIX, spec::capability::PCI_EXPRESS] {
        assert!(cci.capability(id).is_some());
    }
}

#[test]
fn the_register_locator_leads_to_a_mailbox() {
    let mut cci = probe();
    assert_eq!(cci.register_blocks(), [(DEVICE_BLOCK, DEVICE)]);
    assert_eq!(cci.bar_size(DEVICE), 0x1000);
    // Two capabilities of a switch: status and primary mailbox.
    assert_eq!(cci.bar_u64(DEVICE, 0), 0x0000_0002_0201_0000);
}

#[test]
fn all_functions_of_a_switch_have_its_serial_number() {
    let serial = |serial| {
        let config = UpstreamPortConfig {
            serial,
            ..upstream_port_config()
        };
        let mut upstream = UpstreamPort::new(config).unwrap();
        let cci = Probe::new(upstream.add_cci(Box::new(|| 0)));
        let found = cci.extended(spec::extended::DEVICE_SERIAL_NUMBER);
        found.first().map(|at| cci.config_u32(at + 4))
    };
    assert_eq!((serial(None), serial(Some(7))), (None, Some(7)));
}

#[test]
fn a_command_waits_for_the_switch() {
    let mut cci = probe();
    cci.set_bar_u32(DEVICE, CONTROL, 1);
    let expected = Asked {
        switch_commands: 1,
        ..Asked::default()
    };
    assert_eq!(cci.asked(), expected);
    assert_eq!(cci.bar_u32(DEVICE, CONTROL), 1);
}

#[test]
fn every_reset_restores_reset_values() {
    for kind in [
        ResetKind::Conventional,
        ResetKind::SecondaryBus,
        ResetKind::FunctionLevel,
    ] {
        let mut cci = probe();
        let fresh = cci.image();
        cci.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
        cci.set_bar_u32(DEVICE, CONTROL, 7);
        cci.set_bar_u64(DEVICE, 0x120, 7);
        cci.asked();
        cci.reset(kind);
        assert!(cci.asked().bars_changed);
        assert_eq!(cci.image(), fresh, "{kind:?}");
    }
}
