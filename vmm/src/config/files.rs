//! The host's files that a configuration names.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

use super::model::Config;
use super::report::Report;
use super::units::show_size;
use super::validate::device_key;
use crate::terminal::Target;

/// Least label storage, in bytes (UEFI 2.10, 13.19.2).
pub(super) const LEAST_LABELS: u64 = 128 << 10;
/// Most label storage, in bytes: it is read and written through the mailbox, a payload at a time.
pub(super) const MOST_LABELS: u64 = 64 << 20;

/// Most bytes of a Unix socket's path: `sun_path` less its final NUL (unix(7)).
const MOST_SOCKET_PATH: usize = 107;

/// Reports files that are missing, or not what they should be. Creates nothing.
pub(super) fn check(config: &Config, report: &mut Report) {
    readable(
        report,
        "boot.kernel",
        &config.boot.kernel,
        "a bzImage or an ELF vmlinux",
    );
    if let Some(initrd) = &config.boot.initrd {
        readable(report, "boot.initrd", initrd, "an initramfs");
    }
    for (i, disk) in config.disks.iter().enumerate() {
        present(
            report,
            &format!("disk[{i}].path"),
            &disk.path,
            "a raw image",
        );
    }
    if let Some(socket) = &config.control {
        socket_at(report, "control.socket", socket);
    }
    let virtio = config.virtio_consoles.iter().enumerate();
    let consoles = std::iter::once(("console.serial".to_string(), &config.serial))
        .chain(virtio.map(|(i, target)| (format!("virtio_console[{i}].target"), target)));
    for (key, target) in consoles {
        match target {
            Target::File(path) => directory_of(report, &key, path),
            Target::Socket(path) => socket_at(report, &key, path),
            Target::Stdio | Target::Pty | Target::Null => {}
        }
    }
    for (port, device) in config.devices() {
        let key = device_key(&port);
        if let Some(backing) = &device.backing {
            let mend = "name another file, or give the device the capacity that this one has";
            sized(
                report,
                &format!("{key}.backing"),
                backing,
                device.address_space(),
                mend,
            );
        }
        if let Some(labels) = &device.labels {
            let mend = "name another file, or set lsa_size to the size of this one";
            sized(
                report,
                &format!("{key}.lsa"),
                &labels.path,
                labels.size,
                mend,
            );
        }
    }
}

fn present(report: &mut Report, key: &str, path: &Path, what: &str) -> Option<Metadata> {
    let metadata = fs::metadata(path);
    if let Err(error) = &metadata {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
            _ => format!("cannot use {}: {error}", path.display()),
        };
        report.error(key, problem, format!("name {what}"));
    }
    metadata.ok()
}

fn readable(report: &mut Report, key: &str, path: &Path, what: &str) {
    if path.as_os_str().is_empty() {
        return; // Its absence has been reported.
    }
    let Some(metadata) = present(report, key, path, what) else {
        return;
    };
    if !metadata.is_file() {
        let problem = format!("{} is not a regular file", path.display());
        report.error(key, problem, format!("name {what}"));
    } else if let Err(error) = File::open(path) {
        let problem = format!("cannot read {}: {error}", path.display());
        report.error(key, problem, "give this user the right to read it");
    }
}

fn socket_at(report: &mut Report, key: &str, path: &Path) {
    let length = path.as_os_str().len();
    if length > MOST_SOCKET_PATH {
        report.error(
            key,
            format!("the path has {length} bytes, and a Unix socket's at most {MOST_SOCKET_PATH}"),
            "choose a shorter one",
        );
    }
    directory_of(report, key, path);
}

fn directory_of(report: &mut Report, key: &str, path: &Path) {
    let directory = parent(path);
    if !directory.is_dir() {
        report.error(
            key,
            format!("there is no directory {}", directory.display()),
            "make it, or name a file in another",
        );
    }
}

/// A regular file of `size` bytes, or none yet in a directory that exists. An empty file counts as none yet: another
/// machine may be about to give the file that they share its size.
fn sized(report: &mut Report, key: &str, path: &Path, size: u64, mend: &str) {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => directory_of(report, key, path),
        Err(error) => {
            let problem = format!("cannot use {}: {error}", path.display());
            report.error(key, problem, "name another file");
        }
        Ok(metadata) if !metadata.is_file() => {
            let problem = format!("{} is not a regular file", path.display());
            report.error(key, problem, "name a file, or one that does not exist yet");
        }
        Ok(metadata) if metadata.len() != 0 && metadata.len() != size => {
            let problem = format!(
                "{} has {} and the device needs {}",
                path.display(),
                show_size(metadata.len()),
                show_size(size)
            );
            report.error(key, problem, mend);
        }
        Ok(_) => {}
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
