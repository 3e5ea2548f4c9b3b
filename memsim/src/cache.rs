//! A software model of a machine's data caches: which accesses reach memory.
//!
//! Every level is set-associative, least recently used, write-back and write-allocate. A line that a
//! level evicts dirty is written to the level below, and from the last level to memory.

use crate::error::Error;

/// Shape of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes.
    pub size: u64,
    /// Lines in a set.
    pub ways: usize,
}

/// What an access moved between the last level and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// The line had to be read from memory.
    pub filled: bool,
    /// A dirty line that had to go to memory for it.
    pub written_back: Option<u64>,
}

/// The caches, from the core outwards.
#[derive(Debug, Clone)]
pub struct Caches {
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    ways: usize,
    sets: u64,
    /// `sets × ways` entries, most recent first within a set: line number << 1 | dirty.
    lines: Vec<u64>,
}

/// An entry that holds no line.
const EMPTY: u64 = u64::MAX;
/// Bytes of a line.
const LINE: u64 = crate::law::LINE as u64;

impl Caches {
    /// Empty caches.
    ///
    /// # Errors
    /// [`Error::Value`] for a level of no lines, or larger than 1 GiB.
    pub fn new(shapes: &[Shape]) -> Result<Self, Error> {
        let levels = shapes.iter().map(|shape| {
            let sets = shape.size / LINE / (shape.ways.max(1) as u64);
            if shape.ways == 0 || sets == 0 || shape.size > 1 << 30 {
                return Err(Error::Value {
                    what: "cache",
                    reason: format!(
                        "a level of {} bytes in {} ways is not possible",
                        shape.size, shape.ways
                    ),
                });
            }
            Ok(Level {
                ways: shape.ways,
                sets,
                lines: vec![EMPTY; sets as usize * shape.ways],
            })
        });
        Ok(Self {
            levels: levels.collect::<Result<_, _>>()?,
        })
    }

    /// One access to a line.
    pub fn access(&mut self, line: u64, write: bool) -> Traffic {
        let mut traffic = Traffic {
            filled: true,
            written_back: None,
        };
        // The dirty mark goes to the level nearest to the core; below, this is a read.
        let mut dirty = write;
        for depth in 0..self.levels.len() {
            let (hit, evicted) = self.levels[depth].access(line, dirty);
            dirty = false;
            if let Some(victim) = evicted
                && let Some(written) = self.write_back(depth + 1, victim)
            {
                traffic.written_back = Some(written);
            }
            if hit {
                traffic.filled = false;
                break;
            }
        }
        traffic
    }

    /// Writes an evicted line to the level below; returns what memory gets in the end.
    fn write_back(&mut self, mut depth: usize, mut line: u64) -> Option<u64> {
        while let Some(level) = self.levels.get_mut(depth) {
            line = level.access(line, true).1?;
            depth += 1;
        }
        Some(line)
    }
}

impl Level {
    /// Makes a line the most recent of its set; tells whether it was there, and which dirty line it
    /// put out.
    fn access(&mut self, line: u64, write: bool) -> (bool, Option<u64>) {
        let first = (line % self.sets) as usize * self.ways;
        let set = &mut self.lines[first..first + self.ways];
        let found = set
            .iter()
            .position(|&entry| entry != EMPTY && entry >> 1 == line);
        let place = found.unwrap_or(self.ways - 1);
        let old = set[place];
        set.copy_within(..place, 1);
        let dirty = u64::from(write) | if found.is_some() { old & 1 } else { 0 };
        set[0] = line << 1 | dirty;
        let evicted = found.is_none() && old != EMPTY && old & 1 == 1;
        (found.is_some(), evicted.then_some(old >> 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sets of two ways.
    fn tiny() -> Caches {
        Caches::new(&[Shape { size: 256, ways: 2 }]).unwrap()
    }

    #[test]
    fn a_line_is_read_from_memory_once() {
        let mut caches = tiny();
        assert!(caches.access(8, false).filled);
        assert!(!caches.access(8, false).filled);
    }

    #[test]
    fn the_least_recently_used_line_of_a_set_goes() {
        let mut caches = tiny();
        for line in [0, 2, 0, 4] {
            caches.access(line, false);
        }
        assert!(!caches.access(0, false).filled);
        assert!(caches.access(2, false).filled);
    }

    #[test]
    fn only_written_lines_are_written_back() {
        let mut caches = tiny();
        caches.access(0, true);
        caches.access(2, false);
        assert_eq!(caches.access(4, false).written_back, Some(0));
        assert_eq!(caches.access(6, false).written_back, None);
    }

    #[test]
    fn a_dirty_line_passes_through_the_last_level_before_memory_gets_it() {
        let shapes = [Shape { size: 64, ways: 1 }, Shape { size: 256, ways: 4 }];
        let mut caches = Caches::new(&shapes).unwrap();
        caches.access(1, true);
        assert_eq!(
            caches.access(2, false),
            Traffic {
                filled: true,
                written_back: None
            }
        );
        let written = (3..8)
            .filter_map(|line| caches.access(line, false).written_back)
            .count();
        assert_eq!(written, 1);
    }

    #[test]
    fn a_sweep_over_more_than_the_cache_holds_misses_every_time() {
        let mut caches = Caches::new(&[Shape {
            size: 1 << 15,
            ways: 8,
        }])
        .unwrap();
        let lines = 2 * (1 << 15) / 64;
        let fills = (0..2 * lines)
            .filter(|i| caches.access(i % lines, false).filled)
            .count();
        assert_eq!(fills as u64, 2 * lines);
    }

    #[test]
    fn impossible_levels_are_refused() {
        assert!(Caches::new(&[Shape { size: 64, ways: 2 }]).is_err());
        assert!(
            Caches::new(&[Shape {
                size: 1 << 40,
                ways: 8
            }])
            .is_err()
        );
    }
}
