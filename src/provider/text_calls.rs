//! Calls that a model wrote as text: small models, and servers that do not know a model's own format.
//!
//! | written | by |
//! |---|---|
//! | `<tool_call>{…}</tool_call>` | Qwen, Hermes |
//! | `[TOOL_CALLS] [{…}, …]` | Mistral |
//! | `<\|python_tag\|>{…}` | Llama 3 |
//! | a fence of three backticks around `{…}`, or `{…}` by itself | anybody |
//!
//! `{…}` names a tool on offer and may have `arguments` or `parameters`. The first three are signs that no person writes,
//! so they count wherever they stand; the last ones only at the end of an answer, from the start of a line on, because what
//! stands before more text is an example. Several in a row are several calls. The text around them stays text.
//!
//! Invariants: nothing but names of tools on offer counts; an answer of which one call is no call is left as it is.

use super::wire::CALLS_MAX;
use duragent_core::json::{Reader, Value};
use duragent_core::message::Reply;
use duragent_core::tool::{ToolCall, ToolDecl};

/// Most lines of an answer, from its end, that are looked at as the beginning of calls.
const STARTS_MAX: usize = 16;

/// Signs, each with what ends it.
const SIGNS: [(&str, &str); 3] =
    [("<tool_call>", "</tool_call>"), ("[TOOL_CALLS]", ""), ("<|python_tag|>", "<|eom_id|>")];

/// Makes calls of those that are written in the text of `reply`, unless it has calls already.
pub(super) fn take(reply: &mut Reply, tools: &[ToolDecl]) {
    if !reply.tool_calls.is_empty() || tools.is_empty() {
        return;
    }
    if let Some((text, calls)) = signed(&reply.text, tools).or_else(|| at_the_end(&reply.text, tools)) {
        reply.text = text;
        reply.tool_calls = calls;
    }
}

/// The text without the calls that stand behind signs.
fn signed(text: &str, tools: &[ToolDecl]) -> Option<(String, Vec<ToolCall>)> {
    let (mut left, mut calls, mut rest) = (String::new(), Vec::new(), text);
    while let Some((at, (sign, end))) = next_sign(rest) {
        left.push_str(rest.get(..at)?);
        let after = rest.get(at + sign.len()..)?;
        let (mut found, after) = read(after, tools)?;
        calls.append(&mut found);
        let after = after.trim_start();
        rest = if end.is_empty() { after } else { after.strip_prefix(end).unwrap_or(after) };
    }
    left.push_str(rest);
    if calls.is_empty() || calls.len() > CALLS_MAX { None } else { Some((left.trim().into(), calls)) }
}

fn next_sign(text: &str) -> Option<(usize, (&str, &str))> {
    SIGNS.iter().filter_map(|sign| Some((text.find(sign.0)?, *sign))).min_by_key(|(at, _)| *at)
}

/// The text before the calls that it ends with.
fn at_the_end(text: &str, tools: &[ToolDecl]) -> Option<(String, Vec<ToolCall>)> {
    let mut starts = Vec::new();
    let mut at = text.len();
    for line in text.split_inclusive('\n').rev() {
        at -= line.len();
        if line.trim_start().starts_with(['{', '[', '`']) {
            starts.push(at);
            if starts.len() == STARTS_MAX {
                break;
            }
        }
    }
    starts.into_iter().rev().find_map(|at| {
        let before = text.get(..at)?.trim();
        // What stands behind something of its kind is a part of it, and that is no call.
        if before.ends_with(['{', '}', '[', ']', ',', '`']) {
            return None;
        }
        Some((before.into(), all(text.get(at..)?, tools)?))
    })
}

