//! The accelerator as programs have it: stock kernels, the module built for them, `libcuda.so.1`, and no privileges.

use super::Test;
use super::boot::without_complaint;
use super::region::{read_dpa, stock};
use crate::accelerator::{Cost, HARDWARE, USER, gpu};
use crate::guest::{Guest, Lab, Machine};
use anyhow::{Context, Result, ensure};
use cxl::coherence::model::Model;
use cxl::coherence::{Config, Event};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = crate::tests!["accelerator":
    unprivileged_programs_have_it_and_leave_nothing_behind,
];

/// Counters of coherence.
const STATISTICS: usize = 26;

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
section pages sh -c "CXL_CUDA_DEVICE=/dev/cxl_gpu2 $device pages"
section sharing sh -c "CXL_CUDA_DEVICE=/dev/cxl_gpu2 $device sharing"
section observed-litmus sh -c "CXL_CUDA_DEVICE=/dev/cxl_gpu2 $device litmus"
section counters sh -c 'for d in /sys/bus/pci/drivers/cxl_type2_accel/0*; do cat $d/coherence; done'
section together sh -c "for i in 1 2 3; do $kernels & all=\"\$all \$!\"; done; for i in \$all; do wait \$i || exit; done"
section region cxl create-region -m -t ram -d decoder0.0 -w 1 mem0
for dax in /sys/bus/dax/devices/dax*; do dax=${dax##*/}; done
daxctl reconfigure-device --mode=devdax -f $dax
section peer cuda-node /dev/cxl_gpu0 /dev/$dax
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
        .cmdline("memhp_default_state=offline")
        .script(&format!("{USER}{SCRIPT}"))
        .start()?;
    guest.wait_for_step("idle")?;
    let unused = gpu(&guest)?["free"].clone();
    ensure!(
        unused == gpu(&guest)?["memory"],
        "memory is left in use: {}",
        gpu(&guest)?
    );
    let all = guest.control(&["gpu"])?;
    let counters = all[1]["coherence"].clone();
    println!("{}", guest.control_text(&["gpu"])?);
    the_trace_leads_the_model_to_the_counters(&guest, &counters)?;
    pages_have_changed_hands(&guest, &all[2]["coherence"])?;
    the_accelerator_has_written_to_the_expander(&guest)?;
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
        "pages",
        "sharing",
        "observed-litmus",
        "region",
        "peer",
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
        [512, 256, 256].map(|memory| format!("io cache mem\n{}\n{}\n", 128 << 20, memory << 20));
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
    let each = lines.len() / 3;
    let second = &lines[each..2 * each];
    let told: BTreeMap<&str, u64> = second
        .iter()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    ensure!(
        told.len() == STATISTICS && told["link_bytes"] > 0 && serde_json::to_value(&told)? == *host,
        "the guest sees {told:?}, the host {host}"
    );
    Ok(())
}

/// The trace of the second accelerator, played to a model of the protocol that shares nothing with the device's own: it comes
/// to the counters that the device tells.
fn the_trace_leads_the_model_to_the_counters(
    guest: &Guest,
    told: &serde_json::Value,
) -> Result<()> {
    let (head, events) = trace(guest, "gpu1")?;
    ensure!(
        head["first"] == 0 && head["next"] == events.len() as u64,
        "{head} before {} steps",
        events.len()
    );
    let size = |name: &str| serde_json::from_value(head[name].clone());
    let mut model = Model::new(Config {
        capacity: head["memory"].as_u64().context("memory")?,
        granule: head["granule"].as_u64().context("granule")?,
        cache: size("cache")?,
        filter: size("snoop_filter")?,
    });
    model.follow(&events);
    let counters = model.statistics().by_name();
    println!("{} steps lead to {counters:?}", events.len());
    for (name, count) in counters {
        ensure!(
            told[name] == count && head["counters"][name] == count,
            "{name} is {count} by the trace, {} as told, {} beside the trace",
            told[name],
            head["counters"][name]
        );
    }
    ensure!(events.len() > 20, "{} steps", events.len());
    Ok(())
}

/// What `memu-ctl gpu trace` tells of an accelerator: what the trace is of, and its steps.
fn trace(guest: &Guest, device: &str) -> Result<(serde_json::Value, Vec<Event>)> {
    let text = guest.control_text(&["gpu", "trace", device])?;
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().context("an empty trace")?)?;
    let events = lines.map(|line| Ok(serde_json::from_str(line)?));
    Ok((head, events.collect::<Result<_>>()?))
}

/// The third accelerator, after a game of messages over pages that both sides wanted: some have changed hands, as far as its
/// epochs show.
fn pages_have_changed_hands(guest: &Guest, told: &serde_json::Value) -> Result<()> {
    println!("pages that changed hands: {told}");
    let count = |name: &str| told[name].as_u64().unwrap_or(0);
    ensure!(
        count("granule") == 4096 && count("epochs") > 0 && count("requests") > 2 * 64,
        "{told}"
    );
    let (head, events) = trace(guest, "gpu2")?;
    ensure!(head["granule"] == 4096 && !events.is_empty(), "{head}");
    Ok(())
}

/// The expander's second page, by its own address, is what `cuda-node` had the first accelerator copy there.
fn the_accelerator_has_written_to_the_expander(guest: &Guest) -> Result<()> {
    let expected = (0..1024_u32).flat_map(|i| (!i.wrapping_mul(2_654_435_761)).to_le_bytes());
    let expected: Vec<u8> = expected.collect();
    let found = read_dpa(guest, "mem0", 4096, 4096)?;
    ensure!(found == expected, "{:?}...", &found[..16]);
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
    let view = gpu(guest)?;
    let empty = |kernel: &serde_json::Value| kernel["launches"].as_u64() >= Some(300);
    let kernels = view["sessions"][0]["kernels"].as_array();
    ensure!(
        kernels.is_some_and(|kernels| kernels.iter().any(empty)),
        "{view}"
    );
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
