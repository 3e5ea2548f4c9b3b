//! Regions: made by the guest or by the firmware, put to work, and byte-exact in every device.

use super::boot::without_complaint;
use super::{Test, picture};
use crate::guest::{Guest, Lab, Machine, System};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["region":
    a_user_makes_a_region_and_runs_programs_whose_code_and_data_are_in_it,
    the_firmwares_regions_assemble_with_the_hypervisor_bit_visible_and_cost_no_exits,
    two_ways_over_host_bridges_put_every_byte_where_the_specification_says,
    two_ways_over_root_ports_put_every_byte_where_the_specification_says,
];

/// The first kernel; what every kernel must do is tested with all of them.
pub(super) fn stock(lab: &Lab) -> Result<&System> {
    lab.systems.first().context("no guest system")
}

/// Makes a region of `memdevs` in decoder0.0 and puts it online; leaves its node in `$node`.
pub(super) const ONLINE: &str = r#"
online() {
  for dax in /sys/bus/dax/devices/dax*; do
    dax=${dax##*/}
    [ -e /sys/bus/dax/drivers/kmem/$dax ] || daxctl reconfigure-device --mode=system-ram $dax
    node=$(cat /sys/bus/dax/devices/$dax/target_node)
  done
}
"#;

const ONE: &str = include_str!("../../../vmm/examples/one-expander.toml");

fn a_user_makes_a_region_and_runs_programs_whose_code_and_data_are_in_it(lab: &Lab) -> Result<()> {
    for system in &lab.systems {
        let outcome = Machine::new(lab, system, &system.name, ONE)
            .cmdline("memhp_default_state=offline")
            .script(&format!(
                r#"{ONLINE}
section topology picture
section create cxl create-region -m -t ram -d decoder0.0 -w 1 mem0
online
echo "node $node"
section regions cxl list -R
section numa numactl -H
section where memu-guest on-node $node numa-where
section avx memu-guest on-node $node avx
section memtest memu-guest on-node $node fill-sum 16
section destroy sh -c "daxctl offline-memory dax0.0 && daxctl disable-device dax0.0; cxl disable-region -f region0 && cxl destroy-region -f region0"
section again cxl create-region -m -t ram -d decoder0.0 -w 1 mem0
section dmesg dmesg"#
            ))
            .run()?;
        outcome.powered_off()?;
        picture::check(ONE, &outcome.json("topology")?).with_context(|| system.name.clone())?;
        outcome.passed("create")?;
        ensure!(
            outcome
                .passed("regions")?
                .contains("\"decode_state\":\"commit\""),
            "{:?}",
            outcome.sections["regions"]
        );
        let node = outcome
            .console
            .iter()
            .find_map(|line| line.strip_prefix("node ")?.parse::<i64>().ok())
            .with_context(|| format!("{}: no node came online", system.name))?;
        ensure!(node > 0, "{}: the region joined node {node}", system.name);
        let places = outcome.json("where")?;
        for part in ["code", "data", "bss", "heap", "stack"] {
            ensure!(
                places[part] == node,
                "{}: {part} is not on node {node}: {places}",
                system.name
            );
        }
        outcome.passed("avx")?;
        outcome.passed("memtest")?;
        if system.name.starts_with("6.") {
            // 7.x cannot take the memory offline again in an orderly way once the kernel has used it.
            outcome.passed("destroy")?;
            outcome.passed("again")?;
        }
        without_complaint(outcome.passed("dmesg")?)?;
    }
    Ok(())
}

const FIRMWARE_REGION: &str = include_str!("../../../vmm/examples/interleave-host-bridges.toml");

fn the_firmwares_regions_assemble_with_the_hypervisor_bit_visible_and_cost_no_exits(
    lab: &Lab,
) -> Result<()> {
    for system in &lab.systems {
        firmware_region(lab, system).with_context(|| system.name.clone())?;
    }
    Ok(())
}

fn firmware_region(lab: &Lab, system: &System) -> Result<()> {
    let mut guest = Machine::new(lab, system, &system.name, FIRMWARE_REGION)
        .cmdline("memhp_default_state=offline")
        .script(&format!(
            r#"{ONLINE}
online
section hypervisor grep -qw hypervisor /proc/cpuinfo
section topology picture
section regions cxl list -RT
section where memu-guest on-node $node numa-where
memu-guest on-node $node fill-sum 1
step before
section memtest memu-guest on-node $node fill-sum 64
step after
section dmesg dmesg"#
        ))
        .start()?;
    guest.wait_for_step("before")?;
    let before = exits(&guest)?;
    guest.go_on()?;
    guest.wait_for_step("after")?;
    let spent = exits(&guest)? - before;
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    outcome.passed("hypervisor")?;
    picture::check(FIRMWARE_REGION, &outcome.json("topology")?)?;
    let regions = outcome.passed("regions")?;
    ensure!(
        regions.contains("\"interleave_ways\":2")
            && regions.contains("\"interleave_granularity\":256"),
        "{regions}"
    );
    outcome.passed("where")?;
    outcome.passed("memtest")?;
    ensure!(spent < 64, "64 MiB filled and summed cost {spent} exits");
    without_complaint(outcome.passed("dmesg")?)
}

/// Seed of the pattern that the guest writes; byte `i` of the window is a function of `i` and this.
pub(super) const SEED: u64 = 7;

/// The pattern of `memu-guest pattern`: word `k` is `m ^ (m >> 32)` with `m = (k + SEED) * 0x9e3779b97f4a7c15`.
pub(super) fn pattern(offset: u64) -> u8 {
    let word = (offset / 8)
        .wrapping_add(SEED)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ (word >> 32)).to_le_bytes()[(offset % 8) as usize]
}

