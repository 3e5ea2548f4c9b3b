//! From a file's tables to a [`Config`]: each value by itself, and names resolved.

mod hierarchy;
mod newick;

use toml::de::DeTable;

use super::Overrides;
use super::diagnostic::nearest;
use super::model::{
    Arithmetic, Boot, Config, Disk, HostBridge, HypervisorBit, MacAddress, Machine, MemoryKind,
    Net, Place, Region, Window,
};
use super::reader::{Section, report_target};
use super::report::Report;
use super::timing::Timing;
use super::units::parse_mac;
use crate::terminal::Target;

pub(super) use hierarchy::added_device;

/// RAM of a machine that does not say, in bytes.
const DEFAULT_MEMORY: u64 = 2 << 30;
/// Interleave granularity of a window that does not say, in bytes.
const DEFAULT_GRANULARITY: u64 = 256;

/// Reads the whole file. What is wrong goes to `report`; with mistakes in it the result is of no use.
pub(super) fn config(table: &DeTable, overrides: &Overrides, report: &mut Report) -> Config {
    let root = Section::root(table);
    let machine = machine(&root, report);
    let boot = boot(&root, overrides, report);
    let serial = serial(&root, overrides, report);
    let control = control(&root, overrides, report);
    let rng = root.boolean(report, "rng").unwrap_or(false);
    let disks = each(&root, "disk", report, disk);
    let nets = nets(&root, report);
    let virtio_consoles = each(&root, "virtio_console", report, virtio_console);
    let host_bridges = newick::host_bridges(&root, report);
    let windows = each(&root, "window", report, |section, report| {
        window(section, &host_bridges, report)
    });
    let mut config = Config {
        machine,
        boot,
        serial,
        control,
        rng,
        disks,
        nets,
        virtio_consoles,
        host_bridges,
        windows,
        regions: Vec::new(),
        timing: Timing::read(&root, report),
    };
    config.regions = each(&root, "region", report, |section, report| {
        region(section, &config, report)
    });
    root.finish(report);
    config
}

/// Reads every table of an array of tables.
fn each<T>(
    parent: &Section,
    key: &'static str,
    report: &mut Report,
    mut read: impl FnMut(&Section, &mut Report) -> T,
) -> Vec<T> {
    parent
        .sections(report, key)
        .iter()
        .map(|section| {
            let item = read(section, report);
            section.finish(report);
            item
        })
        .collect()
}

fn machine(root: &Section, report: &mut Report) -> Machine {
    let section = root.section(report, "machine");
    let bits = [
        ("auto", HypervisorBit::Auto),
        ("show", HypervisorBit::Show),
        ("hide", HypervisorBit::Hide),
    ];
    let vcpus = section.integer(report, "vcpus", (1, 16)).unwrap_or(2);
    let machine = Machine {
        vcpus: u8::try_from(vcpus).unwrap_or_default(),
        memory: section.size(report, "memory").unwrap_or(DEFAULT_MEMORY),
        huge_pages: section.boolean(report, "huge_pages").unwrap_or(false),
        hypervisor_bit: section
            .choice(report, "hypervisor_bit", &bits)
            .unwrap_or_default(),
    };
    section.finish(report);
    machine
}

