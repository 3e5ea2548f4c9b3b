//! Protocol errors of CXL components: from the RAS structure to the message that reaches the root port (CXL 3.1 section 12.2,
//! PCIe 6.0 section 6.2).

use cxl::component::{CorrectableError, ProtocolError, UncorrectableError};
use pci::{Bdf, ErrorMessage, Function, ResetKind, spec};

use crate::Effect;
use crate::testing::{Asked, Probe, downstream_port, expander, root_port, upstream_port};
use crate::type2_test::with_memory;

const COMPONENT: u8 = 0;
/// The RAS structure: status and mask of uncorrectable, then of correctable errors.
const UNCORRECTABLE_STATUS: u64 = 0x1100;
const UNCORRECTABLE_MASK: u64 = 0x1104;
const CORRECTABLE_STATUS: u64 = 0x110c;
const CORRECTABLE_MASK: u64 = 0x1110;
/// AER (7.8.4): status, mask and severity of uncorrectable errors, status and mask of correctable ones.
const AER_UNCORRECTABLE_STATUS: u16 = 0x04;
const AER_UNCORRECTABLE_MASK: u16 = 0x08;
const AER_CORRECTABLE_STATUS: u16 = 0x10;
const AER_CORRECTABLE_MASK: u16 = 0x14;
const AER_ROOT_COMMAND: u16 = 0x2c;
const AER_ROOT_STATUS: u16 = 0x30;
const AER_SOURCES: u16 = 0x34;
/// The bits of internal errors.
const UNCORRECTABLE_INTERNAL: u32 = 1 << 22;
const CORRECTABLE_INTERNAL: u32 = 1 << 14;
/// Device control: report correctable, non-fatal and fatal errors.
const DEVICE_CONTROL: u16 = 0x08;
const REPORT_ALL: u16 = 0x7;

const CORRECTABLE: ProtocolError = ProtocolError::Correctable(CorrectableError::MemDataEcc);
const UNCORRECTABLE: ProtocolError = ProtocolError::Uncorrectable {
    error: UncorrectableError::MemDataParity,
    header: [0xfeed; 16],
};

impl<F: Function<Effect = Effect>> Probe<F> {
    fn aer(&self) -> u16 {
        self.extended(spec::extended::AER)[0]
    }

    /// Lets errors through, as a driver of CXL ports does.
    fn report_errors(&mut self) {
        self.set_bar_u32(COMPONENT, UNCORRECTABLE_MASK, 0);
        self.set_bar_u32(COMPONENT, CORRECTABLE_MASK, 0);
        let aer = self.aer();
        self.set_config_u32(aer + AER_UNCORRECTABLE_MASK, 0);
        self.set_config_u32(aer + AER_CORRECTABLE_MASK, 0);
        let express = self.capability(spec::capability::PCI_EXPRESS).unwrap();
        self.set_config_u16(express + DEVICE_CONTROL, REPORT_ALL);
    }
}

/// Both errors in a function that reports them, and in one that does not.
fn reports<F: Function<Effect = Effect>>(
    mut make: impl FnMut() -> F,
    meet: impl Fn(&mut F, ProtocolError, &mut Vec<Effect>),
) {
    let mut port = Probe::new(make());
    let mut effects = Vec::new();
    meet(&mut port.function, CORRECTABLE, &mut effects);
    meet(&mut port.function, UNCORRECTABLE, &mut effects);
    assert_eq!(
        Asked::of(effects.drain(..)),
        Asked::default(),
        "all is masked at reset"
    );

    let mut port = Probe::new(make());
    port.report_errors();
    meet(&mut port.function, CORRECTABLE, &mut effects);
    meet(&mut port.function, UNCORRECTABLE, &mut effects);
    assert_eq!(
        Asked::of(effects.drain(..)).errors,
        [ErrorMessage::Correctable, ErrorMessage::Fatal]
    );
    assert_eq!(port.bar_u32(COMPONENT, CORRECTABLE_STATUS), 1 << 1);
    assert_eq!(port.bar_u32(COMPONENT, UNCORRECTABLE_STATUS), 1 << 4);
    let aer = port.aer();
    assert_eq!(
        port.config_u32(aer + AER_CORRECTABLE_STATUS),
        CORRECTABLE_INTERNAL
    );
    assert_eq!(
        port.config_u32(aer + AER_UNCORRECTABLE_STATUS),
        UNCORRECTABLE_INTERNAL
    );
}

