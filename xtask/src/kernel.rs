//! `cargo xtask kernel`: the stock Debian kernels that guests boot.
//!
//! Two of them, besides the one that [`own`] builds: the newest 6.12 of the release, and the newest in its backports. A kernel's
//! directory in the cache holds
//!
//! | path | is |
//! |---|---|
//! | `vmlinuz` | the bzImage, as packaged |
//! | `vmlinux` | the ELF image inside it |
//! | `modules/lib/modules/RELEASE` | its modules, with `depmod`'s indexes |
//! | `kernel.json` | release, packages and their SHA-256 |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::apt::{self, Apt};
use crate::{cmd, own, paths, setup, ui};

/// Meta package whose dependencies lead to the kernel of a suite.
const META_PACKAGE: &str = "linux-image-amd64";
/// Packages that hold parts of a kernel, by prefix.
const KERNEL_PACKAGES: [&str; 4] = [
    "linux-image-",
    "linux-base-",
    "linux-binary-",
    "linux-modules-",
];
/// What a kernel's directory is described by; it is the last thing that is written there.
pub const MANIFEST: &str = "kernel.json";
/// Indexes of this age will do when a kernel is only needed, not asked for.
pub const INDEX_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Which of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// The release's long-term kernel, 6.12.
    Stable,
    /// The newest kernel in the release's backports.
    Backports,
    /// One that is built here, with what those leave out: see [`own`].
    Own,
}

impl Track {
    /// The stock kernels.
    pub const STOCK: [Track; 2] = [Track::Stable, Track::Backports];

    /// Name of the track, and of the link to its kernel in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Track::Stable => "stable",
            Track::Backports => "backports",
            Track::Own => "own",
        }
    }

    fn takes(self, offer: &apt::Offer) -> bool {
        match self {
            Track::Stable => offer.suite != apt::BACKPORTS && offer.version.starts_with("6.12."),
            Track::Backports => offer.suite == apt::BACKPORTS,
            Track::Own => false,
        }
    }
}

/// Whether the archive must be asked for something newer than what the cache has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Newest,
    Recent,
}

impl Freshness {
    /// How old indexes may be.
    pub fn max_age(self) -> Duration {
        match self {
            Freshness::Newest => Duration::from_secs(60),
            Freshness::Recent => INDEX_MAX_AGE,
        }
    }
}

/// A kernel in the cache.
pub struct Kernel {
    pub track: Track,
    pub dir: PathBuf,
    /// What `uname -r` prints.
    pub release: String,
}

impl Kernel {
    /// The bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The ELF image, uncompressed.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// Where the modules and their indexes lie.
    pub fn modules_dir(&self) -> PathBuf {
        self.dir.join("modules/lib/modules").join(&self.release)
    }

    /// Files of `modules` and of all they depend on, in the order of insertion, each once; nothing
    /// for what is built in.
    pub fn insertion_order_of(&self, modules: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for module in modules {
            for file in self.insertion_order(module)? {
                if !order.contains(&file) {
                    order.push(file);
                }
            }
        }
        Ok(order)
    }

    fn insertion_order(&self, module: &str) -> Result<Vec<PathBuf>> {
        let text = cmd::output(
            Command::new(sbin("modprobe"))
                .args([
                    "--show-depends",
                    "--ignore-install",
                    "--config",
                    "/dev/null",
                ])
                .args(["--set-version", &self.release, "--dirname"])
                .arg(self.dir.join("modules"))
                .arg(module),
        )?;
        let insmod = |line: &str| {
            line.strip_prefix("insmod ")
                .map(|path| PathBuf::from(path.trim()))
        };
        Ok(text.lines().filter_map(insmod).collect())
    }

    /// The kernel in a directory of the cache.
    pub fn open(track: Track, dir: PathBuf) -> Result<Kernel> {
        let path = dir.join(MANIFEST);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Manifest = serde_json::from_str(&text)
            .with_context(|| format!("cannot parse {}", path.display()))?;
        Ok(Kernel {
            track,
            dir,
            release: manifest.release,
        })
    }
}

/// What stands in [`MANIFEST`].
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    release: String,
    /// `name=version` to SHA-256.
    packages: BTreeMap<String, String>,
}

impl Manifest {
    /// Writes it into a directory that has all else.
    pub fn write(dir: &Path, release: String, packages: BTreeMap<String, String>) -> Result<()> {
        let manifest = Manifest { release, packages };
        let text = serde_json::to_string_pretty(&manifest)?;
        fs::write(dir.join(MANIFEST), text).context("cannot write the kernel's manifest")
    }
}

/// Both stock kernels, downloaded when the cache lacks them.
pub fn obtain_all(freshness: Freshness) -> Result<Vec<Kernel>> {
    Track::STOCK
        .iter()
        .map(|track| obtain(*track, freshness))
        .collect()
}

