//! What the demo and the benchmark report, one line of JSON per result on standard output.

use anyhow::Result;
use serde::Serialize;

/// One figure.
#[derive(Debug, Default, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What a user would pick instead, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The figure divided by the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What it has to keep to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it does; true where there is no target.
    pub ok: bool,
}

impl Measurement {
    /// A figure without a target.
    pub fn new(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            ok: true,
            ..Self::default()
        }
    }

    /// The ratio to what `peer` costs.
    #[must_use]
    pub fn against(mut self, peer: &str, value: f64) -> Self {
        self.ratio = Some(self.value / value);
        self.peer = Some(format!("{peer}: {value:.3} {}", self.unit));
        self
    }

    /// Says whether the figure itself is at most `limit`.
    #[must_use]
    pub fn at_most(mut self, limit: f64) -> Self {
        self.ok = self.value <= limit;
        self.target = Some(format!("at most {limit} {}", self.unit));
        self
    }

    /// Says whether the ratio is at most `limit`.
    #[must_use]
    pub fn ratio_at_most(mut self, limit: f64) -> Self {
        self.ok = self.ratio.is_some_and(|ratio| ratio <= limit);
        self.target = Some(format!("ratio at most {limit}"));
        self
    }

    /// Says whether the ratio is at least `limit`.
    #[must_use]
    pub fn ratio_at_least(mut self, limit: f64) -> Self {
        self.ok = self.ratio.is_some_and(|ratio| ratio >= limit);
        self.target = Some(format!("ratio at least {limit}"));
        self
    }

    /// Says whether the ratio is between these.
    #[must_use]
    pub fn ratio_within(mut self, least: f64, most: f64) -> Self {
        self.ok = self
            .ratio
            .is_some_and(|ratio| (least..=most).contains(&ratio));
        self.target = Some(format!("ratio {least} to {most}"));
        self
    }

    /// Prints it.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
