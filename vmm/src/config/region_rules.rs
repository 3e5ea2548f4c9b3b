//! Which regions the hardware can decode and Linux can assemble.

use cxl::CAPACITY_UNIT;

use super::model::{Coherence, Config, MemoryKind, Place, Region, Window};
use super::reader::alternatives;
use super::regions::decode_order;
use super::report::Report;
use super::routes::{self, MOST_GRANULARITY, Misfit};
use super::units::show_size;
use super::validate::{GRANULARITIES, device_key, place_key};

/// Sizes of interleave sets (CXL 3.1, 9.13.1).
const REGION_WAYS: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Reports every region that cannot be committed.
pub(super) fn regions(config: &Config, report: &mut Report) {
    let mut in_place = true;
    for (i, region) in config.regions.iter().enumerate() {
        let Some(window) = config.windows.get(region.window) else {
            continue;
        };
        let key = format!("region[{i}]");
        sizes(&key, region, report);
        granularity(&key, region, window, report);
        if !window.allows(region.kind) {
            report.error(
                format!("{key}.type"),
                format!(
                    "window {} does not take {} memory",
                    window.name, region.kind
                ),
                format!(
                    "add \"{}\" to its restrictions, or choose another window",
                    region.kind
                ),
            );
        }
        in_place &= positions(&key, region, window, config, report);
    }
    space_in_windows(config, report);
    if in_place {
        decoders(config, report);
        capacities(config, report);
    }
}

fn sizes(key: &str, region: &Region, report: &mut Report) {
    let unit = CAPACITY_UNIT * (region.ways() as u64).max(1);
    if region.size == 0 || !region.size.is_multiple_of(unit) {
        report.error(
            format!("{key}.size"),
            format!(
                "{} over {} is not possible",
                show_size(region.size),
                devices(region.ways())
            ),
            format!("write a multiple of {}", show_size(unit)),
        );
    }
}

fn granularity(key: &str, region: &Region, window: &Window, report: &mut Report) {
    let granularity = region.granularity;
    if !GRANULARITIES.contains(&granularity) {
        report.error(
            format!("{key}.granularity"),
            format!(
                "{} is not an interleave granularity",
                show_size(granularity)
            ),
            "write 256B, 512B, 1KiB, 2KiB, 4KiB, 8KiB or 16KiB",
        );
    } else if window.ways() > 1 && granularity != window.granularity {
        report.error(
            format!("{key}.granularity"),
            format!(
                "{} is not that of window {}",
                show_size(granularity),
                window.name
            ),
            format!(
                "write {}: a window over several host bridges sets the granularity of its regions",
                show_size(window.granularity)
            ),
        );
    }
}

