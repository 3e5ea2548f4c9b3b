//! The mailbox of a switch: the function beside its upstream port through which a fabric manager asks what the switch has, and
//! does things to its ports (CXL 3.1 sections 7.2.9 and 8.1.13; PCI class code 0c_0b_00).
//!
//! The function knows nothing of the ports. A command waits in it, as [`Effect::SwitchCommand`] says, until
//! [`run_switch_command`](crate::run_switch_command) has looked at them.

use cxl::cci::{Action, Identity, Port, SwitchConfig, SwitchRegisters};
use cxl::dvsec::{self, RegisterBlockId, RegisterLocation};
use cxl::mailbox::ReturnCode;
use cxl::memdev::Clock;
use pci::{
    Aer, Bar, ConfigSpace, DevicePortType, ExpressConfig, ExpressEvent, Function, Ids, Link,
    MsixLayout, MsixTable, PciExpress, ResetKind,
};

use crate::Effect;
use crate::cxl_config::add_dvsec;
use crate::upstream_port::PORT_NUMBER;

/// The ids that emulated switch mailboxes carry, so that existing scripts find ours.
const IDS: Ids = Ids {
    vendor: 0x19e5,
    device: 0xa123,
    revision: 0,
    class: 0x0c_0b00,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// BARs: the mailbox, and the interrupt vectors.
const DEVICE_BAR: u8 = 0;
const MSIX_BAR: u8 = 2;
/// Room for the vectors and their pending bits.
const MSIX_BAR_SIZE: u64 = 0x1000;
const MSIX: MsixLayout = MsixLayout {
    bar: MSIX_BAR,
    table_offset: 0,
    pba_offset: 0x800,
    vectors: 2,
};
const MAILBOX_VECTOR: u8 = 0;
const EVENT_VECTOR: u8 = 1;

/// What makes one switch's mailbox differ from another's.
pub(crate) struct SwitchCciConfig {
    /// The switch's serial number.
    pub serial: Option<u64>,
    /// The link of its upstream port.
    pub link: Link,
    /// HDM decoders of its upstream port.
    pub decoders: usize,
    /// For timestamps.
    pub clock: Clock,
}

/// The mailbox of a switch.
pub struct SwitchCci {
    config: ConfigSpace,
    express: PciExpress,
    msix: MsixTable,
    registers: SwitchRegisters,
    /// Effects of the registers, before they are turned into ours.
    scratch: Vec<cxl::Effect>,
}

impl SwitchCci {
    /// The function in its reset state.
    pub(crate) fn new(config: SwitchCciConfig) -> Self {
        let SwitchCciConfig {
            serial,
            link,
            decoders,
            clock,
        } = config;
        let mut space = ConfigSpace::endpoint(IDS);
        space.set_multi_function();
        space.add_bar(DEVICE_BAR, Bar::memory64(SwitchRegisters::SIZE));
        space.add_bar(MSIX_BAR, Bar::memory64(MSIX_BAR_SIZE));
        pci::add_power_management(&mut space);
        let msix = MsixTable::new(&mut space, MSIX);
        let express = PciExpress::new(&mut space, ExpressConfig::endpoint(link));
        Aer::new(&mut space, DevicePortType::Endpoint, 0);
        if let Some(serial) = serial {
            pci::add_serial_number(&mut space, serial);
        }
        let locator = dvsec::register_locator(&[RegisterLocation {
            block: RegisterBlockId::Device,
            bar: DEVICE_BAR,
            offset: 0,
        }]);
        add_dvsec(&mut space, &locator);
        Self {
            config: space,
            express,
            msix,
            registers: SwitchRegisters::new(SwitchConfig {
                identity: Identity {
                    vendor: IDS.vendor,
                    device: IDS.device,
                    subsystem_vendor: IDS.subsystem_vendor,
                    subsystem: IDS.subsystem,
                    serial: serial.unwrap_or(0),
                },
                upstream: PORT_NUMBER,
                decoders: u8::try_from(decoders).unwrap_or(u8::MAX),
                mailbox_vector: MAILBOX_VECTOR,
                event_vector: EVENT_VECTOR,
                clock,
            }),
            scratch: Vec::new(),
        }
    }

    /// Runs the command that waits: see [`SwitchRegisters::execute`].
    pub(crate) fn execute(&mut self, ports: Vec<Port>, out: &mut Vec<Effect>) -> Option<Action> {
        let action = self.registers.execute(ports, &mut self.scratch);
        self.drain(out);
        action
    }

    /// Completes the command: see [`SwitchRegisters::complete`].
    pub(crate) fn complete(&mut self, result: Result<Vec<u8>, ReturnCode>, out: &mut Vec<Effect>) {
        self.registers.complete(result, &mut self.scratch);
        self.drain(out);
    }

    /// A port has changed: see [`SwitchRegisters::observe`].
    pub(crate) fn observe(&mut self, ports: Vec<Port>, out: &mut Vec<Effect>) {
        self.registers.observe(ports, &mut self.scratch);
        self.drain(out);
    }

    /// The registers ask for nothing but interrupts.
    fn drain(&mut self, out: &mut Vec<Effect>) {
        for effect in self.scratch.drain(..) {
            if let cxl::Effect::Interrupt { vector } = effect {
                let message = self.msix.trigger(u16::from(vector));
                out.extend(message.map(|message| pci::Effect::Msi(message).into()));
            }
        }
    }
}

impl Function for SwitchCci {
    type Effect = Effect;

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<Effect>) {
        let Some(written) = self.config.write(offset, data, out) else {
            return;
        };
        self.msix.written(&self.config, &written, out);
        let event = self.express.written(&mut self.config, &written);
        if event == Some(ExpressEvent::FunctionLevelReset) {
            self.reset(ResetKind::FunctionLevel, out);
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _: &mut Vec<Effect>) {
        match bar {
            DEVICE_BAR => self.registers.read(offset, data),
            MSIX_BAR => self.msix.bar_read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<Effect>) {
        match bar {
            DEVICE_BAR if self.registers.write(offset, data) => out.push(Effect::SwitchCommand),
            MSIX_BAR => self.msix.bar_write(offset, data, out),
            _ => {}
        }
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<Effect>) {
        self.config.reset(kind);
        self.msix.reset(&self.config, out);
        match kind {
            ResetKind::FunctionLevel => self.registers.reset_mailbox(),
            ResetKind::Conventional | ResetKind::SecondaryBus => self.registers.reset(),
        }
        out.push(pci::Effect::BarsChanged.into());
    }
}
