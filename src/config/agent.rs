//! Reads `agents/<name>/agent.yaml` and the Markdown beside it.
//!
//! Specs of `duragent/v1alpha1` open unchanged: what this build cannot do yet is named in a warning, at its place.

mod told;

use super::Config;
use super::env::Env;
use super::problem::{Problem, has_errors};
use super::providers::{CONTEXT_TOKENS, NO_TLS, check_url, is_out_of_reach};
use super::read::{self, Problems, Section};
use super::sandbox::{self, Layer, canonical};
use super::types::from_base;
use super::yaml::{Kind, Node};
use super::{Agent, budgets, is_service, policy};
use duragent_core::agent::{AgentSpec, ModelSpec, OnDisconnect};
use duragent_core::session::{Budgets, Compaction};
use duragent_platform::sandbox::Mode;
use std::path::{Path, PathBuf};

/// The format that is read.
pub const API_VERSION: &str = "duragent/v1alpha1";

/// Most bytes of one Markdown file of a prompt. 64 KiB: twice what fits a window of 8,192 tokens.
pub const PROMPT_BYTES_MAX: usize = 64 * 1024;

/// Most models that an agent falls back to: each costs its attempts before the next is asked.
pub const FALLBACKS_MAX: usize = 8;

/// Placeholders that other runtimes fill in on every load. Ours stay as they are: a prompt that changes with the clock would
/// defeat the model server's cache.
const PLACEHOLDERS: [&str; 4] = ["{{date}}", "{{time}}", "{{agent.name}}", "{{agent.home}}"];

/// Tools of the format that this build does not have.
const TOOLS_LATER: [&str; 6] = ["web", "schedule", "background_process", "session", "reload_tools", "memory"];

/// Reads the agent in `agents/<name>` of the workspace `dir`. `tools` are the names of the tools there are.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(dir: &Path, name: &str, config: &Config, env: Env<'_>, tools: &[&str]) -> Result<Agent, Vec<Problem>> {
    let folder = dir.join("agents").join(name);
    let at = |file: &str| format!("agents/{name}/{file}");
    let file = at("agent.yaml");
    let (mut root, document) = read::document(&folder.join("agent.yaml"), &file).map_err(|p| vec![p])?;
    let problems = Problems::new(&file, &document);
    read::expand(&mut root, env, &problems);
    let reader = Reader { problems: &problems, dir, folder: &folder, name, config, env, tools };
    let Read { spec, layer, mut prompts, budgets, compaction } = reader.agent(&root);
    let mut list = problems.finish();
    list.append(&mut prompts.problems);
    let mut sandbox = config.sandbox.spec(&layer);
    sandbox.policy.read_only.extend(prompts.outside);
    // What a skill says to run has to be found where it says. Whatever else is in the workspace stays hidden.
    sandbox.policy.read.extend(spec.skills.iter().map(|skill| PathBuf::from(&skill.folder)));

    let policy_file = folder.join("policy.yaml");
    let policy = match policy::load(&policy_file, &at("policy.yaml")) {
        Ok(Some((policy, warnings))) => {
            list.extend(warnings);
            Some(policy)
        }
        Ok(None) => None,
        Err(errors) => {
            list.extend(errors);
            None
        }
    };
    if folder.join("policy.local.yaml").exists() {
        let message = "not read by this build; move its rules to policy.yaml".to_owned();
        list.push(Problem { warning: true, ..Problem::file(&at("policy.local.yaml"), message) });
    }
    if has_errors(&list) {
        return Err(list);
    }
    Ok(Agent { spec, policy, sandbox, budgets, compaction, dir: folder, warnings: list })
}

/// What came of reading `agent.yaml`.
#[derive(Default)]
struct Read {
    spec: AgentSpec,
    layer: Layer,
    prompts: Prompts,
    budgets: Budgets,
    compaction: Compaction,
}

struct Reader<'r> {
    problems: &'r Problems<'r>,
    dir: &'r Path,
    folder: &'r Path,
    name: &'r str,
    config: &'r Config,
    env: Env<'r>,
    tools: &'r [&'r str],
}

/// What came of reading the files of a prompt.
#[derive(Default)]
struct Prompts {
    problems: Vec<Problem>,
    /// Those outside the workspace, without symbolic links.
    outside: Vec<PathBuf>,
}

