//! `memu-vmm`: one host, as its configuration file describes it.
//!
//! Exit status: 0 after power-off, 1 if the machine could not run or the guest crashed, 2 for a configuration or a command
//! line that cannot be used.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vmm::Error;
use vmm::config::{Config, Overrides};
use vmm::machine::Ending;

/// The exit status for what the user must mend.
const BAD_CONFIGURATION: u8 = 2;

/// Boots an unmodified Linux on a machine with CXL memory, as a configuration file describes it
#[derive(Debug, Parser)]
#[command(
    name = "memu-vmm",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    /// The machine to run
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validates a configuration without KVM, and draws its topology as a tree
    Check {
        /// The configuration
        file: PathBuf,
        /// Draw the topology into this file as well
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        #[command(flatten)]
        overrides: OverrideArgs,
    },
}

#[derive(Debug, Args)]
struct OverrideArgs {
    /// Boot this kernel instead of the file's
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Use this initrd instead of the file's
    #[arg(long, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Add these words to the kernel command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,
    /// Where the serial port goes: stdio, pty, null, file:PATH or socket:PATH
    #[arg(long, value_name = "TARGET")]
    serial: Option<String>,
    /// Put the control socket here
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        Self {
            kernel: args.kernel,
            initrd: args.initrd,
            append: args.append,
            serial: args.serial,
            control: args.control,
        }
    }
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cli = Cli::parse();
    match (cli.command, cli.config) {
        (
            Some(Command::Check {
                file,
                svg,
                overrides,
            }),
            _,
        ) => check(&file, svg.as_deref(), &overrides.into()),
        (None, Some(file)) => run(&file, &cli.overrides.into()),
        // clap asks for one of the two.
        (None, None) => ExitCode::from(BAD_CONFIGURATION),
    }
}

fn check(file: &Path, svg: Option<&Path>, overrides: &Overrides) -> ExitCode {
    let config = match Config::load(file, overrides) {
        Ok(config) => config,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    match config.topology() {
        Ok(tree) => {
            if let Some(svg) = svg
                && let Err(error) = std::fs::write(svg, tree.to_svg())
            {
                eprintln!("memu-vmm: cannot draw into {}: {error}", svg.display());
                return ExitCode::FAILURE;
            }
            // Nobody is left to tell if the reader of a pipe has gone.
            let _ = std::io::stdout().write_all(tree.to_string().as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => bad_configuration(&format_args!("{}: {error}", file.display())),
    }
}

fn run(file: &Path, overrides: &Overrides) -> ExitCode {
    let config = match Config::load(file, overrides) {
        Ok(config) => config,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    match vmm::machine::run(config) {
        Ok(Ending::Off) => ExitCode::SUCCESS,
        Ok(Ending::Crashed) => ExitCode::FAILURE,
        Err(error @ (Error::Layout(_) | Error::Boot { .. } | Error::CommandLine { .. })) => {
            bad_configuration(&format_args!("{}: {error}", file.display()))
        }
        Err(error) => {
            eprintln!("memu-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bad_configuration(mistakes: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{mistakes}");
    ExitCode::from(BAD_CONFIGURATION)
}
