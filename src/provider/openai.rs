//! Any server that speaks chat completions as OpenAI defined them (`POST /chat/completions`, server-sent events): OpenAI
//! itself, OpenRouter, llama.cpp, vLLM, LM Studio and others.
//!
//! Compatible is a wide word, so this module survives what servers really send: tool calls in pieces whose index is
//! missing or repeated (a new id is a new call), no arguments for none, `finish_reason` `stop` in spite of calls, a last
//! chunk with usage and no choices, no `[DONE]`, comments while waiting, errors under status 200. On a server that is near,
//! calls that a small model wrote as text are taken as such.
//!
//! OpenRouter is the same with `reasoning_details`, which go back as they were, and with prices.
//!
//! Invariants: a stream without `finish_reason` gives no reply; arguments that are not a JSON object give no reply;
//! reasoning of another model is never sent.
//!
//! Absent: the responses API, images.

mod details;
mod parts;

use super::http::{Answer, Client};
use super::stream::{self, OnDelta, worked};
use super::wire::{self, arguments_of, comma};
use super::{Failure, Message, Probe, Provider, Reply, Request, models, text_calls};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, ObjectWriter, write_string};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use parts::Stream;

/// The field in which servers of some models (DeepSeek, Qwen) want the thinking of the running turn back, as a JSON text:
/// it stands in the place of the blocks.
const ECHO: &str = "\"reasoning_content\"";

/// Who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Any compatible server, somewhere.
    Plain,
    /// One that is near: its models may write calls as text.
    Near,
    /// OpenRouter.
    OpenRouter,
}

/// A compatible server.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    dialect: Dialect,
}

impl OpenAi {
    /// The server that `client` talks to; its base URL includes `/v1` or what stands for it.
    #[must_use]
    pub fn new(client: Client, dialect: Dialect) -> Self {
        Self { client, dialect }
    }

    /// An answer under status 200 that is no stream: an error, or a server that cannot stream.
    fn not_a_stream(&self, answer: Answer<'_>) -> Failure {
        let text = match answer.text() {
            Ok(text) => text,
            Err(failure) => return failure,
        };
        match json::parse(&text) {
            Ok(value) if value.get("error").is_some() => self.client.reported(&text),
            _ => {
                let what = ["expected text/event-stream, found application/json: ", &self.client.quote(&text)].concat();
                self.client.failed(FailureKind::Protocol, &what)
            }
        }
    }
}

impl Provider for OpenAi {
    fn complete(&self, request: &Request, cancel: &Cancel, on_delta: OnDelta<'_>) -> Result<Reply, Failure> {
        let answer = self.client.post("/chat/completions", &self.body(request), cancel)?;
        if !answer.is_success() {
            return Err(answer.into_refusal().failure);
        }
        if answer.is_of_type("application/json") {
            return Err(worked(self.not_a_stream(answer)));
        }
        let mut stream = Stream::new(&self.client, self.dialect);
        stream::read(answer, &mut stream, on_delta)?;
        let mut reply = stream.into_reply().map_err(worked)?;
        if self.dialect == Dialect::Near {
            text_calls::take(&mut reply, &request.tools);
        }
        Ok(reply)
    }

    fn body(&self, request: &Request) -> String {
        let mut out = String::with_capacity(4096);
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", &request.model);
        write_messages(body.key("messages"), request, self.dialect);
        if !request.tools.is_empty() {
            wire::write_tools(body.key("tools"), &request.tools);
        }
        body.bool("stream", true).object("stream_options", |options| {
            options.bool("include_usage", true);
        });
        if self.dialect == Dialect::OpenRouter {
            body.object("usage", |usage| {
                usage.bool("include", true);
            });
        }
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

    fn reach(&self) -> Result<(), Failure> {
        models::reach(&self.client, "/models")
    }

    fn probe(&self, model: &str) -> Result<Probe, Failure> {
        models::probe(&self.client, "/models", model)
    }
}

fn write_messages(out: &mut String, request: &Request, dialect: Dialect) {
    let turn = request.messages.iter().rposition(|message| matches!(message, Message::User { .. }));
    out.push('[');
    if !request.system.is_empty() {
        let mut object = ObjectWriter::new(out);
        object.str("role", "system").str("content", &request.system);
        object.finish();
    }
    for (at, message) in request.messages.iter().enumerate() {
        comma(out);
        let mut object = ObjectWriter::new(out);
        match message {
            Message::User { content } => {
                object.str("role", "user").str("content", content);
            }
            Message::Assistant { content, tool_calls, thinking, blocks } => {
                object.str("role", "assistant").str("content", content);
                match blocks.as_ref().filter(|blocks| blocks.model == request.model).map(|blocks| blocks.json.as_str())
                {
                    // Only of the turn that is going on.
                    Some(ECHO) if turn.is_none_or(|turn| at > turn) => {
                        object.str_opt("reasoning_content", thinking.as_deref());
                    }
                    Some(list) if list.starts_with('[') && dialect == Dialect::OpenRouter => {
                        object.raw("reasoning_details", list);
                    }
                    _ => {}
                }
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
    for call in calls {
        comma(out);
        let mut object = ObjectWriter::new(out);
        object.str("id", &call.call_id).str("type", "function").object("function", |function| {
            function.str("name", &call.name);
            write_string(function.key("arguments"), arguments_of(call));
        });
        object.finish();
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
