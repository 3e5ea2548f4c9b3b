//! Reads values of the right kind out of a TOML table, and says what is wrong with the others.

use std::cell::RefCell;
use std::path::PathBuf;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::diagnostic::nearest;
use super::report::Report;
use super::units::{SIZE_MEND, parse_size};
use crate::terminal::Target;

/// How the kinds of a console are written.
const TARGET_MEND: &str = "write stdio, pty, null, file:PATH or socket:PATH";

/// One table of the file, and which of its keys are known.
///
/// A getter answers `None` if the key is absent, and if its value is of no use, which it has reported then.
pub(super) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    /// Path of the table; empty for the file itself.
    path: String,
    known: RefCell<Vec<&'static str>>,
}

impl<'t> Section<'t> {
    /// The file itself.
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self::new(Some(table), String::new())
    }

    fn new(table: Option<&'t DeTable<'t>>, path: String) -> Self {
        Self {
            table,
            path,
            known: RefCell::default(),
        }
    }

    /// The path of `key` in this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Whether the file has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn value(&self, key: &'static str) -> Option<&'t DeValue<'t>> {
        self.known.borrow_mut().push(key);
        Some(self.table?.get(key)?.get_ref())
    }

    /// Reads `key` with `read`; if that cannot, reports that the value is not `what`.
    fn read<T>(
        &self,
        report: &mut Report,
        key: &'static str,
        (what, mend): (&str, &str),
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = read(value);
        if read.is_none() {
            let problem = format!("{} is not {what}", show(value));
            report.error(self.key(key), problem, mend);
        }
        read
    }

    /// Reports that `key`, which nothing can stand in for, is absent. A value of no use has been reported already.
    pub(super) fn require<T>(
        &self,
        report: &mut Report,
        key: &str,
        value: Option<T>,
        mend: &str,
    ) -> Option<T> {
        if value.is_none() && !self.has(key) {
            report.error(self.key(key), "is missing", mend);
        }
        value
    }

    /// A table; one without keys if there is none.
    pub(super) fn section(&self, report: &mut Report, key: &'static str) -> Section<'t> {
        let mend = format!("write [{}]", self.key(key));
        let table = self.read(report, key, ("a table", &mend), DeValue::as_table);
        Section::new(table, self.key(key))
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&self, report: &mut Report, key: &'static str) -> Vec<Section<'t>> {
        let mend = format!("write [[{}]]", without_indices(&self.key(key)));
        let read = |value: &'t DeValue<'t>| {
            let tables = value.as_array()?.iter().enumerate();
            tables
                .map(|(i, table)| {
                    let path = format!("{}[{i}]", self.key(key));
                    Some(Section::new(Some(table.get_ref().as_table()?), path))
                })
                .collect()
        };
        self.read(report, key, ("an array of tables", &mend), read)
            .unwrap_or_default()
    }

    pub(super) fn boolean(&self, report: &mut Report, key: &'static str) -> Option<bool> {
        let words = ("true or false", "write true or false, without quotes");
        self.read(report, key, words, DeValue::as_bool)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(
        &self,
        report: &mut Report,
        key: &'static str,
        (least, most): (u64, u64),
    ) -> Option<u64> {
        let words = (
            "a whole number",
            &*if most == u64::MAX {
                format!("write a whole number from {least} on, without quotes")
            } else {
                format!("write a number from {least} to {most}, without quotes")
            },
        );
        let number = self.read(report, key, words, |value| {
            let integer = value.as_integer()?;
            u64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })?;
        if !(least..=most).contains(&number) {
            let mend = if most == u64::MAX {
                format!("write a number from {least} on")
            } else {
                format!("write a number from {least} to {most}")
            };
            report.error(self.key(key), format!("{number} is out of range"), mend);
            return None;
        }
        Some(number)
    }

    /// A number greater than zero.
    pub(super) fn bandwidth(&self, report: &mut Report, key: &'static str) -> Option<f64> {
        let words = (
            "a bandwidth",
            "write GB/s as a number above 0, such as 32 or 38.4",
        );
        self.read(report, key, words, |value| {
            let text = match value {
                DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
                DeValue::Float(float) => float.as_str(),
                _ => return None,
            };
            let number: f64 = text.parse().ok()?;
            (number.is_finite() && number > 0.0).then_some(number)
        })
    }

    /// A number of bytes, written with its unit.
    pub(super) fn size(&self, report: &mut Report, key: &'static str) -> Option<u64> {
        self.read(report, key, ("a size", SIZE_MEND), |value| {
            parse_size(value.as_str()?)
        })
    }

    pub(super) fn string(&self, report: &mut Report, key: &'static str) -> Option<&'t str> {
        let words = ("a string", "put it in double quotes");
        self.read(report, key, words, DeValue::as_str)
    }

    /// A string that a type knows how to read; `words`: what it is called, and how to write it.
    pub(super) fn parsed<T: FromStr>(
        &self,
        report: &mut Report,
        key: &'static str,
        words: (&str, &str),
    ) -> Option<T> {
        self.read(report, key, words, |value| value.as_str()?.parse().ok())
    }

    /// A string out of `choices`.
    pub(super) fn choice<T: Copy>(
        &self,
        report: &mut Report,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let names = alternatives(choices.iter().map(|(name, _)| *name));
        let mend = format!("write {names}");
        self.read(report, key, ("known", &mend), |value| {
            let text = value.as_str()?;
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|&(_, choice)| choice)
        })
    }

    /// An array of strings.
    pub(super) fn strings(&self, report: &mut Report, key: &'static str) -> Option<Vec<&'t str>> {
        let words = (
            "an array of strings",
            "write it like [\"first\", \"second\"]",
        );
        self.read(report, key, words, |value| {
            let strings = value.as_array()?.iter();
            strings.map(|item| item.get_ref().as_str()).collect()
        })
    }

    /// A name: what other parts of the file and the messages call this thing.
    pub(super) fn name(&self, report: &mut Report) -> String {
        let words = (
            "a name",
            "write letters, digits, '-', '_' and '.', at most 64 of them",
        );
        let name = self.read(report, "name", words, |value| {
            value.as_str().filter(|text| is_name(text))
        });
        self.require(report, "name", name, "give it a name")
            .unwrap_or_default()
            .to_string()
    }

    /// A path, relative to the file.
    pub(super) fn path_value(&self, report: &mut Report, key: &'static str) -> Option<PathBuf> {
        let words = ("a path", "write a path in double quotes");
        let text = self.read(report, key, words, |value| {
            value.as_str().filter(|text| !text.is_empty())
        })?;
        Some(report.resolve(text))
    }

    /// Where a serial port or console goes, with paths relative to the file.
    pub(super) fn target(&self, report: &mut Report, key: &'static str) -> Option<Target> {
        let words = ("a place for a console", TARGET_MEND);
        let target = self.read(report, key, words, |value| value.as_str()?.parse().ok())?;
        Some(match target {
            Target::File(path) => Target::File(report.resolve(&path.to_string_lossy())),
            Target::Socket(path) => Target::Socket(report.resolve(&path.to_string_lossy())),
            other => other,
        })
    }

    /// Reports every key that no getter has asked for.
    pub(super) fn finish(&self, report: &mut Report) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let key = key.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let mend = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    let mut known = known.clone();
                    known.sort_unstable();
                    format!("the keys here are {}", known.join(", "))
                }
            };
            report.error(self.key(key), "is not a key", mend);
        }
    }
}

/// Whether a thing can be called this.
pub(super) fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(good)
}

/// Notes that the option `--serial` has a text that is no console.
pub(super) fn report_target(report: &mut Report, key: &str, text: &str) {
    let problem = format!("\"{text}\" is not a place for a console");
    report.error(key, problem, TARGET_MEND);
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn alternatives<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [] => String::new(),
        [only] => (*only).to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A value as the file has it, or what it is if that would be long.
fn show(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "an array".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    }
}

/// `host_bridge[0].root_port` as an array's header has it: `host_bridge.root_port`.
fn without_indices(path: &str) -> String {
    path.split('.')
        .map(|segment| segment.split('[').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(".")
}