/// Whether the devices stand where the window and the decoders below it lead.
fn positions(
    key: &str,
    region: &Region,
    window: &Window,
    config: &Config,
    report: &mut Report,
) -> bool {
    let key = format!("{key}.devices");
    let name = |place: &Place| config.member_name(place);
    for (position, place) in region.devices.iter().enumerate() {
        if region.devices[..position].contains(place) {
            let problem = format!("{} is there twice", name(place));
            report.error(key, problem, "name each device once");
            return false;
        }
    }
    let mut expanders = region
        .devices
        .iter()
        .filter_map(|place| config.device(place));
    if let Some(device) = expanders.find(|device| device.partitionable != 0) {
        report.error(
            key,
            format!("what of {} is volatile is up to the guest", device.name),
            "let the guest make the region, or give the device no partitionable capacity",
        );
        return false;
    }
    if !accelerators(&key, region, config, report) {
        return false;
    }
    let (ways, bridges) = (region.ways(), window.ways());
    let name_one_of = |counts: &mut dyn Iterator<Item = &usize>| {
        let counts: Vec<String> = counts.map(ToString::to_string).collect();
        format!("name {}", alternatives(counts.iter().map(String::as_str)))
    };
    if !REGION_WAYS.contains(&ways) {
        report.error(
            key,
            format!("{} cannot be interleaved", devices(ways)),
            name_one_of(&mut REGION_WAYS.iter()),
        );
        return false;
    }
    let divides = |ways: usize| {
        bridges != 0 && ways.is_multiple_of(bridges) && (ways / bridges).is_power_of_two()
    };
    if !divides(ways) {
        report.error(
            key,
            format!(
                "{} cannot be interleaved over the {} of window {}",
                devices(ways),
                super::validate::bridges(bridges as u64),
                window.name
            ),
            name_one_of(&mut REGION_WAYS.iter().filter(|ways| divides(**ways))),
        );
        return false;
    }
    let below = |bridge: &usize| {
        let devices = region.devices.iter();
        devices.filter(|place| place.host_bridge == *bridge).count()
    };
    if window
        .targets
        .iter()
        .any(|target| below(target) != ways / bridges)
    {
        let bridge = |i: &usize| config.host_bridges[*i].name.as_str();
        let targets: Vec<&str> = window.targets.iter().map(bridge).collect();
        let below: Vec<String> = region
            .devices
            .iter()
            .map(|place| format!("{} is below {}", name(place), bridge(&place.host_bridge)))
            .collect();
        report.error(
            key,
            format!(
                "window {} leads to {} below each of {}, and {}",
                window.name,
                devices(ways / bridges),
                targets.join(", "),
                below.join(", ")
            ),
            "name other devices, or another window",
        );
        return false;
    }
    let Err(misfit) = routes::levels(region, window) else {
        return true;
    };
    let (problem, mend) = explain(&misfit, region, window, config);
    report.error(key, problem, mend);
    false
}

/// An accelerator's memory is its driver's, at one stretch of addresses.
fn accelerators(key: &str, region: &Region, config: &Config, report: &mut Report) -> bool {
    let mut found = config.accelerators();
    let Some((_, device)) = found.find(|(place, _)| region.devices.contains(place)) else {
        return true;
    };
    let name = &device.name;
    let (problem, mend) = if region.ways() > 1 {
        (
            format!("{name} is an accelerator, and its memory is not interleaved"),
            format!("name {name} alone"),
        )
    } else if device.coherence != Coherence::Mapped {
        (
            format!("accesses to the memory of {name} are seen through its BAR alone"),
            format!("remove the region, or the coherence of {name}"),
        )
    } else if region.soft_reserved {
        (
            format!("{name} is an accelerator, whose driver gives its memory to programs"),
            "remove soft_reserved".into(),
        )
    } else {
        return true;
    };
    report.error(key, problem, mend);
    false
}

/// What is wrong with the places of a region's devices, and what to do about it.
fn explain(misfit: &Misfit, region: &Region, window: &Window, config: &Config) -> (String, String) {
    match misfit {
        Misfit::Ways(component, ports) => (
            format!(
                "{ports} ports of {} lead to them",
                component_name(config, component)
            ),
            "choose devices behind 1, 2, 4 or 8 ports of each host bridge and switch".into(),
        ),
        Misfit::Granularity(component, granularity) => (
            format!(
                "{} would interleave at {}, and {} is the most",
                component_name(config, component),
                show_size(*granularity),
                show_size(MOST_GRANULARITY)
            ),
            format!(
                "give the region a granularity of at most {}",
                show_size(region.granularity * MOST_GRANULARITY / granularity)
            ),
        ),
        Misfit::Order => match routes::working_order(region, window) {
            Some(order) => {
                let order: Vec<String> = order
                    .iter()
                    .map(|place| format!("{:?}", config.member_name(place)))
                    .collect();
                (
                    format!(
                        "positions do not follow the targets of window {} and of the ports below it, which take turns",
                        window.name
                    ),
                    format!("write [{}]", order.join(", ")),
                )
            }
            None => (
                "no order of them can be reached: the ports of a host bridge or switch take turns".into(),
                "choose as many devices behind each port as behind the others of its host bridge or switch"
                    .into(),
            ),
        },
    }
}

/// What people call a host bridge or a switch.
fn component_name<'c>(config: &'c Config, component: &Place) -> &'c str {
    match config.switch(component) {
        Some(switch) => &switch.name,
        None => &config.host_bridges[component.host_bridge].name,
    }
}