/// CXL 3.1 section 8.2.4.20.13 for two ways of 256 bytes: bit 8 selects the device, the bits above it move down by one.
pub(super) fn two_way_256(hpa_offset: u64) -> (usize, u64) {
    let device = usize::try_from((hpa_offset >> 8) & 1).unwrap_or(0);
    (device, ((hpa_offset >> 9) << 8) | (hpa_offset & 0xff))
}

fn every_byte(lab: &Lab, config: &str) -> Result<()> {
    let mut guest = Machine::new(lab, stock(lab)?, "guest", config)
        .script(
            r#"
section topology picture
section dmesg dmesg
for dax in /sys/bus/dax/devices/dax*; do dax=${dax##*/}; done
daxctl reconfigure-device --mode=devdax -f $dax
section write memu-guest pattern write /dev/$dax 0 4194304 7
section check memu-guest pattern check /dev/$dax 0 4194304 7
step written"#,
        )
        .cmdline("memhp_default_state=offline")
        .start()?;
    guest.wait_for_step("written")?;
    check_devices(&guest)?;
    guest.go_on()?;
    let outcome = guest.wait()?;
    picture::check(config, &outcome.json("topology")?)?;
    without_complaint(outcome.passed("dmesg")?)?;
    outcome.passed("write")?;
    outcome.passed("check")?;
    outcome.powered_off()
}

fn check_devices(guest: &Guest) -> Result<()> {
    let length = 64 << 10;
    let media: Vec<Vec<u8>> = ["mem0", "mem1"]
        .iter()
        .map(|device| read_dpa(guest, device, 0, length))
        .collect::<Result<_>>()?;
    for offset in 0..2 * length {
        let (device, dpa) = two_way_256(offset);
        let found = media[device][usize::try_from(dpa)?];
        ensure!(
            found == pattern(offset),
            "offset {offset:#x}: device {device} has {found:#04x} at DPA {dpa:#x}, not {:#04x}",
            pattern(offset)
        );
    }
    Ok(())
}

/// The device's own view of its media, as `memu-ctl media` gives it.
pub(super) fn read_dpa(guest: &Guest, device: &str, dpa: u64, length: u64) -> Result<Vec<u8>> {
    let answer = guest.control(&["media", device, &dpa.to_string(), &length.to_string()])?;
    let hex = answer["data"]
        .as_str()
        .with_context(|| format!("no data in {answer}"))?;
    (0..hex.len() / 2)
        .map(|i| Ok(u8::from_str_radix(&hex[2 * i..2 * i + 2], 16)?))
        .collect()
}

fn two_ways_over_host_bridges_put_every_byte_where_the_specification_says(lab: &Lab) -> Result<()> {
    every_byte(lab, FIRMWARE_REGION)
}

fn two_ways_over_root_ports_put_every_byte_where_the_specification_says(lab: &Lab) -> Result<()> {
    every_byte(
        lab,
        include_str!("../../../vmm/examples/interleave-root-ports.toml"),
    )
}

/// All exits to the VMM so far, of every vCPU and cause.
fn exits(guest: &Guest) -> Result<u64> {
    let exits = guest.control(&["exits"])?;
    exits["total"]
        .as_u64()
        .with_context(|| format!("no total in {exits}"))
}
