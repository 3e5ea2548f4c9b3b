//! Programs of other people that use CUDA, unmodified, for the tests: numba-cuda and tinygrad with the Python that runs them,
//! and cudarc's own tests and examples.
//!
//! The Python is the guests' release's, and runs on the host too, by its own loader: the tests of the library and those of
//! guests have the same programs. Its packages are of the versions and of the content that `requirements.txt` names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::guest::files_with_extension;
use crate::root::{DebianRoot, LIBRARIES, content_key};
use crate::{cmd, paths, setup, ui};

/// Where a tree is named to the tests of `libcuda`; empty where there is none, and they cannot run.
pub const VARIABLE: &str = "MEMU_CLIENTS";

/// Python, what installs packages for it, and the compiler that tinygrad's processor backend calls.
const PACKAGES: [&str; 3] = ["python3", "python3-pip", "clang-19"];
const PYTHON: &str = "usr/bin/python3.13";
const CLANG: &str = "usr/lib/llvm-19/bin/clang";
const STANDARD_LIBRARY: &str = "usr/lib/python3.13";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Names that the C library had of old, and packages still ask for.
const OLD_NAMES: [&str; 3] = ["libdl.so.2", "libpthread.so.0", "librt.so.1"];
/// Where the root has its packages, of which the tree has none, and the tree has its own.
const DIST_PACKAGES: &str = "usr/lib/python3/dist-packages";
const REQUIREMENTS: &str = include_str!("../../images/clients/requirements.txt");
/// Starts the programs of a tree, wherever that lies, under these names.
const START: &str = include_str!("../../images/clients/start");
const STARTED: [&str; 2] = ["python", "clang"];
/// Directories in packages that no program uses.
const LEFT_OUT: [&str; 3] = ["test", "tests", "include"];

/// The tree, with `python` and `clang` in it; `clients/current` in the cache links to it.
pub fn tree() -> Result<PathBuf> {
    let root = DebianRoot::obtain(&PACKAGES)?;
    let clients = paths::cache()?.join("clients");
    fs::create_dir_all(&clients)?;
    let _lock = paths::lock("clients")?;
    let key = content_key(&(&root.key, REQUIREMENTS, START, OLD_NAMES, LEFT_OUT));
    let dir = clients.join(&key);
    if !dir.exists() {
        ui::step("fetching CUDA programs in Python", || {
            let tree = paths::scratch(&clients, &key)?;
            lay_out(&tree, &root)?;
            fs::rename(&tree, &dir).context("cannot move the tree into place")
        })?;
    }
    paths::relink(&clients.join("current"), &key)?;
    Ok(dir)
}

fn lay_out(tree: &Path, root: &DebianRoot) -> Result<()> {
    let modules = format!("{STANDARD_LIBRARY}/lib-dynload");
    let mut binaries = files_with_extension(&root.dir.join(modules), "so")?;
    binaries.extend([PYTHON, CLANG].map(|program| root.dir.join(program)));
    let mut parts: BTreeSet<PathBuf> = [PYTHON, CLANG, LOADER].map(PathBuf::from).into();
    for binary in &binaries {
        for library in root.libraries_of(binary)? {
            parts.insert(library.strip_prefix(&root.dir)?.to_path_buf());
        }
    }
    parts.extend(OLD_NAMES.map(|name| Path::new(LIBRARIES).join(name)));
    let copy = |option: &str, parts: BTreeSet<PathBuf>| {
        let mut cp = Command::new("cp");
        cp.args([option, "--parents"]).args(parts).arg(tree);
        cmd::run(cp.current_dir(&root.dir))
    };
    // Programs and libraries have names that are links.
    copy("--dereference", parts)?;
    copy("--recursive", [STANDARD_LIBRARY.into()].into())?;
    // Links to what installing the packages would have made.
    let broken = ["-xtype", "l", "-delete"];
    cmd::run(Command::new("find").arg(tree).args(broken))?;
    for name in STARTED {
        let start = tree.join(name);
        fs::write(&start, START)?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    }

    let list = tree.join("requirements.txt");
    fs::write(&list, REQUIREMENTS)?;
    let packages = tree.join(DIST_PACKAGES);
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-compile",
        "--retries=3",
        "--target",
    ];
    cmd::run(
        python(root)?
            .args(install)
            .arg(&packages)
            .arg("--requirement")
            .arg(&list)
            .env("PYTHONPATH", root.dir.join(DIST_PACKAGES)),
    )?;
    for name in LEFT_OUT {
        cmd::run(
            Command::new("find")
                .arg(&packages)
                .args(["-type", "d", "-name", name, "-prune"])
                .args(["-exec", "rm", "-r", "{}", "+"]),
        )?;
    }
    // Now, not at each start; whatever times its files have where they are copied to.
    cmd::run(
        python(root)?
            .args(["-m", "compileall", "-q"])
            .args(["--invalidation-mode", "unchecked-hash"])
            .arg(tree.join("usr/lib")),
    )
}

