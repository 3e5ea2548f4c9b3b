//! The `[[host_bridge]]` tables: host bridges, and the ports, switches and expanders below them.

use cxl::CAPACITY_UNIT;
use cxl::device::Fault;
use cxl::memdev::fabric::Sharing;
use devices::Part;
use pci::{LinkSpeed, LinkWidth};
use toml::de::DeTable;

use super::each;
use crate::config::model::{
    AcceleratorBackend, Coherence, Device, DynamicCapacity, HostBridge, LabelStorage, Performance,
    Port, Switch, Type2, Type3,
};
use crate::config::reader::Section;
use crate::config::report::Report;

/// Label storage of a persistent device that does not say, in bytes: the least that UEFI 2.10, 13.19.2 allows.
const DEFAULT_LABEL_SIZE: u64 = 128 << 10;
/// What a device's CDAT tells if the file does not say: a DDR5 expander of today without its link.
pub(super) const DEFAULT_PERFORMANCE: Performance = Performance {
    read_latency: 150,
    write_latency: 150,
    read_bandwidth: 32.0,
    write_bandwidth: 32.0,
};
/// What a switch's CDAT tells if the file does not say: measured switches add 25 to 250 ns to a round trip.
pub(super) const DEFAULT_SWITCH_PERFORMANCE: Performance = Performance {
    read_latency: 70,
    write_latency: 70,
    read_bandwidth: 64.0,
    write_bandwidth: 64.0,
};
/// Memory and cache of an accelerator that does not say, in bytes.
const DEFAULT_DEVICE_MEMORY: u64 = 4 << 30;
const DEFAULT_CACHE: u64 = 128 << 20;
/// Blocks of dynamic capacity that does not say, in bytes: a large page of the host.
const DEFAULT_BLOCK_SIZE: u64 = 2 << 20;
/// Lines in the snoop filter of an accelerator: by default those of 4 MiB, at most those of 4 GiB.
const DEFAULT_FILTER: u64 = 1 << 16;
const MOST_FILTER: u64 = 1 << 26;
/// Seconds that a kernel may run.
const DEFAULT_WATCHDOG: u64 = 10;
/// What an accelerator without a GPU claims to be: the oldest that CUDA 13 supports, and CUDA 12.9.
const DEFAULT_COMPUTE_CAPABILITY: (u32, u32) = (7, 5);
const DEFAULT_DRIVER_VERSION: u32 = 12090;
/// HDM decoders of a component that does not say: as many as its registers have room for.
pub(super) const DEFAULT_DECODERS: usize = 10;

pub(super) fn host_bridge(section: &Section, report: &mut Report) -> HostBridge {
    HostBridge {
        name: section.name(report),
        decoders: decoders(section, report),
        root_ports: each(section, "root_port", report, port),
    }
}

fn decoders(section: &Section, report: &mut Report) -> usize {
    let count = section.integer(report, "decoders", (1, 10));
    let count = count.and_then(|count| usize::try_from(count).ok());
    let count = count.unwrap_or(DEFAULT_DECODERS);
    if count != 1 && !count.is_multiple_of(2) {
        report.error(
            section.key("decoders"),
            format!("no register says {count} decoders"),
            "write 1, 2, 4, 6, 8 or 10",
        );
    }
    count
}

/// A root port, or a downstream port of a switch.
fn port(section: &Section, report: &mut Report) -> Port {
    let speed = section.parsed::<LinkSpeed>(
        report,
        "speed",
        (
            "a link speed",
            "write 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s or 64GT/s",
        ),
    );
    let lanes = section
        .integer(report, "width", (1, 16))
        .and_then(|lanes| u8::try_from(lanes).ok());
    let width = lanes.map(|lanes| {
        LinkWidth::new(lanes).unwrap_or_else(|| {
            report.error(
                section.key("width"),
                format!("a link has no {lanes} lanes"),
                "write 1, 2, 4, 8 or 16",
            );
            LinkWidth::X16
        })
    });
    let name = section.name(report);
    let device = device(section, report);
    Port {
        name,
        speed: speed.unwrap_or(LinkSpeed::Gt32),
        width: width.unwrap_or(LinkWidth::X16),
        hot_plug: section.boolean(report, "hotplug").unwrap_or(false),
        device,
    }
}

/// Reads a file that has nothing but the table `device` of a port.
pub(in crate::config) fn added_device(table: &DeTable, report: &mut Report) -> Option<Device> {
    let root = Section::root(table);
    let device = device(&root, report);
    root.finish(report);
    device
}

/// The sorts of device.
#[derive(Clone, Copy)]
enum Kind {
    Type2,
    Type3,
    Switch,
}

