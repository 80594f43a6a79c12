//! Anthropic's messages (`POST /v1/messages`, server-sent events; docs of the Claude API, "Streaming messages", "Extended
//! thinking", "Prompt caching").
//!
//! What the API does, and this module with it: thinking comes in signed blocks that go back as they were; a tool's input
//! comes in pieces, whole in the block's start, or not at all; `ping` and events yet unknown mean nothing; an error can
//! come within the answer. It wants all results of an answer's calls first in one message, roles that take turns, no empty
//! texts, and a limit on every answer.
//!
//! Invariants: a stream without `stop_reason` gives no reply; blocks of another model are never sent.
//!
//! Absent: images, tools that the server runs, thinking between the calls of one answer in its place (it goes back in
//! front of the calls).

mod body;

use super::http::{Client, Refusal};
use super::models;
use super::stream::{self, OnDelta, Parts, Progress, worked};
use super::wire::{self, Seen, check_room, malformed, push_call};
use super::{Delta, Failure, Message, Probe, Provider, Reply, Request};
use duragent_core::event::{FailureKind, Usage};
use duragent_core::json::{self, ObjectWriter, Value};
use duragent_core::provider::Thinking;
use duragent_core::sse::Events;
use duragent_platform::cancel::Cancel;
use miniserde::Deserialize;

/// The version of the API that is spoken, as a header.
pub const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// Anthropic, or who speaks as they do.
#[derive(Debug)]
pub struct Anthropic {
    client: Client,
    thinking: Thinking,
}

impl Anthropic {
    /// The server that `client` talks to, whose base URL ends before `/v1`; `thinking` as configured.
    #[must_use]
    pub fn new(client: Client, thinking: Thinking) -> Self {
        Self { client, thinking }
    }

    fn ask(&self, body: &str, cancel: &Cancel, on_delta: OnDelta<'_>) -> Result<Reply, Asked> {
        let answer = self.client.post("/v1/messages", body, cancel)?;
        if !answer.is_success() {
            return Err(Asked::Refused(answer.into_refusal()));
        }
        let mut stream = Stream::new(&self.client);
        stream::read(answer, &mut stream, on_delta)?;
        Ok(stream.into_reply().map_err(worked)?)
    }
}

/// Why a request gave no reply.
enum Asked {
    /// Its own words about it.
    Refused(Refusal),
    Failed(Failure),
}

impl From<Failure> for Asked {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The failure of a refused request, with what to change.
fn refused(refusal: Refusal) -> Failure {
    let Refusal { status, said, mut failure } = refusal;
    if status == 400 {
        if said.contains("thinking") {
            failure.detail.push_str("; thinking_tokens is a number for older models, adaptive for newer ones");
        } else if said.contains("temperature") {
            failure.detail.push_str("; leave temperature out for this model");
        }
    }
    failure
}

impl Provider for Anthropic {
    fn complete(&self, request: &Request, cancel: &Cancel, on_delta: OnDelta<'_>) -> Result<Reply, Failure> {
        let body = self.body(request);
        match self.ask(&body, cancel, on_delta) {
            Ok(reply) => Ok(reply),
            Err(Asked::Failed(failure)) => Err(failure),
            // Signatures hold for the conversation they were made in, and that may have been shortened.
            Err(Asked::Refused(refusal))
                if refusal.status == 400
                    && ["thinking", "signature"].iter().any(|word| refusal.said.contains(word))
                    && request.messages.iter().any(|message| body::blocks(message, request).is_some()) =>
            {
                let mut request = request.clone();
                for message in &mut request.messages {
                    if let Message::Assistant { blocks, .. } = message {
                        *blocks = None;
                    }
                }
                self.ask(&self.body(&request), cancel, on_delta).map_err(|asked| match asked {
                    Asked::Failed(failure) => failure,
                    Asked::Refused(refusal) => refused(refusal),
                })
            }
            Err(Asked::Refused(refusal)) => Err(refused(refusal)),
        }
    }

    fn body(&self, request: &Request) -> String {
        body::write(request, self.thinking)
    }

