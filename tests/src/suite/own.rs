//! What stock kernels leave out, on one that is built with it: `cargo xtask kernel --own`.

use super::Test;
use super::boot::without_complaint;
use super::mailbox::bad_lines;
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
persistent = "512MiB"
partitionable = "256MiB"
backing = "mem0.img"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "mem1"
serial = 0x2
volatile = "256MiB"
[[host_bridge.root_port.device.dynamic_capacity]]
size = "512MiB"

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
/// And what a device address has where there is no memory.
const INVALID_PHYSICAL_ADDRESS: u64 = 0x0f;
/// What the counter of the vendor's events counts: commands of the mailbox (section 8.2.7.1.4: vendor, group, events).
const MAILBOX_COMMANDS: &str = "0x8086000000000001";
/// Commands that are sent while it counts.
const COMMANDS: u64 = 5;
/// Another bad line, which a scan finds, and the record of it that the scan makes: its address with the source, injected,
/// and a length of one line (section 8.2.9.9.4.6).
const WORSE: &str = "0x2000";
const WORSE_FOUND: &str = "03200000000000000100000000000000";
/// All of the media, as the scan's commands are told: from address 0, in lines.
const MEDIA: &str = "00000000000000000000400000000000";
/// The component state dump (section 8.2.9.5.2.3), and what the first line of its text is, behind 0x40 bytes.
const STATE_DUMP: &str = "b3fab4cf01b64332943e5e9962f23567";
const FIRST_LINE: &str = "volatile: 268435456";
/// The vendor debug log (section 8.2.9.5.2.2), the only one that Linux lets programs clear.
const DEBUG_LOG: &str = "5e1819d911a9400c811fd60719403d86";

/// Offsets of lines in a region of two ways, the first of either device's, at 256 bytes, and where both are there.
const FIRST_OFFSET: u64 = 0x1000;
const SECOND_OFFSET: u64 = 0x1100;
const OF_BOTH: u64 = 0x800;

/// Device addresses of what the second device is given: two extents, with a tag, each of a block of 2 MiB, and the second of
/// which the guest takes.
const OFFERED: [&str; 2] = ["0x10000000", "0x10400000"];
const BLOCK: &str = "0x200000";
const EXTENT_TAG: &str = "6d656d752d657874656e742d30303031";
/// The second extent as commands list it (tables 8-168 and 8-170): address and length.
const ACCEPTED: &str = "00004010000000000000200000000000";
/// Of Get Dynamic Capacity Configuration (table 8-165): one region of one, at 256 MiB, two units of 256 MiB to decode, 512 MiB, in
/// blocks of 2 MiB, the third DSMAS, sanitized on release; then the extents and tags that there can be.
const CONFIGURATION: &str = concat!(
    "0101000000000000",
    "0000001000000000",
    "0200000000000000",
    "0000002000000000",
    "0000200000000000",
    "0200000001000000",
    "40000000400000004000000040000000"
);

/// Commands of libcxlmi's that a device with both kinds of memory has.
const LIBRARY: u64 = 40;

