//! Any server that speaks chat completions as OpenAI defined them (`POST /chat/completions`, server-sent events): OpenAI
//! itself, OpenRouter, llama.cpp, vLLM, LM Studio and others.
//!
//! Compatible is a wide word, so this module survives what servers really send: tool calls in pieces whose index is
//! missing or repeated (a new id is a new call), no arguments for none, `finish_reason` `stop` in spite of calls, a last
//! chunk with usage and no choices, no `[DONE]`, comments while waiting, errors under status 200.
//!
//! Invariants: a stream without `finish_reason` gives no reply; arguments that are not a JSON object give no reply.
//!
//! Absent: the responses API, images, echoing of thinking (servers refuse or ignore it).

use super::http::{Answer, Client, ErrorReport, kind_of_code};
use super::ollama::{CALLS_MAX, write_tools};
use super::wire::{self, Seen};
use super::{Delta, Failure, Message, Probe, Provider, Reply, Request};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, ObjectWriter, Reader, write_string};
use duragent_core::sse::Events;
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use miniserde::Deserialize;
use std::time::Duration;

/// How long to wait for usage and `[DONE]` after `finish_reason`: the answer is whole without them.
const TAIL_WAIT: Duration = Duration::from_secs(5);

/// How long a probe waits for its answer.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// Most models that a probe lists.
const LISTED_MAX: usize = 8;

/// A compatible server.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
}

impl OpenAi {
    /// The server that `client` talks to; its base URL includes `/v1` or what stands for it.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn write_body(&self, request: &Request) -> String {
        let mut out = String::with_capacity(4096);
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", &request.model);
        write_messages(body.key("messages"), request);
        if !request.tools.is_empty() {
            write_tools(body.key("tools"), &request.tools);
        }
        body.bool("stream", true).object("stream_options", |options| {
            options.bool("include_usage", true);
        });
        if let Some(temperature) = request.temperature {
            wire::write_f64(body.key("temperature"), temperature);
        }
        if let Some(tokens) = request.max_output_tokens {
            // OpenAI renamed it and refuses the old name for new models; the others know only the old one.
            let own = self.client.host().ends_with("openai.com");
            body.u64(if own { "max_completion_tokens" } else { "max_tokens" }, tokens);
        }
        body.finish();
        out
    }

    /// An answer under status 200 that is no stream: an error, or a server that cannot stream.
    fn not_a_stream(&self, answer: Answer<'_>) -> Failure {
        let text = match answer.text() {
            Ok(text) => text,
            Err(failure) => return failure,
        };
        match json::parse(&text) {
            Ok(value) if value.get("error").is_some() => reported(&self.client, &ErrorReport::of(&value), &text),
            _ => {
                let what = format!("expected text/event-stream, found application/json: {}", self.client.quote(&text));
                self.client.failed(FailureKind::Protocol, &what)
            }
        }
    }
}

impl Provider for OpenAi {
    fn complete(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, Failure> {
        let mut answer = self.client.post("/chat/completions", &self.write_body(request), cancel)?;
        if !(200..300).contains(&answer.status()) {
            return Err(answer.into_refusal().failure);
        }
        if answer.is_of_type("application/json") {
            return Err(self.not_a_stream(answer));
        }
        let mut stream = Stream::new(&self.client);
        let mut buffer = [0; 8192];
        while !stream.done {
            match answer.read(&mut buffer) {
                Ok([]) => break,
                Ok(more) => {
                    let before = stream.is_whole();
                    stream.feed(more, on_delta)?;
                    if stream.is_whole() && !before {
                        answer.hurry(TAIL_WAIT);
                    }
                }
                // Only usage and [DONE] can be missing.
                Err(_) if stream.is_whole() => break,
                Err(failure) => return Err(failure),
            }
        }
        answer.finish();
        stream.into_reply()
    }

    fn body(&self, request: &Request) -> String {
        self.write_body(request)
    }

    fn reach(&self) -> Result<(), Failure> {
        let answer = self.client.get("/models", PROBE_WAIT)?;
        if answer.status() < 500 { Ok(()) } else { Err(answer.into_refusal().failure) }
    }

    fn probe(&self, model: &str) -> Result<Probe, Failure> {
        let answer = self.client.get("/models", PROBE_WAIT)?;
        if matches!(answer.status(), 404 | 405 | 501) {
            return Ok(probed(format!("{} answers; it does not list its models", self.client.host())));
        }
        if !(200..300).contains(&answer.status()) {
            return Err(answer.into_refusal().failure);
        }
        let text = answer.text()?;
        let models = model_ids(&text).map_err(|error| {
            let what = format!("/models: {error}; does base_url end in /v1?");
            self.client.failed(FailureKind::Protocol, &what)
        })?;
        if models.iter().any(|id| id == model) {
            return Ok(probed(self.client.quote(&format!("{} answers and offers {model}", self.client.host()))));
        }
        let listed = models.iter().take(LISTED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = format!("model {model:?} is not among the {} offered: {listed}", models.len());
        Err(self.client.failed(FailureKind::Invalid, &self.client.quote(&what)))
    }
}

/// The API does not tell how long a context may be.
fn probed(text: String) -> Probe {
    Probe { text, context_tokens: None }
}

fn write_messages(out: &mut String, request: &Request) {
    out.push('[');
    if !request.system.is_empty() {
        let mut object = ObjectWriter::new(out);
        object.str("role", "system").str("content", &request.system);
        object.finish();
    }
    for message in &request.messages {
        if !out.ends_with('[') {
            out.push(',');
        }
        let mut object = ObjectWriter::new(out);
        match message {
            Message::User { content } => {
                object.str("role", "user").str("content", content);
            }
            Message::Assistant { content, tool_calls, .. } => {
                object.str("role", "assistant").str("content", content);
                if !tool_calls.is_empty() {
                    write_calls(object.key("tool_calls"), tool_calls);
                }
            }
            Message::Tool { call_id, content, .. } => {
                object.str("role", "tool").str("tool_call_id", call_id).str("content", content);
            }
        }
        object.finish();
    }
    out.push(']');
}

fn write_calls(out: &mut String, calls: &[ToolCall]) {
    out.push('[');
    for (i, call) in calls.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let mut object = ObjectWriter::new(out);
        object.str("id", &call.call_id).str("type", "function").object("function", |function| {
            function.str("name", &call.name);
            write_string(function.key("arguments"), if call.arguments.is_empty() { "{}" } else { &call.arguments });
        });
        object.finish();
    }
    out.push(']');
}

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
struct Stream<'c> {
    client: &'c Client,
    events: Events,
    reply: Reply,
    calls: Vec<Partial>,
    finished: bool,
    done: bool,
}

