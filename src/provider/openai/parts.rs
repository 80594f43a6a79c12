//! A stream of chunks, put together.

use super::details::Details;
use super::{Dialect, ECHO};
use crate::provider::http::Client;
use crate::provider::stream::{self, OnDelta, Parts, Progress};
use crate::provider::wire::{self, Seen, check_room, malformed, push_call};
use crate::provider::{Delta, Failure, Reply};
use duragent_core::event::FailureKind;
use duragent_core::json;
use duragent_core::sse::Events;
use miniserde::Deserialize;

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<ChunkUsage>,
    error: Option<Seen>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<ChunkDelta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ChunkDelta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    reasoning_details: Option<Seen>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize, Default)]
struct CallDelta {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize, Default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct ChunkUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    /// OpenRouter: in US dollars.
    cost: Option<f64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

/// A call as far as it has come.
#[derive(Default)]
struct Partial {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Partial {
    fn is_whole(&self) -> bool {
        !self.name.is_empty() && json::parse(&self.arguments).is_ok()
    }
}

/// The answer as far as it has come.
pub(super) struct Stream<'c> {
    client: &'c Client,
    dialect: Dialect,
    events: Events,
    reply: Reply,
    calls: Vec<Partial>,
    details: Details,
    /// The thinking came in the field in which servers want it back.
    echo: bool,
    finished: bool,
    done: bool,
}

impl<'c> Stream<'c> {
    pub(super) fn new(client: &'c Client, dialect: Dialect) -> Self {
        let (events, reply, calls, details) = (Events::default(), Reply::default(), Vec::new(), Details::default());
        Self { client, dialect, events, reply, calls, details, echo: false, finished: false, done: false }
    }

    fn take_chunk(&mut self, error: bool, data: &str, on_delta: OnDelta<'_>) -> Result<(), Failure> {
        let client = self.client;
        let chunk: Chunk = wire::frame(data).map_err(|what| malformed(client, &what, data))?;
        if error || chunk.error.is_some() {
            return Err(client.reported(data));
        }
        if let Some(usage) = chunk.usage {
            self.count(usage);
        }
        let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else { return Ok(()) };
        if let Some(delta) = choice.delta {
            self.take_delta(delta, data, on_delta)?;
        }
        match choice.finish_reason.filter(|reason| !reason.is_empty()) {
            Some(reason) if reason == "error" => {
                Err(client.failed(FailureKind::Overloaded, "the server ended the answer with finish_reason error"))
            }
            Some(reason) => {
                self.reply.finish_reason = reason;
                self.finished = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn count(&mut self, usage: ChunkUsage) {
        let count = &mut self.reply.usage;
        count.input_tokens = usage.prompt_tokens.unwrap_or(0);
        count.output_tokens = usage.completion_tokens.unwrap_or(0);
        count.cached_tokens = usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
        if let (Dialect::OpenRouter, Some(cost)) = (self.dialect, usage.cost) {
            // Rounded up: a price is never nothing. What is negative or no number becomes 0.
            count.cost_micros = (cost * 1e6).ceil() as u64;
        }
    }

    fn take_delta(&mut self, delta: ChunkDelta, data: &str, on_delta: OnDelta<'_>) -> Result<(), Failure> {
        self.echo |= delta.reasoning_content.is_some();
        if let Some(text) = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty()) {
            on_delta(Delta::Thinking(&text));
            self.reply.thinking.get_or_insert_default().push_str(&text);
        }
        if delta.reasoning_details.is_some() && self.dialect == Dialect::OpenRouter {
            self.details.take(data).map_err(|what| malformed(self.client, what, data))?;
        }
        for text in [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
            on_delta(Delta::Text(&text));
            self.reply.text.push_str(&text);
        }
        for call in delta.tool_calls.into_iter().flatten() {
            let function = call.function.unwrap_or_default();
            let (id, name) = (call.id.unwrap_or_default(), function.name.unwrap_or_default());
            let at = place(&self.calls, call.index, &id, &name).unwrap_or(self.calls.len());
            if at == self.calls.len() {
                check_room(self.client, at)?;
                self.calls.push(Partial { index: call.index, ..Partial::default() });
            }
            let Some(partial) = self.calls.get_mut(at) else { continue };
            if partial.id.is_empty() {
                partial.id = id;
            }
            // Some send the name in pieces, some the whole name with every piece of the arguments.
            if partial.name != name {
                partial.name.push_str(&name);
            }
            partial.arguments.push_str(&function.arguments.unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn into_reply(self) -> Result<Reply, Failure> {
        let (client, mut reply) = (self.client, self.reply);
        if !self.finished {
            return Err(client.failed(FailureKind::Truncated, "the stream ended without finish_reason"));
        }
        let cut = reply.finish_reason == "length";
        for call in self.calls {
            push_call(client, &mut reply.tool_calls, (call.id, call.name, &call.arguments), cut)?;
        }
        reply.blocks = self.details.into_json();
        if self.echo && reply.thinking.is_some() && !reply.tool_calls.is_empty() {
            reply.blocks.get_or_insert_with(|| ECHO.into());
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
        let fed = stream::each_event(client, &mut events, bytes, &mut |event, data| {
            if data == "[DONE]" {
                self.done = true;
            } else {
                self.take_chunk(event == "error", data, on_delta)?;
            }
            Ok(self.done)
        });
        self.events = events;
        fed
    }

    fn progress(&self) -> Progress {
        match self.finished {
            _ if self.done => Progress::Done,
            true => Progress::Whole,
            false => Progress::Open,
        }
    }
}

/// Which call a piece belongs to; `None` for a new one.
fn place(calls: &[Partial], index: Option<u64>, id: &str, name: &str) -> Option<usize> {
    if !id.is_empty()
        && let Some(at) = calls.iter().rposition(|call| call.id == id)
    {
        return Some(at);
    }
    let last = calls.len().checked_sub(1)?;
    let at = match index {
        // A piece that names nothing belongs to some call, whatever its index.
        Some(_) if id.is_empty() && name.is_empty() => calls.iter().rposition(|c| c.index == index).unwrap_or(last),
        Some(_) => calls.iter().rposition(|c| c.index == index)?,
        None => last,
    };
    let call = calls.get(at)?;
    let other_id = !id.is_empty() && !call.id.is_empty();
    // Without ids a call that names a tool after whole arguments is the next one.
    let next = id.is_empty() && !name.is_empty() && call.is_whole();
    if other_id || next { None } else { Some(at) }
}
