//! What the runtime is made with, as plain values: whoever reads configuration fills this in.

use super::circuit::Circuit;
use super::retention::Keep;
use super::tally::Slow;
use crate::provider::Provider;
use crate::tool::Registry;
use duragent_core::session::Rules;
use duragent_core::tool::ToolCall;
use duragent_platform::sandbox::{Policy, Sandbox};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the runtime needs to know.
pub struct Setup {
    /// `sessions/` of the workspace.
    pub sessions: PathBuf,
    /// Who can be talked to.
    pub agents: Agents,
    /// Reads the agents anew; what is wrong with the configuration otherwise.
    pub reload: Box<dyn Fn() -> Result<Agents, String> + Send + Sync>,
    /// Limits of the device.
    pub limits: DeviceLimits,
}

/// Agents that work, and those that do not with the reason.
#[derive(Default)]
pub struct Agents {
    /// In the order of their names.
    pub good: Vec<Arc<Agent>>,
    /// Names and reasons, in the order of the names.
    pub broken: Vec<(String, String)>,
    /// What of their sessions is kept.
    pub keep: Keep,
}

/// Limits that protect the machine, as opposed to those of a turn.
#[derive(Debug, Clone)]
pub struct DeviceLimits {
    /// Sessions in memory at the same time.
    pub sessions_live_max: usize,
    /// How long an idle session stays in memory.
    pub session_idle: Duration,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of a log segment.
    pub log_segment_bytes_max: u64,
    /// Bytes of a tool's output that go to the model.
    pub output_bytes_max: usize,
    /// Bytes of one artifact.
    pub artifact_bytes_max: u64,
    /// Wall time of one tool call.
    pub tool_time_max: Duration,
    /// Threads that write logs: as many syncs run side by side, which the file system merges. Made when needed.
    pub writers_max: usize,
    /// Threads that wait for models and tools.
    pub workers_max: usize,
    /// Threads that read logs for clients.
    pub readers_max: usize,
    /// Bytes of the stack of each of these threads.
    pub stack_bytes: usize,
    /// Whether this is the workspace's only process that has sessions at work. Else the budget of the day is kept by a lock
    /// and by reading what others have written, before every decision.
    pub alone: bool,
    /// What is reported as slow; `None` if nobody operates the runtime, and nothing is reported at all.
    pub slow: Option<Slow>,
    /// A file, and how many bytes of the disk it keeps for what has to be said when it is full; none for commands.
    pub reserve: Option<(PathBuf, u64)>,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            sessions_live_max: 256,
            session_idle: Duration::from_secs(60),
            message_bytes_max: 256 * 1024,
            log_segment_bytes_max: 64 * 1024 * 1024,
            output_bytes_max: 16 * 1024,
            artifact_bytes_max: 64 * 1024 * 1024,
            tool_time_max: Duration::from_secs(300),
            writers_max: 64,
            workers_max: 64,
            // Reading is work for the processor: more threads take it from whoever has to answer meanwhile.
            readers_max: 4,
            stack_bytes: 512 * 1024,
            alone: true,
            slow: None,
            reserve: None,
        }
    }
}

/// Where an agent's tools work.
#[derive(Debug, Clone)]
pub enum Workdir {
    /// One directory for all its sessions.
    Shared(PathBuf),
    /// `sessions/<id>/work/`.
    PerSession,
}

/// Writes a rule that allows a call from now on; returns what went wrong.
pub type AllowAlways = Box<dyn Fn(&ToolCall) -> Result<(), String> + Send + Sync>;

/// What nobody but people need to know of an agent.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its version, as written.
    pub version: Option<String>,
    /// Its labels, in the order of the file.
    pub labels: Vec<(String, String)>,
    /// Its own endpoint in place of the provider's, without user and password.
    pub base_url: Option<String>,
    /// Whether it is told what `AGENTS.md` says.
    pub agents_md: bool,
    /// Names of the skills it may read.
    pub skills: Vec<String>,
    /// What its tools may reach.
    pub policy: Policy,
    /// Names of the variables that its tools see, if they are set.
    pub env: Vec<String>,
    /// What money is called, if somebody said so.
    pub currency: Option<String>,
}

/// Where and how one model of an agent is asked.
#[derive(Clone)]
pub struct Endpoint {
    /// Who answers.
    pub provider: Arc<dyn Provider>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Most tokens of an answer.
    pub max_output_tokens: Option<u64>,
    /// Whether it is asked at all; shared by all who ask this provider.
    pub circuit: Arc<Circuit>,
}

/// An agent, ready to be used.
pub struct Agent {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it is shown with besides.
    pub about: About,
    /// What the machine decides by.
    pub rules: Rules,
    /// System prompt.
    pub system: String,
    /// Where to ask its own model.
    pub endpoint: Endpoint,
    /// Where to ask each of the rules' fallbacks, in the same order.
    pub fallbacks: Vec<Endpoint>,
    /// Its tools.
    pub tools: Registry,
    /// Where they run.
    pub sandbox: Arc<dyn Sandbox>,
    /// Wall time of one of its calls, if it is less than [`DeviceLimits::tool_time_max`].
    pub tool_time_max: Option<Duration>,
    /// Bytes of one result that go to its model, if they are less than [`DeviceLimits::output_bytes_max`].
    pub output_bytes_max: Option<usize>,
    /// Where they work.
    pub workdir: Workdir,
    /// Whether a turn pauses when the last client leaves.
    pub pause_on_disconnect: bool,
    /// Writes a rule that allows a call from now on into the agent's policy file; returns what went wrong.
    pub allow_always: AllowAlways,
}

impl Agent {
    /// Where to ask the model at a place of the chain, as in [`Rules::model_at`].
    #[must_use]
    pub fn endpoint_at(&self, place: usize) -> &Endpoint {
        place.checked_sub(1).and_then(|at| self.fallbacks.get(at)).unwrap_or(&self.endpoint)
    }
}