    fn reach(&self) -> Result<(), Failure> {
        models::reach(&self.client, "/v1/models?limit=1")
    }

    fn probe(&self, model: &str) -> Result<Probe, Failure> {
        let answer = self.client.get(&["/v1/models/", model].concat(), models::PROBE_WAIT)?;
        match answer.status() {
            200..=299 => {
                let found = json::parse(&answer.text()?).ok();
                let number = |key| found.as_ref()?.get(key)?.as_u64();
                let text = [self.client.host(), " answers and offers ", model].concat();
                let context_tokens = number("max_input_tokens");
                Ok(Probe { text: self.client.quote(&text), context_tokens, lacks_tools: false })
            }
            404 => models::probe(&self.client, "/v1/models?limit=100", model),
            _ => Err(answer.into_refusal().failure),
        }
    }
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: Option<String>,
    index: Option<u64>,
    message: Option<Start>,
    content_block: Option<Piece>,
    delta: Option<Piece>,
    usage: Option<FrameUsage>,
}

#[derive(Deserialize)]
struct Start {
    usage: Option<FrameUsage>,
}

/// The start of a block, or more of it; and what ends the message.
#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    name: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    partial_json: Option<String>,
    input: Option<Seen>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct FrameUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// A block as far as it has come.
#[derive(Default)]
struct Block {
    index: Option<u64>,
    kind: String,
    id: String,
    name: String,
    /// Text, thinking, redacted data or a tool's input.
    text: String,
    signature: String,
}

/// The answer as far as it has come.
struct Stream<'c> {
    client: &'c Client,
    events: Events,
    reply: Reply,
    blocks: Vec<Block>,
    calls: usize,
    /// Tokens of the prompt: new ones, those put into the cache, those read from it.
    input: [u64; 3],
    done: bool,
}

impl<'c> Stream<'c> {
    fn new(client: &'c Client) -> Self {
        let (reply, blocks) = (Reply::default(), Vec::new());
        Self { client, events: Events::default(), reply, blocks, calls: 0, input: [0; 3], done: false }
    }

    /// True if the event was the last.
    fn take(&mut self, event: &str, data: &str, on_delta: OnDelta<'_>) -> Result<bool, Failure> {
        let frame: Frame = wire::frame(data).map_err(|what| malformed(self.client, &what, data))?;
        match frame.kind.as_deref().unwrap_or(event) {
            "message_start" => self.count(frame.message.and_then(|start| start.usage)),
            "content_block_start" => self.start(frame.index, frame.content_block, data, on_delta)?,
            "content_block_delta" => self.add(frame.index, frame.delta, on_delta),
            "message_delta" => {
                self.count(frame.usage);
                if let Some(reason) = frame.delta.and_then(|delta| delta.stop_reason) {
                    self.reply.finish_reason = reason;
                }
            }
            "message_stop" => self.done = true,
            "error" => return Err(self.client.reported(data)),
            _ => {}
        }
        Ok(self.done)
    }

    fn count(&mut self, usage: Option<FrameUsage>) {
        let Some(usage) = usage else { return };
        let found = [usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens];
        for (count, found) in self.input.iter_mut().zip(found) {
            *count = found.unwrap_or(*count);
        }
        let output_tokens = usage.output_tokens.unwrap_or(self.reply.usage.output_tokens);
        let input_tokens = self.input.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
        self.reply.usage = Usage { input_tokens, output_tokens, cached_tokens: self.input[2], cost_micros: 0 };
    }

