//! Fits a device profile to a table of loaded latencies.
//!
//! Two steps, each with one best answer, so that the same table always gives the same profile:
//!
//! 1. **Capacities from peaks.** `1/peak(r)` is the larger of two straight lines in the read share
//!    `r`, one for each direction of the link: `(r + g(1−r))/Cs` and `((1−r) + h·r)/Cm`. Every way to
//!    split the peaks, sorted by `r`, into those that M2S limits and those that S2M limits is tried,
//!    and the two lines are fitted by least squares on relative error.
//! 2. **Waits from the rising parts.** With the loads known, latency is linear in the idle latency
//!    and the waiting factors. Non-negative least squares on relative error, for each media
//!    capacity of a fine grid; the best grid point wins.
//!
//! A table with peaks of one kind only cannot tell a header's share: it is carried over from the
//! shipped `mess-cxl` profile, and with it the waits that need a second mix.

use crate::curve::{Curve, Point};
use crate::error::Error;
use crate::law::{DeviceLaw, LINE, LinkLaw, MediaLaw};
use crate::profile::Profile;

/// The peaks are the link's, so the media is wider than the mix that the link carries most of. That it
/// is at least this much wider is a prior: any nearer, its queue would show before the link's.
const MEDIA_FLOOR: f64 = 1.15;

/// Columns of the linear system of step 2: idle, S2M wait, M2S wait, M2S slope, media wait.
const TERMS: usize = 5;

/// What a fit gives, with how well it explains the table that it came from.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The constants.
    pub law: DeviceLaw,
    /// Error of peak bandwidth over the table's curves.
    pub peaks: Errors,
    /// Error of latency over the points below the peaks.
    pub latencies: Errors,
}

/// Relative errors, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Errors {
    /// Mean of the absolute values.
    pub mean: f64,
    /// Largest absolute value.
    pub worst: f64,
    /// How many there are.
    pub count: usize,
}

impl Errors {
    /// Collects pairs of (model, measured).
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut errors = Self::default();
        let mut sum = 0.0;
        for (model, measured) in pairs {
            let error = (model / measured - 1.0).abs();
            sum += error;
            errors.worst = errors.worst.max(error);
            errors.count += 1;
        }
        if errors.count > 0 {
            errors.mean = sum / errors.count as f64;
        }
        errors
    }
}

/// Fits a law to curves.
///
/// # Errors
/// [`Error::Fit`] when no curve has a point below its peak.
pub fn fit(curves: &[Curve]) -> Result<Fit, Error> {
    if curves.iter().all(|curve| curve.rising.is_empty()) {
        return Err(Error::Fit(
            "the table has no read share with two different bandwidths; latency cannot be told from load".into(),
        ));
    }
    let mut peaks: Vec<(f64, f64)> = curves
        .iter()
        .map(|curve| (curve.read_share, curve.peak.bandwidth))
        .collect();
    peaks.sort_by(|a, b| a.0.total_cmp(&b.0));

    let carried = Profile::named("mess-cxl")?.law();
    let link = capacities(&peaks, carried.link);
    let rising: Vec<Point> = curves
        .iter()
        .flat_map(|curve| curve.rising.iter().copied())
        .collect();
    let mut law = waits(curves, &peaks, DeviceLaw { link, ..carried });
    law.outstanding_lines = outstanding(curves, &law.link).unwrap_or(carried.outstanding_lines);
    law.link.posted_wait = posted_wait(curves, &law).unwrap_or(carried.link.posted_wait);
    Ok(Fit {
        law,
        peaks: Errors::of(peaks.iter().map(|&(share, peak)| (law.peak(share), peak))),
        latencies: Errors::of(rising.iter().map(|point| {
            (
                law.latency(point.bandwidth, point.read_share),
                point.latency,
            )
        })),
    })
}