/// The calls that all of the text is, fenced or not.
fn all(text: &str, tools: &[ToolDecl]) -> Option<Vec<ToolCall>> {
    let (mut calls, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() && calls.len() < CALLS_MAX {
        let fenced = rest.strip_prefix("```").map(|inner| {
            let word = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
            inner.get(word..).unwrap_or_default()
        });
        let (mut found, after) = read(fenced.unwrap_or(rest), tools)?;
        calls.append(&mut found);
        let after = after.trim_start();
        rest = match fenced {
            // The last fence may be open: the model had nothing more to say.
            Some(_) if !after.is_empty() => after.strip_prefix("```")?.trim_start(),
            _ => after,
        };
    }
    if rest.is_empty() && !calls.is_empty() { Some(calls) } else { None }
}

/// Calls at the beginning of the text, an object or a list or several one after the other, and what follows them.
fn read<'t>(text: &'t str, tools: &[ToolDecl]) -> Option<(Vec<ToolCall>, &'t str)> {
    let (mut calls, mut rest) = (Vec::new(), text.trim_start());
    while rest.starts_with(['{', '[']) && next_sign(rest).is_none_or(|(at, _)| at > 0) {
        let mut reader = Reader::new(rest);
        let value = reader.value().ok()?;
        match &value {
            Value::Array(list) => {
                for value in list {
                    calls.push(call(value, tools)?);
                }
            }
            value => calls.push(call(value, tools)?),
        }
        // Llama 3 puts a semicolon between them.
        rest = rest.get(reader.offset()..)?.trim_start().trim_start_matches([';', ',']).trim_start();
    }
    if calls.is_empty() { None } else { Some((calls, rest)) }
}

fn call(value: &Value, tools: &[ToolDecl]) -> Option<ToolCall> {
    let value = value.get("function").filter(|inner| inner.get("name").is_some()).unwrap_or(value);
    let name = value.get("name")?.as_str().filter(|name| tools.iter().any(|tool| tool.name == *name))?;
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None | Some(Value::Null) => "{}".into(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        Some(Value::String(text)) => super::wire::arguments(text).ok()?,
        Some(_) => return None,
    };
    Some(ToolCall { call_id: String::new(), name: name.into(), arguments })
}

#[cfg(test)]
mod tests {
    use super::take;
    use crate::provider::testing::tool;
    use duragent_core::message::Reply;
    use duragent_core::tool::ToolCall;

    const BASH: &str = r#"{"name":"bash","arguments":{"command":"ls"}}"#;
    const READ: &str = r#"{"name":"read","parameters":{}}"#;

    /// The text that is left, and the calls.
    fn found(text: &str) -> String {
        let mut reply = Reply { text: text.into(), ..Reply::default() };
        take(&mut reply, &[tool("bash"), tool("read")]);
        let calls: Vec<String> =
            reply.tool_calls.iter().map(|call| format!("{}{}", call.name, call.arguments)).collect();
        format!("{}<{}>", reply.text, calls.join(" "))
    }

