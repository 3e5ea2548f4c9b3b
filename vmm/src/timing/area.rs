//! A range of CXL memory in the guest's address space: which of its pages are there, and how often they are visited.

use memsim::law::LINE;
use memsim::revisits::Revisits;

use super::walks::Walks;
use crate::kvm::{PAGE, Pages};

/// Pages of a block: what one look counts.
const BLOCK: u64 = 512;
/// Lines of a page.
const LINES: f64 = PAGE as f64 / LINE;

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
    /// Whether it is walked through.
    pub walks: Walks,
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
            walks: Walks::default(),
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

    /// Probability that somebody comes for a page by chance, too, no later than at the look after that at which a page close
    /// to it was found, between these ages. Pages that nobody comes for do not count: those that are busy lie together.
    pub fn by_chance(&self, from_ns: f64, to_ns: f64) -> f64 {
        1.0 - (1.0 - self.revisits.due(from_ns, to_ns)).powf(1.5)
    }

    /// So much time has passed, ns: what was seen before counts less.
    pub fn pass(&mut self, ns: f64) {
        self.revisits.pass(ns);
        self.walks.pass(ns);
    }

    /// Lines that a visit touches: all of a page that is walked through, one of a page that is not.
    pub fn lines_per_visit(&self) -> f64 {
        1.0 + (LINES - 1.0) * self.walks.share()
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
    fn a_visit_of_a_walk_is_all_lines_of_a_page_and_another_is_one() {
        let mut area = Area::new(0, PAGE, vec![0]);
        assert_eq!(area.lines_per_visit().round(), 1.0);
        for _ in 0..100 {
            area.walks.pair(true, 0.05);
        }
        assert!((0.9 * 64.0..=64.0).contains(&area.lines_per_visit()));
        area.pass(30e9);
        assert_eq!(area.lines_per_visit().round(), 1.0);
    }
}
