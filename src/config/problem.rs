//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

/// Most errors reported of one file; a file with more is a different kind of file.
pub const ERRORS_MAX: usize = 20;

/// An error or a warning, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the workspace, as people know it: `agents/assistant/agent.yaml`.
    pub file: String,
    /// From 1; 0 if the problem is the file itself (it is missing, it cannot be read).
    pub line: usize,
    /// From 1, in characters; 0 as for `line`.
    pub column: usize,
    /// Lower case, no full stop: what was expected, what was found, what to do.
    pub message: String,
    /// True if the configuration works all the same.
    pub warning: bool,
}

impl Problem {
    /// An error of the file as a whole.
    #[must_use]
    pub fn file(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message, warning: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(if self.warning { ": warning: " } else { ": " })?;
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Splits problems by what they do to the caller.
#[must_use]
pub fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|p| !p.warning)
}
