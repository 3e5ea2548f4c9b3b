//! Collects mistakes and finds their lines.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, line_at};

/// The mistakes found so far in one configuration.
pub(super) struct Report<'s> {
    file: &'s Path,
    source: &'s str,
    root: &'s DeTable<'s>,
    /// Keys whose value came from the command line, with the option.
    overridden: Vec<(&'static str, &'static str)>,
    found: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub(super) fn new(file: &'s Path, source: &'s str, root: &'s DeTable<'s>) -> Self {
        Self {
            file,
            source,
            root,
            overridden: Vec::new(),
            found: Vec::new(),
        }
    }

    /// From now on mistakes in `key` are mistakes in the command line's `option`.
    pub(super) fn override_key(&mut self, key: &'static str, option: &'static str) {
        self.overridden.push((key, option));
    }

    /// Notes a mistake in the value at the path `key`.
    pub(super) fn error(
        &mut self,
        key: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let key = key.into();
        let option = self.overridden.iter().find(|(name, _)| *name == key);
        self.found.push(match option {
            Some((_, option)) => Diagnostic {
                file: None,
                line: None,
                key: (*option).to_string(),
                problem: problem.into(),
                mend: mend.into(),
            },
            None => Diagnostic {
                file: Some(self.file.to_path_buf()),
                line: self.line_of(&key),
                key,
                problem: problem.into(),
                mend: mend.into(),
            },
        });
    }

    /// `path` as a message names it: relative ones are relative to the file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        match self.file.parent() {
            Some(directory) => directory.join(path),
            None => PathBuf::from(path),
        }
    }

    /// Ends the collection: `Err` if there was a mistake.
    pub(super) fn into_result(mut self) -> Result<(), Diagnostics> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|diagnostic| diagnostic.line);
        Err(Diagnostics(self.found))
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// The line of the key at `path`, or of the nearest thing around it that the file has.
    fn line_of(&self, path: &str) -> Option<usize> {
        let mut span = None;
        let mut table = self.root;
        'path: for segment in path.split('.') {
            let mut parts = segment.split(['[', ']']);
            let Some((key, value)) = parts.next().and_then(|name| table.get_key_value(name)) else {
                break;
            };
            span = Some(key.span());
            let mut value = value.get_ref();
            for index in parts.filter_map(|part| part.parse::<usize>().ok()) {
                let Some(element) = value.as_array().and_then(|array| array.get(index)) else {
                    break 'path;
                };
                span = Some(element.span());
                value = element.get_ref();
            }
            let DeValue::Table(inner) = value else { break };
            table = inner;
        }
        span.map(|span| line_at(self.source, &span))
    }
}
