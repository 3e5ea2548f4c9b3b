//! The accelerators of a configuration: their memory, and what is behind their registers.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use cxl::cdat::Performance;
use cxl::decode::EndpointId;
use devices::Device;
use pci::Link;

use super::build::{port_at, wiring};
use crate::accelerator::{self, BackendOptions, Options};
use crate::board::{Expander, State};
use crate::config::{AcceleratorBackend, Config, Port, Type2};
use crate::error::{Error, Result};
use crate::media::{Media, MediaSpec};
use crate::virtio::Host;

/// The media of the accelerators, which come after those of the expanders.
pub(super) fn media(config: &Config) -> impl Iterator<Item = MediaSpec> {
    config.accelerators().map(|(_, device)| MediaSpec {
        name: device.name.clone(),
        capacity: device.memory,
        backing: None,
        shared: false,
    })
}

/// The numbers of the accelerators among the media.
fn numbers(config: &Config) -> impl Iterator<Item = usize> {
    let first = config.devices().count();
    first..first + config.accelerators().count()
}

/// The memory of each accelerator.
pub(super) fn memory(config: &Config, media: &Media) -> Result<Vec<Arc<File>>> {
    numbers(config)
        .map(|number| Ok(Arc::clone(media.own(number)?.file())))
        .collect()
}

/// Plugs the accelerators in. Theirs is the memory in `files`.
pub(super) fn add(
    state: &mut State,
    config: &Config,
    host: &Host,
    files: &[Arc<File>],
) -> Result<()> {
    let ports = config.ports();
    let accelerators = ports.iter().filter_map(|(place, port)| match &port.device {
        Some(crate::config::Device::Type2(device)) => Some((place, port, device)),
        _ => None,
    });
    for (((place, port, device), number), file) in accelerators.zip(numbers(config)).zip(files) {
        let options = options(port, device);
        let (function, handle) = accelerator::attach(host, &options, file, device.memory)?;
        let above = port_at(state, place)
            .ok_or_else(|| Error::Layout(format!("{} has no port", device.name)))?;
        let node = state
            .hierarchy
            .add(above, 0, 0, Device::Type2(Box::new(function)))
            .map_err(wiring)?;
        let endpoint = EndpointId(u32::try_from(number).unwrap_or(u32::MAX));
        let labels = None;
        state.expanders.insert(node, Expander { endpoint, labels });
        state.accelerators.insert(node, handle);
    }
    Ok(())
}

fn options(port: &Port, device: &Type2) -> Options {
    let performance = &device.performance;
    Options {
        name: device.name.clone(),
        serial: device.serial,
        cache: device.cache,
        link: Link {
            speed: port.speed,
            width: port.width,
        },
        performance: Performance {
            read_latency: performance.read_latency.into(),
            write_latency: performance.write_latency.into(),
            read_bandwidth: performance.read_bandwidth,
            write_bandwidth: performance.write_bandwidth,
        },
        backend: match &device.backend {
            AcceleratorBackend::Ptx {
                compute_capability,
                driver_version,
            } => BackendOptions::Ptx {
                compute_capability: *compute_capability,
                driver_version: *driver_version,
            },
            AcceleratorBackend::Cuda { library, device } => BackendOptions::Cuda {
                library: library.clone(),
                device: *device,
            },
        },
        snoop_filter: device.snoop_filter,
        coherence: device.coherence,
        watchdog: device.watchdog.map(Duration::from_secs),
    }
}
