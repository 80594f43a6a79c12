//! `duragent doctor [--json]`: what this machine and this workspace are good for, measured.
//!
//! Every line is evidence of something that was tried just now: a file that was synced, a canary that ran in the sandbox, a
//! model server that answered. `FAIL` is what keeps sessions from working, and is exit code 1; the report is printed all the
//! same. `warn` is what somebody should know.
//!
//! Absent: repairs, and anything that outlives the command.

mod disk;
mod provider;
mod sandbox;

use super::connect::{Connection, socket};
use super::{Common, Failure, setup, text};
use crate::config::{Workspace, check};
use crate::session::Agents;
use duragent_core::json::ObjectWriter;
use duragent_core::time;
use duragent_platform::{clock, process};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the monotonic clock is watched.
const NAP: Duration = Duration::from_millis(5);
/// Resident memory in bytes above which a small board is short of it: an idle server is to stay far below.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// What was looked at and found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: String,
    status: Status,
    evidence: String,
    hint: Option<String>,
}

impl Check {
    fn new(name: &str, status: Status, evidence: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status, evidence: evidence.into(), hint: None }
    }

    fn ok(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, evidence)
    }

    fn warn(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Status::Warn, evidence)
    }

    fn fail(name: &str, evidence: impl Into<String>) -> Self {
        Self::new(name, Status::Fail, evidence)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut json = false;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    let checks = look(&dir);
    if json {
        text::put_json(&as_json(&checks))?;
    } else {
        text::put(&as_text(&checks))?;
    }
    let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
    if failed == 0 {
        return Ok(0);
    }
    let failed = text::count(failed as u64, "check");
    Err(Failure::new(format!("{failed} failed")).hint("what to do stands below each line that says FAIL"))
}

fn look(dir: &Path) -> Vec<Check> {
    let mut checks = vec![Check::ok("workspace", dir.display().to_string())];
    let (workspace, agents) = configuration(dir, &mut checks);
    let workdir = dir.parent().unwrap_or(dir);
    checks.extend(sandbox::look(dir, workdir, workspace.as_ref()));
    checks.extend(disk::look(dir));
    checks.extend(clocks());
    if let (Some(workspace), Some(agents)) = (workspace, agents) {
        checks.extend(provider::look(&workspace, &agents));
    }
    checks.push(server(dir));
    checks.push(memory(process::resident_bytes()));
    checks
}

/// What is configured, as far as it can be read.
fn configuration(dir: &Path, checks: &mut Vec<Check>) -> (Option<Workspace>, Option<Agents>) {
    const NAME: &str = "configuration";
    let see = "see it all with: duragent check";
    let workspace = match setup::load(dir) {
        Ok(workspace) => workspace,
        Err(failure) => {
            checks.push(Check::fail(NAME, failure.error.lines().collect::<Vec<_>>().join("; ")).hint(see));
            return (None, None);
        }
    };
    let agents = match setup::agents(&workspace) {
        Ok(agents) => agents,
        Err(failure) => {
            checks.push(Check::fail(NAME, failure.error).hint(see));
            return (Some(workspace), None);
        }
    };
    let report = check::check(dir, &crate::config::env::process, setup::TOOLS);
    let found = format!(
        "{} can be used, {}",
        text::count(agents.good.len() as u64, "agent"),
        report.lines.last().map_or("", String::as_str)
    );
    checks.push(match (agents.broken.is_empty() && report.errors == 0, report.warnings) {
        (true, 0) => Check::ok(NAME, found),
        (true, _) => Check::warn(NAME, found).hint(see),
        (false, _) => Check::fail(NAME, found).hint(see),
    });
    for (name, error) in &agents.broken {
        checks.push(Check::fail(&format!("agent {name}"), error.clone()).hint(see));
    }
    (Some(workspace), Some(agents))
}

fn clocks() -> [Check; 2] {
    let (wall, start) = (clock::wall_ms(), Instant::now());
    std::thread::sleep(NAP);
    let slept = start.elapsed();
    let evidence = format!("a sleep of {} ms was measured as {:.1} ms", NAP.as_millis(), slept.as_secs_f64() * 1000.0);
    let monotonic = match slept >= NAP {
        true => Check::ok("monotonic clock", evidence),
        false => Check::fail("monotonic clock", evidence).hint("deadlines cannot be kept on this machine"),
    };
    [wall_clock(wall), monotonic]
}

