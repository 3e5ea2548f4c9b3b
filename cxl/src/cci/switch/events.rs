//! Event records of a switch (section 7.6.8): what has become of its ports since they were looked at before.
//!
//! Links that have changed, and bridges that were bound or unbound, are told in the informational log; what could not be bound
//! or unbound in the log of warnings.

use super::physical::encode_port;
use super::virtual_switch::{VCS_ID, encode_binding};
use super::{Binding, Port, Switch};
use crate::Effect;
use crate::event::{Event, EventFlags, EventKind, EventLogs, Severity};
use crate::mailbox::events::Logging;
use crate::mailbox::timestamp::Timed;

/// UUIDs of the record types, in the byte order in which they are stored.
const PHYSICAL_SWITCH: [u8; 16] = 0x77cf9271_9c02_470b_9fe4_bc7b75f2da97_u128.to_be_bytes();
const VIRTUAL_SWITCH: [u8; 16] = 0x40d26425_3396_4c4d_a5da_3d47263af425_u128.to_be_bytes();

impl Logging for Switch {
    fn logs(&self) -> &EventLogs {
        &self.events
    }

    fn logs_mut(&mut self) -> &mut EventLogs {
        &mut self.events
    }
}

impl Switch {
    /// Sees how the ports are now, and logs how that differs from before.
    pub(super) fn look(&mut self, ports: Vec<Port>, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.ports, ports);
        let mut events = Vec::new();
        for (bridge, port) in (0..).zip(self.downstream()) {
            let Some(old) = before.iter().find(|old| old.id == port.id) else {
                continue;
            };
            if (old.link, old.attached) != (port.link, port.attached) {
                events.push(link_state_change(port));
            }
            let is_settled = matches!(port.binding, Binding::Bound | Binding::Unbound);
            let was_moving = old.binding != port.binding;
            if is_settled && was_moving {
                events.push(binding_change(bridge, port, Severity::Informational));
            }
        }
        self.log(&events, effects);
    }

    /// A downstream port could not be bound or unbound.
    pub(super) fn log_failure(&mut self, id: u8, effects: &mut Vec<Effect>) {
        let found = (0..).zip(self.downstream()).find(|(_, port)| port.id == id);
        let event = found.map(|(bridge, port)| binding_change(bridge, port, Severity::Warning));
        self.log(event.as_slice(), effects);
    }

    fn log(&mut self, events: &[Event], effects: &mut Vec<Effect>) {
        let timestamp = Timed::timestamp(self);
        for event in events {
            self.events.push(event, timestamp, effects);
        }
    }
}

fn event(severity: Severity, uuid: [u8; 16], record: &[u8]) -> Event {
    let mut data = [0; EventKind::DATA_LEN];
    for (to, from) in data.iter_mut().zip(record) {
        *to = *from;
    }
    Event {
        severity,
        flags: EventFlags::default(),
        related: 0,
        maintenance_class: 0,
        kind: EventKind::Raw { uuid, data },
    }
}

/// Physical Switch Event Record (section 7.6.8.1).
fn link_state_change(port: &Port) -> Event {
    const LINK_STATE_CHANGE: u8 = 0;
    let mut state = Vec::new();
    encode_port(port, &mut state);
    let mut record = vec![port.id, LINK_STATE_CHANGE];
    record.extend(port.registers.slot_status.to_le_bytes());
    record.push(0);
    // As Get Physical Port State tells it, but for the port's number and its logical devices.
    record.extend(state.get(1..15).unwrap_or_default());
    event(Severity::Informational, PHYSICAL_SWITCH, &record)
}

/// Virtual CXL Switch Event Record (section 7.6.8.2).
fn binding_change(bridge: u8, port: &Port, severity: Severity) -> Event {
    const BINDING_CHANGE: u8 = 0;
    let mut record = vec![VCS_ID, bridge, BINDING_CHANGE];
    record.extend(encode_binding(port));
    record.extend(port.registers.link_control.to_le_bytes());
    record.extend(port.registers.slot_control.to_le_bytes());
    event(severity, VIRTUAL_SWITCH, &record)
}
