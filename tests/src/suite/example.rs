//! The examples of the documentation: each boots, and the kernel has the picture of it that the file has.

use super::Test;
use super::accelerator::without_taint;
use super::boot::without_complaint;
use super::picture;
use crate::accelerator::USER;
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
    let has_accelerator = config.contains("type = \"type2\"");
    // What drives accelerators in the first kernel has a test of its own.
    let system = match has_accelerator {
        true => lab.systems.last(),
        false => lab.systems.first(),
    };
    let system = system.context("no guest system")?;
    let mut script = "section cxl sh -c 'cxl list -vvv 2>/dev/null'\n".to_string();
    if has_accelerator {
        script += USER;
        script += "section gpu memu-guest gpu-v1\n\
                   section module modprobe cxl_type2_accel\n\
                   section kernels $kernels\n\
                   section unload rmmod cxl_type2_accel\n";
    }
    script += "section dmesg dmesg";
    let outcome = Machine::new(lab, system, "guest", config)
        .script(&script)
        .run()?;
    outcome.powered_off()?;
    picture::check(config, &outcome.json("cxl")?)?;
    if has_accelerator {
        for section in ["gpu", "module", "kernels", "unload"] {
            outcome.passed(section)?;
        }
    }
    without_complaint(&without_taint(outcome.passed("dmesg")?))
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
