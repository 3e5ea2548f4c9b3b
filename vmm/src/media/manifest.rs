//! The manifest beside a backing file: which of the device's bytes lie with those of an interleave set, and where.
//!
//! A device whose bytes all lie at their DPA in its backing file needs no manifest and has none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cxl::media::{Extent, Layout, Location, MediaMap, StoreId};
use cxl::{Granularity, Interleave, Ways, XorMaps};
use serde::{Deserialize, Serialize};

use super::MediaError;
use super::store::failed;
use crate::replace::replace;

/// The only version there is.
const VERSION: u32 = 1;

/// The whole file, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    extents: Vec<Record>,
}

/// One extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// First device address.
    pub dpa: u64,
    /// Bytes.
    pub len: u64,
    /// The set whose file has the bytes; `None`: the backing file has them, at their DPA.
    pub set: Option<SetRecord>,
}

/// Where a set's file is and how this device's bytes lie in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecord {
    /// The file, relative to the manifest's directory.
    pub file: PathBuf,
    /// Where the set begins in it.
    pub offset: u64,
    /// This device's position.
    pub way: u64,
    /// Number of ways.
    pub ways: u64,
    /// Bytes on one way before the next's turn.
    pub granularity: u64,
    /// The maps of XOR arithmetic; none for modulo arithmetic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xor: Vec<u64>,
    /// The backing files of all members, relative to the manifest's directory: while one of their manifests names the
    /// set's file, it must stay.
    pub members: Vec<PathBuf>,
}

impl SetRecord {
    fn interleave(&self) -> Result<Interleave, cxl::Error> {
        let modulo = Interleave::new(Ways::new(self.ways)?, Granularity::new(self.granularity)?);
        Ok(modulo.with_xor(XorMaps::new(&self.xor)?))
    }
}

impl Record {
    /// The extent, in the device's `own` store or in that of the set.
    pub fn extent(&self, store: StoreId) -> Result<Extent, String> {
        let Self { dpa, len, .. } = *self;
        let (offset, layout) = match &self.set {
            None => (dpa, Layout::Linear),
            Some(set) => {
                let interleave = set.interleave().map_err(|error| error.to_string())?;
                (
                    set.offset,
                    Layout::Interleaved {
                        way: set.way,
                        interleave,
                    },
                )
            }
        };
        Ok(Extent {
            dpa,
            len,
            start: Location { store, offset },
            layout,
        })
    }

    /// The set's file, if the bytes are in one.
    pub fn file(&self, backing: &Path) -> Option<PathBuf> {
        let set = self.set.as_ref()?;
        Some(backing.parent().unwrap_or(Path::new("")).join(&set.file))
    }
}

/// The members' backing files as paths of their own.
pub fn members(backing: &Path, set: &SetRecord) -> Vec<PathBuf> {
    let directory = backing.parent().unwrap_or(Path::new(""));
    set.members
        .iter()
        .map(|member| directory.join(member))
        .collect()
}

/// Whether the manifest of `backing` names the set's file `set`. One that cannot be read might.
pub fn names(backing: &Path, set: &Path) -> bool {
    match read(backing) {
        Ok(records) => records
            .iter()
            .flatten()
            .any(|record| record.file(backing).as_deref() == Some(set)),
        Err(_) => true,
    }
}

/// The manifest of a backing file.
pub fn path(backing: &Path) -> PathBuf {
    let mut name = backing.as_os_str().to_os_string();
    name.push(".extents");
    name.into()
}

/// Reads the manifest of `backing`; `None` if it has none.
pub fn read(backing: &Path) -> Result<Option<Vec<Record>>, MediaError> {
    let path = path(backing);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "read the manifest")(error)),
    };
    let wrong = |why: String| MediaError::Manifest {
        path: path.clone(),
        why,
    };
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if manifest.version != VERSION {
        return Err(wrong(format!(
            "version {} is not {VERSION}",
            manifest.version
        )));
    }
    Ok(Some(manifest.extents))
}

/// Replaces the manifest of `backing`, whose own store is `own`, by one that says what `map` says; a kill at any moment
/// leaves either the old one or the new one. `set_of` names the files of sets and their members' backing files.
pub fn write<'a>(
    backing: &Path,
    map: &MediaMap,
    own: StoreId,
    set_of: impl Fn(StoreId) -> Option<(&'a Path, &'a [PathBuf])>,
) -> Result<(), MediaError> {
    let directory = backing.parent().unwrap_or(Path::new(""));
    let relative = |file: &Path| file.strip_prefix(directory).unwrap_or(file).to_path_buf();
    let record = |extent: &Extent| {
        let set = match extent.layout {
            Layout::Linear => None,
            Layout::Interleaved { way, interleave } if extent.start.store != own => {
                let (file, members) = set_of(extent.start.store)?;
                Some(SetRecord {
                    file: relative(file),
                    offset: extent.start.offset,
                    way,
                    ways: interleave.ways.count(),
                    granularity: interleave.granularity.bytes(),
                    xor: interleave.xor.maps().collect(),
                    members: members.iter().map(|member| relative(member)).collect(),
                })
            }
            Layout::Interleaved { .. } => return None,
        };
        Some(Record {
            dpa: extent.dpa,
            len: extent.len,
            set,
        })
    };
    let path = path(backing);
    let extents = map
        .extents()
        .iter()
        .map(record)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| MediaError::Manifest {
            path: path.clone(),
            why: "bytes of the device lie in no file".into(),
        })?;
    let manifest = Manifest {
        version: VERSION,
        extents,
    };
    serde_json::to_string_pretty(&manifest)
        .map_err(io::Error::from)
        .and_then(|text| replace(&path, text.as_bytes()))
        .map_err(failed(&path, "write the manifest"))
}
