//! What goes wrong on request, and what the guest sees of it.

use super::Test;
use super::boot::without_complaint;
use super::region::{ONLINE, two_way_256};
use crate::guest::{Guest, Lab, Machine};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["ras":
    poison_is_a_sigbus_at_its_address_until_it_is_cleared,
];

/// Two expanders make a region of the firmware's.
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

[[region]]
name = "fast"
window = "w0"
size = "512MiB"
type = "volatile"
devices = ["mem0", "mem1"]
granularity = "256B"
"#;

/// `seen WORD...` waits until the kernel has traced all the words, or far longer than it takes.
const SCRIPT: &str = r#"
seen() {
  tries=0
  for word; do
    until grep -q "$word" $trace/trace || [ $tries = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
  done
}
trace=/sys/kernel/tracing
mount -t tracefs trace $trace 2>/dev/null
echo 1 >$trace/events/cxl/enable
section boot dmesg
online
section there memu-guest on-node $node numa-where
(until [ -e /tmp/enough ]; do memu-guest on-node $node fill-sum 1 || exit 1; done) >/tmp/others &
others=$!
section poison sh -c "memu-guest on-node $node poison </dev/ttyS0 | tee /tmp/poison"
seen 'Host Read'
for memdev in /sys/bus/cxl/devices/mem*; do echo 1 >$memdev/trigger_poison_list; done
section others sh -c "touch /tmp/enough; while kill -0 $others 2>/dev/null; do sleep 0.1; done; cat /tmp/others"
section traced cat $trace/trace
step clear
hpa=$(sed -n 's/.*"hpa":"\(0x[0-9a-f]*\)".*/\1/p' /tmp/poison)
offset=$((hpa - $(cat /sys/bus/cxl/devices/region0/resource)))
section offline daxctl reconfigure-device --mode=devdax --force dax0.0
section again sh -c "memu-guest pattern write /dev/dax0.0 $offset 4096 7 && memu-guest pattern check /dev/dax0.0 $offset 4096 7"
"#;

fn poison_is_a_sigbus_at_its_address_until_it_is_cleared(lab: &Lab) -> Result<()> {
    let stock = lab.systems.first().context("no guest system")?;
    let mut guest = Machine::new(lab, stock, "guest", CONFIG)
        .cmdline("memhp_default_state=offline")
        .script(&format!("{ONLINE}{SCRIPT}"))
        .start()?;
    let mut page = None;
    guest.wait_for_line(|line| {
        page = page.or_else(|| address_of(line));
        line == "@@STEP poison" || line.starts_with("@@END poison")
    })?;
    let page = page.context("the guest did not say where its page is")?;
    // The second line of the fourth chunk of the page.
    let line = page + 3 * 256 + 64;
    let (device, dpa) = two_way_256(line - window(&guest)?);
    let (device, address) = (["mem0", "mem1"][device], dpa.to_string());
    let slots = guest.control(&["memslots"])?;
    guest.control(&["inject", "poison", device, &address])?;
    guest.go_on()?;
    guest.wait_for_step("clear")?;
    ensure!(
        guest.control(&["memslots"])? == slots,
        "poison changed the memory slots"
    );
    guest.control(&["inject", "clear-poison", device, &address])?;
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    without_complaint(outcome.passed("boot")?)?;

    let met = outcome.passed("poison")?;
    ensure!(met.contains(r#""ok":true"#), "the load: {met}");
    let others = outcome.passed("others")?;
    ensure!(
        others.contains(r#""ok":true"#) && !others.contains(r#""ok":false"#),
        "other programs: {others}"
    );
    let traced = outcome.passed("traced")?;
    for (event, words) in [
        (
            "cxl_general_media",
            [
                format!("dpa={dpa:x} "),
                format!("hpa={line:x} "),
                "region=region0 ".into(),
                "transaction_type='Host Read'".into(),
            ],
        ),
        (
            "cxl_poison",
            [
                format!("dpa={dpa:#x} "),
                format!("hpa={line:#x} "),
                "region=region0 ".into(),
                "dpa_length=0x40 ".into(),
            ],
        ),
    ] {
        has_event(traced, event, &words)?;
    }
    outcome.passed("offline")?;
    let again = outcome.passed("again")?;
    ensure!(again.contains(r#""ok":true"#), "after the clear: {again}");
    Ok(())
}

/// That the kernel has traced an event with all these words.
fn has_event(trace: &str, event: &str, words: &[String]) -> Result<()> {
    let found = trace.lines().any(|line| {
        line.contains(&format!("{event}:")) && words.iter().all(|word| line.contains(word.as_str()))
    });
    ensure!(found, "no {event} with {words:?} in\n{trace}");
    Ok(())
}

/// The address in the guest's line about its page.
fn address_of(line: &str) -> Option<u64> {
    let rest = line.strip_prefix(r#"{"test":"poison","hpa":"0x"#)?;
    u64::from_str_radix(rest.strip_suffix(r#""}"#)?, 16).ok()
}

/// First address of the window, and of the region in it.
fn window(guest: &Guest) -> Result<u64> {
    let tree = guest.control(&["tree"])?;
    tree["windows"][0]["hpa"]
        .as_u64()
        .with_context(|| format!("no window in {tree}"))
}
