//! Reads `duragent.yaml`.

use super::budgets;
use super::env::Env;
use super::problem::Problem;
use super::read::{self, Problems, Section};
use super::sandbox::{self, Protected};
use super::secret_file::{self, SecretError};
use super::server;
use super::types::{Config, Limits, Provider, ProviderKind, Secret, from_base, host_of};
use super::yaml::Kind;
use std::collections::BTreeMap;
use std::path::Path;

/// Where Ollama listens if nothing else is said.
const OLLAMA_DEFAULT: &str = "http://127.0.0.1:11434";

/// Providers that need no configuration beyond a key: name, URL, variable that holds the key.
const WELL_KNOWN: [(&str, &str, &str); 2] = [
    ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
];

/// Reads the configuration of the workspace `dir`. Warnings come with the configuration.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(dir: &Path, env: Env<'_>) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    const NAME: &str = "duragent.yaml";
    let (mut root, document) = read::document(&dir.join(NAME), NAME).map_err(|mut problem| {
        if problem.line == 0 && problem.message == "no such file" {
            problem.message = format!("no such file in {}; `duragent init` writes one", dir.display());
        }
        vec![problem]
    })?;
    let problems = Problems::new(NAME, &document);
    let variables = sandbox::secret_variables(&root, env);
    read::expand(&mut root, env, &problems);
    let (config, mut of_prices) = {
        let top = Section::top(&root, &problems);
        top.keys(
            &["server", "providers", "limits", "budgets", "prices", "prices_file", "sandbox", "log"],
            &["gateways", "routes", "schedules", "sessions", "services", "world_memory", "workspace", "agents_dir"],
        );
        let server = server::read(&top, dir);
        let providers = providers(&top, dir, env);
        let limits = limits(&top);
        let log = super::log::read(&top);
        let budgets = budgets::read(&top, true);
        let (prices, of_prices) = budgets::prices(&top, dir, &providers);
        let protected = Protected::new(dir, &root, variables, &server, &providers);
        let reader = sandbox::Reader {
            folder: &sandbox::folder(dir),
            protected: &protected,
            device: &limits,
            server: &server,
            is_secret: &|name| protected.is_secret(name, env, &server, &providers),
        };
        let sandbox = reader.workspace(&top);
        let config = sandbox.map(|sandbox| Config { server, providers, limits, sandbox, log, budgets, prices });
        (config, of_prices)
    };
    let mut list = problems.finish();
    list.append(&mut of_prices);
    match config {
        Some(config) if !super::problem::has_errors(&list) => Ok((config, list)),
        _ => Err(list),
    }
}

fn limits(top: &Section<'_>) -> Limits {
    let section = top.section_or_empty("limits");
    let known: Vec<&str> = Limits::TABLE.iter().map(|(name, ..)| *name).collect();
    section.keys(&known, &[]);
    Limits::from_fn(|name, range, default| section.int(name, range, default))
}

fn providers(top: &Section<'_>, dir: &Path, env: Env<'_>) -> BTreeMap<String, Provider> {
    let mut all = BTreeMap::new();
    all.insert("ollama".to_owned(), Provider::new(ProviderKind::Ollama, &ollama_url(env)));
    for (name, url, variable) in WELL_KNOWN {
        let mut provider = Provider::new(ProviderKind::OpenAi, url);
        key_from_variable(&mut provider, variable, env);
        all.insert(name.to_owned(), provider);
    }
    let Some(section) = top.section("providers") else { return all };
    for entry in section.entries {
        let path = section.child(&entry.key);
        let one = Section::of(&entry.value, path, entry.id, top.problems());
        if let Some(provider) = provider(&one, &entry.key, all.get(&entry.key), dir, env) {
            all.insert(entry.key.clone(), provider);
        }
    }
    all
}

fn provider(section: &Section<'_>, name: &str, known: Option<&Provider>, dir: &Path, env: Env<'_>) -> Option<Provider> {
    const KINDS: [(&str, ProviderKind); 3] =
        [("ollama", ProviderKind::Ollama), ("openai", ProviderKind::OpenAi), ("replay", ProviderKind::Replay)];
    section.keys(
        &[
            "kind",
            "base_url",
            "api_key_env",
            "api_key_file",
            "headers",
            "connect_seconds_max",
            "first_byte_seconds_max",
            "idle_seconds_max",
            "keep_alive",
            "context_tokens",
            "file",
        ],
        &[],
    );
    let kind = if section.get("kind").is_some() {
        if section.text("kind") == Some("anthropic") {
            section.error("kind", "\"anthropic\" is not in this build yet; write ollama, openai or replay");
            return None;
        }
        let index = section.word("kind", &KINDS.map(|(word, _)| word))?;
        KINDS.get(index)?.1
    } else if let Some(kind) = known.map(|p| p.kind).or_else(|| KINDS.iter().find(|k| k.0 == name).map(|k| k.1)) {
        kind
    } else {
        section.missing("kind", "write kind: ollama, openai or replay");
        return None;
    };
    let mut provider = match known {
        Some(known) if known.kind == kind => known.clone(),
        _ => Provider::new(kind, if kind == ProviderKind::Ollama { OLLAMA_DEFAULT } else { "" }),
    };
    endpoint(section, &mut provider, dir);
    key(section, &mut provider, dir, env);
    provider.connect_seconds_max = section.int("connect_seconds_max", 1..=600, provider.connect_seconds_max);
    provider.first_byte_seconds_max =
        section.int("first_byte_seconds_max", 1..=86_400, provider.first_byte_seconds_max);
    provider.idle_seconds_max = section.int("idle_seconds_max", 1..=86_400, provider.idle_seconds_max);
    provider.context_tokens = section.int("context_tokens", CONTEXT_TOKENS, provider.context_tokens);
    if let Some(text) = section.loose_text("keep_alive") {
        if is_keep_alive(&text) {
            provider.keep_alive = text;
        } else {
            section
                .error("keep_alive", &format!("expected seconds or a time like 30m, or -1 for ever, found {text:?}"));
        }
    }
    Some(provider)
}

