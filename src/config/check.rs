//! `duragent check`: what is wrong with a workspace, and what it amounts to with all defaults filled in.

use super::env::Env;
use super::log::SLOW;
use super::problem::Problem;
use super::profile::Origins;
use super::providers::masked_url;
use super::sandbox::{LIMITS, Layer, Sandbox, SandboxSpec};
use super::types::{Config, Provider, ProviderKind, Server};
use super::{Agent, Prices, Workspace};
use duragent_core::agent::ModelSpec;
use duragent_core::json::{write_decimal, write_string};
use duragent_core::policy::{Policy, Rule};
use duragent_core::provider::Thinking;
use duragent_core::session::{Budget, Budgets, Compaction, Price};
use duragent_platform::sandbox::policy::{Endpoint, Network};
use duragent_platform::sandbox::{Enforcement, Mode};
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many errors; 0 means that the workspace can be used.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// One line for every problem, and a verdict as the last.
    pub lines: Vec<String>,
    /// The effective configuration, if it could be read, for `check -T`.
    pub dump: Option<String>,
}

/// Checks the workspace `dir`, its agents included. Parameters as of [`Workspace::load`].
#[must_use]
pub fn check(dir: &Path, env: Env<'_>, tools: &[&str]) -> Report {
    let mut problems: Vec<Problem> = Vec::new();
    let mut dumped = None;
    match Workspace::load(dir, env, tools) {
        Ok(workspace) => {
            dumped = Some(dump(&workspace));
            problems.extend(workspace.warnings);
            for agent in workspace.agents.into_values() {
                problems.extend(agent.map_or_else(|errors| errors, |agent| agent.warnings));
            }
        }
        Err(errors) => problems.extend(errors),
    }
    let warnings = problems.iter().filter(|p| p.warning).count();
    let errors = problems.len() - warnings;
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    lines.push(match (errors, warnings) {
        (0, 0) => "configuration ok".to_owned(),
        (0, n) => format!("configuration ok, {}", counted(n, "warning")),
        (n, 0) => counted(n, "error"),
        (n, m) => format!("{}, {}", counted(n, "error"), counted(m, "warning")),
    });
    Report { errors, warnings, lines, dump: dumped }
}

/// The effective configuration as YAML, defaults filled in, secrets as `***`.
#[must_use]
pub fn dump(workspace: &Workspace) -> String {
    let mut out = Dump(String::new());
    out.comment("duragent.yaml");
    config(&mut out, &workspace.config);
    if let Some(found) = &workspace.policy {
        out.comment("policy.yaml");
        policy(&mut out, found);
    }
    for (name, agent) in &workspace.agents {
        match agent {
            Ok(found) => {
                out.comment(&format!("agents/{name}/agent.yaml"));
                self::agent(&mut out, found, workspace);
                if let Some(found) = &found.policy {
                    out.comment(&format!("agents/{name}/policy.yaml"));
                    policy(&mut out, found);
                }
            }
            Err(_) => out.comment(&format!("agents/{name}: not usable")),
        }
    }
    out.0
}

struct Dump(String);

impl Dump {
    fn comment(&mut self, text: &str) {
        self.0.push_str("# ");
        self.0.push_str(text);
        self.0.push('\n');
    }

    /// `key: value`, or a heading if the value is empty.
    fn line(&mut self, indent: usize, key: &str, value: impl Display) {
        let start = self.0.len();
        let _ = write!(self.0, "{:indent$}{key}: {value}", "");
        self.0.truncate(self.0.trim_end().len().max(start));
        self.0.push('\n');
    }

    /// A limit of the section `section`.
    fn limit(&mut self, indent: usize, origins: &Origins, section: &str, key: &str, value: u64) {
        let origin = origins.of(&[section, ".", key].concat());
        let mark = if origin.is_empty() { "" } else { "  # " };
        self.line(indent, key, format_args!("{value}{mark}{origin}"));
    }

    fn text(&mut self, indent: usize, key: &str, value: &str) {
        let mut quoted = String::new();
        write_string(&mut quoted, value);
        self.line(indent, key, quoted);
    }