/// The interpreter of the root.
fn python(root: &DebianRoot) -> Result<Command> {
    let words = root.program(PYTHON)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    Ok(command)
}

/// The crate, and what of it is built: with the driver and the compiler of kernels, both loaded by name.
const CUDARC: &str = "cudarc";
const FEATURES: &str = "std,driver,nvrtc,dynamic-loading,cuda-12090";
/// Its examples that need no other library of NVIDIA's, nor kernels that launch kernels; 06-threading prints 10,240 lines, which
/// takes an emulated guest as long as all the others together.
const EXAMPLES: [&str; 10] = [
    "01-allocate",
    "02-copy",
    "03-launch-kernel",
    "04-streams",
    "05-device-repr",
    "09-constant-memory",
    "10-function-attributes",
    "12-context-config",
    "matmul-kernel",
    "nvrtc-compile",
];
/// Size of the file system; the file is sparse.
const SIZE: &str = "2G";
/// What trains a small net with tinygrad, in the workspace, and where an image has the losses of it on a processor. They come from
/// here: tinygrad has clang make code for the processor at hand, and clang takes that of the lab for one without 64 bits.
const NET: &str = "images/libcuda/tests/python/tinygrad_small.py";
const LOSSES: &str = "tinygrad.losses";

/// A disk image with the tree, and cudarc's programs below `cudarc`: `tests`, and the examples in `bin`.
pub fn image() -> Result<PathBuf> {
    setup::ensure(setup::FOR_DISKS)?;
    let tree = tree()?;
    let net = paths::workspace().join(NET);
    let programs = Cudarc::build()?.files()?;
    let images = paths::cache()?.join("images");
    fs::create_dir_all(&images)?;
    let _lock = paths::lock("images")?;
    let mut content = BTreeMap::new();
    for (place, file) in &programs {
        content.insert(place, fs::read(file)?);
    }
    let key = content_key(&(tree.file_name(), content, fs::read(&net)?, SIZE));
    let path = images.join(format!("clients-{key}.img"));
    if !path.exists() {
        ui::step("making the disk image with CUDA programs", || {
            let staging = paths::scratch(&images, &key)?;
            cmd::run(
                Command::new("cp")
                    .args(["--archive", "--link", "--no-target-directory"])
                    .arg(&tree)
                    .arg(&staging),
            )?;
            for (place, file) in &programs {
                let target = staging.join(CUDARC).join(place);
                fs::create_dir_all(target.parent().context("a file lies in a directory")?)?;
                fs::copy(file, target)?;
            }
            let mut trained = Command::new(tree.join("python"));
            trained.arg(&net).envs([
                ("DEV", "CPU"),
                ("TRAINING", "1"),
                // Its kernels are not kept for the next run.
                ("CACHELEVEL", "0"),
            ]);
            let losses = cmd::output(trained.env("CC", tree.join("clang")))?;
            fs::write(staging.join(LOSSES), losses)?;
            let fresh = path.with_extension("partial");
            let mut mkfs = Command::new("mkfs.ext4");
            // Nobody writes to it.
            mkfs.args(["-q", "-F", "-O", "^has_journal", "-L", "clients", "-d"])
                .arg(&staging)
                .arg(&fresh)
                .arg(SIZE)
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            cmd::run(&mut mkfs)?;
            fs::remove_dir_all(&staging)?;
            fs::rename(&fresh, &path).context("cannot move the image into place")
        })?;
    }
    paths::prune(&images, "clients-")?;
    Ok(path)
}

/// cudarc's own programs.
struct Cudarc {
    /// The crate's sources.
    source: PathBuf,
    /// Its unit tests, and its examples.
    tests: PathBuf,
    examples: Vec<PathBuf>,
}

