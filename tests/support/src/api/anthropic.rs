//! Anthropic's messages, streamed (its API reference: "Messages", "Streaming Messages", "Extended thinking", "Errors").

mod check;

use super::{Api, Frame, Part, Refusal, arguments_in_pieces, call_id, sign};
use crate::answer::{Answer, Fault, Usage};
use crate::http::Asked;
use crate::json::{Json, quote};

/// The versions that a request may name; the second takes no `temperature`, `top_p` or `top_k`.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// Thinking that only Anthropic can read.
const SECRET: &str = "thought of in secret";

/// Ends the signature of thinking that is followed by what only Anthropic can read, which has to come back as well.
const FOLLOWED: &str = "+";

/// Ends the signature of thinking that came after a text, behind which it has to come back.
const AFTER_TEXT: &str = "|";

pub(crate) struct Anthropic;

impl Api for Anthropic {
    fn base(&self) -> &'static str {
        ""
    }

    fn path(&self) -> &'static str {
        "/v1/messages"
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn headers(&self) -> &'static str {
        "request-id: req_fake\r\n"
    }

    fn key<'a>(&self, asked: &'a Asked) -> Option<&'a str> {
        // Its own clients have come to send the other.
        asked.header("x-api-key").or_else(|| asked.header("authorization")?.strip_prefix("Bearer "))
    }

    fn check(&self, asked: &Asked, body: &Json) -> Result<(), Refusal> {
        if self.key(asked).is_none_or(str::is_empty) {
            let message = "x-api-key header is required";
            return Err(Refusal { status: 401, kind: "authentication_error", ..Refusal::invalid(message) });
        }
        let Some(version) = asked.header("anthropic-version") else {
            return Err(Refusal::invalid("anthropic-version: header is required"));
        };
        if !VERSIONS.contains(&version) {
            let message = format!("anthropic-version: \"{version}\" is not a valid version");
            return Err(Refusal::invalid(message));
        }
        let sampling = ["temperature", "top_p", "top_k"].iter().find(|key| body.get(key).is_some());
        if let Some(key) = sampling.filter(|_| version == VERSIONS[1]) {
            return Err(Refusal::invalid(format!("{key}: Extra inputs are not permitted")));
        }
        check::check(body)
    }

    fn frames(&self, answer: &Answer, body: &Json, number: usize) -> Vec<Frame> {
        let mut frames = vec![start(answer, body, number)];
        let mut blocks = Blocks { frames: &mut frames, count: 0 };
        if !answer.thinking.is_empty() {
            let signature = sign(&answer.thinking.concat()) + if answer.redacted { FOLLOWED } else { "" };
            let deltas = answer.thinking.iter().map(|text| delta("thinking", text));
            let deltas = deltas.chain([delta("signature", &signature)]);
            blocks.add("\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"", deltas.collect());
        }
        if answer.redacted {
            blocks.add(&format!("\"type\":\"redacted_thinking\",\"data\":{}", quote(&sign(SECRET))), Vec::new());
        }
        if !answer.text.is_empty() {
            blocks.add("\"type\":\"text\",\"text\":\"\"", answer.text.iter().map(|text| delta("text", text)).collect());
        }
        if !answer.thinking_again.is_empty() {
            let signature = sign(&answer.thinking_again) + AFTER_TEXT;
            let deltas = vec![delta("thinking", &answer.thinking_again), delta("signature", &signature)];
            blocks.add("\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"", deltas);
        }
        for (i, call) in answer.calls.iter().enumerate() {
            let id = quote(&call_id("toolu_", number, i));
            let block = format!("\"type\":\"tool_use\",\"id\":{id},\"name\":{},\"input\":{{}}", quote(&call.name));
            let pieces = arguments_in_pieces(answer, &call.arguments);
            // The first is empty as a rule.
            let first = (!pieces.is_empty()).then(String::new);
            let deltas = first.into_iter().chain(pieces).map(|piece| delta("input_json", &piece));
            blocks.add(&block, deltas.collect());
        }
        frames.insert(2.min(frames.len()), event(Part::Content, "ping", "{\"type\":\"ping\"}"));
        if answer.has(&Fault::UnknownEvents) {
            frames.insert(1, event(Part::Content, "weather", "{\"type\":\"weather\",\"sky\":[\"blue\"]}"));
        }
        frames.push(finish(answer));
        frames.push(event(Part::Tail, "message_stop", "{\"type\":\"message_stop\"}"));
        frames
    }

    fn error(&self, refusal: &Refusal) -> String {
        let Refusal { kind, message, .. } = refusal;
        format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":{},\"message\":{}}},\"request_id\":\"req_fake\"}}",
            quote(kind),
            quote(message)
        )
    }

    fn error_in_stream(&self, _body: &Json, _number: usize) -> Vec<Frame> {
        let refusal = self.refusal(529);
        vec![event(Part::Tail, "error", &self.error(&refusal))]
    }

    fn refusal(&self, status: u16) -> Refusal {
        let (kind, message) = match status {
            401 => ("authentication_error", "invalid x-api-key"),
            402 => ("billing_error", "Your credit balance is too low to access the API."),
            403 => ("permission_error", "Your API key does not have permission to use the specified resource."),
            404 => ("not_found_error", "model: m"),
            413 => ("request_too_large", "Request exceeds the maximum allowed number of bytes."),
            429 => ("rate_limit_error", "This request would exceed your organization's rate limit."),
            504 => ("timeout_error", "The request timed out"),
            529 => ("overloaded_error", "Overloaded"),
            500.. => ("api_error", "Internal server error"),
            _ => ("invalid_request_error", "Bad request"),
        };
        Refusal { status, kind, ..Refusal::invalid(message) }
    }

    fn no_credit(&self) -> Refusal {
        let message = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or \
                       purchase credits.";
        Refusal::invalid(message)
    }

    fn too_long(&self, tokens: u64, window: u64) -> Refusal {
        Refusal::invalid(format!("prompt is too long: {tokens} tokens > {window} maximum"))
    }
}