    #[test]
    fn what_is_taken_as_calls() {
        let ls = r#"bash{"command":"ls"}"#;
        let cases = [
            (format!("<tool_call>\n{BASH}\n</tool_call>"), format!("<{ls}>")),
            (
                format!("I look.\n<tool_call>{BASH}</tool_call>\n<tool_call>{READ}</tool_call>"),
                format!("I look.<{ls} read{{}}>"),
            ),
            (format!("<tool_call>{BASH}</tool_call> and then?"), format!("and then?<{ls}>")),
            (format!("<tool_call>{BASH}"), format!("<{ls}>")),
            (format!("[TOOL_CALLS] [{BASH}, {READ}]"), format!("<{ls} read{{}}>")),
            (format!("Ok.[TOOL_CALLS][{BASH}]</s>"), format!("Ok.</s><{ls}>")),
            (format!("<|python_tag|>{BASH}; {READ}<|eom_id|>"), format!("<{ls} read{{}}>")),
            (format!("```json\n{BASH}\n```"), format!("<{ls}>")),
            (format!("\n ```\n{BASH}```\n"), format!("<{ls}>")),
            (format!("```json {READ} ```"), "<read{}>".into()),
            (format!("```tool_call\n[{BASH},\n{READ}]\n```"), format!("<{ls} read{{}}>")),
            (
                format!("I will look:\n```json\n{BASH}\n```\n```json\n{READ}\n```"),
                format!("I will look:<{ls} read{{}}>"),
            ),
            (format!("```json\n{BASH}"), format!("<{ls}>")),
            (BASH.into(), format!("<{ls}>")),
            (format!("{BASH}\n{READ}"), format!("<{ls} read{{}}>")),
            (format!("[{BASH}]"), format!("<{ls}>")),
            (format!("Sure!\n{BASH}"), format!("Sure!<{ls}>")),
            (r#"{"name":"bash"}"#.into(), "<bash{}>".into()),
            (r#"{"name":"bash","arguments":null}"#.into(), "<bash{}>".into()),
            (r#"{"name":"bash","arguments":"{\"command\":\"ls\"}"}"#.into(), format!("<{ls}>")),
            (format!(r#"{{"type":"function","function":{BASH}}}"#), format!("<{ls}>")),
            (
                r#"{"name":"bash","arguments":{"command":"echo '</tool_call>' [TOOL_CALLS]"}}"#.into(),
                r#"<bash{"command":"echo '</tool_call>' [TOOL_CALLS]"}>"#.into(),
            ),
            (format!("[\nnot JSON\n{BASH}"), format!("[\nnot JSON<{ls}>")),
        ];
        for (text, want) in cases {
            assert_eq!(found(&text), want, "{text}");
        }
    }

    #[test]
    fn what_is_not_taken_as_calls() {
        let cases = [
            // Names of tools that are not on offer, and other objects.
            r#"<tool_call>{"name":"rm","arguments":{}}</tool_call>"#.to_owned(),
            r#"[TOOL_CALLS] [{"name":"rm","arguments":{}}]"#.into(),
            r#"{"name":"rm","arguments":{}}"#.into(),
            r#"{"name":"Bash","arguments":{}}"#.into(),
            r#"{"name":7}"#.into(),
            r#"{"command":"ls"}"#.into(),
            "[]".into(),
            "{}".into(),
            "[1]".into(),
            r#"{"name":"bash","arguments":[1]}"#.into(),
            r#"{"name":"bash","arguments":"ls"}"#.into(),
            // One that is no call keeps the others.
            format!("<tool_call>{BASH}</tool_call><tool_call>{{\"name\":\"rm\"}}</tool_call>"),
            format!("[TOOL_CALLS] [{BASH}, 7]"),
            // Examples: text follows.
            format!("```json\n{BASH}\n```\nThis is how it is called."),
            format!("{BASH} is how it is called"),
            format!("Write {BASH}"),
            format!("Write `{BASH}`"),
            format!("{{\"name\":\"rm\",\"arguments\":{{}}}}\n{BASH}"),
            format!("```json\n{{\"name\":\"rm\"}}\n```\n```json\n{BASH}\n```"),
            format!("[\n{{\"name\":\"rm\"}},\n{BASH}\n]"),
            // Cut, or no JSON.
            BASH[..20].into(),
            format!("<tool_call>{}", &BASH[..20]),
            "<tool_call>".into(),
            "<tool_call></tool_call>".into(),
            "<|python_tag|>print(1)".into(),
            "```python\nprint(1)\n```".into(),
            "```".into(),
            "``````".into(),
            "```json```".into(),
            r#"{"name":"bash","name":"read"}"#.into(),
            "[".repeat(10_000),
            "{\"a\":\n".repeat(2_000),
            String::new(),
        ];
        for text in cases {
            assert_eq!(found(&text), format!("{text}<>"), "{:.200}", text);
        }
    }

    #[test]
    fn calls_of_the_servers_own_are_enough() {
        let call = ToolCall { call_id: "c".into(), name: "read".into(), arguments: "{}".into() };
        let mut reply = Reply { text: BASH.into(), tool_calls: vec![call.clone()], ..Reply::default() };
        take(&mut reply, &[tool("bash")]);
        assert_eq!((reply.text.as_str(), reply.tool_calls.as_slice()), (BASH, &[call][..]));
        let mut reply = Reply { text: BASH.into(), ..Reply::default() };
        take(&mut reply, &[]);
        assert!(reply.tool_calls.is_empty(), "no tools on offer");
        let many = vec![READ; 65].join("\n");
        assert_eq!(found(&many), format!("{many}<>"), "as many as in no other answer");
    }
}
