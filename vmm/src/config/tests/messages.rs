//! One test for each kind of mistake, with the whole message.

use super::*;

/// Two host bridges: mem0 and mem1 below hb0, mem2 and mem3 below hb1, 512 MiB of volatile memory each. 44 lines.
pub(super) const TREE: &str = r#"[boot]
kernel = "kernel"
[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "512MiB"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "512MiB"
[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type3"
name = "mem2"
serial = 3
volatile = "512MiB"
[[host_bridge.root_port]]
name = "rp3"
[host_bridge.root_port.device]
type = "type3"
name = "mem3"
serial = 4
volatile = "512MiB"
[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
[[window]]
name = "w01"
size = "2GiB"
targets = ["hb0", "hb1"]
granularity = "256B"
"#;

/// A region to put behind [`TREE`], whose header is line 45.
pub(super) fn region(window: &str, size: &str, devices: &[&str]) -> String {
    format!(
        "[[region]]\nname = \"r0\"\nwindow = \"{window}\"\nsize = \"{size}\"\ntype = \"volatile\"\ndevices = {devices:?}\n"
    )
}

#[track_caller]
pub(super) fn expect(source: &str, messages: &[&str]) {
    assert_eq!(Files::new().messages(source), messages);
}

/// [`TREE`] with `from`, which it has, replaced.
#[track_caller]
pub(super) fn expect_in_tree(from: &str, to: &str, messages: &[&str]) {
    assert!(TREE.contains(from), "{from}");
    expect(&TREE.replacen(from, to, 1), messages);
}

/// A region behind [`TREE`].
#[track_caller]
pub(super) fn expect_of_region(region: &str, messages: &[&str]) {
    expect(&format!("{TREE}{region}"), messages);
}

#[test]
fn the_tree_of_these_tests_has_no_mistake() {
    let files = Files::new();
    files.parse(TREE).unwrap();
    for (window, size, devices) in [
        ("w0", "512MiB", &["mem1"][..]),
        ("w0", "1GiB", &["mem1", "mem0"]),
        ("w01", "1GiB", &["mem0", "mem2"]),
        ("w01", "2GiB", &["mem1", "mem2", "mem0", "mem3"]),
    ] {
        let source = format!("{TREE}{}", region(window, size, devices));
        files
            .parse(&source)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/absent/host0.toml"), &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/absent/host0.toml: cannot read the configuration: No such file or directory (os error 2); name a TOML file"
    );
}

#[test]
fn text_that_is_no_toml() {
    expect(
        "[boot]\nkernel = kernel\n",
        &[
            "host0.toml:2: not TOML: string values must be quoted, expected literal string; write key = value, with text in double quotes, below a [table] or [[array]] header",
        ],
    );
}

#[test]
fn an_unknown_key_with_the_one_that_was_meant() {
    expect(
        "[boot]\nkernel = \"kernel\"\ninitdr = \"initrd\"\n[machin]\n",
        &[
            "host0.toml:3: boot.initdr: is not a key; did you mean initrd?",
            "host0.toml:4: machin: is not a key; did you mean machine?",
        ],
    );
    expect_in_tree(
        "serial = 3",
        "serial = 3\nvolatlie = \"256MiB\"",
        &[
            "host0.toml:27: host_bridge[1].root_port[0].device.volatlie: is not a key; did you mean volatile?",
        ],
    );
}

#[test]
fn an_unknown_key_like_no_other() {
    expect(
        "[boot]\nkernel = \"kernel\"\nbios = \"bios\"\n",
        &["host0.toml:3: boot.bios: is not a key; the keys here are cmdline, initrd, kernel"],
    );
}

#[test]
fn a_bad_unit() {
    expect_in_tree(
        "volatile = \"512MiB\"\n[[host_bridge]]",
        "volatile = \"256XB\"\n[[host_bridge]]",
        &[
            "host0.toml:18: host_bridge[0].root_port[1].device.volatile: \"256XB\" is not a size; write a number with B, KiB, MiB, GiB or TiB",
        ],
    );
    expect(
        &format!("{BOOT}[machine]\nmemory = 1024\n"),
        &[
            "host0.toml:4: machine.memory: 1024 is not a size; write a number with B, KiB, MiB, GiB or TiB",
        ],
    );
}

#[test]
fn all_mistakes_of_a_file_at_once_in_the_order_of_its_lines() {
    expect(
        "[machine]\nvcpus = 17\nmemory = \"2GB\"\nhuge_pages = \"no\"\nhypervisor_bit = \"off\"\n[boot]\nkernel = 1\n",
        &[
            "host0.toml:2: machine.vcpus: 17 is out of range; write a number from 1 to 16",
            "host0.toml:3: machine.memory: \"2GB\" is not a size; write a number with B, KiB, MiB, GiB or TiB",
            "host0.toml:4: machine.huge_pages: \"no\" is not true or false; write true or false, without quotes",
            "host0.toml:5: machine.hypervisor_bit: \"off\" is not known; write auto, show or hide",
            "host0.toml:7: boot.kernel: 1 is not a path; write a path in double quotes",
        ],
    );
}

#[test]
fn values_of_the_wrong_kind() {
    expect(
        "rng = 1\n[machine]\nvcpus = \"2\"\n[boot]\nkernel = \"kernel\"\ncmdline = 3\n[[net]]\ntap = \"a-very-long-name\"\nmac = \"01:00:00:00:00:01\"\n[[disk]]\n[[virtio_console]]\ntarget = \"file:\"\n",
        &[
            "host0.toml:1: rng: 1 is not true or false; write true or false, without quotes",
            "host0.toml:3: machine.vcpus: \"2\" is not a whole number; write a number from 1 to 16, without quotes",
            "host0.toml:6: boot.cmdline: 3 is not a string; put it in double quotes",
            "host0.toml:8: net[0].tap: \"a-very-long-name\" is not an interface name; write 1 to 15 bytes",
            "host0.toml:9: net[0].mac: \"01:00:00:00:00:01\" is not the address of one station; write six pairs of hexadecimal digits, such as 02:00:00:00:00:01, the first of them even",
            "host0.toml:10: disk[0].path: is missing; name a raw image",
            "host0.toml:12: virtio_console[0].target: \"file:\" is not a place for a console; write stdio, pty, null, file:PATH or socket:PATH",
        ],
    );
    expect(
        "machine = 1\nhost_bridge = 2\n[boot]\nkernel = \"kernel\"\n",
        &[
            "host0.toml:1: machine: 1 is not a table; write [machine]",
            "host0.toml:2: host_bridge: 2 is not an array of tables; write [[host_bridge]]",
        ],
    );
}

#[test]
fn a_link_that_does_not_exist() {
    expect_in_tree(
        "name = \"rp0\"",
        "name = \"rp0\"\nspeed = \"33GT/s\"\nwidth = 3",
        &[
            "host0.toml:7: host_bridge[0].root_port[0].speed: \"33GT/s\" is not a link speed; write 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s or 64GT/s",
            "host0.toml:8: host_bridge[0].root_port[0].width: a link has no 3 lanes; write 1, 2, 4, 8 or 16",
        ],
    );
}

#[test]
fn a_device_without_what_it_needs() {
    expect_in_tree(
        "type = \"type3\"\nname = \"mem0\"\nserial = 1\n",
        "read_bandwidth = 0\nread_latency = 0\n",
        &[
            "host0.toml:7: host_bridge[0].root_port[0].device.type: is missing; write type = \"type3\", \"type2\" or \"switch\"",
            "host0.toml:7: host_bridge[0].root_port[0].device.name: is missing; give it a name",
            "host0.toml:7: host_bridge[0].root_port[0].device.serial: is missing; give the device a serial number of its own, such as 0x1",
            "host0.toml:8: host_bridge[0].root_port[0].device.read_bandwidth: 0 is not a bandwidth; write GB/s as a number above 0, such as 32 or 38.4",
            "host0.toml:9: host_bridge[0].root_port[0].device.read_latency: 0 is out of range; write a number from 1 to 1000000",
        ],
    );
    expect_in_tree(
        "type = \"type3\"\nname = \"mem0\"\nserial = 1\n",
        "type = \"type4\"\nname = \"mem 0\"\nserial = 0\n",
        &[
            "host0.toml:8: host_bridge[0].root_port[0].device.type: \"type4\" is not known; write type3, type2 or switch",
            "host0.toml:9: host_bridge[0].root_port[0].device.name: \"mem 0\" is not a name; write letters, digits, '-', '_' and '.', at most 64 of them",
            "host0.toml:10: host_bridge[0].root_port[0].device.serial: 0 is out of range; write a number from 1 on",
        ],
    );
}

#[test]
fn accesses_that_cannot_be_known() {
    let device = "type = \"type3\"\nname = \"mem0\"\nserial = 1\nvolatile = \"512MiB\"\n";
    expect_in_tree(
        device,
        "type = \"type2\"\nname = \"gpu0\"\nserial = 1\ncoherence = \"watched\"\n",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.coherence: \"watched\" is not known; write mapped, observed or trapped",
        ],
    );
    expect_in_tree(
        device,
        "type = \"type2\"\nname = \"gpu0\"\nserial = 1\nhetgpu-lib = \"/lib/libcuda.so.1\"\ncoherence = \"observed\"\n",
        &[
            "host0.toml:12: host_bridge[0].root_port[0].device.coherence: only the backend \"ptx\" can have its accesses observed or trapped; remove it, or write backend = \"ptx\"",
        ],
    );
}

#[test]
fn a_name_that_nothing_has() {
    expect_in_tree(
        "targets = [\"hb0\", \"hb1\"]",
        "targets = [\"hb0\", \"hb7\"]",
        &["host0.toml:42: window[1].targets: there is no host bridge \"hb7\"; did you mean hb0?"],
    );
    expect_of_region(
        &region("v", "256MiB", &["memory"]),
        &[
            "host0.toml:46: region[0].window: there is no window \"v\"; there are w0, w01",
            "host0.toml:49: region[0].devices: there is no device \"memory\"; there are mem0, mem1, mem2, mem3",
        ],
    );
    expect(
        &format!("{BOOT}[[window]]\nname = \"w0\"\nsize = \"1GiB\"\ntargets = [\"hb0\"]\n"),
        &[
            "host0.toml:6: window[0].targets: there is no host bridge \"hb0\"; the file has no host bridge; add one",
        ],
    );
}

#[test]
fn two_things_of_one_name() {
    expect_in_tree(
        "name = \"rp3\"",
        "name = \"rp0\"",
        &[
            "host0.toml:29: host_bridge[1].root_port[1].name: rp0 is the name of host_bridge[0].root_port[0].name too; choose another",
        ],
    );
    expect_in_tree(
        "name = \"w01\"",
        "name = \"w0\"",
        &["host0.toml:40: window[1].name: w0 is the name of window[0].name too; choose another"],
    );
}

#[test]
fn two_devices_with_one_serial_number() {
    expect_in_tree(
        "serial = 4",
        "serial = 0x3",
        &[
            "host0.toml:33: host_bridge[1].root_port[1].device.serial: 0x3 is the serial number of host_bridge[1].root_port[0].device.serial too; choose another",
        ],
    );
}

#[test]
fn two_devices_with_one_name() {
    expect_in_tree(
        "name = \"mem3\"",
        "name = \"mem0\"",
        &[
            "host0.toml:32: host_bridge[1].root_port[1].device.name: mem0 is the name of host_bridge[0].root_port[0].device.name too; choose another",
        ],
    );
}

#[test]
fn two_interfaces_or_consoles_in_one_place() {
    expect(
        &format!(
            "{BOOT}[[net]]\ntap = \"tap0\"\n[[net]]\ntap = \"tap0\"\nmac = \"02:4d:45:4d:55:00\"\n[[virtio_console]]\ntarget = \"stdio\"\n"
        ),
        &[
            "host0.toml:6: net[1].tap: tap0 is the interface of net[0].tap too; choose another",
            "host0.toml:7: net[1].mac: 02:4d:45:4d:55:00 is the address of net[0].mac too; choose another",
            "host0.toml:9: virtio_console[0].target: stdio is taken by console.serial; choose another place, or null",
        ],
    );
}

#[test]
fn ram_that_is_not_possible() {
    for memory in ["1MiB", "65MiB", "65TiB"] {
        expect(
            &format!("{BOOT}[machine]\nmemory = \"{memory}\"\n"),
            &[&format!(
                "host0.toml:4: machine.memory: {memory} of RAM is not possible; write a multiple of 2MiB from 64MiB to 64TiB"
            )],
        );
    }
}

#[test]
fn too_many_or_too_few_host_bridges_and_root_ports() {
    let bridge = |i: usize| {
        format!("[[host_bridge]]\nname = \"hb{i}\"\n[[host_bridge.root_port]]\nname = \"rp{i}\"\n")
    };
    let five: String = (0..5).map(bridge).collect();
    expect(
        &format!("{BOOT}{five}"),
        &["host0.toml:19: host_bridge[4]: 5 host bridges are too many; have at most 4"],
    );
    expect(
        &format!("{BOOT}[[host_bridge]]\nname = \"hb0\"\n"),
        &[
            "host0.toml:3: host_bridge[0]: hb0 has no root port; add a [[host_bridge.root_port]] below it",
        ],
    );
    let ports: String = (0..17)
        .map(|i| format!("[[host_bridge.root_port]]\nname = \"rp{i}\"\n"))
        .collect();
    expect(
        &format!("{BOOT}[[host_bridge]]\nname = \"hb0\"\n{ports}"),
        &[
            "host0.toml:37: host_bridge[0].root_port[16]: 17 root ports are too many; have at most 16 below a host bridge",
        ],
    );
}

#[test]
fn capacities_that_are_no_multiples_of_256_mib() {
    expect_in_tree(
        "serial = 1\nvolatile = \"512MiB\"",
        "serial = 1\nvolatile = \"300MiB\"",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.volatile: a capacity of 300MiB is not possible; write a multiple of 256MiB, at most 64TiB",
        ],
    );
    expect_in_tree(
        "serial = 1\nvolatile = \"512MiB\"",
        "serial = 1",
        &[
            "host0.toml:7: host_bridge[0].root_port[0].device: mem0 has no capacity; give it volatile or persistent capacity, such as volatile = \"1GiB\"",
        ],
    );
}

#[test]
fn persistent_memory_without_a_file() {
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\npersistent = \"256MiB\"\n",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.persistent: persistent memory needs a file to persist in; name one: backing = \"PATH\"",
        ],
    );
}

