//! How often pages are visited, from how soon somebody comes for sampled ones.
//!
//! A page is taken away at a random moment and looked at again later. What it waits for is the rest
//! of an interval between two visits. However intervals are distributed, and however pages differ,
//! the density of that rest at zero is the mean rate of visits: a page visited every `T` waits
//! anything from 0 to `T`, one visited at random waits exponentially, and both have density `1/T`
//! at zero. So the rate is the number of visits to pages that have been away for a short time, over
//! the time for which such pages were watched. The shortest time that has seen enough visits is the
//! best: older pages are those that nobody wants.

/// Age up to which pages count as just taken, ns. Further classes of age double it.
const YOUNGEST: f64 = 50_000.0;
/// Classes of age; the last one is of any age.
const AGES: usize = 13;
/// Visits that a rate is made of.
const ENOUGH: f64 = 60.0;
/// Visits to a page between two looks up to which their number is told from that of the pages that were not visited.
const MOST_EXPECTED: f64 = 4.0;
/// Standard deviations that the visits to pages of one age may be away from those to younger ones and count as alike.
const UNLIKELY: f64 = 2.0;
/// Visits whose median age says something, and how many times that age is watched.
const SOME: f64 = 2.0;
const UNSURE: f64 = 4.0;
/// What a page's end leaves of the counts before it: a memory of some 600 pages.
const FADING: f64 = 1.0 - 1.0 / 600.0;
/// Time in which counts fall to a third, ns, and how much slower that goes at most where there are few.
const MEMORY: f64 = 0.3e9;
const LEAST: f64 = 0.1;

/// Visits and watched time by the age of the absence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Revisits {
    visits: [f64; AGES],
    watched_ns: [f64; AGES],
}

/// Class of an age, ns.
fn class(age_ns: f64) -> usize {
    let doublings = (age_ns / YOUNGEST).max(1.0).log2();
    (doublings as usize).min(AGES - 1)
}

impl Revisits {
    /// Age at which the class of `age_ns` ends, ns: when it is worth looking again.
    pub fn next_look(age_ns: f64) -> f64 {
        let mut end = YOUNGEST;
        while end <= age_ns {
            end *= 2.0;
        }
        end
    }

    /// A page that was away at age `from_ns` was looked at again at `to_ns`, and somebody had come
    /// for it or not.
    pub fn looked(&mut self, from_ns: f64, to_ns: f64, visited: bool) {
        let length = (to_ns - from_ns).max(0.0);
        let class = class(0.5 * (from_ns + to_ns));
        if visited {
            self.visits[class] += 1.0;
            self.watched_ns[class] += self.until_visit(class, length);
        } else {
            self.watched_ns[class] += length;
        }
    }

    /// For how long a page was watched that was visited somewhere in an interval of so many ns, in the mean: half of it
    /// where visits are rare, less where somebody would have come for most pages long before the end. From then on
    /// nobody watched.
    fn until_visit(&self, class: usize, length: f64) -> f64 {
        let watched = self.watched_ns[class];
        let rate = if watched > 0.0 {
            self.visits[class] / watched
        } else {
            0.0
        };
        let expected = (rate * length).min(MOST_EXPECTED);
        // The closed form cancels itself out for the smallest.
        if expected < 1e-3 {
            0.5 * length
        } else {
            length * (1.0 / expected - 1.0 / expected.exp_m1())
        }
    }

    /// Watching a page has ended, for one reason or another: what was seen before counts less.
    pub fn fade(&mut self) {
        for figure in self.visits.iter_mut().chain(&mut self.watched_ns) {
            *figure *= FADING;
        }
    }

    /// So much time has passed: a program that has moved on is forgotten even where few pages are watched. Returns what
    /// is left of counts, 0 to 1: more of them where there are few, since what was seen before is better than nothing.
    pub fn pass(&mut self, ns: f64) -> f64 {
        let visits = self.visits.iter().sum::<f64>();
        // That nobody came is no reason to remember it for longer.
        let speed = if visits < SOME {
            1.0
        } else {
            (visits / ENOUGH).clamp(LEAST, 1.0)
        };
        let left = (-ns.max(0.0) * speed / MEMORY).exp();
        for figure in self.visits.iter_mut().chain(&mut self.watched_ns) {
            *figure *= left;
        }
        left
    }