impl<'r> Reader<'r> {
    fn agent(&self, root: &'r Node) -> Read {
        let mut read = Read::default();
        let spec = &mut read.spec;
        self.name.clone_into(&mut spec.name);
        let top = Section::top(root, self.problems);
        top.keys(&["apiVersion", "kind", "metadata", "spec"], &[]);
        header(&top, "Agent", true);
        match top.section("metadata") {
            Some(metadata) => self.metadata(&metadata, spec),
            None => top.missing("metadata", "write metadata: with a name: below it"),
        }
        let Some(section) = top.section("spec") else {
            top.missing("spec", "write spec: with a model: below it");
            return read;
        };
        section.keys(
            &[
                "model",
                "soul",
                "system_prompt",
                "instructions",
                "agents_md",
                "skills",
                "skills_dir",
                "session",
                "tools",
                "workdir",
                "sandbox",
                "budgets",
            ],
            &["memory", "access", "hooks"],
        );
        match section.section("model") {
            Some(model) => spec.model = self.chain(&model),
            None => section.missing("model", "write model: with provider: and name: below it"),
        }
        let prompts = &mut read.prompts;
        spec.soul = self.prompt(&section, "soul", "SOUL.md", prompts);
        spec.system_prompt = self.prompt(&section, "system_prompt", "SYSTEM_PROMPT.md", prompts);
        spec.instructions = self.prompt(&section, "instructions", "INSTRUCTIONS.md", prompts);
        if let Some(session) = section.section("session") {
            session.keys(
                &["on_disconnect", "max_tool_iterations", "ttl_hours", "compaction"],
                &["llm_timeout_seconds", "context"],
            );
            read.compaction = compaction(&session);
            if session.word("on_disconnect", &["continue", "pause"]) == Some(1) {
                spec.on_disconnect = OnDisconnect::Pause;
            }
            spec.steps_max = session.int_opt("max_tool_iterations", 1..=1000);
            if session.int("ttl_hours", 0..=876_000, 0) > 0 {
                session.warn("ttl_hours", "not supported yet, ignored: sessions stay until they are closed");
            }
        }
        spec.tools = self.tools(&section);
        spec.workdir = section.text("workdir").map(str::to_owned);
        self.agents_md(&section, spec, prompts);
        spec.skills = self.skills(&section, prompts);
        read.layer = self.sandbox(&section, spec);
        read.budgets = budgets::narrower(&self.config.budgets, &budgets::read(&section, false));
        if let Some(model) = section.section("model").filter(|_| budgets::about_money(&read.budgets)) {
            std::iter::once(&spec.model).chain(&spec.model.fallback).for_each(|asked| self.price(&model, asked));
        }
        read
    }

    /// Money can only be kept within a budget if it is known what a model costs.
    fn price(&self, section: &Section<'_>, model: &ModelSpec) {
        let Some(provider) = self.config.providers.get(&model.provider) else { return };
        let (name, base_url) = (&model.provider, model.base_url.as_deref());
        if budgets::price(&self.config.prices, name, provider, base_url, &model.name) == budgets::Known::Unknown {
            let named = format!("{name}/{}", model.name);
            let remedy = format!("add it to prices in duragent.yaml, or \"{named}\": 0 there");
            section.error("name", &format!("a budget limits money, but there is no price for {named}; {remedy}"));
        }
    }

    fn sandbox(&self, section: &Section<'_>, spec: &AgentSpec) -> Layer {
        let (config, env) = (self.config, self.env);
        let protected = &config.sandbox.protected;
        let reader = sandbox::Reader {
            folder: &sandbox::folder(self.dir),
            protected,
            device: &config.limits,
            server: &config.server,
            is_secret: &|name| protected.is_secret(name, env, &config.server, &config.providers),
        };
        let layer = reader.agent(section, config.sandbox.mode);
        // Without a wall, or without tools, it makes no difference where that is; a service makes a folder for each session.
        let none = spec.workdir.is_none() && is_service(self.dir);
        if config.sandbox.mode != Mode::Trust && !spec.tools.is_empty() && !none {
            let workdir = reader.folder.join(spec.workdir.as_deref().unwrap_or(""));
            match reader.workdir(&workdir, env("HOME").as_deref().map(Path::new)) {
                Ok(None) => {}
                Ok(Some(warning)) => section.warn("workdir", &warning),
                Err(error) => section.error("workdir", &error),
            }
        }
        layer
    }

