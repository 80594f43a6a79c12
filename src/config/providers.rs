//! Reads `providers` of `duragent.yaml`.

use super::env::Env;
use super::proxy::{self, Outward};
use super::read::{self, Section};
use super::secret_file::{self, SecretError};
use super::types::{
    CONTEXT_TOKENS_MAX, CONTEXT_TOKENS_MIN, Limits, Provider, ProviderKind, Secret, Thinking, from_base, host_of,
};
use super::yaml::Kind;
#[cfg(feature = "tls")]
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::collections::BTreeMap;
use std::path::Path;

/// Where Ollama listens if nothing else is said.
const OLLAMA_DEFAULT: &str = "http://127.0.0.1:11434";

/// Most bytes of a file of certificates. 1 MiB: all roots of the web in one file are a quarter of that.
#[cfg(feature = "tls")]
const CA_BYTES_MAX: usize = 1024 * 1024;

/// What is said of `https` where it cannot be had.
pub(super) const NO_TLS: &str = "https is not in this build (feature tls is off); use http, or a build with TLS";

/// True if nothing of this build can reach the endpoint.
pub(super) fn is_out_of_reach(url: &str) -> bool {
    cfg!(not(feature = "tls")) && url.starts_with("https://")
}

/// Fewest tokens of thinking that Anthropic's API takes.
const THINKING_TOKENS_MIN: u64 = 1024;

/// Providers that need no configuration beyond a key: name, kind, URL, variable that holds the key.
const WELL_KNOWN: [(&str, ProviderKind, &str, &str); 3] = [
    ("openai", ProviderKind::OpenAi, "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ("openrouter", ProviderKind::OpenRouter, "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    ("anthropic", ProviderKind::Anthropic, "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
];

const KINDS: [(&str, ProviderKind); 5] = [
    ("ollama", ProviderKind::Ollama),
    ("openai", ProviderKind::OpenAi),
    ("openrouter", ProviderKind::OpenRouter),
    ("anthropic", ProviderKind::Anthropic),
    ("replay", ProviderKind::Replay),
];

/// The providers of the file, and those that are always there.
pub(super) fn read(
    top: &Section<'_>,
    dir: &Path,
    env: Env<'_>,
    outward: &Outward,
    limits: &Limits,
) -> BTreeMap<String, Provider> {
    let mut all = BTreeMap::new();
    all.insert("ollama".to_owned(), Provider::new(ProviderKind::Ollama, &ollama_url(env)));
    for (name, kind, url, variable) in WELL_KNOWN {
        let mut provider = Provider::new(kind, url);
        key_from_variable(&mut provider, variable, env);
        all.insert(name.to_owned(), provider);
    }
    for provider in all.values_mut() {
        provider.outward.clone_from(outward);
        provider.set_window(limits.context_tokens, limits.remote_context_tokens);
    }
    let Some(section) = top.section("providers") else { return all };
    for entry in section.entries {
        let path = section.child(&entry.key);
        let one = Section::of(&entry.value, path, entry.id, top.problems());
        if let Some(mut provider) = provider(&one, &entry.key, all.get(&entry.key), dir, env, limits) {
            provider.outward = proxy::read(&one, env, Some(outward));
            all.insert(entry.key.clone(), provider);
        }
    }
    all
}

fn provider(
    section: &Section<'_>,
    name: &str,
    known: Option<&Provider>,
    dir: &Path,
    env: Env<'_>,
    limits: &Limits,
) -> Option<Provider> {
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
            "preload",
            "context_tokens",
            "bytes_per_token",
            "thinking_tokens",
            "ca_file",
            "proxy",
            "no_proxy",
            "file",
        ],
        &[],
    );
    let kind = if section.get("kind").is_some() {
        let index = section.word("kind", &KINDS.map(|(word, _)| word))?;
        KINDS.get(index)?.1
    } else if let Some(kind) = known.map(|p| p.kind).or_else(|| KINDS.iter().find(|k| k.0 == name).map(|k| k.1)) {
        kind
    } else {
        section.missing("kind", "write kind: ollama, openai, openrouter, anthropic or replay");
        return None;
    };
    let mut provider = match known {
        Some(known) if known.kind == kind => known.clone(),
        // The same wire, less of it.
        Some(known) if (known.kind, kind) == (ProviderKind::OpenRouter, ProviderKind::OpenAi) => {
            Provider { kind, ..known.clone() }
        }
        _ => Provider::new(kind, default_url(kind)),
    };
    endpoint(section, &mut provider, dir);
    key(section, &mut provider, dir, env);
    provider.connect_seconds_max = section.int("connect_seconds_max", 1..=600, provider.connect_seconds_max);
    provider.first_byte_seconds_max =
        section.int("first_byte_seconds_max", 1..=86_400, provider.first_byte_seconds_max);
    provider.idle_seconds_max = section.int("idle_seconds_max", 1..=86_400, provider.idle_seconds_max);
    provider.set_window(limits.context_tokens, limits.remote_context_tokens);
    provider.context_tokens = section.int("context_tokens", CONTEXT_TOKENS, provider.context_tokens);
    if let Some(bytes) = section.float_opt("bytes_per_token", 1.0..=8.0) {
        // Within the range; what is cut off is less than a tenth.
        provider.token_tenths = (bytes * 10.0).round() as u64;
    }
    of_one_kind(section, &mut provider);
    authority(section, &mut provider, dir);
    Some(provider)
}

