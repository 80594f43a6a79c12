//! What Anthropic refuses, in its words.
//!
//! Stricter than the API of today in one thing: it would join messages of the same role, which proxies and other hosts of its
//! models refuse.

use super::{AFTER_TEXT, FOLLOWED, Refusal, SECRET, sign};
use crate::api::is_tool_name;
use crate::json::Json;

/// Blocks with a breakpoint of the cache in one request.
const BREAKPOINTS_MAX: usize = 4;

/// Least tokens of thinking.
const BUDGET_MIN: u64 = 1024;

/// Characters of a tool's name.
const NAME_MAX: usize = 128;

/// What a request may have.
const KEYS: [&str; 16] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "metadata",
    "thinking",
    "service_tier",
    "cache_control",
    "output_config",
];

pub(super) fn check(body: &Json) -> Result<(), Refusal> {
    if let Some(key) = body.keys().find(|key| !KEYS.contains(key)) {
        return refuse(format!("{key}: Extra inputs are not permitted"));
    }
    for (key, found) in [("model", body.at("model").str().is_some()), ("messages", body.get("messages").is_some())] {
        if !found {
            return refuse(format!("{key}: Field required"));
        }
    }
    let Some(tokens) = body.at("max_tokens").u64() else { return refuse("max_tokens: Field required") };
    if tokens == 0 {
        return refuse("max_tokens: Input should be greater than or equal to 1");
    }
    if body.at("stream") != &Json::Bool(true) {
        return refuse("stream: this fake only streams");
    }
    let thinks = check_thinking(body, tokens)?;
    check_system(body)?;
    check_tools(body)?;
    check_messages(body.at("messages").items(), thinks)?;
    let breakpoints = count_breakpoints(body);
    if breakpoints > BREAKPOINTS_MAX {
        return refuse(format!(
            "A maximum of {BREAKPOINTS_MAX} blocks with cache_control may be provided. Found {breakpoints}."
        ));
    }
    Ok(())
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::invalid(message))
}

/// True if the request asks for thinking in every answer. An adaptive model may leave it out, and what went before may lack it.
fn check_thinking(body: &Json, tokens: u64) -> Result<bool, Refusal> {
    let kind = body.at("thinking.type").str();
    let always = match kind {
        Some("enabled") => {
            let budget = body.at("thinking.budget_tokens").u64().unwrap_or(0);
            if budget < BUDGET_MIN {
                return refuse(format!(
                    "thinking.enabled.budget_tokens: Input should be greater than or equal to {BUDGET_MIN}"
                ));
            }
            if budget >= tokens {
                return refuse(
                    "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation.",
                );
            }
            true
        }
        _ => false,
    };
    let thinks = always || kind == Some("adaptive");
    if thinks && body.get("temperature").is_some_and(|t| !matches!(t, Json::Number(n) if n == "1" || n == "1.0")) {
        return refuse(
            "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation.",
        );
    }
    Ok(always)
}

fn check_system(body: &Json) -> Result<(), Refusal> {
    for (i, block) in body.at("system").items().iter().enumerate() {
        if block.at("text").str().is_none_or(str::is_empty) {
            return refuse(format!("system.{i}: text content blocks must be non-empty"));
        }
    }
    Ok(())
}

fn check_tools(body: &Json) -> Result<(), Refusal> {
    for (i, tool) in body.at("tools").items().iter().enumerate() {
        if !is_tool_name(tool.at("name").str().unwrap_or_default(), NAME_MAX) {
            return refuse(format!(
                "tools.{i}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,{NAME_MAX}}}$'"
            ));
        }
        if tool.at("input_schema.type").str() != Some("object") {
            return refuse(format!("tools.{i}.custom.input_schema.type: Field required"));
        }
        let known = ["name", "description", "input_schema", "cache_control", "type", "strict"];
        if let Some(key) = tool.keys().find(|key| !known.contains(key)) {
            return refuse(format!("tools.{i}.custom.{key}: Extra inputs are not permitted"));
        }
    }
    Ok(())
}