    fn metadata(&self, section: &Section<'_>, spec: &mut AgentSpec) {
        section.keys(&["name", "description", "version", "labels"], &[]);
        match section.loose_text("name") {
            Some(name) if name != self.name => {
                let message = format!("{name:?} is not used: the agent is called {:?}, as its folder", self.name);
                section.warn("name", &message);
            }
            None if section.get("name").is_none() => section.missing("name", &format!("write name: {}", self.name)),
            _ => {}
        }
        spec.description = section.loose_text("description");
        spec.version = section.loose_text("version");
        if let Some(labels) = section.section("labels") {
            for entry in labels.entries {
                let value = labels.loose_text(&entry.key).unwrap_or_default();
                spec.labels.push((entry.key.clone(), value));
            }
        }
    }

    /// A model, and those that are asked if it does not answer: a list, or a single one.
    fn chain(&self, section: &Section<'_>) -> ModelSpec {
        const KEYS: [&str; 7] =
            ["provider", "name", "temperature", "max_output_tokens", "base_url", "context_tokens", "fallback"];
        let mut model = self.model(section, &KEYS);
        let one = |node: &Node, path: String| self.model(&Section::of(node, path, node.id, self.problems), &KEYS[..6]);
        let path = section.child("fallback");
        match section.get("fallback") {
            Some(Node { kind: Kind::List(items), .. }) if items.len() > FALLBACKS_MAX => {
                let message = format!("expected at most {FALLBACKS_MAX} models, found {}", items.len());
                section.error("fallback", &message);
            }
            Some(Node { kind: Kind::List(items), .. }) => {
                let models = items.iter().enumerate().map(|(index, node)| one(node, format!("{path}[{index}]")));
                model.fallback.extend(models);
            }
            Some(node) => model.fallback.push(one(node, path)),
            None => {}
        }
        model
    }

    fn model(&self, section: &Section<'_>, keys: &[&str]) -> ModelSpec {
        section.keys(keys, &["max_input_tokens"]);
        let mut model = ModelSpec {
            temperature: section.float_opt("temperature", 0.0..=2.0),
            max_output_tokens: section.int_opt("max_output_tokens", 1..=*CONTEXT_TOKENS.end()),
            context_tokens: section.int_opt("context_tokens", CONTEXT_TOKENS),
            ..ModelSpec::default()
        };
        for (key, field, example) in
            [("provider", &mut model.provider, "ollama"), ("name", &mut model.name, "qwen3:1.7b")]
        {
            let remedy = format!("write something like {key}: {example}");
            match section.loose_text(key) {
                Some(text) if text.is_empty() => {
                    section.error(key, &format!("expected a name, found nothing; {remedy}"))
                }
                Some(text) => *field = text,
                None if section.get(key).is_none() => section.missing(key, &remedy),
                None => {}
            }
        }
        if let Some(url) = section.text("base_url") {
            match check_url(url) {
                Ok(url) => model.base_url = Some(url),
                Err(message) => section.error("base_url", &message),
            }
        }
        if !model.provider.is_empty() {
            self.provider(section, &model.provider, model.base_url.as_deref());
        }
        model
    }

    fn provider(&self, section: &Section<'_>, name: &str, base_url: Option<&str>) {
        let names = || self.config.providers.keys().map(String::as_str);
        match self.config.providers.get(name) {
            Some(provider) => {
                if is_out_of_reach(base_url.unwrap_or(&provider.base_url)) {
                    section.error("provider", &[name, ": ", NO_TLS].concat());
                }
                if let Some(reason) = &provider.api_key_missing {
                    section.warn("provider", &format!("{name} will refuse to answer: {reason}"));
                }
            }
            None => {
                let hint = match read::suggest(name, &mut names()) {
                    Some(word) => format!("did you mean {word:?}?"),
                    None => format!(
                        "add it to providers in duragent.yaml, or write one of {}",
                        names().collect::<Vec<_>>().join(", ")
                    ),
                };
                section.error("provider", &format!("there is no provider {name:?} ({hint})"));
            }
        }
    }

