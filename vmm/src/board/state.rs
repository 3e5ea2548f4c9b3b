//! What stands under the board's lock: the models, and what the machine knows of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use cxl::ComponentRegisters;
use cxl::decode::{Cfmws, Child, Endpoint, EndpointId, Port, Topology};
use cxl::memdev::poison::PoisonRecord;
use devices::gpu::protocol::registers::Request;
use devices::power::{PowerBlock, ResetControl};
use devices::rtc::Rtc;
use devices::{Device, DownstreamPort};
use pci::{BarWindow, ConfigAddressPort, Hierarchy, NodeId, Parent, RootId};

use crate::accelerator;
use crate::layout::{AddressRange, CHBCR_SIZE};
use crate::nonvolatile::NonVolatileStore;
use crate::virtio::Handle;

/// A CXL host bridge: what has registers but is no PCI function.
#[derive(Debug)]
pub struct CxlHostBridge {
    /// Its name in the configuration.
    pub name: String,
    /// ACPI `_UID`.
    pub uid: u32,
    /// Its root bus.
    pub root: RootId,
    /// Where its component registers are.
    pub registers: AddressRange,
    /// Its component registers.
    pub component: ComponentRegisters,
}

/// Who answered an access of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Responder {
    /// COM1.
    Serial,
    /// The real-time clock.
    Clock,
    /// PM1, the PM timer and reset control.
    Power,
    /// CF8 and ECAM, whoever is behind.
    PciConfig,
    /// Component registers of the host bridge with this index.
    HostBridge(usize),
    /// A BAR of a function.
    Function(NodeId),
    /// The CXL window with this index, where nothing is mapped.
    UnmappedWindow(usize),
    /// Nobody.
    Nobody,
}

/// The models, under the board's lock.
pub struct State {
    /// PCI functions.
    pub hierarchy: Hierarchy<Device>,
    /// CXL host bridges in the order of the configuration.
    pub host_bridges: Vec<CxlHostBridge>,
    /// The endpoint number and the label file of each expander and each accelerator.
    pub expanders: BTreeMap<NodeId, Expander>,
    /// What the expanders remember without power.
    pub nonvolatile: Arc<NonVolatileStore>,
    /// Fixed memory windows.
    pub windows: Vec<Cfmws>,
    /// The worker of each virtio function.
    pub workers: BTreeMap<NodeId, Handle>,
    /// What is behind each accelerator.
    pub accelerators: BTreeMap<NodeId, accelerator::Handle>,
    /// Accesses by responder.
    pub counts: BTreeMap<Responder, u64>,
    /// The address register at port 0xCF8.
    pub(super) config_port: ConfigAddressPort,
    /// PM1 and the PM timer.
    pub(super) power: PowerBlock,
    /// Port 0xCF9.
    pub(super) reset: ResetControl,
    /// The real-time clock.
    pub(super) rtc: Rtc,
}

/// What the machine knows of an expander besides its model.
#[derive(Debug)]
pub struct Expander {
    /// Its number among the endpoints and the media.
    pub endpoint: EndpointId,
    /// The file of its label storage area.
    pub labels: Option<File>,
}

impl State {
    /// A board with these functions.
    pub fn new(
        hierarchy: Hierarchy<Device>,
        host_bridges: Vec<CxlHostBridge>,
        windows: Vec<Cfmws>,
        nonvolatile: Arc<NonVolatileStore>,
    ) -> Self {
        Self {
            hierarchy,
            host_bridges,
            windows,
            nonvolatile,
            expanders: BTreeMap::new(),
            workers: BTreeMap::new(),
            accelerators: BTreeMap::new(),
            counts: BTreeMap::new(),
            config_port: ConfigAddressPort::default(),
            power: PowerBlock::new(),
            reset: ResetControl::new(),
            rtc: Rtc::new(),
        }
    }

    /// All that decodes, as it is programmed now.
    pub fn topology(&self) -> Topology {
        let endpoints = self.expanders.iter().filter_map(|(node, expander)| {
            match self.hierarchy.get(*node)? {
                Device::Type3(device) => Some(Endpoint {
                    id: expander.endpoint,
                    mem_enable: device.mem_enable(),
                    decoders: device.accessible_decoders(),
                    memory: device.memdev().memory(),
                }),
                // Memory that is trapped is reached through its BAR alone.
                Device::Type2(device) if !device.is_trapped() => Some(Endpoint {
                    id: expander.endpoint,
                    mem_enable: device.mem_enable(),
                    decoders: device.accessible_decoders(),
                    memory: std::iter::once(0..device.memory()).collect(),
                }),
                _ => None,
            }
        });
        let host_bridges = self
            .host_bridges
            .iter()
            .map(|bridge| cxl::decode::HostBridge {
                uid: bridge.uid,
                port: Port {
                    decoders: bridge.component.port_decoders(),
                    dports: self.dports(bridge.root),
                },
            });
        Topology {
            windows: self.windows.clone(),
            host_bridges: host_bridges.collect(),
            endpoints: endpoints.collect(),
        }
    }

    /// Keeps what a device remembers now.
    pub(super) fn save_nonvolatile(&self, node: NodeId) {
        let Some(Device::Type3(device)) = self.hierarchy.get(node) else {
            return;
        };
        let value = device.memdev().nonvolatile();
        if let Err(error) = self.nonvolatile.save(device.name(), value) {
            log::error!("{}: cannot keep its state: {error}", device.name());
        }
    }

