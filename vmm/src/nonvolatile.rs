//! What expanders remember without power besides media and labels: firmware slots, passphrases, the shutdown state and
//! so on ([`NonVolatile`]).
//!
//! A device with a backing file of its own keeps it in a file beside that, replaced atomically; any other one for as long
//! as this process lives, reboots of the guest included.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cxl::memdev::NonVolatile;

use crate::config::Type3;
use crate::error::{Error, Result};
use crate::replace::replace;

/// What all devices remember, by name.
#[derive(Debug, Default)]
pub struct NonVolatileStore(Mutex<BTreeMap<String, Kept>>);

#[derive(Debug)]
struct Kept {
    path: Option<PathBuf>,
    value: NonVolatile,
}

impl NonVolatileStore {
    /// What a device remembers: of its last life in this process, else from its file, else nothing.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn load(&self, device: &Type3) -> Result<NonVolatile> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { value, .. }) = kept.get(&device.name) {
            return Ok(value.clone());
        }
        let path = path(device);
        let value = match &path {
            Some(path) => read(path)?,
            None => NonVolatile::default(),
        };
        let name = device.name.clone();
        let found = value.clone();
        kept.insert(name, Kept { path, value });
        Ok(found)
    }

    /// Keeps what the device `name` remembers now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, name: &str, value: NonVolatile) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = kept.get_mut(name) else {
            return Ok(());
        };
        kept.value = value;
        let Some(path) = &kept.path else {
            return Ok(());
        };
        replace(path, serde_json::to_string_pretty(&kept.value)?.as_bytes())
    }

    /// The device `name` has left the machine, with what it remembers; its file stays.
    pub fn forget(&self, name: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(name);
    }
}

/// The file beside a backing file that the device has for itself.
fn path(device: &Type3) -> Option<PathBuf> {
    let backing = device.backing.as_ref().filter(|_| !device.shared)?;
    let mut path = backing.clone().into_os_string();
    path.push(".state");
    Some(path.into())
}

fn read(path: &Path) -> Result<NonVolatile> {
    let failed = |source| Error::Host {
        what: format!(
            "use the device state in {}; remove the file for a device as it left the factory",
            path.display()
        ),
        source,
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NonVolatile::default()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Performance;
    use tempfile::TempDir;

    fn device(backing: Option<PathBuf>, shared: bool) -> Type3 {
        Type3 {
            name: "mem0".into(),
            serial: 1,
            volatile: 256 << 20,
            persistent: 0,
            partitionable: 0,
            dynamic: Vec::new(),
            backing,
            labels: None,
            shared,
            decoders: 4,
            performance: Performance {
                read_latency: 150,
                write_latency: 150,
                read_bandwidth: 32.0,
                write_bandwidth: 32.0,
            },
            fault: None,
            part: devices::Part::Whole,
        }
    }

    fn dirty(count: u32) -> NonVolatile {
        NonVolatile {
            dirty_shutdowns: count,
            ..NonVolatile::default()
        }
    }

    #[test]
    fn a_backed_device_remembers_in_a_file_beside_its_backing() {
        let directory = TempDir::new().unwrap();
        let device = device(Some(directory.path().join("mem0.img")), false);
        let store = NonVolatileStore::default();
        assert_eq!(store.load(&device).unwrap(), NonVolatile::default());
        assert!(!directory.path().join("mem0.img.state").exists());
        store.save("mem0", dirty(3)).unwrap();
        assert!(directory.path().join("mem0.img.state").exists());
        let another_process = NonVolatileStore::default();
        assert_eq!(another_process.load(&device).unwrap(), dirty(3));
    }

    #[test]
    fn a_device_without_a_file_of_its_own_remembers_across_reboots_only() {
        let directory = TempDir::new().unwrap();
        let backing = directory.path().join("mem0.img");
        for device in [device(None, false), device(Some(backing), true)] {
            let store = NonVolatileStore::default();
            store.load(&device).unwrap();
            store.save("mem0", dirty(3)).unwrap();
            assert_eq!(store.load(&device).unwrap(), dirty(3));
            let another_process = NonVolatileStore::default();
            assert_eq!(another_process.load(&device).unwrap(), dirty(0));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_that_has_left_takes_what_it_remembers_along() {
        let directory = TempDir::new().unwrap();
        let backed = device(Some(directory.path().join("mem0.img")), false);
        for (device, again) in [(device(None, false), dirty(0)), (backed, dirty(3))] {
            let store = NonVolatileStore::default();
            store.load(&device).unwrap();
            store.save("mem0", dirty(3)).unwrap();
            store.forget("mem0");
            assert_eq!(store.load(&device).unwrap(), again);
        }
    }

    #[test]
    fn a_broken_file_is_named_with_what_to_do_about_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("mem0.img.state");
        for text in ["", "{", "{\"colour\": 3}"] {
            fs::write(&path, text).unwrap();
            let device = device(Some(directory.path().join("mem0.img")), false);
            let error = NonVolatileStore::default().load(&device).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("mem0.img.state") && text.contains("remove"),
                "{text}"
            );
        }
    }
}
