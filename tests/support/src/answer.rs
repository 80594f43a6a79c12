//! What a fake is told to say.

use std::time::Duration;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Name of the tool.
    pub name: String,
    /// JSON text of an object, as a rule.
    pub arguments: String,
}

/// Tokens, as Duragent counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, the cached ones included.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of the prompt, those from the cache.
    pub cached: u64,
    /// Millionths of a dollar; only OpenRouter tells them.
    pub cost_micros: u64,
}

/// One answer of the model, with what goes wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub(crate) thinking: Vec<String>,
    pub(crate) redacted: bool,
    pub(crate) thinking_again: String,
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) split: Split,
    /// Status and body as they came from elsewhere.
    pub(crate) recorded: Option<(u16, String)>,
}

impl Answer {
    /// An answer as it was recorded: a stream, or with another status than 200 a JSON body. Of the faults only those that are
    /// no matter of frames have a meaning.
    #[must_use]
    pub fn recorded(status: u16, body: &str) -> Self {
        Self { recorded: Some((status, body.into())), ..Self::new() }
    }

    /// An answer that says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { usage: Some(Usage { input: 40, output: 7, cached: 0, cost_micros: 123 }), ..Self::default() }
    }

    /// An answer of this text; its words are the pieces.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new().say(text)
    }

    /// An answer that is a call.
    #[must_use]
    pub fn call(name: &str, arguments: &str) -> Self {
        Self::new().and_call(name, arguments)
    }

    /// Adds text; its words are pieces of the stream.
    #[must_use]
    pub fn say(mut self, text: &str) -> Self {
        self.text.extend(text.split_inclusive(' ').map(String::from));
        self
    }

    /// Adds thinking; its words are pieces of the stream.
    #[must_use]
    pub fn think(mut self, text: &str) -> Self {
        self.thinking.extend(text.split_inclusive(' ').map(String::from));
        self
    }

    /// Adds thinking that only the provider can read: `redacted_thinking`, `reasoning.encrypted`.
    #[must_use]
    pub fn think_in_secret(mut self) -> Self {
        self.redacted = true;
        self
    }

    /// Adds thinking between the text and the calls. Only Anthropic's models do that.
    #[must_use]
    pub fn think_again(mut self, text: &str) -> Self {
        self.thinking_again.push_str(text);
        self
    }

    /// Adds a call.
    #[must_use]
    pub fn and_call(mut self, name: &str, arguments: &str) -> Self {
        self.calls.push(Call { name: name.into(), arguments: arguments.into() });
        self
    }

    /// Reports these tokens.
    #[must_use]
    pub fn usage(mut self, input: u64, output: u64, cached: u64) -> Self {
        self.usage = Some(Usage { input, output, cached, cost_micros: 123 });
        self
    }

    /// Ends with this reason, in the provider's words, instead of the one that fits.
    #[must_use]
    pub fn finish(mut self, reason: &str) -> Self {
        self.finish = Some(reason.into());
        self
    }

    /// Goes wrong in this way too.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Cut into these pieces on its way.
    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    /// True if the connection is to end in RST.
    pub(crate) fn resets(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::Cut(_, End::Rst)))
    }

    pub(crate) fn has(&self, fault: &Fault) -> bool {
        self.faults.contains(fault)
    }
}

/// Into which pieces the bytes of a stream are cut; each is a write and a chunk of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Split {
    /// As servers do it: a frame, a piece.
    #[default]
    Frames,
    /// All at once.
    Whole,
    /// One byte a piece: characters of UTF-8, CR LF and every frame are torn.
    EveryByte,
    /// Two pieces, the first of so many bytes.
    At(usize),
}

/// Where a stream breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// After the content, before the frame that says it is finished.
    BeforeFinish,
    /// After the frame that says it is finished, before usage and the end mark. With Ollama these are one frame, so nothing
    /// is missing.
    AfterFinish,
    /// After so many bytes.
    Bytes(usize),
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As if the answer were whole: the last chunk is there.
    Clean,
    /// Closed (FIN) without the last chunk.
    Fin,
    /// Reset (RST).
    Rst,
    /// Nothing more comes, and the connection stays.
    Hang,
}

/// What goes wrong. Those that are about another API's frames change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error status instead of an answer, in the provider's own form. `Retry-After` as it is to be sent.
    Status(u16, Option<String>),
    /// An error status whose message is this text: some tell the key that they refuse.
    Tells(u16, String),
    /// The prompt has so many tokens, and the window fewer: `(tokens, window)`, in the provider's words.
    TooLong(u64, u64),
    /// Ollama's 500 for a call of the model that it could not parse.
    BadCall,
    /// There is no money left, in the provider's words: OpenAI says it with 429, Anthropic with 400, the others with 402.
    NoCredit,
    /// The connection is closed after the whole answer, unannounced. Who would ask on it again finds nobody.
    HangsUp,
    /// A redirect to this URL.
    Redirect(String),
    /// A page of a proxy, under this status.
    Page(u16),
    /// An error as the whole body, under 200.
    ErrorUnder200,
    /// The stream ends with the error that says "overloaded", after its content.
    ErrorInStream,
    /// The stream breaks off.
    Cut(Cut, End),
    /// Silence before the head of the answer.
    Silence(Duration),
    /// A pause before each piece.
    Drip(Duration),
    /// Pieces of calls without their index.
    NoIndex,
    /// All calls have index 0.
    SameIndex,
    /// Calls without ids.
    NoIds,
    /// The reason to finish is `stop` (`end_turn`) in spite of calls.
    StopWithCalls,
    /// Ollama: all calls in the last frame.
    CallsInLastFrame,
    /// The end mark is missing: `[DONE]`.
    NoDone,
    /// Comments between the frames.
    Comments,
    /// CR LF at the end of lines.
    CrLf,
    /// Arguments of calls are left out; OpenAI: the empty text, Anthropic: no `input_json_delta`.
    NoArguments,
    /// Arguments of calls as a text that is no JSON; Ollama: a text instead of an object.
    BadArguments,
    /// No tokens are told.
    NoUsage,
    /// Events that nobody knows.
    UnknownEvents,
}

impl Fault {
    /// An error status without `Retry-After`.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status(status, None)
    }

    /// 429 with `Retry-After`: seconds, or a date as HTTP writes it.
    #[must_use]
    pub fn busy(retry_after: &str) -> Self {
        Self::Status(429, Some(retry_after.into()))
    }

    /// The stream breaks off here, in this way.
    #[must_use]
    pub fn cut(cut: Cut, end: End) -> Self {
        Self::Cut(cut, end)
    }
}