impl Cudarc {
    /// Builds those of the version that the workspace uses.
    fn build() -> Result<Cudarc> {
        let mut metadata = cargo("metadata");
        metadata
            .args(["--format-version=1", "--locked"])
            .current_dir(paths::workspace());
        let (version, place) = package(&cmd::output(&mut metadata)?)
            .with_context(|| format!("the workspace does not use {CUDARC}"))?;
        // A copy, outside the workspace, of which it is no member; the registry's is not to be written to.
        let clients = paths::cache()?.join("clients");
        let name = format!("{CUDARC}-{version}");
        let source = clients.join(&name);
        if !source.exists() {
            let _lock = paths::lock("clients")?;
            let copy = paths::scratch(&clients, &name)?;
            cmd::run(
                Command::new("cp")
                    .args(["--archive", "--no-target-directory"])
                    .arg(&place)
                    .arg(&copy),
            )?;
            fs::rename(&copy, &source).context("cannot move the crate into place")?;
        }
        let build = |kind: &str, targets: &[String]| {
            let mut command = cargo(kind);
            command
                .args(["--quiet", "--release", "--message-format=json"])
                .args(["--no-default-features", "--features", FEATURES])
                .args(targets)
                .arg("--manifest-path")
                .arg(source.join("Cargo.toml"))
                .env("RUSTFLAGS", "-C strip=symbols")
                .env(
                    "CARGO_TARGET_DIR",
                    paths::workspace().join("target/guest-cudarc"),
                );
            cmd::output(&mut command)
        };
        let examples: Vec<String> = EXAMPLES
            .iter()
            .map(|name| format!("--example={name}"))
            .collect();
        let messages = ui::step("building cudarc's tests and examples", || {
            let tests = build("test", &["--lib", "--no-run"].map(str::to_owned))?;
            Ok(tests + &build("build", &examples)?)
        })?;
        let built = |kind: &str| -> Vec<PathBuf> {
            messages
                .lines()
                .filter_map(|line| executable(line, kind))
                .collect()
        };
        let examples = built("example");
        ensure!(
            examples.len() == EXAMPLES.len(),
            "cudarc's examples: {examples:?}"
        );
        Ok(Cudarc {
            source,
            tests: built("lib").pop().context("cudarc's tests are not there")?,
            examples,
        })
    }

    /// Files for an image: where they lie there, and here.
    fn files(&self) -> Result<BTreeMap<PathBuf, PathBuf>> {
        let mut files = BTreeMap::from([(PathBuf::from("tests"), self.tests.clone())]);
        for example in &self.examples {
            let name = example.file_name().context("a program has a name")?;
            files.insert(Path::new("bin").join(name), example.clone());
        }
        // The examples read their kernels below the directory that they are started in.
        for text in files_with_extension(&self.source.join("examples"), "ptx")? {
            let name = text.file_name().context("a text has a name")?;
            files.insert(Path::new("examples").join(name), text.clone());
        }
        Ok(files)
    }
}

fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.arg(subcommand);
    command
}

/// Version and directory of cudarc, from `cargo metadata`.
fn package(metadata: &str) -> Option<(String, PathBuf)> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    let packages = metadata["packages"].as_array()?;
    let package = packages.iter().find(|package| package["name"] == CUDARC)?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    Some((
        package["version"].as_str()?.to_owned(),
        manifest.parent()?.to_path_buf(),
    ))
}

/// The program that a message of cargo names, if it comes from a target of `kind`.
fn executable(message: &str, kind: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let kinds = message["target"]["kind"].as_array()?;
    let program = message["executable"].as_str()?;
    kinds
        .iter()
        .any(|found| found == kind)
        .then(|| PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_in_cargos_metadata() {
        let metadata = r#"{"packages":[{"name":"other","version":"1.0.0","manifest_path":"/o/Cargo.toml"},
            {"name":"cudarc","version":"0.19.1","manifest_path":"/r/cudarc/Cargo.toml"}]}"#;
        assert_eq!(
            package(metadata),
            Some(("0.19.1".into(), "/r/cudarc".into()))
        );
        assert_eq!(package(r#"{"packages":[]}"#), None);
    }

    #[test]
    fn programs_are_told_apart_by_the_kind_of_their_target() {
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":"/t/cudarc-1"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}"#;
        assert_eq!(executable(test, "lib"), Some("/t/cudarc-1".into()));
        assert_eq!(executable(test, "example"), None);
        assert_eq!(executable(library, "lib"), None);
    }

    #[test]
    fn every_package_has_a_version_and_a_content() {
        let entries = REQUIREMENTS
            .lines()
            .filter(|line| line.contains("=="))
            .count();
        let hashes = REQUIREMENTS
            .lines()
            .filter(|line| line.trim_start().starts_with("--hash=sha256:"))
            .count();
        assert!(entries > 0 && entries == hashes);
    }
}
