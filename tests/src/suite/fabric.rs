//! A fabric manager in the guest, by the mailbox of a switch, that takes an expander from its host and gives it back.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::boot::without_complaint;
use super::hotplug::TOOLS;
use crate::guest::{Lab, Machine, Outcome};

pub const TESTS: &[Test] = crate::tests!["fabric":
    a_fabric_manager_takes_an_expander_from_its_host_and_gives_it_back,
];

/// A switch with a mailbox above an expander in a slot with hot-plug, the machine's second, another beside it, one of several
/// logical devices and one of several heads.
const SWITCH: &str = r#"
[machine]
memory = "1GiB"
[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "switch"
name = "sw0"
serial = 0x100
mailbox_cci = true
[[host_bridge.root_port.device.port]]
name = "dsp0"
hotplug = true
[host_bridge.root_port.device.port.device]
type = "type3"
name = "lent"
serial = 9
volatile = "256MiB"
[[host_bridge.root_port.device.port]]
name = "dsp1"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "beside"
serial = 2
volatile = "512MiB"
[[host_bridge.root_port.device.port.device.dynamic_capacity]]
size = "256MiB"
[[host_bridge.root_port.device.port]]
name = "dsp2"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "parts"
serial = 3
volatile = "256MiB"
logical_devices = 3
logical_device = 1
[[host_bridge.root_port.device.port]]
name = "dsp3"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "heads"
serial = 4
volatile = "256MiB"
heads = 2
[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
"#;

const SCRIPT: &str = r#"
# Makes a region of a device, and has its memory mapped by whoever wants to.
map() {
  wait_for memdev $1 && cxl create-region -m -t ram -d decoder0.0 -w 1 $(memdev $1) >/tmp/$1 || return
  cat /tmp/$1
  dax=$(dax_of $1)
  wait_for test -e /sys/bus/dax/devices/$dax && daxctl reconfigure-device --mode=devdax -f $dax && wait_for test -c /dev/$dax
}
region_of() { sed -n 's/.*"region":"\(region[0-9]*\)".*/\1/p' /tmp/$1; }
dax_of() { region=$(region_of $1); echo dax${region#region}.0; }
write() { memu-guest pattern write /dev/$(dax_of $1) 0 4194304 $1; }
check() { memu-guest pattern check /dev/$(dax_of $1) 0 4194304 $1; }
unmap() { cxl disable-region -f $(region_of $1) && cxl destroy-region -f $(region_of $1); }
# What cxl-cli does not find its way to: a region whose device is gone.
forget() {
  wait_for test ! -e /sys/bus/dax/devices/$(dax_of $1) &&
  echo $(region_of $1) >/sys/bus/cxl/devices/decoder0.0/delete_region &&
  test ! -e /sys/bus/cxl/devices/$(region_of $1)
}
# The host lets go by itself, and the fabric manager waits for that.
let_go() { memu-guest fabric unbind 0 wait & client=$!; switch_off 2; wait $client; }
# What there is to see with the device, without it and with it again, if it goes so.
takes() {
  how=$1; shift
  section unbound-$how "$@"
  section gone-$how wait_for no_memdev 0x9
  section without-$how cxl list -M
  [ $how = orderly ] && section requests memu-guest fabric requests 0
  section bound-$how memu-guest fabric bind 0
  section back-$how wait_for memdev 0x9
  section with-$how cxl list -M
  section seen-$how memu-guest fabric
}

section slots sh -c 'cd /sys/bus/pci/slots; for s in *; do echo "$s $(cat $s/power)"; done'
section seen memu-guest fabric
section beside map 0x2
section beside-written write 0x2

section lent map 0x9
section written write 0x9
section checked check 0x9
section unmapped unmap 0x9
takes orderly memu-guest fabric unbind 0 orderly
takes link-down let_go
section calm dmesg

section lent-again map 0x9
section written-again write 0x9
takes surprise memu-guest fabric unbind 0 surprise
section forgotten forget 0x9
section lent-at-last map 0x9
section written-at-last write 0x9
section checked-at-last check 0x9
section beside-checked check 0x2
section after dmesg
"#;

/// The serial numbers that `cxl list` has.
fn serials(outcome: &Outcome, section: &str) -> Result<BTreeSet<u64>> {
    let list = outcome.json(section)?;
    let memdevs = list.as_array().context("no list")?.iter();
    let serials = memdevs.map(|memdev| memdev["serial"].as_u64().context("no serial number"));
    serials.collect()
}

/// The line of a port in what the fabric manager sees.
fn port<'a>(outcome: &'a Outcome, section: &str, number: u8) -> Result<&'a str> {
    let begin = format!(r#"{{"port": {number}, "#);
    let mut lines = outcome.passed(section)?.lines().map(str::trim);
    lines
        .find(|line| line.starts_with(&begin))
        .with_context(|| format!("{section} has no port {number}"))
}

fn a_fabric_manager_takes_an_expander_from_its_host_and_gives_it_back(lab: &Lab) -> Result<()> {
    let system = lab.systems.first().context("no guest system")?;
    let outcome = Machine::new(lab, system, "guest", SWITCH)
        .cmdline("memhp_default_state=offline")
        .script(&format!("{TOOLS}{SCRIPT}"))
        .run()?;
    outcome.powered_off()?;
    let slots = outcome.passed("slots")?;
    ensure!(slots.trim() == "2 1", "one slot, and it is on:\n{slots}");
    for section in [
        "beside",
        "beside-written",
        "lent",
        "written",
        "checked",
        "unmapped",
        "requests",
        "lent-again",
        "written-again",
        "forgotten",
        "lent-at-last",
        "written-at-last",
        "checked-at-last",
        "beside-checked",
    ] {
        outcome.passed(section)?;
    }
    let before = port(&outcome, "seen", 0)?;
    ensure!(
        before.ends_with(r#""serial": 9, "memory": 268435456, "of": 268435456}"#),
        "the port of the expander to be lent: {before}"
    );
    for how in ["orderly", "link-down", "surprise"] {
        // The fabric manager reaches the device whoever has it.
        let unbound = port(&outcome, &format!("unbound-{how}"), 0)?;
        let with_note = before.replace('}', r#", "bound": false}"#);
        ensure!(unbound == with_note, "unbound, {how}: {unbound}");
        outcome.passed(&format!("gone-{how}"))?;
        let others = serials(&outcome, &format!("without-{how}"))?;
        ensure!(others == [2, 3, 4].into(), "others, {how}: {others:?}");

        // The host may not have switched the slot on yet.
        let bound = port(&outcome, &format!("bound-{how}"), 0)?;
        ensure!(
            bound.contains(r#""state": 3"#) && !bound.contains(r#""bound""#),
            "bound, {how}: {bound}"
        );
        outcome.passed(&format!("back-{how}"))?;
        let all = serials(&outcome, &format!("with-{how}"))?;
        ensure!(all == [2, 3, 4, 9].into(), "all, {how}: {all:?}");
        for number in [0, 1] {
            let now = port(&outcome, &format!("seen-{how}"), number)?;
            let before = port(&outcome, "seen", number)?;
            ensure!(now == before, "port {number} after {how}: {now}");
        }
    }
    without_complaint(outcome.passed("calm")?)?;
    let log = outcome.passed("after")?;
    for complaint in ["BUG:", "Oops", "Call Trace"] {
        ensure!(!log.contains(complaint), "{complaint} in the log:\n{log}");
    }
    Ok(())
}
