//! What the configuration spaces of CXL functions share: DVSECs, and what a port says of its link and its errors.

use cxl::ComponentRegisters;
use cxl::cci::LinkState;
use cxl::component::ProtocolError;
use cxl::dvsec::port::FlexBus;
use pci::{Aer, AerError, ConfigSpace, CorrectableError, Dvsec, Link, UncorrectableError};

use crate::Effect;

/// Adds a DVSEC of the CXL Consortium and returns its offset.
pub(crate) fn add_dvsec(config: &mut ConfigSpace, dvsec: &cxl::dvsec::Dvsec) -> u16 {
    let identity = Dvsec {
        vendor: cxl::CXL_VENDOR_ID,
        revision: dvsec.revision,
        id: dvsec.id,
    };
    identity.add_to(
        config,
        &dvsec.bytes,
        &dvsec.writable,
        &dvsec.write_one_to_clear,
    )
}

/// The protocols that an accelerator can speak, and does: CXL.io, CXL.cache and CXL.mem over 68-byte flits.
pub(crate) fn accelerator_link() -> FlexBus {
    memory_link().with_cache(true)
}

/// The protocols that a memory device and the port above it can speak, and do: CXL.io and CXL.mem over 68-byte flits.
pub(crate) fn memory_link() -> FlexBus {
    FlexBus::new()
        .with_io(true)
        .with_mem(true)
        .with_flit_68b_and_vh(true)
}

/// What a fabric manager is told of a link that can do `most` and does `now`, with something at the other end if it is up.
pub(crate) fn link_state(most: Link, now: Option<Link>) -> LinkState {
    LinkState {
        max_width: most.width.lanes(),
        max_speed: most.speed.code(),
        width: now.map_or(0, |link| link.width.lanes()),
        speed: now.map_or(0, |link| link.speed.code()),
        is_present: now.is_some(),
        ..LinkState::default()
    }
}

/// Logs a protocol error in a function's component registers and, as the internal error that it is to PCI Express, in its AER
/// capability (CXL 3.1 section 12.2.1).
pub(crate) fn report(
    component: &mut ComponentRegisters,
    aer: &Aer,
    config: &mut ConfigSpace,
    error: ProtocolError,
    out: &mut Vec<Effect>,
) {
    if !component.log_error(error) {
        return;
    }
    let error = match error {
        ProtocolError::Correctable(_) => AerError::Correctable(CorrectableError::Internal),
        ProtocolError::Uncorrectable { .. } => AerError::Uncorrectable {
            error: UncorrectableError::Internal,
            header: [0; 4],
        },
    };
    out.extend(aer.report(config, error).map(Effect::Error));
}
