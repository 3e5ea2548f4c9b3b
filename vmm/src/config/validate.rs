//! What must hold between the values of a file, and between them and the host's files.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;

use cxl::CAPACITY_UNIT;
use cxl::memdev::dynamic::MOST_REGIONS;

use super::files;
use super::model::{Config, Device, DynamicCapacity, Place, Type2, Type3, Window};
use super::region_rules;
use super::report::Report;
use super::routes::{MOST_GRANULARITY, port_multiplier};
use super::timing::Timing;
use super::units::show_size;
use crate::layout::CXL_BUSES;
use crate::terminal::Target;

/// RAM comes in units of 2 MiB, so that huge pages can back all of it.
const RAM_UNIT: u64 = 2 << 20;
/// Least RAM in bytes: a Debian kernel and its initramfs unpack themselves into this much.
const LEAST_RAM: u64 = 64 << 20;
/// Most RAM or media in one piece, in bytes; more than any host has, and sums of them stay in 64 bits.
const MOST_BYTES: u64 = 1 << 46;
/// Blocks of dynamic capacity, in bytes: a page at least, so that they can be mapped; the regions are multiples of the largest.
const BLOCK_SIZES: RangeInclusive<u64> = 4096..=CAPACITY_UNIT;
/// What a register says of a cache, in bytes (CXL 3.1, 8.1.3.7).
const CACHE_UNIT: u64 = 1 << 20;
const MOST_CACHE: u64 = 255 << 20;
/// Lines of a set of a snoop filter.
const FILTER_UNIT: u64 = 16;
/// Most host bridges.
const HOST_BRIDGES: usize = 4;
/// Most root ports of a host bridge.
const ROOT_PORTS: usize = 16;
/// Most downstream ports of a switch: device numbers of its internal bus.
const SWITCH_PORTS: usize = 32;
/// Interleave granularities that CXL knows, in bytes (CXL 3.1, 9.13.1).
pub(super) const GRANULARITIES: [u64; 7] = [256, 512, 1024, 2048, 4096, 8192, 16384];

/// Path of a port, or of a host bridge.
fn port_key(place: &Place) -> String {
    let mut key = format!("host_bridge[{}]", place.host_bridge);
    for (depth, port) in place.ports.iter().enumerate() {
        key += &match depth {
            0 => format!(".root_port[{port}]"),
            _ => format!(".device.port[{port}]"),
        };
    }
    key
}

/// Path of the device at a port.
pub(super) fn device_key(place: &Place) -> String {
    port_key(place) + ".device"
}

/// Path of a host bridge, or of the device at a port.
pub(super) fn place_key(place: &Place) -> String {
    if place.ports.is_empty() {
        port_key(place)
    } else {
        device_key(place)
    }
}

/// Reports everything that does not fit together.
pub(super) fn validate(config: &Config, report: &mut Report) {
    machine(config, report);
    consoles(config, report);
    nets(config, report);
    host_bridges(config, report);
    names(config, report);
    switches(config, report);
    for (place, accelerator) in config.accelerators() {
        self::accelerator(&device_key(&place), accelerator, report);
    }
    for (place, device) in config.devices() {
        self::device(&device_key(&place), device, report);
    }
    backings(config, report);
    for (i, window) in config.windows.iter().enumerate() {
        self::window(&format!("window[{i}]"), window, config, report);
    }
    region_rules::regions(config, report);
    Timing::validate(config, report);
    files::check(config, report);
}

fn machine(config: &Config, report: &mut Report) {
    let memory = config.machine.memory;
    if !(LEAST_RAM..=MOST_BYTES).contains(&memory) || !memory.is_multiple_of(RAM_UNIT) {
        report.error(
            "machine.memory",
            format!("{} of RAM is not possible", show_size(memory)),
            format!(
                "write a multiple of {} from {} to {}",
                show_size(RAM_UNIT),
                show_size(LEAST_RAM),
                show_size(MOST_BYTES)
            ),
        );
    }
}

fn consoles(config: &Config, report: &mut Report) {
    let virtio = config.virtio_consoles.iter().enumerate();
    let all = std::iter::once(("console.serial".to_string(), &config.serial))
        .chain(virtio.map(|(i, target)| (format!("virtio_console[{i}].target"), target)));
    let exclusive = all.filter(|(_, target)| !matches!(target, Target::Pty | Target::Null));
    let mut seen: Vec<(String, &Target)> = Vec::new();
    for (key, target) in exclusive {
        match seen.iter().find(|(_, other)| *other == target) {
            Some((other, _)) => report.error(
                key,
                format!("{target} is taken by {other}"),
                "choose another place, or null",
            ),
            None => seen.push((key, target)),
        }
    }
}

