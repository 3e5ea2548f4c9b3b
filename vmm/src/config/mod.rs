//! The configuration file: TOML, in which the tree of the file is the tree on the bus.
//!
//! Sizes are strings with a unit (`"256MiB"`; B, KiB, MiB, GiB, TiB), latencies whole nanoseconds, bandwidths GB/s
//! (10^9). Relative paths are relative to the file. Names are letters, digits, `-`, `_` and `.`, unique among things of
//! one kind.
//!
//! | key | value | default |
//! |---|---|---|
//! | `rng` | virtio entropy source | `false` |
//! | `tree` | `"(mem0,(mem1,mem2)sw0)"`: all `[[host_bridge]]` tables as one Newick string, each expander 1 GiB volatile; `mem0:50[&volatile=256MiB,bw=16]` is 50 ns farther, smaller and slower | the tables |
//! | **`[machine]`** | | |
//! | `vcpus` | 1 to 16 | 2 |
//! | `memory` | RAM, a multiple of 2 MiB from 64 MiB | `"2GiB"` |
//! | `huge_pages` | RAM from the host's reserved 2 MiB pages | `false` |
//! | `hypervisor_bit` | `"auto"`, `"show"`, `"hide"`; see [`Config::hypervisor_bit_is_shown`] | `"auto"` |
//! | **`[boot]`** | | |
//! | `kernel` | bzImage, or ELF vmlinux with a PVH note | required |
//! | `initrd` | initramfs | none |
//! | `cmdline` | kernel command line | empty |
//! | **`[console]`** | | |
//! | `serial` | `"stdio"`, `"file:PATH"`, `"socket:PATH"`, `"pty"`, `"null"` | `"stdio"` |
//! | **`[control]`** | | |
//! | `socket` | path of the [control socket](crate::control) | none |
//! | **`[[disk]]`** | virtio block device | |
//! | `path` | raw image | required |
//! | `read_only` | | `false` |
//! | **`[[net]]`** | virtio network device | |
//! | `tap` | the host's interface | required |
//! | `mac` | the guest's address | `02:4d:45:4d:55:N` for number N |
//! | **`[[virtio_console]]`** | | |
//! | `target` | as `serial` | required |
//! | **`[[host_bridge]]`** | CXL host bridge, at most 4 | |
//! | `name` | | required |
//! | `decoders` | HDM decoders: 1, 2, 4, 6, 8, 10 | 10 |
//! | **`[[host_bridge.root_port]]`** | 1 to 16 | |
//! | `name` | | required |
//! | `speed` | `"2.5GT/s"` to `"64GT/s"` | `"32GT/s"` |
//! | `width` | 1, 2, 4, 8, 16 | 16 |
//! | `hotplug` | the port has a slot, in which expanders come and go while the machine runs | `false` |
//! | **`[host_bridge.root_port.device]`** | none: the port is empty | |
//! | `type` | `"type3"`, an expander, `"type2"`, an accelerator, or `"switch"` | required |
//! | `name` | | required |
//! | `decoders` | HDM decoders: 1, 2, 4, 6, 8, 10 | 10 |
//! | **of an accelerator** | | |
//! | `serial` | from 1 on, unique | required |
//! | `memory` | device memory, a multiple of 256 MiB | `"4GiB"` |
//! | `cache` | what it tells of its cache, a multiple of 1 MiB up to 255 MiB | `"128MiB"` |
//! | `backend` | `"ptx"`, this host's processors, or `"cuda"`, a GPU of this host | `"cuda"` with `hetgpu-lib`, else `"ptx"` |
//! | `hetgpu-lib` | the CUDA driver's library, for `"cuda"` | required there |
//! | `hetgpu-device` | which of its devices, for `"cuda"` | 0 |
//! | `compute_capability` | what the device claims to be, for `"ptx"` | `"7.5"` |
//! | `driver_version` | what `cuDriverGetVersion` gives, for `"ptx"` | 12090 |
//! | `coherence` | `"mapped"`; `"observed"`: which pages host and device take from each other is counted (Linux 6.7), for `"ptx"`; `"trapped"`: each access is, exactly and slowly, for `"ptx"` | `"mapped"` |
//! | `snoop_filter` | lines of the host that it keeps track of, a multiple of 16 | 65536 |
//! | `watchdog` | seconds after which a kernel ends with error 702; 0: never | 10 |
//! | `read_latency`, `write_latency` | of its memory, for CDAT | 150 |
//! | `read_bandwidth`, `write_bandwidth` | of its memory, for CDAT | 32 |
//! | **of a switch** | | |
//! | `serial` | from 1 on, unique | none |
//! | `mailbox_cci` | the switch's mailbox, by which the host manages it, is function 1 beside its upstream port | `false` |
//! | `read_latency`, `write_latency` | of the way through the switch, for CDAT; the first for `timing` too | 70 |
//! | `read_bandwidth`, `write_bandwidth` | of the way through the switch, for CDAT and `timing` | 64 |
//! | `[[host_bridge.root_port.device.port]]` | downstream ports, 1 to 32; keys as those of a root port, and a `device` of its own | |
//! | **of an expander** | | |
//! | `serial` | from 1 on, unique | required |
//! | `volatile`, `persistent` | capacity, multiples of 256 MiB | 0 |
//! | `partitionable` | capacity that `cxl set-partition` makes one or the other, persistent at first | 0 |
//! | `[[...dynamic_capacity]]` | up to 8 ranges of device addresses, behind the capacity, at which there is memory once `memu-ctl extent add` has offered some and the guest has accepted it; loads of what is not there give ones, and stores are dropped | |
//! | `size`, `block_size` | of such a range, a multiple of 256 MiB; what comes and goes is a multiple of the latter, a power of two from 4 KiB to 256 MiB | required; `"2MiB"` |
//! | `backing` | file with all its bytes, created if absent; persistent memory needs one | anonymous memory |
//! | `backing` + `.state` | is no key: the file in which the device keeps its other state, unless `shared` | |
//! | `backing` + `.load` | is no key: what the machines of a `shared` device ask of it, where `timing` is on | |
//! | `lsa` | file with the labels of persistent memory, created if absent | `backing` + `.lsa` |
//! | `lsa_size` | 128 KiB to 64 MiB | `"128KiB"` |
//! | `shared` | other devices may have the same `backing` | `false` |
//! | `fault` | how it fails from power-on: `"stuck-doorbell"`, `"mailbox-not-ready"`, `"media-not-ready"`, `"fatal"`, `"firmware-halt"`, `"flush-fails"` | it works |
//! | `logical_devices`, `logical_device` | of how many (2 to 16) equal logical devices this host has which, from 0; the rest is not in this machine | it has one; 0 |
//! | `heads`, `head` | at which of how many (2 to 16) heads of the device this host is, from 0 | it has one; 0 |
//! | `read_latency`, `write_latency` | of the medium, for CDAT; the first for `timing` too | 150 |
//! | `read_bandwidth`, `write_bandwidth` | of the medium, for CDAT and `timing` | 32 |
//! | **`[[window]]`** | CXL fixed memory window | |
//! | `name` | | required |
//! | `size` | a multiple of 256 MiB times its targets | required |
//! | `targets` | host bridges in interleave order | required |
//! | `granularity` | `"256B"` to `"16KiB"`; times the targets at most 16 KiB | `"256B"` |
//! | `arithmetic` | `"modulo"`, or `"xor"`: parities of address bits choose the target (CXIMS) | `"modulo"` |
//! | `restrictions` | what may lie in it: `["volatile", "persistent"]` | both |
//! | `qtg` | QoS throttling group | 0 |
//! | **`[[region]]`** | interleave set that the firmware commits | |
//! | `name` | | required |
//! | `window` | | required |
//! | `size` | a multiple of 256 MiB times its devices | required |
//! | `type` | `"volatile"` or `"persistent"` | required |
//! | `devices` | 1, 2, 3, 4, 6, 8, 12 or 16 expanders, position 0 first; position `p` lies below target `p % W` of a window over `W` host bridges; or an accelerator, whose driver finds its memory there then | required |
//! | `granularity` | that of the window, if the window has several targets | the window's |
//! | `lock` | the decoders are locked until the next reset | `false` |
//! | `soft_reserved` | the memory map and SRAT name it: memory that is there from the start, for drivers to use | `false` |
//! | **`[timing]`** | makes the guest feel what its CXL memory costs; a write counts as a read, so that `write_bandwidth` bounds no more than requests and, added to `read_bandwidth`, the medium | |
//! | `clock` | `"off"`; `"real"`: the vCPUs stand still for it; `"warp"`: the guest's clocks are moved forward, where the host's KVM can do that | `"off"` |
//! | `epoch` | ns between two reckonings, 1000000 to 1000000000 | 10000000 |
//! | `local_latency` | ns of a load from the host's own memory | measured at start |
//! | `parallelism` | misses of a vCPU that overlap, 1 to 64 | estimated while running |
//! | `cache` | last-level cache of the modelled host | that of this one |
//!
//! A host bridge with `N` ports that lead to a region works at the region's granularity times the window's targets (three
//! count as one), a switch at that of the component above times the ports of that component that lead to the region; no
//! granularity exceeds 16 KiB. Ports take turns, so that a region has as many devices behind each of them.

