//! The counterparts of ndctl's own tests of CXL, on hardware instead of a mock: topology, labels, partitions, QoS classes,
//! regions in parts, what a busy device refuses, events of every log, and protocol errors through AER.

use super::Test;
use super::boot::without_complaint;
use super::region::stock;
use crate::guest::{Guest, Lab, Machine};
use anyhow::{Result, ensure};
use serde_json::json;

pub const TESTS: &[Test] = crate::tests!["clients":
    stock_clients_do_what_ndctls_own_tests_do,
    events_of_every_log_and_protocol_errors_reach_the_kernel,
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
name = "both"
serial = 0x1
volatile = "512MiB"
persistent = "256MiB"
partitionable = "512MiB"
backing = "both.img"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "plain"
serial = 0x2
volatile = "256MiB"

[[window]]
name = "w0"
size = "2GiB"
targets = ["hb0"]
[[window]]
name = "w1"
size = "256MiB"
targets = ["hb0"]
qtg = 1
"#;

/// The kernel numbers its devices as they come; `$both` and `$plain` are what it calls ours.
const NAMES: &str = r#"
for m in /sys/bus/cxl/devices/mem*; do
  read -r serial <$m/serial
  case $((serial)) in 1) both=${m##*/} ;; 2) plain=${m##*/} ;; esac
done
trace=/sys/kernel/tracing
mount -t tracefs trace $trace 2>/dev/null
echo 1 >$trace/events/cxl/enable
# Waits until a command holds, or far longer than it takes.
wait_for() { for i in $(seq 200); do "$@" && return; sleep 0.1; done; return 1; }
"#;

const SCRIPT: &str = r#"
objects() { cxl list -BEMPDT 2>/dev/null | grep -cE '"(memdev|endpoint|decoder|port)":'; }
objects_are() { [ "$(objects)" = $1 ]; }
# What takes a part of the tree away, and what brings it back.
comes_back() {
  all=$(objects)
  sh -c "$1" || return
  [ $(objects) -lt $all ] || { echo "still $all"; return 1; }
  sh -c "$2" || return
  wait_for objects_are $all || { objects; return 1; }
}
labels() {
  nmem=$(ndctl list -D | sed -n 's/.*"dev":"\(nmem[0-9]*\)".*/\1/p')
  [ -n "$nmem" ] || return
  # Nobody else may use them meanwhile.
  ndctl disable-dimm $nmem || return
  head -c 4096 /dev/urandom >/tmp/new
  ndctl write-labels -s 4096 -i /tmp/new $nmem && ndctl read-labels -s 4096 -o /tmp/read $nmem && cmp /tmp/new /tmp/read &&
    cxl read-labels -s 4096 -o /tmp/read $both && cmp /tmp/new /tmp/read &&
    ndctl zero-labels -s 4096 $nmem && ndctl read-labels -s 4096 -o /tmp/read $nmem || return
  head -c 4096 /dev/zero | cmp - /tmp/read && ndctl enable-dimm $nmem
}
class() { sed -n 's/.*qos_class":\([0-9]*\).*/\1/p' | head -n 1; }
qos() {
  window=$(cxl list -D -d decoder0.0 | class) device=$(cxl list -M -m $plain | class)
  echo "$window $device"
  [ -n "$window" ] && [ "$window" = "$device" ]
}
a_part() { cxl create-region -Q -m -t ram -d $1 -w 1 -s 256M $2; }
another_class() { ! a_part decoder0.1 $plain; }
parts() { a_part decoder0.0 $both && a_part decoder0.0 $both && ! a_part decoder0.0 $both; }
# Not while a region is on it.
busy() { ! sh -c "echo 1 >/sys/bus/cxl/devices/$both/security/sanitize"; }
destroy() { for region in $(ls -r /sys/bus/cxl/devices | grep region); do cxl destroy-region -f $region || return; done; }

section memdev comes_back "cxl disable-memdev $plain" "cxl enable-memdev $plain"
section port comes_back 'cxl disable-port -f port1' 'cxl enable-port -m port1'
section labels labels
section qos qos
section another-class another_class
section parts parts
section busy busy
section destroy destroy
section idle sh -c "echo 1 >/sys/bus/cxl/devices/$plain/security/sanitize && cxl wait-sanitize $plain"
section partition sh -c "cxl set-partition -t ram -s 256M $both >/dev/null && cxl list -m $both -I"
section dmesg dmesg
"#;

fn stock_clients_do_what_ndctls_own_tests_do(lab: &Lab) -> Result<()> {
    let outcome = Machine::new(lab, stock(lab)?, "guest", CONFIG)
        .cmdline("memhp_default_state=offline")
        .script(&format!("{NAMES}{SCRIPT}"))
        .run()?;
    outcome.powered_off()?;
    for section in [
        "memdev",
        "port",
        "labels",
        "qos",
        "another-class",
        "parts",
        "busy",
        "destroy",
        "idle",
    ] {
        outcome.passed(section)?;
    }
    // Half of what is partitionable, beside what always is volatile.
    let partition = outcome.passed("partition")?;
    for size in [
        r#""active_volatile_size":536870912"#,
        r#""next_volatile_size":805306368"#,
        r#""next_persistent_size":536870912"#,
    ] {
        ensure!(partition.contains(size), "no {size}:\n{partition}");
    }
    without_complaint(outcome.passed("dmesg")?)
}

/// Records of the informational log that came while nobody could read them; it holds 64.
const FLOOD: u64 = 70;
const HELD: u64 = 64;

const EVENTS: &str = r#"
seen() { grep -q "$1" $trace/trace; }
device=$(readlink -f /sys/bus/cxl/devices/$plain/..)
for function in $device ${device%/*}; do
  # Linux 6.12 leaves internal errors masked where there is a CXL port.
  setpci -s ${function##*/} ECAP_AER+8.L=0:400000
  setpci -s ${function##*/} ECAP_AER+14.L=0:4000
done
# For its data base.
mkdir -p /var/lib/rasdaemon
rasdaemon -f -r >/tmp/rasdaemon 2>&1 &
rasdaemon=$!
wait_for grep -q Listening /tmp/rasdaemon
step events
section quiet wait_for sh -c "[ \$(grep -c 'cxl_general_media.*log=Informational' $trace/trace) -ge HELD ]"
section calm dmesg
step correctable
section correctable wait_for seen cxl_aer_correctable_error
step uncorrectable
section uncorrectable wait_for seen cxl_aer_uncorrectable_error
section recovered wait_for sh -c 'dmesg | grep -q "device recovery successful"'
section trace cat $trace/trace
wait_for grep -q 'cxl_aer_uncorrectable_error.*first error' /tmp/rasdaemon
kill $rasdaemon
section rasdaemon cat /tmp/rasdaemon
section back sh -c 'cxl list -m $0 | grep -q serial && ! cxl list -m $0 | grep -q disabled' $plain
"#;

/// Puts records into all four logs while the guest stands still, and more than it holds into the first.
fn log_events(guest: &Guest) -> Result<()> {
    guest.control(&["pause"])?;
    for n in 0..FLOOD {
        let what = json!({"media-event": {"severity": "informational", "dpa": n * 64}});
        guest.inject("plain", &what)?;
    }
    for n in 0..3 {
        let what = json!({"dram-event": {"severity": "failure", "dpa": 0x1000 * n, "bank": n, "row": 7, "column": 9}});
        guest.inject("plain", &what)?;
    }
    for n in 0..2 {
        let what = json!({"media-event": {"severity": "fatal", "dpa": 0x2000 * n}});
        guest.inject("plain", &what)?;
    }
    // Beyond every threshold: memory module events.
    guest.inject("plain", &json!({"health": {"temperature": 120}}))?;
    guest.control(&["resume"])?;
    Ok(())
}

fn events_of_every_log_and_protocol_errors_reach_the_kernel(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(lab, stock(lab)?, "guest", CONFIG)
        .script(&format!(
            "{NAMES}{}",
            EVENTS.replace("HELD", &HELD.to_string())
        ))
        .start()?;
    guest.wait_for_step("events")?;
    log_events(&guest)?;
    guest.go_on()?;
    guest.wait_for_step("correctable")?;
    guest.inject("plain", &json!({"correctable": {"error": "mem-data-ecc"}}))?;
    guest.go_on()?;
    guest.wait_for_step("uncorrectable")?;
    let what = json!({"uncorrectable": {"error": "mem-data-parity", "header": [0xfeed_f00d_u32]}});
    guest.inject("plain", &what)?;
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    without_complaint(outcome.passed("calm")?)?;
    for section in ["quiet", "correctable", "uncorrectable", "recovered", "back"] {
        outcome.passed(section)?;
    }
    let overflow = format!("{} records from", FLOOD - HELD);
    let trace = [
        (["cxl_general_media:", "log=Informational"], HELD),
        (["cxl_overflow:", &overflow], 1),
        (["cxl_dram:", "log=Failure"], 3),
        (["cxl_memory_module:", "log=Failure"], 1),
        (["cxl_general_media:", "log=Fatal"], 2),
        (["cxl_aer_correctable_error:", "'Memory Data ECC Error'"], 1),
        (
            ["cxl_aer_uncorrectable_error:", "'Memory Data Parity Error'"],
            1,
        ),
    ];
    count(outcome.passed("trace")?, &trace)?;
    // That of Debian 13 wants a field which Linux has from 6.13 on, and says so behind those that it reads first.
    let overflow = format!("{} errors from", FLOOD - HELD);
    let rasdaemon = [
        (["cxl_general_media ", "log type:Informational"], HELD),
        (["cxl_overflow ", &overflow], 1),
        (["cxl_dram ", "log type:Failure"], 3),
        (["cxl_memory_module ", "log type:Failure"], 1),
        (["cxl_general_media ", "log type:Fatal"], 2),
        (["cxl_aer_correctable_error ", "'Memory Data ECC Error'"], 1),
        (
            [
                "cxl_aer_uncorrectable_error ",
                "first error:'Memory Data Parity Error'",
            ],
            1,
        ),
    ];
    count(outcome.passed("rasdaemon")?, &rasdaemon)
}

/// Fails unless there are as many lines with these words.
fn count(text: &str, wanted: &[([&str; 2], u64)]) -> Result<()> {
    for (words, wanted) in wanted {
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        let found = text.lines().filter(has_all).count() as u64;
        ensure!(
            found == *wanted,
            "{found} of {words:?}, not {wanted}:\n{text}"
        );
    }
    Ok(())
}