/// Range of a context window in tokens: below 512 not even the system prompt and a question fit.
pub const CONTEXT_TOKENS: std::ops::RangeInclusive<u64> = 512..=super::types::CONTEXT_TOKENS_MAX;

fn endpoint(section: &Section<'_>, provider: &mut Provider, dir: &Path) {
    if provider.kind == ProviderKind::Replay {
        match section.text("file") {
            Some(path) => provider.file = Some(from_base(dir, path)),
            None if section.get("file").is_none() => {
                section.missing("file", "name the transcript that is to be replayed")
            }
            None => {}
        }
        return;
    }
    if section.get("file").is_some() {
        section.error("file", "only kind: replay has a file");
    }
    match section.text("base_url") {
        Some(url) => match check_url(url) {
            Ok(url) => {
                // The key of a well-known provider belongs to its own endpoint, not to whoever is configured in its place.
                if url != provider.base_url {
                    (provider.api_key, provider.api_key_missing) = (None, None);
                }
                provider.set_base_url(url);
            }
            Err(message) => section.error("base_url", &message),
        },
        None if provider.base_url.is_empty() && section.get("base_url").is_none() => {
            section.missing("base_url", "write the URL up to and including /v1");
        }
        None => {}
    }
    let Some(headers) = section.section("headers") else { return };
    for entry in headers.entries {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let printable = |text: &str| text.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b));
        match headers.secret(&entry.key) {
            Some(value) if entry.key.bytes().all(token) && !entry.key.is_empty() && printable(value) => {
                provider.headers.push((entry.key.clone(), Secret::new(value.to_owned())));
            }
            Some(_) => headers.error(&entry.key, "expected a header name and a value of printable ASCII"),
            None if entry.value.kind == Kind::Null => headers.error(&entry.key, "expected text, found nothing"),
            None => {}
        }
    }
}

fn key(section: &Section<'_>, provider: &mut Provider, dir: &Path, env: Env<'_>) {
    let variable = section.text("api_key_env");
    if let Some(variable) = variable {
        key_from_variable(provider, variable, env);
    }
    if let Some(path) = section.text("api_key_file") {
        if variable.is_some() {
            section.error("api_key_file", "api_key_env and api_key_file exclude each other; keep one");
        }
        (provider.api_key, provider.api_key_missing) = match secret_file::read(&from_base(dir, path)) {
            Ok(secret) => (Some(secret), None),
            Err(SecretError::Denied(message)) => (None, Some(message)),
            Err(error) => {
                section.error("api_key_file", &error.message());
                (None, None)
            }
        };
    }
    if provider.api_key.is_some() && provider.base_url.starts_with("http://") && !provider.is_local() {
        section.warn("base_url", "the API key crosses the network unencrypted; use https");
    }
}

fn key_from_variable(provider: &mut Provider, variable: &str, env: Env<'_>) {
    provider.api_key = env(variable).filter(|key| !key.trim().is_empty()).map(|key| Secret::new(key.trim().to_owned()));
    provider.api_key_missing = provider
        .api_key
        .is_none()
        .then(|| format!("environment variable {variable} is not set; put the API key into it"));
}

/// Checks a URL just enough to refuse what cannot be one; takes the slash at its end away.
///
/// # Errors
/// A message for the user.
pub fn check_url(url: &str) -> Result<String, String> {
    let good = (url.starts_with("http://") || url.starts_with("https://")) && !host_of(url).is_empty();
    if !good || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("expected a URL that starts with http:// or https://, found {:?}", masked_url(url)));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// A URL without the user and password it may carry.
#[must_use]
pub fn masked_url(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

fn is_keep_alive(text: &str) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    let number = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && ["", "ms", "s", "m", "h"].contains(&unit)
}

/// Where Ollama is, from `OLLAMA_HOST` in every form that Ollama itself takes. An address that means "all interfaces"
/// to the server means this machine to a client.
#[must_use]
pub fn ollama_url(env: Env<'_>) -> String {
    let value = env("OLLAMA_HOST").unwrap_or_default();
    let value = value.trim().trim_matches(['"', '\'']);
    if value.is_empty() {
        return OLLAMA_DEFAULT.to_owned();
    }
    let (scheme, rest, default_port) = match value.split_once("://") {
        Some(("https", rest)) => ("https", rest, "443"),
        Some((_, rest)) => ("http", rest, "80"),
        None => ("http", value, "11434"),
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p.trim_end_matches('/')));
    let bare_v6 = authority.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !bare_v6 && !port.contains(']') => (host, port),
        _ => (authority, default_port),
    };
    let port = if port.parse::<u16>().is_ok() { port } else { default_port };
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{path}")
}
