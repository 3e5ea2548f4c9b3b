//! What the firmware writes into the HDM decoders, so that Linux assembles the file's regions by itself.
//!
//! Linux takes a region over if every level agrees with what it would have written: each host bridge, switch and device
//! on the way has a committed decoder with the region's base and size; decoders of one component ascend in HPA, and those
//! of a device in DPA too; a port's granularity is that of [`routes`](super::routes), even where it leads to one port only;
//! and a device has the ways and granularity of the whole set.

use std::collections::BTreeMap;

use super::model::{Config, MemoryKind, Place};
use super::routes;

/// One region as decoders see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPlan {
    /// Index in [`Config::regions`].
    pub region: usize,
    /// First host-physical address.
    pub hpa: u64,
    /// Length in bytes.
    pub size: u64,
    /// The memory is an accelerator's, which keeps it coherent itself.
    pub is_accelerators: bool,
    /// The decoders stay as they are until the next reset.
    pub lock: bool,
    /// Decoders of host bridges and switches, each component before those below it.
    pub ports: Vec<PortDecoder>,
    /// Decoders of the devices, position 0 first.
    pub endpoints: Vec<EndpointDecoder>,
}

/// A committed decoder of a host bridge or a switch (CXL 3.1, 8.2.4.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDecoder {
    /// The host bridge, or the port with the switch.
    pub component: Place,
    /// Which decoder: 0, 1, ... in the order of their commits.
    pub decoder: usize,
    /// First host-physical address.
    pub hpa: u64,
    /// Length in bytes.
    pub size: u64,
    /// Bytes to one port before the next's turn.
    pub granularity: u64,
    /// Port numbers in interleave order; their number is the decoder's ways.
    pub targets: Vec<u8>,
}

/// A committed decoder of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointDecoder {
    /// The device.
    pub device: Place,
    /// Which decoder: 0, 1, ... in the order of their commits.
    pub decoder: usize,
    /// First host-physical address of the set.
    pub hpa: u64,
    /// Length of the set in bytes.
    pub size: u64,
    /// Devices in the set.
    pub ways: u64,
    /// Bytes on one device before the next's turn.
    pub granularity: u64,
    /// This device's place in the set.
    pub position: u64,
    /// Its first device-physical address in the set.
    pub dpa: u64,
    /// Its bytes in the set.
    pub dpa_size: u64,
    /// Bytes of its address space between the decoder before and `dpa` (DPA Skip).
    pub dpa_skip: u64,
}

/// Indices of the regions by ascending address: windows in the order of the file, and regions in that order within each.
pub(super) fn decode_order(config: &Config) -> Vec<usize> {
    let mut order: Vec<usize> = (0..config.regions.len()).collect();
    order.sort_by_key(|&i| (config.regions[i].window, i));
    order
}

/// What one device has handed out.
#[derive(Clone, Debug)]
struct DeviceCursor {
    place: Place,
    decoders: usize,
    volatile: u64,
    persistent: u64,
    /// End of the decoder before, in DPA.
    end: u64,
}

impl Config {
    /// Decoder settings for every region, by ascending address. `window_bases` are the windows' first host-physical
    /// addresses in the order of [`Config::windows`]; they ascend.
    ///
    /// Regions lie one after the other from the beginning of their window; on a device they take the volatile and the
    /// persistent part each from its beginning.
    #[must_use]
    pub fn plan_regions(&self, window_bases: &[u64]) -> Vec<RegionPlan> {
        let mut next_hpa = window_bases.to_vec();
        let mut components = BTreeMap::new();
        let mut devices: Vec<DeviceCursor> = self
            .members()
            .into_iter()
            .map(|member| DeviceCursor {
                place: member.place,
                decoders: 0,
                volatile: 0,
                persistent: member.volatile,
                end: 0,
            })
            .collect();
        decode_order(self)
            .into_iter()
            .filter_map(|region| {
                let hpa = next_hpa.get_mut(self.regions[region].window)?;
                let plan = RegionPlan {
                    region,
                    hpa: *hpa,
                    size: self.regions[region].size,
                    is_accelerators: self.is_accelerators(&self.regions[region]),
                    lock: self.regions[region].lock,
                    ports: self.plan_ports(region, *hpa, &mut components),
                    endpoints: self.plan_endpoints(region, *hpa, &mut devices),
                };
                *hpa += plan.size;
                Some(plan)
            })
            .collect()
    }

    fn plan_ports(
        &self,
        region: usize,
        hpa: u64,
        decoders: &mut BTreeMap<Place, usize>,
    ) -> Vec<PortDecoder> {
        let region = &self.regions[region];
        let window = &self.windows[region.window];
        // A region that cannot be reached was reported when the file was checked.
        let levels = routes::levels(region, window).unwrap_or_default();
        let decoder = |(component, level): (Place, routes::Level)| {
            let next = decoders.entry(component.clone()).or_default();
            let decoder = *next;
            *next += 1;
            PortDecoder {
                component,
                decoder,
                hpa,
                size: region.size,
                granularity: level.granularity,
                targets: level
                    .targets
                    .into_iter()
                    .map(|port| u8::try_from(port).unwrap_or(u8::MAX))
                    .collect(),
            }
        };
        levels.into_iter().map(decoder).collect()
    }

    fn plan_endpoints(
        &self,
        region: usize,
        hpa: u64,
        devices: &mut [DeviceCursor],
    ) -> Vec<EndpointDecoder> {
        let region = &self.regions[region];
        let dpa_size = region.size_per_device();
        let positions = (0..).zip(&region.devices);
        positions
            .filter_map(|(position, place)| {
                let device = devices.iter_mut().find(|device| device.place == *place)?;
                let free = match region.kind {
                    MemoryKind::Volatile => &mut device.volatile,
                    MemoryKind::Persistent => &mut device.persistent,
                };
                let dpa = *free;
                *free += dpa_size;
                let decoder = EndpointDecoder {
                    device: place.clone(),
                    decoder: device.decoders,
                    hpa,
                    size: region.size,
                    ways: region.ways() as u64,
                    granularity: region.granularity,
                    position,
                    dpa,
                    dpa_size,
                    dpa_skip: dpa - device.end,
                };
                device.decoders += 1;
                device.end = dpa + dpa_size;
                Some(decoder)
            })
            .collect()
    }
}