#[test]
fn a_region_of_the_firmwares_on_a_device_that_the_guest_partitions() {
    let tree = TREE.replacen(
        "serial = 1\n",
        "serial = 1\npartitionable = \"256MiB\"\nbacking = \"mem0.img\"\n",
        1,
    );
    expect(
        &format!("{tree}{}", region("w0", "256MiB", &["mem0"])),
        &[
            "host0.toml:51: region[0].devices: what of mem0 is volatile is up to the guest; let the guest make the region, or give the device no partitionable capacity",
        ],
    );
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\npartitionable = \"256MiB\"\n",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.partitionable: persistent memory needs a file to persist in; name one: backing = \"PATH\"",
        ],
    );
}

#[test]
fn labels_without_persistent_memory_or_of_an_odd_size() {
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\nlsa = \"labels\"\n",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.lsa: only persistent memory has labels; remove it, or give the device persistent capacity",
        ],
    );
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\npersistent = \"256MiB\"\nbacking = \"img\"\nlsa_size = \"4KiB\"\n",
        &[
            "host0.toml:13: host_bridge[0].root_port[0].device.lsa_size: 4KiB is out of range; write a size from 128KiB to 64MiB",
        ],
    );
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\npersistent = \"256MiB\"\nbacking = \"img\"\nlsa = \"img\"\n",
        &[
            "host0.toml:13: host_bridge[0].root_port[0].device.lsa: img is a file of mem0 already; choose another file: each device has labels of its own",
        ],
    );
}

