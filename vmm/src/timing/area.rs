//! A range of CXL memory in the guest's address space: which of its pages are there, and how often they are visited.

use memsim::law::LINE;
use memsim::revisits::Revisits;

use crate::kvm::{PAGE, Pages};

/// Pages of a block: what one look counts.
const BLOCK: u64 = 512;
/// Lines of a page.
const LINES: f64 = PAGE as f64 / LINE;
/// What a pair's end leaves of the counts before it.
const FADING: f64 = 1.0 - 1.0 / 100.0;
/// Share of walked visits up to which it may be chance, and standard deviations of it.
const CHANCE: f64 = 0.15;
const DEVIATIONS: f64 = 3.0;
/// Pairs below which nothing is known.
const FEW: f64 = 5.0;
/// What is left of pairs when what they told is too long ago.
const FORGOTTEN: f64 = 0.05;
/// Probability of a chance meeting below which a pair tells something.
const TELLING: f64 = 0.3;

/// A committed range, and what was seen of it.
#[derive(Debug, Clone)]
pub struct Area {
    /// First address.
    pub hpa: u64,
    /// Bytes.
    pub len: u64,
    /// The model's path of each way, position 0 first: lines go to all of them alike.
    pub ways: Vec<usize>,
    /// How often its pages are visited.
    pub revisits: Revisits,
    /// Pages that were there when each block was last looked at.
    blocks: Vec<u16>,
    there: u64,
    pairs: f64,
    together: f64,
    /// Variance of [`Self::together`] if all was chance.
    chance: f64,
    /// Share of visits that were part of a walk when that could be told last.
    walked: f64,
}

