//! `cargo xtask image`: what guests boot into.
//!
//! The test initramfs of each kernel holds the CXL tools, a shell, `memu-guest`, the modules that
//! tests need, and the libraries that these name: no service, no udev. Debian's packages come from
//! one root made by mmdebstrap. All of it is kept in the cache under a key made of what went in.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest::{self, Cuda};
use crate::kernel::{self, Freshness, Kernel, Track};
use crate::root::{DebianRoot, content_key};
use crate::{cmd, cpio, module, paths, ui};

/// Packages of the root that initramfs files are taken from.
const PACKAGES: [&str; 13] = [
    "acpica-tools",
    "bash",
    "busybox-static",
    "daxctl",
    "e2fsprogs",
    "keyutils",
    "kmod",
    "ndctl",
    "numactl",
    "pciutils",
    "rasdaemon",
    "xfsprogs",
    "util-linux",
];

/// Programs of the initramfs, besides busybox and its applets.
const PROGRAMS: [&str; 17] = [
    "usr/bin/acpidump",
    "usr/bin/bash",
    "usr/bin/cxl",
    "usr/bin/daxctl",
    "usr/bin/keyctl",
    "usr/bin/kmod",
    "usr/bin/lspci",
    "usr/bin/migratepages",
    "usr/bin/ndctl",
    "usr/bin/numactl",
    "usr/bin/numastat",
    "usr/bin/setpci",
    "usr/bin/setpriv",
    "usr/sbin/fsck.ext4",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/mkfs.xfs",
    "usr/sbin/rasdaemon",
];

/// Names under which kmod does the work of each.
const KMOD_NAMES: [&str; 6] = ["depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod"];

/// Modules that init inserts, with what they depend on.
const INSERTED_MODULES: [&str; 14] = [
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "cxl_acpi",
    "cxl_pci",
    "cxl_mem",
    "cxl_pmem",
    "nd_pmem",
    "dax_hmem",
    "dax_cxl",
    "dax_pmem",
    "device_dax",
];

/// Modules that are there for the kernel or a tool to load when something asks for them.
const OTHER_MODULES: [&str; 4] = ["kmem", "ext4", "xfs", "msr"];

/// Where the libraries of a root lie.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

const INIT: &str = include_str!("../../images/initramfs/init");
const BASH_PROFILE: &str = "PS1='guest# '\n";

/// The initramfs of one kernel.
pub struct Initramfs {
    pub kernel: Kernel,
    pub path: PathBuf,
}

/// The initramfs of each stock kernel, in the order of [`Track::STOCK`].
pub fn initramfs_all(freshness: Freshness) -> Result<Vec<Initramfs>> {
    Track::STOCK
        .iter()
        .map(|track| initramfs(*track, freshness))
        .collect()
}

/// The test initramfs for the kernel of `track`; `images/TRACK.initramfs` in the cache links to it.
pub fn initramfs(track: Track, freshness: Freshness) -> Result<Initramfs> {
    let kernel = kernel::obtain(track, freshness)?;
    let root = DebianRoot::obtain(&PACKAGES)?;
    let program = guest::build()?;
    let cuda = Cuda::build()?;
    let accelerator = match track {
        // Its headers are not kept.
        Track::Own => None,
        // The build needs a name space and a root of its own, which not every container allows.
        Track::Stable | Track::Backports => module::build(&kernel)
            .inspect_err(|error| {
                ui::note(&format!("guests go without {}: {error:#}", module::NAME));
            })
            .ok(),
    };
    let images = paths::cache()?.join("images");
    fs::create_dir_all(&images)?;
    let _lock = paths::lock("images")?;

    let key = content_key(&(
        &root.key,
        &kernel.release,
        kernel.dir.file_name(),
        (PROGRAMS, KMOD_NAMES, INSERTED_MODULES, OTHER_MODULES),
        (INIT, BASH_PROFILE, fs::read(&program)?),
        (
            accelerator.as_deref().and_then(Path::file_name),
            cuda.content()?,
        ),
    ));
    let name = format!("{}-{key}.initramfs", kernel.release);
    let path = images.join(&name);
    if !path.exists() {
        ui::step(
            &format!("making the initramfs for {}", kernel.release),
            || {
                let tree = paths::scratch(&images, &key)?;
                lay_out(&tree, &root, &program)?;
                lay_out_cuda(&tree, &root, &cuda)?;
                lay_out_modules(&tree, &kernel, accelerator.as_deref())?;
                let fresh = path.with_extension("partial");
                fs::write(&fresh, cpio::archive(&tree)?)?;
                fs::rename(&fresh, &path)?;
                fs::remove_dir_all(&tree)?;
                Ok(())
            },
        )?;
    }
    paths::relink(&images.join(format!("{}.initramfs", track.name())), &name)?;
    paths::prune(&images, &format!("{}-", kernel.release))?;
    Ok(Initramfs { kernel, path })
}

