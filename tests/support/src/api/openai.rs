//! OpenAI's chat completions, streamed (its API reference, "Create chat completion" and "Chat completion chunk").

use super::{Api, Frame, Part, Refusal, arguments_in_pieces, call_id, is_tool_name};
use crate::answer::{Answer, Fault};
use crate::http::Asked;
use crate::json::{Json, quote};
use std::collections::BTreeSet;

/// Characters of a call's id.
const CALL_ID_MAX: usize = 40;

/// Characters of a tool's name.
const NAME_MAX: usize = 64;

/// What a request may have.
const KEYS: [&str; 20] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "n",
    "user",
    "metadata",
    "reasoning_effort",
    "response_format",
    "store",
    "prompt_cache_key",
];

pub(crate) struct OpenAi;

impl Api for OpenAi {
    fn base(&self) -> &'static str {
        "/v1"
    }

    fn path(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn headers(&self) -> &'static str {
        "x-request-id: req_fake\r\n"
    }

    fn check(&self, _asked: &Asked, body: &Json) -> Result<(), Refusal> {
        if let Some(key) = body.keys().find(|key| !KEYS.contains(key)) {
            return Err(Refusal::about(key, format!("Unrecognized request argument supplied: {key}")));
        }
        check(body)
    }

    fn frames(&self, answer: &Answer, body: &Json, number: usize) -> Vec<Frame> {
        let chunk = |choices: &str, rest: &str| chunk(body, number, choices, rest);
        let say = |part: Part, delta: &str, finish: &str| {
            let choice = format!("{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}");
            Frame::new(part, chunk(&choice, ""))
        };
        let start = if answer.text.is_empty() && !answer.calls.is_empty() { "null" } else { "\"\"" };
        let mut frames = vec![say(
            Part::Content,
            &format!("{{\"role\":\"assistant\",\"content\":{start},\"refusal\":null}}"),
            "null",
        )];
        for piece in &answer.thinking {
            // OpenAI keeps its thinking; llama.cpp, vLLM and DeepSeek show it so.
            frames.push(say(Part::Content, &format!("{{\"reasoning_content\":{}}}", quote(piece)), "null"));
        }
        for piece in &answer.text {
            frames.push(say(Part::Content, &format!("{{\"content\":{}}}", quote(piece)), "null"));
        }
        frames.extend(calls(answer, number, "call_").iter().map(|delta| say(Part::Content, delta, "null")));
        frames.push(say(Part::Finish, "{}", &quote(&finish_reason(answer))));
        let wanted = body.at("stream_options.include_usage") == &Json::Bool(true);
        if let Some(usage) = answer.usage.filter(|_| wanted && !answer.has(&Fault::NoUsage)) {
            let rest = format!(
                ",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
                 \"prompt_tokens_details\":{{\"cached_tokens\":{},\"audio_tokens\":0}},\
                 \"completion_tokens_details\":{{\"reasoning_tokens\":0,\"audio_tokens\":0}}}}",
                usage.input,
                usage.output,
                usage.input + usage.output,
                usage.cached
            );
            frames.push(Frame::new(Part::Tail, chunk("", &rest)));
        }
        frames.extend(done(answer));
        frames
    }

    fn error(&self, refusal: &Refusal) -> String {
        let Refusal { kind, param, message, .. } = refusal;
        let param = param.as_deref().map_or("null".into(), quote);
        // What the refusals of a request call a type, those for other reasons call a code.
        let (kind, code) = match *kind {
            "invalid_request_error" | "server_error" | "service_unavailable" => (*kind, "null".into()),
            "insufficient_quota" => (*kind, quote(kind)),
            "rate_limit_exceeded" => ("requests", quote(kind)),
            other => ("invalid_request_error", quote(other)),
        };
        format!(
            "{{\"error\":{{\"message\":{},\"type\":{},\"param\":{param},\"code\":{code}}}}}",
            quote(message),
            quote(kind)
        )
    }

    fn error_in_stream(&self, _body: &Json, _number: usize) -> Vec<Frame> {
        let message = "The server had an error while processing your request. Sorry about that!";
        let error = format!(
            "data: {{\"error\":{{\"message\":{},\"type\":\"server_error\",\"param\":null,\"code\":null}}}}",
            quote(message)
        );
        vec![Frame::new(Part::Tail, error)]
    }

    fn refusal(&self, status: u16) -> Refusal {
        refusal(status)
    }

    fn no_credit(&self) -> Refusal {
        Refusal { status: 429, ..refusal(402) }
    }

    fn too_long(&self, tokens: u64, window: u64) -> Refusal {
        let message = format!(
            "This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens. \
             Please reduce the length of the messages."
        );
        Refusal { kind: "context_length_exceeded", ..Refusal::about("messages", message) }
    }
}