fn nets(config: &Config, report: &mut Report) {
    let taps = config.nets.iter().map(|net| net.tap.as_str());
    unique(report, "interface", keys("net", "tap").zip(taps));
    let macs = config.nets.iter().map(|net| net.mac.to_string());
    unique(report, "address", keys("net", "mac").zip(macs));
}

fn host_bridges(config: &Config, report: &mut Report) {
    if config.host_bridges.len() > HOST_BRIDGES {
        report.error(
            format!("host_bridge[{HOST_BRIDGES}]"),
            format!("{} host bridges are too many", config.host_bridges.len()),
            format!("have at most {HOST_BRIDGES}"),
        );
    }
    for (i, bridge) in config.host_bridges.iter().enumerate() {
        match bridge.root_ports.len() {
            0 => report.error(
                format!("host_bridge[{i}]"),
                format!("{} has no root port", bridge.name),
                "add a [[host_bridge.root_port]] below it",
            ),
            1..=ROOT_PORTS => {}
            many => report.error(
                format!("host_bridge[{i}].root_port[{ROOT_PORTS}]"),
                format!("{many} root ports are too many"),
                format!("have at most {ROOT_PORTS} below a host bridge"),
            ),
        }
    }
}

/// Every switch has ports, and every bus below a host bridge a number: the root bus, the bus inside each switch, and the
/// link below each port.
fn switches(config: &Config, report: &mut Report) {
    for (place, switch) in config.switches() {
        let key = device_key(&place);
        match switch.ports.len() {
            0 => report.error(
                key,
                format!("{} has no downstream port", switch.name),
                "add a port below it, such as [[host_bridge.root_port.device.port]]",
            ),
            1..=SWITCH_PORTS => {}
            many => report.error(
                format!("{key}.port[{SWITCH_PORTS}]"),
                format!("{many} downstream ports are too many"),
                format!("have at most {SWITCH_PORTS} in a switch"),
            ),
        }
    }
    let (ports, switches): (Vec<_>, Vec<_>) = (config.ports(), config.switches().collect());
    for (i, bridge) in config.host_bridges.iter().enumerate() {
        let ports = ports.iter().filter(|(place, _)| place.host_bridge == i);
        let switches = switches.iter().filter(|(place, _)| place.host_bridge == i);
        let buses = 1 + ports.count() + switches.count();
        if buses > usize::from(CXL_BUSES) {
            report.error(
                format!("host_bridge[{i}]"),
                format!("{} needs {buses} buses, and has {CXL_BUSES}", bridge.name),
                "move ports or switches to another host bridge",
            );
        }
    }
}

/// Names are unique among the things of one kind, and serial numbers among devices.
fn names(config: &Config, report: &mut Report) {
    let bridges = config
        .host_bridges
        .iter()
        .map(|bridge| bridge.name.as_str());
    unique(report, "name", keys("host_bridge", "name").zip(bridges));
    let ports = config.ports();
    let names = ports
        .iter()
        .map(|(place, port)| (port_key(place) + ".name", port.name.as_str()));
    unique(report, "name", names);
    // In the order of the file, so that the later one is the mistake.
    let devices = ports.iter().filter_map(|(place, port)| {
        let (name, serial) = match port.device.as_ref()? {
            Device::Type2(device) => (&device.name, Some(device.serial)),
            Device::Type3(device) => (&device.name, Some(device.serial)),
            Device::Switch(switch) => (&switch.name, switch.serial),
        };
        Some((device_key(place), name.as_str(), serial))
    });
    let names = devices.clone().map(|(key, name, _)| (key + ".name", name));
    unique(report, "name", names);
    let serials =
        devices.filter_map(|(key, _, serial)| Some((key + ".serial", format!("{:#x}", serial?))));
    unique(report, "serial number", serials);
    let windows = config.windows.iter().map(|window| window.name.as_str());
    unique(report, "name", keys("window", "name").zip(windows));
    let regions = config.regions.iter().map(|region| region.name.as_str());
    unique(report, "name", keys("region", "name").zip(regions));
}

/// `array[0].key`, `array[1].key`, ...
fn keys(array: &'static str, key: &'static str) -> impl Iterator<Item = String> {
    (0..).map(move |i| format!("{array}[{i}].{key}"))
}

