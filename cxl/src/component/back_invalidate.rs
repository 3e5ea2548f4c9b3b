//! CXL BI route table and BI decoder structures (sections 8.2.4.26 and 8.2.4.27): which ports pass the back-invalidate
//! snoops of HDM-DB on, and whether a device may send any.
//!
//! An upstream switch port has the route table, a root port, a downstream switch port and a Type 2 device the decoder.
//! What software writes into the decoder of a port is in force once it is committed; nothing is left to be done then, so a
//! commit never fails and takes no time. Nothing else depends on them: the coherence engine snoops whether they are set or not.

use crate::register::{Register, RegisterBlock};

/// Bytes of either structure.
pub(super) const LEN: u64 = 0xc;

/// Offsets: capability, control, status.
const CONTROL: u64 = 4;
const STATUS: u64 = 8;

/// Capability of a route table: an explicit commit is required.
const ROUTE_EXPLICIT_COMMIT: u32 = 1;
/// Control of a route table: commit.
const ROUTE_COMMIT: u32 = 1;

/// Capability of a decoder: the device takes HDM-D too, without back-invalidation; reserved in ports.
const HDM_D: u32 = 1;
/// Capability of a decoder: an explicit commit is required; reserved in devices.
const EXPLICIT_COMMIT: u32 = 1 << 1;
/// Control of a decoder: BI Forward, of ports, for what comes from behind a switch below them.
const FORWARD: u32 = 1;
/// Control of a decoder: BI Enable.
const ENABLE: u32 = 1 << 1;
/// Control of a decoder: BI Decoder Commit, of ports.
const COMMIT: u32 = 1 << 2;

/// Status of both: committed. Commit timeouts, bits 15:8, are zero: it is done at once.
const COMMITTED: u32 = 1;

/// BI route table of an upstream switch port.
pub(super) static ROUTE_TABLE: [Register; 3] = [
    Register::read_only(0, ROUTE_EXPLICIT_COMMIT),
    Register::read_write(CONTROL, 0, ROUTE_COMMIT),
    Register::read_only(STATUS, 0),
];
/// BI decoder of a root port or downstream switch port.
pub(super) static PORT: [Register; 3] = [
    Register::read_only(0, EXPLICIT_COMMIT),
    Register::read_write(CONTROL, 0, FORWARD | ENABLE | COMMIT),
    Register::read_only(STATUS, 0),
];
/// BI decoder of a Type 2 device.
pub(super) static DEVICE: [Register; 3] = [
    Register::read_only(0, HDM_D),
    Register::read_write(CONTROL, 0, ENABLE),
    Register::read_only(STATUS, 0),
];

/// One of the two structures.
#[derive(Debug)]
pub(super) struct BackInvalidate {
    registers: RegisterBlock,
    /// The commit bit of the control register; none in a device.
    commit: u32,
}

impl BackInvalidate {
    pub fn route_table() -> Self {
        Self {
            registers: RegisterBlock::new(&ROUTE_TABLE),
            commit: ROUTE_COMMIT,
        }
    }

    pub fn port() -> Self {
        Self {
            registers: RegisterBlock::new(&PORT),
            commit: COMMIT,
        }
    }

    pub fn device() -> Self {
        Self {
            registers: RegisterBlock::new(&DEVICE),
            commit: 0,
        }
    }

    pub fn reset(&mut self) {
        self.registers.reset();
    }

    pub fn read(&self, offset: u64) -> u32 {
        self.registers.read(offset)
    }

    pub fn write(&mut self, offset: u64, value: u32) {
        self.registers.write(offset, value);
        if offset == CONTROL {
            let committed = self.registers.read(CONTROL) & self.commit != 0;
            self.registers
                .set(STATUS, if committed { COMMITTED } else { 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::tests::walk;

    #[test]
    fn registers_follow_their_tables() {
        walk(&ROUTE_TABLE);
        walk(&PORT);
        walk(&DEVICE);
    }

    #[test]
    fn a_ports_back_invalidation_is_committed_and_taken_back() {
        for (mut structure, control) in [
            (BackInvalidate::port(), 0b110),
            (BackInvalidate::route_table(), 0b1),
        ] {
            assert_eq!(structure.read(STATUS), 0);
            structure.write(CONTROL, control);
            assert_eq!(structure.read(STATUS), 1, "committed, no error");
            structure.write(STATUS, u32::MAX);
            assert_eq!(structure.read(STATUS), 1, "read-only");
            structure.write(CONTROL, 0);
            assert_eq!(structure.read(STATUS), 0);
            structure.write(CONTROL, control);
            structure.reset();
            assert_eq!((structure.read(CONTROL), structure.read(STATUS)), (0, 0));
        }
    }

    #[test]
    fn a_device_is_enabled_without_a_commit() {
        let mut structure = BackInvalidate::device();
        structure.write(CONTROL, u32::MAX);
        assert_eq!(structure.read(CONTROL), 0b10);
        assert_eq!(structure.read(STATUS), 0);
    }
}
