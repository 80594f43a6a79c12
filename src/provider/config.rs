//! From plain settings to a provider. The `config` module fills [`ProviderConfig`]; nothing here reads a file but the
//! transcript of a replay, or the environment.

use super::anthropic::{self, Anthropic};
use super::http::{Settings, SetupError, Timeouts};
use super::ollama::Ollama;
use super::openai::{Dialect, OpenAi};
use super::replay::{Replay, TranscriptError};
use super::{Provider, http};
use duragent_core::provider::{ProviderKind, Thinking};
use std::path::PathBuf;
use std::sync::Arc;

/// Where Ollama listens unless told otherwise.
pub const OLLAMA_URL: &str = "http://127.0.0.1:11434";

/// How long Ollama keeps a model loaded after a call unless told otherwise: loading costs minutes on a small board, a
/// person's next message comes within a few.
pub const KEEP_ALIVE: &str = "10m";

/// Where a transcript comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transcript {
    /// A file, read once when the provider is built.
    File(PathBuf),
    /// Text in the binary, with a name for messages.
    Text {
        /// Name for messages.
        name: &'static str,
        /// JSON lines.
        text: &'static str,
    },
}

/// All settings of a provider.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// What kind of endpoint.
    pub kind: ProviderKind,
    /// Where it is and how it is reached; for [`ProviderKind::OpenAi`] with `/v1`. Not used by [`ProviderKind::Replay`].
    pub http: Settings,
    /// Ollama's `keep_alive`: a duration as `10m`, or seconds; -1 is for ever.
    pub keep_alive: String,
    /// Whether Ollama loads models before they are needed.
    pub preload: bool,
    /// For [`ProviderKind::Anthropic`].
    pub thinking: Thinking,
    /// For [`ProviderKind::Replay`].
    pub transcript: Option<Transcript>,
}

impl ProviderConfig {
    /// The settings of `kind` at `base_url`, all else as it is by default. Without a URL Ollama is the local one; the
    /// others have no default. Timeouts are [`Timeouts::LOCAL`] if the URL names this machine or a private network.
    #[must_use]
    pub fn new(kind: ProviderKind, base_url: Option<String>) -> Self {
        let base_url =
            base_url.or_else(|| (kind == ProviderKind::Ollama).then(|| OLLAMA_URL.into())).unwrap_or_default();
        let local = kind == ProviderKind::Ollama || http::is_local(&base_url);
        let timeouts = if local { Timeouts::LOCAL } else { Timeouts::REMOTE };
        Self {
            kind,
            http: Settings::new(&base_url, timeouts),
            keep_alive: KEEP_ALIVE.into(),
            preload: false,
            thinking: Thinking::Unset,
            transcript: None,
        }
    }
}

