//! What a run showed: a table for people, and one JSON object for machines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One figure of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// What a user would pick instead, and its figure in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The figure divided by the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What the figure has to keep to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it does; true without a target.
    pub ok: bool,
}

/// Something that did not run.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    pub name: String,
    pub why: String,
}

/// All that a run showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    ok: bool,
    pub results: Vec<Measurement>,
    pub passed: usize,
    pub failed: usize,
    pub skipped: Vec<Skipped>,
    /// What a person should know about the run, printed at its end.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Report {
    /// Counts one check.
    pub fn count(&mut self, ok: bool) {
        if ok {
            self.passed += 1
        } else {
            self.failed += 1
        }
    }

    /// Takes in a figure, which is also a check.
    pub fn measure(&mut self, measurement: Measurement) {
        self.count(measurement.ok);
        self.results.push(measurement);
    }

    /// Notes something that did not run.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped.push(Skipped {
            name: name.into(),
            why: why.into(),
        });
    }

    /// Prints the figures, the notes, what was skipped and the counts, and writes the JSON object to `json`.
    /// Returns whether everything held; a run that checked nothing did not.
    pub fn finish(mut self, json: Option<&Path>) -> Result<bool> {
        self.ok = self.failed == 0 && self.passed > 0;
        for line in self.results.iter().map(describe) {
            println!("{line}");
        }
        for note in &self.notes {
            println!("{note}");
        }
        for Skipped { name, why } in &self.skipped {
            println!("skipped: {name}: {why}");
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skipped.len()
        );
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self)?;
            fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(self.ok)
    }
}

/// One line on a figure.
fn describe(measurement: &Measurement) -> String {
    let Measurement {
        name,
        value,
        unit,
        peer,
        ratio,
        target,
        ok,
    } = measurement;
    let mut line = format!(
        "{} {name}: {value:.3} {unit}",
        if *ok { "ok    " } else { "FAILED" }
    );
    let notes: Vec<String> = [
        peer.clone(),
        ratio.map(|ratio| format!("ratio {ratio:.3}")),
        target.as_ref().map(|target| format!("target: {target}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !notes.is_empty() {
        line.push_str(&format!(" ({})", notes.join("; ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(ok: bool) -> Measurement {
        Measurement {
            name: "loads".into(),
            value: 1.25,
            unit: "x".into(),
            peer: None,
            ratio: Some(0.5),
            target: Some("at most 1.05 x".into()),
            ok,
        }
    }

    #[test]
    fn one_failure_spoils_the_run() {
        let mut report = Report::default();
        report.count(true);
        report.measure(measurement(false));
        assert!(!report.finish(None).unwrap());
    }

    #[test]
    fn a_run_that_checked_nothing_is_not_ok() {
        assert!(!Report::default().finish(None).unwrap());
    }

    #[test]
    fn the_object_leaves_out_what_does_not_apply() {
        let path = std::env::temp_dir().join(format!("memu-report-{}.json", std::process::id()));
        let mut report = Report::default();
        report.measure(measurement(true));
        report.skip("numa", "one node");
        assert!(report.finish(Some(&path)).unwrap());
        let object: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(object["ok"], true);
        assert_eq!(object["results"][0]["ratio"], 0.5);
        assert!(object["results"][0].get("peer").is_none());
        assert_eq!(object["skipped"][0]["why"], "one node");
    }

    #[test]
    fn a_figure_is_described_with_its_target() {
        assert_eq!(
            describe(&measurement(true)),
            "ok     loads: 1.250 x (ratio 0.500; target: at most 1.05 x)"
        );
    }
}
