//! What runs in guests: the program `memu-guest`, built static so that it runs in any root, and CUDA's driver interface with
//! a program that uses it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cmd, paths, setup, ui};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds `memu-guest` and returns its path.
pub fn build() -> Result<PathBuf> {
    setup::ensure(setup::FOR_GUEST_PROGRAMS)?;
    // A target directory of its own: the flags differ from those of the rest of the workspace.
    let target_dir = paths::workspace().join("target/guest");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "memu-guest",
            "--target",
            TARGET,
        ])
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C strip=symbols",
        )
        .env("CARGO_TARGET_DIR", &target_dir)
        .current_dir(paths::workspace());
    ui::step("building memu-guest", || cmd::run(&mut cargo))?;
    Ok(target_dir.join(TARGET).join("release/memu-guest"))
}

/// C programs in `images/libcuda/tests/c` that use the accelerator, the first two by the library.
const CUDA_PROGRAMS: [&str; 3] = ["kernels", "device", "node"];

/// CUDA's driver interface, and programs that use it.
pub struct Cuda {
    /// `libcuda.so.1`.
    pub library: PathBuf,
    /// Their first argument is the directory of [`Cuda::ptx`], for those that use the library.
    pub programs: Vec<PathBuf>,
    /// The texts of their kernels.
    pub ptx: Vec<PathBuf>,
}

impl Cuda {
    /// Builds them.
    pub fn build() -> Result<Cuda> {
        setup::ensure(setup::FOR_GUEST_PROGRAMS)?;
        // Without what stands for the accelerator where there is no guest.
        let target_dir = paths::workspace().join("target/guest-libcuda");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--release", "--package", "libcuda"])
            .arg("--no-default-features")
            .env("RUSTFLAGS", "-C strip=symbols")
            .env("CARGO_TARGET_DIR", &target_dir)
            .current_dir(paths::workspace());
        ui::step("building libcuda.so.1", || cmd::run(&mut cargo))?;
        let library = target_dir.join("release/libcuda.so");
        let sources = paths::workspace().join("images/libcuda/tests/c");
        let mut programs = Vec::new();
        for name in CUDA_PROGRAMS {
            let program = target_dir.join(format!("cuda-{name}"));
            cmd::run(
                Command::new("cc")
                    .args(["-std=gnu11", "-O2", "-I"])
                    // The numbers of the device node.
                    .arg(paths::workspace().join("guest-kernel/cxl_type2_accel"))
                    .arg("-o")
                    .arg(&program)
                    .arg(sources.join(name).with_extension("c"))
                    // One of them is to work without the library.
                    .args(["-lm", "-Wl,--as-needed"])
                    .arg(&library),
            )?;
            programs.push(program);
        }
        Ok(Cuda {
            library,
            programs,
            ptx: files_with_extension(&paths::workspace().join("gpu/tests/ptx"), "ptx")?,
        })
    }

    /// All files, for the key of an image.
    pub fn content(&self) -> Result<Vec<Vec<u8>>> {
        let programs = self.programs.iter().chain(&self.ptx);
        std::iter::once(&self.library)
            .chain(programs)
            .map(|file| {
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
            })
            .collect()
    }
}

/// Files directly in a directory, in the order of their names.
pub fn files_with_extension(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
