//! `cargo xtask`: everything around the programs of this workspace.
//!
//! Each subcommand is one module. Those that need Debian packages install them by themselves
//! ([`setup`]); what they download or build is kept under the cache directory ([`paths`]).

mod apt;
mod clients;
mod cmd;
mod cpio;
mod disk;
mod figures;
mod guest;
mod guests;
mod image;
mod kernel;
mod lab;
mod module;
mod own;
mod paths;
mod qemu;
mod report;
mod root;
mod setup;
mod test;
mod ui;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Exit status of a run that failed; a wrong command line is 2 (clap's own).
const EXIT_FAILED: u8 = 1;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Build, boot and test MEMU"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Obtain the stock Debian kernels that guests boot, or build one with what they leave out
    Kernel {
        /// Build a kernel with all CXL drivers from Debian's newest sources
        #[arg(long)]
        own: bool,
    },
    /// Make the guest images: the test initramfs of each kernel, or a disk
    Image {
        /// Make the disk image, with systemd, a login and ssh, for people
        #[arg(long, conflicts_with = "clients")]
        disk: bool,
        /// Make the disk image with CUDA programs of other people, for the tests
        #[arg(long)]
        clients: bool,
    },
    /// Run a command where KVM works: here, or in an emulated machine
    Lab(LabArguments),
    /// Show a host with two expanders at work
    Demo(figures::Arguments),
    /// Run every test, those that boot guests in the lab
    Test(test::Arguments),
    /// Measure memory, start and size beside QEMU
    Bench(figures::Arguments),
}

#[derive(clap::Args)]
struct LabArguments {
    /// Stop the command after this many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Memory of an emulated machine
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// CPUs of an emulated machine, one unless said; with more, guests in it hang at times
    #[arg(long, value_name = "COUNT")]
    cpus: Option<usize>,
    /// The command; it finds a writable directory in MEMU_LAB_OUT (target/lab unless that is set)
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Kernel { own } => {
            let kernels = match own {
                true => vec![own::obtain(kernel::Freshness::Newest)?],
                false => kernel::obtain_all(kernel::Freshness::Newest)?,
            };
            for kernel in kernels {
                println!("{} {}", kernel.track.name(), kernel.dir.display());
            }
        }
        Command::Image { clients: true, .. } => {
            println!("python {}", clients::tree()?.join("python").display());
            println!("clients {}", clients::image()?.display());
        }
        Command::Image { disk: true, .. } => {
            println!("disk {}", disk::image(kernel::Freshness::Newest)?.display());
            ui::note(
                "root's password is memu; give each guest a copy (cp --sparse=always), or read_only = true",
            );
        }
        Command::Image { disk: false, .. } => {
            for image in image::initramfs_all(kernel::Freshness::Newest)? {
                println!("{} {}", image.kernel.track.name(), image.path.display());
            }
        }
        Command::Lab(arguments) => return run_in_lab(arguments),
        Command::Demo(arguments) => return figures::demo(&arguments).map(verdict),
        Command::Test(arguments) => return test::run(&arguments).map(verdict),
        Command::Bench(arguments) => return figures::bench(&arguments).map(verdict),
    }
    Ok(ExitCode::SUCCESS)
}

fn verdict(ok: bool) -> ExitCode {
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}

fn run_in_lab(arguments: LabArguments) -> Result<ExitCode> {
    let mut session = lab::Session::new(arguments.command);
    session.timeout = arguments.timeout.map(Duration::from_secs);
    session.memory_mib = arguments.memory;
    session.cpus = arguments.cpus;
    let status = if lab::on_terminal() {
        session.run_on_terminal()?
    } else {
        session.run(|bytes| {
            let mut stdout = std::io::stdout();
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        })?
    };
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(EXIT_FAILED)))
}