#[test]
fn backings_that_cannot_be_shared() {
    expect_in_tree(
        "serial = 1\n",
        "serial = 1\nshared = true\n",
        &[
            "host0.toml:11: host_bridge[0].root_port[0].device.shared: there is nothing to share; name the file that the devices share: backing = \"PATH\"",
        ],
    );
    let with = |first: &str, second: &str| {
        TREE.replacen(
            "serial = 1\n",
            &format!("serial = 1\nbacking = \"img\"\n{first}"),
            1,
        )
        .replacen(
            "serial = 2\n",
            &format!("serial = 2\nbacking = \"img\"\n{second}"),
            1,
        )
    };
    expect(
        &with("shared = true\n", ""),
        &[
            "host0.toml:20: host_bridge[0].root_port[1].device.backing: img is the backing of mem0 too; choose another file, or set shared = true in both",
        ],
    );
    let other_size = with("shared = true\n", "shared = true\n").replacen(
        "volatile = \"512MiB\"\n[[host_bridge]]",
        "volatile = \"256MiB\"\n[[host_bridge]]",
        1,
    );
    expect(
        &other_size,
        &[
            "host0.toml:20: host_bridge[0].root_port[1].device.backing: mem0 shares it and has other capacities; give devices that share a file the same volatile and persistent capacity",
        ],
    );
    Files::new()
        .parse(&with("shared = true\n", "shared = true\n"))
        .unwrap();
}

