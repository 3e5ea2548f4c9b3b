//! The kernel module for the accelerator, built for each stock kernel.
//!
//! With the compiler and the headers of the guests' release, in a tree of their own: a module must come from the compiler
//! that its kernel came from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::Apt;
use crate::kernel::{self, Kernel};
use crate::root::{DebianRoot, content_key};
use crate::{cmd, paths, setup, ui};

/// Name of the module.
pub const NAME: &str = "cxl_type2_accel";
/// Its sources, in the workspace.
const SOURCES: &str = "guest-kernel/cxl_type2_accel";
/// Packages that build modules: the compiler, what runs the build scripts, and the libraries of the headers' own tools.
const TOOLS: [&str; 13] = [
    "bash",
    "binutils",
    "coreutils",
    "dash",
    "findutils",
    "gcc",
    "grep",
    "libelf1t64",
    "libssl3t64",
    "make",
    "mawk",
    "sed",
    "util-linux",
];
/// Directories that were merged into `usr`, by which scripts and programs are called.
const MERGED: [&str; 3] = ["bin", "lib", "lib64"];
/// Packages that hold the headers and build scripts of a kernel, by prefix.
const HEADER_PACKAGES: [&str; 2] = ["linux-headers-", "linux-kbuild-"];

/// The module for a kernel.
pub fn build(kernel: &Kernel) -> Result<PathBuf> {
    let root = DebianRoot::obtain(&TOOLS)?;
    let sources = sources()?;
    let _lock = paths::lock("modules")?;
    let modules = paths::cache()?.join("modules");
    fs::create_dir_all(&modules)?;
    let key = content_key(&(&root.key, &kernel.release, kernel.dir.file_name(), &sources));
    let name = format!("{}-{key}.ko", kernel.release);
    let path = modules.join(&name);
    if !path.exists() {
        let headers = headers(kernel, &modules)?;
        let what = format!("building {NAME} for {}", kernel.release);
        ui::step(&what, || compile(&root, &headers, kernel, &sources, &path))?;
    }
    paths::prune(&modules, &format!("{}-", kernel.release))?;
    Ok(path)
}

/// The source files by name.
fn sources() -> Result<BTreeMap<String, Vec<u8>>> {
    let dir = paths::workspace().join(SOURCES);
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut sources = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        sources.insert(name, fs::read(entry.path())?);
    }
    Ok(sources)
}

/// A directory with the header packages of a kernel, which may be of backports.
fn headers(kernel: &Kernel, modules: &Path) -> Result<PathBuf> {
    let dir = modules.join(format!("headers-{}", kernel.release));
    if dir.exists() {
        return Ok(dir);
    }
    let apt = Apt::open(kernel::INDEX_MAX_AGE)?;
    let version = kernel.dir.file_name().unwrap_or_default().to_string_lossy();
    let first = format!("linux-headers-{}", kernel.release);
    let mut wanted = vec![first];
    let mut packages = Vec::new();
    while let Some(package) = wanted.pop() {
        let named = format!("{package}={version}");
        if packages.contains(&named) {
            continue;
        }
        let fields = apt.fields(&package, &version)?;
        wanted.extend(kernel::dependencies(&fields, &HEADER_PACKAGES));
        packages.push(named);
    }
    let work = paths::scratch(modules, &kernel.release)?;
    apt.download(&packages, &work)?;
    let tree = work.join("tree");
    kernel::extract_packages(&work, &tree)?;
    fs::rename(&tree, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::remove_dir_all(&work)?;
    Ok(dir)
}

/// Builds in a copy of the tools' tree, into which headers and sources are put.
fn compile(
    root: &DebianRoot,
    headers: &Path,
    kernel: &Kernel,
    sources: &BTreeMap<String, Vec<u8>>,
    target: &Path,
) -> Result<()> {
    let tree = paths::scratch(&paths::cache()?.join("modules"), "build")?;
    for source in [&root.dir, headers] {
        // Hard links: nothing in the tree is written to but what the build makes.
        cmd::run(
            Command::new("cp")
                .args(["--archive", "--link", "--no-target-directory"])
                .arg(source)
                .arg(&tree),
        )?;
    }
    for name in MERGED {
        if !tree.join(name).exists() {
            symlink(format!("usr/{name}"), tree.join(name))?;
        }
    }
    // Made by what installing the packages would run.
    symlink("mawk", tree.join("usr/bin/awk"))?;
    let build = tree.join("build");
    fs::create_dir_all(&build)?;
    for (name, content) in sources {
        fs::write(build.join(name), content)?;
    }
    for name in ["dev", "proc"] {
        fs::create_dir_all(tree.join(name))?;
    }
    let make = format!(
        "mount --rbind /dev \"$1/dev\" && mount --rbind /proc \"$1/proc\" && exec chroot \"$1\" /usr/bin/env -i PATH=/usr/bin LC_ALL=C \
         make -C /usr/src/linux-headers-{} M=/build \
         CONFIG_DEBUG_INFO_BTF_MODULES= modules",
        kernel.release
    );
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !setup::is_root()? {
        unshare.arg("--map-root-user");
    }
    cmd::run(unshare.args(["sh", "-c", &make, "sh"]).arg(&tree))?;
    let built = build.join(format!("{NAME}.ko"));
    ensure!(built.exists(), "the build made no {NAME}.ko");
    let fresh = target.with_extension("partial");
    // A copy without debugging sections, which take most of the file.
    cmd::run(
        Command::new("objcopy")
            .arg("--strip-debug")
            .arg(&built)
            .arg(&fresh),
    )?;
    fs::rename(&fresh, target)?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}