    /// A list of texts on one line.
    fn texts(&mut self, indent: usize, key: &str, values: &[String]) {
        let mut list = String::new();
        for value in values {
            list.push_str(if list.is_empty() { "" } else { ", " });
            write_string(&mut list, value);
        }
        self.line(indent, key, format_args!("[{list}]"));
    }

    fn paths(&mut self, indent: usize, key: &str, paths: &[PathBuf]) {
        self.texts(indent, key, &paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>());
    }

    fn text_opt(&mut self, indent: usize, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(indent, key, value);
        }
    }
}

fn config(out: &mut Dump, config: &Config) {
    let origins = &config.origins;
    if let Some(profile) = &origins.profile {
        out.comment("where a limit comes from stands behind it; nothing if it is the default");
        out.text(0, "profile", &profile.name);
    }
    server(out, &config.server, origins);
    out.line(0, "providers", "");
    for (name, found) in &config.providers {
        provider(out, name, found, origins);
    }
    out.line(0, "limits", "");
    for (name, value) in config.limits.entries() {
        out.limit(2, origins, "limits", name, value);
    }
    budgets(out, 0, &config.budgets);
    prices(out, &config.prices);
    out.line(0, "log", "");
    out.line(2, "format", config.log.format.as_str());
    out.line(2, "level", config.log.level.as_str());
    if let Some(file) = &config.log.file {
        out.text(2, "file", &file.to_string_lossy());
        out.limit(2, origins, "log", "file_bytes_max", config.log.file_bytes_max);
        out.limit(2, origins, "log", "files_max", config.log.files_max);
    }
    out.line(2, "slow", "");
    for ((name, _), value) in SLOW.iter().zip(config.log.slow_ms) {
        out.limit(4, origins, "log.slow", name, value);
    }
    out.line(0, "retention", "");
    for (name, value) in config.retention.entries() {
        out.limit(2, origins, "retention", name, value);
    }
    out.line(0, "sandbox", "");
    out.line(2, "mode", config.sandbox.mode_word());
    if config.sandbox.required != Enforcement::None {
        out.line(2, "enforcement", config.sandbox.required.as_str());
    }
    sandbox(out, 2, &config.sandbox, &config.sandbox.spec(&Layer::default()), origins);
}

fn server(out: &mut Dump, server: &Server, origins: &Origins) {
    out.line(0, "server", "");
    out.text(2, "address", &server.listen.to_string());
    out.text_opt(2, "api_token", server.api_token.as_ref().map(|_| "***"));
    out.text_opt(2, "admin_token", server.admin_token.as_ref().map(|_| "***"));
    out.texts(2, "allowed_hosts", &server.allowed_hosts);
    out.texts(2, "allowed_origins", &server.allowed_origins);
    let proxies = server.trusted_proxies.ranges.iter().map(ToString::to_string);
    let proxies: Vec<String> = proxies.chain(server.trusted_proxies.unix.then(|| "unix".to_owned())).collect();
    out.texts(2, "trusted_proxies", &proxies);
    out.text(2, "base_path", &server.base_path);
    out.line(2, "socket_mode", format_args!("\"{:04o}\"", server.socket_mode));
    for (name, value) in server.limits.entries() {
        out.limit(2, origins, "server", name, value);
    }
}

fn budgets(out: &mut Dump, indent: usize, budgets: &Budgets) {
    let all = [("turn", &budgets.turn), ("session", &budgets.session), ("day", &budgets.day)];
    let written = |budget: &Budget| !budget.is_unlimited();
    if all.iter().any(|(_, budget)| written(budget)) {
        out.line(indent, "budgets", "");
    }
    for (key, budget) in all.into_iter().filter(|(_, budget)| written(budget)) {
        out.line(indent + 2, key, "");
        let rows = [
            ("requests", budget.requests, 0),
            ("tokens", budget.tokens, 0),
            ("tool_calls", budget.tool_calls, 0),
            ("seconds", budget.ms, 3),
            ("money", budget.cost_micros, 6),
        ];
        for (key, value, places) in rows {
            if let Some(value) = value {
                out.line(indent + 4, key, decimal(value, places));
            }
        }
    }
}