fn chunk(body: &Json, number: usize, choices: &str, rest: &str) -> String {
    let model = quote(body.at("model").str().unwrap_or_default());
    format!(
        "data: {{\"id\":\"chatcmpl-fake{number}\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\
         \"model\":{model},\"service_tier\":\"default\",\"system_fingerprint\":\"fp_fake\",\"choices\":[{choices}]{rest}}}"
    )
}

/// The deltas of all calls: each begins with its id and name, and its arguments follow in pieces.
pub(super) fn calls(answer: &Answer, number: usize, prefix: &str) -> Vec<String> {
    let index = |i: usize| match (answer.has(&Fault::NoIndex), answer.has(&Fault::SameIndex)) {
        (true, _) => String::new(),
        (_, true) => "\"index\":0,".into(),
        _ => format!("\"index\":{i},"),
    };
    let mut deltas = Vec::new();
    for (i, call) in answer.calls.iter().enumerate() {
        let id = if answer.has(&Fault::NoIds) {
            String::new()
        } else {
            format!("\"id\":{},", quote(&call_id(prefix, number, i)))
        };
        let function = format!("{{\"name\":{},\"arguments\":\"\"}}", quote(&call.name));
        deltas.push(format!("{{\"tool_calls\":[{{{}{id}\"type\":\"function\",\"function\":{function}}}]}}", index(i)));
        for piece in arguments_in_pieces(answer, &call.arguments) {
            let function = format!("{{\"arguments\":{}}}", quote(&piece));
            deltas.push(format!("{{\"tool_calls\":[{{{}\"function\":{function}}}]}}", index(i)));
        }
    }
    deltas
}

pub(super) fn finish_reason(answer: &Answer) -> String {
    let fitting = if answer.calls.is_empty() || answer.has(&Fault::StopWithCalls) { "stop" } else { "tool_calls" };
    answer.finish.clone().unwrap_or_else(|| fitting.into())
}

pub(super) fn done(answer: &Answer) -> Option<Frame> {
    (!answer.has(&Fault::NoDone)).then(|| Frame::new(Part::Tail, "data: [DONE]"))
}

