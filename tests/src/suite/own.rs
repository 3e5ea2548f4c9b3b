//! What stock kernels leave out, on one that is built with it: `cargo xtask kernel --own`.

use super::Test;
use super::boot::without_complaint;
use crate::guest::{Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub const TESTS: &[Test] = crate::tests!["own":
    scrub_repair_features_raw_commands_and_counters_are_the_devices,
];

const CONFIG: &str = r#"
[machine]
memory = "2GiB"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 0x1
volatile = "256MiB"

[[window]]
name = "w0"
size = "512MiB"
targets = ["hb0"]
"#;

/// A bad line, which the repair is for.
const BAD: &str = "0x1000";
/// The vendor's feature, and what is written into it.
const ASSET_TAG: &str = "0b49e493-eba4-4bdf-8b5a-3ed6b97fe5a1";
const TAG: &str = "6d656d752d6f776e2d6b65726e656c21";
/// Device patrol scrub, which Linux keeps for itself.
const PATROL_SCRUB: &str = "96dad7d6-fde8-482b-a733-75774e06db8a";
/// The return code that the vendor's command 0xC000 lets the next command have: internal error.
const INTERNAL_ERROR: u64 = 4;
/// What the counter of the vendor's events counts: commands of the mailbox (section 8.2.7.1.4: vendor, group, events).
const MAILBOX_COMMANDS: &str = "0x8086000000000001";
/// Commands that are sent while it counts.
const COMMANDS: u64 = 5;

const SCRIPT: &str = r#"
edac=/sys/bus/edac/devices/cxl_mem0
scrub=$edac/scrub0
ecs=$edac/ecs_fru1
fwctl=/dev/fwctl/fwctl0
bus=/sys/bus/event_source/devices

section scrub_before sh -c "cat $scrub/current_cycle_duration $scrub/enable_background"
section scrub_write sh -c "echo 43200 >$scrub/current_cycle_duration && echo 0 >$scrub/enable_background"
section scrub_after sh -c "cat $scrub/current_cycle_duration $scrub/enable_background"
section scrub_raw memu-guest feature $fwctl get PATROL_SCRUB 4
section ecs sh -c "echo 4096 >$ecs/threshold && echo 1 >$ecs/mode && cat $ecs/threshold $ecs/mode $edac/ecs_fru0/threshold"

for repair in $edac/mem_repair*; do
	[ "$(cat $repair/repair_type)" = ppr ] && ppr=$repair
done
section types sh -c "cat $edac/mem_repair*/repair_type"
section poison sh -c "echo BAD >/sys/kernel/debug/cxl/mem0/inject_poison; cxl list -m mem0 --media-errors"
section ppr sh -c "echo BAD >$ppr/dpa && echo 1 >$ppr/repair; status=\$?; cxl list -m mem0 --media-errors; exit \$status"

section features memu-guest features $fwctl
section tag sh -c "memu-guest feature $fwctl set ASSET_TAG TAG && memu-guest feature $fwctl get ASSET_TAG 16"
section kept memu-guest feature $fwctl set PATROL_SCRUB 0c01

# A raw command is worth a warning to Linux.
section dmesg dmesg
section fail memu-guest raw /dev/cxl/mem0 0xc000 0400
section failed memu-guest raw /dev/cxl/mem0 0x4000
section identify memu-guest raw /dev/cxl/mem0 0x4000

unit=$(ls $bus | grep ^cxl_pmu_mem0)
section unit echo $unit
section events ls $bus/$unit/events
section ticks memu-guest count $unit clock_ticks sleep 1
section commands memu-guest count $unit MAILBOX_COMMANDS sh -c 'for n in $(seq COMMANDS); do memu-guest raw /dev/cxl/mem0 0x4000 >/dev/null; done'"#;

fn scrub_repair_features_raw_commands_and_counters_are_the_devices(lab: &Lab) -> Result<()> {
    let system = lab.own.as_ref().context("no own kernel")?;
    let script = SCRIPT
        .replace("BAD", BAD)
        .replace("ASSET_TAG", ASSET_TAG)
        .replace("TAG", TAG)
        .replace("PATROL_SCRUB", PATROL_SCRUB)
        .replace("MAILBOX_COMMANDS", MAILBOX_COMMANDS)
        .replace("COMMANDS", &COMMANDS.to_string());
    let guest = Machine::new(lab, system, "guest", CONFIG)
        .script(&script)
        .run()?;
    guest.powered_off()?;

    is(&guest, "scrub_before", "86400 1")?;
    guest.passed("scrub_write")?;
    is(&guest, "scrub_after", "43200 0")?;
    // Cycle changeable; 12 hours, at least 1; off.
    ensure!(answer(&guest, "scrub_raw")?["value"] == "010c0100");
    is(&guest, "ecs", "4096 1 256")?;

    is(
        &guest,
        "types",
        "cacheline-sparing row-sparing bank-sparing rank-sparing ppr",
    )?;
    ensure!(guest.passed("poison")?.contains("Injected"));
    let repaired = guest.passed("ppr")?;
    ensure!(!repaired.contains("Injected"), "still bad: {repaired}");

    let features = guest.passed("features")?.trim();
    ensure!(features.lines().count() == 9, "{features}");
    let changeable: Vec<&str> = features
        .lines()
        .filter(|line| !line.contains(r#""writable":0"#))
        .collect();
    let tag = ASSET_TAG.replace('-', "");
    ensure!(
        changeable.len() == 1 && changeable[0].contains(&tag),
        "Linux keeps the others for itself: {features}"
    );
    ensure!(guest.passed("tag")?.contains(TAG));
    let kept = &guest.sections["kept"];
    ensure!(kept.status != Some(0), "{}", kept.text);

    ensure!(answer(&guest, "fail")?["return_code"] == 0);
    ensure!(answer(&guest, "failed")?["return_code"] == INTERNAL_ERROR);
    let identity = answer(&guest, "identify")?;
    ensure!(identity["return_code"] == 0, "{identity}");
    // Begins with the firmware revision: "MEMU ".
    let text = identity["answer"].as_str().unwrap_or_default();
    ensure!(text.starts_with("4d454d5520"), "{identity}");

    ensure!(guest.passed("unit")?.contains("cxl_pmu_mem0"));
    is(&guest, "events", "clock_ticks")?;
    let ticks = answer(&guest, "ticks")?;
    let count = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
    let (ticked, passed) = (count(&ticks, "count"), count(&ticks, "ns"));
    ensure!(
        ticked > passed / 2 && ticked < passed * 2,
        "a tick is a ns: {ticks}"
    );
    let commands = answer(&guest, "commands")?;
    ensure!(count(&commands, "count") == COMMANDS, "{commands}");
    without_complaint(guest.passed("dmesg")?)
}

/// That the words of a section are these.
fn is(guest: &Outcome, section: &str, expected: &str) -> Result<()> {
    let words: Vec<&str> = guest.passed(section)?.split_whitespace().collect();
    let words = words.join(" ");
    ensure!(words == expected, "{section}: {words}, not {expected}");
    Ok(())
}

/// The line of JSON that a section ends with.
fn answer(guest: &Outcome, section: &str) -> Result<Value> {
    let text = guest.passed(section)?;
    let line = text
        .lines()
        .rfind(|line| line.starts_with('{'))
        .with_context(|| format!("{section}: {text}"))?;
    serde_json::from_str(line).with_context(|| format!("{section}: {line}"))
}