fn device(port: &Section, report: &mut Report) -> Option<Device> {
    let section = port.section(report, "device");
    if !port.has("device") {
        return None;
    }
    let kinds = [
        ("type3", Kind::Type3),
        ("type2", Kind::Type2),
        ("switch", Kind::Switch),
    ];
    let kind = section.choice(report, "type", &kinds);
    let kind = section.require(
        report,
        "type",
        kind,
        "write type = \"type3\", \"type2\" or \"switch\"",
    );
    let device = match kind.unwrap_or(Kind::Type3) {
        Kind::Type2 => Device::Type2(type2(&section, report)),
        Kind::Type3 => Device::Type3(type3(&section, report)),
        Kind::Switch => Device::Switch(switch(&section, report)),
    };
    section.finish(report);
    Some(device)
}

fn switch(section: &Section, report: &mut Report) -> Switch {
    Switch {
        name: section.name(report),
        serial: section.integer(report, "serial", (1, u64::MAX)),
        decoders: decoders(section, report),
        performance: performance(section, DEFAULT_SWITCH_PERFORMANCE, report),
        mailbox_cci: section.boolean(report, "mailbox_cci").unwrap_or(false),
        ports: each(section, "port", report, port),
    }
}

fn serial(section: &Section, report: &mut Report) -> u64 {
    let serial = section.integer(report, "serial", (1, u64::MAX));
    let mend = "give the device a serial number of its own, such as 0x1";
    section
        .require(report, "serial", serial, mend)
        .unwrap_or_default()
}

fn type2(section: &Section, report: &mut Report) -> Type2 {
    let watchdog = section.integer(report, "watchdog", (0, 86_400));
    let modes = [
        ("mapped", Coherence::Mapped),
        ("observed", Coherence::Observed),
        ("trapped", Coherence::Trapped),
    ];
    let coherence = section.choice(report, "coherence", &modes);
    let coherence = coherence.unwrap_or_default();
    let backend = backend(section, report);
    if coherence != Coherence::Mapped && matches!(backend, AcceleratorBackend::Cuda { .. }) {
        report.error(
            section.key("coherence"),
            "only the backend \"ptx\" can have its accesses observed or trapped",
            "remove it, or write backend = \"ptx\"",
        );
    }
    Type2 {
        name: section.name(report),
        serial: serial(section, report),
        memory: section
            .size(report, "memory")
            .unwrap_or(DEFAULT_DEVICE_MEMORY),
        cache: section.size(report, "cache").unwrap_or(DEFAULT_CACHE),
        backend,
        watchdog: Some(watchdog.unwrap_or(DEFAULT_WATCHDOG)).filter(|seconds| *seconds != 0),
        snoop_filter: section
            .integer(report, "snoop_filter", (1, MOST_FILTER))
            .unwrap_or(DEFAULT_FILTER),
        coherence,
        performance: performance(section, DEFAULT_PERFORMANCE, report),
    }
}

fn backend(section: &Section, report: &mut Report) -> AcceleratorBackend {
    let number = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    let library = section.path_value(report, "hetgpu-lib");
    let device = number(section.integer(report, "hetgpu-device", (0, u32::MAX.into())));
    let claimed = section.string(report, "compute_capability");
    let version = number(section.integer(report, "driver_version", (1000, 99_999)));
    let cuda = section
        .choice(report, "backend", &[("ptx", false), ("cuda", true)])
        .unwrap_or(library.is_some());
    let (others, of): (&[_], _) = if cuda {
        (&["compute_capability", "driver_version"], "ptx")
    } else {
        (&["hetgpu-lib", "hetgpu-device"], "cuda")
    };
    for key in others.iter().filter(|key| section.has(key)) {
        report.error(
            section.key(key),
            format!("only the backend \"{of}\" has that"),
            format!("remove it, or write backend = \"{of}\""),
        );
    }
    if cuda {
        let mend = "name the driver's library, such as /usr/lib/x86_64-linux-gnu/libcuda.so.1";
        let library = section.require(report, "hetgpu-lib", library, mend);
        return AcceleratorBackend::Cuda {
            library: library.unwrap_or_default(),
            device: device.unwrap_or(0),
        };
    }
    let compute_capability = claimed.map(|text| {
        let pair = text.split_once('.');
        let pair = pair.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let pair = pair.filter(|(major, minor)| (1..100).contains(major) && *minor < 10);
        if pair.is_none() {
            report.error(
                section.key("compute_capability"),
                format!("\"{text}\" is no compute capability"),
                "write one such as \"7.5\"",
            );
        }
        pair.unwrap_or(DEFAULT_COMPUTE_CAPABILITY)
    });
    AcceleratorBackend::Ptx {
        compute_capability: compute_capability.unwrap_or(DEFAULT_COMPUTE_CAPABILITY),
        driver_version: version.unwrap_or(DEFAULT_DRIVER_VERSION),
    }
}