fn space_in_windows(config: &Config, report: &mut Report) {
    for (i, window) in config.windows.iter().enumerate() {
        let inside = || config.regions.iter().filter(|region| region.window == i);
        let Some(needed) = inside().try_fold(0_u64, |sum, region| sum.checked_add(region.size))
        else {
            report.error(
                format!("window[{i}].size"),
                "its regions exceed a 64-bit size",
                "make them smaller",
            );
            continue;
        };
        if needed > window.size {
            let names: Vec<&str> = inside().map(|region| region.name.as_str()).collect();
            report.error(
                format!("window[{i}].size"),
                format!(
                    "{} is too small for {}, which need {}",
                    show_size(window.size),
                    names.join(", "),
                    show_size(needed)
                ),
                format!(
                    "write at least {}",
                    show_size(
                        needed.next_multiple_of(CAPACITY_UNIT * (window.ways() as u64).max(1))
                    )
                ),
            );
        }
    }
}

/// No component takes part in more regions than it has decoders for.
fn decoders(config: &Config, report: &mut Report) {
    let bridges = config.host_bridges.iter().enumerate();
    let bridges =
        bridges.map(|(i, bridge)| (Place::host_bridge(i), bridge.name.as_str(), bridge.decoders));
    let switches = config.switches();
    let switches = switches.map(|(place, switch)| (place, switch.name.as_str(), switch.decoders));
    let devices = config.members().into_iter();
    let devices = devices.map(|member| (member.place, member.name, member.decoders));
    for (place, name, decoders) in bridges.chain(switches).chain(devices) {
        let leads_through = |device: &Place| {
            *device == place || device.way().any(|(component, _)| component == place)
        };
        let through = |region: &&Region| region.devices.iter().any(leads_through);
        let count = config.regions.iter().filter(through).count();
        if count > decoders {
            report.error(
                place_key(&place),
                format!("{name} takes part in {count} regions"),
                format!("have at most {decoders}: one for each of its decoders"),
            );
        }
    }
}

/// Every device has room for its regions; and in the order of addresses, in which its decoders must stand, volatile
/// regions come before persistent ones, since their DPAs do (CXL 3.1, 8.2.4.20.12).
fn capacities(config: &Config, report: &mut Report) {
    for device in config.members() {
        let port = &device.place;
        let mut left = [MemoryKind::Volatile, MemoryKind::Persistent]
            .map(|kind| (kind, device.capacity_of(kind)));
        let mut persistent_before: Option<&str> = None;
        for index in decode_order(config) {
            let region = &config.regions[index];
            if !region.devices.contains(port) {
                continue;
            }
            let size = region.size_per_device();
            for (_, left) in left.iter_mut().filter(|(kind, _)| *kind == region.kind) {
                if size > *left {
                    report.error(
                        format!("region[{index}].size"),
                        format!(
                            "it takes {} of each device, and {} has {} of {} memory left",
                            show_size(size),
                            device.name,
                            show_size(*left),
                            region.kind
                        ),
                        format!("make the region smaller, or {} larger", {
                            let key = device_key(port);
                            match config.is_accelerators(region) {
                                true => format!("{key}.memory"),
                                false => format!("{key}.{}", region.kind),
                            }
                        }),
                    );
                }
                *left = left.saturating_sub(size);
            }
            match (region.kind, persistent_before) {
                (MemoryKind::Persistent, _) => persistent_before = Some(&region.name),
                (MemoryKind::Volatile, Some(before)) => report.error(
                    format!("region[{index}]"),
                    format!(
                        "on {} it lies at a higher address than the persistent region {before}",
                        device.name
                    ),
                    "put volatile regions, and the windows with them, before persistent ones",
                ),
                (MemoryKind::Volatile, None) => {}
            }
        }
    }
}

fn devices(count: usize) -> String {
    if count == 1 {
        "1 device".to_string()
    } else {
        format!("{count} devices")
    }
}
