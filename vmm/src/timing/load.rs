//! What the hosts of a shared expander tell each other: how much each of them asks of it.
//!
//! Beside the expander's backing lies the file `backing.load`: a line of text that says what it is, and a slot for each
//! of up to [`SLOTS`] hosts. A host writes its own slot at the end of an epoch and reads the others'. No host waits for
//! another: the file is locked for the few microseconds of a write, by who finds it free, and a slot is whole or it does
//! not count. What a slot says holds for a time that it names itself, so that a host that ends, is paused or is killed is
//! forgotten without anybody's help, and its slot given to the next.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, HostContext, Result};

/// Most hosts of an expander.
pub const SLOTS: usize = 16;
/// What the file begins with, filled up with zeros to the size of a slot.
const TITLE: &[u8] = b"memu: load of a shared expander, version 1\n";
/// Bytes of a slot: seven little-endian numbers of 64 bits, and their checksum.
const SLOT: usize = 64;
const SIZE: usize = (1 + SLOTS) * SLOT;
/// Longest time for which a slot may claim to hold, ns.
const LONGEST: u64 = 600_000_000_000;
/// Most lines in a ns that a host may ask for: sixty times what the widest link carries.
const MOST_LINES: f64 = 100.0;
/// Most that an epoch may be stretched.
const MOST_STRETCH: f64 = 1e6;

/// What a host asks of an expander.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Lines that it would read in a ns if nothing delayed it.
    pub reads_per_ns: f64,
    /// Lines that it would write.
    pub writes_per_ns: f64,
    /// What an epoch of it takes over what it would take, at least 1.
    pub stretch: f64,
}

/// A host's part in the file.
#[derive(Debug)]
pub struct LoadFile {
    file: File,
    path: PathBuf,
    /// What tells its slot from others'; never 0.
    owner: u64,
    slot: Option<usize>,
    full: bool,
}

/// A slot that somebody has written.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    owner: u64,
    /// Up to when it holds, ns since 1970.
    until: u64,
    load: Load,
}

impl LoadFile {
    /// The file beside a backing, made if it is not there.
    ///
    /// # Errors
    /// [`Error::Host`] if it cannot be opened or made, [`Error::Timing`] if it is something else.
    pub fn open(backing: &Path) -> Result<Self> {
        let mut path = backing.as_os_str().to_os_string();
        path.push(".load");
        let path = PathBuf::from(path);
        let what = |verb: &str| format!("{verb} {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .trying(|| what("open"))?;
        let mut title = [0; SLOT];
        title[..TITLE.len()].copy_from_slice(TITLE);
        let len = file.metadata().trying(|| what("look at"))?.len();
        let mut found = [0; SLOT];
        let read = file.read_at(&mut found, 0).trying(|| what("read"))?;
        // Whoever else makes it at this moment writes the same.
        if found[..read].iter().all(|byte| *byte == 0) && len <= SIZE as u64 {
            file.set_len(SIZE as u64).trying(|| what("write"))?;
            file.write_all_at(&title, 0).trying(|| what("write"))?;
        } else if found != title || len != SIZE as u64 {
            return Err(Error::Timing(format!(
                "{} is not what hosts of a shared expander tell each other; remove it, or choose another backing",
                path.display()
            )));
        }
        Ok(Self {
            file,
            path,
            owner: RandomState::new().hash_one(std::process::id()) | 1,
            slot: None,
            full: false,
        })
    }

    /// Tells the others what this host asks for, for as long as `holds`.
    pub fn publish(&mut self, load: Load, holds: Duration) {
        self.publish_at(now(), load, holds);
    }

    /// What others ask for now.
    pub fn others(&self) -> Vec<Load> {
        self.others_at(now())
    }

    fn publish_at(&mut self, now: u64, load: Load, holds: Duration) {
        // Somebody else writes: what this host has told before holds for some epochs more.
        if flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        self.slot = self.own_slot(now);
        if let Some(slot) = self.slot {
            let holds = u64::try_from(holds.as_nanos()).unwrap_or(LONGEST);
            let slot_now = Slot {
                owner: self.owner,
                until: now.saturating_add(holds.min(LONGEST)),
                load,
            };
            let place = ((1 + slot) * SLOT) as u64;
            if let Err(error) = self.file.write_all_at(&slot_now.encode(), place) {
                log::debug!("cannot write {}: {error}", self.path.display());
            }
        } else if !self.full {
            self.full = true;
            log::warn!(
                "{}: {SLOTS} hosts load this expander already; they will not feel this one",
                self.path.display()
            );
        }
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            log::debug!("cannot unlock {}: {error}", self.path.display());
        }
    }