/// Reports every value that an earlier key has already.
fn unique<T: Hash + Eq + AsRef<str>>(
    report: &mut Report,
    what: &str,
    values: impl Iterator<Item = (String, T)>,
) {
    let mut owners: HashMap<T, String> = HashMap::new();
    for (key, value) in values {
        if let Some(owner) = owners.get(&value) {
            let problem = format!("{} is the {what} of {owner} too", value.as_ref());
            report.error(key, problem, "choose another");
        } else {
            owners.insert(value, key);
        }
    }
}

fn accelerator(key: &str, device: &Type2, report: &mut Report) {
    if !device.snoop_filter.is_multiple_of(FILTER_UNIT) {
        report.error(
            format!("{key}.snoop_filter"),
            format!("a filter of {} lines is not possible", device.snoop_filter),
            format!("write a multiple of {FILTER_UNIT}"),
        );
    }
    let limits = [
        ("memory", device.memory, CAPACITY_UNIT, MOST_BYTES),
        ("cache", device.cache, CACHE_UNIT, MOST_CACHE),
    ];
    for (name, size, unit, most) in limits {
        if size == 0 || !size.is_multiple_of(unit) || size > most {
            report.error(
                format!("{key}.{name}"),
                format!("a {name} of {} is not possible", show_size(size)),
                format!(
                    "write a multiple of {}, at most {}",
                    show_size(unit),
                    show_size(most)
                ),
            );
        }
    }
}

fn device(key: &str, device: &Type3, report: &mut Report) {
    for (name, size) in [
        ("volatile", device.volatile),
        ("persistent", device.persistent),
        ("partitionable", device.partitionable),
    ] {
        if !size.is_multiple_of(CAPACITY_UNIT) || size > MOST_BYTES {
            report.error(
                format!("{key}.{name}"),
                format!("a capacity of {} is not possible", show_size(size)),
                format!(
                    "write a multiple of {}, at most {}",
                    show_size(CAPACITY_UNIT),
                    show_size(MOST_BYTES)
                ),
            );
        }
    }
    if device.capacity() == 0 {
        report.error(
            key,
            format!("{} has no capacity", device.name),
            "give it volatile or persistent capacity, such as volatile = \"1GiB\"",
        );
    }
    dynamic_capacity(key, device, report);
    let persistent = [
        ("persistent", device.persistent),
        ("partitionable", device.partitionable),
    ];
    let persistent = persistent.iter().find(|(_, size)| *size != 0);
    if let Some((name, _)) = persistent
        && device.backing.is_none()
    {
        report.error(
            format!("{key}.{name}"),
            "persistent memory needs a file to persist in",
            "name one: backing = \"PATH\"",
        );
    }
    if device.shared && device.backing.is_none() {
        report.error(
            format!("{key}.shared"),
            "there is nothing to share",
            "name the file that the devices share: backing = \"PATH\"",
        );
    }
    if let Some(labels) = &device.labels
        && !(files::LEAST_LABELS..=files::MOST_LABELS).contains(&labels.size)
    {
        report.error(
            format!("{key}.lsa_size"),
            format!("{} is out of range", show_size(labels.size)),
            format!(
                "write a size from {} to {}",
                show_size(files::LEAST_LABELS),
                show_size(files::MOST_LABELS)
            ),
        );
    }
}

fn dynamic_capacity(key: &str, device: &Type3, report: &mut Report) {
    for (i, region) in device.dynamic.iter().enumerate() {
        let key = format!("{key}.dynamic_capacity[{i}]");
        let DynamicCapacity { size, block_size } = *region;
        if i == MOST_REGIONS {
            report.error(
                &key,
                format!("{} regions are too many", device.dynamic.len()),
                format!("have at most {MOST_REGIONS} in a device"),
            );
        }
        if size == 0 || !size.is_multiple_of(CAPACITY_UNIT) || size > MOST_BYTES {
            report.error(
                format!("{key}.size"),
                format!("a region of {} is not possible", show_size(size)),
                format!(
                    "write a multiple of {}, at most {}",
                    show_size(CAPACITY_UNIT),
                    show_size(MOST_BYTES)
                ),
            );
        }
        if !BLOCK_SIZES.contains(&block_size) || !block_size.is_power_of_two() {
            report.error(
                format!("{key}.block_size"),
                format!("blocks of {} are not possible", show_size(block_size)),
                format!(
                    "write a power of two from {} to {}",
                    show_size(*BLOCK_SIZES.start()),
                    show_size(*BLOCK_SIZES.end())
                ),
            );
        }
    }
    if device.shared && !device.dynamic.is_empty() {
        report.error(
            format!("{key}.shared"),
            "memory that one host releases is emptied, whoever else has it",
            "remove it, or the dynamic_capacity",
        );
    }
}

