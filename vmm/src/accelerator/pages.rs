//! Sets of pages.

use std::ops::Range;

const BITS: u64 = u64::BITS as u64;

/// Some of the first so many pages, a bit each.
#[derive(Debug)]
pub struct PageSet(Vec<u64>);

impl PageSet {
    /// None of `count` pages.
    pub fn new(count: u64) -> Self {
        let words = usize::try_from(count.div_ceil(BITS)).unwrap_or_default();
        Self(vec![0; words])
    }

    pub fn contains(&self, page: u64) -> bool {
        self.word(page / BITS) & 1 << (page % BITS) != 0
    }

    /// Takes a page in, or out; one beyond the last is in no set.
    pub fn set(&mut self, page: u64, is_in: bool) {
        let word = usize::try_from(page / BITS).ok();
        if let Some(word) = word.and_then(|word| self.0.get_mut(word)) {
            let bit = 1 << (page % BITS);
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    /// Those of a range that are not in it.
    pub fn others(&self, pages: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        let words = pages.start / BITS..pages.end.div_ceil(BITS);
        words.flat_map(move |word| {
            let first = word * BITS;
            let from = pages.start.saturating_sub(first);
            let to = (pages.end - first).min(BITS);
            let in_range = (u64::MAX << from) & (u64::MAX >> (BITS - to));
            let mut others = !self.word(word) & in_range;
            std::iter::from_fn(move || {
                let bit = (others != 0).then(|| u64::from(others.trailing_zeros()))?;
                others &= others - 1;
                Some(first + bit)
            })
        })
    }

    fn word(&self, index: u64) -> u64 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// Pages in ascending order, as ranges.
pub fn coalesced(pages: &[u64]) -> impl Iterator<Item = Range<u64>> + '_ {
    let runs = pages.chunk_by(|a, b| a + 1 == *b);
    runs.filter_map(|run| Some(*run.first()?..run.last()? + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_not_in_it_are_found_across_words() {
        let mut set = PageSet::new(200);
        for page in (0..200).filter(|page| page % 3 != 0) {
            set.set(page, true);
        }
        for range in [0..200, 1..64, 63..65, 64..128, 100..101, 130..199] {
            let expected: Vec<u64> = range.clone().filter(|page| page % 3 == 0).collect();
            assert_eq!(set.others(range).collect::<Vec<_>>(), expected);
        }
        assert_eq!(set.others(60..60).count(), 0);
        set.set(1, false);
        set.set(u64::MAX, true);
        assert!(!set.contains(1) && set.contains(2) && !set.contains(u64::MAX));
    }

    #[test]
    fn neighbours_are_one_range() {
        let ranges = |pages: &[u64]| coalesced(pages).collect::<Vec<_>>();
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
        assert_eq!(ranges(&[]), []);
    }
}