    /// This host's slot, or else one that is nobody's any more.
    fn own_slot(&self, now: u64) -> Option<usize> {
        let slots = self.slots();
        let is_own = |slot: &Option<Slot>| slot.is_some_and(|slot| slot.owner == self.owner);
        let is_free = |slot: &Option<Slot>| slot.is_none_or(|slot| !slot.holds(now));
        if let Some(known) = self.slot
            && slots.get(known).is_some_and(is_own)
        {
            return Some(known);
        }
        slots.iter().position(is_free)
    }

    fn others_at(&self, now: u64) -> Vec<Load> {
        let slots = self.slots().into_iter().flatten();
        let others = slots.filter(|slot| slot.owner != self.owner && slot.holds(now));
        others.map(|slot| slot.load).collect()
    }

    /// All slots; what cannot be read counts as empty.
    fn slots(&self) -> [Option<Slot>; SLOTS] {
        let mut bytes = [0; SIZE];
        if let Err(error) = self.file.read_exact_at(&mut bytes, 0) {
            log::debug!("cannot read {}: {error}", self.path.display());
            return [None; SLOTS];
        }
        let (slots, _) = bytes.as_chunks::<SLOT>();
        std::array::from_fn(|slot| slots.get(1 + slot).and_then(Slot::decode))
    }
}

impl Drop for LoadFile {
    fn drop(&mut self) {
        let nothing = Load {
            reads_per_ns: 0.0,
            writes_per_ns: 0.0,
            stretch: 1.0,
        };
        if self.slot.is_some() {
            self.publish(nothing, Duration::ZERO);
        }
    }
}

impl Slot {
    /// Whether it still counts. One that claims to hold for longer than any may, as after the clock was set back, does not.
    fn holds(&self, now: u64) -> bool {
        (now..=now.saturating_add(LONGEST)).contains(&self.until)
    }

