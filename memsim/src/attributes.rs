//! What the text of one node of a topology says: its bracket attributes, its branch length, and the
//! profile that fills in the rest. [`crate::topology`] has the table of keys.

use crate::error::Error;
use crate::law::{LinkLaw, MediaLaw};
use crate::newick::{Attribute, Clade, Forest};
use crate::profile::Profile;
use crate::topology::DEFAULT_CAPACITY;

/// Reads nodes of one forest.
pub(crate) struct Reader<'a> {
    forest: &'a Forest,
    expander: Profile,
    switch: Profile,
}

/// What one node's text says, defaults filled in.
pub(crate) struct Settings {
    pub(crate) added_ns: f64,
    pub(crate) law: LinkLaw,
    pub(crate) media: MediaLaw,
    pub(crate) read_ns: f64,
    pub(crate) write_ns: f64,
    pub(crate) capacity: u64,
    pub(crate) credits: Option<f64>,
}

impl<'a> Reader<'a> {
    /// A reader with the default profiles.
    pub(crate) fn new(forest: &'a Forest) -> Result<Self, Error> {
        Ok(Self {
            forest,
            expander: Profile::named("cxl-a")?,
            switch: Profile::named("switch")?,
        })
    }

    /// Reads the attributes and the branch length of a node.
    pub(crate) fn read(&self, clade: &Clade) -> Result<Settings, Error> {
        let mut profile = if clade.inner {
            self.switch.clone()
        } else {
            self.expander.clone()
        };
        if let Some(attribute) = clade
            .attributes
            .iter()
            .find(|attribute| attribute.key == "profile")
        {
            profile = Profile::named(&attribute.value)
                .map_err(|error| self.fail(attribute.at, error.to_string()))?;
        }
        let law = profile.law();
        let hop = if clade.inner {
            profile.latency.read
        } else {
            0.0
        };
        let mut settings = Settings {
            added_ns: clade.length.unwrap_or(hop),
            law: law.link,
            media: law.media,
            read_ns: profile.latency.read,
            write_ns: profile.latency.write,
            capacity: DEFAULT_CAPACITY,
            credits: None,
        };
        for attribute in clade
            .attributes
            .iter()
            .filter(|attribute| attribute.key != "profile")
        {
            self.set(&mut settings, clade, attribute)?;
        }
        Ok(settings)
    }

    fn set(
        &self,
        settings: &mut Settings,
        clade: &Clade,
        attribute: &Attribute,
    ) -> Result<(), Error> {
        let Attribute { key, value, at } = attribute;
        let number = value
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.fail(*at, format!("{key} needs a number, not '{value}'")))?;
        let of_device = ["lat", "wlat", "cd", "ad", "cap"].contains(&key.as_str());
        if of_device && clade.inner {
            return Err(self.fail(*at, format!("{key} is for an expander, not for a switch")));
        }
        let positive = ["bw", "s2m", "m2s", "cd", "cap", "credits"].contains(&key.as_str());
        if positive && number <= 0.0 {
            return Err(self.fail(*at, format!("{key} must be above zero")));
        }
        if number < 0.0 {
            return Err(self.fail(*at, format!("{key} must be zero or more")));
        }
        if ["g", "h"].contains(&key.as_str()) && number > 1.0 {
            return Err(self.fail(*at, format!("{key} is a share of a line, at most 1")));
        }
        match key.as_str() {
            "bw" => (settings.law.s2m, settings.law.m2s) = (number, number),
            "s2m" => settings.law.s2m = number,
            "m2s" => settings.law.m2s = number,
            "g" => settings.law.completion_share = number,
            "h" => settings.law.request_share = number,
            "as" => settings.law.s2m_wait = number,
            "am" => settings.law.m2s_wait = number,
            "bm" => settings.law.m2s_slope = number,
            "credits" => settings.credits = Some(number),
            "lat" => (settings.read_ns, settings.write_ns) = (number, number),
            "wlat" => settings.write_ns = number,
            "cd" => settings.media.bandwidth = number,
            "ad" => settings.media.wait = number,
            "cap" => settings.capacity = (number * 1e9) as u64,
            _ => {
                let known =
                    "profile, bw, s2m, m2s, g, h, as, am, bm, credits, lat, wlat, cd, ad, cap";
                return Err(self.fail(*at, format!("no attribute {key}; there are {known}")));
            }
        }
        Ok(())
    }

    fn fail(&self, at: usize, reason: impl Into<String>) -> Error {
        self.forest.complaint(at, reason).into()
    }
}
