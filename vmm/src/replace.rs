//! Files that are replaced as a whole: a kill at any moment leaves either the old contents or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Puts `contents` in the place of the file at `path`, and waits for the disk.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_os_string();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
