//! The demo: a host with two CXL host bridges and two expanders; its user makes a region, puts it online and works in it.

use anyhow::{Context, Result, ensure};
use tests::alive;
use tests::guest::{Machine, Outcome};
use tests::options::Options;
use tests::result::Measurement;

const HARDWARE: &str = include_str!("../../../vmm/examples/two-bridges.toml");

/// MiB that the counted workload fills and sums.
const WORK: u64 = 64;

/// What the guest does. Every command it runs is shown.
const SCRIPT: &str = r##"
say() { echo; echo "# $*"; }
run() { echo "\$ $*"; "$@"; }
say "The CXL hardware that an unmodified kernel found"
run cxl list -BMu
say "A region on the first expander"
# The kernel numbers expanders as their drivers are done, in any order; the first one's serial number is 1.
for memdev in /sys/bus/cxl/devices/mem*; do
  [ "$(cat $memdev/serial)" = 0x1 ] && first=${memdev##*/}
done
section create run cxl create-region -m -t ram -d decoder0.0 -w 1 $first
say "Online as a NUMA node"
for dax in /sys/bus/dax/devices/dax*; do
  dax=${dax##*/}
  node=$(cat /sys/bus/dax/devices/$dax/target_node)
  [ -e /sys/bus/dax/drivers/kmem/$dax ] || run daxctl reconfigure-device --mode=system-ram $dax
done
run numactl -H
say "Bandwidth of local RAM, then of the CXL node"
section ram memu-guest on-node 0 bw 32 2
section cxl memu-guest on-node $node bw 32 2
say "A workload in CXL memory, while the VMM counts exits"
memu-guest on-node $node fill-sum 1
step before
section work memu-guest on-node $node fill-sum 64
step after
"##;

fn main() -> Result<()> {
    let Options { lab, .. } = Options::from_arguments()?;
    alive::begin();
    let system = lab.systems.first().context("no guest system")?;
    let mut guest = Machine::new(&lab, system, "demo", HARDWARE)
        .cmdline("memhp_default_state=offline")
        .script(SCRIPT)
        .show()
        .start()?;
    guest.wait_for_step("before")?;
    let before = exits(&guest.control(&["exits"])?)?;
    guest.go_on()?;
    guest.wait_for_step("after")?;
    let spent = exits(&guest.control(&["exits"])?)? - before;
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    outcome.passed("create")?;
    ensure!(
        outcome.json("work")?["node"] != 0,
        "the workload did not run in CXL memory"
    );

    for kind in ["fill", "read", "copy"] {
        let (ram, cxl) = (
            bandwidth(&outcome, "ram", kind)?,
            bandwidth(&outcome, "cxl", kind)?,
        );
        Measurement::new(&format!("{kind} bandwidth of CXL memory"), cxl, "GB/s")
            .against("the guest's own RAM", ram)
            .print()?;
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "a count of exits is far below 2^52"
    )]
    let per_mib = spent as f64 / WORK as f64;
    Measurement::new(
        "VM exits per MiB of CXL memory filled and summed",
        per_mib,
        "exits/MiB",
    )
    .at_most(1.0)
    .print()
}

fn exits(answer: &serde_json::Value) -> Result<u64> {
    answer["total"]
        .as_u64()
        .with_context(|| format!("no total in {answer}"))
}

fn bandwidth(outcome: &Outcome, section: &str, kind: &str) -> Result<f64> {
    let result = outcome.json(section)?;
    result[format!("{kind}_gbs")]
        .as_f64()
        .with_context(|| format!("no {kind} bandwidth in {result}"))
}
