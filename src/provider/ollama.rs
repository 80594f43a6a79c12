//! Ollama by its own API (`POST /api/chat`, newline-delimited JSON; docs/api.md of Ollama). Not by its OpenAI endpoint,
//! which ignores `num_ctx`: the default context of small machines would cut long prompts silently.
//!
//! What the API does, and this module with it: arguments of a call are an object; calls come in any frame, the last one
//! included, and `done_reason` says `stop` all the same; an error can come as a line under status 200; thinking is
//! echoed; a result names its tool. A call the server cannot parse is the model's mistake, not the server's. Calls that a
//! small model wrote as text are taken as such.
//!
//! A prompt is never cut silently: the window asked for is no longer than the model's own, which `/api/show` tells once a
//! model and process; a prompt that the model's cannot hold is refused with the figure; and the server is told to refuse
//! instead of cutting (`truncate`, `shift`), which old versions pass over.
//!
//! Invariant: a stream that ends without `done` gives no reply, so none of its calls is ever run.
//!
//! Absent: getting models (`pull` is left to the person), images, structured output.

mod known;
mod parts;

use super::http::{Client, Refusal};
use super::stream::{self, OnDelta, worked};
use super::wire::{self, arguments_of, comma};
use super::{Delta, Failure, Message, Probe, Provider, Reply, Request, models, text_calls};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, ObjectWriter, write_string};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use duragent_platform::log;
use known::{Known, Shown, names};
use parts::Stream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Method;

/// How long to wait for what costs the server nothing to say.
const ASK_WAIT: Duration = models::PROBE_WAIT;

/// How long after an answer its model is taken to be loaded still: Ollama itself keeps models for five minutes, unless
/// another one needs the room.
const LOADED_FOR: Duration = Duration::from_secs(60);

/// Bytes of a request that are at most taken for a token, to see that a prompt cannot fit.
const TOKEN_BYTES: u64 = 3;

/// What Ollama says when the model's call is not parsable.
const BAD_CALL: &str = "error parsing tool call";

/// What to do about a model that cannot call tools.
const NO_TOOLS: &str = "; choose a model that can call tools, or give the agent none";

/// An Ollama server.
#[derive(Debug)]
pub struct Ollama {
    client: Client,
    keep_alive: String,
    preload: bool,
    known: Mutex<Vec<Known>>,
}

impl Ollama {
    /// The server that `client` talks to; `keep_alive` as in Ollama's API: `10m`, or seconds, -1 for ever. With `preload`
    /// models are loaded when they are announced.
    #[must_use]
    pub fn new(client: Client, keep_alive: &str, preload: bool) -> Self {
        Self { client, keep_alive: keep_alive.into(), preload, known: Mutex::default() }
    }

    fn write_keep_alive(&self, body: &mut ObjectWriter<'_>) {
        if self.keep_alive.parse::<i64>().is_ok() {
            body.raw("keep_alive", &self.keep_alive);
        } else {
            body.str("keep_alive", &self.keep_alive);
        }
    }

