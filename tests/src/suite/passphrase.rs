//! Passphrases as ndctl and the kernel's key rings use them: set in one boot, in force after a power cycle, and gone after
//! an erase.

use super::boot::without_complaint;
use super::region::stock;
use super::{Test, picture};
use crate::guest::{Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["passphrase":
    a_passphrase_locks_the_device_over_a_power_cycle_until_its_key_is_there,
];

const CONFIG: &str = include_str!("../../../vmm/examples/persistent.toml");

const FUNCTIONS: &str = r#"
mkdir -p /etc/ndctl/keys /mnt
store_file() { truncate -s 1M /mnt/file && memu-guest pattern write /mnt/file 0 1048576 13 && sync /mnt/file && sync; }
mount_new() {
  cxl create-region -t pmem -m -d decoder0.0 -w 1 mem0 && ndctl create-namespace -m fsdax -r region0 &&
    mkfs.ext4 -q -b 4096 /dev/pmem0 && mount -t ext4 -o dax /dev/pmem0 /mnt
}
mount_old() {
  cxl create-region -t pmem -m -d decoder0.0 -w 1 mem0 && ndctl list -N && mount -t ext4 -o dax /dev/pmem0 /mnt
}
give_back() { umount /mnt; ndctl disable-namespace all; cxl disable-region -f region0 && cxl destroy-region -f region0; }
again() { ndctl disable-dimm nmem0; ndctl enable-dimm nmem0; }
state() { cat /sys/bus/nd/devices/nmem0/security; }
"#;

const MASTER: &str = "0123456789abcdef0123456789abcdef";

/// The region goes before the passphrase comes: ndctl does not touch a device that is in use.
const FIRST: &str = r#"
section topology picture
section none state
section mount mount_new
section store store_file
section give-back give_back
# The master key, which encrypts those of the devices.
keyctl add user nvdimm-master MASTER @u
section set ndctl setup-passphrase nmem0 -k user:nvdimm-master
section state state
section keys sh -c 'cd /etc/ndctl/keys; for key in nvdimm_*; do echo "$key $(cat $key)"; done'
section dmesg dmesg
"#;

const SECOND: &str = r#"
section locked state
section no-key sh -c '! ndctl remove-passphrase nmem0'
section erase-refused sh -c '! ndctl sanitize-dimm --crypto-erase nmem0'
# Both keys, as they were in the first boot.
echo -n MASTER >/etc/ndctl/keys/nvdimm-master.blob
echo -n 'BLOB' >'/etc/ndctl/keys/NAME'
section load ndctl load-keys
section enable again
section unlocked state
section mount mount_old
section check memu-guest pattern check /mnt/file 0 1048576 13
# To take the passphrase away is allowed meanwhile; to change it, or to erase the device, is not.
section busy-update sh -c '! ndctl update-passphrase nmem0 -k user:nvdimm-master'
section busy-erase sh -c '! ndctl sanitize-dimm --crypto-erase nmem0'
section busy state
section give-back give_back
section update ndctl update-passphrase nmem0 -k user:nvdimm-master
section updated state
section remove ndctl remove-passphrase nmem0
section removed state
section set-again ndctl setup-passphrase nmem0 -k user:nvdimm-master
section erase ndctl sanitize-dimm --crypto-erase nmem0
section erased state
section freeze ndctl freeze-security nmem0
section frozen state
section refused sh -c '! ndctl setup-passphrase nmem0 -k user:nvdimm-master'
section dmesg dmesg
"#;

fn boot(lab: &Lab, name: &str, script: &str) -> Result<Outcome> {
    let outcome = Machine::new(lab, stock(lab)?, name, CONFIG)
        .script(&format!("{FUNCTIONS}{}", script.replace("MASTER", MASTER)))
        .run()?;
    outcome.powered_off()?;
    Ok(outcome)
}

/// The kernel's word on a device's security.
fn state(outcome: &Outcome, section: &str, wanted: &str) -> Result<()> {
    let found = outcome.passed(section)?.trim();
    ensure!(found == wanted, "{section}: {found}, not {wanted}");
    Ok(())
}

fn a_passphrase_locks_the_device_over_a_power_cycle_until_its_key_is_there(
    lab: &Lab,
) -> Result<()> {
    let first = boot(lab, "first", FIRST)?;
    picture::check(CONFIG, &first.json("topology")?)?;
    state(&first, "none", "disabled")?;
    for section in ["mount", "store", "give-back", "set"] {
        first.passed(section)?;
    }
    state(&first, "state", "unlocked")?;
    without_complaint(first.passed("dmesg")?)?;

    let keys = first.passed("keys")?.trim();
    let (name, blob) = keys
        .split_once(' ')
        .with_context(|| format!("no key's file: {keys}"))?;
    let second = boot(
        lab,
        "second",
        &SECOND.replace("NAME", name).replace("BLOB", blob),
    )?;
    state(&second, "locked", "locked")?;
    for section in ["no-key", "erase-refused", "load", "enable"] {
        second.passed(section)?;
    }
    state(&second, "unlocked", "unlocked")?;
    for section in ["mount", "check", "busy-update", "busy-erase"] {
        second.passed(section)?;
    }
    state(&second, "busy", "unlocked")?;
    for section in ["give-back", "update"] {
        second.passed(section)?;
    }
    state(&second, "updated", "unlocked")?;
    second.passed("remove")?;
    state(&second, "removed", "disabled")?;
    second.passed("set-again")?;
    second.passed("erase")?;
    state(&second, "erased", "disabled")?;
    second.passed("freeze")?;
    second.passed("frozen")?;
    second.passed("refused")?;
    Ok(())
}