/// Step 1: capacities and header shares from (read share, peak) pairs sorted by read share.
fn capacities(peaks: &[(f64, f64)], carried: LinkLaw) -> LinkLaw {
    let error = |link: &LinkLaw| -> f64 {
        peaks
            .iter()
            .map(|&(share, peak)| (link.peak(share) / peak - 1.0).powi(2))
            .sum()
    };
    (0..=peaks.len())
        .map(|split| {
            let (by_m2s, by_s2m) = peaks.split_at(split);
            // The data is 1 and the header a part of it, so each line is given by its two ends.
            let s2m = direction(by_s2m, |share| share, carried.completion_share);
            let m2s = direction(by_m2s, |share| 1.0 - share, carried.request_share);
            // A direction that no peak shows is as wide as the other.
            let (s2m, m2s) = match (s2m, m2s) {
                (Some(s2m), Some(m2s)) => (s2m, m2s),
                (Some(s2m), None) => (s2m, (s2m.0, carried.request_share)),
                (None, Some(m2s)) => ((m2s.0, carried.completion_share), m2s),
                (None, None) => return carried,
            };
            LinkLaw {
                s2m: s2m.0,
                completion_share: s2m.1,
                m2s: m2s.0,
                request_share: m2s.1,
                ..carried
            }
        })
        .min_by(|a, b| error(a).total_cmp(&error(b)))
        .unwrap_or(carried)
}

/// Capacity and header share of one direction from the peaks that it limits: least squares of
/// `peak · (data + header·(1 − data)) / C = 1`. One mix alone leaves the header share as carried.
fn direction(peaks: &[(f64, f64)], data: impl Fn(f64) -> f64, carried: f64) -> Option<(f64, f64)> {
    let rows: Vec<[f64; 2]> = peaks
        .iter()
        .map(|&(share, peak)| [peak * data(share), peak * (1.0 - data(share))])
        .collect();
    if rows.len() >= 2
        && let Some([inverse, header]) = Normal::of(&rows).solve(ALL)
        && inverse > 0.0
        && (0.0..=inverse).contains(&header)
    {
        return Some((1.0 / inverse, header / inverse));
    }
    let sizes: Vec<f64> = rows.iter().map(|row| row[0] + carried * row[1]).collect();
    let square: f64 = sizes.iter().map(|size| size * size).sum();
    let sum: f64 = sizes.iter().sum();
    (sum > 0.0).then_some((square / sum, carried))
}

