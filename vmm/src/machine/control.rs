//! The running machine as the control socket shows it.

use std::collections::BTreeMap;

use cxl::ComponentRegisters;
use cxl::coherence::Event;
use cxl::decode::{EndpointId, Mapping, Member};
use cxl::hdm::{EndpointDecoder, PortDecoder};
use devices::{Device, SlotState};
use pci::{Indicator, Link, NodeId, Parent};

use super::inject::inject;
use super::{Current, Running, gpu};
use super::{errors, extents};
use crate::accelerator;
use crate::board::{CxlHostBridge, Responder, State as Models};
use crate::config::Config;
use crate::control::{
    self as api, AddDevice, Backend, ChangeExtents, Decoder, Exits, Failure, FailureKind, Function,
    Gpu, GpuTrace, HostBridge, Inject, Memslot, Port, Region, Removal, Slot, State, Switch, Tree,
    Type2, Type3, Window,
};
use crate::error::Error;
use crate::kvm::{Permission, RunState};
use crate::media::MediaError;
use crate::virtio;

/// Answers for whatever machine runs at the moment.
pub(super) struct Control(Current);

impl Control {
    pub(super) fn new(current: Current) -> Self {
        Self(current)
    }

    fn running(&self) -> Result<std::sync::Arc<Running>, Failure> {
        self.0.get().ok_or_else(|| {
            Failure::new(
                FailureKind::Conflict,
                "the machine is between two boots",
                "ask again in a moment",
            )
        })
    }
}

impl Backend for Control {
    fn state(&self) -> Result<State, Failure> {
        let running = self.running()?;
        Ok(State {
            state: match running.vcpus.state() {
                RunState::Running => api::RunState::Running,
                RunState::Paused => api::RunState::Paused,
                RunState::Stopped => api::RunState::Stopped,
            },
            vcpus: running.config.machine.vcpus,
            memory: running.config.machine.memory,
            hypervisor_bit: running.config.hypervisor_bit_is_shown(),
            pid: std::process::id(),
        })
    }

    fn tree(&self) -> Result<Tree, Failure> {
        Ok(tree(&*self.running()?))
    }

