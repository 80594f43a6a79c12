//! What stands between a tool and this machine: a canary runs where tools run, tries what they must not do, and says what the
//! kernel answered. Backends that are not configured are tried as well, to say what could be had.

use super::Check;
use crate::cli::text;
use crate::config::{SandboxSpec, Workspace};
use duragent_platform::process;
use duragent_platform::sandbox::canary::{self, Finding};
use duragent_platform::sandbox::{self, Backend, Enforcement, Mode, Network, Place, Report};
use std::path::Path;

/// What [`canary::look`] calls the attempt that `network: all` allows.
const CONNECT: &str = "connect_to_the_machine";

pub fn look(dir: &Path, workdir: &Path, workspace: Option<&Workspace>) -> Vec<Check> {
    let guard = match sandbox::own_binary() {
        Ok(guard) => guard,
        Err(error) => {
            let evidence = format!("cannot find this binary, which stands around tools: {error}");
            return vec![Check::fail("sandbox", evidence)];
        }
    };
    let mut checks = Vec::new();
    if let Some(workspace) = workspace {
        checks.extend(configured(dir, workdir, workspace, &guard));
    }
    for (mode, name) in [(Mode::Bubblewrap, "bubblewrap"), (Mode::Landlock, "landlock")] {
        let name = format!("backend {name}");
        checks.push(match sandbox::find(mode, &guard, Enforcement::None) {
            Ok(backend) => works(&name, backend.report()),
            Err(unavailable) => Check::warn(&name, unavailable.cause).hint(unavailable.remedy),
        });
    }
    checks
}

fn works(name: &str, report: &Report) -> Check {
    let abi = report.landlock_abi.map_or_else(String::new, |abi| format!(", Landlock version {abi}"));
    let evidence = format!("a trial ran in it; enforcement {}{abi}", report.enforcement.as_str());
    match report.missing.as_slice() {
        [] => Check::ok(name, evidence),
        missing => Check::warn(name, format!("{evidence}; not enforced: {}", missing.join("; "))),
    }
}

/// The sandbox of the workspace, and those of agents that differ from it.
fn configured(dir: &Path, workdir: &Path, workspace: &Workspace, guard: &Path) -> Vec<Check> {
    let config = &workspace.config.sandbox;
    let backend = match sandbox::find(config.mode, guard, config.required) {
        Ok(backend) => backend,
        Err(unavailable) => return vec![Check::fail("sandbox", unavailable.cause).hint(unavailable.remedy)],
    };
    let common = config.spec(&Default::default());
    let mut checks = canary(&backend, "sandbox", &common, dir, workdir, true);
    let agents = workspace.agents.iter().filter_map(|(name, agent)| Some((name, agent.as_ref().ok()?)));
    for (name, agent) in agents.filter(|(_, agent)| !agent.spec.tools.is_empty() && agent.sandbox != common) {
        let workdir = agent.workdir(&workspace.dir);
        checks.extend(canary(&backend, &format!("sandbox of {name}"), &agent.sandbox, dir, &workdir, false));
    }
    checks
}

/// Runs a canary with one policy. `whole`: a line for each attempt, not only for those that succeed.
fn canary(backend: &Backend, name: &str, spec: &SandboxSpec, dir: &Path, workdir: &Path, whole: bool) -> Vec<Check> {
    let sandbox = match backend.sandbox(spec.policy.clone()) {
        Ok(sandbox) => sandbox,
        Err(unavailable) => return vec![Check::fail(name, unavailable.cause).hint(unavailable.remedy)],
    };
    let place = Place { workdir, artifacts: &dir.join("artifacts") };
    let findings = match canary::look(&*sandbox, place, &dir.join("duragent.yaml")) {
        Ok(findings) => findings,
        Err(error) => {
            let evidence = format!("{}: a canary could not be run: {error}", sandbox.report().backend);
            return vec![Check::fail(name, evidence)];
        }
    };
    let encloses = sandbox.report().enforcement > Enforcement::None;
    let is_allowed = |finding: &Finding| finding.name == CONNECT && spec.policy.network == Network::All;
    let mut lines = Vec::new();
    for finding in &findings {
        let name = format!("canary {}", finding.name);
        match (finding.reached, encloses) {
            (true, true) if is_allowed(finding) => {
                lines.push(Check::ok(&name, format!("{}, as network: all allows", finding.evidence)));
            }
            (true, true) => lines.push(Check::fail(&name, format!("not kept from it: {}", finding.evidence))),
            (true, false) => lines.push(Check::warn(&name, format!("not kept from it: {}", finding.evidence))),
            (false, _) if whole => lines.push(Check::ok(&name, format!("refused: {}", finding.evidence))),
            (false, _) => {}
        }
    }
    let refused = findings.iter().filter(|finding| !finding.reached).count();
    let evidence = format!(
        "{}, enforcement {}; {refused} of {} that a canary tried were refused",
        sandbox.report().backend,
        sandbox.report().enforcement.as_str(),
        text::count(findings.len() as u64, "thing"),
    );
    let head = match (encloses, process::uid()) {
        (true, _) => Check::ok(name, evidence),
        (false, 0) => Check::warn(name, evidence).hint("tools are root here: write `sandbox: {mode: auto}`"),
        (false, _) => {
            Check::warn(name, evidence).hint("tools can do whatever this user can: write `sandbox: {mode: auto}`")
        }
    };
    lines.insert(0, head);
    lines
}