fn check_messages(messages: &[Json], thinks: bool) -> Result<(), Refusal> {
    if messages.is_empty() {
        return refuse("messages: at least one message is required");
    }
    let mut before = None;
    for (i, message) in messages.iter().enumerate() {
        let role = message.at("role").str().unwrap_or_default();
        if !["user", "assistant"].contains(&role) {
            return refuse(format!(
                "messages: Unexpected role \"{role}\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role."
            ));
        }
        if let Some(key) = message.keys().find(|key| !["role", "content"].contains(key)) {
            return refuse(format!("messages.{i}.{key}: Extra inputs are not permitted"));
        }
        if before == Some(role) {
            return refuse(format!(
                "messages: roles must alternate between \"user\" and \"assistant\", but found multiple \"{role}\" roles in a row"
            ));
        }
        if i == 0 && role != "user" {
            return refuse("messages: first message must use the \"user\" role");
        }
        before = Some(role);
        check_content(message, i, role)?;
        check_results(messages, i)?;
    }
    check_last(messages, thinks)
}

fn check_content(message: &Json, i: usize, role: &str) -> Result<(), Refusal> {
    let blocks = match message.get("content") {
        Some(Json::String(text)) if text.is_empty() => {
            return refuse(format!("messages.{i}: {role} messages must have non-empty content"));
        }
        Some(Json::String(_)) => return Ok(()),
        Some(Json::Array(blocks)) if !blocks.is_empty() => blocks,
        Some(Json::Array(_)) => return refuse(format!("messages.{i}: {role} messages must have non-empty content")),
        _ => return refuse(format!("messages.{i}.content: Field required")),
    };
    let mut ids = Vec::new();
    for (n, block) in blocks.iter().enumerate() {
        let place = format!("messages.{i}.content.{n}");
        let kind = block.at("type").str().unwrap_or_default();
        match (kind, role) {
            ("text", _) if block.at("text").str().is_none_or(str::is_empty) => {
                return refuse("messages: text content blocks must be non-empty");
            }
            ("text" | "image" | "document", _) => {}
            ("thinking", "assistant") => {
                check_signature(block, &place)?;
                let signature = block.at("signature").str().unwrap_or_default();
                let kind = |n: Option<usize>| blocks.get(n?).and_then(|block| block.at("type").str());
                let torn = signature.ends_with(FOLLOWED) && kind(Some(n + 1)) != Some("redacted_thinking");
                if torn || signature.ends_with(AFTER_TEXT) && kind(n.checked_sub(1)) != Some("text") {
                    return refuse(format!(
                        "{place}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. \
                         These blocks must remain as they were in the original response."
                    ));
                }
            }
            ("redacted_thinking", "assistant") => {
                if block.at("data").str() != Some(&sign(SECRET)) {
                    return refuse(format!("{place}: Invalid `data` in `redacted_thinking` block"));
                }
            }
            ("tool_use", "assistant") => {
                check_use(block, &place)?;
                let id = block.at("id").str().unwrap_or_default();
                if ids.contains(&id) {
                    return refuse("messages: `tool_use` ids must be unique");
                }
                ids.push(id);
            }
            ("tool_result", "user") => {
                if let Json::String(text) = block.at("content")
                    && text.is_empty()
                    && block.at("is_error") == &Json::Bool(true)
                {
                    return refuse(format!("{place}.tool_result: content cannot be empty if `is_error` is true"));
                }
            }
            _ => return refuse(format!("{place}: `{kind}` blocks are not expected in {role} messages")),
        }
    }
    Ok(())
}

fn check_signature(block: &Json, place: &str) -> Result<(), Refusal> {
    let Some(thinking) = block.at("thinking").str() else {
        return refuse(format!("{place}.thinking.thinking: Field required"));
    };
    match block.at("signature").str() {
        None => refuse(format!("{place}.thinking.signature: Field required")),
        Some(found) if found.trim_end_matches(FOLLOWED).trim_end_matches(AFTER_TEXT) == sign(thinking) => {
            if block.get("cache_control").is_some() {
                return refuse(format!("{place}.thinking.cache_control: Extra inputs are not permitted"));
            }
            Ok(())
        }
        Some(_) => refuse(format!("{place}: Invalid `signature` in `thinking` block")),
    }
}

