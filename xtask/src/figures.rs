//! `cargo xtask demo` and `cargo xtask bench`: programs that print figures, most of which boot guests.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::guests::{GuestProgram, Own};
use crate::kernel::Track;
use crate::lab::Place;
use crate::report::{Measurement, Report};
use crate::root::DebianRoot;
use crate::{cmd, paths, setup, ui};

/// How to run either.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write the results to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A host with two expanders: its user makes a region, puts it online and works in it.
pub fn demo(arguments: &Arguments) -> Result<bool> {
    let program = GuestProgram {
        name: "memu-demo",
        tracks: &[Track::Stable],
        own: Own::No,
        needs_qemu: false,
        clients_suite: None,
        timeout: Duration::from_secs(10 * 60),
        arguments: Vec::new(),
    };
    run(&program, arguments, Report::default())
}

/// What PoCL's programs need, and what is needed to compile against it.
const POCL: [&str; 3] = ["pocl-opencl-icd", "ocl-icd-libopencl1", "opencl-c-headers"];

/// What memory, start and the VMM itself cost, beside QEMU; memsim, beside exact instrumentation; and kernels of the
/// accelerator, beside C and PoCL.
pub fn bench(arguments: &Arguments) -> Result<bool> {
    setup::ensure(setup::FOR_MEMSIM)?;
    let mut report = Report::default();
    for (package, bench) in [
        ("memsim", "kernel"),
        ("memsim", "reference"),
        ("gpu", "kernels"),
    ] {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["bench", "--quiet", "--package", package, "--bench", bench])
            .current_dir(paths::workspace());
        if package == "gpu" {
            match DebianRoot::obtain(&POCL) {
                Ok(root) => {
                    command.env("MEMU_POCL", root.dir);
                }
                Err(error) => report.skip("kernels through PoCL", &format!("{error:#}")),
            }
        }
        let text = ui::step(&format!("{package}'s {bench} benchmark"), || {
            cmd::output(&mut command)
        })?;
        text.lines().for_each(|line| take(&mut report, line));
    }
    let program = GuestProgram {
        name: "memu-guest-bench",
        tracks: &[Track::Stable],
        own: Own::No,
        needs_qemu: true,
        clients_suite: None,
        timeout: Duration::from_secs(45 * 60),
        arguments: Vec::new(),
    };
    run(&program, arguments, report)
}

/// Takes in a figure, and shows what is none.
fn take(report: &mut Report, line: &str) {
    match serde_json::from_str::<Measurement>(line) {
        Ok(measurement) => report.measure(measurement),
        Err(_) => ui::result_line(line),
    }
}

/// Runs a program whose stdout has one figure a line, and whatever else it wants to show, and ends the report.
fn run(program: &GuestProgram, arguments: &Arguments, mut report: Report) -> Result<bool> {
    if Place::here() == Place::Emulated {
        ui::note("this machine has no VT-x or SVM, so the guest runs in an emulated machine:");
        ui::note(
            "what it shows holds, ratios and counts too; times and bandwidths are the emulator's",
        );
    }
    let status = program.run(|line| take(&mut report, line))?;
    if status != 0 {
        ui::note(&format!("{} ended with status {status}", program.name));
        report.count(false);
    }
    println!();
    report.finish(arguments.json.as_deref())
}
