//! Tools: what the model can ask for. Execution goes through the platform's sandbox, always.
//!
//! Absent: whether a call may run (policy, in core) and what a crash does to it (the session machine).

mod arguments;
pub mod builtin;
mod capture;
mod registry;
#[cfg(test)]
mod testing;

pub use registry::{Registry, UnknownTool};

use duragent_core::event::ToolOutcome;
use duragent_core::tool::ToolDecl;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Sandbox, View};
use std::path::Path;
use std::time::Duration;

/// What a call runs with.
pub struct Context<'a> {
    /// Where it runs.
    pub sandbox: &'a dyn Sandbox,
    /// What the call may reach; relative paths start in its working directory.
    pub view: &'a View,
    /// The session's `artifacts/`; made when first needed.
    pub artifacts: &'a Path,
    /// The call: names artifacts, and is the idempotency key (`DURAGENT_CALL_ID` in the environment of processes).
    pub call_id: &'a str,
    /// Session, for `DURAGENT_SESSION` in the environment of processes.
    pub session: &'a str,
    /// Wall time it may take.
    pub deadline: Duration,
    /// Most bytes of output that go to the model; the whole goes to an artifact.
    pub output_bytes_max: usize,
    /// Most bytes of one artifact; what comes after is dropped, and the result says so.
    pub artifact_bytes_max: u64,
    /// Raised when the turn is cancelled.
    pub cancel: &'a Cancel,
}

/// A tool. Called on a blocking thread.
pub trait Tool: Send + Sync {
    /// What the model and the session machine are told.
    fn decl(&self) -> &ToolDecl;

    /// Runs one call. `arguments` is the compact JSON text of an object. A call that cannot be done is a result too: it says
    /// what, expected, found and remedy in words the model can use. `duration_ms` is filled in by the caller.
    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome;
}
