//! Which backend is taken: the one that is written down, or for `auto` the first that works here. None is ever put in the
//! place of another that was asked for.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use super::nowhere::{bubblewrap, landlock};
use super::{Enforcement, Policy, Report, Sandbox, trust};
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::{bubblewrap, landlock};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// bubblewrap, else Landlock, else an error.
    Auto,
    /// Namespaces, by the program bwrap.
    Bubblewrap,
    /// Landlock, for machines without user namespaces or bwrap.
    Landlock,
    /// Nothing.
    Trust,
}

/// Why tools cannot be run as the configuration asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What was tried, and what came of it.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Unavailable {}

/// Makes a sandbox with a policy.
pub(super) type Make = dyn Fn(Policy) -> Result<Arc<dyn Sandbox>, Unavailable> + Send + Sync;

/// A backend that was tried on this machine and works.
#[derive(Clone)]
pub struct Backend {
    report: Report,
    make: Arc<Make>,
}

/// Tries what `mode` asks for. `guard` is a program that calls [`super::enter`]: this very binary ([`super::own_binary`]),
/// but for tests.
///
/// # Errors
/// If it does not work here, or enforces less than `required`; nothing is required of [`Mode::Trust`].
pub fn find(mode: Mode, guard: &Path, required: Enforcement) -> Result<Backend, Unavailable> {
    let enough = |backend| enough(backend, required);
    match mode {
        Mode::Bubblewrap => bubblewrap::find(guard).and_then(enough).map_err(Unavailable::or_trust),
        Mode::Landlock => landlock::find(guard).and_then(enough).map_err(Unavailable::or_trust),
        Mode::Trust => Ok(trust::find(guard)),
        Mode::Auto => bubblewrap::find(guard).and_then(enough).or_else(|first| {
            landlock::find(guard).and_then(enough).map_err(|second| {
                let cause = format!("no sandbox works here: {}; {}", first.cause, second.cause);
                let remedy = if first.remedy.is_empty() { second.remedy } else { first.remedy };
                Unavailable { cause, remedy }.or_trust()
            })
        }),
    }
}

impl Unavailable {
    fn or_trust(self) -> Self {
        const TRUST: &str =
            "or write `sandbox: {mode: trust}` to run tools as the user that runs duragent, with no wall around them";
        let remedy = if self.remedy.is_empty() { TRUST.to_owned() } else { format!("{}; {TRUST}", self.remedy) };
        Self { remedy, ..self }
    }
}

fn enough(backend: Backend, required: Enforcement) -> Result<Backend, Unavailable> {
    let Report { backend: name, enforcement, missing, .. } = &backend.report;
    if *enforcement >= required {
        return Ok(backend);
    }
    Err(Unavailable {
        cause: format!(
            "{name}: enforcement is {}, required is {}: not enforced: {}",
            enforcement.as_str(),
            required.as_str(),
            missing.join("; ")
        ),
        remedy: format!("write `enforcement: {}` below sandbox to accept that", enforcement.as_str()),
    })
}

impl Backend {
    pub(super) fn new(report: Report, make: Arc<Make>) -> Self {
        Self { report, make }
    }

    /// What it is, and what it was seen to enforce.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// A sandbox with `policy`.
    ///
    /// # Errors
    /// If this backend cannot enforce something in the policy.
    pub fn sandbox(&self, policy: Policy) -> Result<Arc<dyn Sandbox>, Unavailable> {
        (self.make)(policy)
    }
}
