//! What a command ends with when it does not do what it was asked for.

use std::fmt::Write as _;
use std::io::Write as _;

/// An error and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What went wrong: what, where, expected, found. Several lines if several things did.
    pub error: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Failure {
    /// Something failed: exit code 1.
    pub fn new(error: impl Into<String>) -> Self {
        Self { code: 1, error: error.into(), hint: None }
    }

    /// The command line is wrong: exit code 2.
    pub fn usage(error: impl Into<String>, hint: &str) -> Self {
        Self { code: 2, error: error.into(), hint: Some(hint.to_owned()) }
    }

    /// The configuration is wrong: exit code 3.
    pub fn config(error: impl Into<String>) -> Self {
        Self { code: 3, error: error.into(), hint: None }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the usage of the command, where the command line was wrong and nothing better is known.
    pub(super) fn of(mut self, usage: &str) -> Self {
        if self.code == 2 && self.hint.is_none() {
            self.hint = Some(format!("usage: duragent {usage}"));
        }
        self
    }

    /// Says it on standard error, in one write.
    pub(super) fn print(&self) {
        let mut text = String::new();
        // Models, tools and files of others may have a say in it.
        for line in super::text::clean(&self.error).lines() {
            writeln!(text, "error: {line}").ok();
        }
        for line in super::text::clean(self.hint.as_deref().unwrap_or_default()).lines() {
            writeln!(text, "hint: {line}").ok();
        }
        // tidy-allow(dropped-results): there is nowhere else to say it
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self { code: 2, error: error.to_string(), hint: None }
    }
}
