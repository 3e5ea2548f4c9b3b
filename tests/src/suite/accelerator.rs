//! The accelerator as programs have it: stock kernels, the module built for them, `libcuda.so.1`, and no privileges.

use super::Test;
use super::boot::without_complaint;
use super::region::stock;
use crate::accelerator::{Cost, HARDWARE, USER, gpu};
use crate::guest::{Guest, Lab, Machine};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = crate::tests!["accelerator":
    unprivileged_programs_have_it_and_leave_nothing_behind,
];

const SCRIPT: &str = r#"
holder() {
  rm -f /tmp/held
  $device hold >/tmp/held &
  until [ -s /tmp/held ]; do kill -0 $! || return 1; sleep 0.1; done
  held=$(cat /tmp/held)
}
section load modprobe cxl_type2_accel
section node stat -c %A%F /dev/cxl_gpu0
section sysfs sh -c 'for d in /sys/bus/pci/drivers/cxl_type2_accel/0*; do cat $d/protocols $d/cache_size $d/memory_size; done'
section nobody $user sh -c 'id -u; grep CapEff /proc/self/status'
section kernels $kernels
section node-alone $user cuda-node
section litmus $device litmus
section bias $device bias
section lines sh -c "CXL_CUDA_DEVICE=/dev/cxl_gpu1 $device lines"
section counters sh -c 'for d in /sys/bus/pci/drivers/cxl_type2_accel/0*; do cat $d/coherence; done'
section together sh -c "for i in 1 2 3; do $kernels & all=\"\$all \$!\"; done; for i in \$all; do wait \$i || exit; done"
step idle
section launches sh -c "$device launches </dev/ttyS0"
section flight sh -c "$device flight </dev/ttyS0"
section copies sh -c "$device copies </dev/ttyS0"
holder
section caching cat /sys/kernel/debug/x86/pat_memtype_list
section iomem cat /proc/iomem
section pointers $device pointers $held
step held
kill -9 $!
wait $!
step killed
section busy sh -c 'exec 3<>/dev/cxl_gpu0; ! rmmod cxl_type2_accel 2>/dev/null'
holder
section unbind sh -c 'cd /sys/bus/pci/drivers/cxl_type2_accel; for f in 0*; do echo $f >unbind; done; [ ! -e /dev/cxl_gpu0 ]'
kill -9 $! 2>/dev/null
wait $!
section unload rmmod cxl_type2_accel
section without sh -c "! $kernels"
section reload modprobe cxl_type2_accel
section again $kernels
section leave rmmod cxl_type2_accel
step left
section dmesg dmesg
"#;

fn unprivileged_programs_have_it_and_leave_nothing_behind(lab: &Lab) -> Result<()> {
    let mut guest = Machine::new(lab, stock(lab)?, "guest", HARDWARE)
        .script(&format!("{USER}{SCRIPT}"))
        .start()?;
    guest.wait_for_step("idle")?;
    let unused = gpu(&guest)?["free"].clone();
    ensure!(
        unused == gpu(&guest)?["memory"],
        "memory is left in use: {}",
        gpu(&guest)?
    );
    let counters = guest.control(&["gpu"])?[1]["coherence"].clone();
    guest.go_on()?;
    launches_cost_one_exit_each(&mut guest)?;
    a_queue_holds_64_launches(&mut guest)?;
    copies_cost_no_exits(&mut guest)?;

    guest.wait_for_step("held")?;
    let view = gpu(&guest)?;
    let sessions = view["sessions"].as_array().map_or(0, Vec::len);
    ensure!(sessions == 1 && view["free"] != unused, "{view}");
    guest.go_on()?;
    guest.wait_for_step("killed")?;
    nothing_is_left(&guest, &unused)?;
    guest.go_on()?;
    guest.wait_for_step("left")?;
    nothing_is_left(&guest, &unused)?;
    ensure!(guest.control(&["state"])?["state"] == "running");
    guest.go_on()?;

    let outcome = guest.wait()?;
    for section in [
        "load",
        "kernels",
        "node-alone",
        "litmus",
        "bias",
        "lines",
        "together",
        "launches",
        "flight",
        "copies",
        "pointers",
        "busy",
        "unbind",
        "unload",
        "without",
        "reload",
        "again",
        "leave",
    ] {
        outcome.passed(section)?;
    }
    let node = outcome.passed("node")?;
    ensure!(node.starts_with("crw-rw-rw-"), "{node}");
    let sysfs = outcome.passed("sysfs")?;
    let expected =
        [512, 256].map(|memory| format!("io cache mem\n{}\n{}\n", 128 << 20, memory << 20));
    ensure!(sysfs.trim_end() == expected.concat().trim_end(), "{sysfs}");
    the_guest_and_the_host_tell_the_same(outcome.passed("counters")?, &counters)?;
    let nobody = outcome.passed("nobody")?;
    ensure!(
        nobody.starts_with("1000\n") && nobody.contains("CapEff:\t0000000000000000"),
        "{nobody}"
    );
    ensure!(
        outcome.passed("kernels")?.contains("all kernels are right"),
        "{:?}",
        outcome.sections["kernels"]
    );
    mapped_memory_is_cached(outcome.passed("caching")?)?;
    without_complaint(&without_taint(outcome.passed("dmesg")?))?;
    outcome.powered_off()
}