/// Lays the initramfs out in the empty directory `tree`.
fn lay_out(tree: &Path, root: &DebianRoot, program: &Path) -> Result<()> {
    for dir in [
        "usr/bin",
        "usr/lib64",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "root",
        "mnt",
        "etc",
        "var",
    ] {
        fs::create_dir_all(tree.join(dir))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/sbin", "bin"),
        ("etc/mtab", "/proc/mounts"),
        ("var/run", "/run"),
    ] {
        symlink(target, tree.join(link))?;
    }
    install(
        &program.to_string_lossy(),
        program,
        &tree.join("usr/bin/memu-guest"),
    )?;
    write_init(tree, INIT)?;
    fs::write(tree.join("root/.profile"), BASH_PROFILE)?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;

    lay_out_programs(tree, root)?;
    let busybox = root.dir.join("usr/bin/busybox");
    install("busybox", &busybox, &tree.join("usr/bin/busybox"))?;
    link_applets(&busybox, &tree.join("usr/bin"))
}

/// CUDA's driver interface where the loader finds it, the programs that use it and their kernels.
fn lay_out_cuda(tree: &Path, root: &DebianRoot, cuda: &Cuda) -> Result<()> {
    let libraries = tree.join(LIBRARIES);
    install(
        "libcuda.so.1",
        &cuda.library,
        &libraries.join("libcuda.so.1"),
    )?;
    symlink("libcuda.so.1", libraries.join("libcuda.so"))?;
    for program in &cuda.programs {
        let name = program.file_name().context("a program has a name")?;
        install(
            &name.to_string_lossy(),
            program,
            &tree.join("usr/bin").join(name),
        )?;
    }
    for needed in ["libgcc_s.so.1", "libm.so.6"] {
        install(
            needed,
            &root.dir.join(LIBRARIES).join(needed),
            &libraries.join(needed),
        )?;
    }
    let place = tree.join("usr/share/memu/ptx");
    fs::create_dir_all(&place)?;
    for text in &cuda.ptx {
        fs::copy(
            text,
            place.join(text.file_name().context("a text has a name")?),
        )?;
    }
    Ok(())
}

/// The Debian programs and the libraries they need.
fn lay_out_programs(tree: &Path, root: &DebianRoot) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let source = root.dir.join(program);
        let name = source
            .file_name()
            .context("a program has a name")?
            .to_owned();
        install(program, &source, &tree.join("usr/bin").join(name))?;
        libraries.extend(root.libraries_of(&source)?);
    }
    for name in KMOD_NAMES {
        symlink("kmod", tree.join("usr/bin").join(name))?;
    }
    for library in libraries {
        let inside = library
            .strip_prefix(&root.dir)
            .context("a library lies outside the root")?;
        // All are found by the loader's built-in path, whatever directory they came from.
        let name = inside.file_name().context("a library has a name")?;
        let place = if name.as_encoded_bytes().starts_with(b"ld-linux") {
            tree.join("usr/lib64").join(name)
        } else {
            tree.join(LIBRARIES).join(name)
        };
        install(&inside.to_string_lossy(), &library, &place)?;
    }
    Ok(())
}

/// Links each of busybox's applets in `dir`, where no other program has the name.
pub fn link_applets(busybox: &Path, dir: &Path) -> Result<()> {
    for applet in cmd::output(Command::new(busybox).arg("--list"))?.lines() {
        let link = dir.join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    Ok(())
}

/// Writes the first program of an initramfs.
pub fn write_init(tree: &Path, script: &str) -> Result<()> {
    let init = tree.join("init");
    fs::write(&init, script)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The modules, uncompressed, with depmod's indexes and the order in which init inserts them.
fn lay_out_modules(tree: &Path, kernel: &Kernel, accelerator: Option<&Path>) -> Result<()> {
    // The own kernel has what it has built in.
    let (inserted, others): (&[&str], &[&str]) = match kernel.track {
        Track::Own => (&[], &[]),
        Track::Stable | Track::Backports => (&INSERTED_MODULES, &OTHER_MODULES),
    };
    let order = kernel.insertion_order_of(inserted)?;
    let mut wanted: BTreeSet<PathBuf> = order.iter().cloned().collect();
    wanted.extend(kernel.insertion_order_of(others)?);
    let lib = Path::new("usr/lib/modules").join(&kernel.release);
    fs::create_dir_all(tree.join(&lib))?;
    let place = |module: &Path| -> Result<PathBuf> {
        let inside = module
            .strip_prefix(kernel.modules_dir())
            .context("a module lies outside its kernel")?;
        Ok(lib.join(inside).with_extension(""))
    };
    for module in &wanted {
        let target = tree.join(place(module)?);
        fs::create_dir_all(target.parent().context("a module lies in a directory")?)?;
        fs::write(&target, kernel::decompressed(module)?)?;
    }
    if let Some(accelerator) = accelerator {
        let own = tree.join(&lib).join("updates");
        fs::create_dir_all(&own)?;
        fs::copy(accelerator, own.join(format!("{}.ko", module::NAME)))?;
    }
    for index in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        fs::copy(
            kernel.modules_dir().join(index),
            tree.join(&lib).join(index),
        )?;
    }
    cmd::run(
        Command::new(kernel::sbin("depmod"))
            .arg("-b")
            .arg(tree)
            .arg(&kernel.release),
    )?;

    let mut list = String::new();
    for module in &order {
        list.push_str(&format!("/{}\n", place(module)?.display()));
    }
    fs::write(tree.join("usr/lib/modules/insert"), list)?;
    Ok(())
}

/// Copies an executable, creating its directory.
pub fn install(what: &str, source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target.parent().context("a file lies in a directory")?)?;
    fs::copy(source, target)
        .with_context(|| format!("cannot copy {what} from {}", source.display()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
