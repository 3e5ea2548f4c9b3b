//! CUDA programs of other people on the accelerator, unmodified and unprivileged: cudarc's own tests and examples, numba-cuda
//! and tinygrad.

use super::Test;
use super::region::stock;
use crate::accelerator::{USER, gpu};
use crate::guest::{Guest, Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};

pub const TESTS: &[Test] = crate::tests!["cuda":
    cuda_programs_of_others_run_unmodified_for_an_ordinary_user,
];

const HARDWARE: &str = r#"
[machine]
memory = "2GiB"
vcpus = 2

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type2"
name = "gpu0"
serial = 0x1
memory = "512MiB"
watchdog = 0

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
"#;

/// Each program has a step, and so a whole deadline.
const SCRIPT: &str = r#"
section load modprobe cxl_type2_accel
section disk mount -t ext4 -o ro /dev/vda /mnt
step idle
export HOME=/tmp
python="$user env TRAINING=1 CACHELEVEL=0 /mnt/python"
cd /mnt/cudarc
cudarc="$user env LD_LIBRARY_PATH=/mnt/usr/lib/python3/dist-packages/nvidia/cuda_nvrtc/lib:/mnt/usr/lib/x86_64-linux-gnu"
section tests $cudarc ./tests --test-threads=1 @SKIPPED@
step cudarc
for example in bin/*; do section ${example#bin/} $cudarc $example; done
step examples
section numba $python /test/numba_kernels.py
step numba
section tinygrad env DEV=CUDA:PTX $python /test/tinygrad_small.py
step tinygrad
section processor cat /mnt/tinygrad.losses
section who $user sh -c 'id -u; grep CapEff /proc/self/status'
section unload rmmod cxl_type2_accel
"#;

/// What the names of cudarc's tests that are left out have in them: two compare times of copies, and the kernels of three more go
/// a million rounds in 1024 threads.
const SKIPPED: [&str; 3] = ["faster", "test_multi_stream", "test_par_launch"];
/// The others, but for those that cudarc itself ignores.
const TESTS_OF_CUDARC: u32 = 47;

const EXAMPLES: &[&str] = &[
    "01-allocate",
    "02-copy",
    "03-launch-kernel",
    "04-streams",
    "05-device-repr",
    "09-constant-memory",
    "10-function-attributes",
    "12-context-config",
    "matmul-kernel",
    "nvrtc-compile",
];

fn cuda_programs_of_others_run_unmodified_for_an_ordinary_user(lab: &Lab) -> Result<()> {
    let disk = lab
        .clients
        .as_ref()
        .context("there is no disk with these programs")?;
    let hardware = format!(
        "{HARDWARE}\n[[disk]]\npath = \"{}\"\nread_only = true\n",
        disk.display()
    );
    let skipped: Vec<String> = SKIPPED
        .iter()
        .map(|name| format!("--skip {name}"))
        .collect();
    let script = SCRIPT.replace("@SKIPPED@", &skipped.join(" "));
    let mut guest = Machine::new(lab, stock(lab)?, "guest", &hardware)
        .script(&format!("{USER}{script}"))
        .with(
            "numba_kernels.py",
            include_str!("../../../images/libcuda/tests/python/numba_kernels.py"),
        )
        .with(
            "tinygrad_small.py",
            include_str!("../../../images/libcuda/tests/python/tinygrad_small.py"),
        )
        .start()?;
    guest.wait_for_step("idle")?;
    let unused = gpu(&guest)?["free"].clone();
    let mut exits = exits(&guest)?;
    guest.go_on()?;
    for step in ["cudarc", "examples", "numba", "tinygrad"] {
        guest.wait_for_step(step)?;
        // It was this device that they computed on, and they have left nothing there.
        let before = std::mem::replace(&mut exits, self::exits(&guest)?);
        ensure!(exits > before, "{step} did not use the accelerator");
        let view = gpu(&guest)?;
        ensure!(
            view["sessions"] == serde_json::json!([]) && view["free"] == unused,
            "{step} has left something: {view}"
        );
        guest.go_on()?;
    }
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    check(&outcome)
}

fn exits(guest: &Guest) -> Result<u64> {
    let exits = guest.control(&["exits"])?;
    Ok(exits["devices"]["gpu0"].as_u64().unwrap_or(0))
}

fn check(outcome: &Outcome) -> Result<()> {
    for section in ["load", "disk", "unload"] {
        outcome.passed(section)?;
    }
    let who = outcome.passed("who")?;
    ensure!(
        who.starts_with("1000\n") && who.contains("CapEff:\t0000000000000000"),
        "{who}"
    );
    let numba = outcome.passed("numba")?;
    ensure!(numba.trim() == "numba is right", "{numba}");
    trained_alike(outcome.passed("tinygrad")?, outcome.passed("processor")?)?;
    let tests = outcome.passed("tests")?;
    ensure!(count_of_passed(tests) == TESTS_OF_CUDARC, "{tests}");
    for example in EXAMPLES {
        outcome.passed(example)?;
    }
    for (example, line) in [
        ("09-constant-memory", "All results match expected values!"),
        ("12-context-config", "Updated stack size: 2048 bytes"),
        ("matmul-kernel", "Found [7.0, 10.0, 15.0, 22.0]"),
    ] {
        let text = outcome.passed(example)?;
        ensure!(text.contains(line), "{example}: {text}");
    }
    for example in ["03-launch-kernel", "04-streams"] {
        let text = outcome.passed(example)?;
        let numbers = |label: &str| -> Result<Vec<f64>> {
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let list = line.with_context(|| format!("{example}: {text}"))?.trim();
            Ok(serde_json::from_str(list)?)
        };
        alike(&numbers("Found ")?, &numbers("Expected ")?, 1e-6)
            .with_context(|| example.to_string())?;
    }
    println!(
        "{} of cudarc's own tests and {} of its examples; the losses of tinygrad: {}",
        count_of_passed(tests),
        EXAMPLES.len(),
        outcome
            .passed("tinygrad")?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    );
    Ok(())
}

/// Of a summary such as `test result: ok. 3 passed; 0 failed; ...`.
fn count_of_passed(text: &str) -> u32 {
    text.split_once("test result: ok. ")
        .and_then(|(_, rest)| rest.split_once(" passed; 0 failed"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or(0)
}

/// That a net has learned, and the same on both backends.
fn trained_alike(ours: &str, theirs: &str) -> Result<()> {
    let losses = |text: &str| -> Result<Vec<f64>> {
        text.split_whitespace()
            .map(|word| word.parse().with_context(|| text.to_owned()))
            .collect()
    };
    let (ours, theirs) = (losses(ours)?, losses(theirs)?);
    ensure!(
        ours.len() == 4 && ours.windows(2).all(|pair| pair[1] < pair[0]),
        "{ours:?}"
    );
    alike(&ours, &theirs, 1e-4)
}

fn alike(ours: &[f64], theirs: &[f64], tolerance: f64) -> Result<()> {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance;
    ensure!(
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(near),
        "{ours:?}, not {theirs:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_must_learn_and_as_on_the_other_backend() {
        let losses = "0.9\n0.8\n0.7\n0.6\n";
        trained_alike(losses, losses).unwrap();
        for (ours, theirs) in [
            ("0.9 0.8 0.7", "0.9 0.8 0.7"),
            ("0.9 0.8 0.7 0.7", "0.9 0.8 0.7 0.7"),
            (losses, "0.9 0.8 0.7 0.61"),
            (losses, "0.9 0.8 0.7"),
            ("error", losses),
        ] {
            trained_alike(ours, theirs).unwrap_err();
        }
    }

    #[test]
    fn a_summary_with_failures_counts_nothing() {
        let summary = "\ntest result: ok. 41 passed; 0 failed; 3 ignored; 0 measured\n";
        assert_eq!(count_of_passed(summary), 41);
        assert_eq!(
            count_of_passed("test result: FAILED. 40 passed; 1 failed"),
            0
        );
    }
}