struct Blocks<'f> {
    frames: &'f mut Vec<Frame>,
    count: usize,
}

impl Blocks<'_> {
    fn add(&mut self, block: &str, deltas: Vec<String>) {
        let index = self.count;
        let mut add = |name: &str, rest: &str| {
            self.frames.push(event(Part::Content, name, &format!("{{\"type\":\"{name}\",\"index\":{index}{rest}}}")));
        };
        add("content_block_start", &format!(",\"content_block\":{{{block}}}"));
        for delta in deltas {
            add("content_block_delta", &format!(",\"delta\":{delta}"));
        }
        add("content_block_stop", "");
        self.count += 1;
    }
}

fn delta(kind: &str, text: &str) -> String {
    let field = if kind == "input_json" { "partial_json" } else { kind };
    format!("{{\"type\":\"{kind}_delta\",\"{field}\":{}}}", quote(text))
}

fn event(part: Part, name: &str, data: &str) -> Frame {
    Frame::new(part, format!("event: {name}\ndata: {data}"))
}

fn start(answer: &Answer, body: &Json, number: usize) -> Frame {
    let model = quote(body.at("model").str().unwrap_or_default());
    let usage = answer.usage.filter(|_| !answer.has(&Fault::NoUsage));
    let usage = usage.unwrap_or(Usage { input: 0, output: 0, cached: 0, cost_micros: 0 });
    let data = format!(
        "{{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_fake{number}\",\"type\":\"message\",\"role\":\"assistant\",\
         \"model\":{model},\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
         \"usage\":{{\"input_tokens\":{},\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":{},\
         \"output_tokens\":{},\"service_tier\":\"standard\"}}}}}}",
        usage.input - usage.cached,
        usage.cached,
        usage.output.min(1)
    );
    event(Part::Content, "message_start", &data)
}

fn finish(answer: &Answer) -> Frame {
    let fitting = if answer.calls.is_empty() || answer.has(&Fault::StopWithCalls) { "end_turn" } else { "tool_use" };
    let reason = quote(answer.finish.as_deref().unwrap_or(fitting));
    let usage = answer.usage.filter(|_| !answer.has(&Fault::NoUsage)).map_or(0, |usage| usage.output);
    let data = format!(
        "{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":{reason},\"stop_sequence\":null}},\
         \"usage\":{{\"output_tokens\":{usage}}}}}"
    );
    event(Part::Finish, "message_delta", &data)
}