    /// The number of a device among the media.
    pub(super) fn media_number(&self, node: NodeId) -> Option<usize> {
        let endpoint = self.expanders.get(&node)?.endpoint;
        usize::try_from(endpoint.0).ok()
    }

    /// The port of this name.
    pub fn port_named(&self, name: &str) -> Option<(NodeId, &DownstreamPort)> {
        self.hierarchy
            .iter()
            .find_map(|(node, device)| match device {
                Device::DownstreamPort(port) if port.name() == name => Some((node, &**port)),
                _ => None,
            })
    }

    /// The expander of this name.
    pub fn expander_named(&self, name: &str) -> Option<(NodeId, &Expander)> {
        self.expanders
            .iter()
            .map(|(node, expander)| (*node, expander))
            .find(|(node, _)| self.expander_name(*node) == Some(name))
    }

    /// Names of the expanders and accelerators by endpoint number.
    pub fn endpoint_names(&self) -> BTreeMap<EndpointId, String> {
        let named = self.expanders.iter().filter_map(|(node, expander)| {
            let name = match self.hierarchy.get(*node)? {
                Device::Type2(device) => device.name(),
                _ => self.expander_name(*node)?,
            };
            Some((expander.endpoint, name.to_string()))
        });
        named.collect()
    }

    fn expander_name(&self, node: NodeId) -> Option<&str> {
        match self.hierarchy.get(node)? {
            Device::Type3(device) => Some(device.name()),
            _ => None,
        }
    }

    /// The bad lines of all devices.
    pub fn bad_lines(&self) -> Vec<(EndpointId, PoisonRecord)> {
        let bad = self.expanders.iter().filter_map(|(node, expander)| {
            let Device::Type3(device) = self.hierarchy.get(*node)? else {
                return None;
            };
            let records = device.memdev().poison().found(0, u64::MAX);
            Some(
                records
                    .into_iter()
                    .map(|record| (expander.endpoint, record)),
            )
        });
        bad.flatten().collect()
    }

    /// The function of an endpoint.
    pub fn expander(&self, endpoint: EndpointId) -> Option<NodeId> {
        let mut expanders = self.expanders.iter();
        expanders
            .find(|(_, expander)| expander.endpoint == endpoint)
            .map(|(node, _)| *node)
    }

    /// What is behind the root ports of a host bridge, or the downstream ports of a switch, by port number.
    fn dports(&self, above: impl Into<Parent>) -> Vec<(u8, Child)> {
        let behind = |port: &NodeId| {
            let Device::DownstreamPort(model) = self.hierarchy.get(*port)? else {
                return None;
            };
            let device = *self.hierarchy.children(*port).first()?;
            let child = match self.hierarchy.get(device)? {
                Device::UpstreamPort(switch) => Child::Switch(Port {
                    decoders: switch.component().port_decoders(),
                    dports: self.dports(device),
                }),
                _ => Child::Endpoint(self.expanders.get(&device)?.endpoint),
            };
            Some((model.port_number(), child))
        };
        self.hierarchy
            .children(above)
            .iter()
            .filter_map(behind)
            .collect()
    }

    /// The host bridge whose component registers hold all of an access, and the offset in them.
    pub(super) fn host_bridge_at(
        &mut self,
        address: u64,
        len: u64,
    ) -> Option<(usize, u64, &mut CxlHostBridge)> {
        let (index, bridge) = self
            .host_bridges
            .iter_mut()
            .enumerate()
            .find(|(_, bridge)| bridge.registers.contains(address))?;
        let offset = address - bridge.registers.start;
        (offset + len <= CHBCR_SIZE).then_some((index, offset, bridge))
    }

    /// Shows the accelerators' memory where their BARs and the bridges above them decode now.
    pub(super) fn place_accelerators(&self) {
        for (node, handle) in &self.accelerators {
            let Some(Device::Type2(function)) = self.hierarchy.get(*node) else {
                continue;
            };
            let is_reached = |window: &BarWindow| {
                let ends = [window.base, window.base + (window.size - 1)];
                ends.iter().all(|end| {
                    let target = self.hierarchy.route_memory(*end, 1);
                    target.is_some_and(|target| target.node == *node)
                })
            };
            handle.place(function, is_reached);
        }
    }

    /// Accelerators that are at some command.
    pub(super) fn busy_accelerators(&self) -> Vec<NodeId> {
        let is_busy = |(node, handle): (&NodeId, &accelerator::Handle)| {
            let function = match self.hierarchy.get(*node) {
                Some(Device::Type2(function)) => function.is_busy(),
                _ => false,
            };
            (function || !handle.is_idle()).then_some(*node)
        };
        self.accelerators.iter().filter_map(is_busy).collect()
    }

    /// Does what an accelerator's driver asks for.
    pub(super) fn accelerate(&mut self, node: NodeId, request: Request) {
        if let (Some(handle), Some(Device::Type2(function))) =
            (self.accelerators.get(&node), self.hierarchy.get_mut(node))
        {
            handle.apply(request, function);
        }
    }

    pub(super) fn count(&mut self, responder: Responder) {
        *self.counts.entry(responder).or_default() += 1;
    }
}
