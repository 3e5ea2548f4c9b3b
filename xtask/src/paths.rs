//! Where things lie: the workspace, and the cache that outlives it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::ui;

/// Root of the workspace this xtask was built from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the manifest directory has a parent")
}

/// `$MEMU_CACHE`, else `$XDG_CACHE_HOME/memu`, else `~/.cache/memu`.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("MEMU_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("memu"));
    }
    let home = env::var_os("HOME").context("HOME is not set: set it, or MEMU_CACHE")?;
    Ok(PathBuf::from(home).join(".cache/memu"))
}

/// Takes the lock that serialises work on one part of the cache; released on drop.
pub fn lock(part: &str) -> Result<File> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let path = cache.join(format!("{part}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        ui::note(&format!(
            "waiting for another cargo xtask that is at work on {part}"
        ));
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Points the symbolic link `link` at `target`, replacing what it pointed at in one step.
pub fn relink(link: &Path, target: &str) -> Result<()> {
    let fresh = link.with_extension("new");
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .with_context(|| format!("cannot make the link {}", link.display()))
}

/// An empty scratch directory inside the cache, so that a finished tree is moved, not copied.
pub fn scratch(parent: &Path, name: &str) -> Result<PathBuf> {
    let dir = parent.join(format!(".{name}.partial"));
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Versions of a cached file that are kept; others may be in use by a run that began before.
const KEPT_VERSIONS: usize = 4;

/// Removes all but the newest files in `dir` whose names begin with `prefix`.
pub fn prune(dir: &Path, prefix: &str) -> Result<()> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_string_lossy().starts_with(prefix) {
            versions.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    versions.sort();
    let surplus = versions.len().saturating_sub(KEPT_VERSIONS);
    for (_, path) in versions.iter().take(surplus) {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_versions_of_a_file_are_kept() {
        let dir = env::temp_dir().join(format!("memu-prune-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for name in ["a-1", "a-2", "a-3", "a-4", "a-5", "b-1"] {
            fs::write(dir.join(name), "").unwrap();
        }
        prune(&dir, "a-").unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), KEPT_VERSIONS + 1);
        assert!(!dir.join("a-1").exists() && dir.join("b-1").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
