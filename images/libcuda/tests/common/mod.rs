//! The library as programs find it, with the accelerator in the program's own process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with `libcuda.so.1` and the link without a version that programs also look for.
pub struct Library {
    dir: tempfile::TempDir,
}

impl Library {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libcuda.so.1", "libcuda.so"] {
            std::os::unix::fs::symlink(built(), dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command that finds the library and the accelerator.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("LD_LIBRARY_PATH", self.path())
            .env("CXL_CUDA_DEVICE", "in-process");
        command
    }
}

/// The shared library: cargo puts it beside the tests.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().join("libcuda.so")
}

/// What a command wrote, after it has succeeded.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&stdout);
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout.into_owned()
}