const SCRIPT: &str = r#"
# The kernel numbers its devices as they come; $m is what it calls the first of ours, $other the second.
for mem in /sys/bus/cxl/devices/mem*; do
	case $(cat $mem/serial) in 0x1) m=${mem##*/} ;; 0x2) other=${mem##*/} ;; esac
done
for fwctl in /sys/class/fwctl/fwctl*; do
	[ "$(cat $fwctl/device/serial)" = 0x1 ] && break
done
edac=/sys/bus/edac/devices/cxl_$m
scrub=$edac/scrub0
ecs=$edac/ecs_fru1
fwctl=/dev/fwctl/${fwctl##*/}
bus=/sys/bus/event_source/devices

few_events
region=/sys/kernel/debug/cxl/region0
bad() { cxl list -m $1 --media-errors; }
section region cxl create-region -m -t ram -d decoder0.0 -w 2 -g 256 $m $other
section region_inject sh -c "echo FIRST_OFFSET >$region/inject_poison && echo SECOND_OFFSET >$region/inject_poison"
section region_bad cxl list -R -r region0 --media-errors
section first_bad bad $m
section second_bad bad $other
section region_clear sh -c "echo FIRST_OFFSET >$region/clear_poison && echo SECOND_OFFSET >$region/clear_poison"
section region_good cxl list -R -r region0 --media-errors
section region_gone sh -c "cxl disable-region -f region0 && cxl destroy-region -f region0"

section scrub_before sh -c "cat $scrub/current_cycle_duration $scrub/enable_background"
section scrub_write sh -c "echo 43200 >$scrub/current_cycle_duration && echo 0 >$scrub/enable_background"
section scrub_after sh -c "cat $scrub/current_cycle_duration $scrub/enable_background"
section scrub_raw memu-guest feature $fwctl get PATROL_SCRUB 4
section ecs sh -c "echo 4096 >$ecs/threshold && echo 1 >$ecs/mode && cat $ecs/threshold $ecs/mode $edac/ecs_fru0/threshold"

for repair in $edac/mem_repair*; do
	[ "$(cat $repair/repair_type)" = ppr ] && ppr=$repair
done
section types sh -c "cat $edac/mem_repair*/repair_type"
section poison sh -c "echo BAD >/sys/kernel/debug/cxl/$m/inject_poison; cxl list -m $m --media-errors"
section ppr sh -c "echo BAD >$ppr/dpa && echo 1 >$ppr/repair; status=\$?; cxl list -m $m --media-errors; exit \$status"

section features memu-guest features $fwctl
section tag sh -c "memu-guest feature $fwctl set ASSET_TAG TAG && memu-guest feature $fwctl get ASSET_TAG 16"
section kept memu-guest feature $fwctl set PATROL_SCRUB 0c01

# A raw command is worth a warning to Linux.
section dmesg dmesg
section fail memu-guest raw /dev/cxl/$m 0xc000 0400
section failed memu-guest raw /dev/cxl/$m 0x4000
section identify memu-guest raw /dev/cxl/$m 0x4000

unit=$(ls $bus | grep ^cxl_pmu_$m)
section unit echo $unit
section events ls $bus/$unit/events
section ticks memu-guest count $unit clock_ticks sleep 1
section commands memu-guest count $unit MAILBOX_COMMANDS sh -c "for n in \$(seq COMMANDS); do memu-guest raw /dev/cxl/$m 0x4000 >/dev/null; done"

# Linux keeps some commands back until it is told not to. For none of others that goes on in the background does it wait: it
# gives up, and the device goes on.
echo 1 >/sys/kernel/debug/cxl/mbox/raw_allow_all
raw() { memu-guest raw /dev/cxl/$m "$@"; }
at_last() { what=$1; shift; for i in $(seq 100); do raw "$@" >/tmp/raw; grep -q "$what" /tmp/raw && break; sleep 0.1; done; cat /tmp/raw; }
section worse sh -c "echo WORSE >/sys/kernel/debug/cxl/$m/inject_poison"
section scan_time raw 0x4303 MEDIA
raw 0x4304 MEDIA00 >/dev/null
section scanned at_last '"return_code":0,' 0x4305
section operations raw 0x4402 000000000000000000000900
raw 0x4402 010100000100000000200000000000004000000000000000 >/dev/null
section zeroed cxl list -m $m --media-errors
section sub_list raw 0x0405 0101
section abilities raw 0x0402 STATE_DUMP
raw 0x0404 STATE_DUMP >/dev/null
section dump at_last '"answer":"[0-9a-f]*[1-9a-f]' 0x0401 STATE_DUMP4000000013000000
section clear raw 0x0403 DEBUG_LOG
section cleared raw 0x0401 DEBUG_LOG0800000008000000
raw 0x4000 >/dev/null
section noted raw 0x0401 DEBUG_LOG0800000008000000
section requests memu-guest requests /dev/cxl/$m

# Dynamic capacity, which Linux has no driver for yet.
given() { memu-guest raw /dev/cxl/$other "$@"; }
section dynamic given 0x4800 0800
section none given 0x4801 0800000000000000
step offered
section offer given 0x0100 04
section accept given 0x4802 0100000000000000ACCEPTED0000000000000000
section accepted given 0x4801 0800000000000000
section elsewhere given 0x4302 000000100000000000$(printf '%0126d' 0)
section there given 0x4302 000040100000000000$(printf '%0126d' 0)
step reclaimed
section asked given 0x0100 04
section release given 0x4803 0100000000000000ACCEPTED0000000000000000
section released given 0x4801 0800000000000000

# A command that does not come back, until it does.
step stuck
section timeout sh -c "! memu-guest raw /dev/cxl/$other 0x4000"
step mended
section answers given 0x4000
section late dmesg"#;

fn scrub_repair_features_raw_commands_and_counters_are_the_devices(lab: &Lab) -> Result<()> {
    let system = lab.own.as_ref().context("no own kernel")?;
    let script = SCRIPT
        .replace("FIRST_OFFSET", &FIRST_OFFSET.to_string())
        .replace("SECOND_OFFSET", &SECOND_OFFSET.to_string())
        .replace("WORSE", WORSE)
        .replace("MEDIA", MEDIA)
        .replace("STATE_DUMP", STATE_DUMP)
        .replace("DEBUG_LOG", DEBUG_LOG)
        .replace("BAD", BAD)
        .replace("ASSET_TAG", ASSET_TAG)
        .replace("TAG", TAG)
        .replace("ACCEPTED", ACCEPTED)
        .replace("PATROL_SCRUB", PATROL_SCRUB)
        .replace("MAILBOX_COMMANDS", MAILBOX_COMMANDS)
        .replace("COMMANDS", &COMMANDS.to_string());
    let mut guest = Machine::new(lab, system, "guest", CONFIG)
        .cmdline("memhp_default_state=offline")
        .script(&script)
        .start()?;
    guest.wait_for_step("offered")?;
    let [first, second] = OFFERED;
    guest.control_text(&[
        "extent", "add", "mem1", first, BLOCK, second, BLOCK, "--tag", EXTENT_TAG,
    ])?;
    guest.go_on()?;
    guest.wait_for_step("reclaimed")?;
    let tree = guest.control_text(&["tree"])?;
    guest.control_text(&["extent", "release", "mem1", second, BLOCK])?;
    guest.go_on()?;
    guest.wait_for_step("stuck")?;
    guest.control(&["inject", "fault", "mem1", "stuck-doorbell"])?;
    guest.go_on()?;
    guest.wait_for_step("mended")?;
    guest.control(&["inject", "mend", "mem1"])?;
    guest.go_on()?;
    let guest = guest.wait()?;
    guest.powered_off()?;
    guest.passed("timeout")?;
    ensure!(answer(&guest, "answers")?["return_code"] == 0);
    let late = guest.passed("late")?;
    ensure!(late.contains("mailbox timeout"), "{late}");
    dynamic_capacity(&guest, &tree)?;
    poison_by_region(&guest)?;

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

    ensure!(guest.passed("unit")?.contains("cxl_pmu_mem"));
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
    what_no_client_of_linux_asks_for(&guest)?;
    let requests = answer(&guest, "requests")?;
    ensure!(count(&requests, "served") == LIBRARY, "{requests}");
    without_complaint(guest.passed("dmesg")?)
}

/// Poison at offsets of a region is that of its devices, and so is what is cleared.
fn poison_by_region(guest: &Outcome) -> Result<()> {
    for section in ["region", "region_inject", "region_clear", "region_gone"] {
        guest.passed(section)?;
    }
    for (section, expected) in [
        ("region_bad", &[FIRST_OFFSET, SECOND_OFFSET][..]),
        ("first_bad", &[OF_BOTH]),
        ("second_bad", &[OF_BOTH]),
        ("region_good", &[]),
    ] {
        let bad = bad_lines(&guest.json(section)?);
        ensure!(bad == expected, "{section}: {bad:x?}, not {expected:x?}");
    }
    Ok(())
}

/// Scans of the media, operations on it, and logs.
fn what_no_client_of_linux_asks_for(guest: &Outcome) -> Result<()> {
    guest.passed("worse")?;
    // 25 ms, as 100 ms are for 1 GiB.
    returns(guest, "scan_time", "19000000")?;
    let scanned = answer(guest, "scanned")?;
    let found = scanned["answer"].as_str().unwrap_or_default();
    // No rest of the range, no more records, one here.
    let header = format!("{}00000100", "0".repeat(32));
    ensure!(
        found.starts_with(&header) && found.ends_with(WORSE_FOUND) && found.len() == 2 * 0x30,
        "{scanned}"
    );
    // In units of 64 bytes; three operations: to discover, sanitize and zero.
    returns(guest, "operations", "400000000000000003000300000001000101")?;
    let zeroed = guest.passed("zeroed")?;
    ensure!(!zeroed.contains("Injected"), "still bad: {zeroed}");

    // One of three, from the second on: the vendor's, of 1 KiB.
    let list = format!("0100030001000000{DEBUG_LOG}00040000");
    returns(guest, "sub_list", &list)?;
    // It can be cleared and populated.
    returns(guest, "abilities", "03000000")?;
    let text: String = FIRST_LINE
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    returns(guest, "dump", &text)?;
    returns(guest, "clear", "")?;
    // Of the first command in it: opcode, return code, length of its payload. Those about logs are not noted.
    returns(guest, "cleared", "0000000000000000")?;
    returns(guest, "noted", "0040000000000000")
}

/// What the host gives is an event, the guest's once it says so, and the host's again when it has been released.
fn dynamic_capacity(guest: &Outcome, tree: &str) -> Result<()> {
    returns(guest, "dynamic", CONFIGURATION)?;
    let none = "0".repeat(32);
    returns(guest, "none", &none)?;
    // Behind the header, 32 bytes; of each record, 48 bytes in: the event, and its extent 8 bytes behind that.
    let record = |section: &str, index: usize| -> Result<(String, String)> {
        let events = answer(guest, section)?;
        let text = events["answer"].as_str().unwrap_or_default();
        let at = 2 * (0x20 + index * 0x80 + 0x30);
        let part = |from: usize, to: usize| text.get(at + from..at + to).map(str::to_string);
        part(0, 16)
            .zip(part(16, 80))
            .with_context(|| format!("{section}: {events}"))
    };
    let extent = |address: &str| format!("{address}0000200000000000{EXTENT_TAG}");
    // Add, in region 0, with more of the offer behind it; and the last of it.
    ensure!(record("offer", 0)? == ("0000000000010000".into(), extent("0000001000000000")));
    ensure!(record("offer", 1)? == ("0".repeat(16), extent("0000401000000000")));
    returns(guest, "accept", "")?;
    // One of one, the first change of the list; no place among shared extents.
    let accepted = format!(
        "01000000010000000100000000000000{ACCEPTED}{EXTENT_TAG}{}",
        "0".repeat(16)
    );
    returns(guest, "accepted", &accepted)?;
    ensure!(
        tree.contains(&format!(
            "extent [0x10400000-0x105fffff]: 2MiB, tag {EXTENT_TAG}"
        )) && !tree.contains("offered"),
        "{tree}"
    );
    // A line of what was not accepted cannot be cleared of poison.
    ensure!(answer(guest, "elsewhere")?["return_code"] == INVALID_PHYSICAL_ADDRESS);
    returns(guest, "there", "")?;
    ensure!(
        record("asked", 2)?
            == (
                "0100000000000000".into(),
                extent("0000401000000000").replace(EXTENT_TAG, &"0".repeat(32))
            )
    );
    returns(guest, "release", "")?;
    returns(guest, "released", "00000000000000000200000000000000")
}

/// That a raw command succeeds with this answer.
fn returns(guest: &Outcome, section: &str, expected: &str) -> Result<()> {
    let found = answer(guest, section)?;
    ensure!(
        found["return_code"] == 0 && found["answer"] == expected,
        "{section}: {found}, not {expected}"
    );
    Ok(())
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
