//! What is wrong with components, as the tree tells it.

use cxl::ComponentRegisters;
use cxl::device::Fault;
use devices::Type3;

/// Records of poison that are told one by one.
const MOST_POISON: usize = 8;

/// The protocol errors that a component has met and software has not cleared.
pub(super) fn of_component(component: &ComponentRegisters) -> Vec<String> {
    let (uncorrectable, correctable) = component.logged_errors();
    let uncorrectable = uncorrectable
        .into_iter()
        .map(|name| format!("uncorrectable {name}"));
    let correctable = correctable
        .into_iter()
        .map(|name| format!("correctable {name}"));
    uncorrectable.chain(correctable).collect()
}

/// Those of an expander, and what else is wrong with it.
pub(super) fn of_memory(device: &Type3) -> Vec<String> {
    let mut errors = of_component(device.component());
    let named = |fault: Fault| Fault::NAMES.iter().find(|(_, known)| *known == fault);
    let fault = device.fault().and_then(named);
    errors.extend(fault.map(|(name, _)| format!("fault {name}")));
    if device.is_viral() {
        errors.push("viral".into());
    }
    let poison = device.memdev().poison().found(0, u64::MAX);
    let shown = poison.iter().take(MOST_POISON);
    errors.extend(shown.map(|record| format!("poison {:#x}, {} bytes", record.dpa, record.len)));
    let more = poison.len().saturating_sub(MOST_POISON);
    if more > 0 {
        errors.push(format!("poison at {more} more places"));
    }
    errors
}
