//! `[timing]`: whether and how the guest is made to feel what its CXL memory costs.

use super::model::Config;
use super::reader::Section;
use super::report::Report;

/// Nanoseconds between two reckonings of a machine that does not say.
const DEFAULT_EPOCH: u64 = 10_000_000;

/// `[timing]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// What delays are made of.
    pub clock: Clock,
    /// Nanoseconds between two reckonings.
    pub epoch: u64,
    /// Nanoseconds that a load from the host's own memory takes; `None`: measured at start.
    pub local_latency: Option<u32>,
    /// Misses that a vCPU has under way at once; `None`: estimated while running.
    pub parallelism: Option<u32>,
    /// Bytes of the last-level cache that answers for memory; `None`: the host's.
    pub cache: Option<u64>,
}

/// How a machine loses the time that its memory would have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// It does not: CXL memory is as fast as RAM.
    #[default]
    Off,
    /// All vCPUs stand still together.
    Real,
    /// The guest's clocks are moved forward.
    Warp,
}

impl Timing {
    /// Reads the section.
    pub(super) fn read(root: &Section, report: &mut Report) -> Self {
        let section = root.section(report, "timing");
        let clocks = [
            ("off", Clock::Off),
            ("real", Clock::Real),
            ("warp", Clock::Warp),
        ];
        let mut number = |key, range| {
            let number = section.integer(report, key, range);
            number.and_then(|number| u32::try_from(number).ok())
        };
        let local_latency = number("local_latency", (1, 10_000));
        let parallelism = number("parallelism", (1, 64));
        let timing = Self {
            clock: section.choice(report, "clock", &clocks).unwrap_or_default(),
            epoch: section
                .integer(report, "epoch", (1_000_000, 1_000_000_000))
                .unwrap_or(DEFAULT_EPOCH),
            local_latency,
            parallelism,
            cache: section.size(report, "cache"),
        };
        section.finish(report);
        timing
    }

    /// Reports a machine that has nothing to time.
    pub(super) fn validate(config: &Config, report: &mut Report) {
        if config.timing.clock != Clock::Off && config.devices().next().is_none() {
            report.error(
                "timing.clock",
                "the machine has no CXL memory to time",
                "give it an expander, or remove this line",
            );
        }
    }
}
