//! `memsim`: what a CXL topology costs an unmodified program.

mod args;
mod awake;
mod burst;
mod calls;
mod dataflow;
mod faults;
mod html;
mod lackey;
mod maps;
mod original;
mod perf;
mod remote;
mod replay;
mod report;
mod sampler;
mod session;
mod source;
#[allow(unsafe_code)]
mod sys;
mod tree;
mod visits;

use std::process::ExitCode;

use clap::Parser;
use memsim::curve;
use memsim::fit;
use memsim::profile::{Latency, Link, Media, Profile};

use crate::args::{Action, Args};

/// Something went wrong while running.
const RUN_FAILED: u8 = 1;
/// The command line or a file that it names is wrong.
const BAD_CONFIGURATION: u8 = 2;
/// The target is there but cannot be executed; the custom of shells.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such target.
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    let args = Args::parse();
    let result = match &args.action {
        Some(Action::Calibrate { table, name }) => calibrate(table, name).map(|()| 0),
        None => session::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("memsim: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<memsim::Error>()) {
        return BAD_CONFIGURATION;
    }
    match error.downcast_ref::<session::NoTarget>() {
        Some(session::NoTarget { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            NOT_FOUND
        }
        Some(_) => NOT_EXECUTABLE,
        None => RUN_FAILED,
    }
}

/// Fits a profile to a table, prints it, and says on the side how well it fits.
fn calibrate(table: &std::path::Path, name: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(table)
        .map_err(|error| session::unusable("latency table", table, &error))?;
    let curves = curve::curves(&curve::parse(&text)?);
    let found = fit::fit(&curves)?;
    let law = found.law;
    let profile = Profile {
        name: name.to_owned(),
        description: "fitted by memsim calibrate".to_owned(),
        source: table.display().to_string(),
        latency: Latency {
            read: law.idle_ns,
            write: law.idle_ns,
        },
        link: Link {
            s2m: law.link.s2m,
            m2s: law.link.m2s,
            completion_share: law.link.completion_share,
            request_share: law.link.request_share,
            s2m_wait: law.link.s2m_wait,
            m2s_wait: law.link.m2s_wait,
            m2s_slope: law.link.m2s_slope,
            posted_wait: law.link.posted_wait,
        },
        media: Media {
            bandwidth: law.media.bandwidth,
            wait: law.media.wait,
        },
        outstanding_lines: law.outstanding_lines,
    };
    print!("{}", profile.to_toml()?);
    for (what, errors) in [
        ("peak bandwidth", found.peaks),
        ("latency", found.latencies),
    ] {
        eprintln!(
            "{what}: mean error {:.2} %, worst {:.2} %, of {} points",
            100.0 * errors.mean,
            100.0 * errors.worst,
            errors.count
        );
    }
    Ok(())
}
