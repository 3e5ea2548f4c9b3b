//! What the control socket lets go wrong.

use cxl::component::{CorrectableError, ProtocolError, UncorrectableError};
use cxl::device::Fault;
use cxl::event::{
    Dram, Event, EventFlags, EventKind, GeneralMedia, MediaAddress, Severity, Transaction,
};
use cxl::mailbox::ReturnCode;
use cxl::memdev::poison::PoisonSource;
use devices::{Device, Effect, Type3};
use pci::NodeId;

use super::control::component_name;
use crate::board::{Board, Effects, State};
use crate::control::{EventSeverity, Failure, FailureKind, Inject, Injection};

/// Lets it happen.
///
/// # Errors
/// [`FailureKind::NotFound`] for a name that nothing has, [`FailureKind::BadRequest`] for what cannot happen to it.
pub(super) fn inject(board: &Board, request: &Inject) -> Result<(), Failure> {
    let mut models = board.lock();
    let node = find(&models, &request.target)?;
    if let Some(Device::DownstreamPort(_)) = models.hierarchy.get(node)
        && let Some(down) = link_goes_down(&request.what)
    {
        let effects = devices::set_link_down(&mut models.hierarchy, node, down);
        board.perform(models, effects);
        return Ok(());
    }
    let mut effects = Effects::new();
    let result = models.hierarchy.with(node, &mut effects, |device, out| {
        happen(device, &request.what, out)
    });
    board.perform(models, effects);
    result.unwrap_or(Ok(()))
}

/// Whether this takes a link down, or lets it come up; `None`: neither.
fn link_goes_down(what: &Injection) -> Option<bool> {
    match what {
        Injection::LinkDown => Some(true),
        Injection::Fault { fault: None } => Some(false),
        _ => None,
    }
}

fn find(models: &State, name: &str) -> Result<NodeId, Failure> {
    let mut functions = models.hierarchy.iter();
    let found = functions.find(|(_, device)| component_name(device) == Some(name));
    found.map(|(node, _)| node).ok_or_else(|| {
        let message = format!("there is no component {name}");
        Failure::new(FailureKind::NotFound, message, "take a name from the tree")
    })
}

fn happen(device: &mut Device, what: &Injection, out: &mut Vec<Effect>) -> Result<(), Failure> {
    match what {
        Injection::Correctable { error } => {
            let error = named(error, &CorrectableError::NAMES)?;
            protocol_error(device, ProtocolError::Correctable(error), out);
            Ok(())
        }
        Injection::Uncorrectable { error, header } => {
            let error = named(error, &UncorrectableError::NAMES)?;
            let mut log = [0; 16];
            if header.len() > log.len() {
                return Err(bad(
                    format!("{} dwords do not fit the header log", header.len()),
                    "give at most 16",
                ));
            }
            for (to, from) in log.iter_mut().zip(header) {
                *to = *from;
            }
            protocol_error(
                device,
                ProtocolError::Uncorrectable { error, header: log },
                out,
            );
            Ok(())
        }
        Injection::LinkDown => Err(bad(
            "a link goes down at the port above it".into(),
            "name a root port, or a downstream port of a switch",
        )),
        _ => match device {
            Device::Type3(device) => happen_to_memory(device, what, out),
            _ => Err(bad(
                "that can happen to memory devices only".into(),
                "name an expander",
            )),
        },
    }
}

fn happen_to_memory(
    device: &mut Type3,
    what: &Injection,
    out: &mut Vec<Effect>,
) -> Result<(), Failure> {
    match *what {
        Injection::Poison { dpa, length } => device
            .add_poison(dpa, length, PoisonSource::Internal, out)
            .map_err(refused),
        Injection::ClearPoison { dpa, length } => {
            device.clear_poison(dpa, length, out).map_err(refused)
        }
        Injection::MediaEvent { severity, dpa } => {
            let kind = EventKind::GeneralMedia(GeneralMedia {
                media: address(device, dpa),
                ..GeneralMedia::default()
            });
            device.log_event(&event(severity, kind), out);
            Ok(())
        }
        Injection::DramEvent {
            severity,
            dpa,
            bank,
            row,
            column,
        } => {
            let kind = EventKind::Dram(Dram {
                media: address(device, dpa),
                bank,
                row,
                column,
                ..Dram::default()
            });
            device.log_event(&event(severity, kind), out);
            Ok(())
        }
        Injection::Viral => match device.go_viral(out) {
            true => Ok(()),
            false => Err(Failure::new(
                FailureKind::Conflict,
                "the guest has not enabled viral containment",
                "set Viral_Enable, bit 14 of the CXL Control register in the DVSEC for CXL devices",
            )),
        },
        Injection::Fault { ref fault } => {
            let fault = fault.as_deref().map(|name| named(name, &Fault::NAMES));
            device.set_fault(fault.transpose()?, out);
            Ok(())
        }
        Injection::Health {
            temperature,
            life_used,
        } => {
            let mut health = device.memdev().health();
            health.temperature = temperature.unwrap_or(health.temperature);
            health.life_used = life_used.unwrap_or(health.life_used);
            device.set_health(health, out);
            Ok(())
        }
        // `happen` has seen to these.
        Injection::Correctable { .. } | Injection::Uncorrectable { .. } | Injection::LinkDown => {
            Ok(())
        }
    }
}

fn protocol_error(device: &mut Device, error: ProtocolError, out: &mut Vec<Effect>) {
    match device {
        Device::Type2(device) => device.protocol_error(error, out),
        Device::Type3(device) => device.protocol_error(error, out),
        Device::DownstreamPort(port) => port.protocol_error(error, out),
        Device::UpstreamPort(port) => port.protocol_error(error, out),
        // They have no CXL link, and no name to be called by.
        Device::Host(_) | Device::SwitchCci(_) | Device::Virtio(_) => {}
    }
}

/// Some error of the media that a read of the host met.
fn address(device: &Type3, dpa: u64) -> MediaAddress {
    MediaAddress {
        dpa,
        volatile: dpa < device.memdev().partition().volatile,
        transaction: Transaction::HostRead as u8,
        ..MediaAddress::default()
    }
}

fn event(severity: EventSeverity, kind: EventKind) -> Event {
    Event {
        severity: match severity {
            EventSeverity::Informational => Severity::Informational,
            EventSeverity::Warning => Severity::Warning,
            EventSeverity::Failure => Severity::Failure,
            EventSeverity::Fatal => Severity::Fatal,
        },
        flags: EventFlags::default(),
        related: 0,
        maintenance_class: 0,
        kind,
    }
}

fn named<T: Copy>(name: &str, names: &[(&str, T)]) -> Result<T, Failure> {
    let found = names.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        bad(
            format!("there is no {name}"),
            format!("what can be is {}", known.join(", ")),
        )
    })
}

fn refused(code: ReturnCode) -> Failure {
    let (message, mend) = match code {
        ReturnCode::InvalidPhysicalAddress => ("the device has no such lines", "see its capacity"),
        ReturnCode::ResourcesExhausted => ("so much of a device cannot be bad", "clear some first"),
        _ => (
            "these are no whole lines",
            "give multiples of 64, and at least 64 bytes",
        ),
    };
    bad(message.into(), mend)
}

fn bad(message: String, mend: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadRequest, message, mend)
}
