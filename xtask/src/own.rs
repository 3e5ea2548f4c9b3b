//! `cargo xtask kernel --own`: a kernel with the CXL drivers that Debian leaves out of its own.
//!
//! It is built from the newest `linux-source` of the release or its backports, with the configuration in `guest-kernel`, and
//! kept in the cache beside the stock ones. Its directory is named by the version and by all that went in; `own` links to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Apt};
use crate::kernel::{self, Freshness, Kernel, Manifest, Track};
use crate::root::content_key;
use crate::{cmd, paths, setup, ui};

/// Meta package whose dependency has the sources.
const META_PACKAGE: &str = "linux-source";
/// Packages with sources, by prefix.
const SOURCE_PACKAGES: [&str; 1] = ["linux-source-"];
/// The configuration, in the workspace: what differs from `allnoconfig`.
const CONFIGURATION: &str = "guest-kernel/own.config";
/// What every make is told, so that the same sources give the same kernel.
const MAKE: [&str; 5] = [
    "ARCH=x86_64",
    "KBUILD_BUILD_USER=memu",
    "KBUILD_BUILD_HOST=memu",
    "KBUILD_BUILD_VERSION=1",
    "KBUILD_BUILD_TIMESTAMP=@0",
];
/// What is left of the machine for others while it builds.
const NICENESS: &str = "5";

/// The kernel, if the cache has one of the present configuration, whatever its version.
pub fn cached() -> Result<Option<Kernel>> {
    let link = paths::cache()?.join("kernels").join(Track::Own.name());
    let Ok(dir) = fs::canonicalize(&link) else {
        return Ok(None);
    };
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let version = name.rsplit_once('_').map_or("", |(version, _)| version);
    if name != directory_name(version, &configuration()?) {
        return Ok(None);
    }
    Kernel::open(Track::Own, dir).map(Some)
}

/// The kernel, built if the cache has none of the newest sources.
pub fn obtain(freshness: Freshness) -> Result<Kernel> {
    if freshness == Freshness::Recent
        && let Some(kernel) = cached()?
    {
        return Ok(kernel);
    }
    setup::ensure(setup::FOR_KERNELS)?;
    setup::ensure(setup::FOR_OWN_KERNEL)?;
    let _lock = paths::lock("own-kernel")?;
    let kernels = paths::cache()?.join("kernels");
    fs::create_dir_all(&kernels)?;
    let apt = Apt::open(freshness.max_age())?;
    let version = newest(&apt.offers(META_PACKAGE)?)?;
    let configuration = configuration()?;
    let name = directory_name(&version, &configuration);
    let dir = kernels.join(&name);
    if !dir.join(kernel::MANIFEST).exists() {
        let work = paths::scratch(&kernels, &name)?;
        build(&apt, &version, &configuration, &work)?;
        fs::rename(&work, &dir)
            .with_context(|| format!("cannot move {} into place", dir.display()))?;
    }
    paths::relink(&kernels.join(Track::Own.name()), &name)?;
    Kernel::open(Track::Own, dir)
}

