//! Expanders that come to a running guest and leave it: announced, by surprise, and fifty times over.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Test;
use super::boot::without_complaint;
use crate::guest::{Guest, Lab, Machine};

pub const TESTS: &[Test] = crate::tests!["hotplug":
    expanders_come_and_go_in_order_by_surprise_and_fifty_times_over,
];

/// One expander that stays, and five empty slots.
const SLOTS: &str = r#"
[machine]
memory = "2GiB"
[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
hotplug = true
[host_bridge.root_port.device]
type = "type3"
name = "stays"
serial = 1
volatile = "256MiB"
[[host_bridge.root_port]]
name = "rp1"
hotplug = true
[[host_bridge.root_port]]
name = "rp2"
hotplug = true
[[host_bridge.root_port]]
name = "rp3"
hotplug = true
[[host_bridge.root_port]]
name = "rp4"
hotplug = true
[[host_bridge.root_port]]
name = "rp5"
hotplug = true
[[window]]
name = "w0"
size = "2GiB"
targets = ["hb0"]
"#;
/// The ports with empty slots; slots are counted from 1, and the first one is taken.
const PORTS: [&str; 5] = ["rp1", "rp2", "rp3", "rp4", "rp5"];
/// So many waves of one device for each port make fifty.
const WAVES: u64 = 10;

/// Shell functions for devices that come and go.
pub(super) const TOOLS: &str = r#"
memdev() { for m in /sys/bus/cxl/devices/mem*; do [ "$(cat $m/serial 2>/dev/null)" = $1 ] && echo ${m##*/} && return 0; done; return 1; }
no_memdev() { ! memdev $1; }
wait_for() { for i in $(seq 600); do "$@" >/dev/null && return 0; sleep 0.1; done; return 1; }
# A slot that is still coming on refuses to be switched off.
switch_off() { until [ "$(cat /sys/bus/pci/slots/$1/power)" = 0 ]; do echo 0 >/sys/bus/pci/slots/$1/power; sleep 0.1; done 2>/dev/null; }
"#;

const SCRIPT: &str = r#"
memdevs() { [ "$(ls -d /sys/bus/cxl/devices/mem* | wc -l)" = $1 ]; }
has_dax() { ls -d /sys/bus/dax/devices/dax* 2>/dev/null; }
no_dax() { ! has_dax; }
# The driver has waited for the doorbell for its two seconds, and has given up.
fails() { wait_for sh -c 'dmesg | grep -qE "mailbox timeout|timeout awaiting mailbox"' && no_memdev $1; }
works() {
  for device in /sys/bus/pci/devices/*; do
    [ "$(cat $device/class)" = 0x050210 ] && [ ! -e $device/driver ] && echo ${device##*/} >/sys/bus/pci/drivers/cxl_pci/bind
  done
  wait_for memdev $1
}
# Linux switches a slot off whose link does not come up.
back() { for i in $(seq 600); do memdev $1 && return; echo 1 >/sys/bus/pci/slots/$2/power; sleep 0.1; done 2>/dev/null; return 1; }
slots_are() { for s in 2 3 4 5 6; do [ "$(cat /sys/bus/pci/slots/$s/power)" = $1 ] || return 1; done; }
make_region() { wait_for memdev $1 && cxl create-region -m -t ram -d decoder0.0 -w 1 $(memdev $1); }
online() {
  wait_for has_dax
  for dax in /sys/bus/dax/devices/dax*; do dax=${dax##*/}; done
  [ -e /sys/bus/dax/drivers/kmem/$dax ] || daxctl reconfigure-device --mode=system-ram $dax
  node=$(cat /sys/bus/dax/devices/$dax/target_node)
}
take_back() { daxctl offline-memory $dax && daxctl disable-device $dax; cxl disable-region -f $region && cxl destroy-region -f $region; }
the_region() { for region in /sys/bus/cxl/devices/region*; do region=${region##*/}; done; }

section slots sh -c 'cd /sys/bus/pci/slots; for s in *; do echo "$s $(cat $s/address) $(cat $s/power)"; done'
step in-order
section comes make_region 0x2
online
section used memu-guest on-node $node fill-sum 16
the_region
section taken-back take_back
step let-go
section gone wait_for no_memdev 0x2
section calm dmesg
dmesg -C

step by-surprise
section comes-too make_region 0x3
for dax in /sys/bus/dax/devices/dax*; do dax=${dax##*/}; done
daxctl reconfigure-device --mode=devdax -f $dax
section written memu-guest pattern write /dev/$dax 0 4194304 7
( while memu-guest pattern check /dev/$dax 0 4194304 7 >/dev/null 2>&1; do :; done; echo "reader ended" ) &
step pull-it-out
section ripped wait_for no_memdev 0x3
wait
wait_for no_dax
step faulty
section fails fails 0x4
step mended
section works works 0x4
step faulty-out
section out wait_for no_memdev 0x4
step link-down
section fell wait_for no_memdev 0x1
step link-up
section rose back 0x1 1
section others make_region 0x1
online

wave=0
while [ $wave -lt 10 ]; do
  step empty
  wait_for memdevs 6 || failed "wave $wave did not come"
  if [ $((wave % 2)) = 0 ]; then
    for s in 2 3 4 5 6; do switch_off $s & done
    wait
  fi
  step full
  wait_for memdevs 1 && wait_for slots_are 0 || failed "wave $wave did not leave"
  # Linux looks away from a slot for a second after it has switched it off.
  [ $((wave % 2)) = 0 ] || sleep 1
  wave=$((wave + 1))
done
step done
section after dmesg
"#;

/// The table of an expander, in a file.
fn device(lab: &Lab, name: &str, serial: u64) -> Result<PathBuf> {
    let file = lab.work.join(format!("{name}.toml"));
    let table =
        format!("type = \"type3\"\nname = \"{name}\"\nserial = {serial}\nvolatile = \"256MiB\"\n");
    fs::write(&file, table)?;
    Ok(file)
}

fn add(guest: &Guest, port: &str, file: &std::path::Path) -> Result<()> {
    let file = file.to_str().context("a path in UTF-8")?;
    guest.control(&["add", port, file]).map(drop)
}

/// What a VMM holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holdings {
    memslots: usize,
    /// File descriptors, by what they are open on.
    files: BTreeMap<String, usize>,
    threads: usize,
    mappings: usize,
    /// Anonymous memory, in KiB: the guest's RAM and the devices' media are shared memory.
    anonymous: u64,
}

fn holdings(guest: &Guest) -> Result<Holdings> {
    let process = PathBuf::from(format!("/proc/{}", guest.pid()));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(process.join("fd"))? {
        // A client of the control socket may go while one looks.
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        let kind = target.split(":[").next().unwrap_or(&target);
        *files.entry(kind.to_string()).or_default() += 1;
    }
    let status = fs::read_to_string(process.join("status"))?;
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("no RssAnon in the process's status")?;
    Ok(Holdings {
        memslots: guest.control(&["memslots"])?.as_array().map_or(0, Vec::len),
        files,
        threads: fs::read_dir(process.join("task"))?.count(),
        mappings: fs::read_to_string(process.join("maps"))?.lines().count(),
        anonymous,
    })
}

/// What the VMM holds once its control socket has no client left, whose thread ends a moment after the client.
fn settled(guest: &Guest, wanted: Option<&Holdings>) -> Result<Holdings> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = holdings(guest)?;
        let same = wanted.is_none_or(|wanted| {
            (found.memslots, &found.files, found.threads)
                == (wanted.memslots, &wanted.files, wanted.threads)
        });
        let quiet = wanted.is_some() || holdings(guest)?.files == found.files;
        if same && quiet || Instant::now() > deadline {
            return Ok(found);
        }
    }
}

fn expanders_come_and_go_in_order_by_surprise_and_fifty_times_over(lab: &Lab) -> Result<()> {
    let system = lab.systems.first().context("no guest system")?;
    let mut guest = Machine::new(lab, system, "guest", SLOTS)
        .cmdline("memhp_default_state=offline")
        .script(&format!("{TOOLS}{SCRIPT}"))
        .start()?;

    guest.wait_for_step("in-order")?;
    add(&guest, "rp1", &device(lab, "mem2", 2)?)?;
    guest.go_on()?;
    guest.wait_for_step("let-go")?;
    guest.control(&["remove", "mem2"])?;
    guest.go_on()?;

    guest.wait_for_step("by-surprise")?;
    add(&guest, "rp2", &device(lab, "mem3", 3)?)?;
    guest.go_on()?;
    guest.wait_for_step("pull-it-out")?;
    let mapped = |guest: &Guest| -> Result<bool> {
        Ok(guest.control(&["memslots"])?.to_string().contains("mem3"))
    };
    ensure!(mapped(&guest)?, "mem3's region is not mapped");
    guest.control(&["remove", "mem3", "--surprise"])?;
    ensure!(!mapped(&guest)?, "mem3 is mapped although it is gone");
    guest.go_on()?;

    guest.wait_for_step("faulty")?;
    let faulty = device(lab, "mem4", 4)?;
    let table = fs::read_to_string(&faulty)? + "fault = \"stuck-doorbell\"\n";
    fs::write(&faulty, table)?;
    add(&guest, "rp3", &faulty)?;
    guest.go_on()?;
    guest.wait_for_step("mended")?;
    guest.control(&["inject", "mend", "mem4"])?;
    guest.go_on()?;
    guest.wait_for_step("faulty-out")?;
    guest.control(&["remove", "mem4", "--surprise"])?;
    guest.go_on()?;

    guest.wait_for_step("link-down")?;
    guest.control(&["inject", "link-down", "rp0"])?;
    guest.go_on()?;
    guest.wait_for_step("link-up")?;
    guest.control(&["inject", "mend", "rp0"])?;
    guest.go_on()?;

    guest.wait_for_step("empty")?;
    let before = settled(&guest, None)?;
    for wave in 0..WAVES {
        let names = PORTS.map(|port| format!("{port}-{wave}"));
        for (index, (port, name)) in (0..).zip(PORTS.iter().zip(&names)) {
            add(&guest, port, &device(lab, name, 100 + 10 * wave + index)?)?;
        }
        guest.go_on()?;
        guest.wait_for_step("full")?;
        for name in &names {
            let how: &[&str] = if wave % 2 == 0 { &[] } else { &["--surprise"] };
            guest.control(&[&["remove", name], how].concat())?;
        }
        guest.go_on()?;
        let next = if wave + 1 < WAVES { "empty" } else { "done" };
        guest.wait_for_step(next)?;
    }
    let after = settled(&guest, Some(&before))?;
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.powered_off()?;

    let slots = outcome.passed("slots")?;
    ensure!(
        slots.trim().lines().count() == 6 && slots.contains("1 0000:21:00 1"),
        "six slots, the first of them on:\n{slots}"
    );
    for name in [
        "comes",
        "used",
        "taken-back",
        "gone",
        "comes-too",
        "written",
        "ripped",
        "fails",
        "works",
        "out",
        "fell",
        "rose",
        "others",
    ] {
        outcome.passed(name)?;
    }
    without_complaint(outcome.passed("calm")?)?;
    let log = outcome.passed("after")?;
    for complaint in ["BUG:", "Oops", "Call Trace"] {
        ensure!(!log.contains(complaint), "{complaint} in the log:\n{log}");
    }
    let failures: Vec<&String> = outcome
        .console
        .iter()
        .filter(|line| line.starts_with("@@FAILED"))
        .collect();
    ensure!(failures.is_empty(), "{failures:?}\n{log}");
    ensure!(
        outcome.console.iter().any(|line| line == "reader ended"),
        "the reader of the memory that went still reads"
    );
    ensure!(
        (before.memslots, &before.files, before.threads)
            == (after.memslots, &after.files, after.threads),
        "before fifty rounds: {before:?}\nafter: {after:?}"
    );
    ensure!(
        after.mappings <= before.mappings + 8 && after.anonymous < before.anonymous + 4096,
        "before fifty rounds: {before:?}\nafter: {after:?}"
    );
    Ok(())
}
