//! Why something could not be measured.

use std::fmt::Display;
use std::path::Path;

/// What, where, expected, found: for people.
#[derive(Debug)]
pub struct Failure(pub String);

/// A result with that reason.
pub type Result<T> = std::result::Result<T, Failure>;

/// A failure from any message.
pub fn fail<T>(text: impl Into<String>) -> Result<T> {
    Err(Failure(text.into()))
}

/// Adds what was being done to an error.
pub fn doing<E: Display>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let what = what.into();
    move |error| Failure(format!("{what}: {error}"))
}

/// Adds the file to an error.
pub fn at<E: Display>(path: &Path) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure(format!("{}: {error}", path.display()))
}