    fn encode(&self) -> [u8; SLOT] {
        let Load {
            reads_per_ns,
            writes_per_ns,
            stretch,
        } = self.load;
        let loads = [reads_per_ns, writes_per_ns, stretch].map(f64::to_bits);
        let numbers = [self.owner, self.until, loads[0], loads[1], loads[2], 0, 0];
        let mut bytes = [0; SLOT];
        for (number, place) in numbers.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *place = number.to_le_bytes();
        }
        let sum = checksum(&numbers);
        bytes[SLOT - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` for one that nobody has written, that is not whole, or that says what cannot be.
    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let mut numbers = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|n| u64::from_le_bytes(*n));
        let numbers: [u64; 8] = std::array::from_fn(|_| numbers.next().unwrap_or_default());
        let [owner, until, reads, writes, stretch, ..] = numbers;
        let load = Load {
            reads_per_ns: f64::from_bits(reads),
            writes_per_ns: f64::from_bits(writes),
            stretch: f64::from_bits(stretch),
        };
        let lines = 0.0..=MOST_LINES;
        let sound = owner != 0
            && checksum(&numbers[..7]) == numbers[7]
            && lines.contains(&load.reads_per_ns)
            && lines.contains(&load.writes_per_ns)
            && (1.0..=MOST_STRETCH).contains(&load.stretch);
        sound.then_some(Self { owner, until, load })
    }
}

/// FNV-1a, a number at a time.
fn checksum(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0xcbf2_9ce4_8422_2325, |sum, number| {
        (sum ^ number).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The time that all processes of this machine share, ns since 1970.
fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10_000_000_000_000;
    const SECOND: Duration = Duration::from_secs(1);
    const LATER: u64 = NOW + 1_000_000_001;

    fn load(reads_per_ns: f64) -> Load {
        Load {
            reads_per_ns,
            writes_per_ns: 0.25,
            stretch: 1.5,
        }
    }

    struct Shared(tempfile::TempDir);

    impl Shared {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn host(&self) -> LoadFile {
            LoadFile::open(&self.0.path().join("pool")).unwrap()
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("pool.load")
        }
    }

    #[test]
    fn hosts_hear_of_each_other_and_not_of_themselves() {
        let shared = Shared::new();
        let (mut a, mut b) = (shared.host(), shared.host());
        a.publish_at(NOW, load(0.1), SECOND);
        b.publish_at(NOW, load(0.2), SECOND);
        a.publish_at(NOW, load(0.3), SECOND);
        assert_eq!(a.others_at(NOW), [load(0.2)]);
        assert_eq!(b.others_at(NOW), [load(0.3)]);
        assert_eq!(shared.host().others_at(NOW), [load(0.3), load(0.2)]);
    }

    #[test]
    fn what_a_host_said_holds_no_longer_than_it_said() {
        let shared = Shared::new();
        let (mut a, b) = (shared.host(), shared.host());
        a.publish_at(NOW, load(0.1), SECOND);
        assert_eq!(b.others_at(LATER), []);
        // Nor does anything from a future that cannot be.
        assert_eq!(b.others_at(NOW - 2 * LONGEST), []);
    }

    #[test]
    fn a_host_that_ends_is_gone_at_once() {
        let shared = Shared::new();
        let (mut a, b) = (shared.host(), shared.host());
        a.publish(load(0.1), SECOND * 60);
        assert_eq!(b.others(), [load(0.1)]);
        drop(a);
        assert_eq!(b.others(), []);
    }

    #[test]
    fn the_slot_of_a_host_that_was_killed_is_given_to_the_next() {
        let shared = Shared::new();
        let mut killed: Vec<LoadFile> = (0..SLOTS).map(|_| shared.host()).collect();
        for host in &mut killed {
            host.publish_at(NOW, load(0.1), SECOND);
        }
        let mut late = shared.host();
        late.publish_at(NOW, load(0.9), SECOND);
        assert_eq!((late.slot, late.others_at(NOW).len()), (None, SLOTS));
        late.publish_at(LATER, load(0.9), SECOND);
        assert_eq!(late.slot, Some(0));
        // One that was only paused finds another slot.
        killed[0].publish_at(LATER, load(0.1), SECOND);
        assert_eq!(killed[0].slot, Some(1));
        assert_eq!(late.others_at(LATER), [load(0.1)]);
    }

    #[test]
    fn nobody_waits_for_a_host_that_holds_the_lock() {
        let shared = Shared::new();
        let (a, mut b) = (shared.host(), shared.host());
        flock(&a.file, FlockOperation::LockExclusive).unwrap();
        b.publish_at(NOW, load(0.1), SECOND);
        assert_eq!(a.others_at(NOW), []);
        flock(&a.file, FlockOperation::Unlock).unwrap();
        b.publish_at(NOW, load(0.1), SECOND);
        assert_eq!(a.others_at(NOW), [load(0.1)]);
    }

    #[test]
    fn a_slot_that_is_not_whole_or_says_what_cannot_be_does_not_count() {
        let slot = Slot {
            owner: 7,
            until: NOW,
            load: load(0.1),
        };
        assert_eq!(Slot::decode(&slot.encode()), Some(slot));
        assert_eq!(Slot::decode(&[0; SLOT]), None);
        for byte in 0..SLOT {
            let mut torn = slot.encode();
            torn[byte] ^= 0x10;
            assert_eq!(Slot::decode(&torn), None, "byte {byte}");
        }
        for reads in [f64::NAN, f64::INFINITY, -1.0, 1e9] {
            let wrong = Slot {
                load: load(reads),
                ..slot
            };
            assert_eq!(Slot::decode(&wrong.encode()), None);
        }
        let wrong = Slot {
            load: Load {
                stretch: 0.5,
                ..slot.load
            },
            ..slot
        };
        assert_eq!(Slot::decode(&wrong.encode()), None);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let shared = Shared::new();
        std::fs::write(shared.path(), "somebody's letter").unwrap();
        let error = LoadFile::open(&shared.0.path().join("pool")).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
        assert_eq!(std::fs::read(shared.path()).unwrap(), b"somebody's letter");
    }

    #[test]
    fn a_file_that_was_cut_off_tells_nothing() {
        let shared = Shared::new();
        let (mut a, b) = (shared.host(), shared.host());
        a.publish_at(NOW, load(0.1), SECOND);
        File::options()
            .write(true)
            .open(shared.path())
            .unwrap()
            .set_len(100)
            .unwrap();
        assert_eq!(b.others_at(NOW), []);
    }
}
