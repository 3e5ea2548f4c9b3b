//! The guest benchmark: memu beside QEMU, with the same kernel and initramfs, in one run.
//!
//! What is compared: dependent loads and sequential reads of CXL memory, each as a ratio to the same guest's own RAM, since
//! absolute times mean nothing in an emulated machine; the time from exec of the VMM to the guest's init; and the memory of
//! the VMM less the guest's. Both guests reach their expander through the same devdax device, so that the path is the same.
//! Then, beside the model: how much longer loads get where the configuration has a clock for them.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use std::time::Instant;
use tests::accelerator::{Cost, HARDWARE as ACCELERATOR, USER};
use tests::alive;
use tests::guest::{Guest, Lab, Machine, Outcome, System};
use tests::options::Options;
use tests::result::Measurement;
use tests::timing;

const HARDWARE: &str = include_str!("../../../vmm/examples/persistent.toml");

/// The least memory with which every figure is still meaningful: a trapped access costs up to a millisecond.
const SCRIPT: &str = r#"
echo "@@INIT"
cxl create-region -t pmem -m -d decoder0.0 -w 1 mem0 >/dev/null
ndctl create-namespace -m devdax --map=mem -r region0 >/dev/null
for dax in /dev/dax*; do :; done
step resident
section ram-chase memu-guest chase 64K 100000
section cxl-chase memu-guest chase 64K LOADS $dax
section ram-read memu-guest read 16K 256
section cxl-read memu-guest read 16K PASSES $dax
"#;

/// At the end of its input the program with the copies goes on.
const ACCELERATOR_SCRIPT: &str = r#"
modprobe cxl_type2_accel
section launches sh -c "$device launches </dev/ttyS0"
section copies $device copies
"#;

/// What was measured of one VMM.
struct Figures {
    chase_ratio: f64,
    read_ratio: f64,
    exec_to_init: f64,
    overhead: u64,
}

fn main() -> Result<()> {
    let Options { lab, .. } = Options::from_arguments()?;
    alive::begin();
    let system = lab.systems.first().context("no guest system")?;
    let memu = measure(
        machine(&lab, system, "memu", 100_000, 256).start()?,
        "memu-vmm",
    )?;
    let peer = machine(&lab, system, "qemu", 200, 1);
    let command = qemu(&lab, system, &peer)?;
    let peer = measure(peer.start_with(command)?, "qemu")?;

    // Without `timing.clock`: what that may cost at most.
    Measurement::new(
        "dependent load from CXL memory / from RAM, memu",
        memu.chase_ratio,
        "x",
    )
    .against("QEMU", peer.chase_ratio)
    .at_most(1.02)
    .print()?;
    Measurement::new(
        "sequential read of CXL memory / of RAM, memu (time)",
        memu.read_ratio,
        "x",
    )
    .against("QEMU", peer.read_ratio)
    .at_most(1.05)
    .print()?;
    Measurement::new(
        "exec of the VMM to the guest's init",
        memu.exec_to_init,
        "s",
    )
    .against("QEMU q35", peer.exec_to_init)
    .ratio_at_most(0.5)
    .print()?;
    Measurement::new(
        "resident memory of the VMM less the guest's",
        mebibytes(memu.overhead),
        "MiB",
    )
    .against("QEMU", mebibytes(peer.overhead))
    .at_most(16.0)
    .print()?;
    timing(&lab, system)?;
    accelerator(&lab, system)
}

/// The same program on expanders that are differently far away.
fn timing(lab: &Lab, system: &System) -> Result<()> {
    for chase in timing::chase(lab, system)? {
        let name = format!(
            "a load takes longer on an expander {} ns away",
            chase.latency
        );
        Measurement::new(&name, chase.longer(), "ns")
            .against("the model", chase.model())
            .ratio_within(0.85, 1.15)
            .print()?;
    }
    Ok(())
}

/// What copies to the accelerator and empty kernels cost a program of the guest.
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn accelerator(lab: &Lab, system: &System) -> Result<()> {
    let mut guest = Machine::new(lab, system, "accelerator", ACCELERATOR)
        .script(&format!("{USER}{ACCELERATOR_SCRIPT}"))
        .start()?;
    guest.wait_for_step("before the launches")?;
    let before = Cost::now(&guest)?;
    guest.go_on()?;
    guest.wait_for_step("after the launches")?;
    let cost = Cost::now(&guest)?.since(before);
    guest.go_on()?;
    let outcome = guest.wait()?;
    let line = |section: &str| -> Result<serde_json::Value> {
        let text = outcome.passed(section)?;
        let line = text.lines().find(|line| line.starts_with('{'));
        Ok(serde_json::from_str(line.context("no figures")?)?)
    };
    let (launches, copies) = (line("launches")?, line("copies")?);
    let number = |from: &serde_json::Value, key: &str| {
        let number = from[key].as_f64();
        number.with_context(|| format!("no {key} in {from}"))
    };
    let exits = (cost.exits + cost.doorbells) as f64 / cost.launches as f64;
    Measurement::new("exits for an empty kernel that is waited for", exits, "")
        .at_most(1.0)
        .print()?;
    let time = number(&launches, "microseconds")?;
    Measurement::new("an empty kernel that is waited for", time, "us").print()?;
    let memcpy = number(&copies, "memcpy")?;
    for (key, name) in [
        ("htod", "copy from a program to the accelerator"),
        ("dtoh", "copy from the accelerator to a program"),
    ] {
        Measurement::new(name, number(&copies, key)?, "GB/s")
            .against("memcpy within the program", memcpy)
            .ratio_at_least(0.8)
            .print()?;
    }
    Ok(())
}

