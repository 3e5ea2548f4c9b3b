//! Device profiles: the constants of the latency law for devices that somebody has measured.
//!
//! A profile is a small TOML file. The ones under `data/profiles` are part of the program; each
//! names the source of its figures and says what was measured and what was carried over. A user's
//! own come from [`crate::fit`].

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::law::{DeviceLaw, LinkLaw, MediaLaw};

/// The profiles that come with the program, by name.
const SHIPPED: &[(&str, &str)] = &[
    ("cxl-a", include_str!("../data/profiles/cxl-a.toml")),
    ("cxl-b", include_str!("../data/profiles/cxl-b.toml")),
    ("cxl-c", include_str!("../data/profiles/cxl-c.toml")),
    ("cxl-d", include_str!("../data/profiles/cxl-d.toml")),
    ("e3s-x8", include_str!("../data/profiles/e3s-x8.toml")),
    (
        "local-ddr5",
        include_str!("../data/profiles/local-ddr5.toml"),
    ),
    ("mess-cxl", include_str!("../data/profiles/mess-cxl.toml")),
    ("numa", include_str!("../data/profiles/numa.toml")),
    ("switch", include_str!("../data/profiles/switch.toml")),
    (
        "x16-expander",
        include_str!("../data/profiles/x16-expander.toml"),
    ),
];

/// A device, or a switch's upstream port, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Short name, as used in `[&profile=NAME]`.
    pub name: String,
    /// What the device is.
    pub description: String,
    /// Who measured it, where, and which figures are carried over from elsewhere.
    pub source: String,
    /// Idle latencies, ns.
    pub latency: Latency,
    /// The link to the host.
    pub link: Link,
    /// What is behind the link.
    pub media: Media,
    /// Lines under way when the link is asked for more than it has.
    pub outstanding_lines: f64,
}

/// Round trips with nothing else under way, as the host sees them, ns. For a switch: what it adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Of a read.
    pub read: f64,
    /// Of a write that somebody waits for.
    pub write: f64,
}

/// Constants of [`LinkLaw`], in a file's words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// GB/s towards the host.
    pub s2m: f64,
    /// GB/s towards the device.
    pub m2s: f64,
    /// Share of a line that a completion takes, 0 to 1.
    pub completion_share: f64,
    /// Share of a line that a request takes, 0 to 1.
    pub request_share: f64,
    /// ns.
    pub s2m_wait: f64,
    /// ns.
    pub m2s_wait: f64,
    /// ns.
    pub m2s_slope: f64,
    /// ns.
    pub posted_wait: f64,
}

/// Constants of [`MediaLaw`], in a file's words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// GB/s, both directions together.
    pub bandwidth: f64,
    /// ns.
    pub wait: f64,
}

impl Profile {
    /// A profile that comes with the program.
    ///
    /// # Errors
    /// [`Error::Profile`] with the list of names when there is none of that name.
    pub fn named(name: &str) -> Result<Self, Error> {
        match SHIPPED.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(name, text),
            None => Err(Error::Profile {
                name: name.to_owned(),
                reason: format!(
                    "not known; there are {}",
                    Self::names().collect::<Vec<_>>().join(", ")
                ),
            }),
        }
    }

    /// Names of the profiles that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// Reads a profile file's text; `name` is for complaints.
    ///
    /// # Errors
    /// [`Error::Profile`] when it is not TOML, lacks a figure, or has an impossible one.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let fail = |reason: String| Error::Profile {
            name: name.to_owned(),
            reason,
        };
        let profile: Self = toml::from_str(text).map_err(|error| fail(error.to_string()))?;
        profile.check().map_err(fail)?;
        Ok(profile)
    }

    /// The profile as a file's text.
    ///
    /// # Errors
    /// [`Error::Profile`] should the figures not be representable in TOML.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Profile {
            name: self.name.clone(),
            reason: error.to_string(),
        })
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("link.s2m", self.link.s2m),
            ("link.m2s", self.link.m2s),
            ("media.bandwidth", self.media.bandwidth),
            ("outstanding_lines", self.outstanding_lines),
        ];
        let not_negative = [
            ("latency.read", self.latency.read),
            ("latency.write", self.latency.write),
            ("link.s2m_wait", self.link.s2m_wait),
            ("link.m2s_wait", self.link.m2s_wait),
            ("link.m2s_slope", self.link.m2s_slope),
            ("link.posted_wait", self.link.posted_wait),
            ("media.wait", self.media.wait),
        ];
        let shares = [
            ("link.completion_share", self.link.completion_share),
            ("link.request_share", self.link.request_share),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}, must be above zero"));
            }
        }
        for (key, value) in not_negative {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("{key} is {value}, must be zero or more"));
            }
        }
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key} is {value}, must be from 0 to 1"));
            }
        }
        Ok(())
    }

    /// The constants as the law takes them.
    pub fn law(&self) -> DeviceLaw {
        DeviceLaw {
            idle_ns: self.latency.read,
            link: LinkLaw {
                s2m: self.link.s2m,
                m2s: self.link.m2s,
                completion_share: self.link.completion_share,
                request_share: self.link.request_share,
                s2m_wait: self.link.s2m_wait,
                m2s_wait: self.link.m2s_wait,
                m2s_slope: self.link.m2s_slope,
                posted_wait: self.link.posted_wait,
            },
            media: MediaLaw {
                bandwidth: self.media.bandwidth,
                wait: self.media.wait,
            },
            outstanding_lines: self.outstanding_lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_reads_and_says_where_it_is_from() {
        for name in Profile::names() {
            let profile = Profile::named(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(!profile.source.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_profile_survives_being_written_and_read() {
        let profile = Profile::named("cxl-d").unwrap();
        assert_eq!(
            Profile::parse("copy", &profile.to_toml().unwrap()).unwrap(),
            profile
        );
    }

    #[test]
    fn impossible_figures_are_refused_by_name() {
        let text = Profile::named("numa").unwrap().to_toml().unwrap();
        let broken = text.replace("s2m = 34.45", "s2m = 0.0");
        assert_ne!(broken, text);
        let error = Profile::parse("mine", &broken).unwrap_err().to_string();
        assert_eq!(error, "profile mine: link.s2m is 0, must be above zero");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Profile::named("cxl-z").unwrap_err().to_string();
        assert!(error.contains("cxl-a, cxl-b"), "{error}");
    }
}

#[cfg(test)]
#[path = "silicon_tests.rs"]
mod silicon_tests;
