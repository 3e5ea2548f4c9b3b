//! An initramfs archive of a directory tree, in the `newc` format (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Owner and times are left out (0), so that the same tree always gives the same bytes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// Archives everything below `tree`: directories, regular files and symbolic links.
pub fn archive(tree: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.add_children(tree, b"")?;
    archive.entry(b"TRAILER!!!", 0, &[])?;
    Ok(archive.bytes)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add_children(&mut self, dir: &Path, prefix: &[u8]) -> Result<()> {
        let mut entries = fs::read_dir(dir)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
            .with_context(|| format!("cannot read {}", dir.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = [prefix, entry.file_name().as_bytes()].concat();
            let metadata = fs::symlink_metadata(&path)?;
            let mode = (metadata.mode() & FILE_TYPE) | (metadata.permissions().mode() & 0o7777);
            match mode & FILE_TYPE {
                DIRECTORY => {
                    self.entry(&name, mode, &[])?;
                    self.add_children(&path, &[&name[..], b"/"].concat())?;
                }
                REGULAR => {
                    let data = fs::read(&path)
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    self.entry(&name, mode, &data)?;
                }
                SYMLINK => self.entry(&name, mode, fs::read_link(&path)?.as_os_str().as_bytes())?,
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], mode: u32, data: &[u8]) -> Result<()> {
        let size = u32::try_from(data.len()).context("a file of an initramfs is below 4 GiB")?;
        ensure!(name.len() < 4096, "a path of an initramfs is below 4 KiB");
        self.inode += 1;
        let name_size = name.len() as u32 + 1;
        // Inode, mode, owner, group, links, time, size, device, device node, name size, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
        Ok(())
    }

    /// Headers and data begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_tree_survives_the_archive() {
        let dir = std::env::temp_dir().join(format!("memu-cpio-{}", std::process::id()));
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/tool"), "text").unwrap();
        std::os::unix::fs::symlink("bin/tool", tree.join("init")).unwrap();

        let bytes = archive(&tree).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text
            .split("070701")
            .filter_map(|entry| entry.get(104..)?.split('\0').next())
            .collect();
        assert_eq!(names, ["bin", "bin/tool", "init", "TRAILER!!!"]);
        assert_eq!(
            archive(&tree).unwrap(),
            bytes,
            "the same tree gives the same bytes"
        );
        let _ = Command::new("rm").arg("-rf").arg(&dir).status();
    }
}
