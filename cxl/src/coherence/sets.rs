//! Which lines a directory of limited size holds.

use super::LINE;
use crate::Error;

/// Sets of lines, each in the order of its last use, the oldest first.
#[derive(Debug)]
pub struct Sets {
    sets: Vec<Vec<u64>>,
    ways: usize,
}

impl Sets {
    /// For so many lines, in sets of so many ways.
    pub fn new(what: &'static str, (lines, ways): (usize, usize)) -> Result<Self, Error> {
        if ways == 0 || lines == 0 || !lines.is_multiple_of(ways) {
            return Err(Error::Unaligned {
                what,
                bytes: lines as u64 * LINE,
                unit: ways as u64 * LINE,
            });
        }
        Ok(Self {
            sets: vec![Vec::new(); lines / ways],
            ways,
        })
    }

    fn set(&mut self, line: u64) -> &mut Vec<u64> {
        let count = self.sets.len() as u64;
        &mut self.sets[(line / LINE % count) as usize]
    }

    /// The line that has to go before another one comes, which is not there yet.
    pub fn victim(&mut self, line: u64) -> Option<u64> {
        let ways = self.ways;
        let set = self.set(line);
        (set.len() >= ways).then(|| set.first().copied()).flatten()
    }

    /// Adds a line, for which there is room, or uses one that is there.
    pub fn insert(&mut self, line: u64) {
        self.remove(line);
        self.set(line).push(line);
    }

    /// Uses a line that is there.
    pub fn touch(&mut self, line: u64) {
        self.insert(line);
    }

    /// Removes a line, if it is there.
    pub fn remove(&mut self, line: u64) {
        self.set(line).retain(|&other| other != line);
    }
}