    /// Visits to a page, of all the mean, in a nanosecond.
    pub fn per_ns(&self) -> f64 {
        let (visits, watched) = self.young();
        if watched <= 0.0 {
            return 0.0;
        }
        let share = visits / self.visits.iter().sum::<f64>();
        // Where these are a good part of all, those that had their visit are missing among the watched. None do if waits are
        // spread evenly, and -ln(1 - share) had theirs if visits come at random: what lies between is off by a tenth. And
        // where these are all, visits do come at random.
        let whole = share > 1.0 - 1e-9;
        let share = share.min(0.5);
        let missing = if visits < ENOUGH && share > 0.0 && !whole {
            0.5 * (1.0 - (1.0 - share).ln() / share)
        } else {
            1.0
        };
        missing * visits / watched
    }

    /// Of the pages that are visited at age `from_ns` or later at all, the share that is by `to_ns`, 0 to 1.
    pub fn due(&self, from_ns: f64, to_ns: f64) -> f64 {
        let class = class(0.5 * (from_ns + to_ns));
        let later: f64 = self.visits[class..].iter().sum();
        let width = if class == 0 {
            2.0 * YOUNGEST
        } else {
            YOUNGEST * f64::from(1 << class)
        };
        if later > 0.0 {
            (self.visits[class] / later * (to_ns - from_ns) / width).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }

    /// Relative standard deviation of [`Self::per_ns`]; 1 when nothing was seen.
    pub fn error(&self) -> f64 {
        1.0 / self.young().0.max(1.0).sqrt()
    }

    /// Age up to which pages are worth watching, ns. That is four times what a rate needs: who stops as soon
    /// as there is enough has stopped at a lucky moment, and does not know how many come later. Where there is not enough it is longer still, or
    /// each age would be given up before it had its visits.
    pub fn patience_ns(&self) -> f64 {
        let longest = YOUNGEST * f64::from(1 << (AGES - 1));
        let half = 0.5 * self.visits.iter().sum::<f64>();
        let mut visits = 0.0;
        let mut age = YOUNGEST;
        for seen in &self.visits[..AGES - 1] {
            visits += seen;
            age *= 2.0;
            if visits >= ENOUGH {
                return (2.0 * age).min(longest);
            }
            if half >= SOME && visits >= half {
                return (UNSURE * age).min(longest);
            }
        }
        longest
    }

    /// Visits and watched time of the youngest classes that have enough visits, or a quarter of them where there are few, and
    /// of those behind them as long as they are visited as often, as far as that can be told: at random, no page is the
    /// worse for its age, and who stops where there happens to be enough counts too many. Behind that there are mostly
    /// those pages left that nobody comes for.
    fn young(&self) -> (f64, f64) {
        let enough = ENOUGH.min(0.25 * self.visits.iter().sum::<f64>());
        let (mut visits, mut watched) = (0.0, 0.0);
        for (&seen, &time) in self.visits.iter().zip(&self.watched_ns) {
            if visits >= enough && visits > 0.0 {
                let expected = visits / watched * time;
                if (seen - expected).abs() > UNLIKELY * expected.max(seen).max(1.0).sqrt() {
                    break;
                }
            }
            visits += seen;
            watched += time;
        }
        (visits, watched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: f64 = 10e6;

    /// 4000 pages, each looked at as the ages say until it is found or given up; `wait` maps an even
    /// spread over 0 to 1 to the wait of a page.
    fn sampled(wait: impl Fn(f64) -> f64) -> Revisits {
        let mut revisits = Revisits::default();
        for i in 0..4000 {
            let wait = wait((f64::from((i * 617) % 4000) + 0.5) / 4000.0);
            let mut from = 0.0;
            loop {
                let to = Revisits::next_look(from);
                revisits.looked(from, to, wait <= to);
                if wait <= to || to >= revisits.patience_ns() {
                    break;
                }
                from = to;
            }
            revisits.fade();
        }
        revisits
    }

    #[track_caller]
    fn assert_rate(revisits: &Revisits, wanted: f64) {
        let ratio = revisits.per_ns() / wanted;
        assert!((0.8..1.25).contains(&ratio), "{ratio}: {revisits:?}");
    }

    #[test]
    fn a_sweep_is_seen_at_its_rate() {
        assert_rate(&sampled(|share| INTERVAL * share), 1.0 / INTERVAL);
    }

    #[test]
    fn visits_at_random_are_seen_at_their_rate() {
        assert_rate(
            &sampled(|share| -INTERVAL * (1.0 - share).ln()),
            1.0 / INTERVAL,
        );
    }

    #[test]
    fn looks_that_come_late_see_visits_at_random_at_their_rate() {
        for late in [0.5, 1.0, 2.0, 3.0] {
            let mut revisits = Revisits::default();
            for i in 0..4000 {
                let share = (f64::from((i * 617) % 4000) + 0.5) / 4000.0;
                let wait = -INTERVAL * (1.0 - share).ln();
                revisits.looked(0.0, late * INTERVAL, wait <= late * INTERVAL);
                revisits.fade();
            }
            assert_rate(&revisits, 1.0 / INTERVAL);
        }
    }

    #[test]
    fn few_visits_at_random_are_seen_at_their_rate_in_the_mean() {
        let (mut sum, rounds) = (0.0, 200);
        for round in 0..rounds {
            let mut revisits = Revisits::default();
            for i in 0..80 {
                let golden = f64::from(80 * round + i) * 0.618_033_988_749_895;
                let wait = -INTERVAL * (1.0 - golden.fract()).ln();
                let mut from = 0.0;
                loop {
                    let to = Revisits::next_look(from);
                    revisits.looked(from, to, wait <= to);
                    if wait <= to || to >= revisits.patience_ns() {
                        break;
                    }
                    from = to;
                }
                revisits.fade();
            }
            sum += revisits.per_ns() * INTERVAL;
        }
        let mean = sum / f64::from(rounds);
        assert!((0.93..1.07).contains(&mean), "{mean}");
    }

    #[test]
    fn of_pages_that_are_all_back_at_a_late_look_no_more_is_known_than_that() {
        let mut revisits = Revisits::default();
        for _ in 0..4000 {
            revisits.looked(0.0, INTERVAL, true);
            revisits.fade();
        }
        let visits = revisits.per_ns() * INTERVAL;
        assert!((2.0..6.0).contains(&visits), "{visits}");
    }

    #[test]
    fn idle_pages_among_busy_ones_thin_the_rate_and_do_not_hide_it() {
        let busy = 0.25;
        let wait = |share: f64| {
            if share < busy {
                INTERVAL * share / busy
            } else {
                f64::INFINITY
            }
        };
        assert_rate(&sampled(wait), busy / INTERVAL);
    }

    #[test]
    fn a_page_of_a_busy_set_is_not_watched_for_long() {
        assert!(sampled(|share| INTERVAL * share).patience_ns() < INTERVAL / 2.0);
        let longest = YOUNGEST * f64::from(1 << (AGES - 1));
        assert_eq!(Revisits::default().patience_ns(), longest);
    }

    #[test]
    fn a_program_that_has_moved_on_is_forgotten() {
        let mut revisits = sampled(|share| INTERVAL * share);
        let rate = revisits.per_ns();
        revisits.pass(1.5e9);
        assert!(
            (revisits.per_ns() / rate - 1.0).abs() < 0.2,
            "nothing else was seen"
        );
        for _ in 0..60 {
            let mut from = 0.0;
            while from < INTERVAL {
                let to = Revisits::next_look(from);
                revisits.looked(from, to, false);
                from = to;
            }
        }
        assert!(revisits.per_ns() < 0.1 * rate);
    }

    #[test]
    fn nothing_seen_is_no_visits() {
        assert_eq!(Revisits::default().per_ns(), 0.0);
        assert_eq!(Revisits::default().error(), 1.0);
    }

    #[test]
    fn looks_are_due_when_a_class_of_age_ends() {
        let mut age = 0.0;
        for expected in [50_000.0, 100_000.0, 200_000.0] {
            age = Revisits::next_look(age);
            assert_eq!(age, expected);
        }
        assert_eq!(Revisits::next_look(60_000.0), 100_000.0);
    }
}
