//! The power management capability: D0 and D3hot (5.3, 7.5.2).

use crate::config::{ConfigSpace, Retention};
use crate::spec::capability;
use crate::structure::Structure;

/// Bytes of the capability (7.5.2).
const LENGTH: u16 = 8;
/// 16 bits, RO (7.5.2.1).
const CAPABILITIES: u16 = 0x02;
/// Version of the PCI Power Management Interface that PCI Express has.
const VERSION_3: u16 = 3;
/// PME from D0, D3hot and D3cold: demanded of every port, which passes on the messages of others.
const PME_PORT: u16 = 1 << 11 | 1 << 14 | 1 << 15;
/// 16 bits (7.5.2.2).
const CONTROL_STATUS: u16 = 0x04;
/// Power state in 1:0.
const STATE_MASK: u16 = 3;
/// D3hot to D0 keeps the function's state.
const NO_SOFT_RESET: u16 = 1 << 3;
const PME_ENABLE: u16 = 1 << 8;
const PME_STATUS: u16 = 1 << 15;

/// Adds the capability. Ports say that they can pass on power management events; other functions raise none.
///
/// The state register takes what is written, D1 and D2 too, which a driver must not ask for as they are not offered; in
/// every state but D0 the function decodes no memory.
pub fn add_power_management(config: &mut ConfigSpace) -> u16 {
    let (pme, enable, status) = if config.is_bridge() {
        (PME_PORT, PME_ENABLE, PME_STATUS)
    } else {
        (0, 0, 0)
    };
    let offset = Structure::new(LENGTH)
        .u16(CAPABILITIES, VERSION_3 | pme, 0, 0)
        .u16(CONTROL_STATUS, NO_SOFT_RESET, STATE_MASK | enable, status)
        .add_to(config, capability::POWER_MANAGEMENT);
    // PME enable and status are sticky; they fill the upper byte.
    config.retain(offset + CONTROL_STATUS + 1, 1, Retention::Sticky);
    offset
}

/// The power state, 0 (D0) to 3 (D3hot), of the function whose capability stands at `offset`.
pub(crate) fn state(config: &ConfigSpace, offset: u16) -> u16 {
    config.u16(offset + CONTROL_STATUS) & STATE_MASK
}