/// Why a provider cannot be built from its settings.
#[derive(Debug)]
pub enum BuildError {
    /// URL or header.
    Setup(SetupError),
    /// The transcript cannot be read.
    Transcript(TranscriptError),
    /// A replay without a transcript.
    NoTranscript,
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setup(error) => error.fmt(f),
            Self::Transcript(error) => error.fmt(f),
            Self::NoTranscript => f.write_str("provider of kind \"replay\": no transcript given"),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<SetupError> for BuildError {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<TranscriptError> for BuildError {
    fn from(error: TranscriptError) -> Self {
        Self::Transcript(error)
    }
}

/// Builds the provider. Connects to nothing.
///
/// # Errors
/// [`BuildError`].
pub fn build(config: &ProviderConfig) -> Result<Arc<dyn Provider>, BuildError> {
    let client = || http::Client::new(&config.http);
    let near = http::is_local(&config.http.base_url);
    Ok(match config.kind {
        ProviderKind::Ollama => Arc::new(Ollama::new(client()?, &config.keep_alive, config.preload)),
        ProviderKind::OpenAi => Arc::new(OpenAi::new(client()?, if near { Dialect::Near } else { Dialect::Plain })),
        ProviderKind::OpenRouter => Arc::new(OpenAi::new(client()?, Dialect::OpenRouter)),
        ProviderKind::Anthropic => {
            // With or without /v1 at its end: people copy both.
            let base_url = config.http.base_url.trim_end_matches('/');
            let base_url = base_url.strip_suffix("/v1").unwrap_or(base_url).into();
            let (key_header, version) = (Some("x-api-key"), Some(anthropic::VERSION));
            let http = Settings { base_url, key_header, version, ..config.http.clone() };
            Arc::new(Anthropic::new(http::Client::new(&http)?, config.thinking))
        }
        ProviderKind::Replay => match &config.transcript {
            Some(Transcript::File(path)) => Arc::new(Replay::open(path)?),
            Some(Transcript::Text { name, text }) => Arc::new(Replay::from_text(name, text)?),
            None => return Err(BuildError::NoTranscript),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{BuildError, OLLAMA_URL, ProviderConfig, ProviderKind, Transcript, build};
    use crate::provider::http::Timeouts;
    use duragent_core::secret::Secret;

    fn error(config: &ProviderConfig) -> String {
        build(config).err().expect("must not be built").to_string()
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = ProviderConfig::new(ProviderKind::OpenAi, Some("http://127.0.0.1:1/v1".into()));
        config.http.api_key = Some(Secret::new("sk-geheim".into()));
        config.http.headers = vec![("x-team".into(), Secret::new("sk-geheim-2".into()))];
        assert!(!format!("{config:?}").contains("geheim"), "{config:?}");
        config.http.headers = vec![("x-team".into(), Secret::new("sk-geheim\n2".into()))];
        let text = error(&config);
        assert!(text.contains("x-team") && !text.contains("geheim"), "{text}");
        config.http.headers.clear();
        config.http.api_key = Some(Secret::new("sk-geheim\r\n".into()));
        let text = error(&config);
        assert!(text.contains("authorization") && !text.contains("geheim"), "{text}");
    }

    #[test]
    fn wrong_urls_are_refused_with_the_reason() {
        let cases = [
            ("", "not a URL"),
            ("127.0.0.1:11434", "neither http:// nor https://"),
            ("/v1", "no host"),
            ("ftp://host/", "neither http:// nor https://"),
            ("http://me:geheim@host/v1", "user name or password"),
            ("http://host/v1?key=1", "a query"),
        ];
        for (url, want) in cases {
            let text = error(&ProviderConfig::new(ProviderKind::OpenAi, Some(url.into())));
            assert!(text.contains(want) && !text.contains("geheim"), "{url}: {text}");
        }
        for url in ["http://host", "https://host:8443/v1/", "http://[::1]:11434"] {
            assert!(build(&ProviderConfig::new(ProviderKind::Ollama, Some(url.into()))).is_ok(), "{url}");
        }
    }

    #[test]
    fn local_servers_may_load_a_model_first() {
        let cases = [
            ("http://127.0.0.1:8080/v1", true),
            ("http://localhost:8080/v1", true),
            ("http://[::1]/v1", true),
            ("http://192.168.1.7/v1", true),
            ("http://pi.local/v1", true),
            ("https://api.example.com/v1", false),
            ("https://8.8.8.8/v1", false),
        ];
        for (url, local) in cases {
            let want = if local { Timeouts::LOCAL } else { Timeouts::REMOTE };
            assert_eq!(ProviderConfig::new(ProviderKind::OpenAi, Some(url.into())).http.timeouts, want, "{url}");
        }
        let ollama = ProviderConfig::new(ProviderKind::Ollama, None);
        assert_eq!((ollama.http.base_url.as_str(), ollama.http.timeouts), (OLLAMA_URL, Timeouts::LOCAL));
    }

    #[test]
    fn a_replay_needs_its_transcript() {
        let mut config = ProviderConfig::new(ProviderKind::Replay, None);
        assert!(matches!(build(&config), Err(BuildError::NoTranscript)));
        config.transcript = Some(Transcript::Text { name: "demo", text: "{\"step\":2}" });
        assert!(error(&config).starts_with("demo:1:"), "{}", error(&config));
        config.transcript = Some(Transcript::File("/nonexistent/t.jsonl".into()));
        assert!(error(&config).contains("/nonexistent/t.jsonl"));
        config.transcript = Some(Transcript::Text { name: "demo", text: "{\"deltas\":[\"a\"]}" });
        assert!(build(&config).is_ok());
    }
}