    /// What `model` is like, which nobody knows before the first call.
    fn shown(&self, model: &str) -> Option<Shown> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|known| known.model == model)?.shown.clone()
    }

    /// Whether it answered a moment ago.
    fn is_warm(&self, model: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = known.iter().find(|known| known.model == model).and_then(|known| known.answered);
        answered.is_some_and(|at| at.elapsed() < LOADED_FOR)
    }

    fn learn(&self, model: &str, learn: impl FnOnce(&mut Known)) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|known| known.model == model).unwrap_or_else(|| {
            all.push(Known::new(model));
            all.len() - 1
        });
        if let Some(known) = all.get_mut(at) {
            learn(known);
        }
    }

    /// The window to ask for: the wanted one, or the model's own if that is shorter.
    fn window(&self, model: &str, wanted: u64) -> u64 {
        self.shown(model).and_then(|shown| shown.context).map_or(wanted, |own| own.min(wanted))
    }

    /// Asks something besides a call. No answer, or one that is an error, is none; no connection is the call's failure too.
    fn aside(&self, method: Method, path: &str, body: &str, cancel: &Cancel) -> Result<Option<String>, Failure> {
        match self.client.send(method, path, body, cancel, ASK_WAIT) {
            Ok(answer) if answer.is_success() => Ok(answer.text().ok()),
            Err(failure) if failure.kind == FailureKind::Connect || cancel.is_raised() => {
                Err(Self::unreachable(failure))
            }
            _ => Ok(None),
        }
    }

    /// Asks what the model is like, unless that is known.
    fn look_up(&self, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        // What is no answer of Ollama's is not asked for again; a model that is missing may come.
        if self.shown(model).is_none()
            && let Some(text) = self.aside(Method::POST, "/api/show", &named(model), cancel)?
        {
            self.learn(model, |known| known.shown = Some(Shown::read(&text).unwrap_or_default()));
        }
        Ok(())
    }

    /// Says so if the model has to be loaded first, which takes minutes on a small board.
    fn tell_loading(&self, model: &str, cancel: &Cancel, on_delta: OnDelta<'_>) -> Result<(), Failure> {
        if self.is_warm(model) {
            return Ok(());
        }
        let loaded = self.aside(Method::GET, "/api/ps", "", cancel)?.and_then(|text| names(&text).ok());
        if loaded.is_some_and(|loaded| !loaded.iter().any(|name| known::is_same(name, model))) {
            on_delta(Delta::Status(&["loading ", model].concat()));
        }
        Ok(())
    }

    /// Refuses what cannot succeed.
    fn check(&self, request: &Request, body: &str) -> Result<(), Failure> {
        let Some(shown) = self.shown(&request.model) else { return Ok(()) };
        if !request.tools.is_empty() && shown.lacks_tools() {
            let what = [&request.model, " does not support tools", NO_TOOLS].concat();
            return Err(self.client.failed(FailureKind::Invalid, &what));
        }
        // A prompt for a window as wanted was measured by who wanted it; a shorter one is news.
        let Some(own) = shown.context.filter(|own| *own < request.context_tokens) else { return Ok(()) };
        let tokens = u64::try_from(body.len()).unwrap_or(u64::MAX) / TOKEN_BYTES;
        if tokens <= own {
            return Ok(());
        }
        let what = format!("about {tokens} tokens do not fit into the {own} of {}", request.model);
        Err(Failure { context_tokens: Some(own), ..self.client.failed(FailureKind::TooLong, &what) })
    }

    fn refused(&self, refusal: Refusal, model: &str) -> Failure {
        let Refusal { status, said, mut failure } = refusal;
        if said.contains(BAD_CALL) {
            failure.kind = FailureKind::BadToolCall;
        } else if status == 404 && said.contains("not found") {
            failure.detail.push_str(&["; get the model with: ollama pull ", model].concat());
        } else if said.contains("does not support tools") {
            failure.detail.push_str(NO_TOOLS);
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
        let answer = self.client.send(method, path, body, &Cancel::new(), ASK_WAIT).map_err(Self::unreachable)?;
        if answer.is_success() { answer.text() } else { Err(self.refused(answer.into_refusal(), model)) }
    }

    /// Has a model loaded: a request without a prompt.
    fn load(&self, model: &str, context_tokens: u64, cancel: &Cancel) -> Result<(), Failure> {
        self.look_up(model, cancel)?;
        let mut out = String::new();
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", model).bool("stream", false);
        self.write_keep_alive(&mut body);
        // With another window the model would be loaded anew by the first call.
        body.object("options", |options| {
            options.u64("num_ctx", self.window(model, context_tokens));
        });
        body.finish();
        let answer = self.client.post("/api/generate", &out, cancel).map_err(Self::unreachable)?;
        if !answer.is_success() {
            return Err(self.refused(answer.into_refusal(), model));
        }
        answer.text()?;
        self.learn(model, |known| known.answered = Some(Instant::now()));
        Ok(())
    }

    /// What there is instead of a model that is missing; empty if that cannot be learned.
    fn offered(&self) -> String {
        let there = self.ask(Method::GET, "/api/tags", "", "").ok().and_then(|text| names(&text).ok());
        match there.as_deref() {
            Some([]) => "; there are no models yet".into(),
            Some(there) => {
                let there: Vec<&str> = there.iter().map(String::as_str).collect();
                ["; there are: ", &models::listed(&there)].concat()
            }
            None => String::new(),
        }
    }
}

