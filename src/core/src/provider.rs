//! What is said of a provider before anybody talks to it. Absent: how it is talked to.

/// How to talk to a model's endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Ollama's own API (`/api/chat`), because its OpenAI endpoint ignores the context size.
    Ollama,
    /// Any endpoint that speaks OpenAI's chat completions.
    OpenAi,
    /// OpenRouter: OpenAI's chat completions with its own reasoning, prices and errors.
    OpenRouter,
    /// Anthropic's messages.
    Anthropic,
    /// A recorded transcript; for tests and the demonstration.
    Replay,
}

impl ProviderKind {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::OpenRouter => "openrouter",
            Self::Anthropic => "anthropic",
            Self::Replay => "replay",
        }
    }
}

/// Whether and how much a model thinks before it answers, where the endpoint can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Thinking {
    /// As the model does by itself.
    #[default]
    Unset,
    /// As much as the model thinks fit; models of Anthropic's from Claude 4.6 on.
    Adaptive,
    /// At most so many tokens; models of Anthropic's up to Claude 4.6.
    Tokens(u64),
}

impl Thinking {
    /// Most tokens of an answer in a window of so many, if nobody sets a limit: what a step of an agent needs, and the
    /// thinking that comes before it, which counts as part of it.
    #[must_use]
    pub fn answer_tokens(self, context_tokens: u64) -> u64 {
        let answer = 4096.min(context_tokens / 4).max(1);
        match self {
            Self::Unset => answer,
            Self::Adaptive => 16_384.min(context_tokens / 4).max(1),
            Self::Tokens(tokens) => answer.saturating_add(tokens).min(context_tokens / 2).max(answer),
        }
    }
}
