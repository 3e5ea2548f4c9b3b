//! Python programs that bring their own kernels, unmodified, as clients. They need packages that are not Debian's: without
//! them a test says so and is over.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Library, succeed};

/// numba without NVIDIA's linker, for which it makes machine code: the driver's takes PTX.
const NUMBA: &str =
    "import numba_cuda, importlib.util as u; assert not u.find_spec('nvidia.nvjitlink')";
const TINYGRAD: &str = "import tinygrad";

/// The interpreter of the virtual environment with the clients, in the cache of the project, if `check` succeeds in it.
fn interpreter(check: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("MEMU_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("memu")))
        .or_else(|| Some(variable("HOME")?.join(".cache/memu")))?;
    let python = cache.join("clients/venv/bin/python");
    let found = Command::new(&python)
        .args(["-c", check])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        let dir = cache.join("clients/venv");
        eprintln!(
            "skipped: not so in {dir}: {check}; to have it: python3 -m venv {dir} && \
             {dir}/bin/pip install numpy tinygrad 'numba-cuda[cu12]' && \
             {dir}/bin/pip uninstall -y nvidia-nvjitlink-cu12",
            dir = dir.display()
        );
    }
    found.then_some(python)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(name)
}

#[test]
fn numba_compiles_links_and_runs_its_kernels() {
    let Some(python) = interpreter(NUMBA) else {
        return;
    };
    let library = Library::new();
    let output = succeed(library.command(python).arg(script("numba_kernels.py")));
    assert_eq!(output.trim(), "numba is right");
}

#[test]
fn tinygrad_trains_as_on_its_own_python_backend() {
    let Some(python) = interpreter(TINYGRAD) else {
        return;
    };
    let library = Library::new();
    let losses = |device: &str| -> Vec<f64> {
        let mut command = library.command(&python);
        let output = succeed(
            command
                .arg(script("tinygrad_train.py"))
                .env("DEV", device)
                .env("TRAINING", "1")
                // Its kernels are not kept for the next run.
                .env("CACHELEVEL", "0"),
        );
        output.lines().map(|line| line.parse().unwrap()).collect()
    };
    let (ours, theirs) = (losses("CUDA:PTX"), losses("PYTHON"));
    assert_eq!(ours.len(), 4);
    assert!(ours[3] < ours[0], "{ours:?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    }
}
