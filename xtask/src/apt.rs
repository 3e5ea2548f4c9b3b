//! Debian's suites through apt itself, in a private root under the cache: whatever release the
//! machine runs, packages of trixie can be looked up and downloaded without touching its own apt.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{cmd, paths, setup, ui};

/// Release that guests run.
pub const RELEASE: &str = "trixie";
/// Suite with the newest kernels for [`RELEASE`].
pub const BACKPORTS: &str = "trixie-backports";
/// QEMU and its firmware come from [`BACKPORTS`] while that has them: up to 10.1 its TCG sets and clears bits of a processor's pending interrupts
/// at VMRUN and #VMEXIT without a lock, so that one that another thread raises just then is lost, and with it a lab now and then.
const PREFERENCES: &str =
    "Package: src:qemu src:seabios\nPin: release n=trixie-backports\nPin-Priority: 990\n";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One version of a package, as an index offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub package: String,
    pub version: String,
    pub suite: String,
}

/// A private apt root.
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets the private root up (it may exist) and brings its indexes up to `max_age`.
    ///
    /// Without a network, older indexes are used when there are any.
    pub fn open(max_age: Duration) -> Result<Apt> {
        let apt = Apt {
            dir: paths::cache()?.join("apt"),
        };
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.dir.join(sub)).context("cannot create the private apt root")?;
        }
        // No package counts as installed: dependencies are then always complete.
        fs::write(apt.dir.join("status"), "").context("cannot write the private apt root")?;
        fs::write(apt.preferences(), PREFERENCES).context("cannot write the private apt root")?;
        if apt.is_fresh(max_age) {
            return Ok(apt);
        }
        let mirrors = Mirrors::of_this_machine()?;
        fs::write(apt.sources(), mirrors.sources(&[BACKPORTS]))?;
        fs::write(apt.release_sources(), mirrors.sources(&[]))?;
        let updated = ui::step("reading Debian's package indexes", || {
            cmd::run(apt.command("apt-get").args(["update", "--error-on=any"]))
        });
        match updated {
            Ok(()) => fs::write(apt.stamp(), "")?,
            Err(error) if apt.stamp().exists() => {
                ui::note(&format!("using the indexes of an earlier run: {error:#}"));
            }
            Err(error) => return Err(error),
        }
        Ok(apt)
    }

    /// A sources.list with [`RELEASE`] and its updates alone, for building images.
    pub fn release_sources(&self) -> PathBuf {
        self.dir.join("release.list")
    }

    /// A sources.list with [`BACKPORTS`] too, to be read with [`Apt::preferences`].
    pub fn sources(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    /// Which suite a package comes from where several have it.
    pub fn preferences(&self) -> PathBuf {
        self.dir.join("preferences")
    }

    /// Every version of `package` in the indexes.
    pub fn offers(&self, package: &str) -> Result<Vec<Offer>> {
        Ok(parse_madison(&cmd::output(
            self.command("apt-cache").args(["madison", package]),
        )?))
    }

    /// The control fields of one version of a package.
    pub fn fields(&self, package: &str, version: &str) -> Result<BTreeMap<String, String>> {
        let wanted = format!("{package}={version}");
        let text = cmd::output(self.command("apt-cache").args(["show", &wanted]))?;
        Ok(parse_fields(&text))
    }

    /// `name_version` of `packages` and all that they depend on, sorted: what an image made of
    /// them will contain.
    pub fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut command = self.command("apt-get");
        command
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(packages);
        Ok(parse_simulation(&cmd::output(&mut command)?))
    }

    /// Downloads `name=version` packages into `dir`.
    pub fn download(&self, packages: &[String], dir: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        // As root, apt would download as its own user, who cannot write to the cache.
        command
            .args(["-o", "APT::Sandbox::User=root", "download"])
            .args(packages)
            .current_dir(dir);
        ui::step_watched(
            &format!("downloading {}", packages.join(" ")),
            || format!("({} MiB)", directory_bytes(dir) >> 20),
            || cmd::run(&mut command),
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let path = |sub: &str| self.dir.join(sub).to_string_lossy().into_owned();
        option("Dir::Etc::SourceList", &self.sources().to_string_lossy());
        option("Dir::Etc::SourceParts", "/dev/null");
        option(
            "Dir::Etc::Preferences",
            &self.preferences().to_string_lossy(),
        );
        option("Dir::Etc::PreferencesParts", "/dev/null");
        option("Dir::State", &path("state"));
        option("Dir::State::status", &path("status"));
        option("Dir::Cache", &path("cache"));
        option("APT::Architecture", "amd64");
        option("APT::Architectures", "amd64");
        option("APT::Sandbox::User", "root");
        option("Acquire::Languages", "none");
        option(
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
            "false",
        );
        command.env("LC_ALL", "C");
        command
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("updated")
    }

    fn is_fresh(&self, max_age: Duration) -> bool {
        let modified = fs::metadata(self.stamp()).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < max_age))
    }
}

/// The greater of two versions by Debian's ordering.
pub fn is_newer(version: &str, than: &str) -> Result<bool> {
    let status = Command::new("dpkg")
        .args(["--compare-versions", version, "gt", than])
        .status()
        .context("cannot run dpkg")?;
    Ok(status.success())
}

