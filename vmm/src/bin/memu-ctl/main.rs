//! `memu-ctl`: talks to a running `memu-vmm` over its control socket.
//!
//! Exit status: 0, 1 if the machine does not answer or refuses, 2 for a command line that cannot be used.

mod extent;
mod gpu;
mod inject;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Deserialize;
use vmm::control::{AddDevice, Client, MOST_STEPS};

use self::extent::Extent;
use self::inject::Inject;

/// Looks into a running memu-vmm, and steers it
#[derive(Debug, Parser)]
#[command(name = "memu-ctl", version)]
struct Cli {
    /// The machine's control socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Print the machine's answer as it came
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The machine as a whole
    State,
    /// The PCI and CXL tree with its committed decoders
    Tree,
    /// KVM's memory slots
    Memslots,
    /// How often the guest was left, by cause and by device
    Exits,
    /// What the guest is made to feel of its CXL memory
    Timing,
    /// The accelerators, their clients, queues and kernels, and what is counted of coherence
    Gpu {
        #[command(subcommand)]
        what: Option<GpuCommand>,
    },
    /// Bytes of a device by device-physical address
    Media {
        /// Name of the device
        device: String,
        /// First address, decimal or 0x...
        dpa: String,
        /// Number of bytes
        length: String,
    },
    /// Stops the processors
    Pause,
    /// Lets the processors go on
    Resume,
    /// Presses the power button
    PowerButton,
    /// Puts a device into the empty slot of a port, and presses its button
    Add {
        /// Name of the port
        port: String,
        /// A TOML or JSON file with the keys of [host_bridge.root_port.device]; - for standard input
        file: PathBuf,
    },
    /// Takes a device out of its slot: presses the button, and waits until the guest has switched the slot off
    Remove {
        /// Name of the device
        device: String,
        /// Pulls it out at once, whatever the guest does with it
        #[arg(long)]
        surprise: bool,
    },
    /// Lets something go wrong, or puts it right again
    #[command(subcommand)]
    Inject(Inject),
    /// Gives memory to a device with dynamic capacity, or takes some away
    #[command(subcommand)]
    Extent(Extent),
    /// Ends the machine at once
    Quit,
}

#[derive(Debug, Subcommand)]
enum GpuCommand {
    /// Steps of the coherence protocol, as JSON lines behind one that says what they are of
    Trace {
        /// Name of the accelerator
        device: String,
        /// Number of the first one
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most
        #[arg(long, default_value_t = MOST_STEPS)]
        most: u64,
    },
}

/// A request, and how its answer is shown.
struct Request {
    method: &'static str,
    target: String,
    body: String,
    show: fn(&str) -> Result<String>,
}

impl Request {
    fn get(target: impl Into<String>, show: fn(&str) -> Result<String>) -> Self {
        Self {
            method: "GET",
            target: target.into(),
            body: String::new(),
            show,
        }
    }

    fn put(target: impl Into<String>) -> Self {
        Self {
            method: "PUT",
            target: target.into(),
            body: String::new(),
            show: |_| Ok(String::new()),
        }
    }
}

impl Command {
    fn request(&self) -> Result<Request> {
        Ok(match self {
            Self::State => Request::get("/v1/state", |text| Ok(show::state(&read(text)?))),
            Self::Tree => Request::get("/v1/tree", |text| Ok(show::tree(&read(text)?))),
            Self::Memslots => Request::get("/v1/memslots", |text| {
                Ok(show::memslots(&read::<Vec<_>>(text)?))
            }),
            Self::Exits => Request::get("/v1/exits", |text| Ok(show::exits(&read(text)?))),
            Self::Timing => Request::get("/v1/timing", |text| Ok(show::timing(&read(text)?))),
            Self::Gpu { what: None } => {
                Request::get("/v1/gpu", |text| Ok(gpu::show(&read::<Vec<_>>(text)?)))
            }
            Self::Gpu {
                what: Some(GpuCommand::Trace { device, from, most }),
            } => Request::get(
                format!("/v1/gpu/trace?device={device}&from={from}&most={most}"),
                |text| Ok(text.to_string()),
            ),
            Self::Media {
                device,
                dpa,
                length,
            } => Request::get(
                format!("/v1/media?device={device}&dpa={dpa}&length={length}"),
                |text| Ok(show::media(&read(text)?)),
            ),
            Self::Pause => Request::put("/v1/pause"),
            Self::Resume => Request::put("/v1/resume"),
            Self::PowerButton => Request::put("/v1/power-button"),
            Self::Add { port, file } => Request {
                body: serde_json::to_string(&added(port, file)?)?,
                ..Request::put("/v1/add")
            },
            Self::Remove { device, surprise } => {
                Request::put(format!("/v1/remove?device={device}&surprise={surprise}"))
            }
            Self::Inject(inject) => Request {
                body: serde_json::to_string(&inject.request()?)?,
                ..Request::put("/v1/inject")
            },
            Self::Extent(extent) => Request {
                body: serde_json::to_string(&extent.request()?)?,
                ..Request::put("/v1/extents")
            },
            Self::Quit => Request::put("/v1/quit"),
        })
    }
}

/// The request to add the device that a file describes.
fn added(port: &str, file: &Path) -> Result<AddDevice> {
    let is_stdin = file == Path::new("-");
    let text = if is_stdin {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let what = || format!("cannot use {}", file.display());
    let text = text.with_context(what)?;
    let device = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).with_context(what)?
    } else {
        toml::from_str(&text).with_context(what)?
    };
    // The machine runs in another directory, perhaps.
    let near = if is_stdin { Path::new("device") } else { file };
    Ok(AddDevice {
        port: port.to_string(),
        device,
        file: Some(std::path::absolute(near)?),
    })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).context("the machine's answer is not understood; use --json")
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(text) => {
            // Nobody is left to tell if the reader of a pipe has gone.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("memu-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<String> {
    let request = cli.command.request()?;
    let client = Client::new(&cli.socket);
    let answer = client.request(request.method, &request.target, &request.body)?;
    if cli.json {
        Ok(answer.body)
    } else {
        (request.show)(&answer.body)
    }
}