fn type3(section: &Section, report: &mut Report) -> Type3 {
    let name = section.name(report);
    let serial = serial(section, report);
    let persistent = section.size(report, "persistent").unwrap_or(0);
    let partitionable = section.size(report, "partitionable").unwrap_or(0);
    let has_persistent = persistent != 0 || partitionable != 0;
    let backing = section.path_value(report, "backing");
    let label_path = section.path_value(report, "lsa");
    let label_size = section.size(report, "lsa_size");
    if !has_persistent {
        for key in ["lsa", "lsa_size"] {
            if section.has(key) {
                report.error(
                    section.key(key),
                    "only persistent memory has labels",
                    "remove it, or give the device persistent capacity",
                );
            }
        }
    }
    let beside_backing = || {
        let mut path = backing.clone()?.into_os_string();
        path.push(".lsa");
        Some(path.into())
    };
    let labels = label_path.or_else(beside_backing).map(|path| LabelStorage {
        path,
        size: label_size.unwrap_or(DEFAULT_LABEL_SIZE),
    });
    Type3 {
        name,
        serial,
        volatile: section.size(report, "volatile").unwrap_or(0),
        persistent,
        partitionable,
        dynamic: each(section, "dynamic_capacity", report, dynamic_capacity),
        labels: labels.filter(|_| has_persistent),
        backing,
        shared: section.boolean(report, "shared").unwrap_or(false),
        decoders: decoders(section, report),
        performance: performance(section, DEFAULT_PERFORMANCE, report),
        fault: section.choice(report, "fault", &Fault::NAMES),
        part: part(section, report),
    }
}

fn dynamic_capacity(section: &Section, report: &mut Report) -> DynamicCapacity {
    let size = section.size(report, "size");
    let mend = "say how much memory there can be, such as size = \"1GiB\"";
    DynamicCapacity {
        size: section
            .require(report, "size", size, mend)
            .unwrap_or(CAPACITY_UNIT),
        block_size: section
            .size(report, "block_size")
            .unwrap_or(DEFAULT_BLOCK_SIZE),
    }
}

/// Which part of a shared device it is: one of so many logical devices, or what is at one of so many heads.
fn part(section: &Section, report: &mut Report) -> Part {
    let mut number = |key, range| {
        let number = section.integer(report, key, range);
        number.and_then(|number| u8::try_from(number).ok())
    };
    let most = u64::from(Sharing::MOST);
    let logical_devices = number("logical_devices", (2, most));
    let logical_device = number("logical_device", (0, most - 1));
    let heads = number("heads", (2, most));
    let head = number("head", (0, most - 1));
    if logical_devices.is_some() && heads.is_some() {
        report.error(
            section.key("heads"),
            "a device with several heads has one logical device at each",
            "remove heads or logical_devices",
        );
    }
    for (key, own, all, count) in [
        (
            "logical_device",
            logical_device,
            "logical_devices",
            logical_devices,
        ),
        ("head", head, "heads", heads),
    ] {
        let Some(own) = own else {
            continue;
        };
        if !section.has(all) {
            report.error(
                section.key(key),
                format!("the device has one {key}"),
                format!("remove it, or say how many there are with {all}"),
            );
        } else if count.is_some_and(|count| own >= count) {
            report.error(
                section.key(key),
                format!("the device has no {key} {own}"),
                "they are numbered from 0",
            );
        }
    }
    match (logical_devices, heads) {
        (Some(count), _) => Part::LogicalDevice {
            count,
            own: logical_device.unwrap_or(0),
        },
        (None, Some(count)) => Part::Head {
            count,
            own: head.unwrap_or(0),
        },
        (None, None) => Part::Whole,
    }
}

fn performance(section: &Section, default: Performance, report: &mut Report) -> Performance {
    let mut latency = |key, default| {
        section
            .integer(report, key, (1, 1_000_000))
            .and_then(|ns| u32::try_from(ns).ok())
            .unwrap_or(default)
    };
    let read_latency = latency("read_latency", default.read_latency);
    let write_latency = latency("write_latency", default.write_latency);
    let mut bandwidth = |key, default: f64| section.bandwidth(report, key).unwrap_or(default);
    Performance {
        read_latency,
        write_latency,
        read_bandwidth: bandwidth("read_bandwidth", default.read_bandwidth),
        write_bandwidth: bandwidth("write_bandwidth", default.write_bandwidth),
    }
}