fn check_use(block: &Json, place: &str) -> Result<(), Refusal> {
    if !is_tool_name(block.at("id").str().unwrap_or_default(), usize::MAX) {
        return refuse(format!("{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"));
    }
    if !is_tool_name(block.at("name").str().unwrap_or_default(), NAME_MAX) {
        return refuse(format!("{place}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,{NAME_MAX}}}$'"));
    }
    if !matches!(block.at("input"), Json::Object(_)) {
        return refuse(format!("{place}.tool_use.input: Input should be a valid dictionary"));
    }
    Ok(())
}

/// Every use has its result at the beginning of the next message, and every result its use in the one before.
fn check_results(messages: &[Json], i: usize) -> Result<(), Refusal> {
    let of_kind = |message: &Json, kind: &str, field: &str| -> Vec<String> {
        let blocks = message.at("content").items().iter().filter(|block| block.at("type").str() == Some(kind));
        blocks.map(|block| block.at(field).str().unwrap_or_default().to_owned()).collect()
    };
    let empty = Json::Null;
    let next = messages.get(i + 1).unwrap_or(&empty);
    let mut first = next.at("content").items().iter().take_while(|b| b.at("type").str() == Some("tool_result"));
    let first: Vec<&str> = first.by_ref().filter_map(|block| block.at("tool_use_id").str()).collect();
    let uses = of_kind(&messages[i], "tool_use", "id");
    let open: Vec<&str> = uses.iter().map(String::as_str).filter(|id| !first.contains(id)).collect();
    if !open.is_empty() {
        return refuse(format!(
            "messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block \
             must have a corresponding `tool_result` block in the next message.",
            open.join(", ")
        ));
    }
    let before = i.checked_sub(1).map_or(&empty, |before| &messages[before]);
    let asked = of_kind(before, "tool_use", "id");
    let mut given = Vec::new();
    for (n, id) in of_kind(&messages[i], "tool_result", "tool_use_id").into_iter().enumerate() {
        if !asked.contains(&id) {
            return refuse(format!(
                "messages.{i}.content.{n}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block \
                 must have a corresponding `tool_use` block in the previous message."
            ));
        }
        if given.contains(&id) {
            return refuse(format!(
                "messages.{i}.content.{n}: each tool_use must have a single result. Found multiple `tool_result` blocks with id: {id}"
            ));
        }
        given.push(id);
    }
    Ok(())
}

/// An answer that goes on must not end in white space, and one that thinks has to begin with what it thought.
fn check_last(messages: &[Json], thinks: bool) -> Result<(), Refusal> {
    let last = messages.iter().rposition(|message| message.at("role").str() == Some("assistant"));
    let Some(i) = last else { return Ok(()) };
    let content = messages[i].at("content");
    let ends = i + 1 == messages.len();
    let text = content.str().or_else(|| content.items().last()?.at("text").str()).unwrap_or_default();
    if ends && text.ends_with(char::is_whitespace) {
        return refuse("messages: final assistant content cannot end with trailing whitespace");
    }
    let uses = content.items().iter().any(|block| block.at("type").str() == Some("tool_use"));
    let first = content.at("0.type").str().unwrap_or("text");
    if thinks && (uses || ends) && !["thinking", "redacted_thinking"].contains(&first) {
        return refuse(format!(
            "messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is \
             enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and \
             `tool_result` blocks). To avoid this requirement, disable `thinking`."
        ));
    }
    Ok(())
}

fn count_breakpoints(value: &Json) -> usize {
    match value {
        Json::Array(items) => items.iter().map(count_breakpoints).sum(),
        Json::Object(fields) => {
            fields.iter().map(|(key, value)| usize::from(key == "cache_control") + count_breakpoints(value)).sum()
        }
        _ => 0,
    }
}