fn machine<'a>(
    lab: &'a Lab,
    system: &'a System,
    name: &str,
    loads: u64,
    passes: u64,
) -> Machine<'a> {
    let script = SCRIPT
        .replace("LOADS", &loads.to_string())
        .replace("PASSES", &passes.to_string());
    Machine::new(lab, system, name, HARDWARE).script(&script)
}

/// QEMU with the same CXL hierarchy: one host bridge, one root port, one persistent expander of 256 MiB.
fn qemu(lab: &Lab, system: &System, machine: &Machine) -> Result<Command> {
    let file = |name: &str, size: u64| -> Result<String> {
        let path = lab.work.join(name);
        fs::File::create(&path)?.set_len(size)?;
        Ok(path.display().to_string())
    };
    let media = file("qemu-media", 256 << 20)?;
    let labels = file("qemu-labels", 1 << 20)?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-M",
        "q35,cxl=on",
        "-accel",
        "kvm",
        "-cpu",
        "host,-hypervisor",
        "-smp",
        "2",
        "-m",
        "2G",
    ]);
    command.args([
        "-nodefaults",
        "-nographic",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    command
        .arg("-kernel")
        .arg(&system.kernel)
        .arg("-initrd")
        .arg(machine.initrd());
    command.arg("-append").arg(machine.command_line());
    command.arg("-object").arg(format!(
        "memory-backend-file,id=media,share=on,mem-path={media},size=256M"
    ));
    command.arg("-object").arg(format!(
        "memory-backend-file,id=labels,share=on,mem-path={labels},size=1M"
    ));
    for device in [
        "pxb-cxl,bus_nr=12,bus=pcie.0,id=hb0",
        "cxl-rp,port=0,bus=hb0,id=rp0,chassis=0,slot=2",
        "cxl-type3,bus=rp0,memdev=media,lsa=labels,id=mem0",
        "virtio-serial-pci,bus=pcie.0",
        "virtconsole,chardev=console",
    ] {
        command.args(["-device", device]);
    }
    command.args(["-M", "cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4G"]);
    // Not `pipe`, which would read the console's output back as its input.
    command.arg("-chardev").arg(format!(
        "file,id=console,path={}",
        machine.console().display()
    ));
    Ok(command)
}

fn measure(mut guest: Guest, name: &str) -> Result<Figures> {
    let start = Instant::now();
    guest
        .wait_for_line(|line| line == "@@INIT")
        .with_context(|| format!("{name}: init"))?;
    let exec_to_init = start.elapsed().as_secs_f64();
    guest
        .wait_for_step("resident")
        .with_context(|| format!("{name}: set-up"))?;
    let overhead = private_bytes(guest.pid())?;
    guest.go_on()?;
    let outcome = guest.wait()?;
    Ok(Figures {
        chase_ratio: figure(&outcome, "cxl-chase", "ns_per_load")?
            / figure(&outcome, "ram-chase", "ns_per_load")?,
        // Bandwidths: the ratio of times is the inverse.
        read_ratio: figure(&outcome, "ram-read", "read_gbs")?
            / figure(&outcome, "cxl-read", "read_gbs")?,
        exec_to_init,
        overhead,
    })
}

fn figure(outcome: &Outcome, section: &str, key: &str) -> Result<f64> {
    let result = outcome.json(section)?;
    result[key]
        .as_f64()
        .with_context(|| format!("no {key} in {result}"))
}

/// Resident bytes of a process in mappings that cannot be the guest's: smaller than its RAM and its media.
fn private_bytes(pid: u32) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).context("smaps of the VMM")?;
    let (mut total, mut size) = (0, 0);
    for line in maps.lines() {
        let kibibytes = |prefix: &str| -> Option<u64> {
            line.strip_prefix(prefix)?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        };
        if let Some(this) = kibibytes("Size:") {
            size = this << 10;
        } else if let Some(resident) = kibibytes("Rss:") {
            total += if size < 128 << 20 { resident << 10 } else { 0 };
        }
    }
    ensure!(total > 0, "the VMM has no memory: did it end?");
    Ok(total)
}

#[allow(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