fn refusal(status: u16) -> Refusal {
    let (kind, message) = match status {
        401 => ("invalid_api_key", "Incorrect API key provided."),
        402 => ("insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
        403 => ("unsupported_country_region_territory", "Country, region, or territory not supported"),
        404 => ("model_not_found", "The model does not exist or you do not have access to it."),
        429 => ("rate_limit_exceeded", "Rate limit reached for requests"),
        503 => ("service_unavailable", "The engine is currently overloaded, please try again later"),
        500.. => ("server_error", "The server had an error while processing your request"),
        _ => ("invalid_request_error", "Bad request"),
    };
    Refusal { status, kind, ..Refusal::invalid(message) }
}

/// What OpenRouter refuses as well.
pub(super) fn check(body: &Json) -> Result<(), Refusal> {
    if body.at("model").str().is_none_or(str::is_empty) {
        return Err(Refusal::invalid("you must provide a model parameter"));
    }
    if body.at("stream") != &Json::Bool(true) {
        let what = if body.at("stream_options").is_null() {
            "this fake only streams"
        } else {
            "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        };
        return Err(Refusal::about("stream", what));
    }
    check_tools(body)?;
    let messages = body.at("messages").items();
    if messages.is_empty() {
        return Err(Refusal::about(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ));
    }
    // Calls that wait for their results.
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for (i, message) in messages.iter().enumerate() {
        let role = message.at("role").str().unwrap_or_default();
        if role == "tool" {
            let id =
                message.at("tool_call_id").str().ok_or_else(|| missing(&format!("messages.[{i}].tool_call_id")))?;
            if !open.remove(id) {
                let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
                return Err(Refusal::about(format!("messages.[{i}].role"), message));
            }
        } else {
            unanswered(&open, i)?;
        }
        match role {
            "system" | "developer" | "user" | "tool" => content(message, i)?,
            "assistant" => {
                let calls = message.at("tool_calls");
                if calls.is_null() || message.get("content").is_some_and(|c| !c.is_null()) {
                    content(message, i)?;
                }
                if matches!(calls, Json::Array(list) if list.is_empty()) {
                    let what = format!(
                        "Invalid 'messages[{i}].tool_calls': empty array. Expected an array with minimum length 1, but got an empty array instead."
                    );
                    return Err(Refusal::about(format!("messages[{i}].tool_calls"), what));
                }
                for (n, call) in calls.items().iter().enumerate() {
                    check_call(call, &format!("messages[{i}].tool_calls[{n}]"))?;
                    if !open.insert(call.at("id").str().unwrap_or_default()) {
                        return Err(Refusal::about(
                            format!("messages.[{i}].tool_calls"),
                            format!("Duplicate value for 'tool_call_id' in message[{i}]"),
                        ));
                    }
                }
            }
            other => {
                let what = format!(
                    "Invalid value: '{other}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                );
                return Err(Refusal::about(format!("messages[{i}].role"), what));
            }
        }
    }
    unanswered(&open, messages.len())
}

fn missing(param: &str) -> Refusal {
    Refusal::about(param, format!("Missing required parameter: '{param}'."))
}

fn unanswered(open: &BTreeSet<&str>, i: usize) -> Result<(), Refusal> {
    if open.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = open.iter().copied().collect();
    let what = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
         The following tool_call_ids did not have response messages: {}",
        ids.join(", ")
    );
    Err(Refusal::about(format!("messages.[{i}].role"), what))
}

fn content(message: &Json, i: usize) -> Result<(), Refusal> {
    match message.get("content") {
        Some(Json::String(_)) => Ok(()),
        Some(Json::Array(parts)) if !parts.is_empty() => Ok(()),
        found => {
            let kind = found.map_or("null", Json::kind);
            let what = format!("Invalid value for 'content': expected a string, got {kind}.");
            Err(Refusal::about(format!("messages.[{i}].content"), what))
        }
    }
}

fn check_call(call: &Json, place: &str) -> Result<(), Refusal> {
    let id = call.at("id").str().ok_or_else(|| missing(&format!("{place}.id")))?;
    if id.is_empty() || id.len() > CALL_ID_MAX {
        let what = if id.is_empty() {
            "empty string".into()
        } else {
            format!(
                "string too long. Expected a string with maximum length {CALL_ID_MAX}, but got a string with length {} instead",
                id.len()
            )
        };
        return Err(Refusal::about(format!("{place}.id"), format!("Invalid '{place}.id': {what}.")));
    }
    if call.at("type").str() != Some("function") {
        return Err(missing(&format!("{place}.type")));
    }
    if !is_tool_name(call.at("function.name").str().unwrap_or_default(), NAME_MAX) {
        let what = format!(
            "Invalid '{place}.function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        );
        return Err(Refusal::about(format!("{place}.function.name"), what));
    }
    let arguments = call.at("function.arguments");
    if arguments.str().is_none() {
        let what = format!(
            "Invalid type for '{place}.function.arguments': expected a string, but got {} instead.",
            arguments.kind()
        );
        return Err(Refusal::about(format!("{place}.function.arguments"), what));
    }
    Ok(())
}

fn check_tools(body: &Json) -> Result<(), Refusal> {
    let Some(tools) = body.get("tools") else { return Ok(()) };
    if tools.items().is_empty() {
        return Err(Refusal::about(
            "tools",
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ));
    }
    for (i, tool) in tools.items().iter().enumerate() {
        if tool.at("type").str() != Some("function") {
            return Err(missing(&format!("tools[{i}].type")));
        }
        if !is_tool_name(tool.at("function.name").str().unwrap_or_default(), NAME_MAX) {
            let place = format!("tools[{i}].function.name");
            let what = format!(
                "Invalid '{place}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            );
            return Err(Refusal::about(place, what));
        }
        if tool.at("function.parameters.type").str() != Some("object") {
            let what = format!(
                "Invalid schema for function '{}': schema must be a JSON Schema of 'type: \"object\"'.",
                tool.at("function.name").str().unwrap_or_default()
            );
            return Err(Refusal {
                kind: "invalid_function_parameters",
                ..Refusal::about(format!("tools[{i}].function.parameters"), what)
            });
        }
    }
    Ok(())
}
