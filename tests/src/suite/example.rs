//! The examples of the documentation: each boots, and the kernel has the picture of it that the file has. Those that no
//! other test boots do so here.

use super::Test;
use super::accelerator::without_taint;
use super::boot::{lspci_is_content, without_complaint};
use super::picture;
use crate::accelerator::USER;
use crate::guest::{Lab, Machine, Outcome, System};
use anyhow::{Context, Result, bail, ensure};

/// A test for each of these files of `vmm/examples`.
macro_rules! examples {
    ($($name:literal),+ $(,)?) => {
        &[$(Test {
            name: concat!("example::", $name),
            run: |lab| {
                boots(lab, include_str!(concat!("../../../vmm/examples/", $name, ".toml")))
            },
        }),+]
    };
}

pub const TESTS: &[Test] = examples!["accelerator", "four-bridges", "mixed", "switches"];

fn boots(lab: &Lab, config: &str) -> Result<()> {
    let (first, rest) = lab.systems.split_first().context("no guest system")?;
    // What drives accelerators in the first kernel has a test of its own; switches are another matter to each kernel.
    let newer = rest.last();
    let systems = match (config.contains("type = \"type2\""), has_mailbox(config)) {
        (true, _) => vec![newer.unwrap_or(first)],
        (_, true) => [first].into_iter().chain(newer).collect(),
        _ => vec![first],
    };
    for system in systems {
        boots_on(lab, system, config).with_context(|| system.name.clone())?;
    }
    Ok(())
}

fn has_mailbox(config: &str) -> bool {
    config.contains("mailbox_cci = true")
}

fn boots_on(lab: &Lab, system: &System, config: &str) -> Result<()> {
    let has_accelerator = config.contains("type = \"type2\"");
    let mut script = "section cxl picture\n".to_string();
    if has_accelerator {
        script += USER;
        script += "section gpu memu-guest gpu-v1\n\
                   section module modprobe cxl_type2_accel\n\
                   section memory sh -c 'cd /sys/bus/pci/drivers/cxl_type2_accel/0*; cat memory_protocol memory_base; \
                   cd /sys/bus/cxl/devices/decoder0.0; cat start cap_type2'\n\
                   section litmus $device litmus\n\
                   section kernels $kernels\n\
                   section unload rmmod cxl_type2_accel\n";
    }
    let has_mailbox = has_mailbox(config);
    if has_mailbox {
        script += "section fabric memu-guest fabric\nsection lspci lspci -vvv -d ::0c0b\n";
    }
    let is_soft_reserved = config.contains("soft_reserved = true");
    if is_soft_reserved {
        script += "section map grep 'Soft Reserved' /proc/iomem\nsection region cxl list -R\n";
    }
    script += "section dmesg dmesg";
    let outcome = Machine::new(lab, system, "guest", config)
        .script(&script)
        .run()?;
    outcome.powered_off()?;
    picture::check(config, &outcome.json("cxl")?)?;
    if has_accelerator {
        for section in ["gpu", "module", "litmus", "kernels", "unload"] {
            outcome.passed(section)?;
        }
        memory_is_in_its_window(outcome.passed("memory")?)?;
    }
    if has_mailbox {
        a_fabric_manager_sees_its_switch(&outcome)?;
    }
    if is_soft_reserved {
        outcome.passed("map")?;
        let region = outcome.passed("region")?;
        ensure!(region.contains(r#""decode_state":"commit""#), "{region}");
    }
    without_complaint(&without_taint(outcome.passed("dmesg")?))
}

/// By CXL.mem, at the beginning of the first window, which takes Type 2 memory.
fn memory_is_in_its_window(memory: &str) -> Result<()> {
    let words: Vec<&str> = memory.split_whitespace().collect();
    let address = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let [protocol, base, start, takes_type2] = words[..] else {
        bail!("{memory}");
    };
    ensure!(
        (protocol, takes_type2) == ("mem", "1") && address(base)? == address(start)?,
        "{memory}"
    );
    Ok(())
}

/// What `switches.toml` has of the switch with a mailbox: an expander of 512 MiB, and one that is a quarter of another.
fn a_fabric_manager_sees_its_switch(outcome: &Outcome) -> Result<()> {
    let fabric = outcome.passed("fabric")?;
    let expected = [
        r#"{"switch": 256, "upstream": 255, "ports": 3, "decoders": 10}"#,
        r#"{"port": 0, "state": 3, "type": 4, "width": 8, "speed": 5, "serial": 1, "memory": 536870912, "of": 536870912}"#,
        r#"{"port": 1, "state": 3, "type": 5, "width": 8, "speed": 5, "serial": 2, "memory": 536870912, "of": 2147483648}"#,
        r#"{"port": 255, "state": 4, "type": 0, "width": 16, "speed": 5}"#,
    ];
    let lines: Vec<&str> = fabric.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    ensure!(lines == expected, "the fabric manager sees:\n{fabric}");
    let lspci = outcome.passed("lspci")?;
    lspci_is_content(lspci)?;
    for part in [
        "MSI-X: Enable-",
        "Endpoint",
        "BIR: bar0, ID: CXL device registers",
    ] {
        ensure!(
            lspci.contains(part),
            "lspci does not say {part:?}:\n{lspci}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::TESTS;

    /// Whether another module of the suite boots the example in `file`, and compares the kernel's picture.
    fn boot_elsewhere(file: &str) -> bool {
        let suite = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/suite"));
        fs::read_dir(suite).unwrap().any(|entry| {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
            text.contains(&format!("include_str!(\"../../../vmm/examples/{file}\")"))
                && text.contains("picture::check(")
        })
    }

    #[test]
    fn every_example_has_a_test() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vmm/examples"));
        for entry in fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(stem) = name.strip_suffix(".toml") else {
                continue;
            };
            let here = format!("example::{stem}");
            assert!(
                TESTS.iter().any(|test| test.name == here) || boot_elsewhere(&name),
                "no test boots {name}"
            );
        }
    }
}
