//! Debian packages that the commands need: what is missing is named with its reason, then installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, ui};

/// A Debian package and what for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// To fetch and unpack the stock kernels.
pub const FOR_KERNELS: &[Package] = &[
    package(
        "debian-archive-keyring",
        "checks the signatures of the Debian suites",
    ),
    package("kmod", "resolves the kernel modules' dependencies"),
    package("xz-utils", "unpacks kernel modules"),
    package("zstd", "unpacks kernels"),
];

/// To build a kernel, besides what stock ones need.
pub const FOR_OWN_KERNEL: &[Package] = &[
    package("bc", "computes constants of the kernel"),
    package("bison", "makes parsers of the kernel's build"),
    package("flex", "makes scanners of the kernel's build"),
    package("gcc", "compiles the kernel"),
    package("libc6-dev", "links the tools of the kernel's build"),
    package(
        "libelf-dev",
        "lets the kernel's build look into object files",
    ),
    package("make", "runs the kernel's build"),
];

/// To unpack trees of Debian packages, besides what kernels need.
pub const FOR_ROOTS: &[Package] = &[
    package(
        "mmdebstrap",
        "unpacks Debian packages for guests and the lab",
    ),
    package("uidmap", "lets mmdebstrap work for a user who is not root"),
];

/// To make disk images, besides what roots need.
pub const FOR_DISKS: &[Package] = &[
    package("e2fsprogs", "makes the file system of a disk image"),
    package(
        "fakeroot",
        "lets a user who is not root make files of root in it",
    ),
];

/// To build what runs in guests.
pub const FOR_GUEST_PROGRAMS: &[Package] = &[
    package("gcc", "compiles and links the guest programs"),
    package("libc6-dev", "links the guest programs"),
];

/// To compare memsim with exact instrumentation.
pub const FOR_MEMSIM: &[Package] = &[package(
    "valgrind",
    "counts the accesses of a program one by one",
)];

/// To run the lab where KVM does not work, besides kernel and roots.
pub const FOR_LAB: &[Package] = &[package(
    "busybox-static",
    "is the user space of the lab's first steps",
)];

/// Makes sure that `wanted` are installed, by apt-get (through sudo for a user who is not root).
///
/// # Errors
/// When the machine is no Debian, or apt-get fails.
pub fn ensure(wanted: &[Package]) -> Result<()> {
    let missing: Vec<Package> = wanted
        .iter()
        .copied()
        .filter(|package| !is_installed(package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        bail!(
            "this machine has no apt-get; install the equivalents of: {}",
            names.join(" ")
        );
    }
    ui::note("these Debian packages are needed and will be installed:");
    for package in &missing {
        eprintln!("      {:24} {}", package.name, package.why);
    }
    if !has_package_lists() {
        refresh_lists()?;
    }
    if install(&missing).is_err() {
        // Lists older than the archive name versions that have left the pool.
        refresh_lists()?;
        install(&missing)?;
    }
    Ok(())
}

/// Makes sure that the machine's own apt knows its sources (a fresh container does not).
pub fn ensure_package_lists() -> Result<()> {
    if has_package_lists() {
        Ok(())
    } else {
        refresh_lists()
    }
}

fn install(packages: &[Package]) -> Result<()> {
    let mut command = privileged("apt-get")?;
    command.args(["install", "--yes", "--no-install-recommends"]);
    command.args(packages.iter().map(|package| package.name));
    command.env("DEBIAN_FRONTEND", "noninteractive");
    ui::step("installing packages", || cmd::run(&mut command))
}

fn refresh_lists() -> Result<()> {
    let mut command = privileged("apt-get")?;
    command.arg("update");
    ui::step("refreshing the package lists", || cmd::run(&mut command))
}

/// `program` as root: plain for root, else through sudo.
fn privileged(program: &str) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    if !Path::new("/usr/bin/sudo").exists() {
        bail!("{program} needs root: run this once as root, or install sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    Ok(command)
}

/// Whether the effective user is root.
pub fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    // A process's own /proc directory belongs to its effective user.
    let metadata = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(metadata.uid() == 0)
}

fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", name]);
    cmd::output(&mut query).is_ok_and(|status| status == "installed")
}

fn has_package_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_does_not_know_is_not_installed() {
        assert!(!is_installed("memu-no-such-package"));
    }
}