impl Provider for Ollama {
    fn complete(&self, request: &Request, cancel: &Cancel, on_delta: OnDelta<'_>) -> Result<Reply, Failure> {
        self.look_up(&request.model, cancel)?;
        let body = self.body(request);
        self.check(request, &body)?;
        self.tell_loading(&request.model, cancel, on_delta)?;
        let answer = self.client.post("/api/chat", &body, cancel).map_err(Self::unreachable)?;
        if !answer.is_success() {
            return Err(self.refused(answer.into_refusal(), &request.model));
        }
        let mut stream = Stream::new(&self.client);
        stream::read(answer, &mut stream, on_delta)?;
        let mut reply = stream.into_reply().map_err(worked)?;
        text_calls::take(&mut reply, &request.tools);
        self.learn(&request.model, |known| known.answered = Some(Instant::now()));
        let window = self.window(&request.model, request.context_tokens);
        if window > 0 && reply.usage.input_tokens >= window {
            log::warn(&format!(
                "{}: the prompt filled the window of {window} tokens and may have been cut: {}",
                self.client.host(),
                request.model
            ));
        }
        Ok(reply)
    }

    fn body(&self, request: &Request) -> String {
        let mut out = String::with_capacity(4096);
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", &request.model);
        write_messages(body.key("messages"), request);
        if !request.tools.is_empty() {
            wire::write_tools(body.key("tools"), &request.tools);
        }
        body.bool("stream", true).bool("truncate", false).bool("shift", false);
        self.write_keep_alive(&mut body);
        body.object("options", |options| {
            if request.context_tokens > 0 {
                options.u64("num_ctx", self.window(&request.model, request.context_tokens));
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

    fn reach(&self) -> Result<(), Failure> {
        models::reach(&self.client, "/api/version")
    }

    fn preload(&self, model: &str, context_tokens: u64, cancel: &Cancel) -> Option<Result<(), Failure>> {
        self.preload.then(|| self.load(model, context_tokens, cancel))
    }

    fn probe(&self, model: &str) -> Result<Probe, Failure> {
        let malformed = |what: &str| self.client.failed(FailureKind::Protocol, what);
        let version = self.ask(Method::GET, "/api/version", "", model)?;
        let version = json::parse(&version).ok().and_then(|v| v.get("version")?.as_str().map(String::from));
        let version = version.ok_or_else(|| malformed("/api/version is not Ollama's; is base_url right?"))?;
        let shown = self.ask(Method::POST, "/api/show", &named(model), model).map_err(|mut failure| {
            if failure.detail.contains("ollama pull") {
                failure.detail.push_str(&self.client.quote(&self.offered()));
            }
            failure
        })?;
        let shown = Shown::read(&shown).map_err(|error| malformed(&format!("/api/show: {error}")))?;
        let context = shown.context.map_or("context unknown".into(), |tokens| format!("context {tokens} tokens"));
        let mut line = format!("ollama {version}, {model}: {context}, can {}", shown.capabilities.join(", "));
        let lacks_tools = shown.lacks_tools();
        if lacks_tools {
            line.push_str(" (not tools: agents with tools will fail)");
        }
        Ok(Probe { text: self.client.quote(&line), context_tokens: shown.context, lacks_tools })
    }
}

/// A body that only names a model.
fn named(model: &str) -> String {
    let mut body = String::new();
    let mut object = ObjectWriter::new(&mut body);
    object.str("model", model);
    object.finish();
    body
}

fn write_messages(out: &mut String, request: &Request) {
    out.push('[');
    if !request.system.is_empty() {
        let mut object = ObjectWriter::new(out);
        object.str("role", "system").str("content", &request.system);
        object.finish();
    }
    for message in &request.messages {
        comma(out);
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
    for call in calls {
        comma(out);
        out.push_str("{\"function\":{\"name\":");
        write_string(out, &call.name);
        out.push_str(",\"arguments\":");
        out.push_str(arguments_of(call));
        out.push_str("}}");
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
