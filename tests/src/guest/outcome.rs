//! What a guest said and how its VMM ended.

use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeMap;
use std::process::ExitStatus;

/// A framed part of the guest's output.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Exit status of the command; `None` if it never ended.
    pub status: Option<i32>,
    /// What it printed, both streams.
    pub text: String,
}

/// What a finished guest left.
#[derive(Debug)]
pub struct Outcome {
    /// How the VMM ended.
    pub status: ExitStatus,
    /// The framed parts of the script's output.
    pub sections: BTreeMap<String, Section>,
    /// Lines of the serial port: the kernel's log.
    pub serial: Vec<String>,
    /// Lines of the virtio console: the script's output.
    pub console: Vec<String>,
    /// The VMM's own messages.
    pub stderr: String,
}

impl Outcome {
    /// The output of section `name`, which must have ended with status 0.
    ///
    /// # Errors
    /// The section is missing or failed; its output is in the message.
    pub fn passed(&self, name: &str) -> Result<&str> {
        let section = self.sections.get(name).ok_or_else(|| {
            anyhow!(
                "section {name} is missing; stderr: {}; last lines: {}",
                self.stderr,
                self.tail()
            )
        })?;
        ensure!(
            section.status == Some(0),
            "section {name} ended with {:?}:\n{}",
            section.status,
            section.text
        );
        Ok(&section.text)
    }

    /// The output of section `name` as JSON.
    ///
    /// # Errors
    /// As [`Outcome::passed`], or it is not JSON.
    pub fn json(&self, name: &str) -> Result<serde_json::Value> {
        let text = self.passed(name)?;
        serde_json::from_str(text.trim())
            .with_context(|| format!("section {name} is not JSON:\n{text}"))
    }

    /// That the guest powered off and the VMM ended with status 0.
    ///
    /// # Errors
    /// It did not.
    pub fn powered_off(&self) -> Result<()> {
        ensure!(
            self.status.success(),
            "{}: {}\n{}",
            self.status,
            self.stderr,
            self.tail()
        );
        Ok(())
    }

    fn tail(&self) -> String {
        let from = self.serial.len().saturating_sub(12);
        self.serial[from..].join("\n")
    }
}

pub(super) fn sections(console: &[String]) -> BTreeMap<String, Section> {
    let mut all: BTreeMap<String, Section> = BTreeMap::new();
    let mut open: Option<String> = None;
    for line in console {
        if let Some(name) = line.strip_prefix("@@BEGIN ") {
            all.insert(name.into(), Section::default());
            open = Some(name.into());
        } else if let Some((name, status)) =
            line.strip_prefix("@@END ").and_then(|l| l.rsplit_once(' '))
        {
            if let Some(section) = all.get_mut(name) {
                section.status = status.parse().ok();
            }
            open = None;
        } else if let Some(section) = open.as_ref().and_then(|name| all.get_mut(name)) {
            section.text.push_str(line);
            section.text.push('\n');
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keep_their_text_and_status() {
        let lines = [
            "noise",
            "@@BEGIN a",
            "one",
            "two",
            "@@END a 0",
            "@@BEGIN b",
            "three",
        ]
        .map(String::from);
        let found = sections(&lines);
        assert_eq!(found["a"].text, "one\ntwo\n");
        assert_eq!(found["a"].status, Some(0));
        assert_eq!(found["b"].status, None);
        assert_eq!(found["b"].text, "three\n");
    }
}
