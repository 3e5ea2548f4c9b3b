//! A guest that misbehaves on purpose. The word on its kernel command line selects the case, the verdict comes over the
//! serial line, and the VMM lives.

use super::Test;
use crate::guest::{Lab, Machine};
use anyhow::{Context, Result, ensure};

macro_rules! cases {
    ($($function:ident = $word:literal),+ $(,)?) => {
        pub const TESTS: &[Test] = &[
            $(Test { name: concat!("hostile::", stringify!($function)), run: |lab| survives(lab, $word) },)+
            Test { name: "hostile::a_triple_fault_ends_with_a_register_dump_and_status_1", run: triple_fault },
            Test { name: "hostile::a_reboot_starts_the_guest_again", run: reboot },
        ];
    };
}

cases! {
    random_register_writes = "random-bars",
    random_configuration_writes = "random-config",
    bars_shrunk_onto_each_other = "stacked-bars",
    overlapping_decoders = "overlapping-decoders",
    doorbells_with_nonsense = "nonsense-mailbox",
    broken_virtqueues = "broken-virtqueues",
    random_port_accesses = "random-ports",
    a_sweep_of_all_configuration_space = "ecam-sweep",
    random_host_bridge_registers = "random-host-bridge",
    accesses_to_an_uncommitted_window = "uncommitted-window",
    a_storm_of_resets = "reset-storm",
}

const HARDWARE: &str = concat!(
    include_str!("../../../vmm/examples/two-bridges.toml"),
    r#"
[[host_bridge]]
name = "hb2"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 0x3
memory = "256MiB"
"#
);

fn survives(lab: &Lab, case: &str) -> Result<()> {
    let hardware = format!("rng = true\n{HARDWARE}");
    let mut guest = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "guest",
        &hardware,
    )
    .cmdline(&format!("iomem=relaxed memu.arg={case}"))
    .script(
        r#"case=$(sed 's/.*memu.arg=\([a-z-]*\).*/\1/' /proc/cmdline)
section villain memu-guest villain $case
echo "VERDICT $case $?" >/dev/ttyS0
step done"#,
    )
    .start()?;
    guest.wait_for_step("done")?;
    // The VMM still answers while the guest is still there.
    let state = guest.control(&["state"])?;
    ensure!(state["state"] == "running", "the machine is {state}");
    guest.go_on()?;
    let outcome = guest.wait()?;
    outcome.passed("villain")?;
    let verdict = format!("VERDICT {case} 0");
    ensure!(
        outcome.serial.iter().any(|line| line.contains(&verdict)),
        "no {verdict:?} on the serial line"
    );
    outcome.powered_off()
}

fn triple_fault(lab: &Lab) -> Result<()> {
    let outcome = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "guest",
        HARDWARE,
    )
    .cmdline("reboot=t")
    .script("echo b >/proc/sysrq-trigger; sleep 600")
    .run()?;
    ensure!(
        outcome.status.code() == Some(1),
        "a dead guest ended with {}",
        outcome.status
    );
    ensure!(
        outcome.stderr.to_lowercase().contains("rip"),
        "no register dump: {}",
        outcome.stderr
    );
    Ok(())
}

fn reboot(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "guest",
        HARDWARE,
    )
    .script("step up; reboot -f; sleep 600")
    .start()?;
    guest.wait_for_step("up")?;
    guest.go_on()?;
    guest.wait_for_step("up")?;
    guest.kill()
}
