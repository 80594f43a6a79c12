//! Ollama by its own API (`POST /api/chat`, newline-delimited JSON; docs/api.md of Ollama). Not by its OpenAI endpoint,
//! which ignores `num_ctx`: the default context of small machines would cut long prompts silently.
//!
//! What the API does, and this module with it: arguments of a call are an object; calls come in any frame, the last one
//! included, and `done_reason` says `stop` all the same; an error can come as a line under status 200; thinking is
//! echoed; a result names its tool. A call the server cannot parse is the model's mistake, not the server's. Small models
//! also write a call as fenced JSON: taken as one if it is the whole answer and names a tool on offer.
//!
//! Invariant: a stream that ends without `done` gives no reply, so none of its calls is ever run.
//!
//! Absent: model management (`pull` is left to the person), images, structured output.

use super::http::{Answer, Client, ErrorReport, Refusal};
use super::wire::{self, Seen};
use super::{Delta, Failure, Message, Probe, Provider, Reply, Request};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, ObjectWriter, Reader, Value, write_string};
use duragent_core::ndjson::Lines;
use duragent_core::tool::{ToolCall, ToolDecl};
use duragent_platform::cancel::Cancel;
use miniserde::Deserialize;
use std::time::Duration;
use ureq::http::Method;

/// Most calls in one answer; more is a model gone astray.
pub const CALLS_MAX: usize = 64;

/// How long a probe waits for its answers; nothing is loaded for them.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// What Ollama says when the model's call is not parsable.
const BAD_CALL: &str = "error parsing tool call";

/// An Ollama server.
#[derive(Debug)]
pub struct Ollama {
    client: Client,
    keep_alive: String,
}

impl Ollama {
    /// The server that `client` talks to; `keep_alive` as in Ollama's API: `10m`, or seconds, -1 for ever.
    #[must_use]
    pub fn new(client: Client, keep_alive: &str) -> Self {
        Self { client, keep_alive: keep_alive.into() }
    }

    fn write_body(&self, request: &Request) -> String {
        let mut out = String::with_capacity(4096);
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", &request.model);
        write_messages(body.key("messages"), request);
        if !request.tools.is_empty() {
            write_tools(body.key("tools"), &request.tools);
        }
        body.bool("stream", true);
        if self.keep_alive.parse::<i64>().is_ok() {
            body.raw("keep_alive", &self.keep_alive);
        } else {
            body.str("keep_alive", &self.keep_alive);
        }
        body.object("options", |options| {
            if request.context_tokens > 0 {
                options.u64("num_ctx", request.context_tokens);
            }
            if let Some(temperature) = request.temperature {
                wire::write_f64(options.key("temperature"), temperature);
            }
            if let Some(tokens) = request.max_output_tokens {
                options.u64("num_predict", tokens);
            }
        });
        body.finish();
        out
    }

    fn refused(&self, refusal: Refusal, model: &str) -> Failure {
        let Refusal { status, said, mut failure } = refusal;
        if said.contains(BAD_CALL) {
            failure.kind = FailureKind::BadToolCall;
        } else if status == 404 && said.contains("not found") {
            failure.detail.push_str(&format!("; get the model with: ollama pull {model}"));
        } else if said.contains("does not support tools") {
            failure.detail.push_str("; choose a model that can call tools, or give the agent none");
        }
        failure
    }

    /// Ends a failure to connect with the remedy.
    fn unreachable(mut failure: Failure) -> Failure {
        if failure.kind == FailureKind::Connect {
            failure.detail.push_str("; is Ollama running? start it with: ollama serve");
        }
        failure
    }

    fn ask(&self, method: Method, path: &str, body: &str, model: &str) -> Result<String, Failure> {
        let answer = self.client.send(method, path, body, &Cancel::new(), PROBE_WAIT).map_err(Self::unreachable)?;
        if is_success(&answer) { answer.text() } else { Err(self.refused(answer.into_refusal(), model)) }
    }
}

