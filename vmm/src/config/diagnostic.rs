//! What is wrong with a configuration, and how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One mistake in a configuration.
///
/// Shown as `FILE:LINE: KEY: PROBLEM; MEND`; a mistake on the command line as `--OPTION: PROBLEM; MEND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file; `None`: the command line.
    pub file: Option<PathBuf>,
    /// The line of the key, counted from 1; `None` if nothing in the file stands for it.
    pub line: Option<usize>,
    /// Path of the key, such as `host_bridge[0].root_port[1].device.volatile`, or the option with its dashes. Empty for
    /// the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.mend)
    }
}

/// All mistakes of a configuration in the order of its lines, one on each line when shown. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The only mistake: `file` as a whole.
    pub(super) fn of_file(file: &Path, problem: String, mend: &str) -> Self {
        Self(vec![Diagnostic {
            file: Some(file.to_path_buf()),
            line: None,
            key: String::new(),
            problem,
            mend: mend.to_string(),
        }])
    }

    /// A file that is no TOML.
    pub(super) fn of_syntax(file: &Path, source: &str, errors: &[toml::de::Error]) -> Self {
        let diagnostics = errors.iter().map(|error| Diagnostic {
            file: Some(file.to_path_buf()),
            line: error.span().map(|span| line_at(source, &span)),
            key: String::new(),
            problem: format!("not TOML: {}", error.message()),
            mend:
                "write key = value, with text in double quotes, below a [table] or [[array]] header"
                    .to_string(),
        });
        Self(diagnostics.collect())
    }
}

/// The line, counted from 1, that `span` begins on.
pub(super) fn line_at(source: &str, span: &Range<usize>) -> usize {
    1 + source
        .bytes()
        .take(span.start)
        .filter(|&byte| byte == b'\n')
        .count()
}

/// The nearest of `candidates` to `word`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of `a` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_a_swap_as_one() {
        let table = [
            ("", "", 0),
            ("abc", "abc", 0),
            ("vcpu", "vcpus", 1),
            ("szie", "size", 1),
            ("mem", "hb", 3),
        ];
        for (a, b, distance) in table {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let keys = ["volatile", "persistent", "serial"];
        assert_eq!(nearest("volatil", keys), Some("volatile"));
        assert_eq!(nearest("presistent", keys), Some("persistent"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", []), None);
    }
}
