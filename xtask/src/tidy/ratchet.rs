//! `xtask/ratchet.txt`: what breaks a rule today and may only get better.
//!
//! Lines are `lines N PATH` (a file past the limit, with its size) and `absent FOLDER` (a folder of the layout that is
//! still to come). Anything else is an error.

use super::{Report, Rule};
use crate::{Failure, Result};
use std::fmt::Write as _;

/// Most lines of a Rust file; `tests.rs` files are free. A file stays readable in one sitting.
pub const LINES_MAX: usize = 500;

/// Where it is.
pub const PATH: &str = "xtask/ratchet.txt";

/// The parsed file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ratchet {
    /// Path and lines, sorted.
    pub lines: Vec<(String, usize)>,
    /// Folders, sorted.
    pub absent: Vec<String>,
}

impl Ratchet {
    /// Reads it.
    ///
    /// # Errors
    /// If a line is neither of the two kinds.
    pub fn parse(text: &str) -> Result<Self> {
        let mut ratchet = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [word, ..] if word.starts_with('#') => {}
                ["lines", count, path] => {
                    let count = count
                        .parse()
                        .map_err(|_| Failure::new(format!("{PATH}:{number}: expected a number, found {count:?}")))?;
                    ratchet.lines.push(((*path).to_owned(), count));
                }
                ["absent", folder] => ratchet.absent.push((*folder).to_owned()),
                _ => {
                    return Err(Failure::new(format!(
                        "{PATH}:{number}: expected `lines N PATH` or `absent FOLDER`, found {line:?}"
                    )));
                }
            }
        }
        ratchet.lines.sort();
        ratchet.absent.sort();
        Ok(ratchet)
    }

    /// Writes it, with its explanation.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# What breaks a rule of `cargo xtask tidy` today. May only get better: entries shrink and go, none is added.\n\
             # `cargo xtask tidy --bless` takes what got better.\n",
        );
        for (path, count) in &self.lines {
            let _ = writeln!(text, "lines {count} {path}");
        }
        for folder in &self.absent {
            let _ = writeln!(text, "absent {folder}");
        }
        text
    }

    /// Compares the size of a file with the limit, or with its entry.
    pub fn check(&self, path: &str, text: &str, report: &mut Report) {
        if !path.ends_with(".rs") || path.ends_with("/tests.rs") {
            return;
        }
        let count = text.lines().count();
        let text = match self.lines.iter().find(|(listed, _)| listed == path) {
            None if count > LINES_MAX => {
                format!("{count} lines, expected at most {LINES_MAX}: split it by what it does")
            }
            Some((_, listed)) if count > *listed => format!("{count} lines, it had {listed} and may only shrink"),
            Some((_, listed)) if count < *listed => {
                format!("{count} lines, listed with {listed}: run `cargo xtask tidy --bless` to keep the gain")
            }
            _ => return,
        };
        report.add_at(path, count, Rule::Length, &text);
    }

    /// Takes what got better: `count` gives the lines of a file that still exists.
    pub fn tighten(&mut self, count: impl Fn(&str) -> Option<usize>, present: &[String]) {
        self.lines.retain_mut(|(path, listed)| match count(path) {
            Some(now) if now > LINES_MAX => {
                *listed = now.min(*listed);
                true
            }
            _ => false,
        });
        self.absent.retain(|folder| !present.contains(folder));
    }
}