impl Provider for Ollama {
    fn complete(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, Failure> {
        let mut answer = self.client.post("/api/chat", &self.write_body(request), cancel).map_err(Self::unreachable)?;
        if !is_success(&answer) {
            return Err(self.refused(answer.into_refusal(), &request.model));
        }
        let mut stream = Stream::new(&self.client);
        let mut buffer = [0; 8192];
        while !stream.done {
            match answer.read(&mut buffer)? {
                [] => break,
                more => stream.feed(more, on_delta)?,
            }
        }
        answer.finish();
        stream.into_reply(&request.tools)
    }

    fn body(&self, request: &Request) -> String {
        self.write_body(request)
    }

    fn reach(&self) -> Result<(), Failure> {
        let answer = self.client.get("/api/version", PROBE_WAIT)?;
        if answer.status() < 500 { Ok(()) } else { Err(answer.into_refusal().failure) }
    }

    fn probe(&self, model: &str) -> Result<Probe, Failure> {
        let malformed = |what: &str| self.client.failed(FailureKind::Protocol, what);
        let version = self.ask(Method::GET, "/api/version", "", model)?;
        let version = json::parse(&version).ok().and_then(|v| v.get("version")?.as_str().map(String::from));
        let version = version.ok_or_else(|| malformed("/api/version is not Ollama's; is base_url right?"))?;
        let mut body = String::new();
        let mut object = ObjectWriter::new(&mut body);
        object.str("model", model);
        object.finish();
        let shown = self.ask(Method::POST, "/api/show", &body, model)?;
        let shown = Shown::read(&shown).map_err(|error| malformed(&format!("/api/show: {error}")))?;
        let context = shown.context.map_or("context unknown".into(), |tokens| format!("context {tokens} tokens"));
        let mut line = format!("ollama {version}, {model}: {context}, can {}", shown.capabilities.join(", "));
        if !shown.capabilities.iter().any(|c| c == "tools") {
            line.push_str(" (not tools: agents with tools will fail)");
        }
        Ok(Probe { text: self.client.quote(&line), context_tokens: shown.context })
    }
}

fn is_success(answer: &Answer<'_>) -> bool {
    (200..300).contains(&answer.status())
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
            Message::Assistant { content, thinking, tool_calls, .. } => {
                object.str("role", "assistant").str("content", content).str_opt("thinking", thinking.as_deref());
                if !tool_calls.is_empty() {
                    write_calls(object.key("tool_calls"), tool_calls);
                }
            }
            Message::Tool { name, content, .. } => {
                object.str("role", "tool").str("tool_name", name).str("content", content);
            }
        }
        object.finish();
    }
    out.push(']');
}

fn write_calls(out: &mut String, calls: &[ToolCall]) {
    out.push('[');
    for (i, call) in calls.iter().enumerate() {
        out.push_str(if i == 0 { "{\"function\":{\"name\":" } else { ",{\"function\":{\"name\":" });
        write_string(out, &call.name);
        out.push_str(",\"arguments\":");
        out.push_str(if call.arguments.is_empty() { "{}" } else { &call.arguments });
        out.push_str("}}");
    }
    out.push(']');
}

/// Tools as Ollama and OpenAI both declare them.
pub(super) fn write_tools(out: &mut String, tools: &[ToolDecl]) {
    out.push('[');
    for (i, tool) in tools.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let mut object = ObjectWriter::new(out);
        object.str("type", "function").object("function", |function| {
            function.str("name", &tool.name).str("description", &tool.description).raw("parameters", &tool.parameters);
        });
        object.finish();
    }
    out.push(']');
}

#[derive(Deserialize)]
struct Frame {
    message: Option<FrameMessage>,
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    error: Option<Seen>,
}

#[derive(Deserialize)]
struct FrameMessage {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Seen>,
}

/// The answer as far as it has come.
struct Stream<'c> {
    client: &'c Client,
    lines: Lines,
    reply: Reply,
    done: bool,
}

impl<'c> Stream<'c> {
    fn new(client: &'c Client) -> Self {
        Self { client, lines: Lines::default(), reply: Reply::default(), done: false }
    }

