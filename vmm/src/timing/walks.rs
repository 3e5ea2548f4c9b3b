//! Whether a program walks from page to page or jumps about, as told by pairs of pages that lie close together.
//!
//! The share of visits that belong to a walk is one of eleven, 0 to 1. Each pair that ends makes those likelier that
//! foretold how it ended, by Bayes' rule; and between pairs the program may have become another, of which nothing is
//! known but that walks have to be shown. A visit of a walk counts as 64 of another, so doubt is resolved towards the
//! fewer: the evidence has to be a thousand times likelier with a walk than without before one is believed in, and where
//! evidence ends, so does the belief, after some seconds.

/// Shares that are told apart, from none of the visits to all of them.
const SHARES: usize = 11;
/// How likely it is, before anything is seen, that a program walks at all.
const WALKS: f64 = 1e-3;
/// Probability that a program has become another by the next pair, and the time in which two of three have, ns.
const CHANGED: f64 = 0.01;
const MEMORY: f64 = 3e9;
/// Probability that the second page of a walk is late all the same.
const LATE: f64 = 0.05;
/// What is added to the probability of a chance meeting that is below one: it is an estimate, and pages that are busy
/// lie together.
const CHANCE: f64 = 0.15;
/// Probability of a chance meeting below which a pair tells something.
const TELLING: f64 = 0.3;

/// What is believed of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Walks {
    /// Probability of each share.
    shares: [f64; SHARES],
}

impl Default for Walks {
    fn default() -> Self {
        Self { shares: PRIOR }
    }
}

/// What is believed before anything is seen.
const PRIOR: [f64; SHARES] = {
    let mut prior = [WALKS / (SHARES - 1) as f64; SHARES];
    prior[0] = 1.0 - WALKS;
    prior
};

impl Walks {
    /// Of two pages near each other somebody came for one, and for the other too or not before the look after the next.
    /// Two that are visited at random would seem together as well with probability `by_chance`; where that is likely they
    /// tell nothing.
    pub fn pair(&mut self, together: bool, by_chance: f64) {
        if !(0.0..TELLING).contains(&by_chance) {
            return;
        }
        self.forget(CHANGED);
        let by_chance = by_chance + CHANCE * (1.0 - by_chance);
        for (number, share) in self.shares.iter_mut().enumerate() {
            let walked = number as f64 / (SHARES - 1) as f64;
            let meets = walked * (1.0 - LATE) + (1.0 - walked) * by_chance;
            *share *= if together { meets } else { 1.0 - meets };
        }
        let all: f64 = self.shares.iter().sum();
        for share in &mut self.shares {
            *share /= all;
        }
    }

    /// So much time has passed, ns.
    pub fn pass(&mut self, ns: f64) {
        self.forget(1.0 - (-ns.max(0.0) / MEMORY).exp());
    }

    /// With this probability it is another program now.
    fn forget(&mut self, changed: f64) {
        for (share, prior) in self.shares.iter_mut().zip(PRIOR) {
            *share += changed * (prior - *share);
        }
    }

