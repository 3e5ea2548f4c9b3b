//! Trees of Debian packages of the guests' release, unpacked by mmdebstrap without being installed.
//!
//! Files of guest images come from such trees, and so does the QEMU of the lab: it is then the same
//! on every host.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Apt};
use crate::{cmd, kernel, paths, setup, ui};

/// The dynamic loader, in a tree.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Where a tree's libraries lie.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// An unpacked tree of Debian packages.
pub struct DebianRoot {
    pub dir: PathBuf,
    /// Changes when the packages or their versions do.
    pub key: String,
}

impl DebianRoot {
    /// The tree of `packages` and all they depend on.
    pub fn obtain(packages: &[&str]) -> Result<DebianRoot> {
        setup::ensure(setup::FOR_ROOTS)?;
        let apt = Apt::open(kernel::INDEX_MAX_AGE)?;
        let _lock = paths::lock("roots")?;
        let roots = paths::cache()?.join("roots");
        fs::create_dir_all(&roots)?;
        let key = content_key(&apt.closure(packages)?);
        let root = DebianRoot {
            dir: roots.join(&key),
            key,
        };
        if !root.dir.exists() {
            let what = format!(
                "unpacking {} of Debian {}",
                packages.join(" "),
                apt::RELEASE
            );
            ui::step(&what, || root.unpack(packages, &apt, &roots))?;
        }
        Ok(root)
    }

    fn unpack(&self, packages: &[&str], apt: &Apt, roots: &Path) -> Result<()> {
        let work = paths::scratch(roots, &self.key)?;
        let tar = roots.join(format!(".{}.tar", self.key));
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap
            .args([
                "--variant=extract",
                "--mode=auto",
                "--format=tar",
                "--skip=output/dev",
                "--architectures=amd64",
            ])
            .arg(format!("--include={}", packages.join(",")))
            .arg(format!(
                "--aptopt=Dir::Etc::Preferences \"{}\"",
                apt.preferences().display()
            ))
            .arg(apt::RELEASE)
            .arg(&tar)
            .arg(apt.sources());
        cmd::run(&mut mmdebstrap)?;
        cmd::run(
            Command::new("tar")
                .arg("-xf")
                .arg(&tar)
                .arg("-C")
                .arg(&work)
                .arg("--no-same-owner"),
        )?;
        fs::remove_file(&tar)?;
        fs::rename(&work, &self.dir).context("cannot move the root into place")
    }

    /// What runs a program of the tree on this host: the tree's own loader with the tree's libraries.
    pub fn program(&self, path: &str) -> Result<Vec<PathBuf>> {
        Ok(vec![
            self.loader()?,
            "--library-path".into(),
            self.dir.join(LIBRARIES),
            self.dir.join(path),
        ])
    }

    /// The shared libraries that a program of the tree needs, its loader among them.
    pub fn libraries_of(&self, program: &Path) -> Result<BTreeSet<PathBuf>> {
        let library_path = self.dir.join(LIBRARIES);
        let mut list = Command::new(self.loader()?);
        list.arg("--library-path")
            .arg(&library_path)
            .arg("--list")
            .arg(program);
        let text = cmd::output(&mut list)?;
        let mut libraries = BTreeSet::from([self.dir.join(LOADER)]);
        for line in text.lines() {
            // `name => path (address)`; the loader itself and the vDSO have no arrow.
            let Some((name, found)) = line.trim().split_once(" => ") else {
                continue;
            };
            ensure!(
                !found.starts_with("not found"),
                "{} needs {name}, which the root lacks",
                program.display()
            );
            let path = found.split(" (").next().unwrap_or(found);
            if !path.contains("/ld-linux") {
                libraries.insert(PathBuf::from(path));
            }
        }
        Ok(libraries)
    }

    fn loader(&self) -> Result<PathBuf> {
        fs::canonicalize(self.dir.join(LOADER)).context("the Debian root has no dynamic loader")
    }
}

/// A short name for a content. It need not resist an adversary: a collision costs a stale cache.
pub fn content_key(content: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_the_content() {
        assert_eq!(content_key(&["a_1", "b_2"]), content_key(&["a_1", "b_2"]));
        assert_ne!(content_key(&["a_1", "b_2"]), content_key(&["a_1", "b_3"]));
    }
}
