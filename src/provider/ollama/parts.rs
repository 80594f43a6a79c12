//! A stream of frames, put together.

use super::BAD_CALL;
use crate::provider::http::{Client, ErrorReport};
use crate::provider::stream::{OnDelta, Parts, Progress};
use crate::provider::wire::{self, Seen, check_room, malformed};
use crate::provider::{Delta, Failure, Reply};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, Value};
use duragent_core::ndjson::Lines;
use duragent_core::tool::ToolCall;
use miniserde::Deserialize;

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
pub(super) struct Stream<'c> {
    client: &'c Client,
    lines: Lines,
    reply: Reply,
    done: bool,
}

impl<'c> Stream<'c> {
    pub(super) fn new(client: &'c Client) -> Self {
        Self { client, lines: Lines::default(), reply: Reply::default(), done: false }
    }

    pub(super) fn into_reply(self) -> Result<Reply, Failure> {
        if self.done {
            return Ok(self.reply);
        }
        Err(self.client.failed(FailureKind::Truncated, "the stream ended without done: true"))
    }
}

impl Parts for Stream<'_> {
    fn feed(&mut self, mut bytes: &[u8], on_delta: OnDelta<'_>) -> Result<(), Failure> {
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

    fn progress(&self) -> Progress {
        if self.done { Progress::Done } else { Progress::Open }
    }
}

/// Adds a frame to the reply; true if it is the last.
fn take_frame(client: &Client, reply: &mut Reply, line: &str, on_delta: OnDelta<'_>) -> Result<bool, Failure> {
    let frame: Frame = wire::frame(line).map_err(|what| malformed(client, &what, line))?;
    if frame.error.is_some() {
        let mut failure = client.reported(line);
        if ErrorReport::read(line).message.is_some_and(|said| said.contains(BAD_CALL)) {
            failure.kind = FailureKind::BadToolCall;
        }
        return Err(failure);
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
        check_room(client, calls.len())?;
        let call_id = call.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
        calls.push(ToolCall { call_id, name: name.into(), arguments });
    }
    Ok(())
}
