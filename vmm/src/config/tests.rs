//! The messages of every mistake, word for word, and what the examples mean.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::terminal::Target;

mod messages;
mod newick;
mod placement;
mod switches;
mod timing;
mod window_messages;

/// A directory with what a configuration needs: `kernel`, and `initrd`.
pub(super) struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kernel"), "").unwrap();
        fs::write(directory.path().join("initrd"), "").unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn parse(&self, source: &str) -> Result<Config, Diagnostics> {
        Config::parse(
            &self.path().join("host0.toml"),
            source,
            &Overrides::default(),
        )
    }

    /// The messages about `source`, with this directory's path taken out.
    fn messages(&self, source: &str) -> Vec<String> {
        let directory = format!("{}/", self.path().display());
        let Err(Diagnostics(found)) = self.parse(source) else {
            panic!("accepted: {source}");
        };
        let show = |diagnostic: &Diagnostic| diagnostic.to_string().replace(&directory, "");
        found.iter().map(show).collect()
    }

    /// An example of `vmm/examples`, with the kernel and initrd of this directory.
    fn example(&self, name: &str) -> Config {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let file = self.path().join(name);
        fs::copy(examples.join(name), &file).unwrap();
        let overrides = Overrides {
            kernel: Some(self.path().join("kernel")),
            initrd: Some(self.path().join("initrd")),
            ..Overrides::default()
        };
        Config::load(&file, &overrides).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The least that boots.
const BOOT: &str = "[boot]\nkernel = \"kernel\"\n";

#[test]
fn the_smallest_file_gets_the_documented_defaults() {
    let files = Files::new();
    let config = files.parse(BOOT).unwrap();
    assert_eq!(config.machine.vcpus, 2);
    assert_eq!(config.machine.memory, 2 << 30);
    assert!(!config.machine.huge_pages);
    assert_eq!(config.boot.kernel, files.path().join("kernel"));
    assert_eq!(config.boot.initrd, None);
    assert_eq!(config.boot.cmdline, "");
    assert_eq!(config.serial, Target::Stdio);
    assert_eq!(config.control, None);
    assert!(!config.rng);
    assert!(config.hypervisor_bit_is_shown());
}

#[test]
fn devices_and_windows_get_the_documented_defaults() {
    let config = Files::new().example("one-expander.toml");
    let port = &config.host_bridges[0].root_ports[0];
    assert_eq!(
        (port.speed.to_string(), port.width.lanes()),
        ("32GT/s".to_string(), 16)
    );
    let Some(Device::Type3(device)) = &port.device else {
        panic!("an expander")
    };
    assert_eq!((device.volatile, device.persistent), (1 << 30, 0));
    assert_eq!(
        (&device.backing, &device.labels, device.shared),
        (&None, &None, false)
    );
    assert_eq!(
        device.performance,
        Performance {
            read_latency: 150,
            write_latency: 150,
            read_bandwidth: 32.0,
            write_bandwidth: 32.0
        }
    );
    let window = &config.windows[0];
    assert_eq!((window.granularity, window.qtg), (256, 0));
    assert!(window.volatile && window.persistent);
}

#[test]
fn every_key_is_read() {
    let files = Files::new();
    fs::write(files.path().join("disk"), "").unwrap();
    let config = files
        .parse(
            r#"
rng = true
[machine]
vcpus = 16
memory = "4GiB"
huge_pages = true
hypervisor_bit = "show"
[boot]
kernel = "kernel"
initrd = "initrd"
cmdline = "quiet"
[console]
serial = "socket:serial.sock"
[control]
socket = "/tmp/host0.sock"
[[disk]]
path = "disk"
read_only = true
[[net]]
tap = "tap0"
mac = "02:00:00:00:00:01"
[[net]]
tap = "tap1"
[[virtio_console]]
target = "file:console.log"
[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
speed = "16 GT/s"
width = 4
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 0xfedc_ba98_7654_3210
volatile = "256MiB"
persistent = "512MiB"
backing = "mem0.img"
lsa = "labels"
lsa_size = "256KiB"
shared = true
read_latency = 1
write_latency = 2
read_bandwidth = 3
write_bandwidth = 4.5
fault = "media-not-ready"
[[window]]
name = "w0"
size = "512MiB"
targets = ["hb0"]
granularity = "16KiB"
arithmetic = "xor"
restrictions = ["persistent"]
qtg = 7
[[region]]
name = "r0"
window = "w0"
size = "256MiB"
type = "persistent"
devices = ["mem0"]
granularity = "1KiB"
lock = true
soft_reserved = true
"#,
        )
        .unwrap();
    assert!(config.rng && config.machine.huge_pages && config.hypervisor_bit_is_shown());
    assert_eq!((config.machine.vcpus, config.machine.memory), (16, 4 << 30));
    assert_eq!(config.boot.initrd, Some(files.path().join("initrd")));
    assert_eq!(config.boot.cmdline, "quiet");
    assert_eq!(
        config.serial,
        Target::Socket(files.path().join("serial.sock"))
    );
    assert_eq!(config.control, Some("/tmp/host0.sock".into()));
    assert_eq!(
        config.disks,
        [Disk {
            path: files.path().join("disk"),
            read_only: true
        }]
    );
    assert_eq!(config.nets[0].mac.to_string(), "02:00:00:00:00:01");
    assert_eq!(
        (
            config.nets[1].tap.as_str(),
            config.nets[1].mac.to_string().as_str()
        ),
        ("tap1", "02:4d:45:4d:55:01")
    );
    assert_eq!(
        config.virtio_consoles,
        [Target::File(files.path().join("console.log"))]
    );
    let port = &config.host_bridges[0].root_ports[0];
    assert_eq!((port.speed, port.width.lanes()), (pci::LinkSpeed::Gt16, 4));
    let Some(Device::Type3(device)) = &port.device else {
        panic!("an expander")
    };
    assert_eq!(device.serial, 0xfedc_ba98_7654_3210);
    assert_eq!(
        device.labels,
        Some(LabelStorage {
            path: files.path().join("labels"),
            size: 256 << 10
        })
    );
    assert!(device.shared);
    assert_eq!(
        device.performance,
        Performance {
            read_latency: 1,
            write_latency: 2,
            read_bandwidth: 3.0,
            write_bandwidth: 4.5
        }
    );
    assert_eq!(device.fault, Some(cxl::device::Fault::MediaNotReady));
    let window = &config.windows[0];
    assert_eq!((window.granularity, window.qtg), (16 << 10, 7));
    assert_eq!(window.arithmetic, Arithmetic::Xor);
    assert!(window.persistent && !window.volatile);
    assert_eq!(
        config.regions,
        [Region {
            name: "r0".to_string(),
            window: 0,
            size: 256 << 20,
            kind: MemoryKind::Persistent,
            devices: vec![Place::host_bridge(0).below(0)],
            granularity: 1024,
            lock: true,
            soft_reserved: true,
        }]
    );
}

#[test]
fn the_command_line_overrides_the_file() {
    let files = Files::new();
    let overrides = Overrides {
        kernel: Some(files.path().join("kernel")),
        initrd: Some(files.path().join("initrd")),
        append: Some("panic=-1".to_string()),
        serial: Some("null".to_string()),
        control: Some(files.path().join("control.sock")),
    };
    let source = "[boot]\nkernel = \"absent\"\ninitrd = \"absent\"\ncmdline = \"console=ttyS0\"\n[console]\nserial = \"pty\"\n";
    let config = Config::parse(&files.path().join("host0.toml"), source, &overrides).unwrap();
    assert_eq!(config.boot.kernel, files.path().join("kernel"));
    assert_eq!(config.boot.initrd, overrides.initrd);
    assert_eq!(config.boot.cmdline, "console=ttyS0 panic=-1");
    assert_eq!(config.serial, Target::Null);
    assert_eq!(config.control, overrides.control);
}

#[test]
fn a_mistake_on_the_command_line_names_the_option() {
    let overrides = Overrides {
        kernel: Some("/absent/kernel".into()),
        ..Overrides::default()
    };
    let error = Config::parse(Path::new("host0.toml"), "", &overrides).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--kernel: there is no file /absent/kernel; name a bzImage or an ELF vmlinux"
    );
    let overrides = Overrides {
        serial: Some("screen".to_string()),
        ..overrides
    };
    let error = Config::parse(Path::new("host0.toml"), "", &overrides).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--serial: \"screen\" is not a place for a console; write stdio, pty, null, file:PATH or socket:PATH"
    );
}