fn default_url(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Ollama => OLLAMA_DEFAULT,
        // Whoever says openai means any of many servers.
        ProviderKind::OpenAi | ProviderKind::Replay => "",
        _ => WELL_KNOWN.iter().find(|(_, known, ..)| *known == kind).map_or("", |(_, _, url, _)| url),
    }
}

/// What only Ollama, and what only Anthropic understands.
fn of_one_kind(section: &Section<'_>, provider: &mut Provider) {
    if let Some(text) = section.loose_text("keep_alive") {
        if is_keep_alive(&text) {
            provider.keep_alive = text;
        } else {
            section
                .error("keep_alive", &format!("expected seconds or a time like 30m, or -1 for ever, found {text:?}"));
        }
    }
    match section.bool_opt("preload") {
        Some(_) if provider.kind != ProviderKind::Ollama => section.error("preload", "only kind: ollama loads models"),
        Some(preload) => provider.preload = preload,
        None => {}
    }
    if section.get("thinking_tokens").is_none() {
        return;
    }
    if provider.kind != ProviderKind::Anthropic {
        section.error("thinking_tokens", "only kind: anthropic is asked to think");
    } else if section.get("thinking_tokens").and_then(read::text_of) == Some("adaptive") {
        provider.thinking = Thinking::Adaptive;
    } else if let Some(Kind::Text(_)) = section.get("thinking_tokens").map(|node| &node.kind) {
        let expected = format!("expected adaptive, or a whole number from {THINKING_TOKENS_MIN} on");
        section.error("thinking_tokens", &expected);
    } else if let Some(tokens) = section.int_opt("thinking_tokens", THINKING_TOKENS_MIN..=*CONTEXT_TOKENS.end()) {
        provider.thinking = Thinking::Tokens(tokens);
    }
}

/// The certificates that the endpoint is trusted by, instead of the bundled roots.
fn authority(section: &Section<'_>, provider: &mut Provider, dir: &Path) {
    let Some(path) = section.text("ca_file") else { return };
    let path = from_base(dir, path);
    match certificates(&path) {
        Ok(certificates) => provider.ca = Some((path, certificates)),
        Err(message) => section.error("ca_file", &format!("{}: {message}", path.display())),
    }
}

#[cfg(not(feature = "tls"))]
fn certificates(_: &Path) -> Result<Vec<Vec<u8>>, String> {
    Err(NO_TLS.to_owned())
}

#[cfg(feature = "tls")]
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = read::file(path, CA_BYTES_MAX)?;
    if bytes.len() > CA_BYTES_MAX {
        return Err(format!("the file has more than {CA_BYTES_MAX} bytes"));
    }
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let number = found.len() + 1;
        let certificate = certificate.map_err(|_| format!("certificate {number} is not PEM"))?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate);
        anchor.map_err(|error| format!("certificate {number} cannot be trusted: {error}"))?;
        found.push(certificate.to_vec());
    }
    if found.is_empty() {
        return Err("expected certificates in PEM (-----BEGIN CERTIFICATE-----), found none".to_owned());
    }
    Ok(found)
}

/// Range of a context window in tokens.
pub const CONTEXT_TOKENS: std::ops::RangeInclusive<u64> = CONTEXT_TOKENS_MIN..=CONTEXT_TOKENS_MAX;

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
                    (provider.api_key, provider.api_key_missing, provider.key_from) = (None, None, None);
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
        let path = from_base(dir, path);
        provider.key_from = Some(format!("file {}", path.display()));
        (provider.api_key, provider.api_key_missing) = match secret_file::read(&path) {
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
    provider.key_from = Some(format!("environment variable {variable}"));
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
    if is_out_of_reach(url) {
        return Err(format!("{NO_TLS}, found {:?}", masked_url(url)));
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