fn prices(out: &mut Dump, prices: &Prices) {
    if *prices == Prices::default() {
        return;
    }
    out.line(0, "prices", "");
    out.text_opt(2, "currency", prices.currency.as_deref());
    for (name, Price { input, output, cached }) in &prices.table {
        let mut key = String::new();
        write_string(&mut key, name);
        let [input, output, cached] = [input, output, cached].map(|price| decimal(*price, 6));
        out.line(2, &key, format_args!("{{input: {input}, output: {output}, cached: {cached}}}"));
    }
}

fn decimal(value: u64, places: u32) -> String {
    let mut out = String::new();
    write_decimal(&mut out, value, places);
    out
}

/// What holds inside; in mode trust only what the runtime itself sees to.
fn sandbox(out: &mut Dump, indent: usize, sandbox: &Sandbox, spec: &SandboxSpec, origins: &Origins) {
    let trust = sandbox.mode == Mode::Trust;
    let policy = &spec.policy;
    if !trust {
        out.paths(indent, "read", &policy.read);
        out.paths(indent, "write", &policy.write);
        match &policy.network {
            Network::None => out.line(indent, "network", "none"),
            Network::Loopback => out.line(indent, "network", "loopback"),
            Network::All => out.line(indent, "network", "all"),
            Network::Hosts(hosts) => out.texts(indent, "network", &hosts.iter().map(endpoint).collect::<Vec<_>>()),
        }
    }
    out.line(indent, "env", format_args!("[{}]", spec.env.join(", ")));
    let limits = LIMITS.iter().zip(spec.limits()).filter_map(|((name, ..), value)| Some((*name, value?)));
    let limits: Vec<_> =
        limits.filter(|(name, _)| !trust || matches!(*name, "wall_seconds" | "output_bytes")).collect();
    if !limits.is_empty() {
        out.line(indent, "limits", "");
        // Of the workspace or, deeper, of an agent, where many have a part in it.
        let section = if indent == 2 { "sandbox.limits" } else { "spec.sandbox.limits" };
        limits.into_iter().for_each(|(name, value)| out.limit(indent + 2, origins, section, name, value));
    }
    if !trust {
        for (what, paths) in [("neither read nor changed", &policy.hidden), ("never changed", &policy.read_only)] {
            for path in paths {
                out.comment(&format!("{:indent$}{what}: {}", "", path.display()));
            }
        }
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    let Endpoint { host, port } = endpoint;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn provider(out: &mut Dump, name: &str, provider: &Provider, origins: &Origins) {
    let mut key = String::new();
    write_string(&mut key, name);
    out.line(2, &key, "");
    out.line(4, "kind", provider.kind.as_str());
    if provider.kind == ProviderKind::Replay {
        out.text_opt(4, "file", provider.file.as_ref().and_then(|path| path.to_str()));
        return;
    }
    out.text(4, "base_url", &masked_url(&provider.base_url));
    if provider.api_key.is_some() {
        out.comment("    api key: ***");
    }
    if !provider.headers.is_empty() {
        out.line(4, "headers", "");
        for (name, _) in &provider.headers {
            out.text(6, name, "***");
        }
    }
    out.line(4, "connect_seconds_max", provider.connect_seconds_max);
    out.line(4, "first_byte_seconds_max", provider.first_byte_seconds_max);
    out.line(4, "idle_seconds_max", provider.idle_seconds_max);
    out.limit(4, origins, &["providers.", name].concat(), "context_tokens", provider.context_tokens);
    out.line(4, "bytes_per_token", format_args!("{}.{}", provider.token_tenths / 10, provider.token_tenths % 10));
    if provider.kind == ProviderKind::Ollama {
        out.text(4, "keep_alive", &provider.keep_alive);
        out.line(4, "preload", provider.preload);
    }
    match provider.thinking {
        Thinking::Unset => {}
        Thinking::Adaptive => out.line(4, "thinking_tokens", "adaptive"),
        Thinking::Tokens(tokens) => out.line(4, "thinking_tokens", tokens),
    }
    if let Some((file, certificates)) = &provider.ca {
        out.text(4, "ca_file", &file.to_string_lossy());
        out.comment(&format!("    certificates: {}", certificates.len()));
    }
    if let Some(proxy) = provider.outward.to(&provider.base_url) {
        out.text(4, "proxy", &masked_url(proxy.expose()));
    }
    if !provider.outward.direct.is_empty() {
        out.texts(4, "no_proxy", &provider.outward.direct);
    }
}

fn policy(out: &mut Dump, policy: &Policy) {
    if let Some(mode) = policy.mode {
        out.line(0, "mode", mode.as_str());
    }
    for (key, rules) in [("deny", &policy.deny), ("ask", &policy.ask), ("allow", &policy.allow)] {
        if !rules.is_empty() {
            out.line(0, key, "");
        }
        for rule in rules.iter().map(Rule::as_str) {
            out.0.push_str("  - ");
            write_string(&mut out.0, rule);
            out.0.push('\n');
        }
    }
    if !policy.tags.is_empty() {
        out.line(0, "tags", "");
    }
    for (rule, tags) in &policy.tags {
        let mut key = String::new();
        write_string(&mut key, rule.as_str());
        out.line(2, &key, format_args!("[{}]", tags.words().collect::<Vec<_>>().join(", ")));
    }
}

/// The keys of a model; those of an item of a list if they stand deeper than the model of an agent.
fn model(out: &mut Dump, indent: usize, model: &ModelSpec) {
    match indent {
        4 => out.text(4, "provider", &model.provider),
        _ => out.text(indent - 2, "- provider", &model.provider),
    }
    out.text(indent, "name", &model.name);
    if let Some(temperature) = model.temperature {
        out.line(indent, "temperature", temperature);
    }
    for (key, value) in [("max_output_tokens", model.max_output_tokens), ("context_tokens", model.context_tokens)] {
        if let Some(value) = value {
            out.line(indent, key, value);
        }
    }
    out.text_opt(indent, "base_url", model.base_url.as_deref().map(masked_url).as_deref());
}

fn agent(out: &mut Dump, agent: &Agent, workspace: &Workspace) {
    let spec = &agent.spec;
    out.line(0, "metadata", "");
    out.line(2, "name", &spec.name);
    out.text_opt(2, "description", spec.description.as_deref());
    out.text_opt(2, "version", spec.version.as_deref());
    out.line(0, "spec", "");
    out.line(2, "model", "");
    model(out, 4, &spec.model);
    if !spec.model.fallback.is_empty() {
        out.line(4, "fallback", "");
        spec.model.fallback.iter().for_each(|found| model(out, 8, found));
    }
    out.line(2, "session", "");
    out.line(4, "on_disconnect", spec.on_disconnect.as_str());
    if let Some(steps_max) = spec.steps_max {
        out.line(4, "max_tool_iterations", steps_max);
    }
    let compaction = if agent.compaction == Compaction::Summary { "summary" } else { "truncate" };
    out.line(4, "compaction", compaction);
    // That of the day is the workspace's.
    budgets(out, 2, &Budgets { day: Budget::default(), ..agent.budgets });
    out.line(2, "tools", format_args!("[{}]", spec.tools.join(", ")));
    out.line(2, "agents_md", spec.agents_md);
    out.texts(2, "skills", &spec.skills.iter().map(|skill| skill.name.clone()).collect::<Vec<_>>());
    out.text_opt(2, "workdir", spec.workdir.as_deref());
    out.line(2, "sandbox", "");
    sandbox(out, 4, &workspace.config.sandbox, &agent.sandbox, &workspace.config.origins);
    for tool in &spec.tools {
        let words: Vec<&str> = workspace.tags(agent, tool).words().collect();
        out.comment(&format!("  tags of {tool}: [{}]", words.join(", ")));
    }
    out.comment(&format!("  system prompt: {} bytes", spec.system_prompt().len()));
}