/// Step 2: idle latency and waiting factors, for the best media capacity of a grid.
fn waits(curves: &[Curve], peaks: &[(f64, f64)], law: DeviceLaw) -> DeviceLaw {
    // One mix cannot tell three servers apart: one queue, that of the media, and the line.
    let single = peaks.iter().all(|peak| peak.0 == peaks[0].0);
    let (floor, step) = if single {
        (1.002, 0.0025)
    } else {
        (MEDIA_FLOOR, 0.01)
    };
    let most = floor * most_carried(peaks, &law.link);
    let candidates = (0..200).filter_map(|i| {
        let media = most * (1.0 + step * f64::from(i));
        let rows: Vec<[f64; TERMS]> = curves
            .iter()
            .flat_map(|curve| {
                curve
                    .rising
                    .iter()
                    .map(|point| terms(point, curve, &law.link, media))
            })
            .map(|row| {
                if single {
                    [row[0], 0.0, 0.0, row[3], row[4]]
                } else {
                    row
                }
            })
            .collect();
        non_negative(&rows).map(|(error, x)| (error, media, x))
    });
    let Some((_, media, x)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else {
        return law;
    };
    let mut found = law;
    found.idle_ns = x[0];
    found.link.s2m_wait = x[1];
    found.link.m2s_wait = x[2];
    found.link.m2s_slope = x[3];
    found.media = MediaLaw {
        bandwidth: media,
        wait: x[4],
    };
    found
}

/// Most that the link carries of any mix: by its law where there are peaks of both directions, else of those mixes whose
/// peaks are known.
fn most_carried(peaks: &[(f64, f64)], link: &LinkLaw) -> f64 {
    let by_s2m = peaks
        .iter()
        .filter(|peak| limited_by_s2m(link, peak.0))
        .count();
    if (1..peaks.len()).contains(&by_s2m) {
        link.peak(link.widest_mix())
    } else {
        peaks.iter().map(|peak| peak.1).fold(0.0, f64::max)
    }
}

/// One row of the linear system, divided by the measured latency.
///
/// Close to its peak a curve is all about how close: half a percent of capacity is a third of the
/// wait. So loads count against the peak that this curve reached, not the one that the law gives it.
fn terms(point: &Point, curve: &Curve, link: &LinkLaw, media: f64) -> [f64; TERMS] {
    let queue = |load: f64| load.min(0.9999) / (1.0 - load.min(0.9999));
    let reached = point.bandwidth * link.peak(curve.read_share) / curve.peak.bandwidth;
    let (s2m, m2s) = link.load(
        reached * point.read_share,
        reached * (1.0 - point.read_share),
    );
    [
        1.0,
        queue(s2m),
        queue(m2s),
        m2s,
        queue(point.bandwidth / media),
    ]
    .map(|term| term / point.latency)
}

/// Non-negative least squares against ones, by trying every set of terms that may be zero; there
/// are only sixteen. Returns the square error and the solution.
fn non_negative(rows: &[[f64; TERMS]]) -> Option<(f64, [f64; TERMS])> {
    let normal = Normal::of(rows);
    (1u32..1 << TERMS)
        .filter(|kept| kept & 1 == 1)
        .filter_map(|kept| normal.solve(kept))
        .filter(|x| x.iter().all(|&value| value >= 0.0))
        .map(|x| (normal.square_error(&x), x))
        .min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Every column of a system.
const ALL: u32 = u32::MAX;

/// Least squares against ones, as normal equations.
struct Normal<const N: usize> {
    matrix: [[f64; N]; N],
    vector: [f64; N],
    rows: f64,
}

impl<const N: usize> Normal<N> {
    fn of(rows: &[[f64; N]]) -> Self {
        let mut normal = Self {
            matrix: [[0.0; N]; N],
            vector: [0.0; N],
            rows: rows.len() as f64,
        };
        for row in rows {
            for i in 0..N {
                normal.vector[i] += row[i];
                for j in 0..N {
                    normal.matrix[i][j] += row[i] * row[j];
                }
            }
        }
        normal
    }

    /// The solution that has only the columns in `kept`, a bit for each; the others, and those of zeros, get a zero.
    /// `None` when columns depend on each other.
    fn solve(&self, kept: u32) -> Option<[f64; N]> {
        let used: [bool; N] =
            std::array::from_fn(|i| kept >> i & 1 == 1 && self.matrix[i][i] > 0.0);
        let (mut matrix, mut vector) = (self.matrix, self.vector);
        for column in (0..N).filter(|&column| used[column]) {
            let pivot = matrix[column][column];
            // What is left of a column after elimination, against what it was: dependent on others?
            if pivot <= 1e-10 * self.matrix[column][column] {
                return None;
            }
            for other in (0..N).filter(|&other| other != column && used[other]) {
                let factor = matrix[other][column] / pivot;
                let source = matrix[column];
                for (value, from) in matrix[other].iter_mut().zip(source) {
                    *value -= factor * from;
                }
                vector[other] -= factor * vector[column];
            }
        }
        Some(std::array::from_fn(|i| {
            if used[i] {
                vector[i] / matrix[i][i]
            } else {
                0.0
            }
        }))
    }

    /// Sum of the squares of what a solution is off.
    fn square_error(&self, x: &[f64; N]) -> f64 {
        let mut error = self.rows;
        for i in 0..N {
            error -= 2.0 * x[i] * self.vector[i];
            for j in 0..N {
                error += x[i] * x[j] * self.matrix[i][j];
            }
        }
        error
    }
}

/// Lines under way at the plateaus that S2M causes, by Little's law.
fn outstanding(curves: &[Curve], link: &LinkLaw) -> Option<f64> {
    let lines: Vec<f64> = curves
        .iter()
        .filter(|curve| limited_by_s2m(link, curve.read_share))
        .map(|curve| curve.peak.latency * curve.peak.bandwidth / LINE)
        .collect();
    median(lines)
}

/// Wait at the plateaus that M2S causes, beyond what the law's other terms explain.
fn posted_wait(curves: &[Curve], law: &DeviceLaw) -> Option<f64> {
    let waits: Vec<f64> = curves
        .iter()
        .filter(|curve| !limited_by_s2m(&law.link, curve.read_share))
        .map(|curve| {
            let mut rest = *law;
            rest.link.posted_wait = 0.0;
            let peak = rest.peak(curve.read_share);
            curve.peak.latency - rest.latency(peak, curve.read_share)
        })
        .collect();
    median(waits).map(|wait| wait.max(0.0))
}

/// The middle of some figures. Not their mean: the plateau of a mix that fills both directions may be the other one's.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.len().checked_sub(1)? / 2, figures.len() / 2);
    Some(0.5 * (figures[low] + figures[high]))
}

fn limited_by_s2m(link: &LinkLaw, read_share: f64) -> bool {
    let write_share = 1.0 - read_share;
    (read_share + write_share * link.completion_share) / link.s2m
        > (write_share + read_share * link.request_share) / link.m2s
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
