//! `cargo xtask image --disk`: a disk for people, with systemd, a login, ssh and the CXL tools.
//!
//! It holds the modules of both kernels; a guest boots it with either, the kernel's test initramfs
//! and `memu.root=/dev/vda` on its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Apt};
use crate::kernel::{self, Freshness, Kernel};
use crate::root::content_key;
use crate::{cmd, paths, setup, ui};

const PACKAGES: [&str; 22] = [
    "acpica-tools",
    "daxctl",
    "dbus",
    "e2fsprogs",
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "login",
    "nano",
    "ndctl",
    "numactl",
    "openssh-server",
    "passwd",
    "pciutils",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
    "xfsprogs",
];
/// Size of the file system; the file is sparse.
const SIZE: &str = "4G";
const CUSTOMIZE: &str = include_str!("../../images/disk/customize");

/// Makes the disk image and returns its path; `images/disk.img` in the cache links to it.
pub fn image(freshness: Freshness) -> Result<PathBuf> {
    setup::ensure(setup::FOR_ROOTS)?;
    setup::ensure(setup::FOR_DISKS)?;
    let kernels = kernel::obtain_all(freshness)?;
    let apt = Apt::open(kernel::INDEX_MAX_AGE)?;
    let images = paths::cache()?.join("images");
    fs::create_dir_all(&images)?;
    let _lock = paths::lock("images")?;

    let releases: Vec<_> = kernels
        .iter()
        .map(|kernel| kernel.dir.file_name())
        .collect();
    let key = content_key(&(apt.closure(&PACKAGES)?, releases, CUSTOMIZE, SIZE));
    let name = format!("disk-{key}.img");
    let path = images.join(&name);
    if !path.exists() {
        ui::step("making the disk image", || make(&path, &apt, &kernels))?;
    }
    paths::relink(&images.join("disk.img"), &name)?;
    Ok(path)
}

fn make(path: &Path, apt: &Apt, kernels: &[Kernel]) -> Result<()> {
    let (tar, fresh) = (path.with_extension("tar"), path.with_extension("partial"));
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args([
            "--variant=minbase",
            "--mode=auto",
            "--format=tar",
            "--skip=output/dev",
            "--architectures=amd64",
        ])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(format!("--customize-hook={CUSTOMIZE}"))
        .arg(apt::RELEASE)
        .arg(&tar)
        .arg(apt.release_sources());
    cmd::run(&mut mmdebstrap)?;

    let tree = path.with_extension("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(&tree)?;
    // Files keep their owners in the image: as root, or as a user under fakeroot.
    let mut build = if setup::is_root()? {
        Command::new("sh")
    } else {
        Command::new("fakeroot")
    };
    if !setup::is_root()? {
        build.arg("sh");
    }
    build
        .args(["-e", "-c", BUILD, "sh"])
        .arg(&tar)
        .arg(&tree)
        .arg(&fresh)
        .arg(SIZE);
    build.args(kernels.iter().map(Kernel::modules_dir));
    build.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    cmd::run(&mut build)?;
    fs::remove_file(&tar)?;
    fs::remove_dir_all(&tree)?;
    fs::rename(&fresh, path).context("cannot move the disk image into place")
}

/// `sh -c BUILD sh TAR TREE IMAGE SIZE MODULES...`
const BUILD: &str = r#"
tar=$1 tree=$2 image=$3 size=$4
shift 4
tar -xf "$tar" -C "$tree"
mkdir -p "$tree/dev" "$tree/usr/lib/modules"
for modules; do
	cp -r "$modules" "$tree/usr/lib/modules/"
done
chown -R 0:0 "$tree/usr/lib/modules"
rm -f "$image"
mkfs.ext4 -q -L memu -d "$tree" "$image" "$size"
"#;
