//! The ordinary parts of the machine: virtio, the control socket, power.

use super::Test;
use crate::guest::{Lab, Machine, System};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

pub const TESTS: &[Test] = crate::tests!["machine":
    disks_read_write_flush_and_refuse_writes_when_read_only,
    a_tap_carries_packets_both_ways,
    the_control_socket_shows_pauses_and_quits,
    the_power_button_reaches_the_guest,
];

fn stock(lab: &Lab) -> Result<&System> {
    lab.systems.first().context("no guest system")
}

fn disks_read_write_flush_and_refuse_writes_when_read_only(lab: &Lab) -> Result<()> {
    let (data, fixed) = (lab.work.join("data.img"), lab.work.join("fixed.img"));
    fs::write(&data, vec![0; 8 << 20])?;
    fs::write(&fixed, vec![0x42; 1 << 20])?;
    let config = format!(
        "rng = true\n[[disk]]\npath = {data:?}\n[[disk]]\npath = {fixed:?}\nread_only = true\n"
    );
    let outcome = Machine::new(lab, stock(lab)?, "guest", &config)
        .script(
            r#"
section size cat /sys/block/vda/size /sys/block/vdb/size /sys/block/vdb/ro
section write sh -c 'truncate -s 1M /tmp/p && memu-guest pattern write /tmp/p 0 1048576 9 && dd if=/tmp/p of=/dev/vda bs=64k seek=16 conv=fsync'
section read sh -c 'echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda of=/tmp/q bs=64k skip=16 count=16 && cmp /tmp/p /tmp/q'
section refused sh -c '! dd if=/tmp/p of=/dev/vdb bs=64k count=1 conv=fsync'
section fixed sh -c 'dd if=/dev/vdb bs=1k count=4 | tr -d B | wc -c'
section random sh -c 'cat /sys/class/misc/hw_random/rng_current; head -c 16 /dev/hwrng | wc -c'
section interrupts cat /proc/interrupts"#,
        )
        .run()?;
    outcome.powered_off()?;
    ensure!(
        outcome
            .passed("size")?
            .split_whitespace()
            .eq(["16384", "2048", "1"]),
        "{:?}",
        outcome.sections["size"]
    );
    outcome.passed("write")?;
    outcome.passed("read")?;
    outcome.passed("refused")?;
    ensure!(
        outcome.passed("fixed")?.trim_end().ends_with('0'),
        "{:?}",
        outcome.sections["fixed"]
    );
    ensure!(
        outcome.passed("random")?.contains("16"),
        "{:?}",
        outcome.sections["random"]
    );
    ensure!(
        outcome.passed("interrupts")?.contains("virtio"),
        "no MSI-X interrupt of virtio"
    );
    let written = fs::read(&data)?;
    ensure!(
        written[..1 << 20].iter().all(|&b| b == 0),
        "the first MiB was not to be touched"
    );
    ensure!(
        written[1 << 20..2 << 20].iter().any(|&b| b != 0),
        "the host does not see the guest's data"
    );
    ensure!(
        fs::read(&fixed)?.iter().all(|&b| b == 0x42),
        "a read-only disk changed"
    );
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .context("ip (package iproute2)")?;
    ensure!(status.success(), "ip {arguments} failed");
    Ok(())
}

fn a_tap_carries_packets_both_ways(lab: &Lab) -> Result<()> {
    ip("tuntap add dev memutap0 mode tap")?;
    ip("addr add 192.0.2.1/24 dev memutap0")?;
    ip("link set memutap0 up")?;
    let config = "[[net]]\ntap = \"memutap0\"\nmac = \"02:00:00:00:00:01\"\n";
    let outcome = Machine::new(lab, stock(lab)?, "guest", config)
        .script(
            r#"
section mac cat /sys/class/net/eth0/address
section up sh -c 'ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up'
section ping ping -c 5 -s 1400 192.0.2.1"#,
        )
        .run();
    ip("link del memutap0")?;
    let outcome = outcome?;
    outcome.powered_off()?;
    ensure!(
        outcome.passed("mac")?.trim() == "02:00:00:00:00:01",
        "{:?}",
        outcome.sections["mac"]
    );
    outcome.passed("up")?;
    outcome.passed("ping")?;
    Ok(())
}

const TWO_BRIDGES: &str = include_str!("../../../vmm/examples/two-bridges.toml");

fn the_control_socket_shows_pauses_and_quits(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(lab, stock(lab)?, "guest", TWO_BRIDGES)
        .script("step up; sleep 600")
        .start()?;
    guest.wait_for_step("up")?;
    ensure!(guest.control(&["state"])?["state"] == "running");
    let tree = guest.control(&["tree"])?.to_string();
    for part in ["hb0", "hb1", "mem0", "mem1", "root_port"] {
        ensure!(tree.contains(part), "the tree shows no {part}: {tree}");
    }
    ensure!(
        guest.control(&["memslots"])?.to_string().contains("ram"),
        "no RAM among the memslots"
    );
    guest.control(&["pause"])?;
    ensure!(guest.control(&["state"])?["state"] == "paused");
    guest.control(&["resume"])?;
    ensure!(guest.control(&["state"])?["state"] == "running");
    let curl = Command::new("curl")
        .args(["--silent", "--fail", "--unix-socket"])
        .arg(guest.socket())
        .arg("http://localhost/v1/state")
        .output()
        .context("curl")?;
    ensure!(
        curl.status.success() && String::from_utf8_lossy(&curl.stdout).contains("running"),
        "{curl:?}"
    );
    guest.control(&["quit"])?;
    let socket = guest.socket().to_path_buf();
    guest.wait()?.powered_off()?;
    ensure!(!socket.exists(), "the socket was left behind");
    Ok(())
}

fn the_power_button_reaches_the_guest(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(lab, stock(lab)?, "guest", TWO_BRIDGES)
        .script(
            r#"
modprobe button 2>/dev/null
# The kernel shows it in its own time.
for try in $(seq 100); do
  for event in /sys/class/input/event*; do
    grep -qs "Power Button" $event/device/name && button=/dev/input/${event##*/}
  done
  [ -n "$button" ] && [ -e "$button" ] && break
  sleep 0.1
done
step ready
head -c 24 $button >/dev/null && echo "@@BEGIN pressed" && echo "@@END pressed 0""#,
        )
        .start()?;
    guest.wait_for_step("ready")?;
    guest.go_on()?;
    guest.control(&["power-button"])?;
    let outcome = guest.wait()?;
    outcome.passed("pressed")?;
    outcome.powered_off()
}