fn capacities(device: &Type3) -> [u64; 3] {
    [device.volatile, device.persistent, device.partitionable]
}

/// No two devices write one file, except where all of them say so.
fn backings(config: &Config, report: &mut Report) {
    let mut seen: Vec<(Place, &Type3)> = Vec::new();
    for (port, device) in config.devices() {
        let Some(backing) = &device.backing else {
            continue;
        };
        let key = device_key(&port);
        let other = seen
            .iter()
            .find(|(_, other)| other.backing.as_ref() == Some(backing));
        if let Some((_, other)) = other {
            if !(device.shared && other.shared) {
                report.error(
                    format!("{key}.backing"),
                    format!("{} is the backing of {} too", backing.display(), other.name),
                    "choose another file, or set shared = true in both",
                );
            } else if capacities(device) != capacities(other) {
                report.error(
                    format!("{key}.backing"),
                    format!("{} shares it and has other capacities", other.name),
                    "give devices that share a file the same volatile and persistent capacity",
                );
            }
        } else {
            seen.push((port, device));
        }
    }
    let mut files: Vec<_> = seen
        .iter()
        .filter_map(|(_, device)| Some((device.name.as_str(), device.backing.as_ref()?)))
        .collect();
    for (port, device) in config.devices() {
        let Some(labels) = &device.labels else {
            continue;
        };
        match files.iter().find(|(_, file)| **file == labels.path) {
            Some((owner, file)) => report.error(
                format!("{}.lsa", device_key(&port)),
                format!("{} is a file of {owner} already", file.display()),
                "choose another file: each device has labels of its own",
            ),
            None => files.push((&device.name, &labels.path)),
        }
    }
}

fn window(key: &str, window: &Window, config: &Config, report: &mut Report) {
    let ways = window.ways() as u64;
    if ways == 0 {
        report.error(
            format!("{key}.targets"),
            "a window without host bridges leads nowhere",
            "name one to four host bridges",
        );
        return;
    }
    for (position, target) in window.targets.iter().enumerate() {
        if window.targets[..position].contains(target) {
            let name = config
                .host_bridges
                .get(*target)
                .map_or("", |bridge| &bridge.name);
            report.error(
                format!("{key}.targets"),
                format!("{name} is there twice"),
                "name each host bridge once",
            );
        }
    }
    let unit = CAPACITY_UNIT * ways;
    if window.size == 0 || window.size > MOST_BYTES || !window.size.is_multiple_of(unit) {
        report.error(
            format!("{key}.size"),
            format!(
                "a window of {} over {} is not possible",
                show_size(window.size),
                bridges(ways)
            ),
            format!(
                "write a multiple of {}, at most {}",
                show_size(unit),
                show_size(MOST_BYTES)
            ),
        );
    }
    let granularity = window.granularity;
    if !GRANULARITIES.contains(&granularity) {
        report.error(
            format!("{key}.granularity"),
            format!(
                "{} is not an interleave granularity",
                show_size(granularity)
            ),
            "write 256B, 512B, 1KiB, 2KiB, 4KiB, 8KiB or 16KiB",
        );
    } else if ways > 1 && granularity * port_multiplier(ways) > MOST_GRANULARITY {
        // The host bridges' decoders work at this product, and their field ends at 16 KiB.
        report.error(
            format!("{key}.granularity"),
            format!(
                "{} over {} is too much",
                show_size(granularity),
                bridges(ways)
            ),
            format!(
                "write at most {}: times the ways it may not exceed {}",
                show_size(MOST_GRANULARITY / port_multiplier(ways)),
                show_size(MOST_GRANULARITY)
            ),
        );
    }
    if !(window.volatile || window.persistent) {
        report.error(
            format!("{key}.restrictions"),
            "nothing may lie in the window",
            "write volatile, persistent or both",
        );
    }
}

pub(super) fn bridges(count: u64) -> String {
    if count == 1 {
        "1 host bridge".to_string()
    } else {
        format!("{count} host bridges")
    }
}
