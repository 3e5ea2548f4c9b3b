//! How often pages are visited, from how long sampled ones had to wait for it.
//!
//! A page that is picked at a random moment waits for the rest of the interval between two visits, not
//! for a whole one. What that rest tells of the rate depends on how regular the visits are: a page
//! of a sweep waits half an interval in the mean, one that is visited at random a whole one. Both
//! are cases of intervals with a gamma distribution of shape `k`, for which the ratio of the rest's
//! second moment to its mean squared is `4(k+2) / 3(k+1)`: so the waits themselves tell `k`, and with
//! it the rate `(k+1) / (2k · mean wait)`.

/// Waits that it takes before their regularity is believed.
const BELIEVED: f64 = 8.0;
/// Share of waits cut short up to which the others are typical.
const CUT_SHORT: f64 = 0.25;
/// Bounds of the ratio of moments: close to k = ∞, and k = 1. Beyond that it tells of pages of
/// different heat or of a program that has moved on, not of the intervals of one page.
const RATIO: (f64, f64) = (1.34, 2.0);
/// A wait this many times the mean counts as so long.
const UNTYPICAL: f64 = 6.0;
/// A wait this many times the mean is not a wait: the page is idle.
const HOPELESS: f64 = 10.0;
/// Bounds of the time after which a page counts as idle, ns.
const PATIENCE: (f64, f64) = (5e7, 1e9);
/// Share of the counts that is left of them after an epoch: a memory of some twelve epochs.
const FADING: f64 = 0.92;

/// In which order pages are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One after another, again and again.
    Sweep,
    /// At random.
    Scattered,
    /// Either, or something between.
    Unknown,
}

/// What is known of the visits to the pages of one node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visits {
    /// Pages in memory.
    pub pages: u64,
    /// Pages that have appeared since the latest epoch.
    pub fresh: u64,
    /// Time for which pages were watched, each counted by itself.
    watched_ns: f64,
    waits: f64,
    waited_ns: f64,
    waited_squared: f64,
    cuts: f64,
    idle: f64,
}

impl Visits {
    /// A page was watched for this time, or for this further time. Kept apart from the waits, so
    /// that what a program did earlier fades even while a page is still being watched.
    pub fn watched(&mut self, ns: f64) {
        self.watched_ns += ns;
    }

    /// A page was visited after this time.
    pub fn visited(&mut self, after_ns: f64) {
        let typical = self.waited_ns / self.waits;
        // Whoever waited much longer did so for a program that was busy elsewhere.
        let after = if self.waits >= 3.0 {
            after_ns.min(UNTYPICAL * typical)
        } else {
            after_ns
        };
        self.waits += 1.0;
        self.waited_ns += after;
        self.waited_squared += after * after;
    }

    /// Watching a page had to end, for reasons of its own.
    pub fn cut_short(&mut self) {
        self.cuts += 1.0;
    }

    /// Nobody came to a page for as long as anybody would wait.
    pub fn never_came(&mut self) {
        self.idle += 1.0;
    }

    /// How long a page is worth waiting for, ns.
    pub fn patience_ns(&self) -> f64 {
        if self.waits < 1.0 {
            return PATIENCE.1;
        }
        (HOPELESS * self.waited_ns / self.waits).clamp(PATIENCE.0, PATIENCE.1)
    }

    /// Lets older observations count less.
    pub fn fade(&mut self) {
        let all = [
            &mut self.watched_ns,
            &mut self.waits,
            &mut self.waited_ns,
            &mut self.waited_squared,
            &mut self.cuts,
            &mut self.idle,
        ];
        for figure in all {
            *figure *= FADING;
        }
    }

    /// Visits to all pages in a nanosecond. Where their pattern is known from elsewhere there is no
    /// need to find their regularity from few waits.
    pub fn per_ns(&self, pattern: Pattern) -> f64 {
        if self.watched_ns <= 0.0 {
            return 0.0;
        }
        let regularity = match pattern {
            Pattern::Sweep => 0.5,
            Pattern::Scattered => 1.0,
            Pattern::Unknown => self.regularity(),
        };
        self.pages as f64 * self.waits / self.watched_ns * regularity
    }

