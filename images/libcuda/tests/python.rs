//! Python programs that bring their own kernels, unmodified, as clients, with a Python that `cargo xtask` prepares.

mod common;

use std::path::{Path, PathBuf};

use common::{Library, succeed};

/// The interpreter with the clients: that of `cargo xtask test`, or the one that is in the cache of the project. None where
/// `cargo xtask test` has said that it could not get them.
fn interpreter() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let tree = variable("MEMU_CLIENTS").or_else(|| {
        let cache = variable("MEMU_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("memu")))
            .or_else(|| Some(variable("HOME")?.join(".cache/memu")))?;
        Some(cache.join("clients/current"))
    });
    let tree = tree.unwrap_or_default();
    if tree.as_os_str().is_empty() {
        return None;
    }
    let python = tree.join("python");
    assert!(
        python.exists(),
        "there is no {}: `cargo xtask image --clients` makes it",
        python.display()
    );
    Some(python)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(name)
}

#[test]
fn numba_compiles_links_and_runs_its_kernels() {
    let Some(python) = interpreter() else { return };
    let library = Library::new();
    let output = succeed(library.command(python).arg(script("numba_kernels.py")));
    assert_eq!(output.trim(), "numba is right");
}

#[test]
fn tinygrad_trains_as_on_its_own_cpu_backend() {
    let Some(python) = interpreter() else { return };
    let library = Library::new();
    let losses = |device: &str| -> Vec<f64> {
        let output = succeed(
            library
                .command(&python)
                .arg(script("tinygrad_train.py"))
                .env("DEV", device)
                .env("TRAINING", "1")
                // Its kernels are not kept for the next run.
                .env("CACHELEVEL", "0")
                // Its processor backend compiles some of itself.
                .env("CC", python.with_file_name("clang")),
        );
        output.lines().map(|line| line.parse().unwrap()).collect()
    };
    let (ours, theirs) = (losses("CUDA:PTX"), losses("CPU"));
    assert_eq!(ours.len(), 4);
    assert!(ours[3] < ours[0], "{ours:?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    }
}
