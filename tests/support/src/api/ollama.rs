//! Ollama's own API: `/api/chat` in JSON lines, and what goes with it (its documentation, `docs/api.md`).

use super::{Api, Frame, Part, Refusal, arguments_in_pieces, call_id};
use crate::answer::{Answer, Fault};
use crate::http::Asked;
use crate::json::{Json, quote};

/// A time for whatever has one.
const TIME: &str = "2026-11-22T10:00:00.000000Z";

pub(crate) struct Ollama;

impl Api for Ollama {
    fn base(&self) -> &'static str {
        ""
    }

    fn path(&self) -> &'static str {
        "/api/chat"
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn separator(&self) -> &'static str {
        "\n"
    }

    fn check(&self, _asked: &Asked, body: &Json) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::invalid(message));
        if body.at("model").str().is_none_or(str::is_empty) {
            return refuse("model is required".into());
        }
        if body.get("stream") == Some(&Json::Bool(false)) {
            return refuse("this fake only streams".into());
        }
        for field in ["stream_options", "max_tokens", "temperature", "num_ctx"] {
            // Ollama drops what it does not know, and nobody notices: worse than refusing it.
            if body.get(field).is_some() {
                return refuse(format!("this fake refuses what Ollama would not read: {field}"));
            }
        }
        for message in body.at("messages").items() {
            let role = message.at("role").str().unwrap_or_default();
            if !["system", "user", "assistant", "tool"].contains(&role) {
                return refuse(format!("invalid message role: {role}"));
            }
            if !matches!(message.get("content"), None | Some(Json::String(_))) {
                return refuse(mismatch(message.at("content"), "content", "string"));
            }
            for call in message.at("tool_calls").items() {
                let arguments = call.at("function.arguments");
                if !matches!(arguments, Json::Object(_)) {
                    return refuse(mismatch(
                        arguments,
                        "tool_calls.function.arguments",
                        "api.ToolCallFunctionArguments",
                    ));
                }
            }
            if role == "tool" && message.at("tool_name").str().is_none() {
                return refuse("this fake refuses a result without tool_name, which templates need".into());
            }
        }
        for tool in body.at("tools").items() {
            if tool.at("type").str() != Some("function") || tool.at("function.name").str().is_none_or(str::is_empty) {
                return refuse("invalid tool".into());
            }
        }
        Ok(())
    }

    fn frames(&self, answer: &Answer, body: &Json, number: usize) -> Vec<Frame> {
        let head = head(body);
        let say = |rest: &str| {
            let message = format!("\"message\":{{\"role\":\"assistant\",{rest}}}");
            Frame::new(Part::Content, format!("{{{head},{message},\"done\":false}}"))
        };
        let mut frames = Vec::new();
        for piece in &answer.thinking {
            frames.push(say(&format!("\"content\":\"\",\"thinking\":{}", quote(piece))));
        }
        for piece in &answer.text {
            frames.push(say(&format!("\"content\":{}", quote(piece))));
        }
        let calls: Vec<String> = (0..answer.calls.len()).map(|i| call(answer, number, i)).collect();
        let last = if answer.has(&Fault::CallsInLastFrame) && !calls.is_empty() {
            format!("\"content\":\"\",\"tool_calls\":[{}]", calls.join(","))
        } else {
            // Each in a frame of its own, as the parsers of most models give them.
            frames.extend(calls.iter().map(|call| say(&format!("\"content\":\"\",\"tool_calls\":[{call}]"))));
            "\"content\":\"\"".into()
        };
        let counts = match answer.usage.filter(|_| !answer.has(&Fault::NoUsage)) {
            Some(usage) => format!(
                ",\"prompt_eval_count\":{},\"prompt_eval_duration\":5000000,\"eval_count\":{},\"eval_duration\":9000000",
                usage.input, usage.output
            ),
            None => String::new(),
        };
        let reason = quote(answer.finish.as_deref().unwrap_or("stop"));
        frames.push(Frame::new(
            Part::Finish,
            format!(
                "{{{head},\"message\":{{\"role\":\"assistant\",{last}}},\"done\":true,\"done_reason\":{reason},\
                 \"total_duration\":15000000,\"load_duration\":1000000{counts}}}"
            ),
        ));
        frames
    }

    fn error(&self, refusal: &Refusal) -> String {
        format!("{{\"error\":{}}}", quote(&refusal.message))
    }

    fn error_in_stream(&self, _body: &Json, _number: usize) -> Vec<Frame> {
        let message = "an error was encountered while running the model: unexpected EOF";
        vec![Frame::new(Part::Tail, format!("{{\"error\":{}}}", quote(message)))]
    }

    fn refusal(&self, status: u16) -> Refusal {
        let message = match status {
            401 => "unauthorized",
            402 => "this model requires a subscription, upgrade for access",
            403 => "forbidden",
            404 => "model \"m\" not found, try pulling it first",
            429 => "too many requests",
            503 => "server busy, please try again. maximum pending requests exceeded",
            500.. => "llama runner process has terminated: signal: killed",
            _ => "bad request",
        };
        Refusal { status, kind: "", ..Refusal::invalid(message) }
    }

    fn too_long(&self, _tokens: u64, _window: u64) -> Refusal {
        Refusal::invalid("the input length exceeds the context length")
    }
}