    fn start(
        &mut self,
        index: Option<u64>,
        piece: Option<Piece>,
        data: &str,
        on_delta: OnDelta<'_>,
    ) -> Result<(), Failure> {
        let Some(piece) = piece else { return Ok(()) };
        let mut block = Block { index, kind: piece.kind.unwrap_or_default(), ..Block::default() };
        block.id = piece.id.unwrap_or_default();
        block.name = piece.name.unwrap_or_default();
        block.signature = piece.signature.unwrap_or_default();
        block.text = piece.text.or(piece.thinking).or(piece.data).unwrap_or_default();
        if block.kind == "tool_use" {
            check_room(self.client, self.calls)?;
            self.calls += 1;
            if piece.input.is_some() {
                let frame = json::parse(data).map_err(|error| malformed(self.client, &error.to_string(), data))?;
                match frame.get("content_block").and_then(|block| block.get("input")) {
                    // An empty one only announces the pieces.
                    Some(Value::Object(fields)) if fields.is_empty() => {}
                    Some(input) => block.text = input.to_string(),
                    None => {}
                }
            }
        }
        show(&block.kind, &block.text, on_delta);
        self.blocks.push(block);
        Ok(())
    }

    fn add(&mut self, index: Option<u64>, piece: Option<Piece>, on_delta: OnDelta<'_>) {
        let place = self.blocks.iter().rposition(|block| block.index == index);
        let block = place.and_then(|at| self.blocks.get_mut(at));
        let (Some(piece), Some(block)) = (piece, block) else { return };
        if let Some(more) = piece.text.or(piece.thinking).or(piece.partial_json) {
            show(&block.kind, &more, on_delta);
            block.text.push_str(&more);
        }
        block.signature.push_str(&piece.signature.unwrap_or_default());
    }

    fn into_reply(self) -> Result<Reply, Failure> {
        let (client, mut reply) = (self.client, self.reply);
        let cut = match reply.finish_reason.as_str() {
            "" => return Err(client.failed(FailureKind::Truncated, "the stream ended without stop_reason")),
            "refusal" => {
                let what = "the model declined to answer (stop_reason refusal); say it in other words";
                return Err(client.failed(FailureKind::Invalid, what));
            }
            reason => matches!(reason, "max_tokens" | "model_context_window_exceeded"),
        };
        let thinks = |block: &Block| matches!(block.kind.as_str(), "thinking" | "redacted_thinking");
        let said = self.blocks.iter().position(|block| block.kind == "text" && !block.text.trim().is_empty());
        // Thinking between texts goes back in its place, so the texts are kept with it.
        let mixed = said.is_some_and(|at| self.blocks.iter().skip(at).any(thinks));
        let mut kept = String::from("[");
        for block in self.blocks {
            match block.kind.as_str() {
                "text" => {
                    reply.text.push_str(&block.text);
                    if mixed && !block.text.trim().is_empty() {
                        wire::comma(&mut kept);
                        body::write_text(&mut kept, &block.text);
                    }
                }
                "tool_use" => push_call(client, &mut reply.tool_calls, (block.id, block.name, &block.text), cut)?,
                "thinking" | "redacted_thinking" => {
                    let open = block.kind == "thinking";
                    wire::comma(&mut kept);
                    let mut object = ObjectWriter::new(&mut kept);
                    object.str("type", &block.kind).str(if open { "thinking" } else { "data" }, &block.text);
                    if open {
                        object.str("signature", &block.signature);
                    }
                    object.finish();
                    if open && !block.text.is_empty() {
                        reply.thinking.get_or_insert_default().push_str(&block.text);
                    }
                }
                _ => {}
            }
        }
        if kept.len() > 1 {
            kept.push(']');
            reply.blocks = Some(kept);
        }
        Ok(reply)
    }
}

impl Parts for Stream<'_> {
    fn feed(&mut self, bytes: &[u8], on_delta: OnDelta<'_>) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        let (client, mut events) = (self.client, std::mem::take(&mut self.events));
        let fed = stream::each_event(client, &mut events, bytes, &mut |event, data| self.take(event, data, on_delta));
        self.events = events;
        fed
    }

    fn progress(&self) -> Progress {
        match self.reply.finish_reason.is_empty() {
            _ if self.done => Progress::Done,
            true => Progress::Open,
            false => Progress::Whole,
        }
    }
}

fn show(kind: &str, text: &str, on_delta: OnDelta<'_>) {
    match kind {
        _ if text.is_empty() => {}
        "text" => on_delta(Delta::Text(text)),
        "thinking" => on_delta(Delta::Thinking(text)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
