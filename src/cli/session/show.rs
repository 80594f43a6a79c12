//! `duragent session show SESSION [--json|--prompt]`

use super::{named, prompt as next};
use crate::cli::connect::{Connection, session_id};
use crate::cli::{Common, Failure, args, print, text};
use duragent_core::json::Value;
use duragent_core::time;
use duragent_platform::clock;

/// Lines of a tool's result that are shown; `--json` and the log have all of it.
const RESULT_LINES_MAX: usize = 8;
/// Characters of a call's arguments that are shown.
const ARGUMENTS_CHARS_MAX: usize = 160;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut json, mut prompt) = (None, false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") if !prompt => json = true,
            lexopt::Arg::Long("prompt") if !json => prompt = true,
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let session = named(session)?;
    let connection = Connection::open(&common.existing()?)?;
    let id = session_id(&connection, &session)?;
    if prompt {
        return next::show(&connection, &id);
    }
    let mut summary = connection.get(&format!("/api/v1/sessions/{id}"))?;
    let mut conversation = connection.get(&format!("/api/v1/sessions/{id}/messages"))?;
    connection.close();
    if json {
        if let (Value::Object(fields), Value::Object(more)) = (&mut summary, &mut conversation) {
            fields.append(more);
        }
        text::put_json(&summary.to_string())?;
        return Ok(0);
    }
    let mut out = head(&summary);
    for message in text::list(&conversation, "messages") {
        out.push('\n');
        out.push_str(&self::message(message));
    }
    print(&out)
}

fn head(summary: &Value) -> String {
    let field = |name| text::one_line(&text::field(summary, name), usize::MAX);
    let used = |name| summary.get("usage").map_or_else(String::new, |usage| text::field(usage, name));
    let last = time::parse_rfc3339(&field("last_at")).unwrap_or(0);
    let last = format!("{} ({})", field("last_at"), text::age(clock::wall_ms(), last));
    let (input, output) = (used("input_tokens"), used("output_tokens"));
    let tokens = format!("{input} in, {output} out, {} in the context", field("context_tokens"));
    let detail = if field("status") == "damaged" { "damage" } else { "why" };
    let rows = [
        ("session", field("id")),
        ("title", field("title")),
        ("agent", field("agent")),
        ("status", field("status")),
        (detail, field("detail")),
        ("created", field("created_at")),
        ("last", last),
        ("turns", field("turns")),
        ("tokens", tokens),
    ];
    let mut out = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("{name:8} {value}\n"));
    }
    out
}

fn message(message: &Value) -> String {
    let field = |name| text::field(message, name);
    let role = field("role");
    let mut out = format!("#{} {role}\n", field("seq"));
    if role == "tool" {
        let word = |key, word| message.get(key).map(|value: &Value| format!("{word}{value}"));
        let denied = message.get("denied").map(|_| "denied".to_owned());
        let interrupted = message.get("interrupted").map(|_| format!("interrupted: {}", field("interrupted")));
        let how = denied.or(interrupted).or_else(|| word("exit_code", "exit "));
        out.push_str(&format!("  {} ←{}\n", field("call_id"), how.map_or_else(String::new, |how| format!(" {how}"))));
        out.push_str(&text::excerpt(&field("content"), RESULT_LINES_MAX, "    "));
        return out;
    }
    for line in field("content").lines() {
        out.push_str(text::clean(&format!("  {line}")).trim_end());
        out.push('\n');
    }
    for call in text::list(message, "tool_calls") {
        let arguments = call.get("arguments").map(Value::to_string).unwrap_or_default();
        let arguments = text::one_line(&arguments, ARGUMENTS_CHARS_MAX);
        let (call_id, name) = (text::field(call, "call_id"), text::field(call, "name"));
        out.push_str(&format!("  {call_id} → {} {arguments}\n", text::clean(&name)));
    }
    out
}