#[test]
fn files_and_directories_that_are_not_there() {
    let files = Files::new();
    let source = "[boot]\nkernel = \"vmlinuz\"\ninitrd = \".\"\n[console]\nserial = \"file:absent/log\"\n[control]\nsocket = \"absent/sock\"\n[[disk]]\npath = \"disk\"\n";
    assert_eq!(
        files.messages(source),
        [
            "host0.toml:2: boot.kernel: there is no file vmlinuz; name a bzImage or an ELF vmlinux",
            "host0.toml:3: boot.initrd: . is not a regular file; name an initramfs",
            "host0.toml:5: console.serial: there is no directory absent; make it, or name a file in another",
            "host0.toml:7: control.socket: there is no directory absent; make it, or name a file in another",
            "host0.toml:9: disk[0].path: there is no file disk; name a raw image",
        ]
    );
    expect(
        "",
        &[
            "host0.toml: boot.kernel: is missing; name a bzImage or an ELF vmlinux, here or with --kernel",
        ],
    );
}

#[test]
fn a_socket_whose_path_no_unix_socket_can_have() {
    let path = "s".repeat(108);
    let source = format!("[boot]\nkernel = \"kernel\"\n[control]\nsocket = \"/tmp/{path}\"\n");
    expect(
        &source,
        &[
            "host0.toml:4: control.socket: the path has 113 bytes, and a Unix socket's at most 107; choose a shorter one",
        ],
    );
}