/// Where this machine gets Debian from: taken from its own apt, so that a site's mirror is honoured.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    archive: String,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Mirrors> {
        setup::ensure_package_lists()?;
        let targets = cmd::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        match parse_targets(&targets) {
            Some(mirrors) => Ok(mirrors),
            None => bail!(
                "this machine's apt has no source of Debian itself (origin \"Debian\"); \
                 add one to /etc/apt/sources.list and run `apt-get update`"
            ),
        }
    }

    /// Lines of a sources.list for [`RELEASE`], its updates and `more` suites.
    fn sources(&self, more: &[&str]) -> String {
        let updates = format!("{RELEASE}-updates");
        let security = format!("{RELEASE}-security");
        let mut suites: Vec<(&str, &str)> =
            vec![(&self.archive, RELEASE), (&self.archive, &updates)];
        suites.extend(self.security.as_deref().map(|uri| (uri, security.as_str())));
        suites.extend(more.iter().map(|suite| (self.archive.as_str(), *suite)));
        suites
            .iter()
            .map(|(uri, suite)| {
                format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n")
            })
            .collect()
    }
}

/// Reads `ORIGIN|LABEL|REPO_URI` lines.
fn parse_targets(text: &str) -> Option<Mirrors> {
    let uri_of = |label: &str| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, '|');
            let matches = parts.next() == Some("Debian") && parts.next() == Some(label);
            parts.next().filter(|_| matches).map(str::to_owned)
        })
    };
    Some(Mirrors {
        archive: uri_of("Debian")?,
        security: uri_of("Debian-Security"),
    })
}

/// Reads `apt-cache madison`: `package | version | uri suite/component arch Packages`.
fn parse_madison(text: &str) -> Vec<Offer> {
    let offer = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let (package, version, source) = (columns.next()?, columns.next()?, columns.next()?);
        let suite = source.split(' ').nth(1)?.split('/').next()?;
        Some(Offer {
            package: package.into(),
            version: version.into(),
            suite: suite.into(),
        })
    };
    text.lines().filter_map(offer).collect()
}

/// Reads the first paragraph of `apt-cache show`; continued lines are left out.
fn parse_fields(text: &str) -> BTreeMap<String, String> {
    let paragraph = text.lines().take_while(|line| !line.is_empty());
    let field = |line: &str| {
        line.split_once(": ")
            .map(|(name, value)| (name.into(), value.into()))
    };
    paragraph
        .filter(|line| !line.starts_with(' '))
        .filter_map(field)
        .collect()
}

/// Reads the `Inst name (version ...)` lines of a simulated installation.
fn parse_simulation(text: &str) -> Vec<String> {
    let entry = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        Some(format!("{name}_{}", rest.split(' ').next()?))
    };
    let mut entries: Vec<String> = text.lines().filter_map(entry).collect();
    entries.sort();
    entries
}

/// Bytes in the files directly in `dir`.
fn directory_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_the_debian_sources_of_the_machine() {
        let text = "Node|Node|http://other.example/n/\n\
                    Debian|Debian|http://mirror.example/debian/\n\
                    Debian|Debian-Security|http://mirror.example/security/\n";
        let mirrors = parse_targets(text).unwrap();
        assert_eq!(mirrors.archive, "http://mirror.example/debian/");
        let sources = mirrors.sources(&[BACKPORTS]);
        assert!(
            sources.contains("http://mirror.example/security/ trixie-security main"),
            "{sources}"
        );
        assert!(
            sources.contains("http://mirror.example/debian/ trixie-backports main"),
            "{sources}"
        );
        assert_eq!(parse_targets("Node|Node|http://other.example/n/\n"), None);
    }

    #[test]
    fn a_machine_without_a_security_source_still_has_an_archive() {
        let mirrors = parse_targets("Debian|Debian|http://mirror.example/debian/\n").unwrap();
        assert!(!mirrors.sources(&[]).contains("trixie-security"));
    }

    #[test]
    fn madison_names_version_and_suite() {
        let line = " linux-image-amd64 | 6.12.117-1 | http://m.example/s trixie-security/main amd64 Packages\n";
        let offer = Offer {
            package: "linux-image-amd64".into(),
            version: "6.12.117-1".into(),
            suite: "trixie-security".into(),
        };
        assert_eq!(parse_madison(line), [offer]);
    }

    #[test]
    fn only_the_first_paragraph_is_read() {
        let fields =
            parse_fields("Package: a\nDepends: b, c\nDescription: x\n more: y\n\nPackage: d\n");
        assert_eq!(fields["Package"], "a");
        assert_eq!(fields["Depends"], "b, c");
        assert_eq!(fields.len(), 3);
    }

    #[test]
    fn a_simulation_lists_what_would_be_installed() {
        let text = "Reading package lists...\nInst ndctl (81-1 Debian:13/stable [amd64])\nConf ndctl (81-1)\nInst bash (5.2 x)\n";
        assert_eq!(parse_simulation(text), ["bash_5.2", "ndctl_81-1"]);
    }
}