mod diagnostic;
mod drawing;
mod files;
mod hotplug;
mod model;
mod parse;
mod placement;
mod reader;
mod region_rules;
mod regions;
mod report;
mod routes;
mod timing;
mod topology;
mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use drawing::Node;
pub use model::{
    AcceleratorBackend, Arithmetic, Boot, Coherence, Config, Device, Disk, DynamicCapacity,
    HostBridge, HypervisorBit, LabelStorage, MacAddress, Machine, MemoryKind, Net, Performance,
    Place, Port, Region, Switch, Type2, Type3, Window,
};
pub use regions::{EndpointDecoder, PortDecoder, RegionPlan};
pub use timing::{Clock, Timing};
pub use units::show_size;

use report::Report;

/// What the command line says in place of the file. Relative paths are relative to the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `boot.kernel`.
    pub kernel: Option<PathBuf>,
    /// In place of `boot.initrd`.
    pub initrd: Option<PathBuf>,
    /// Words behind those of `boot.cmdline`.
    pub append: Option<String>,
    /// In place of `console.serial`, written as there.
    pub serial: Option<String>,
    /// In place of `control.socket`.
    pub control: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a file. Looks at the files that it names, and changes none of them.
    ///
    /// # Errors
    /// Every mistake that could be found: all of the syntax, or else all of single values and names, or else all of
    /// what does not fit together.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Self, Diagnostics> {
        let source = std::fs::read_to_string(file).map_err(|error| {
            Diagnostics::of_file(
                file,
                format!("cannot read the configuration: {error}"),
                "name a TOML file",
            )
        })?;
        Self::parse(file, &source, overrides)
    }

    /// As [`Config::load`], with the contents of `file` in `source`.
    ///
    /// # Errors
    /// As there.
    pub fn parse(file: &Path, source: &str, overrides: &Overrides) -> Result<Self, Diagnostics> {
        let (table, errors) = DeTable::parse_recoverable(source);
        if !errors.is_empty() {
            return Err(Diagnostics::of_syntax(file, source, &errors));
        }
        let mut report = Report::new(file, source, table.get_ref());
        let config = parse::config(table.get_ref(), overrides, &mut report);
        if report.is_clean() {
            validate::validate(&config, &mut report);
        }
        report.into_result().map(|()| config)
    }
}
