//! The mailbox as stock clients use it: cxl-cli and the kernel's own files.

use super::Test;
use super::boot::without_complaint;
use crate::guest::{Lab, Machine};
use anyhow::{Context, Result, ensure};

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
mount -t tracefs trace /sys/kernel/tracing
trace=/sys/kernel/tracing
echo 1 >$trace/events/cxl/enable
cxl monitor -l /tmp/monitor &
monitor=$!
debug=/sys/kernel/debug/cxl/mem0
mem=/sys/bus/cxl/devices/mem0

section list sh -c 'cxl list -vvv 2>&1 >/dev/null'
section inject sh -c "echo VOLATILE >$debug/inject_poison && echo PERSISTENT >$debug/inject_poison"
section poison cxl list -m mem0 --media-errors
section clear sh -c "echo VOLATILE >$debug/clear_poison"
section left cxl list -m mem0 --media-errors
await cxl_general_media $trace/trace
section trace cat $trace/trace

section health cxl list -m mem0 -H
section alert cxl set-alert-config mem0 --life-used-threshold=60 --life-used-alert=on --over-temperature-threshold=70 --over-temperature-alert=on
section alerts cxl list -m mem0 -A

printf 'MEMU firmware 2.1\n' >/tmp/firmware
dd if=/dev/zero bs=1k count=20 >>/tmp/firmware 2>/dev/null
dd if=/dev/zero bs=1k count=20 of=/tmp/other 2>/dev/null
# The client would wait for ever for the rest of what was refused.
section refused cxl update-firmware -F /tmp/other mem0
await error /sys/class/firmware/mem0/error
section update cxl update-firmware -w -F /tmp/firmware mem0
section firmware cxl list -m mem0 -F

section sanitize sh -c "echo 1 >$mem/security/sanitize && cxl wait-sanitize mem0 && cat $mem/security/state"
section empty cxl list -m mem0 --media-errors
section erase sh -c "echo 1 >$mem/security/erase"

await general_media /tmp/monitor
kill $monitor
section monitor cat /tmp/monitor
section dmesg dmesg"#;

/// The device addresses of a section with `cxl list --media-errors`.
fn bad_lines(errors: &serde_json::Value) -> Vec<u64> {
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
    ensure!(monitor.contains("mem0"), "cxl monitor saw {monitor}");

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
    guest.passed("update")?;
    let firmware = &guest.json("firmware")?[0]["firmware"];
    ensure!(firmware["active_slot"] == 1, "{firmware}");
    ensure!(firmware["staged_slot"] == 2, "{firmware}");
    ensure!(firmware["slot_2_version"] == "2.1", "{firmware}");

    ensure!(guest.passed("sanitize")?.contains("disabled"));
    ensure!(bad_lines(&guest.json("empty")?).is_empty());
    guest.passed("erase")?;
    without_complaint(guest.passed("dmesg")?)
}
