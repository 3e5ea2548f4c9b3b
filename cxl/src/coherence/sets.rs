//! Which lines a directory of limited size holds.

use crate::Error;

/// Sets of lines, each in the order of its last use, the oldest first.
#[derive(Debug)]
pub struct Sets {
    /// None: there is room for all.
    sets: Vec<Vec<u64>>,
    ways: usize,
    granule: u64,
}

impl Sets {
    /// For so many lines of `granule` bytes, in sets of so many ways; `None` for all.
    pub fn new(
        what: &'static str,
        size: Option<(usize, usize)>,
        granule: u64,
    ) -> Result<Self, Error> {
        let (lines, ways) = size.unwrap_or((0, 1));
        if size.is_some() && (ways == 0 || lines == 0 || !lines.is_multiple_of(ways)) {
            return Err(Error::Unaligned {
                what,
                bytes: lines as u64 * granule,
                unit: ways as u64 * granule,
            });
        }
        Ok(Self {
            sets: vec![Vec::new(); lines / ways],
            ways,
            granule,
        })
    }

    fn set(&mut self, line: u64) -> Option<&mut Vec<u64>> {
        let count = self.sets.len() as u64;
        let set = (line / self.granule).checked_rem(count)?;
        self.sets.get_mut(set as usize)
    }

    /// The line that has to go before another one comes, which is not there yet.
    pub fn victim(&mut self, line: u64) -> Option<u64> {
        let ways = self.ways;
        let set = self.set(line)?;
        (set.len() >= ways).then(|| set.first().copied()).flatten()
    }

    /// Adds a line, for which there is room, or uses one that is there.
    pub fn insert(&mut self, line: u64) {
        self.remove(line);
        if let Some(set) = self.set(line) {
            set.push(line);
        }
    }

    /// Uses a line that is there.
    pub fn touch(&mut self, line: u64) {
        self.insert(line);
    }

    /// Removes a line, if it is there.
    pub fn remove(&mut self, line: u64) {
        if let Some(set) = self.set(line) {
            set.retain(|&other| other != line);
        }
    }
}
