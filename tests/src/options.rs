//! The command line that the programs of this crate share.

use crate::guest::{Lab, System};
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

/// How to call them.
pub const USAGE: &str = "options: --vmm FILE --ctl FILE --work DIR --system NAME=KERNEL,INITRD... [--own NAME=KERNEL,INITRD] [--clients IMAGE] [--show] [--list] [--claims DIR --owner NAME] [FILTER...]";

/// Programs that share the tests.
#[derive(Debug)]
pub struct Share {
    /// Directory in which each of them marks what it took.
    pub claims: PathBuf,
    /// This one's name there.
    pub owner: String,
}

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// The programs under test, the guests, and where to keep files.
    pub lab: Lab,
    /// Name what would run, and run nothing.
    pub list: bool,
    /// How this program shares the tests with others.
    pub share: Option<Share>,
    /// Parts of names; everything if empty.
    pub filters: Vec<String>,
}

impl Options {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// Unknown options, or something is missing; the message says how to call the program.
    pub fn from_arguments() -> Result<Self> {
        let mut lab = Lab {
            vmm: PathBuf::new(),
            ctl: PathBuf::new(),
            work: PathBuf::new(),
            systems: Vec::new(),
            own: None,
            show: false,
            clients: None,
        };
        let (mut list, mut claims, mut owner, mut filters) = (false, None, None, Vec::new());
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value; {USAGE}"))
            };
            match argument.as_str() {
                "--vmm" => lab.vmm = value()?.into(),
                "--ctl" => lab.ctl = value()?.into(),
                "--work" => lab.work = value()?.into(),
                "--system" => lab.systems.push(system(&value()?)?),
                "--own" => lab.own = Some(system(&value()?)?),
                "--clients" => lab.clients = Some(value()?.into()),
                "--claims" => claims = Some(PathBuf::from(value()?)),
                "--owner" => owner = Some(value()?),
                "--show" => lab.show = true,
                "--list" => list = true,
                option if option.starts_with('-') => bail!("unknown option {option}; {USAGE}"),
                _ => filters.push(argument),
            }
        }
        if !list {
            ensure!(
                !lab.systems.is_empty() && lab.vmm.is_file() && lab.ctl.is_file(),
                "{USAGE}"
            );
            std::fs::create_dir_all(&lab.work)?;
        }
        ensure!(claims.is_some() == owner.is_some(), "{USAGE}");
        let share = claims
            .zip(owner)
            .map(|(claims, owner)| Share { claims, owner });
        Ok(Self {
            lab,
            list,
            share,
            filters,
        })
    }
}

/// Reads `NAME=KERNEL,INITRD`.
fn system(text: &str) -> Result<System> {
    let (name, files) = text.split_once('=').context(USAGE)?;
    let (kernel, initrd) = files.split_once(',').context(USAGE)?;
    Ok(System {
        name: name.into(),
        kernel: kernel.into(),
        initrd: initrd.into(),
    })
}