#[test]
fn every_component_reports_its_protocol_errors_as_internal_errors() {
    reports(expander, |device, error, out| {
        device.protocol_error(error, out)
    });
    let accelerator = || with_memory(None).function;
    reports(accelerator, |device, error, out| {
        device.protocol_error(error, out)
    });
    reports(root_port, |port, error, out| {
        port.protocol_error(error, out)
    });
    reports(downstream_port, |port, error, out| {
        port.protocol_error(error, out)
    });
    reports(upstream_port, |port, error, out| {
        port.protocol_error(error, out)
    });
}

#[test]
fn a_viral_device_keeps_its_memory_from_the_host_until_a_reset() {
    const VIRAL: u16 = 1 << 14;
    let mut device = Probe::new(expander());
    let control = device.dvsecs()[0].1 + 0x0c;
    let mut effects = Vec::new();
    assert!(!device.function.go_viral(&mut effects), "not enabled");
    device.set_config_u16(control, VIRAL | 1 << 2);
    device.asked();
    assert!(device.function.go_viral(&mut effects));
    assert!(Asked::of(effects.drain(..)).decoders_changed);
    assert!(device.function.accessible_decoders().is_empty());
    assert_eq!(device.config_u16(control + 2), VIRAL);
    device.reset(ResetKind::SecondaryBus);
    assert_eq!(
        device.config_u16(control + 2),
        VIRAL,
        "the status is sticky"
    );
    device.set_config_u16(control + 2, VIRAL);
    assert_eq!(device.config_u16(control + 2), 0);
    assert!(
        !device.function.go_viral(&mut effects),
        "not enabled any more"
    );
}

#[test]
fn a_root_port_keeps_the_source_of_a_message_and_interrupts() {
    let mut port = Probe::new(root_port());
    let (aer, msi) = (port.aer(), port.capability(spec::capability::MSI).unwrap());
    port.set_config_u16(spec::header::COMMAND, spec::command::BUS_MASTER);
    port.set_config_u32(msi + 4, 0xfee0_0000);
    port.set_config_u16(msi + 0x0c, 0x41);
    port.set_config_u16(msi + 2, 1);
    let source = Bdf::new(0x21, 0, 0);
    let mut effects = Vec::new();
    port.function
        .receive(ErrorMessage::Correctable, source, &mut effects);
    assert_eq!(Asked::of(effects.drain(..)).messages, [], "not asked for");
    port.set_config_u32(aer + AER_ROOT_COMMAND, 7);
    port.function
        .receive(ErrorMessage::Fatal, source, &mut effects);
    let messages = Asked::of(effects.drain(..)).messages;
    assert_eq!((messages[0].address, messages[0].data), (0xfee0_0000, 0x41));
    // Correctable and uncorrectable received, the first one fatal, a fatal one.
    assert_eq!(port.config_u32(aer + AER_ROOT_STATUS) & 0x7f, 0b101_0101);
    assert_eq!(port.config_u32(aer + AER_SOURCES), 0x2100_2100);
}

#[test]
fn a_port_of_a_switch_has_no_root_error_registers() {
    let mut port = Probe::new(downstream_port());
    let before = port.image();
    let mut effects = Vec::new();
    port.function
        .receive(ErrorMessage::Fatal, Bdf::new(0x22, 0, 0), &mut effects);
    assert_eq!(Asked::of(effects), Asked::default());
    assert_eq!(port.image(), before);
}