impl<'c> Stream<'c> {
    fn new(client: &'c Client) -> Self {
        let (reply, calls) = (Reply::default(), Vec::new());
        Self { client, events: Events::default(), reply, calls, finished: false, done: false }
    }

    /// True if only usage and the end can be missing.
    fn is_whole(&self) -> bool {
        self.finished
    }

    fn feed(&mut self, mut bytes: &[u8], on_delta: &mut dyn FnMut(Delta<'_>)) -> Result<(), Failure> {
        let client = self.client;
        let mut events = std::mem::take(&mut self.events);
        // What follows [DONE] has no meaning.
        while !self.done {
            let event = events.next(&mut bytes);
            let Some(event) = event.map_err(|error| client.failed(FailureKind::Protocol, &error.to_string()))? else {
                break;
            };
            match event.data.trim() {
                "" => {}
                "[DONE]" => self.done = true,
                data => self.take_chunk(event.event == "error", data, on_delta)?,
            }
        }
        self.events = events;
        Ok(())
    }

    fn take_chunk(&mut self, error: bool, data: &str, on_delta: &mut dyn FnMut(Delta<'_>)) -> Result<(), Failure> {
        let client = self.client;
        let chunk: Chunk = wire::frame(data).map_err(|what| {
            client.failed(FailureKind::Protocol, &format!("{what} in the chunk {:?}", client.quote(data)))
        })?;
        if error || chunk.error.is_some() {
            let report = json::parse(data).map(|value| ErrorReport::of(&value)).unwrap_or_default();
            return Err(reported(client, &report, data));
        }
        if let Some(usage) = chunk.usage {
            self.reply.usage.input_tokens = usage.prompt_tokens.unwrap_or(0);
            self.reply.usage.output_tokens = usage.completion_tokens.unwrap_or(0);
        }
        let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else { return Ok(()) };
        if let Some(delta) = choice.delta {
            self.take_delta(delta, on_delta)?;
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

    fn take_delta(&mut self, delta: ChunkDelta, on_delta: &mut dyn FnMut(Delta<'_>)) -> Result<(), Failure> {
        if let Some(text) = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty()) {
            on_delta(Delta::Thinking(&text));
            self.reply.thinking.get_or_insert_default().push_str(&text);
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
                if at >= CALLS_MAX {
                    let what = format!("more than {CALLS_MAX} tool calls in one answer");
                    return Err(self.client.failed(FailureKind::BadToolCall, &what));
                }
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

    fn into_reply(self) -> Result<Reply, Failure> {
        let (client, mut reply) = (self.client, self.reply);
        if !self.finished {
            return Err(client.failed(FailureKind::Truncated, "the stream ended without finish_reason"));
        }
        for call in self.calls {
            let bad = |what: &str| {
                let cut = if reply.finish_reason == "length" { "; the answer was cut at its token limit" } else { "" };
                let what = format!("call of {:?}: {what}{cut}", client.quote(&call.name));
                client.failed(FailureKind::BadToolCall, &what)
            };
            if call.name.is_empty() {
                return Err(bad("no name"));
            }
            let arguments = wire::arguments(&call.arguments).map_err(|what| bad(&what))?;
            reply.tool_calls.push(ToolCall { call_id: call.id, name: call.name, arguments });
        }
        Ok(reply)
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

/// An error that came under status 200.
fn reported(client: &Client, report: &ErrorReport, text: &str) -> Failure {
    let kind = report.code.as_deref().and_then(kind_of_code).unwrap_or(FailureKind::Overloaded);
    let said = client.quote(report.message.as_deref().unwrap_or(text));
    client.failed(kind, &format!("error within the answer: {said}"))
}

/// The ids in a list of models.
fn model_ids(text: &str) -> Result<Vec<String>, json::Error> {
    let (mut ids, mut reader) = (Vec::new(), Reader::new(text));
    reader.begin_object()?;
    let mut first = true;
    while let Some(key) = reader.key(&mut first)? {
        if key != "data" || reader.peek() != Some(b'[') {
            reader.raw()?;
            continue;
        }
        reader.begin_array()?;
        let mut first = true;
        while reader.element(&mut first)? {
            reader.begin_object()?;
            let mut first = true;
            while let Some(key) = reader.key(&mut first)? {
                if key == "id" {
                    ids.push(reader.string()?.into_owned());
                } else {
                    reader.raw()?;
                }
            }
        }
    }
    reader.end()?;
    Ok(ids)
}

#[cfg(test)]
mod tests;
