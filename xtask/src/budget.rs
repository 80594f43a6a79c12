//! `benches/budget.toml`: what the binary may cost, per target.
//!
//! Only the subset of TOML that the file uses is read: tables, `key = whole number` (with `_` between digits), comments.

use crate::{Failure, Result};

/// Where it is.
pub const PATH: &str = "benches/budget.toml";

/// The parsed file: (table, key, number) in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Budget {
    entries: Vec<(String, String, u64)>,
}

impl Budget {
    /// Reads it.
    ///
    /// # Errors
    /// On anything outside the subset, and on a key that is there twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut entries: Vec<(String, String, u64)> = Vec::new();
        let mut table = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            let wrong = |what: &str| Failure::new(format!("{PATH}:{number}: {what}, found {line:?}"));
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut table);
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| wrong("expected `[target]` or `key = number`"))?;
            let (key, value) = (key.trim(), value.trim().replace('_', ""));
            let value = value.parse().map_err(|_| wrong("expected a whole number"))?;
            if entries.iter().any(|(t, k, _)| *t == table && k == key) {
                return Err(wrong("expected each key once"));
            }
            entries.push((table.clone(), key.to_owned(), value));
        }
        Ok(Self { entries })
    }

    /// The number of `key` for `target`.
    #[must_use]
    pub fn get(&self, target: &str, key: &str) -> Option<u64> {
        self.entries.iter().find(|(t, k, _)| t == target && k == key).map(|(.., n)| *n)
    }
}

/// Replaces the number of `key` in the table of `target`, and leaves every other byte as it is.
///
/// # Errors
/// If there is no such key.
pub fn replace(text: &str, target: &str, key: &str, value: u64) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let (mut here, mut done) = (false, false);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            here = trimmed.split(']').next() == Some(&format!("[{target}"));
        }
        let is_key = here && trimmed.split('=').next().map(str::trim) == Some(key);
        if is_key && !done {
            let comment = line.find('#').map(|at| format!("  {}", line[at..].trim_end())).unwrap_or_default();
            out.push_str(&format!("{key} = {}{comment}\n", grouped(value)));
            done = true;
        } else {
            out.push_str(line);
        }
    }
    if done { Ok(out) } else { Err(Failure::new(format!("{PATH}: expected {key} under [{target}], found none"))) }
}

/// The number with `_` between groups of three digits.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# why\n[a]\nbytes_max = 2_200_000\nbytes = 7  # recorded\n\n[b]\nbytes = 8\n";

    #[test]
    fn numbers_are_found_per_target() {
        let budget = Budget::parse(TEXT).expect("is well-formed");
        assert_eq!(budget.get("a", "bytes_max"), Some(2_200_000));
        assert_eq!(budget.get("b", "bytes"), Some(8));
        assert_eq!(budget.get("b", "bytes_max"), None);
        for bad in ["x", "a = b", "a = -1", "a = 1\na = 2", "a = \"1\""] {
            assert!(Budget::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_replaced_and_nothing_else() {
        let text = replace(TEXT, "b", "bytes", 1_234_567).expect("is there");
        assert_eq!(text, TEXT.replace("bytes = 8", "bytes = 1_234_567"));
        let text = replace(TEXT, "a", "bytes", 12).expect("is there");
        assert_eq!(text, TEXT.replace("bytes = 7", "bytes = 12"));
        assert!(replace(TEXT, "c", "bytes", 1).is_err());
    }

    #[test]
    fn digits_are_grouped_by_three() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1_000"), (2_200_000, "2_200_000")] {
            assert_eq!(grouped(value), text);
        }
    }
}