fn wall_clock(now_ms: u64) -> Check {
    let now = time::rfc3339(now_ms);
    if clock::is_set(now_ms) {
        return Check::ok("wall clock", now);
    }
    let evidence = format!("{now} is before this release was made");
    Check::warn("wall clock", evidence).hint("set the clock; the order of events does not depend on it, their times do")
}

fn server(dir: &Path) -> Check {
    let path = socket(dir);
    let Some(server) = Connection::server(dir) else {
        return Check::ok("server", "none is up; commands work on the files");
    };
    match server.get("/version") {
        Ok(version) => {
            let version = text::field(&version, "version");
            Check::ok("server", format!("duragent {version} answers on {}", path.display()))
        }
        Err(failure) => {
            let evidence = format!("{}: {}", path.display(), failure.error);
            Check::fail("server", evidence).hint("look at its log; stop it with TERM and start it again")
        }
    }
}

fn memory(resident: Option<u64>) -> Check {
    match resident {
        Some(bytes) if bytes > RESIDENT_BYTES_MAX => {
            Check::warn("memory", format!("this process takes {}", size(bytes)))
                .hint("more than it should; please report it")
        }
        Some(bytes) => Check::ok("memory", format!("this process takes {}", size(bytes))),
        None => Check::warn("memory", "the system does not tell what this process takes"),
    }
}

/// Bytes for people, rounded down to a tenth.
fn size(bytes: u64) -> String {
    for (unit, name) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    text::count(bytes, "byte")
}

fn as_text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0) + 1;
    let mut out = String::new();
    for Check { name, status, evidence, hint } in checks {
        let name = format!("{name}:");
        out.push_str(&format!("{:4}  {name:width$} {}\n", status.as_str(), text::clean(evidence)));
        if let Some(hint) = hint {
            out.push_str(&format!("      {:width$} → {}\n", "", text::clean(hint)));
        }
    }
    out
}

fn as_json(checks: &[Check]) -> String {
    let mut out = String::from("{\"checks\":[");
    for (i, Check { name, status, evidence, hint }) in checks.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let mut object = ObjectWriter::new(&mut out);
        object.str("name", name).str("status", status.as_str()).str("evidence", evidence);
        object.str_opt("hint", hint.as_deref());
        object.finish();
    }
    out.push_str("]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_printed_for_people_and_programs() {
        let checks = [Check::ok("disk", "fine\u{1b}"), Check::fail("a model", "no \"x\"").hint("pull it")];
        let text = "ok    disk:    fine\u{fffd}\nFAIL  a model: no \"x\"\n               → pull it\n";
        assert_eq!(as_text(&checks), text);
        let json = as_json(&checks);
        assert!(duragent_core::json::parse(&json).is_ok(), "{json}");
        assert!(json.ends_with(
            "{\"name\":\"a model\",\"status\":\"FAIL\",\"evidence\":\"no \\\"x\\\"\",\"hint\":\"pull it\"}]}"
        ));
    }

    #[test]
    fn a_clock_that_was_never_set_is_told() {
        for (ms, status) in [(0, Status::Warn), (clock::RELEASE_MS - 1, Status::Warn), (clock::RELEASE_MS, Status::Ok)]
        {
            assert_eq!(wall_clock(ms).status, status, "{ms}");
        }
        assert_eq!(time::rfc3339(clock::RELEASE_MS), "2026-01-01T00:00:00.000Z");
    }

    #[test]
    fn memory_is_told_with_its_size() {
        let check = |bytes, status, evidence: &str| {
            let found = memory(bytes);
            assert_eq!((found.status, found.evidence.as_str()), (status, evidence));
        };
        check(Some(6 << 20 | 512 << 10), Status::Ok, "this process takes 6.5 MiB");
        check(Some(RESIDENT_BYTES_MAX + 1), Status::Warn, "this process takes 64.0 MiB");
        check(None, Status::Warn, "the system does not tell what this process takes");
        let sizes = [size(0), size(1), size(1023), size(1536), size(3 << 30)];
        assert_eq!(sizes, ["0 bytes", "1 byte", "1023 bytes", "1.5 KiB", "3.0 GiB"]);
    }
}