/// The second accelerator's counters, as its driver and as `memu-ctl gpu` shows them.
fn the_guest_and_the_host_tell_the_same(guest: &str, host: &serde_json::Value) -> Result<()> {
    let lines: Vec<&str> = guest.lines().filter(|line| !line.is_empty()).collect();
    let second = &lines[lines.len() / 2..];
    let told: BTreeMap<&str, u64> = second
        .iter()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    ensure!(
        told.len() == 26 && told["link_bytes"] > 0 && serde_json::to_value(&told)? == *host,
        "the guest sees {told:?}, the host {host}"
    );
    Ok(())
}

/// What the kernel says of every module that is not its own.
pub(super) fn without_taint(log: &str) -> String {
    let expected = [
        "cxl_type2_accel: loading out-of-tree module taints kernel.",
        "cxl_type2_accel: module verification failed: signature and/or required key missing - tainting kernel",
    ];
    let others = log
        .lines()
        .filter(|line| !expected.iter().any(|tail| line.ends_with(tail)));
    others.collect::<Vec<_>>().join("\n")
}

/// The device's memory in the page attribute table: a range of it is mapped, and cached as memory is.
fn mapped_memory_is_cached(list: &str) -> Result<()> {
    // The program that holds memory has 64 MiB of it; nothing else is of that size.
    let large: Vec<&str> = list
        .lines()
        .filter(|line| length(line) == Some(64 << 20))
        .collect();
    ensure!(
        !large.is_empty() && large.iter().all(|line| line.contains("write-back")),
        "device memory is mapped as {large:?}, of all:\n{list}"
    );
    Ok(())
}

/// Bytes of a line such as `PAT: [mem 0x1000-0x2000] write-back`.
fn length(line: &str) -> Option<u64> {
    let (start, end) = line
        .split_once("0x")?
        .1
        .split_once(']')?
        .0
        .split_once("-0x")?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    number(end)?.checked_sub(number(start)?)
}

fn nothing_is_left(guest: &Guest, unused: &serde_json::Value) -> Result<()> {
    let view = gpu(guest)?;
    ensure!(
        view["sessions"] == serde_json::json!([]) && view["free"] == *unused,
        "a program that is gone has left something: {view}"
    );
    Ok(())
}

fn launches_cost_one_exit_each(guest: &mut Guest) -> Result<()> {
    guest.wait_for_step("before the launches")?;
    let before = Cost::now(guest)?;
    guest.go_on()?;
    guest.wait_for_step("after the launches")?;
    let cost = Cost::now(guest)?.since(before);
    println!("launches, each waited for: {cost:?}");
    ensure!(
        cost.launches == 300 && cost.exits + cost.doorbells <= cost.launches,
        "{cost:?}"
    );
    guest.go_on()
}

fn a_queue_holds_64_launches(guest: &mut Guest) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(120);
    guest.wait_for_step("behind the first gate")?;
    let before = Cost::now(guest)?;
    guest.go_on()?;
    guest.wait_for_step("behind the second gate")?;
    // The program's thread is about to submit them.
    let begin = Instant::now();
    loop {
        let view = gpu(guest)?;
        let full = view["sessions"][0]["queues"]
            .as_array()
            .is_some_and(|queues| queues.iter().any(|queue| queue["waiting"] == 64));
        if full {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "no queue holds 64: {view}");
        thread::sleep(Duration::from_millis(20));
    }
    let cost = Cost::now(guest)?.since(before);
    println!("64 launches in flight: {cost:?}");
    ensure!(cost.exits + cost.doorbells <= 64, "{cost:?}");
    guest.go_on()
}

fn copies_cost_no_exits(guest: &mut Guest) -> Result<()> {
    guest.wait_for_step("before the copies")?;
    let before = Cost::now(guest)?;
    guest.go_on()?;
    guest.wait_for_step("after the copies")?;
    let cost = Cost::now(guest)?.since(before);
    println!("copies of 192 MiB: {cost:?}");
    ensure!(cost.exits + cost.doorbells == 0, "{cost:?}");
    guest.go_on()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_that_is_cached_will_do() {
        let other = "PAT: [mem 0x00000000e0000000-0x00000000f0000000] uncached-minus\n";
        let cached = "PAT: [mem 0x0000000400000000-0x0000000404000000] write-back\n";
        let uncached = "PAT: [mem 0x0000000400000000-0x0000000404000000] uncached-minus\n";
        mapped_memory_is_cached(&format!("{other}{cached}")).unwrap();
        for wrong in [other, uncached] {
            mapped_memory_is_cached(wrong).unwrap_err();
        }
    }

    #[test]
    fn other_complaints_of_the_module_stay() {
        let log = "[ 1.0] cxl_type2_accel: loading out-of-tree module taints kernel.\n[ 1.1] cxl_type2_accel 0000:01:00.0: failed";
        assert!(without_complaint(&without_taint(log)).is_err());
    }
}
