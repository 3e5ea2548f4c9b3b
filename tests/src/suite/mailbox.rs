//! The mailbox as stock clients use it: cxl-cli and the kernel's own files.

use super::boot::without_complaint;
use super::{Test, picture};
use crate::guest::{Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub const TESTS: &[Test] = crate::tests!["mailbox":
    stock_clients_find_poison_update_firmware_and_sanitize,
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
persistent = "256MiB"
backing = "mem0.img"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "mem1"
serial = 0x2
volatile = "256MiB"

[[window]]
name = "w0"
size = "512MiB"
targets = ["hb0"]
"#;

/// Device addresses of a volatile and of a persistent line.
const VOLATILE: u64 = 0x1000;
const PERSISTENT: u64 = 0x1000_0040;

const SCRIPT: &str = r#"
# Waits for a word in a file.
await() { for try in $(seq 100); do grep -q $1 $2 && return; sleep 0.1; done; failed no $1 in $2; }
few_events
trace=/sys/kernel/tracing
echo 1 >$trace/events/cxl/enable
cxl monitor -l /tmp/monitor &
monitor=$!
# The kernel numbers its devices as they come; $m is what it calls the first of ours.
for mem in /sys/bus/cxl/devices/mem*; do
  all="$all ${mem##*/}"
  [ "$(cat $mem/serial)" = 0x1 ] && m=${mem##*/}
done
debug=/sys/kernel/debug/cxl/$m
mem=/sys/bus/cxl/devices/$m

section picture sh -c 'cxl list -vvv 2>/tmp/complaints'
section list cat /tmp/complaints
section inject sh -c "echo VOLATILE >$debug/inject_poison && echo PERSISTENT >$debug/inject_poison"
section poison cxl list -m $m --media-errors
section clear sh -c "echo VOLATILE >$debug/clear_poison"
section left cxl list -m $m --media-errors
await cxl_general_media $trace/trace
section trace cat $trace/trace

section health cxl list -m $m -H
section alert cxl set-alert-config $m --life-used-threshold=60 --life-used-alert=on --over-temperature-threshold=70 --over-temperature-alert=on
section alerts cxl list -m $m -A

printf 'MEMU firmware 2.1\n' >/tmp/firmware
dd if=/dev/zero bs=1k count=20 >>/tmp/firmware 2>/dev/null
dd if=/dev/zero bs=1k count=20 of=/tmp/other 2>/dev/null
# The client would wait for ever for the rest of what was refused.
section refused cxl update-firmware -F /tmp/other $m
await error /sys/class/firmware/$m/error

# Both at once: so much that it takes longer than to see it and to cancel it.
dd if=/dev/zero bs=1M count=4 2>/dev/null | cat /tmp/firmware - >/tmp/large
section begin cxl update-firmware -F /tmp/large $all
section going cxl list -M -F
section cancel cxl update-firmware --cancel $all
for each in $all; do await user-abort /sys/class/firmware/$each/error; done
section cancelled cxl list -M -F
section update cxl update-firmware -w -F /tmp/firmware $all
section firmware cxl list -M -F

section sanitize sh -c "echo 1 >$mem/security/sanitize && cxl wait-sanitize $m && cat $mem/security/state"
section empty cxl list -m $m --media-errors
section erase sh -c "echo 1 >$mem/security/erase"

await general_media /tmp/monitor
kill $monitor
section monitor cat /tmp/monitor
section dmesg dmesg"#;

/// The addresses, of a device or of a region, in a section with `cxl list --media-errors`.
pub(super) fn bad_lines(errors: &Value) -> Vec<u64> {
    let records = errors[0]["media_errors"].as_array();
    let offsets = records.into_iter().flatten();
    let mut lines: Vec<u64> = offsets
        .filter_map(|record| record["offset"].as_u64())
        .collect();
    lines.sort_unstable();
    lines
}

fn stock_clients_find_poison_update_firmware_and_sanitize(lab: &Lab) -> Result<()> {
    let system = lab.systems.first().context("no guest system")?;
    let script = SCRIPT
        .replace("VOLATILE", &format!("{VOLATILE:#x}"))
        .replace("PERSISTENT", &format!("{PERSISTENT:#x}"));
    let guest = Machine::new(lab, system, "guest", CONFIG)
        .script(&script)
        .run()?;
    guest.powered_off()?;
    let complaints = guest.passed("list")?.trim();
    ensure!(complaints.is_empty(), "cxl list complains: {complaints}");
    picture::check(CONFIG, &guest.json("picture")?)?;

    guest.passed("inject")?;
    ensure!(bad_lines(&guest.json("poison")?) == [VOLATILE, PERSISTENT]);
    ensure!(guest.passed("poison")?.contains("Injected"));
    guest.passed("clear")?;
    ensure!(bad_lines(&guest.json("left")?) == [PERSISTENT]);
    let trace = guest.passed("trace")?;
    for part in ["cxl_poison", "Inject Poison", "Injected"] {
        ensure!(trace.contains(part), "no {part} in the trace: {trace}");
    }
    let monitor = guest.passed("monitor")?;
    ensure!(
        monitor.contains(r#""memdev":"mem"#),
        "cxl monitor saw {monitor}"
    );

    let health = &guest.json("health")?[0]["health"];
    ensure!(health["temperature"] == 25, "{health}");
    ensure!(health["dirty_shutdowns"] == 0, "{health}");
    guest.passed("alert")?;
    let alerts = &guest.json("alerts")?[0]["alert_config"];
    ensure!(alerts["life_used_prog_warn_threshold"] == 60, "{alerts}");
    ensure!(
        alerts["life_used_prog_warn_threshold_valid"] == true,
        "{alerts}"
    );

    guest.passed("refused")?;
    firmware_of_several(&guest)?;

    ensure!(guest.passed("sanitize")?.contains("disabled"));
    ensure!(bad_lines(&guest.json("empty")?).is_empty());
    guest.passed("erase")?;
    without_complaint(guest.passed("dmesg")?)
}

/// An update of two devices at once, which is cancelled, and another.
fn firmware_of_several(guest: &Outcome) -> Result<()> {
    guest.passed("begin")?;
    for firmware in firmware(guest, "going")? {
        ensure!(firmware["fw_update_in_progress"] == true, "{firmware}");
        let left = firmware["remaining_size"].as_u64();
        ensure!(left.is_some_and(|left| left > 0), "{firmware}");
    }
    guest.passed("cancel")?;
    for firmware in firmware(guest, "cancelled")? {
        ensure!(firmware["active_slot"] == 1, "{firmware}");
        ensure!(firmware["slot_2_version"].is_null(), "{firmware}");
    }
    guest.passed("update")?;
    for firmware in firmware(guest, "firmware")? {
        ensure!(firmware["active_slot"] == 1, "{firmware}");
        ensure!(firmware["staged_slot"] == 2, "{firmware}");
        ensure!(firmware["slot_2_version"] == "2.1", "{firmware}");
        ensure!(firmware["fw_update_in_progress"] == false, "{firmware}");
    }
    Ok(())
}

/// What `cxl list -F` says of each of the two devices.
fn firmware(guest: &Outcome, section: &str) -> Result<Vec<Value>> {
    let list = guest.json(section)?;
    let memdevs = list.as_array().context("no list")?;
    ensure!(memdevs.len() == 2, "{section}: {list}");
    Ok(memdevs
        .iter()
        .map(|memdev| memdev["firmware"].clone())
        .collect())
}
