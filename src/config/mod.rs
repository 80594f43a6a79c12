//! Files to plain structs: the one place that reads YAML and environment variables.
//!
//! Job: read `duragent.yaml`, `policy.yaml` and the agents of a workspace, check them, and hand them on as data; write
//! the first workspace (`init`), and say what is wrong with one (`check`).
//!
//! Invariants: an unknown key, a wrong type, a missing file, a value out of range is an error with file, line, column and
//! remedy; all errors are reported, not only the first; what the format knows and this build does not is a warning. One bad
//! agent does not keep the others from loading. What came from a variable or a key file is in no message.
//!
//! Absent: what is done with any of it. Nothing here opens a socket or looks at a session.

mod agent;
mod agents_md;
pub mod budgets;
pub mod check;
pub mod env;
mod file;
pub mod init;
mod list;
pub mod log;
pub mod policy;
mod problem;
mod profile;
mod providers;
mod proxy;
mod read;
pub mod sandbox;
mod secret_file;
mod server;
mod skills;
mod types;
mod yaml;

#[cfg(test)]
mod tests;

pub use budgets::Prices;
pub use log::Log;
pub use problem::Problem;
pub use providers::masked_url;
pub use proxy::Outward;
pub use read::file as regular_file;
pub use sandbox::{Sandbox, SandboxSpec, secret_files};
pub use types::{Config, Limits, Listen, Provider, ProviderKind, Retention, Secret, Server, ServerLimits};

use duragent_core::agent::AgentSpec;
use duragent_core::ids::is_id;
use duragent_core::policy::Policy;
use duragent_core::session::{Budgets, Compaction};
use env::Env;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most agents of a workspace: each costs a few files at start and at reload.
pub const AGENTS_MAX: usize = 256;

/// An agent as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// What it is.
    pub spec: AgentSpec,
    /// `policy.yaml` beside it.
    pub policy: Option<Policy>,
    /// Where its tools run: the workspace's sandbox and its own together.
    pub sandbox: SandboxSpec,
    /// What it may use up: the workspace's budgets and its own together.
    pub budgets: Budgets,
    /// What happens to a conversation that has outgrown the window.
    pub compaction: Compaction,
    /// Its directory.
    pub dir: PathBuf,
    /// What of its files is not supported or doubtful.
    pub warnings: Vec<Problem>,
}

impl Agent {
    /// Where its tools work: `workdir` of the spec, from the folder that holds the workspace `dir` on; that folder if the spec
    /// names none.
    #[must_use]
    pub fn workdir(&self, dir: &Path) -> PathBuf {
        let home = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.spec.workdir.as_ref().map_or_else(|| home.to_path_buf(), |workdir| types::from_base(home, workdir))
    }
}

/// A workspace as read.
#[derive(Debug)]
pub struct Workspace {
    /// The `.duragent` directory.
    pub dir: PathBuf,
    /// `duragent.yaml`.
    pub config: Config,
    /// `policy.yaml` of the workspace.
    pub policy: Option<Policy>,
    /// Agents by name. One that could not be read is there with its errors.
    pub agents: BTreeMap<String, Result<Agent, Vec<Problem>>>,
    /// What of `duragent.yaml` and the workspace's `policy.yaml` is not supported or doubtful.
    pub warnings: Vec<Problem>,
}

impl Workspace {
    /// Reads the workspace `dir`. `env` looks up variables ([`env::process`]); `tools` are the names of the tools there are.
    ///
    /// # Errors
    /// What is wrong with `duragent.yaml`, `policy.yaml` and the directory itself, warnings included. Errors of an agent stay
    /// with the agent.
    pub fn load(dir: &Path, env: Env<'_>, tools: &[&str]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let config = match file::load(dir, env) {
            Ok((config, warnings)) => {
                problems.extend(warnings);
                Some(config)
            }
            Err(errors) => {
                problems.extend(errors);
                None
            }
        };
        let policy = match policy::load(&dir.join("policy.yaml"), "policy.yaml") {
            Ok(Some((policy, warnings))) => {
                problems.extend(warnings);
                Some(policy)
            }
            Ok(None) => None,
            Err(errors) => {
                problems.extend(errors);
                None
            }
        };
        let names = agent_names(dir).unwrap_or_else(|message| {
            problems.push(Problem::file("agents", message));
            Vec::new()
        });
        match config {
            Some(config) if !problem::has_errors(&problems) => {
                let load = |name: String| {
                    let agent = if is_id(&name) {
                        agent::load(dir, &name, &config, env, tools)
                    } else {
                        let message = "expected a folder name of a-z, 0-9, _ and -, at most 64; rename it".to_owned();
                        Err(vec![Problem::file(&format!("agents/{name}"), message)])
                    };
                    (name, agent)
                };
                let mut agents: BTreeMap<_, _> = names.into_iter().map(load).collect();
                share_read_only(&mut agents);
                Ok(Self { dir: dir.to_path_buf(), config, policy, agents, warnings: problems })
            }
            _ => Err(problems),
        }
    }
}

/// True if `dir` is no `.duragent` in a folder: then it belongs to a service, and there is no folder to work in.
#[must_use]
pub fn is_service(dir: &Path) -> bool {
    dir.file_name().is_none_or(|name| name != ".duragent")
}

/// What one agent is made of, the tools of another must not change either.
fn share_read_only(agents: &mut BTreeMap<String, Result<Agent, Vec<Problem>>>) {
    let policies = || agents.values().flatten().map(|agent| &agent.sandbox.policy);
    let mut all: Vec<PathBuf> = policies().flat_map(|policy| &policy.read_only).cloned().collect();
    all.sort_unstable();
    all.dedup();
    for agent in agents.values_mut().flatten() {
        agent.sandbox.policy.read_only.clone_from(&all);
    }
}

/// Names of the folders in `agents/`, hidden ones left out. A workspace may have none.
fn agent_names(dir: &Path) -> Result<Vec<String>, String> {
    let cannot = |error: std::io::Error| format!("cannot read: {error}");
    let entries = match std::fs::read_dir(dir.join("agents")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
        if names.len() > AGENTS_MAX {
            return Err(format!("more than {AGENTS_MAX} agents; move some of them out of the workspace"));
        }
    }
    Ok(names)
}