/// The kernel of one track.
///
/// # Errors
/// When it is neither in the cache nor to be had from the archive.
pub fn obtain(track: Track, freshness: Freshness) -> Result<Kernel> {
    if track == Track::Own {
        return own::obtain(freshness);
    }
    setup::ensure(setup::FOR_KERNELS)?;
    let _lock = paths::lock("kernels")?;
    let kernels = paths::cache()?.join("kernels");
    fs::create_dir_all(&kernels)?;
    let link = kernels.join(track.name());
    match fetch(track, freshness, &kernels) {
        Ok(name) => {
            paths::relink(&link, &name)?;
            Kernel::open(track, kernels.join(name))
        }
        Err(error) if link.exists() => {
            ui::note(&format!(
                "using the {} kernel of the cache: {error:#}",
                track.name()
            ));
            Kernel::open(track, fs::canonicalize(&link)?)
        }
        Err(error) => Err(error.context(format!("cannot obtain the {} kernel", track.name()))),
    }
}

/// Makes sure that the newest kernel of `track` is below `kernels`; returns its directory's name.
fn fetch(track: Track, freshness: Freshness, kernels: &Path) -> Result<String> {
    let apt = Apt::open(freshness.max_age())?;
    let version = newest(track, &apt.offers(META_PACKAGE)?)?;
    let packages = kernel_packages(&apt, &version)?;
    // A version names one content: the archive never reuses it. So it is the cache's key.
    let dir = kernels.join(&version);
    if dir.join(MANIFEST).exists() {
        return Ok(version);
    }
    let work = paths::scratch(kernels, &version)?;
    let names: Vec<String> = packages.keys().cloned().collect();
    apt.download(&names, &work)?;
    let release = ui::step(&format!("unpacking kernel {version}"), || unpack(&work))?;
    Manifest::write(&work, release, packages)?;
    fs::rename(&work, &dir).with_context(|| format!("cannot move {} into place", dir.display()))?;
    Ok(version)
}

fn newest(track: Track, offers: &[apt::Offer]) -> Result<String> {
    let mut best: Option<&str> = None;
    for offer in offers.iter().filter(|offer| track.takes(offer)) {
        if best.is_none_or(|best| apt::is_newer(&offer.version, best).unwrap_or(false)) {
            best = Some(&offer.version);
        }
    }
    best.map(str::to_owned)
        .with_context(|| format!("no {} kernel in the package indexes", track.name()))
}

/// The packages that hold the kernel of the given version of the meta package, with their SHA-256.
fn kernel_packages(apt: &Apt, version: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut todo = kernel_dependencies(&apt.fields(META_PACKAGE, version)?);
    while let Some(package) = todo.pop() {
        let fields = apt.fields(&package, version)?;
        let sha256 = fields
            .get("SHA256")
            .with_context(|| format!("{package} has no SHA-256 in the index"))?;
        if found
            .insert(format!("{package}={version}"), sha256.clone())
            .is_none()
        {
            todo.extend(kernel_dependencies(&fields));
        }
    }
    ensure!(
        !found.is_empty(),
        "{META_PACKAGE} {version} depends on no kernel"
    );
    Ok(found)
}

fn kernel_dependencies(fields: &BTreeMap<String, String>) -> Vec<String> {
    dependencies(fields, &KERNEL_PACKAGES)
}

/// What a package depends on, of the packages whose names begin with one of `prefixes`.
pub fn dependencies(fields: &BTreeMap<String, String>, prefixes: &[&str]) -> Vec<String> {
    let depends = fields.get("Depends").map_or("", String::as_str);
    let names = depends
        .split(',')
        .filter_map(|clause| clause.split_whitespace().next());
    names
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// Unpacks the .deb files in `dir` into `tree`, and removes them.
pub fn extract_packages(dir: &Path, tree: &Path) -> Result<()> {
    for deb in files_in(dir)?
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
    {
        cmd::run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(tree))?;
        fs::remove_file(deb)?;
    }
    Ok(())
}

/// Turns the .deb files in `work` into a kernel directory; returns the kernel's release.
fn unpack(work: &Path) -> Result<String> {
    let tree = work.join("tree");
    extract_packages(work, &tree)?;
    let modules = tree.join("usr/lib/modules");
    let release_dir = files_in(&modules)?
        .into_iter()
        .next()
        .context("the kernel has no modules")?;
    let release = release_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();

    let packaged = [
        release_dir.join("vmlinuz"),
        tree.join(format!("boot/vmlinuz-{release}")),
    ];
    let vmlinuz = packaged
        .iter()
        .find(|path| path.exists())
        .context("the kernel packages hold no vmlinuz")?;
    fs::rename(vmlinuz, work.join("vmlinuz"))?;
    fs::write(
        work.join("vmlinux"),
        vmlinux_of(&fs::read(work.join("vmlinuz"))?)?,
    )?;

    fs::create_dir_all(work.join("modules/lib/modules"))?;
    fs::rename(
        &release_dir,
        work.join("modules/lib/modules").join(&release),
    )?;
    fs::remove_dir_all(&tree)?;
    cmd::run(
        Command::new(sbin("depmod"))
            .arg("-b")
            .arg(work.join("modules"))
            .arg(&release),
    )?;
    Ok(release)
}