    /// Share of visits that are part of a walk, 0 to 1.
    pub fn share(&self) -> f64 {
        let shares = self.shares.iter().enumerate();
        let sum: f64 = shares.map(|(number, share)| number as f64 * share).sum();
        (sum / (SHARES - 1) as f64).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: f64 = 64.0;

    fn lines(walks: &Walks) -> f64 {
        1.0 + (LINES - 1.0) * walks.share()
    }

    /// Pairs of a program of whose visits this share is a walk, spread evenly, with meetings by chance that are `by_chance`
    /// often and said to be `said`.
    fn pairs(walks: &mut Walks, count: u32, walked: f64, by_chance: f64, said: f64) {
        let meets = walked * (1.0 - LATE) + (1.0 - walked) * by_chance;
        for i in 0..count {
            let golden = (f64::from(i) * 0.618_033_988_749_895).fract();
            walks.pair(golden < meets, said);
        }
    }

    fn seen(count: u32, walked: f64, by_chance: f64, said: f64) -> Walks {
        let mut walks = Walks::default();
        pairs(&mut walks, count, walked, by_chance, said);
        walks
    }

    #[test]
    fn before_anything_is_seen_a_visit_is_a_line() {
        assert!(lines(&Walks::default()) < 1.1);
    }

    #[test]
    fn a_walk_is_known_after_a_dozen_pairs() {
        assert!(seen(12, 1.0, 0.1, 0.1).share() > 0.8);
        assert!(seen(50, 1.0, 0.1, 0.1).share() > 0.9);
    }

    #[test]
    fn a_walk_is_not_believed_in_for_a_pair_or_two() {
        for pairs in [1, 2, 3] {
            assert!(lines(&seen(pairs, 1.0, 0.1, 0.1)) < 3.0, "{pairs}");
        }
    }

    #[test]
    fn a_chase_is_a_line_a_visit_however_many_pairs_meet_by_chance() {
        for by_chance in [0.0, 0.1, 0.2, 0.29] {
            for pairs in [1, 5, 20, 100, 1000] {
                let walks = seen(pairs, 0.0, by_chance, by_chance);
                assert!(
                    lines(&walks) < 1.5,
                    "{by_chance} {pairs}: {}",
                    lines(&walks)
                );
            }
        }
    }

    #[test]
    fn a_chase_beside_other_load_whose_pairs_meet_more_often_than_foretold_is_no_walk() {
        let walks = seen(1000, 0.0, 0.25, 0.1);
        assert!(lines(&walks) < 2.0, "{}", lines(&walks));
    }

    #[test]
    fn pairs_that_meet_by_chance_anyway_tell_nothing() {
        let mut walks = Walks::default();
        for by_chance in [TELLING, 0.9, 1.0, f64::NAN] {
            walks.pair(true, by_chance);
        }
        assert_eq!(walks, Walks::default());
    }

    #[test]
    fn of_a_mixture_the_part_is_seen_that_walks_and_rather_less_than_more() {
        for walked in [0.4, 0.6, 0.8] {
            let share = seen(500, walked, 0.1, 0.1).share();
            assert!(
                (walked - 0.2..walked + 0.05).contains(&share),
                "{walked}: {share}"
            );
        }
    }

    #[test]
    fn a_walk_that_has_become_a_chase_is_one_after_a_few_pairs() {
        let mut walks = seen(100, 1.0, 0.1, 0.1);
        pairs(&mut walks, 10, 0.0, 0.1, 0.1);
        assert!(lines(&walks) < 3.0, "{}", lines(&walks));
    }

    #[test]
    fn a_chase_that_has_become_a_walk_is_one_after_a_dozen_pairs() {
        let mut walks = seen(100, 0.0, 0.1, 0.1);
        pairs(&mut walks, 14, 1.0, 0.1, 0.1);
        assert!(walks.share() > 0.8, "{}", walks.share());
    }

    #[test]
    fn few_pairs_are_enough_if_they_go_on_coming() {
        // Two pairs a second, as where looking is slow.
        let mut walks = Walks::default();
        for _ in 0..40 {
            walks.pass(0.5e9);
            walks.pair(true, 0.1);
        }
        assert!(walks.share() > 0.8, "{}", walks.share());
        for _ in 0..4 {
            walks.pass(0.5e9);
            walks.pair(false, 0.1);
        }
        assert!(lines(&walks) < 3.0, "{}", lines(&walks));
    }

    #[test]
    fn a_belief_ends_some_seconds_after_its_evidence() {
        let mut walks = seen(100, 1.0, 0.1, 0.1);
        walks.pass(0.3e9);
        assert!(walks.share() > 0.8);
        walks.pass(20e9);
        assert!(lines(&walks) < 1.2, "{}", lines(&walks));
    }

    #[test]
    fn one_pair_never_multiplies_the_lines_by_more_than_seven() {
        let mut walks = Walks::default();
        let mut before = lines(&walks);
        for _ in 0..100 {
            walks.pair(true, 0.0);
            assert!(lines(&walks) < 7.0 * before, "{before} {}", lines(&walks));
            before = lines(&walks);
        }
    }
}
