//! The tools that are part of the program. Six are enough: what they cannot do, `bash` can.

mod bash;
mod edit_file;
mod list_dir;
mod read_file;
mod search_files;
mod skill;
mod write_file;

use super::arguments::{Field, schema};
use super::{Context, Tool};
use duragent_core::event::{Denied, ToolOutcome};
use duragent_core::skill::Skill;
use duragent_core::tool::{EffectClass, PolicyArgument, Tags, ToolDecl};
use duragent_platform::sandbox::Refused;
use std::io;
use std::path::Path;
use std::time::Instant;

/// All there are, sorted.
pub const NAMES: [&str; 6] = ["bash", "edit_file", "list_dir", "read_file", "search_files", "write_file"];

/// Makes the tool `name`. `environment` is what processes see of the runtime's.
pub(super) fn make(name: &str, environment: &[(String, String)]) -> Option<Box<dyn Tool>> {
    Some(match name {
        "bash" => Box::new(bash::Bash::new(environment)),
        "edit_file" => Box::new(edit_file::EditFile::new()),
        "list_dir" => Box::new(list_dir::ListDir::new()),
        "read_file" => Box::new(read_file::ReadFile::new()),
        "search_files" => Box::new(search_files::SearchFiles::new()),
        "write_file" => Box::new(write_file::WriteFile::new()),
        _ => return None,
    })
}

/// The tool that reads `skills` to the model; for agents that have some.
#[must_use]
pub fn skill(skills: Vec<Skill>) -> Box<dyn Tool> {
    Box::new(skill::ReadSkill::new(skills))
}

fn declare(name: &str, description: &str, fields: &[Field], effect: EffectClass, policy: PolicyArgument) -> ToolDecl {
    let tags = Tags::default();
    ToolDecl { name: name.into(), description: description.into(), parameters: schema(fields), effect, policy, tags }
}

/// A result that is just text.
fn said(result: impl Into<String>) -> ToolOutcome {
    ToolOutcome { result: result.into(), ..ToolOutcome::default() }
}

/// A result with a refusal of `kind` (`fs`, `timeout`, `limit`) beside it.
fn refused(result: String, kind: &str, what: &str, hint: &str) -> ToolOutcome {
    let denied = Some(Denied { kind: kind.into(), what: what.into(), hint: hint.into() });
    ToolOutcome { result, denied, ..ToolOutcome::default() }
}

/// What a file operation's error means to the model. `verb` completes "cannot …".
fn trouble(verb: &str, path: &str, error: &io::Error) -> ToolOutcome {
    use io::ErrorKind as Kind;
    if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        return refused_by_sandbox(verb, path, refused);
    }
    let (why, hint) = match error.kind() {
        Kind::NotFound => ("no such file or directory", "list_dir shows what is there"),
        Kind::IsADirectory => ("it is a directory", "list_dir shows what is in it"),
        Kind::NotADirectory => {
            ("a part of the path that should be a directory is a file", "list_dir shows what is there")
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => ("permission denied", "use another path, or ask the user"),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => ("no space left", "ask the user to make room"),
        _ => return said(format!("cannot {verb} {path:?}: {error}")),
    };
    let result = format!("cannot {verb} {path:?}: {why}; {hint}");
    match error.kind() {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => refused(result, "fs", path, hint),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => refused(result, "limit", path, hint),
        _ => said(result),
    }
}

/// The sandbox did not let the file tools do what a shell in it could not do either.
fn refused_by_sandbox(verb: &str, path: &str, Refused { path: found, hint, .. }: &Refused) -> ToolOutcome {
    let what = found.to_string_lossy();
    // A link, or steps up, may have led somewhere that the path does not show.
    let which = if found.ends_with(Path::new(path)) { String::new() } else { format!(", which is {what:?}") };
    refused(format!("cannot {verb} {path:?}{which}: {hint}"), "fs", &what, hint)
}

/// Tells work in this process when it has to stop: nobody can kill it.
struct Watch<'a> {
    context: &'a Context<'a>,
    /// `None`: further away than the clock can tell.
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Deadline,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        Self { context, until: Instant::now().checked_add(context.deadline) }
    }

    /// To be asked between two pieces of work.
    fn stop(&self) -> Option<Stop> {
        if self.context.cancel.is_raised() {
            Some(Stop::Cancelled)
        } else if self.until.is_some_and(|until| Instant::now() >= until) {
            Some(Stop::Deadline)
        } else {
            None
        }
    }

    /// What came of the work until then, and why it is not more.
    fn stopped(&self, why: Stop, so_far: String, hint: &str) -> ToolOutcome {
        let mut outcome = match why {
            Stop::Cancelled => said(so_far + "[cancelled]"),
            Stop::Deadline => {
                let seconds = seconds(self.context.deadline);
                refused(
                    format!("{so_far}[stopped at the deadline of {seconds} s]"),
                    "timeout",
                    &format!("{seconds} s"),
                    hint,
                )
            }
        };
        outcome.truncated = true;
        outcome
    }
}

/// Whole seconds, rounded up.
fn seconds(duration: std::time::Duration) -> u128 {
    duration.as_millis().div_ceil(1000)
}

#[cfg(test)]
mod tests;