    fn feed(&mut self, mut bytes: &[u8], on_delta: &mut dyn FnMut(Delta<'_>)) -> Result<(), Failure> {
        // What follows the last frame has no meaning.
        while !self.done {
            let line = self.lines.next(&mut bytes);
            let Some(line) = line.map_err(|error| self.client.failed(FailureKind::Protocol, &error.to_string()))?
            else {
                break;
            };
            self.done = take_frame(self.client, &mut self.reply, line, on_delta)?;
        }
        Ok(())
    }

    fn into_reply(self, tools: &[ToolDecl]) -> Result<Reply, Failure> {
        if !self.done {
            return Err(self.client.failed(FailureKind::Truncated, "the stream ended without done: true"));
        }
        let mut reply = self.reply;
        if reply.tool_calls.is_empty()
            && let Some(call) = fenced_call(&reply.text, tools)
        {
            reply.tool_calls.push(call);
            reply.text.clear();
        }
        Ok(reply)
    }
}

/// Adds a frame to the reply; true if it is the last.
fn take_frame(
    client: &Client,
    reply: &mut Reply,
    line: &str,
    on_delta: &mut dyn FnMut(Delta<'_>),
) -> Result<bool, Failure> {
    let frame: Frame = wire::frame(line).map_err(|what| {
        client.failed(FailureKind::Protocol, &format!("{what} in the frame {:?}", client.quote(line)))
    })?;
    if frame.error.is_some() {
        let report = json::parse(line).map(|value| ErrorReport::of(&value)).unwrap_or_default();
        let said = client.quote(report.message.as_deref().unwrap_or(line));
        let kind = if said.contains(BAD_CALL) { FailureKind::BadToolCall } else { FailureKind::Overloaded };
        return Err(client.failed(kind, &format!("error within the answer: {said}")));
    }
    if let Some(message) = frame.message {
        if let Some(text) = message.thinking.filter(|text| !text.is_empty()) {
            on_delta(Delta::Thinking(&text));
            reply.thinking.get_or_insert_default().push_str(&text);
        }
        if let Some(text) = message.content.filter(|text| !text.is_empty()) {
            on_delta(Delta::Text(&text));
            reply.text.push_str(&text);
        }
        if message.tool_calls.is_some() {
            take_calls(client, &mut reply.tool_calls, line)?;
        }
    }
    if frame.done != Some(true) {
        return Ok(false);
    }
    reply.finish_reason = frame.done_reason.unwrap_or_default();
    reply.usage.input_tokens = frame.prompt_eval_count.unwrap_or(0);
    reply.usage.output_tokens = frame.eval_count.unwrap_or(0);
    Ok(true)
}

fn take_calls(client: &Client, calls: &mut Vec<ToolCall>, line: &str) -> Result<(), Failure> {
    let bad = |what: &str| client.failed(FailureKind::BadToolCall, what);
    let frame = json::parse(line).map_err(|error| bad(&format!("malformed tool call: {error}")))?;
    let Some(Value::Array(found)) = frame.get("message").and_then(|message| message.get("tool_calls")) else {
        return Err(client.failed(FailureKind::Protocol, "tool_calls is not a list"));
    };
    for call in found {
        let function = call.get("function");
        let name = function.and_then(|f| f.get("name")?.as_str()).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("a tool call without a name"))?;
        let arguments = match function.and_then(|f| f.get("arguments")) {
            None | Some(Value::Null) => "{}".into(),
            Some(arguments @ Value::Object(_)) => arguments.to_string(),
            Some(Value::String(text)) => {
                wire::arguments(text).map_err(|what| bad(&format!("call of {:?}: {what}", client.quote(name))))?
            }
            Some(_) => return Err(bad(&format!("call of {:?}: arguments are not an object", client.quote(name)))),
        };
        if calls.len() >= CALLS_MAX {
            return Err(bad(&format!("more than {CALLS_MAX} tool calls in one answer")));
        }
        let call_id = call.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
        calls.push(ToolCall { call_id, name: name.into(), arguments });
    }
    Ok(())
}

/// The call that the whole answer is, if it is one: a fenced JSON object with the name of a tool on offer.
fn fenced_call(text: &str, tools: &[ToolDecl]) -> Option<ToolCall> {
    let inner = text.trim().strip_prefix("```")?.strip_suffix("```")?;
    let inner = inner.strip_prefix("json").unwrap_or(inner);
    let value = json::parse(inner).ok()?;
    let name = value.get("name")?.as_str().filter(|name| tools.iter().any(|tool| tool.name == *name))?;
    let arguments = value.get("arguments").or_else(|| value.get("parameters"));
    let arguments = match arguments {
        None | Some(Value::Null) => "{}".into(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        Some(_) => return None,
    };
    Some(ToolCall { call_id: String::new(), name: name.into(), arguments })
}

/// What `/api/show` says that matters here; the rest (licence, template, tensors) can be megabytes.
#[derive(Default)]
struct Shown {
    context: Option<u64>,
    capabilities: Vec<String>,
}

impl Shown {
    fn read(text: &str) -> Result<Self, json::Error> {
        let mut shown = Self::default();
        let mut reader = Reader::new(text);
        reader.begin_object()?;
        let mut first = true;
        while let Some(key) = reader.key(&mut first)? {
            match &*key {
                "capabilities" if reader.peek() == Some(b'[') => {
                    reader.begin_array()?;
                    let mut first = true;
                    while reader.element(&mut first)? {
                        shown.capabilities.push(reader.string()?.into_owned());
                    }
                }
                "model_info" if reader.peek() == Some(b'{') => {
                    reader.begin_object()?;
                    let mut first = true;
                    while let Some(key) = reader.key(&mut first)? {
                        let value = reader.raw()?;
                        if key.ends_with(".context_length") {
                            shown.context = value.parse().ok();
                        }
                    }
                }
                _ => drop(reader.raw()?),
            }
        }
        reader.end()?;
        Ok(shown)
    }
}

#[cfg(test)]
mod tests;
