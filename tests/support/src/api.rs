//! What differs between the APIs.

pub(crate) mod anthropic;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod openrouter;

use crate::answer::{Answer, Fault};
use crate::http::Asked;
use crate::json::Json;

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The provider's own name of the error, where it has one.
    pub(crate) kind: &'static str,
    /// The field it is about, where the provider says it.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
}

impl Refusal {
    /// A request that makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: 400, kind: "invalid_request_error", param: None, message: message.into() }
    }

    /// The same, about a field.
    pub(crate) fn about(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }
}

/// What a frame of a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Before anything is said, and what is said.
    Content,
    /// That it is finished.
    Finish,
    /// What comes after.
    Tail,
}

/// A frame of a stream: its lines without what separates it from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) part: Part,
    pub(crate) text: String,
}

impl Frame {
    pub(crate) fn new(part: Part, text: impl Into<String>) -> Self {
        Self { part, text: text.into() }
    }
}

/// One API.
pub(crate) trait Api: Send + Sync {
    /// What the base URL of the provider ends in.
    fn base(&self) -> &'static str;

    /// The path of requests for an answer.
    fn path(&self) -> &'static str;

    /// `text/event-stream` or `application/x-ndjson`.
    fn content_type(&self) -> &'static str;

    /// Headers of every answer, as whole lines.
    fn headers(&self) -> &'static str {
        ""
    }

    /// What stands between two frames.
    fn separator(&self) -> &'static str {
        "\n\n"
    }

    /// The key that a request carries.
    fn key<'a>(&self, asked: &'a Asked) -> Option<&'a str> {
        asked.header("authorization")?.strip_prefix("Bearer ")
    }

    /// Refuses what the real API refuses.
    fn check(&self, asked: &Asked, body: &Json) -> Result<(), Refusal>;

    /// The frames of an answer to `body`. `number` is that of the answer, for ids.
    fn frames(&self, answer: &Answer, body: &Json, number: usize) -> Vec<Frame>;

    /// An error as a body.
    fn error(&self, refusal: &Refusal) -> String;

    /// The frames of an error in a stream that says "overloaded".
    fn error_in_stream(&self, body: &Json, number: usize) -> Vec<Frame>;

    /// What stands for this status.
    fn refusal(&self, status: u16) -> Refusal;

    /// How it says that there is no money left.
    fn no_credit(&self) -> Refusal {
        self.refusal(402)
    }

    /// How it says that a prompt of so many tokens does not fit a window of so many.
    fn too_long(&self, tokens: u64, window: u64) -> Refusal;
}

/// The texts of a call's arguments, in pieces, as `fault` has them.
pub(crate) fn arguments_in_pieces(answer: &Answer, arguments: &str) -> Vec<String> {
    if answer.has(&Fault::NoArguments) {
        return Vec::new();
    }
    let text = if answer.has(&Fault::BadArguments) { "{\"command\": \"ls" } else { arguments };
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(7).map(|piece| piece.iter().collect()).collect()
}

/// The id of call number `i` of answer number `number`.
pub(crate) fn call_id(prefix: &str, number: usize, i: usize) -> String {
    format!("{prefix}{number:04}x{i:02}")
}

/// A signature of `text` that nobody else would make (FNV-1a, twice).
pub(crate) fn sign(text: &str) -> String {
    let hash =
        |seed: u64| text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("EqQB/{:016x}+{:016x}==", hash(0xcbf2_9ce4_8422_2325), hash(0x6475_7261_6765_6e74))
}

/// True if a name of a tool is one that the APIs take.
pub(crate) fn is_tool_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty()
        && name.len() <= bytes_max
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
