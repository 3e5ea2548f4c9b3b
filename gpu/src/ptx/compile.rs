//! Text to program, and what there is to say of a text that is none.

use std::fmt;

use super::ir::Program;
use super::lower;
use super::syntax::{self, SyntaxError};

/// Why a text is no module: one line for each thing that is wrong, as in `CU_JIT_ERROR_LOG_BUFFER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitLog {
    pub errors: Vec<SyntaxError>,
}

impl fmt::Display for JitLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for JitLog {}

/// Compiles a PTX text; no device is needed.
pub fn compile(text: &str) -> Result<Program, JitLog> {
    let module = syntax::parse(text).map_err(|error| JitLog {
        errors: vec![error],
    })?;
    lower::lower(&module).map_err(|errors| JitLog { errors })
}
