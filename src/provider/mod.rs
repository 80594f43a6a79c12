//! Models behind one trait: a request built from the log goes out, deltas come back live, and a whole reply or a
//! failure ends it. Nothing of a reply is acted on before it is whole.
//!
//! Absent: retries, budgets and what to do about a failure: the session machine decides those.

pub mod anthropic;
pub mod config;
pub mod http;
mod models;
pub mod ollama;
pub mod openai;
pub mod replay;
mod stream;
mod text_calls;
mod wire;

#[cfg(test)]
mod testing;

use duragent_core::event::FailureKind;
use duragent_core::tool::ToolDecl;
use duragent_platform::cancel::Cancel;

pub use duragent_core::message::{Message, Reply};

/// All a provider needs for one model call.
#[derive(Debug, Clone)]
pub struct Request {
    /// Model name.
    pub model: String,
    /// System prompt; byte-stable over a session, so that the server's prompt cache works.
    pub system: String,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Tools on offer.
    pub tools: Vec<ToolDecl>,
    /// Sampling temperature, if the agent sets one.
    pub temperature: Option<f64>,
    /// Most tokens of the answer, if the agent sets it.
    pub max_output_tokens: Option<u64>,
    /// Context window to ask for, in tokens (Ollama's `num_ctx`).
    pub context_tokens: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the machine.
    pub kind: FailureKind,
    /// For people: what, where, expected, found, and what to do about it.
    pub detail: String,
    /// Milliseconds the server asked us to wait (Retry-After).
    pub retry_after_ms: Option<u64>,
    /// The model's real window in tokens, where a failure of kind [`FailureKind::TooLong`] told it.
    pub context_tokens: Option<u64>,
    /// True if the model may have worked: an answer had begun, or nobody knows. Its tokens count as used then.
    pub worked: bool,
}

impl Failure {
    /// A failure of which nothing else is known; the model did not work.
    #[must_use]
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after_ms: None, context_tokens: None, worked: false }
    }
}

/// A live piece of an answer; shown, never acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta<'a> {
    /// Text.
    Text(&'a str),
    /// Thinking.
    Thinking(&'a str),
    /// What the endpoint does before it answers, for people: `loading qwen3:1.7b`.
    Status(&'a str),
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// For people, in one line.
    pub text: String,
    /// Longest context of the model in tokens, where the endpoint says it.
    pub context_tokens: Option<u64>,
    /// True if the endpoint says that the model cannot call tools.
    pub lacks_tools: bool,
}

/// An endpoint that answers. Called on a blocking thread; must be usable from several at once.
pub trait Provider: Send + Sync {
    /// Asks the model. Deltas go to `on_delta` as they arrive. Returns soon after `cancel` is raised, with any failure.
    ///
    /// # Errors
    /// [`Failure`] if the answer did not arrive whole.
    fn complete(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, Failure>;

    /// The body of the request that [`Provider::complete`] would send, byte for byte.
    fn body(&self, request: &Request) -> String;

    /// Asks as little as possible of the endpoint: whether it answers at all, within some seconds. Costs no tokens.
    ///
    /// # Errors
    /// [`Failure`] if a model call could not succeed now either.
    fn reach(&self) -> Result<(), Failure>;

    /// Has `model` loaded with a window of `context_tokens` before it is needed. Returns when it is; at once and with
    /// nothing where the endpoint cannot do that, or is not to.
    fn preload(&self, _model: &str, _context_tokens: u64, _cancel: &Cancel) -> Option<Result<(), Failure>> {
        None
    }

    /// Checks that the endpoint answers and knows `model`, for `doctor`.
    ///
    /// # Errors
    /// [`Failure`] with a remedy in `detail`.
    fn probe(&self, model: &str) -> Result<Probe, Failure>;
}
