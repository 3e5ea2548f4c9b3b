//! DVSECs of ports: extensions (section 8.1.5), GPF (8.1.6) and Flex Bus port (8.1.8), the last of
//! which a device's upstream-facing port has too.

use bitfield_struct::bitfield;

use super::device::GpfTimeout;
use super::{Dvsec, id};

/// CXL Extensions DVSEC for Ports, of root ports and switch ports.
pub fn extensions() -> Dvsec {
    const LEN: usize = 0x28;
    const STATUS: usize = 0x0a;
    const CONTROL: usize = 0x0c;
    const ALTERNATE_BUSES: usize = 0x0e;
    const ALTERNATE_MEMORY: usize = 0x10;
    /// PM initialisation complete.
    const PM_INIT_COMPLETE: u16 = 1;
    /// Unmask SBR, unmask link disable, alternate memory and id space, alternate bus master; viral.
    const CONTROL_WRITABLE: u16 = 0x400f;
    let mut dvsec = Dvsec::new(id::PORT_EXTENSIONS, 0, LEN);
    dvsec.put(STATUS, &PM_INIT_COMPLETE.to_le_bytes());
    dvsec.put_writable(CONTROL, &CONTROL_WRITABLE.to_le_bytes());
    // Base and limit of the alternate bus range, of memory (bits 15:4) and of prefetchable memory
    // with its upper halves, as in a bridge header.
    dvsec.put_writable(ALTERNATE_BUSES, &[0xff; 2]);
    dvsec.put_writable(
        ALTERNATE_MEMORY,
        &[0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff],
    );
    dvsec.put_writable(ALTERNATE_MEMORY + 8, &[0xff; 8]);
    dvsec
}

/// Offsets of the controls of either phase in the GPF DVSEC.
pub const GPF_CONTROLS: [u16; 2] = [0x0c, 0x0e];

/// GPF DVSEC for CXL Ports: how long the port waits in either phase.
pub fn gpf(phase1: GpfTimeout, phase2: GpfTimeout) -> Dvsec {
    const LEN: usize = 0x10;
    /// Timeout base and scale.
    const WRITABLE: u16 = 0x0f0f;
    let mut dvsec = Dvsec::new(id::GPF_PORT, 0, LEN);
    for (offset, timeout) in GPF_CONTROLS.into_iter().zip([phase1, phase2]) {
        let offset = usize::from(offset);
        dvsec.put(offset, &timeout.into_bits().to_le_bytes());
        dvsec.put_writable(offset, &WRITABLE.to_le_bytes());
    }
    dvsec
}

/// Protocols and modes of a Flex Bus link: the common layout of its capability, control and status
/// registers (sections 8.1.8.1 to 8.1.8.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct FlexBus {
    /// CXL.cache.
    pub cache: bool,
    /// CXL.io.
    pub io: bool,
    /// CXL.mem.
    pub mem: bool,
    #[bits(2)]
    __: u8,
    /// 68-byte flits and virtual hierarchy mode.
    pub flit_68b_and_vh: bool,
    /// Multiple logical devices.
    pub multiple_logical_device: bool,
    #[bits(6)]
    __: u8,
    /// Latency-optimised or standard 256-byte flits.
    pub flit_256b: bool,
    /// Port-based routing flits.
    pub port_based_routing: bool,
    __: bool,
}

/// PCIe DVSEC for Flex Bus Port, revision 2: `capable` of so much, `trained` to so much.
///
/// An operating system takes a link for a CXL link by the io or mem bit of what was trained.
pub fn flex_bus(capable: FlexBus, trained: FlexBus) -> Dvsec {
    const LEN: usize = 0x20;
    const REVISION: u8 = 2;
    const CAPABILITY: usize = 0x0a;
    const CONTROL: usize = 0x0c;
    const STATUS: usize = 0x0e;
    let mut dvsec = Dvsec::new(id::FLEX_BUS_PORT, REVISION, LEN);
    // What is trained stays as it is: a change of the control bits waits for a retraining.
    let writable = FlexBus::new().with_cache(true).with_mem(true);
    dvsec.put(CAPABILITY, &capable.into_bits().to_le_bytes());
    dvsec.put(CONTROL, &trained.into_bits().to_le_bytes());
    dvsec.put(STATUS, &trained.into_bits().to_le_bytes());
    let writable = writable.into_bits() & capable.into_bits();
    dvsec.put_writable(CONTROL, &writable.to_le_bytes());
    dvsec
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn port_extensions_report_power_management_ready() {
        let dvsec = extensions();
        check(&dvsec, 3, 0, 0x28);
        assert_eq!(dvsec.bytes[0x0a..0x0c], [1, 0]);
        assert_eq!(dvsec.writable[0x0a..0x0c], [0, 0], "status is read-only");
        assert_eq!(dvsec.writable[0x0c..0x0e], [0x0f, 0x40]);
        assert_eq!(dvsec.writable[0x20..], [0; 8], "no RCRB behind a root port");
    }

    #[test]
    fn gpf_timeouts_can_be_changed() {
        let dvsec = gpf(
            GpfTimeout { base: 1, scale: 2 },
            GpfTimeout { base: 4, scale: 5 },
        );
        check(&dvsec, 4, 0, 0x10);
        assert_eq!(dvsec.bytes[0x0a..], [0, 0, 1, 2, 4, 5]);
        assert_eq!(dvsec.writable[0x0a..], [0, 0, 0x0f, 0x0f, 0x0f, 0x0f]);
    }

    #[test]
    fn a_flex_bus_port_tells_what_it_trained_to() {
        let link = FlexBus::new()
            .with_io(true)
            .with_mem(true)
            .with_flit_68b_and_vh(true);
        let dvsec = flex_bus(link.with_flit_256b(true), link);
        check(&dvsec, 7, 2, 0x20);
        assert_eq!(
            dvsec.bytes[0x0a..0x10],
            [0x26, 0x20, 0x26, 0x00, 0x26, 0x00]
        );
        assert_eq!(dvsec.writable[0x0c..0x0e], [0x04, 0x00]);
    }
}