/// As Go says it.
fn mismatch(found: &Json, field: &str, wanted: &str) -> String {
    let kind = found.kind().split(' ').next_back().unwrap_or_default();
    format!("json: cannot unmarshal {kind} into Go struct field ChatRequest.messages.{field} of type {wanted}")
}

fn head(body: &Json) -> String {
    format!("\"model\":{},\"created_at\":\"{TIME}\"", quote(body.at("model").str().unwrap_or_default()))
}

fn call(answer: &Answer, number: usize, i: usize) -> String {
    let call = &answer.calls[i];
    let index = if answer.has(&Fault::NoIndex) { String::new() } else { format!("\"index\":{i},") };
    let arguments = match (answer.has(&Fault::NoArguments), answer.has(&Fault::BadArguments)) {
        (true, _) => String::new(),
        (_, true) => format!(",\"arguments\":{}", quote(&arguments_in_pieces(answer, "").concat())),
        _ => format!(",\"arguments\":{}", call.arguments),
    };
    let id = if answer.has(&Fault::NoIds) {
        String::new()
    } else {
        format!("\"id\":{},", quote(&call_id("call_", number, i)))
    };
    format!("{{{id}\"function\":{{{index}\"name\":{}{arguments}}}}}", quote(&call.name))
}

/// True if a request asks for the model to leave memory.
pub(crate) fn unloads(body: &Json) -> bool {
    match body.at("keep_alive") {
        Json::Number(text) => text.parse() == Ok(0.0),
        Json::String(text) => text.trim_end_matches(char::is_alphabetic) == "0",
        _ => false,
    }
}

/// What the server knows of its models, and does with them.
pub(crate) struct Models<'s> {
    /// Longest context of them all.
    pub(crate) window: u64,
    /// Names of those that there are; any if empty.
    pub(crate) names: &'s [String],
    /// What they can do.
    pub(crate) abilities: &'s [String],
    /// Those in memory.
    pub(crate) loaded: &'s [String],
}

impl Models<'_> {
    /// Answers what is not a request for an answer: status and body.
    pub(crate) fn aside(&self, asked: &Asked) -> Option<(u16, String)> {
        let body = asked.json();
        Some(match (asked.method.as_str(), asked.path.as_str()) {
            ("GET" | "HEAD", "/") => (200, "Ollama is running".into()),
            ("GET", "/api/version") => (200, "{\"version\":\"0.13.5\"}".into()),
            ("GET", "/api/tags") => {
                let list: Vec<String> = self.names.iter().map(|name| entry(name, "")).collect();
                (200, format!("{{\"models\":[{}]}}", list.join(",")))
            }
            ("GET", "/api/ps") => {
                let rest = format!(
                    ",\"expires_at\":\"2026-11-22T10:10:00Z\",\"size_vram\":0,\"context_length\":{}",
                    self.window.min(4096)
                );
                let list: Vec<String> = self.loaded.iter().map(|name| entry(name, &rest)).collect();
                (200, format!("{{\"models\":[{}]}}", list.join(",")))
            }
            ("POST", "/api/show") => self.show(body.at("model").str().unwrap_or_default()),
            ("POST", "/api/generate") => {
                let reason = if unloads(&body) { "unload" } else { "load" };
                let head = head(&body);
                (200, format!("{{{head},\"response\":\"\",\"done\":true,\"done_reason\":\"{reason}\"}}"))
            }
            _ => return None,
        })
    }

    /// True if there is no such model.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        let full = |name: &str| if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
        !self.names.is_empty() && !self.names.iter().any(|known| full(known) == full(name))
    }

    fn show(&self, name: &str) -> (u16, String) {
        if name.is_empty() {
            return (400, "{\"error\":\"model is required\"}".into());
        }
        if self.lacks(name) {
            return (404, format!("{{\"error\":{}}}", quote(&format!("model '{name}' not found"))));
        }
        let abilities: Vec<String> = self.abilities.iter().map(|a| quote(a)).collect();
        let body = format!(
            "{{\"license\":\"MIT\",\"modelfile\":\"# Modelfile\",\"parameters\":\"stop \\\"<|im_end|>\\\"\",\
             \"template\":\"{{{{ .Prompt }}}}\",{},\"model_info\":{{\"general.architecture\":\"fake\",\
             \"general.parameter_count\":1720574976,\"fake.context_length\":{},\"fake.embedding_length\":2048}},\
             \"capabilities\":[{}],\"modified_at\":\"{TIME}\"}}",
            details(),
            self.window,
            abilities.join(",")
        );
        (200, body)
    }
}

fn details() -> &'static str {
    "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"fake\",\"families\":[\"fake\"],\
     \"parameter_size\":\"1.7B\",\"quantization_level\":\"Q4_K_M\"}"
}

fn entry(name: &str, rest: &str) -> String {
    let full = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    format!(
        "{{\"name\":{0},\"model\":{0},\"modified_at\":\"{TIME}\",\"size\":1359293444,\"digest\":\"{1}\",{2}{rest}}}",
        quote(&full),
        "8f68893c685c3ddff2aa3fffce2aa60a30bb2da65ca488b61fff134a4d1730e7",
        details()
    )
}
