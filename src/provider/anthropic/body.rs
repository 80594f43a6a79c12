//! What is sent: Anthropic's words, with breakpoints for its prompt cache.
//!
//! The cache holds prefixes in the order tools, system prompt, messages, each up to a breakpoint, of which a request has
//! four at most. Ours are three: after what never changes, and after the last two messages of the user, so that what the
//! request before wrote is found and what comes now is written.

use crate::provider::wire::{self, arguments_of, comma};
use crate::provider::{Message, Request};
use duragent_core::json::ObjectWriter;
use duragent_core::provider::Thinking;
use duragent_core::tool::ToolDecl;

/// Fewest tokens of thinking that the API takes, and fewest that are left for the answer beside it.
const THINKING_TOKENS_MIN: u64 = 1024;

/// The thinking that goes back with an answer: this model's own, and no other's.
pub(super) fn blocks<'m>(message: &'m Message, request: &Request) -> Option<&'m str> {
    match message {
        Message::Assistant { blocks: Some(blocks), .. } if blocks.model == request.model => {
            let inner = blocks.json.strip_prefix('[')?.strip_suffix(']')?;
            Some(inner).filter(|inner| !inner.is_empty())
        }
        _ => None,
    }
}

/// The body of a request.
pub(super) fn write(request: &Request, thinking: Thinking) -> String {
    let mut out = String::with_capacity(4096);
    let mut body = ObjectWriter::new(&mut out);
    let (limit, budget) = limits(request, thinking);
    body.str("model", &request.model).u64("max_tokens", limit).bool("stream", true);
    match thinking {
        Thinking::Adaptive => drop(body.object("thinking", |object| {
            // Newer models keep it to themselves unless asked.
            object.str("type", "adaptive").str("display", "summarized");
        })),
        Thinking::Tokens(_) if budget > 0 => drop(body.object("thinking", |object| {
            object.str("type", "enabled").u64("budget_tokens", budget);
        })),
        // Sampling and thinking exclude each other.
        _ => {
            if let Some(temperature) = request.temperature {
                wire::write_f64(body.key("temperature"), temperature);
            }
        }
    }
    let has_system = !request.system.trim().is_empty();
    if !request.tools.is_empty() {
        write_tools(body.key("tools"), &request.tools, !has_system);
    }
    if has_system {
        let out = body.key("system");
        out.push('[');
        write_text(out, &request.system);
        mark(out);
        out.push(']');
    }
    write_messages(body.key("messages"), request);
    body.finish();
    out
}

/// Most tokens of the answer, and how many of them are for thinking; 0 for none.
fn limits(request: &Request, thinking: Thinking) -> (u64, u64) {
    // A limit on the answer is one on the thinking too.
    let limit = request.max_output_tokens.unwrap_or_else(|| thinking.answer_tokens(request.context_tokens));
    let Thinking::Tokens(wanted) = thinking else { return (limit, 0) };
    let budget = wanted.min(limit.saturating_sub(THINKING_TOKENS_MIN));
    // An answer with calls that was given without thinking cannot be gone on from with it.
    let bare = request.messages.iter().rev().take_while(|message| !matches!(message, Message::User { .. }));
    let bare =
        bare.filter(|message| matches!(message, Message::Assistant { .. })).any(|m| blocks(m, request).is_none());
    (limit, if bare || budget < THINKING_TOKENS_MIN { 0 } else { budget })
}

fn write_tools(out: &mut String, tools: &[ToolDecl], marked: bool) {
    out.push('[');
    for tool in tools {
        comma(out);
        let mut object = ObjectWriter::new(out);
        object.str("name", &tool.name).str("description", &tool.description).raw("input_schema", &tool.parameters);
        object.finish();
    }
    if marked {
        mark(out);
    }
    out.push(']');
}

/// Makes the object that `out` ends with a breakpoint.
fn mark(out: &mut String) {
    if out.pop() == Some('}') {
        out.push_str(",\"cache_control\":{\"type\":\"ephemeral\"}}");
    }
}

pub(super) fn write_text(out: &mut String, text: &str) {
    let mut object = ObjectWriter::new(out);
    object.str("type", "text").str("text", text);
    object.finish();
}

/// True if a message has something to say; texts of white space are refused.
fn speaks(message: &Message) -> bool {
    match message {
        Message::User { content } => !content.trim().is_empty(),
        Message::Assistant { content, tool_calls, .. } => !content.trim().is_empty() || !tool_calls.is_empty(),
        Message::Tool { .. } => true,
    }
}

fn is_assistant(message: &Message) -> bool {
    matches!(message, Message::Assistant { .. })
}

fn write_messages(out: &mut String, request: &Request) {
    let messages: Vec<&Message> = request.messages.iter().filter(|message| speaks(message)).collect();
    let groups: Vec<&[&Message]> = messages.chunk_by(|a, b| is_assistant(a) == is_assistant(b)).collect();
    let starts_with_user = groups.first().is_none_or(|group| !group.iter().all(|message| is_assistant(message)));
    // Of the last two groups that are the user's, one is the last or the one before it.
    let marked_from =
        groups.len().saturating_sub(if groups.len() % 2 == usize::from(starts_with_user) { 3 } else { 4 });
    out.push('[');
    if !starts_with_user {
        // What came before was left out; the user speaks first all the same.
        out.push_str("{\"role\":\"user\",\"content\":\"Go on.\"}");
    }
    for (at, group) in groups.iter().enumerate() {
        let user = group.first().is_some_and(|message| !is_assistant(message));
        comma(out);
        out.push_str(if user { "{\"role\":\"user\",\"content\":[" } else { "{\"role\":\"assistant\",\"content\":[" });
        if user {
            // Results first, whatever stands between them.
            for results in [true, false] {
                for message in group.iter().filter(|m| matches!(m, Message::Tool { .. }) == results) {
                    write_said(out, message);
                }
            }
            if at >= marked_from {
                mark(out);
            }
        } else {
            group.iter().for_each(|message| write_answer(out, message, request));
        }
        out.push_str("]}");
    }
    out.push(']');
}

fn write_said(out: &mut String, message: &Message) {
    comma(out);
    match message {
        Message::Tool { call_id, content, .. } => {
            let mut object = ObjectWriter::new(out);
            object.str("type", "tool_result").str("tool_use_id", call_id);
            object.str_opt("content", Some(content.as_str()).filter(|text| !text.trim().is_empty()));
            object.finish();
        }
        Message::User { content } | Message::Assistant { content, .. } => write_text(out, content),
    }
}

fn write_answer(out: &mut String, message: &Message, request: &Request) {
    let Message::Assistant { content, tool_calls, .. } = message else { return };
    let blocks = blocks(message, request);
    if let Some(blocks) = blocks {
        comma(out);
        out.push_str(blocks);
    }
    // Texts that stand between thinking are among the blocks; within a string of JSON these bytes cannot stand.
    let said = blocks.is_some_and(|blocks| blocks.contains("{\"type\":\"text\""));
    if !said && !content.trim().is_empty() {
        comma(out);
        // A text at the very end must not end with white space.
        write_text(out, content.trim_end());
    }
    for call in tool_calls {
        comma(out);
        let mut object = ObjectWriter::new(out);
        object
            .str("type", "tool_use")
            .str("id", &call.call_id)
            .str("name", &call.name)
            .raw("input", arguments_of(call));
        object.finish();
    }
}
