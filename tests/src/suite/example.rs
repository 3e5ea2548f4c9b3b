//! The examples of the documentation: each boots, and the kernel has the picture of it that the file has.

use super::Test;
use super::boot::without_complaint;
use super::picture;
use crate::guest::{Lab, Machine};
use anyhow::{Context, Result};

/// A test for each file of `vmm/examples`.
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

pub const TESTS: &[Test] = examples![
    "accelerator",
    "four-bridges",
    "interleave-host-bridges",
    "interleave-root-ports",
    "mixed",
    "one-expander",
    "persistent",
    "shared-host0",
    "shared-host1",
    "switches",
    "two-bridges",
];

fn boots(lab: &Lab, config: &str) -> Result<()> {
    let system = lab.systems.first().context("no guest system")?;
    let has_accelerator = config.contains("type = \"type2\"");
    let mut script =
        "section cxl sh -c 'cxl list -vvv 2>/dev/null'; section dmesg dmesg".to_string();
    if has_accelerator {
        script += "; section gpu memu-guest gpu-v1";
    }
    let outcome = Machine::new(lab, system, "guest", config)
        .script(&script)
        .run()?;
    outcome.powered_off()?;
    picture::check(config, &outcome.json("cxl")?)?;
    if has_accelerator {
        outcome.passed("gpu")?;
    }
    without_complaint(outcome.passed("dmesg")?)
}

#[cfg(test)]
mod tests {
    use super::TESTS;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_example_has_a_test() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vmm/examples"));
        let files: BTreeSet<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .filter_map(|path| Some(format!("example::{}", path.file_stem()?.to_str()?)))
            .collect();
        let tests: BTreeSet<String> = TESTS.iter().map(|test| test.name.into()).collect();
        assert_eq!(files, tests);
    }
}
