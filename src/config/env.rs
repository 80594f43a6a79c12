//! Environment variables: the only place that reads them, and their expansion in configuration values.
//!
//! Everything here takes a lookup function, so that tests bring their own environment. [`process`] is the real one.
//!
//! Absent: a shell. There is `${NAME}`, `${NAME:-default}` and `$$`, and nothing nests.

use std::sync::OnceLock;

/// How variables are looked up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Most bytes of one value after expansion.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// `--profile` of the command line, which goes over the variable [`super::profile::VARIABLE`].
pub static PROFILE: OnceLock<String> = OnceLock::new();

/// The environment of this process. A variable that is not UTF-8 counts as unset.
#[must_use]
pub fn process(name: &str) -> Option<String> {
    let said = PROFILE.get().filter(|_| name == super::profile::VARIABLE);
    said.cloned().or_else(|| std::env::var(name).ok())
}

/// Expands `${NAME}`, `${NAME:-default}` (unset or empty) and `$$` in `text`; any other `$` stays. `None` if there was
/// nothing to expand.
///
/// # Errors
/// A message for the user if a variable without a default is unset, or an expression is malformed.
pub fn expand(text: &str, env: Env<'_>) -> Result<Option<String>, String> {
    let mut out = String::new();
    let (mut rest, mut expanded) = (text, false);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            (rest, expanded) = (tail, true);
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some((inside, tail)) = inner.split_once('}') else {
                return Err("${ without a closing }; write $$ for a dollar sign".to_owned());
            };
            out.push_str(&lookup(inside, env)?);
            (rest, expanded) = (tail, true);
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > VALUE_BYTES_MAX {
            return Err(format!("more than {VALUE_BYTES_MAX} bytes after expansion"));
        }
    }
    out.push_str(rest);
    Ok(expanded.then_some(out))
}

/// Names of the variables that [`expand`] would look up in `text`.
#[must_use]
pub fn names(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after.strip_prefix('$').unwrap_or(after);
        if let Some((inside, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            out.push(inside.split_once(":-").map_or(inside, |(name, _)| name));
            rest = tail;
        }
    }
    out
}

fn lookup(inside: &str, env: Env<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(good) {
        return Err(format!("${{{inside}}}: expected ${{NAME}} or ${{NAME:-default}}, found the name {name:?}"));
    }
    match (env(name), default) {
        (_, Some(default)) if default.contains("${") => {
            Err(format!("${{{name}:-…}}: a default cannot hold another ${{"))
        }
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("environment variable {name} is not set; set it, or write ${{{name}:-default}}")),
    }
}