    /// Pages that are visited at all.
    pub fn active_pages(&self) -> f64 {
        let seen = self.waits + self.idle;
        if seen > 0.0 {
            self.pages as f64 * self.waits / seen
        } else {
            0.0
        }
    }

    /// Rate over what it would be if visits came at random: 1/2 for a sweep.
    fn regularity(&self) -> f64 {
        if self.waits < BELIEVED || self.cuts > CUT_SHORT * self.waits {
            return 1.0;
        }
        let mean = self.waited_ns / self.waits;
        let ratio = (self.waited_squared / self.waits / (mean * mean)).clamp(RATIO.0, RATIO.1);
        let k = (8.0 - 3.0 * ratio) / (3.0 * ratio - 4.0);
        (k + 1.0) / (2.0 * k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits of 100 pages, seen through 1000 waits that spread evenly over their distribution.
    fn observed(wait: impl Fn(f64) -> f64) -> Visits {
        let mut visits = Visits {
            pages: 100,
            ..Visits::default()
        };
        for i in 0..1000 {
            let wait = wait((f64::from((i * 617) % 1000) + 0.5) / 1000.0);
            visits.watched(wait);
            visits.visited(wait);
        }
        visits
    }

    #[test]
    fn a_sweep_that_comes_by_every_millisecond_is_seen_as_that() {
        let visits = observed(|share| 1e6 * share);
        assert!(
            (visits.per_ns(Pattern::Unknown) / (100.0 / 1e6) - 1.0).abs() < 0.02,
            "{}",
            visits.per_ns(Pattern::Unknown)
        );
    }

    #[test]
    fn a_known_pattern_needs_no_regularity() {
        let sweep = observed(|share| 1e6 * share);
        assert!((sweep.per_ns(Pattern::Sweep) / (100.0 / 1e6) - 1.0).abs() < 0.01);
        let scattered = observed(|share| -1e6 * (1.0 - share).ln());
        assert!((scattered.per_ns(Pattern::Scattered) / (100.0 / 1e6) - 1.0).abs() < 0.01);
    }

    #[test]
    fn visits_at_random_once_a_millisecond_in_the_mean_are_seen_as_that() {
        let visits = observed(|share| -1e6 * (1.0 - share).ln());
        assert!(
            (visits.per_ns(Pattern::Unknown) / (100.0 / 1e6) - 1.0).abs() < 0.05,
            "{}",
            visits.per_ns(Pattern::Unknown)
        );
    }

    #[test]
    fn watching_that_is_cut_short_does_not_make_pages_look_busier() {
        let mut visits = observed(|share| -1e6 * (1.0 - share).ln());
        for _ in 0..1000 {
            visits.watched(1e6);
            visits.cut_short();
        }
        assert!((visits.per_ns(Pattern::Unknown) / (100.0 / 2e6) - 1.0).abs() < 0.02);
        assert_eq!(visits.active_pages(), 100.0);
    }

    #[test]
    fn pages_that_nobody_visits_do_not_count_as_active() {
        let mut visits = observed(|share| 1e6 * share);
        for _ in 0..3000 {
            visits.never_came();
        }
        assert_eq!(visits.active_pages(), 25.0);
    }

    #[test]
    fn a_page_is_given_up_when_others_would_have_been_visited_ten_times() {
        let visits = observed(|_| 2e7);
        assert!((visits.patience_ns() / 2e8 - 1.0).abs() < 1e-9);
        assert_eq!(Visits::default().patience_ns(), PATIENCE.1);
    }

    #[test]
    fn nothing_seen_is_no_visits() {
        assert_eq!(
            Visits {
                pages: 9,
                ..Visits::default()
            }
            .per_ns(Pattern::Unknown),
            0.0
        );
    }
}
