//! The crate's one error type.

use crate::newick::SyntaxError;

/// Everything that can be wrong with what a user gave `memsim`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology string does not parse, or says something impossible.
    #[error(transparent)]
    Topology(#[from] SyntaxError),

    /// A device profile is malformed or holds an impossible figure.
    #[error("profile {name}: {reason}")]
    Profile {
        /// Name of the profile, as asked for.
        name: String,
        /// What is wrong and how to mend it.
        reason: String,
    },

    /// A table of loaded latencies, or a trace, does not read.
    #[error("{what}, line {line}: {reason}")]
    Table {
        /// Which kind of table.
        what: &'static str,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and how to mend it.
        reason: String,
    },

    /// A table reads, but holds too little to fit a profile from.
    #[error("cannot fit a profile: {0}")]
    Fit(String),

    /// A number on the command line or in a configuration is out of range.
    #[error("{what}: {reason}")]
    Value {
        /// The option or key.
        what: &'static str,
        /// What is wrong and how to mend it.
        reason: String,
    },
}