#[test]
fn a_backing_of_the_wrong_size_or_in_no_directory() {
    let files = Files::new();
    fs::write(files.path().join("img"), "short").unwrap();
    let backing = |path: &str| {
        TREE.replacen(
            "serial = 1\n",
            &format!("serial = 1\nbacking = \"{path}\"\n"),
            1,
        )
    };
    assert_eq!(
        files.messages(&backing("img")),
        [
            "host0.toml:11: host_bridge[0].root_port[0].device.backing: img has 5B and the device needs 512MiB; name another file, or give the device the capacity that this one has"
        ]
    );
    assert_eq!(
        files.messages(&backing("absent/img")),
        [
            "host0.toml:11: host_bridge[0].root_port[0].device.backing: there is no directory absent; make it, or name a file in another"
        ]
    );
    assert_eq!(
        files.messages(&backing(".")),
        [
            "host0.toml:11: host_bridge[0].root_port[0].device.backing: . is not a regular file; name a file, or one that does not exist yet"
        ]
    );
}

#[test]
fn dynamic_capacity_that_a_device_cannot_have() {
    let place = "host0.toml:12: host_bridge[0].root_port[0].device.dynamic_capacity[0]";
    let line = |number: usize| place.replace("12", &number.to_string());
    let with = |keys: &str, messages: &[String]| {
        let table = format!(
            "volatile = \"512MiB\"\n[[host_bridge.root_port.device.dynamic_capacity]]\n{keys}"
        );
        let tree = TREE.replacen("volatile = \"512MiB\"\n", &table, 1);
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        expect(&tree, &messages);
    };
    with(
        "",
        &[format!(
            "{}.size: is missing; say how much memory there can be, such as size = \"1GiB\"",
            line(12)
        )],
    );
    with(
        "size = \"100MiB\"\n",
        &[format!(
            "{}.size: a region of 100MiB is not possible; write a multiple of 256MiB, at most 64TiB",
            line(13)
        )],
    );
    for size in ["2KiB", "3MiB", "512MiB"] {
        with(
            &format!("size = \"1GiB\"\nblock_size = \"{size}\"\n"),
            &[format!(
                "{}.block_size: blocks of {size} are not possible; write a power of two from 4KiB to 256MiB",
                line(14)
            )],
        );
    }
    let nine = "[[host_bridge.root_port.device.dynamic_capacity]]\nsize = \"256MiB\"\n".repeat(8);
    with(
        &format!("size = \"256MiB\"\n{nine}"),
        &[format!(
            "{}: 9 regions are too many; have at most 8 in a device",
            line(28)
                .replace("[0]:", "")
                .replace("dynamic_capacity[0]", "dynamic_capacity[8]")
        )],
    );
    expect_in_tree(
        "volatile = \"512MiB\"\n",
        "volatile = \"512MiB\"\nshared = true\nbacking = \"mem0.img\"\n[[host_bridge.root_port.device.dynamic_capacity]]\nsize = \"256MiB\"\n",
        &[
            "host0.toml:12: host_bridge[0].root_port[0].device.shared: memory that one host releases is emptied, whoever else has it; remove it, or the dynamic_capacity",
        ],
    );
}