fn boot(root: &Section, overrides: &Overrides, report: &mut Report) -> Boot {
    let section = root.section(report, "boot");
    let kernel = section.path_value(report, "kernel");
    let initrd = section.path_value(report, "initrd");
    let cmdline = section.string(report, "cmdline").unwrap_or_default();
    let kernel = match &overrides.kernel {
        Some(kernel) => {
            report.override_key("boot.kernel", "--kernel");
            kernel.clone()
        }
        None => section
            .require(
                report,
                "kernel",
                kernel,
                "name a bzImage or an ELF vmlinux, here or with --kernel",
            )
            .unwrap_or_default(),
    };
    if overrides.initrd.is_some() {
        report.override_key("boot.initrd", "--initrd");
    }
    section.finish(report);
    let words = [Some(cmdline), overrides.append.as_deref()];
    Boot {
        kernel,
        initrd: overrides.initrd.clone().or(initrd),
        cmdline: words
            .into_iter()
            .flatten()
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn serial(root: &Section, overrides: &Overrides, report: &mut Report) -> Target {
    let section = root.section(report, "console");
    let of_file = section.target(report, "serial");
    section.finish(report);
    let chosen = match &overrides.serial {
        Some(text) => {
            report.override_key("console.serial", "--serial");
            let target = text.parse().ok();
            if target.is_none() {
                report_target(report, "console.serial", text);
            }
            target
        }
        None => of_file,
    };
    chosen.unwrap_or(Target::Stdio)
}

fn control(
    root: &Section,
    overrides: &Overrides,
    report: &mut Report,
) -> Option<std::path::PathBuf> {
    let section = root.section(report, "control");
    let of_file = section.path_value(report, "socket");
    section.finish(report);
    if overrides.control.is_some() {
        report.override_key("control.socket", "--control");
    }
    overrides.control.clone().or(of_file)
}

fn disk(section: &Section, report: &mut Report) -> Disk {
    let path = section.path_value(report, "path");
    Disk {
        path: section
            .require(report, "path", path, "name a raw image")
            .unwrap_or_default(),
        read_only: section.boolean(report, "read_only").unwrap_or(false),
    }
}

fn nets(root: &Section, report: &mut Report) -> Vec<Net> {
    let mut index = 0;
    each(root, "net", report, |section, report| {
        let net = net(section, index, report);
        index += 1;
        net
    })
}

fn net(section: &Section, index: u8, report: &mut Report) -> Net {
    let tap = section.string(report, "tap");
    let tap = section
        .require(report, "tap", tap, "name the host's tap interface")
        .unwrap_or_default();
    if section.has("tap") && !(1..=15).contains(&tap.len()) {
        report.error(
            section.key("tap"),
            format!("\"{tap}\" is not an interface name"),
            "write 1 to 15 bytes",
        );
    }
    let mac = section.string(report, "mac").map(|text| {
        let mac = parse_mac(text).filter(|bytes| bytes[0] & 1 == 0 && *bytes != [0; 6]);
        if mac.is_none() {
            report.error(
                section.key("mac"),
                format!("\"{text}\" is not the address of one station"),
                "write six pairs of hexadecimal digits, such as 02:00:00:00:00:01, the first of them even",
            );
        }
        mac.unwrap_or_default()
    });
    Net {
        tap: tap.to_string(),
        // Locally administered, and "MEMU".
        mac: MacAddress(mac.unwrap_or([0x02, 0x4d, 0x45, 0x4d, 0x55, index])),
    }
}

fn virtio_console(section: &Section, report: &mut Report) -> Target {
    let target = section.target(report, "target");
    section
        .require(
            report,
            "target",
            target,
            "say where it goes, such as file:console.log",
        )
        .unwrap_or(Target::Null)
}

/// What a window may be used for, as the file has it.
const RESTRICTIONS: [&str; 2] = ["volatile", "persistent"];

/// The kinds of arithmetic, as the file has them.
const ARITHMETICS: [(&str, Arithmetic); 2] =
    [("modulo", Arithmetic::Modulo), ("xor", Arithmetic::Xor)];

fn window(section: &Section, host_bridges: &[HostBridge], report: &mut Report) -> Window {
    let size = section.size(report, "size");
    let targets = section.strings(report, "targets");
    let targets = section.require(
        report,
        "targets",
        targets,
        "name the host bridges that it interleaves over, such as [\"hb0\"]",
    );
    let names = || host_bridges.iter().map(|bridge| bridge.name.as_str());
    let allowed = section.strings(report, "restrictions");
    for word in allowed.iter().flatten() {
        if !RESTRICTIONS.contains(word) {
            report.error(
                section.key("restrictions"),
                format!("\"{word}\" is not known"),
                "write volatile, persistent or both",
            );
        }
    }
    let allows = |word| {
        allowed
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&word))
    };
    Window {
        name: section.name(report),
        size: section
            .require(report, "size", size, "write a size such as \"4GiB\"")
            .unwrap_or_default(),
        targets: resolve(section, "targets", "host bridge", targets, names, report),
        granularity: section
            .size(report, "granularity")
            .unwrap_or(DEFAULT_GRANULARITY),
        arithmetic: section
            .choice(report, "arithmetic", &ARITHMETICS)
            .unwrap_or_default(),
        volatile: allows(RESTRICTIONS[0]),
        persistent: allows(RESTRICTIONS[1]),
        qtg: section
            .integer(report, "qtg", (0, u64::from(u16::MAX)))
            .and_then(|qtg| u16::try_from(qtg).ok())
            .unwrap_or(0),
    }
}

fn region(section: &Section, config: &Config, report: &mut Report) -> Region {
    let kinds = [
        ("volatile", MemoryKind::Volatile),
        ("persistent", MemoryKind::Persistent),
    ];
    let name = section.name(report);
    let window = section.string(report, "window");
    let window = section.require(report, "window", window, "name the window that it lies in");
    let windows = || config.windows.iter().map(|window| window.name.as_str());
    let window = resolve(
        section,
        "window",
        "window",
        window.map(|name| vec![name]),
        windows,
        report,
    );
    let size = section.size(report, "size");
    let kind = section.choice(report, "type", &kinds);
    let devices = section.strings(report, "devices");
    let devices = section.require(
        report,
        "devices",
        devices,
        "name its devices in the order of their positions, such as [\"mem0\"]",
    );
    let (places, names): (Vec<Place>, Vec<&str>) = config
        .members()
        .into_iter()
        .map(|member| (member.place, member.name))
        .unzip();
    let devices = resolve(
        section,
        "devices",
        "device",
        devices,
        || names.iter().copied(),
        report,
    );
    let window = window.first().copied().unwrap_or_default();
    Region {
        name,
        window,
        size: section
            .require(report, "size", size, "write a size such as \"512MiB\"")
            .unwrap_or_default(),
        kind: section
            .require(report, "type", kind, "write volatile or persistent")
            .unwrap_or(MemoryKind::Volatile),
        devices: devices.into_iter().map(|i| places[i].clone()).collect(),
        granularity: section
            .size(report, "granularity")
            .or_else(|| Some(config.windows.get(window)?.granularity))
            .unwrap_or(DEFAULT_GRANULARITY),
        lock: section.boolean(report, "lock").unwrap_or(false),
        soft_reserved: section.boolean(report, "soft_reserved").unwrap_or(false),
    }
}

/// The places of `names` among `candidates`; `kind` is what a candidate is called.
fn resolve<'a, I: Iterator<Item = &'a str>>(
    section: &Section,
    key: &str,
    kind: &str,
    names: Option<Vec<&str>>,
    candidates: impl Fn() -> I,
    report: &mut Report,
) -> Vec<usize> {
    let mut places = Vec::new();
    for name in names.into_iter().flatten() {
        if let Some(place) = candidates().position(|candidate| candidate == name) {
            places.push(place);
            continue;
        }
        let mend = match nearest(name, candidates()) {
            Some(near) => format!("did you mean {near}?"),
            None if candidates().next().is_none() => format!("the file has no {kind}; add one"),
            None => format!("there are {}", candidates().collect::<Vec<_>>().join(", ")),
        };
        report.error(
            section.key(key),
            format!("there is no {kind} \"{name}\""),
            mend,
        );
    }
    places
}
