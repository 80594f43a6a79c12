//! Environment variables: the only place that reads them, and their expansion in configuration values.
//!
//! Everything here takes a lookup function, so that tests bring their own environment. [`process`] is the real one.
//!
//! Absent: a shell. There is `${NAME}`, `${NAME:-default}` and `$$`, and nothing nests.

use std::sync::OnceLock;
use std::time::Duration;

/// How variables are looked up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Most bytes of one value after expansion.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// `--profile` of the command line, which goes over the variable `VARIABLE`.
pub static PROFILE: OnceLock<String> = OnceLock::new();

/// The environment of this process. A variable that is not UTF-8 counts as unset.
#[must_use]
pub fn process(name: &str) -> Option<String> {
    let said = PROFILE.get().filter(|_| name == super::profile::VARIABLE);
    said.cloned().or_else(|| std::env::var(name).ok())
}

/// What a supervisor that speaks sd_notify(3) has told its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    /// `NOTIFY_SOCKET`: where it listens.
    pub socket: String,
    /// `WATCHDOG_USEC`: it ends a service that says nothing for that long; `None` if it does not, or means another process.
    pub watchdog: Option<Duration>,
}

/// The supervisor of process `pid`, which is this one; `None` if there is none that listens.
#[must_use]
pub fn supervisor(env: Env<'_>, pid: u32) -> Option<Supervisor> {
    let socket = env("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
    // Set for a process that we were started by, and inherited: not for us (sd_watchdog_enabled(3)).
    let ours = env("WATCHDOG_PID").is_none_or(|text| text.parse() == Ok(pid));
    let usec: Option<u64> = env("WATCHDOG_USEC").filter(|_| ours).and_then(|text| text.parse().ok());
    Some(Supervisor { socket, watchdog: usec.filter(|n| *n > 0).map(Duration::from_micros) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_known_by_its_variables() {
        let told = |socket: &str, micros: u64| {
            let watchdog = Some(micros).filter(|n| *n > 0).map(Duration::from_micros);
            Some(Supervisor { socket: socket.to_owned(), watchdog })
        };
        for (variables, expected) in [
            (&[] as &[(&str, &str)], None),
            (&[("NOTIFY_SOCKET", "")], None),
            (&[("WATCHDOG_USEC", "30000000")], None),
            (&[("NOTIFY_SOCKET", "/run/n")], told("/run/n", 0)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "30000000")], told("@n", 30_000_000)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "5"), ("WATCHDOG_PID", "42")], told("@n", 5)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "5"), ("WATCHDOG_PID", "41")], told("@n", 0)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "5"), ("WATCHDOG_PID", "x")], told("@n", 0)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "0")], told("@n", 0)),
            (&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "soon")], told("@n", 0)),
        ] {
            let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(supervisor(&env, 42), expected, "{variables:?}");
        }
    }
}
