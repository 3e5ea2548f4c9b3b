//! Persistent memory: what the guest synced is there after power-off and after the VMM's sudden death; and two machines
//! that name one backing see each other's stores.

use super::boot::without_complaint;
use super::{Test, picture};
use crate::guest::{Lab, Machine};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["persistence":
    a_file_on_pmem_survives_power_off,
    a_synced_file_on_pmem_survives_kill_9,
    two_machines_on_one_backing_see_each_others_stores,
];

const PMEM: &str = include_str!("../../../vmm/examples/persistent.toml");

/// Makes the region of this boot; the namespace in it is found by its labels, or made on the first boot.
const MOUNT: &str = r#"
mount_pmem() {
  cxl create-region -t pmem -m -d decoder0.0 -w 1 mem0 || return 1
  ndctl list -N | grep -q fsdax || ndctl create-namespace -m fsdax -r region0 || return 1
  mkdir -p /mnt/pmem
  mount -t ext4 -o dax /dev/pmem0 /mnt/pmem && return
  mkfs.ext4 -q -b 4096 /dev/pmem0 && mount -t ext4 -o dax /dev/pmem0 /mnt/pmem
}
write_file() { truncate -s 1M /mnt/pmem/file && memu-guest pattern write /mnt/pmem/file 0 1048576 11 && sync /mnt/pmem/file && sync; }
check_file() { memu-guest pattern check /mnt/pmem/file 0 1048576 11; }
"#;

fn second_boot(lab: &Lab) -> Result<()> {
    let outcome = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "second",
        PMEM,
    )
    .script(&format!(
        "{MOUNT}\nsection mount mount_pmem\nsection check check_file"
    ))
    .run()?;
    outcome.passed("mount")?;
    outcome.passed("check")?;
    outcome.powered_off()
}

fn a_file_on_pmem_survives_power_off(lab: &Lab) -> Result<()> {
    let outcome = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "first",
        PMEM,
    )
    .script(&format!(
        "{MOUNT}\nsection mount mount_pmem\nsection write write_file\numount /mnt/pmem"
    ))
    .run()?;
    outcome.passed("mount")?;
    outcome.passed("write")?;
    outcome.powered_off()?;
    second_boot(lab)
}

fn a_synced_file_on_pmem_survives_kill_9(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(
        lab,
        lab.systems.first().context("no system")?,
        "first",
        PMEM,
    )
    .script(&format!(
        "{MOUNT}\nsection mount mount_pmem\nsection write write_file\nstep synced"
    ))
    .start()?;
    guest.wait_for_step("synced")?;
    guest.kill()?;
    second_boot(lab)
}

const HOST0: &str = include_str!("../../../vmm/examples/shared-host0.toml");
const HOST1: &str = include_str!("../../../vmm/examples/shared-host1.toml");

fn two_machines_on_one_backing_see_each_others_stores(lab: &Lab) -> Result<()> {
    let system = lab.systems.first().context("no system")?;
    let dax = "section topology picture\nsection dmesg dmesg\n\
               for dax in /sys/bus/dax/devices/dax*; do dax=${dax##*/}; done\n\
               daxctl reconfigure-device --mode=devdax -f $dax\n";
    let start = |name: &str, config: &str, script: String| {
        Machine::new(lab, system, name, config)
            .cmdline("memhp_default_state=offline")
            .script(&script)
            .start()
    };
    let mut writer = start(
        "writer",
        HOST0,
        format!(
            "{dax}step ready\nsection write memu-guest pattern write /dev/$dax 4096 65536 3\nstep written\n\
                 section answer memu-guest pattern check /dev/$dax 131072 65536 5"
        ),
    )?;
    let mut reader = start(
        "reader",
        HOST1,
        format!(
            "{dax}step ready\nsection read memu-guest pattern check /dev/$dax 4096 65536 3\n\
                 section answer memu-guest pattern write /dev/$dax 131072 65536 5\nstep answered"
        ),
    )?;
    reader.wait_for_step("ready")?;
    writer.wait_for_step("ready")?;
    writer.go_on()?;
    writer.wait_for_step("written")?;
    reader.go_on()?;
    reader.wait_for_step("answered")?;
    writer.go_on()?;
    reader.go_on()?;
    let (writer, reader) = (writer.wait()?, reader.wait()?);
    for (config, outcome) in [(HOST0, &writer), (HOST1, &reader)] {
        picture::check(config, &outcome.json("topology")?)?;
        without_complaint(outcome.passed("dmesg")?)?;
    }
    writer.passed("write")?;
    reader.passed("read")?;
    writer.passed("answer")?;
    ensure!(
        writer.status.success() && reader.status.success(),
        "a machine did not power off"
    );
    Ok(())
}
