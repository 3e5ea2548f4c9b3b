//! A stock kernel boots, finds its hardware without a complaint, and powers off.

use super::{Test, picture};
use crate::guest::{Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["boot": every_kernel_boots_without_a_complaint];

/// What a kernel log must not say.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace",
    "FW_BUG",
    "[Firmware Bug]",
    "ACPI Error",
    "ACPI BIOS Error",
    "pci_bus ????:??: Some",
];

/// Fails on what `lspci` says of functions that it does not understand.
pub fn lspci_is_content(lspci: &str) -> Result<()> {
    for complaint in ["Unknown", "!!!", "<access denied>", "broken"] {
        ensure!(
            !lspci.contains(complaint),
            "lspci says {complaint:?}:\n{lspci}"
        );
    }
    Ok(())
}

/// Fails on a line of the kernel's log that reports a fault of our hardware or firmware.
pub fn without_complaint(log: &str) -> Result<()> {
    let bad: Vec<&str> = log
        .lines()
        .filter(|line| {
            COMPLAINTS.iter().any(|word| line.contains(word))
                || ((line.contains("cxl") || line.contains("pci")) && {
                    let low = line.to_lowercase();
                    [
                        "error",
                        "fail",
                        "invalid",
                        "unable",
                        "cannot",
                        "can't",
                        "not active",
                        "bogus",
                    ]
                    .iter()
                    .any(|word| low.contains(word))
                })
        })
        .collect();
    ensure!(bad.is_empty(), "the kernel complains:\n{}", bad.join("\n"));
    Ok(())
}

const TWO_BRIDGES: &str = include_str!("../../../vmm/examples/two-bridges.toml");

fn every_kernel_boots_without_a_complaint(lab: &Lab) -> Result<()> {
    for system in &lab.systems {
        let outcome: Outcome = Machine::new(lab, system, &system.name, TWO_BRIDGES)
            .script("section dmesg dmesg; section lspci lspci -vvv; section tree lspci -t\nsection cxl picture")
            .run()?;
        outcome.powered_off()?;
        without_complaint(outcome.passed("dmesg")?)?;
        lspci_is_content(outcome.passed("lspci")?)?;
        picture::check(TWO_BRIDGES, &outcome.json("cxl")?).with_context(|| system.name.clone())?;
    }
    Ok(())
}