    /// The text of a prompt file: the one that `key` names, or `default` if it is there.
    fn prompt(&self, section: &Section<'_>, key: &str, default: &str, prompts: &mut Prompts) -> Option<String> {
        let named = section.text(key);
        let path = from_base(self.folder, named.unwrap_or(default));
        if named.is_none() && (section.get(key).is_some() || !path.exists()) {
            return None;
        }
        let shown = format!("agents/{}/{}", self.name, named.map_or(default, |n| n.strip_prefix("./").unwrap_or(n)));
        let text = read::file(&path, PROMPT_BYTES_MAX).and_then(|bytes| match bytes.len() {
            n if n > PROMPT_BYTES_MAX => Err(format!("the file has more than {PROMPT_BYTES_MAX} bytes; shorten it")),
            _ => String::from_utf8(bytes).map_err(|_| "not UTF-8; save the file as UTF-8".to_owned()),
        });
        let text = match text {
            Ok(text) => text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text),
            Err(message) if named.is_some() => {
                section.error(key, &format!("{shown}: {message}"));
                return None;
            }
            Err(message) => {
                prompts.problems.push(Problem::file(&shown, message));
                return None;
            }
        };
        let real = std::path::absolute(&path).map(|path| canonical(&path));
        prompts.outside.extend(real.ok().filter(|path| self.config.sandbox.protected.is_outside(path)));
        for (number, line) in text.lines().enumerate() {
            for placeholder in PLACEHOLDERS {
                if let Some(byte) = line.find(placeholder) {
                    let column = line.get(..byte).map_or(0, |before| before.chars().count()) + 1;
                    let message = format!("{placeholder} is not filled in by this build, it stays as it is");
                    prompts.problems.push(Problem {
                        file: shown.clone(),
                        line: number + 1,
                        column,
                        message,
                        warning: true,
                    });
                }
            }
        }
        Some(text)
    }

    /// A list of names, or of `{type: builtin, name: …}`.
    fn tools(&self, section: &Section<'_>) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for (index, node) in section.list("tools").iter().enumerate() {
            let path = format!("spec.tools[{index}]");
            let (name, at) = match (&node.kind, read::text_of(node)) {
                (_, Some(name)) => (name, node.id),
                (Kind::Map(_), None) => {
                    let tool = Section::of(node, path.clone(), node.id, self.problems);
                    let kind = tool.text("type").unwrap_or("builtin");
                    match kind {
                        "builtin" => tool.keys(&["type", "name"], &[]),
                        "cli" | "mcp" => {
                            tool.warn("type", &format!("tools of type {kind} are not supported yet, ignored"));
                            continue;
                        }
                        _ => {
                            tool.error("type", &format!("expected builtin, found {kind:?}"));
                            continue;
                        }
                    }
                    match (tool.text("name"), tool.get("name")) {
                        (Some(name), Some(node)) => (name, node.id),
                        (None, None) => {
                            tool.missing("name", "write the name of the tool");
                            continue;
                        }
                        _ => continue,
                    }
                }
                (Kind::Broken, None) => continue,
                _ => {
                    let found = read::found(node, self.problems);
                    let message = format!("{path}: expected a tool name or {{type: builtin, name: …}}, found {found}");
                    self.problems.error(node.id, message);
                    continue;
                }
            };
            if self.tools.contains(&name) {
                if !out.iter().any(|known| known == name) {
                    out.push(name.to_owned());
                }
            } else if TOOLS_LATER.contains(&name) {
                self.problems.warn(at, format!("{path}: {name} is not supported yet, ignored"));
            } else {
                let hint = match read::suggest(name, &mut self.tools.iter().copied()) {
                    Some(word) => format!("did you mean {word:?}?"),
                    None => format!("expected one of {}", self.tools.join(", ")),
                };
                self.problems.error(at, format!("{path}: there is no tool {name:?} ({hint})"));
            }
        }
        out
    }
}

/// `session.compaction`. Older runtimes have a key of this name, about cutting the log itself.
fn compaction(session: &Section<'_>) -> Compaction {
    match session.text("compaction") {
        Some("truncate") => return Compaction::Truncate,
        Some(old @ ("discard" | "archive" | "disabled")) => {
            session.warn("compaction", &format!("{old}: ignored, logs are never cut; there are summary and truncate"));
        }
        Some(_) => drop(session.word("compaction", &["summary", "truncate"])),
        None => {}
    }
    Compaction::Summary
}

/// Checks `apiVersion` and `kind`.
pub fn header(top: &Section<'_>, kind: &str, required: bool) {
    for (key, expected) in [("apiVersion", API_VERSION), ("kind", kind)] {
        match top.text(key) {
            Some(found) if found != expected => top.error(key, &format!("expected {expected}, found {found:?}")),
            None if required && top.get(key).is_none() => top.missing(key, &format!("write {key}: {expected}")),
            _ => {}
        }
    }
}