/// The content of a module file, whatever it is compressed with.
pub fn decompressed(module: &Path) -> Result<Vec<u8>> {
    let tool = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(module).with_context(|| format!("cannot read {}", module.display())),
    };
    cmd::output_bytes(
        Command::new(tool)
            .args(["--decompress", "--stdout"])
            .arg(module),
    )
}

/// kmod's tools lie in /usr/sbin, which is not on every user's path.
pub fn sbin(tool: &str) -> PathBuf {
    Path::new("/usr/sbin").join(tool)
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Offsets in the setup header of a bzImage (Documentation/arch/x86/boot.rst, "The Real-Mode
/// Kernel Header").
mod setup_header {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const MAGIC: usize = 0x202;
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
}

/// The ELF image inside a bzImage.
fn vmlinux_of(bzimage: &[u8]) -> Result<Vec<u8>> {
    let word = |offset: usize| -> Result<usize> {
        let bytes = bzimage
            .get(offset..offset + 4)
            .context("the bzImage is cut short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    ensure!(
        bzimage.get(setup_header::MAGIC..setup_header::MAGIC + 4) == Some(b"HdrS"),
        "this is no bzImage"
    );
    // Boot sector and setup sectors come before the protected-mode code, where the payload lies.
    let sectors = 1 + usize::from(bzimage[setup_header::SETUP_SECTS]);
    let start = sectors * 512 + word(setup_header::PAYLOAD_OFFSET)?;
    let length = word(setup_header::PAYLOAD_LENGTH)?;
    // The last four bytes are the unpacked size, added by the kernel's build.
    let payload = bzimage
        .get(start..start + length.saturating_sub(4))
        .context("the bzImage is cut short")?;
    let tool = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        _ => bail!("the bzImage is compressed in a way that is not known here"),
    };
    filter(
        Command::new(tool).args(["--decompress", "--stdout"]),
        payload,
    )
}

/// Feeds `input` to a program and returns its output.
pub fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().context("the pipe is gone")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{name} failed ({})", output.status);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str, suite: &str) -> apt::Offer {
        apt::Offer {
            package: META_PACKAGE.into(),
            version: version.into(),
            suite: suite.into(),
        }
    }

    #[test]
    fn the_newest_kernel_of_each_track_wins() {
        let offers = [
            offer("7.2.12-1~bpo13+1", "trixie-backports"),
            offer("6.12.99-1", "trixie"),
            offer("6.12.117-1", "trixie-security"),
            offer("6.18.1-1", "trixie"),
        ];
        assert_eq!(newest(Track::Stable, &offers).unwrap(), "6.12.117-1");
        assert_eq!(
            newest(Track::Backports, &offers).unwrap(),
            "7.2.12-1~bpo13+1"
        );
        assert!(newest(Track::Stable, &offers[..1]).is_err());
    }

    #[test]
    fn only_packages_with_parts_of_the_kernel_are_followed() {
        let fields = [(
            "Depends".to_owned(),
            "kmod, linux-base (>= 4), linux-binary-7.2 (= 7.2-1)".to_owned(),
        )];
        assert_eq!(kernel_dependencies(&fields.into()), ["linux-binary-7.2"]);
        assert!(kernel_dependencies(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_file_that_is_no_bzimage_is_refused() {
        assert!(vmlinux_of(&[0; 0x400]).is_err());
        assert!(vmlinux_of(b"short").is_err());
    }

    #[test]
    fn the_payload_of_a_bzimage_is_unpacked() {
        let payload = filter(Command::new("xz").arg("--stdout"), b"\x7fELF").unwrap();
        let mut image = vec![0; 2 * 512];
        image[setup_header::SETUP_SECTS] = 1;
        image[setup_header::MAGIC..][..4].copy_from_slice(b"HdrS");
        image[setup_header::PAYLOAD_OFFSET..][..4].copy_from_slice(&16u32.to_le_bytes());
        image[setup_header::PAYLOAD_LENGTH..][..4]
            .copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        image.extend([0; 16]);
        image.extend(&payload);
        image.extend(4u32.to_le_bytes());
        assert_eq!(vmlinux_of(&image).unwrap(), b"\x7fELF");
    }
}