impl Area {
    /// A range of which nothing is known yet.
    pub fn new(hpa: u64, len: u64, ways: Vec<usize>) -> Self {
        let blocks = usize::try_from(len.div_ceil(BLOCK * PAGE)).unwrap_or_default();
        Self {
            hpa,
            len,
            ways,
            revisits: Revisits::default(),
            blocks: vec![0; blocks],
            there: 0,
            pairs: 0.0,
            together: 0.0,
            chance: 0.0,
            walked: 0.0,
        }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes that the guest has touched and not left alone since.
    pub fn resident(&self) -> u64 {
        self.there * PAGE
    }

    /// Counts the pages of a block.
    pub fn scan(&mut self, block: usize, pages: &dyn Pages) {
        let there = self
            .look(block, pages)
            .iter()
            .filter(|there| **there)
            .count();
        if let Some(known) = self.blocks.get_mut(block) {
            let there = u16::try_from(there).unwrap_or(u16::MAX);
            self.there = self.there - u64::from(*known) + u64::from(there);
            *known = there;
        }
    }

    /// Address of the `n`-th page that is there, as far as known; `None` when it has gone.
    pub fn page(&self, mut n: u64, pages: &dyn Pages) -> Option<u64> {
        for (block, there) in self.blocks.iter().enumerate() {
            if n >= u64::from(*there) {
                n -= u64::from(*there);
                continue;
            }
            let there = self.look(block, pages);
            let mut found = (0..).zip(&there).filter(|(_, there)| **there);
            let (page, _): (u64, _) = found.nth(usize::try_from(n).ok()?)?;
            return Some(self.hpa + (block as u64 * BLOCK + page) * PAGE);
        }
        None
    }

    fn look(&self, block: usize, pages: &dyn Pages) -> Vec<bool> {
        let start = block as u64 * BLOCK * PAGE;
        let count = (self.len.saturating_sub(start) / PAGE).min(BLOCK);
        let mut there = vec![false; usize::try_from(count).unwrap_or_default()];
        pages.look(self.hpa + start, &mut there);
        there
    }

    /// Of two pages near each other somebody came for one, and for the other too or not before the next look. Two
    /// that are visited at random, each with probability `by_chance`, would now and then seem together as well; where
    /// that is likely they tell nothing.
    pub fn pair(&mut self, together: bool, by_chance: f64) {
        if by_chance < TELLING {
            self.pairs = self.pairs * FADING + (1.0 - by_chance);
            self.together = self.together * FADING + f64::from(u8::from(together)) - by_chance;
            self.chance = self.chance * FADING + by_chance * (1.0 - by_chance);
            self.judge();
        }
    }

    /// Decides whether visits are walks, where there is enough to decide by; else what was decided last stays.
    fn judge(&mut self) {
        if self.pairs >= FEW {
            let chance = CHANCE * self.pairs + DEVIATIONS * self.chance.sqrt();
            self.walked = match self.together > chance {
                true => (self.together / self.pairs).min(1.0),
                false => 0.0,
            };
        }
    }

    /// Probability that somebody comes for a page by chance, too, no later than at the look after that at which a page close
    /// to it was found, between these ages. Pages that nobody comes for do not count: those that are busy lie together.
    pub fn by_chance(&self, from_ns: f64, to_ns: f64) -> f64 {
        1.0 - (1.0 - self.revisits.due(from_ns, to_ns)).powf(1.5)
    }

    /// So much time has passed, ns: what was seen before counts less.
    pub fn pass(&mut self, ns: f64) {
        let left = self.revisits.pass(ns);
        self.pairs *= left;
        self.together *= left;
        self.chance *= left;
        if self.pairs < FORGOTTEN {
            self.walked = 0.0;
        }
    }

    /// Share of visits that are part of a walk from page to page, 0 to 1.
    pub fn sequential(&self) -> f64 {
        self.walked
    }

    /// Lines that a visit touches: all of a page that is walked through, one of a page that is not.
    pub fn lines_per_visit(&self) -> f64 {
        1.0 + (LINES - 1.0) * self.sequential()
    }

    /// Lines of the pages that are there.
    pub fn footprint(&self) -> f64 {
        self.there as f64 * LINES
    }

    /// Lines that are accessed in a nanosecond, cached or not.
    pub fn lines_per_ns(&self) -> f64 {
        self.revisits.per_ns() * self.there as f64 * self.lines_per_visit()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Pages of which every third is there.
    struct Thirds(RefCell<Vec<u64>>);

    impl Pages for Thirds {
        fn take_away(&self, hpa: u64) {
            self.0.borrow_mut().push(hpa);
        }

        fn look(&self, hpa: u64, there: &mut [bool]) {
            for (page, there) in (hpa / PAGE..).zip(there) {
                *there = page.is_multiple_of(3);
            }
        }
    }

    fn scanned(pages: u64) -> (Area, Thirds) {
        let memory = Thirds(RefCell::default());
        let mut area = Area::new(0x30_0000, pages * PAGE, vec![0]);
        for block in 0..area.blocks() {
            area.scan(block, &memory);
        }
        (area, memory)
    }

    #[test]
    fn pages_are_counted_once_however_often_they_are_scanned() {
        let (mut area, memory) = scanned(1000);
        assert_eq!(area.resident(), 334 * PAGE);
        area.scan(0, &memory);
        assert_eq!(area.resident(), 334 * PAGE);
    }

    #[test]
    fn every_page_that_is_there_can_be_picked() {
        let (area, memory) = scanned(1000);
        let picked: Vec<u64> = (0..334).filter_map(|n| area.page(n, &memory)).collect();
        assert_eq!(picked.len(), 334);
        assert!(picked.iter().all(|hpa| (hpa / PAGE).is_multiple_of(3)));
        assert!(picked.is_sorted_by(|a, b| a < b));
        assert_eq!(area.page(334, &memory), None);
    }

    #[test]
    fn pages_that_are_visited_together_are_walked_through() {
        let mut area = Area::new(0, PAGE, vec![0]);
        assert_eq!(area.lines_per_visit(), 1.0);
        for _ in 0..100 {
            area.pair(true, 0.05);
        }
        assert!((area.sequential() - 1.0).abs() < 1e-9);
        assert_eq!(area.lines_per_visit().round(), 64.0);
    }

    #[test]
    fn what_was_walked_through_once_is_forgotten() {
        let mut area = Area::new(0, PAGE, vec![0]);
        for _ in 0..100 {
            area.pair(true, 0.05);
        }
        for _ in 0..100 {
            area.pair(true, 0.9);
        }
        area.pass(30e9);
        assert_eq!(area.sequential(), 0.0);
    }

    #[test]
    fn pages_that_meet_by_chance_are_not() {
        let mut area = Area::new(0, PAGE, vec![0]);
        for i in 0..400 {
            area.pair(i % 10 == 0, 0.1);
        }
        assert_eq!(area.sequential(), 0.0);
    }
}