    fn memslots(&self) -> Result<Vec<Memslot>, Failure> {
        let running = self.running()?;
        let shown = running.windows.shown();
        let names = running.board.lock().endpoint_names();
        let windows = gpu::windows(&running.board.lock());
        let name = |hpa: u64| match shown.iter().find(|shown| shown.mapping.base == hpa) {
            None => windows.get(&hpa).map_or("ram", String::as_str).to_string(),
            Some(shown) => {
                let members = shown.mapping.members.iter();
                members
                    .filter_map(|member| names.get(&member.endpoint).map(String::as_str))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        };
        let slots = running
            .vm
            .memslots()
            .list()
            .into_iter()
            .map(|slot| Memslot {
                slot: slot.slot,
                name: name(slot.hpa),
                hpa: slot.hpa,
                size: slot.len,
                offset: slot.offset,
                read_only: slot.permission == Permission::ReadOnly,
            });
        Ok(slots.collect())
    }

    fn exits(&self) -> Result<Exits, Failure> {
        let running = self.running()?;
        let exits = running.vcpus.exits();
        let models = running.board.lock();
        let mut devices = BTreeMap::new();
        for (responder, count) in &models.counts {
            if let Some(name) = name_of(&models, &running.config, *responder) {
                *devices.entry(name).or_default() += count;
            }
        }
        Ok(Exits {
            total: exits.total(),
            causes: exits
                .iter()
                .map(|(cause, count)| (cause.name().to_string(), count))
                .collect(),
            devices,
        })
    }

    fn timing(&self) -> Result<api::Timing, Failure> {
        let running = self.running()?;
        let timing = running.timing.as_ref().ok_or_else(|| {
            let message = "timing is off: CXL memory is as fast as RAM";
            let mend = "write timing.clock = \"real\" on top of the configuration";
            Failure::new(FailureKind::Conflict, message, mend)
        })?;
        Ok(timing.report())
    }

    fn gpu(&self) -> Result<Vec<Gpu>, Failure> {
        let running = self.running()?;
        Ok(gpu::all(&running.board.lock()))
    }

    fn gpu_trace(
        &self,
        device: &str,
        from: u64,
        most: u64,
    ) -> Result<(GpuTrace, Vec<Event>), Failure> {
        let running = self.running()?;
        gpu::trace(&running.board.lock(), device, from, most)
    }

    fn media(&self, device: &str, dpa: u64, length: u64) -> Result<Vec<u8>, Failure> {
        let running = self.running()?;
        let endpoint = {
            let state = running.board.lock();
            let found = state.expander_named(device);
            found.map(|(_, expander)| expander.endpoint)
        };
        let endpoint = endpoint.ok_or_else(|| {
            let message = format!("there is no device {device}");
            Failure::new(FailureKind::NotFound, message, "take a name from the tree")
        })?;
        let mut bytes = vec![0; usize::try_from(length.min(api::MOST_MEDIA)).unwrap_or_default()];
        running
            .windows
            .read_media(endpoint.0 as usize, dpa, &mut bytes)
            .map_err(|error| {
                let kind = match error {
                    Error::Media(MediaError::NoSuchRange { .. }) => FailureKind::BadRequest,
                    _ => FailureKind::Internal,
                };
                Failure::new(kind, error.to_string(), "ask for bytes that the device has")
            })?;
        Ok(bytes)
    }

    fn pause(&self) -> Result<(), Failure> {
        let running = self.running()?;
        running.vcpus.pause();
        // The devices last: a processor that was still inside one could have kicked a queue.
        let models = running.board.lock();
        let accelerators = models.accelerators.values();
        accelerators.for_each(accelerator::Handle::pause);
        models.workers.values().for_each(virtio::Handle::pause);
        Ok(())
    }

    fn resume(&self) -> Result<(), Failure> {
        let running = self.running()?;
        let models = running.board.lock();
        let accelerators = models.accelerators.values();
        accelerators.for_each(accelerator::Handle::resume);
        models.workers.values().for_each(virtio::Handle::resume);
        drop(models);
        running.vcpus.resume();
        Ok(())
    }

    fn power_button(&self) -> Result<(), Failure> {
        self.running()?.board.press_power_button();
        Ok(())
    }

    fn add_device(&self, request: AddDevice) -> Result<(), Failure> {
        let file = request.file.unwrap_or_default();
        self.running()?
            .slots
            .add(&request.port, &file, request.device)
    }

    fn remove_device(&self, device: &str, removal: Removal) -> Result<(), Failure> {
        let running = self.running()?;
        let ended = || running.vcpus.state() == RunState::Stopped;
        running.slots.remove(device, removal, ended)
    }

    fn inject(&self, request: &Inject) -> Result<(), Failure> {
        inject(&self.running()?.board, request)
    }

    fn change_extents(&self, request: &ChangeExtents) -> Result<(), Failure> {
        extents::change(&self.running()?.board, request)
    }

    fn quit(&self) {
        self.0.quit();
    }
}

/// What the exit counts call a responder; `None` for nobody.
fn name_of(models: &Models, config: &Config, responder: Responder) -> Option<String> {
    Some(match responder {
        Responder::Serial => "serial".into(),
        Responder::Clock => "rtc".into(),
        Responder::Power => "power".into(),
        Responder::PciConfig => "pci_config".into(),
        Responder::HostBridge(index) => models.host_bridges.get(index)?.name.clone(),
        Responder::Function(node) => function_name(models, node)?,
        Responder::UnmappedWindow(index) => config.windows.get(index)?.name.clone(),
        Responder::Nobody => return None,
    })
}

pub(super) fn function_name(models: &Models, node: NodeId) -> Option<String> {
    let device = models.hierarchy.get(node)?;
    Some(match component_name(device) {
        Some(name) => name.into(),
        None => format!("{} {}", device.kind(), bdf(models, node)),
    })
}

/// What the configuration calls a CXL component; `None` for other functions.
pub(super) fn component_name(device: &Device) -> Option<&str> {
    match device {
        Device::DownstreamPort(port) => Some(port.name()),
        Device::UpstreamPort(switch) => Some(switch.name()),
        Device::Type2(device) => Some(device.name()),
        Device::Type3(device) => Some(device.name()),
        Device::Host(_) | Device::SwitchCci(_) | Device::Virtio(_) => None,
    }
}

fn bdf(models: &Models, node: NodeId) -> String {
    models
        .hierarchy
        .bdf(node)
        .map(|bdf| bdf.to_string())
        .unwrap_or_default()
}

fn show_link(link: Option<Link>) -> String {
    link.map_or_else(
        || "down".into(),
        |link| format!("{} {}", link.speed, link.width),
    )
}

fn show_slot(slot: SlotState) -> Slot {
    let show = |light| {
        match light {
            Indicator::On => "on",
            Indicator::Blinking => "blinking",
            Indicator::Off => "off",
        }
        .to_string()
    };
    Slot {
        number: slot.number,
        powered: slot.powered,
        attention: show(slot.attention),
        power: show(slot.power),
    }
}

fn tree(running: &Running) -> Tree {
    let models = running.board.lock();
    let functions = models.hierarchy.iter().filter(|(node, device)| {
        let on_a_root = matches!(models.hierarchy.parent(*node), Some(Parent::Root(_)));
        on_a_root && !matches!(device, Device::DownstreamPort(_))
    });
    let functions = functions.map(|(node, device)| Function {
        bdf: bdf(&models, node),
        name: device.kind().into(),
    });
    let functions = functions.collect();
    let host_bridges = models
        .host_bridges
        .iter()
        .map(|bridge| host_bridge(&models, bridge))
        .collect();
    let counts = models.counts.clone();
    let windows = models.windows.clone();
    let names = models.endpoint_names();
    // The windows' lock comes before the models'.
    drop(models);
    let shown = running.windows.shown();
    let windows =
        running
            .config
            .windows
            .iter()
            .zip(windows)
            .enumerate()
            .map(|(index, (window, cfmws))| {
                let inside = shown.iter().filter(|shown| {
                    shown
                        .mapping
                        .base
                        .checked_sub(cfmws.base)
                        .is_some_and(|offset| offset < cfmws.size)
                });
                let target = |index: &usize| {
                    running
                        .config
                        .host_bridges
                        .get(*index)
                        .map(|bridge| bridge.name.clone())
                };
                let regions: Vec<Region> =
                    inside.map(|shown| region(&shown.mapping, &names)).collect();
                Window {
                    name: window.name.clone(),
                    hpa: cfmws.base,
                    size: cfmws.size,
                    targets: window.targets.iter().filter_map(target).collect(),
                    granularity: window.granularity,
                    mapped: regions.iter().map(|region| region.size).sum(),
                    regions,
                    uncommitted_accesses: counts
                        .get(&Responder::UnmappedWindow(index))
                        .copied()
                        .unwrap_or_default(),
                }
            });
    Tree {
        functions,
        host_bridges,
        windows: windows.collect(),
    }
}

fn region(mapping: &Mapping, names: &BTreeMap<EndpointId, String>) -> Region {
    let name = |member: &Member| names.get(&member.endpoint).cloned();
    Region {
        hpa: mapping.base,
        size: mapping.size,
        granularity: mapping.interleave.granularity.bytes(),
        devices: mapping.members.iter().filter_map(name).collect(),
    }
}

fn host_bridge(models: &Models, bridge: &CxlHostBridge) -> HostBridge {
    let buses = models
        .hierarchy
        .roots()
        .find(|(root, _)| *root == bridge.root)
        .map(|(_, buses)| buses);
    HostBridge {
        name: bridge.name.clone(),
        uid: bridge.uid,
        first_bus: buses.as_ref().map_or(0, |buses| *buses.start()),
        last_bus: buses.as_ref().map_or(0, |buses| *buses.end()),
        component_registers: bridge.registers.start,
        decoders: port_decoders(&bridge.component),
        root_ports: ports(models, bridge.root.into()),
    }
}

/// The ports of a host bridge or a switch, with what is behind them.
fn ports(models: &Models, above: Parent) -> Vec<Port> {
    let port = |node: &NodeId| {
        let Device::DownstreamPort(model) = models.hierarchy.get(*node)? else {
            return None;
        };
        let mut below = models.hierarchy.children(*node).iter();
        Some(Port {
            name: model.name().into(),
            bdf: bdf(models, *node),
            port_number: model.port_number(),
            link: show_link(model.link()),
            slot: model.slot().map(show_slot),
            errors: errors::of_component(model.component()),
            device: below.find_map(|device| plugged(models, *device)),
        })
    };
    models
        .hierarchy
        .children(above)
        .iter()
        .filter_map(port)
        .collect()
}

fn plugged(models: &Models, node: NodeId) -> Option<api::Device> {
    Some(match models.hierarchy.get(node)? {
        Device::Type2(device) => {
            let decoders = device.component().endpoint_decoders();
            api::Device::Type2(Type2 {
                name: device.name().into(),
                bdf: bdf(models, node),
                serial: format!("{:#x}", device.serial()),
                memory: device.memory(),
                errors: errors::of_component(device.component()),
                decoders: decoders.iter().enumerate().map(endpoint_decoder).collect(),
            })
        }
        Device::Type3(device) => {
            let (volatile, persistent) = device.capacity();
            let decoders = device.component().endpoint_decoders();
            api::Device::Type3(Type3 {
                name: device.name().into(),
                bdf: bdf(models, node),
                serial: format!("{:#x}", device.serial()),
                volatile,
                persistent,
                errors: errors::of_memory(device),
                dynamic: extents::regions(device.memdev()),
                extents: extents::shown(device.memdev().extents()),
                offered: extents::shown(device.memdev().offered_extents()),
                decoders: decoders.iter().enumerate().map(endpoint_decoder).collect(),
            })
        }
        Device::UpstreamPort(switch) => api::Device::Switch(Switch {
            name: switch.name().into(),
            bdf: bdf(models, node),
            errors: errors::of_component(switch.component()),
            decoders: port_decoders(switch.component()),
            ports: ports(models, node.into()),
        }),
        _ => return None,
    })
}

fn port_decoders(component: &ComponentRegisters) -> Vec<Decoder> {
    let decoders = component.port_decoders();
    decoders.iter().enumerate().map(port_decoder).collect()
}

// Decoders commit in order, so that the committed ones are the first ones.

fn port_decoder((index, decoder): (usize, &PortDecoder)) -> Decoder {
    Decoder {
        index,
        hpa: decoder.base,
        size: decoder.size,
        ways: decoder.interleave.ways.count(),
        granularity: decoder.interleave.granularity.bytes(),
        targets: decoder.targets.clone(),
        dpa: None,
    }
}

fn endpoint_decoder((index, decoder): (usize, &EndpointDecoder)) -> Decoder {
    Decoder {
        index,
        hpa: decoder.base,
        size: decoder.size,
        ways: decoder.interleave.ways.count(),
        granularity: decoder.interleave.granularity.bytes(),
        targets: Vec::new(),
        dpa: Some(decoder.dpa),
    }
}