#[test]
fn every_example_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names: Vec<String> = fs::read_dir(examples)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let files = Files::new();
        let config = files.example(&name);
        assert!(config.devices().count() >= 1, "{name}");
        config.topology().unwrap();
    }
}

#[test]
fn files_of_the_right_size_and_files_still_empty_are_accepted() {
    let files = Files::new();
    let (img, lsa) = (
        files.path().join("pmem0.img"),
        files.path().join("pmem0.lsa"),
    );
    fs::write(&img, "").unwrap();
    fs::File::create(&lsa).unwrap().set_len(128 << 10).unwrap();
    files.example("persistent.toml");
    fs::File::create(&img).unwrap().set_len(512 << 20).unwrap();
    let config = files.example("persistent.toml");
    let (_, device) = config.devices().next().unwrap();
    assert_eq!(device.backing, Some(img));
    assert_eq!(
        device.labels,
        Some(LabelStorage {
            path: lsa,
            size: 128 << 10
        })
    );
}

#[test]
fn the_hypervisor_bit_is_hidden_while_a_window_has_room_for_the_user() {
    let files = Files::new();
    let table = [
        ("one-expander.toml", false),
        ("two-bridges.toml", false),
        ("interleave-host-bridges.toml", true),
        ("interleave-root-ports.toml", true),
        ("persistent.toml", false),
        ("mixed.toml", false),
        ("four-bridges.toml", true),
        ("shared-host0.toml", true),
    ];
    for (name, shown) in table {
        let mut config = files.example(name);
        assert_eq!(config.hypervisor_bit_is_shown(), shown, "{name}");
        config.machine.hypervisor_bit = HypervisorBit::Show;
        assert!(config.hypervisor_bit_is_shown(), "{name}");
        config.machine.hypervisor_bit = HypervisorBit::Hide;
        assert!(!config.hypervisor_bit_is_shown(), "{name}");
    }
}

#[test]
fn the_labels_of_a_persistent_device_lie_beside_its_backing_by_default() {
    let files = Files::new();
    let config = files.example("mixed.toml");
    let (_, device) = config.devices().next().unwrap();
    let labels = device.labels.as_ref().unwrap();
    assert_eq!(
        (&labels.path, labels.size),
        (&files.path().join("both.img.lsa"), 128 << 10)
    );
}
