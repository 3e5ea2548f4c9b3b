//! The upstream port of a switch, read like its data sheet: CXL 3.1 sections 8.1 and 8.2.4.20, PCIe 6.0 section 7.

use pci::{ResetKind, spec};

use crate::testing::{Asked, LINK, MIB, Probe, upstream_port, upstream_port_config};
use crate::{UpstreamPort, UpstreamPortConfig};

const COMPONENT: u8 = 0;

/// The HDM decoder structure in the component registers; base, size, control and target list of decoder 0.
const HDM: u64 = 0x1200;
const BASE: u64 = 0x1210;
const SIZE: u64 = 0x1218;
const CONTROL: u64 = 0x1220;
const TARGETS: u64 = 0x1224;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
/// Two ways.
const WAYS_2: u32 = 1 << 4;

/// Asks for nothing but that the windows are looked at again.
fn decoders_changed() -> Asked {
    Asked {
        decoders_changed: true,
        ..Asked::default()
    }
}

fn probe() -> Probe<UpstreamPort> {
    Probe::new(upstream_port())
}

/// Commits decoder 0 for 512 MiB at 64 GiB over two ports, as a driver does, and returns its control register.
fn commit(port: &mut Probe<UpstreamPort>, targets: u32) -> u32 {
    port.set_bar_u64(COMPONENT, BASE, 64 << 30);
    port.set_bar_u64(COMPONENT, SIZE, 512 * MIB);
    port.set_bar_u32(COMPONENT, TARGETS, targets);
    port.set_bar_u32(COMPONENT, CONTROL, COMMIT | WAYS_2);
    port.bar_u32(COMPONENT, CONTROL)
}

#[test]
fn it_is_the_upstream_port_of_a_switch() {
    let port = probe();
    assert_eq!(port.config_u32(spec::header::VENDOR_ID), 0xa128_19e5);
    assert_eq!(
        port.config_u32(spec::header::REVISION_ID) >> 8,
        0x06_0400,
        "PCI-to-PCI bridge"
    );
    let express = port.capability(spec::capability::PCI_EXPRESS).unwrap();
    // Device/Port Type 5, in bits 7:4 (PCIe 6.0 section 7.5.3.2).
    assert_eq!(port.config_u16(express + 2) >> 4 & 0xf, 5);
    assert_eq!(port.extended(spec::extended::AER).len(), 1);
    assert_eq!(port.function.link(), Some(LINK));
}

#[test]
fn it_has_the_dvsecs_of_an_upstream_port() {
    let ids: Vec<u16> = probe().dvsecs().into_iter().map(|(id, _)| id).collect();
    // Port extensions, Flex Bus port, register locator; global persistent flush is the downstream ports'.
    assert_eq!(ids, [3, 7, 8]);
}

#[test]
fn the_register_locator_leads_to_component_registers_with_ten_decoders() {
    let mut port = probe();
    assert_eq!(port.register_blocks(), [(1, COMPONENT)]);
    assert_eq!(port.bar_size(COMPONENT), 64 << 10);
    // The CXL capability header with four structures: RAS, link, HDM decoders and BI route table.
    assert_eq!(port.bar_u32(COMPONENT, 0x1000), 0x0411_0001);
    // Ten decoders of eight targets each, all granularities, no ways that only devices decode.
    assert_eq!(port.bar_u32(COMPONENT, HDM), 0x0000_0385);
}

#[test]
fn a_serial_number_is_there_exactly_if_the_switch_has_one() {
    let with = |serial| {
        let config = UpstreamPortConfig {
            serial,
            ..upstream_port_config()
        };
        let port = Probe::new(UpstreamPort::new(config).unwrap());
        port.extended(spec::extended::DEVICE_SERIAL_NUMBER).len()
    };
    assert_eq!((with(None), with(Some(7))), (0, 1));
}

#[test]
fn its_decoders_route_to_its_downstream_ports() {
    let mut port = probe();
    assert_eq!(
        commit(&mut port, 0x0103),
        COMMIT | COMMITTED | WAYS_2,
        "ports 3 and 1"
    );
    assert_eq!(port.asked(), decoders_changed());
    let decoders = port.function.component().port_decoders();
    assert_eq!(decoders[0].targets, [3, 1]);

    port.set_bar_u32(COMPONENT, CONTROL, 0);
    assert_eq!(port.asked(), decoders_changed());
    assert!(port.function.component().port_decoders().is_empty());
}

#[test]
fn a_decoder_that_names_a_port_the_switch_does_not_have_is_refused() {
    let mut port = probe();
    assert_eq!(commit(&mut port, 0x0400), COMMIT | ERROR | WAYS_2);
    assert_eq!(port.asked(), Asked::default());
}

#[test]
fn its_cdat_tells_what_the_way_through_the_switch_costs() {
    let expected = cxl::cdat::switch(&upstream_port_config().performance).unwrap();
    assert_eq!(probe().cdat(), expected.bytes());
}

#[test]
fn every_reset_releases_its_decoders_and_restores_reset_values() {
    for kind in [
        ResetKind::Conventional,
        ResetKind::SecondaryBus,
        ResetKind::FunctionLevel,
    ] {
        let mut port = probe();
        let fresh = port.image();
        port.set_config_u32(spec::bridge::PRIMARY_BUS, 0x0022_2221);
        commit(&mut port, 0x0100);
        port.asked();
        port.reset(kind);
        assert_eq!(
            port.asked(),
            Asked {
                bars_changed: true,
                ..decoders_changed()
            }
        );
        assert_eq!(port.image(), fresh, "{kind:?}");
    }
}

#[test]
fn what_registers_cannot_express_is_refused() {
    let config = UpstreamPortConfig {
        decoders: 3,
        ..upstream_port_config()
    };
    assert!(UpstreamPort::new(config).is_err());
    let mut config = upstream_port_config();
    config.performance.read_latency = 100_000;
    assert!(UpstreamPort::new(config).is_err());
}
