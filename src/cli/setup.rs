//! From configuration as read to a runtime as it runs: the one place that knows both.

use super::Failure;
use crate::config::budgets::{self, Known};
use crate::config::{self, Workspace, env, policy};
use crate::provider::config::{ProviderConfig, Transcript};
use crate::provider::http::{Proxy, Settings, SetupError, Timeouts};
use crate::provider::{self, Provider};
use crate::session::retention::Keep;
use crate::session::{self, About, Circuit, DeviceLimits, Endpoint, Setup, Workdir};
use crate::tool::{Registry, builtin};
use duragent_core::agent::{ModelSpec, OnDisconnect};
use duragent_core::event::SandboxReport;
use duragent_core::policy::{Rule, argument};
use duragent_core::session::{Limits, Model, Price, Rules};
use duragent_core::tool::{ToolCall, ToolDecl};
use duragent_platform::cancel::Cancel;
use duragent_platform::file;
use duragent_platform::log::{self, Format, Level, Value};
use duragent_platform::sandbox::policy::{Place, View};
use duragent_platform::sandbox::{
    self, Backend, Command, Ended, Enforcement, Mode, Report, Sandbox, Stream, Unavailable,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Names of the tools there are.
pub const TOOLS: &[&str] = &["bash", "read_file", "write_file", "edit_file", "list_dir", "search_files"];

/// Reads the workspace at `dir`.
pub fn load(dir: &Path) -> Result<Workspace, Failure> {
    let workspace = Workspace::load(dir, &env::process, TOOLS).map_err(|problems| {
        let lines: Vec<String> = problems.iter().filter(|p| !p.warning).map(ToString::to_string).collect();
        Failure::config(lines.join("\n")).hint("see it all with: duragent check")
    })?;
    Ok(workspace)
}

/// Says in the log what of the workspace is off, and what of its agents.
pub fn warn(workspace: &Workspace) {
    let agents = workspace.agents.values().flatten().flat_map(|agent| &agent.warnings);
    for warning in workspace.warnings.iter().chain(agents) {
        log::warn(&warning.to_string());
    }
}

/// A runtime's setup for the workspace at `dir`.
pub fn setup(dir: &Path) -> Result<Setup, Failure> {
    from(dir, &load(dir)?)
}

/// The same for a workspace that is loaded already.
pub fn from(dir: &Path, workspace: &Workspace) -> Result<Setup, Failure> {
    let limits = device_limits(&workspace.config.limits);
    let agents = agents(workspace)?;
    let again = dir.to_path_buf();
    let reload = move || {
        let told = |failure: Failure| match failure.hint {
            Some(hint) => format!("{}; {hint}", failure.error),
            None => failure.error,
        };
        let workspace = load(&again).map_err(told)?;
        let agents = self::agents(&workspace).map_err(told)?;
        configure_log(&workspace.config.log);
        warn(&workspace);
        log::info("configuration reloaded");
        Ok(agents)
    };
    Ok(Setup { sessions: dir.join("sessions"), agents, reload: Box::new(reload), limits })
}

/// What the command line said of the log of a server; the configuration is not asked about it then.
#[derive(Debug, Default)]
pub struct LogOptions {
    /// `--log-level`.
    pub level: Option<Level>,
    /// `--log-format`.
    pub format: Option<Format>,
    /// `--log-file`.
    pub file: Option<PathBuf>,
}

/// Set by a server, and by nobody else: commands speak to those who call them.
pub static LOG: OnceLock<LogOptions> = OnceLock::new();

/// Writes the log as the configuration says.
pub fn configure_log(config: &config::Log) {
    let Some(LogOptions { level, format, file }) = LOG.get() else { return };
    log::configure(level.unwrap_or(config.level), format.unwrap_or(config.format));
    let settings = file.as_ref().or(config.file.as_ref()).map(|path| log::file::Settings {
        path: path.clone(),
        bytes_max: config.file_bytes_max,
        files_max: u32::try_from(config.files_max).unwrap_or(u32::MAX),
    });
    if let Err(error) = log::file::to_file(settings) {
        log::warn(&format!("no thread for the log file: {error}"));
    }
}

fn device_limits(l: &config::Limits) -> DeviceLimits {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    DeviceLimits {
        sessions_live_max: size(l.sessions_live_max),
        session_idle: Duration::from_secs(l.session_idle_seconds),
        message_bytes_max: size(l.message_bytes_max),
        log_segment_bytes_max: l.log_segment_bytes_max,
        output_bytes_max: size(l.output_bytes_max),
        artifact_bytes_max: l.artifact_bytes_max,
        tool_time_max: Duration::from_secs(l.tool_seconds_max),
        writers_max: size(l.writers_max),
        workers_max: size(l.workers_max),
        readers_max: size(l.readers_max),
        stack_bytes: size(l.stack_bytes),
        // The server says otherwise.
        alone: false,
        ..DeviceLimits::default()
    }
}

/// What is kept of sessions.
pub fn keep(r: &config::Retention) -> Keep {
    Keep {
        closed_days: r.closed_days,
        idle_days: r.idle_days,
        sessions_max: r.sessions_max,
        artifacts_days: r.artifacts_days,
        bytes_max: r.bytes_max,
    }
}

/// Builds every agent of the workspace; one that cannot be built does not keep the others.
pub fn agents(workspace: &Workspace) -> Result<session::Agents, Failure> {
    let backend = backend(workspace)?;
    let mut providers = Providers::new();
    let mut agents = session::Agents { keep: keep(&workspace.config.retention), ..session::Agents::default() };
    for (name, read) in &workspace.agents {
        let built = match read {
            Ok(read) => agent(workspace, read, backend.as_ref(), &mut providers),
            Err(problems) => {
                Err(problems.iter().filter(|p| !p.warning).map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        };
        match built {
            Ok(agent) => agents.good.push(Arc::new(agent)),
            Err(error) => agents.broken.push((name.clone(), error)),
        }
    }
    Ok(agents)
}

/// What tools run in, tried out on this machine; `None` if no agent has any.
fn backend(workspace: &Workspace) -> Result<Option<Backend>, Failure> {
    if workspace.agents.values().flatten().all(|agent| agent.spec.tools.is_empty()) {
        return Ok(None);
    }
    let config::Sandbox { mode, required, .. } = workspace.config.sandbox;
    let guard = sandbox::own_binary().map_err(|e| Failure::new(format!("cannot find this binary: {e}")))?;
    let found = sandbox::find(mode, &guard, required);
    found.map(Some).map_err(|Unavailable { cause, remedy }| Failure::config(cause).hint(remedy))
}

/// For an agent without tools: nothing runs here.
struct Nowhere;

impl Sandbox for Nowhere {
    fn report(&self) -> &Report {
        static REPORT: Report =
            Report { backend: "none", enforcement: Enforcement::None, landlock_abi: None, missing: Vec::new() };
        &REPORT
    }

    fn view(&self, place: Place<'_>) -> View {
        View::new(&sandbox::Policy::default(), place)
    }

    fn run(&self, _: &View, _: &Command, _: &Cancel, _: &mut dyn FnMut(Stream, &[u8])) -> io::Result<Ended> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this agent has no tools"))
    }
}

/// What processes of an agent's tools see of this environment.
fn environment(mode: Mode, names: &[String]) -> Vec<(String, String)> {
    // Without a wall the home directory is there as for everybody; with one it is not, unless somebody says so.
    let home = (mode == Mode::Trust && !names.iter().any(|name| name == "HOME")).then_some("HOME");
    let names = names.iter().map(String::as_str).chain(home);
    names.filter_map(|name| Some((name.to_owned(), env::process(name)?))).collect()
}

/// By name in the configuration and base URL of the agent.
type Providers = Vec<((String, Option<String>), (Arc<dyn Provider>, Arc<Circuit>))>;

fn agent(
    workspace: &Workspace,
    read: &config::Agent,
    backend: Option<&Backend>,
    providers: &mut Providers,
) -> Result<session::Agent, String> {
    let (spec, limits) = (&read.spec, &workspace.config.limits);
    let own = asked(workspace, read, &spec.model, providers)?;
    let others: Result<Vec<_>, _> = spec.model.fallback.iter().map(|m| asked(workspace, read, m, providers)).collect();
    let (fallbacks, other_endpoints) = others?.into_iter().unzip();
    let environment = environment(workspace.config.sandbox.mode, &read.sandbox.env);
    let mut tools = Registry::new(&spec.tools, &environment).map_err(|error| error.to_string())?;
    if !spec.skills.is_empty() {
        tools.add(builtin::skill(spec.skills.clone()));
    }
    let sandbox: Arc<dyn Sandbox> = match backend {
        Some(backend) if !spec.tools.is_empty() => {
            let told = |Unavailable { cause, remedy }| format!("{cause}; {remedy}");
            backend.sandbox(read.sandbox.policy.clone()).map_err(told)?
        }
        _ => Arc::new(Nowhere),
    };
    let workdir = read.workdir(&workspace.dir);
    let report = sandbox.report();
    let report = SandboxReport {
        backend: report.backend.into(),
        enforcement: report.enforcement.as_str().into(),
        landlock_abi: report.landlock_abi.map(u64::from),
    };
    let system = spec.system_prompt();
    let rules = Rules {
        model: own.0,
        fallbacks,
        prefix_bytes: tools.decls().map(declared_bytes).sum::<u64>() + system.len() as u64,
        compaction: read.compaction,
        budgets: read.budgets,
        tools: tools.decls().map(|decl| ToolDecl { tags: workspace.tags(read, &decl.name), ..decl.clone() }).collect(),
        policies: workspace.policy.iter().chain(&read.policy).cloned().collect(),
        workdir: workdir.to_string_lossy().into_owned(),
        sandbox: report,
        limits: Limits {
            steps_max: spec.steps_max.unwrap_or(limits.steps_max),
            turn_ms_max: limits.turn_seconds_max.saturating_mul(1000),
            attempts_max: limits.model_attempts_max,
            approval_ms_max: limits.approval_seconds_max.saturating_mul(1000),
            repeats_max: limits.call_repeats_max,
            offline_ms_max: limits.offline_seconds_max.saturating_mul(1000),
            queue_max: limits.messages_waiting_max,
        },
    };
    Ok(session::Agent {
        name: spec.name.clone(),
        description: spec.description.clone().unwrap_or_default(),
        about: About {
            version: spec.version.clone(),
            labels: spec.labels.clone(),
            base_url: spec.model.base_url.as_deref().map(config::masked_url),
            agents_md: spec.agents_md,
            skills: spec.skills.iter().map(|skill| skill.name.clone()).collect(),
            policy: read.sandbox.policy.clone(),
            env: read.sandbox.env.clone(),
            currency: workspace.config.prices.currency.clone(),
        },
        allow_always: Box::new(allow_always(read.dir.clone(), &rules)),
        rules,
        system,
        endpoint: own.1,
        fallbacks: other_endpoints,
        tools,
        sandbox,
        tool_time_max: read.sandbox.wall_seconds.map(Duration::from_secs),
        output_bytes_max: read.sandbox.output_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        workdir: if config::is_service(&workspace.dir) && spec.workdir.is_none() {
            Workdir::PerSession
        } else {
            Workdir::Shared(workdir)
        },
        pause_on_disconnect: spec.on_disconnect == OnDisconnect::Pause,
    })
}

/// A model of the chain: what the machine has to know of it, and where it is asked.
fn asked(
    workspace: &Workspace,
    read: &config::Agent,
    spec: &ModelSpec,
    providers: &mut Providers,
) -> Result<(Model, Endpoint), String> {
    let endpoint = workspace.config.providers.get(&spec.provider);
    let endpoint = endpoint.ok_or_else(|| format!("no provider {:?} in duragent.yaml", spec.provider))?;
    let key = (spec.provider.clone(), spec.base_url.clone());
    let (provider, circuit) = match providers.iter().find(|(known, _)| *known == key) {
        Some((_, known)) => known.clone(),
        None => {
            let built = (build_provider(endpoint, spec.base_url.as_deref())?, Arc::default());
            providers.push((key, built.clone()));
            built
        }
    };
    let (temperature, max_output_tokens) = (spec.temperature, spec.max_output_tokens);
    let asked = Endpoint { provider, temperature, max_output_tokens, circuit };
    Ok((model(workspace, read, spec, endpoint), asked))
}

/// What the machine has to know of a model of the chain.
fn model(workspace: &Workspace, read: &config::Agent, spec: &ModelSpec, endpoint: &config::Provider) -> Model {
    let context_tokens = spec.context_tokens.unwrap_or(endpoint.context_tokens);
    let known =
        budgets::price(&workspace.config.prices, &spec.provider, endpoint, spec.base_url.as_deref(), &spec.name);
    let price = match known {
        Known::Price(price) => price,
        // The least there is: what the provider says takes its place, and nothing is asked once the money is used up.
        Known::Told if budgets::about_money(&read.budgets) => Price { input: 1, output: 1, cached: 1 },
        Known::Told | Known::Unknown => Price::default(),
    };
    Model {
        provider: spec.provider.clone(),
        name: spec.name.clone(),
        context_tokens,
        answer_tokens: spec.max_output_tokens.unwrap_or_else(|| endpoint.answer_tokens(context_tokens)),
        token_tenths: endpoint.token_tenths,
        price,
    }
}

/// Bytes of a tool's declaration in a request, wrapping included.
fn declared_bytes(tool: &ToolDecl) -> u64 {
    const WRAPPING: usize = 64;
    (WRAPPING + tool.name.len() + tool.description.len() + tool.parameters.len()) as u64
}

fn build_provider(endpoint: &config::Provider, base_url: Option<&str>) -> Result<Arc<dyn Provider>, String> {
    let timeouts = Timeouts {
        connect: Duration::from_secs(endpoint.connect_seconds_max),
        first_byte: Duration::from_secs(endpoint.first_byte_seconds_max),
        idle: Duration::from_secs(endpoint.idle_seconds_max),
    };
    let base_url = base_url.unwrap_or(&endpoint.base_url);
    let told = |error: SetupError| error.to_string();
    let config = ProviderConfig {
        kind: endpoint.kind,
        http: Settings {
            api_key: endpoint.api_key.clone(),
            key_from: endpoint.key_from.clone(),
            headers: endpoint.headers.clone(),
            ca: endpoint.ca.as_ref().map(|(_, certificates)| certificates.clone()),
            proxy: endpoint.outward.to(base_url).map(Proxy::parse).transpose().map_err(told)?,
            ..Settings::new(base_url, timeouts)
        },
        keep_alive: endpoint.keep_alive.clone(),
        preload: endpoint.preload,
        thinking: endpoint.thinking,
        transcript: endpoint.file.clone().map(Transcript::File),
    };
    provider::config::build(&config).map_err(|error| error.to_string())
}

/// Nobody adds a rule to a policy while this is held: one waits for the other, and who ends the process for both.
pub fn rules_written() -> MutexGuard<'static, ()> {
    static WRITING: Mutex<()> = Mutex::new(());
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What writes an approval of scope `always` into the policy beside the agent.
fn allow_always(dir: PathBuf, rules: &Rules) -> impl Fn(&ToolCall) -> Result<(), String> + use<> {
    let tools: Vec<_> = rules.tools.iter().map(|t| (t.name.clone(), t.policy)).collect();
    let workdir = rules.workdir.clone();
    move |call| {
        let _one = rules_written();
        let policy = tools.iter().find(|(name, _)| *name == call.name).map(|(_, policy)| policy);
        let argument = policy.map(|policy| argument(policy, &call.arguments, &workdir));
        let rule = argument.and_then(|argument| Rule::exact(&call.name, &argument));
        let rule = rule.ok_or("no rule can say exactly this call")?;
        let replace = |path: &Path, bytes: &[u8]| file::replace(path, bytes, 0o600);
        policy::append_allow(&dir.join("policy.yaml"), &rule, &replace).map_err(|error| {
            let error = error.to_string();
            log::line(Level::Warn, "a rule was not written", &[&[("error", Value::Text(&error))]]);
            error
        })
    }
}