fn configuration() -> Result<String> {
    let path = paths::workspace().join(CONFIGURATION);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// `own-VERSION_KEY`.
fn directory_name(version: &str, configuration: &str) -> String {
    let version = version.strip_prefix("own-").unwrap_or(version);
    format!(
        "own-{version}_{}",
        content_key(&(version, configuration, MAKE))
    )
}

fn newest(offers: &[apt::Offer]) -> Result<String> {
    let mut best: Option<&str> = None;
    for offer in offers {
        if best.is_none_or(|best| apt::is_newer(&offer.version, best).unwrap_or(false)) {
            best = Some(&offer.version);
        }
    }
    best.map(str::to_owned)
        .with_context(|| format!("no {META_PACKAGE} in the package indexes"))
}

/// Fills `work` as a kernel's directory in the cache is filled.
fn build(apt: &Apt, version: &str, configuration: &str, work: &Path) -> Result<()> {
    let fields = apt.fields(META_PACKAGE, version)?;
    let package = kernel::dependencies(&fields, &SOURCE_PACKAGES)
        .into_iter()
        .next()
        .with_context(|| format!("{META_PACKAGE} {version} depends on no sources"))?;
    let named = format!("{package}={version}");
    let sha256 = apt.fields(&package, version)?.remove("SHA256");
    let sha256 = sha256.with_context(|| format!("{package} has no SHA-256 in the index"))?;
    apt.download(std::slice::from_ref(&named), work)?;
    let source = ui::step(&format!("unpacking {package}"), || unpack(&package, work))?;

    fs::write(source.join("memu.config"), configuration)?;
    let release = configure(&source, configuration)?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    ui::step_watched(
        &format!("building kernel {release}, which takes some 10 minutes"),
        || format!("({} objects)", objects(&source)),
        || {
            let jobs = format!("-j{jobs}");
            cmd::run(make(&source).args(["-s", &jobs, "bzImage", "modules"]))
        },
    )?;

    fs::copy(source.join("arch/x86/boot/bzImage"), work.join("vmlinuz"))?;
    cmd::run(
        Command::new("objcopy")
            .arg("--strip-debug")
            .arg(source.join("vmlinux"))
            .arg(work.join("vmlinux")),
    )?;
    let modules = work.join("modules");
    let mut install = make(&source);
    install.arg(format!("INSTALL_MOD_PATH={}", modules.display()));
    cmd::run(install.args(["-s", "modules_install"]))?;
    // It would lead to the sources, which go.
    let _ = fs::remove_file(modules.join("lib/modules").join(&release).join("build"));
    fs::copy(source.join(".config"), work.join("config"))?;
    fs::remove_dir_all(&source)?;
    Manifest::write(work, release, [(named, sha256)].into())
}

/// Unpacks the package in `work`, and the archive in it; returns the directory with the sources.
fn unpack(package: &str, work: &Path) -> Result<PathBuf> {
    let tree = work.join("tree");
    kernel::extract_packages(work, &tree)?;
    let source = work.join("source");
    fs::create_dir(&source)?;
    cmd::run(
        Command::new("tar")
            .arg("-xf")
            .arg(tree.join(format!("usr/src/{package}.tar.xz")))
            .arg("-C")
            .arg(&source)
            .args(["--strip-components=1", "--no-same-owner"]),
    )?;
    fs::remove_dir_all(&tree)?;
    Ok(source)
}

/// Makes `.config`, sees to it that it has all that was asked for, and returns the kernel's release.
fn configure(source: &Path, configuration: &str) -> Result<String> {
    let mut command = make(source);
    command.args(["KCONFIG_ALLCONFIG=memu.config", "-s", "allnoconfig"]);
    ui::step("configuring the kernel", || cmd::run(&mut command))?;
    let made = fs::read_to_string(source.join(".config")).context("there is no .config")?;
    let missing = missing(configuration, &made);
    ensure!(
        missing.is_empty(),
        "these sources do not grant what {CONFIGURATION} asks for: {}",
        missing.join(" ")
    );
    // The release is told from files that this makes.
    cmd::run(make(source).args(["-s", "syncconfig"]))?;
    let release = cmd::output(make(source).args(["-s", "kernelrelease"]))?;
    Ok(release.trim().to_owned())
}

/// The lines of `wanted` that are not in `made`.
fn missing<'a>(wanted: &'a str, made: &str) -> Vec<&'a str> {
    let lines: std::collections::BTreeSet<&str> = made.lines().collect();
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !lines.contains(line))
        .collect()
}

fn make(source: &Path) -> Command {
    let mut command = Command::new("nice");
    command
        .args(["-n", NICENESS, "make", "-C"])
        .arg(source)
        .args(MAKE)
        .env("LC_ALL", "C");
    command
}

/// How many object files there are.
fn objects(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => objects(&entry.path()),
            Ok(_) => usize::from(entry.path().extension().is_some_and(|found| found == "o")),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sources_of_all_suites_win() {
        let offers =
            ["6.12.118-1", "7.3.4-1~bpo13+1", "7.2.12-1~bpo13+1"].map(|version| apt::Offer {
                package: META_PACKAGE.into(),
                version: version.into(),
                suite: "any".into(),
            });
        assert_eq!(newest(&offers).unwrap(), "7.3.4-1~bpo13+1");
        assert!(newest(&[]).is_err());
    }

    #[test]
    fn a_name_tells_version_and_content() {
        let name = directory_name("7.3.4-1~bpo13+1", "CONFIG_A=y\n");
        assert!(name.starts_with("own-7.3.4-1~bpo13+1_"));
        let (version, _) = name.rsplit_once('_').unwrap();
        assert_eq!(directory_name(version, "CONFIG_A=y\n"), name);
        assert_ne!(directory_name(version, "CONFIG_A=n\n"), name);
    }

    #[test]
    fn what_the_kernels_rules_left_out_is_named() {
        let wanted = "# a comment\nCONFIG_A=y\nCONFIG_B=\"x\"\n\nCONFIG_C=y\n";
        let made = "CONFIG_A=y\n# CONFIG_C is not set\nCONFIG_B=\"x\"\n";
        assert_eq!(missing(wanted, made), ["CONFIG_C=y"]);
    }
}
