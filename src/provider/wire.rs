//! What the wire formats of providers have in common.
//!
//! Frames go through `miniserde` into small structs that name only the fields we use: it is small, iterative and fast,
//! and ignores the rest. It cannot say what is wrong, rounds big numbers and sorts keys; so whatever must survive as it
//! was (tool arguments) or be told about (errors, malformed frames) is read a second time by [`duragent_core::json`].
//! Both passes are bounded: nesting is checked before the first.

use super::Failure;
use super::http::Client;
use duragent_core::event::FailureKind;
use duragent_core::json::{self, ObjectWriter, Value};
use duragent_core::tool::{ToolCall, ToolDecl};
use miniserde::de::{Deserialize, Visitor};
use std::fmt::Write as _;

/// Most calls in one answer; more is a model gone astray.
pub(super) const CALLS_MAX: usize = 64;

/// Reads a frame.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn frame<T: Deserialize>(text: &str) -> Result<T, String> {
    if is_too_deep(text) {
        return Err(format!("nested deeper than {} levels", json::DEPTH_MAX));
    }
    miniserde::json::from_str(text).map_err(|_| match json::parse(text) {
        Err(error) => format!("malformed JSON: {error}"),
        Ok(_) => "JSON whose fields are not of the expected types".into(),
    })
}

fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > json::DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The arguments of a call as compact JSON text of an object; nothing means none.
///
/// # Errors
/// What is wrong with them.
pub(super) fn arguments(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok("{}".into());
    }
    match json::parse(text) {
        Ok(value @ Value::Object(_)) => Ok(value.to_string()),
        Ok(_) => Err("arguments are not a JSON object".into()),
        Err(error) => Err(format!("arguments are not JSON: {error}")),
    }
}

/// Adds a call to an answer, with its arguments as the model wrote them. `cut` says that the answer reached its limit.
///
/// # Errors
/// The model's mistake: no name, arguments that are no object, or too many calls.
pub(super) fn push_call(
    client: &Client,
    calls: &mut Vec<ToolCall>,
    (call_id, name, text): (String, String, &str),
    cut: bool,
) -> Result<(), Failure> {
    let bad = |what: &str| {
        let mut what = format!("call of {:?}: {what}", client.quote(&name));
        if cut {
            what.push_str("; the answer was cut at its token limit");
        }
        Err(client.failed(FailureKind::BadToolCall, &what))
    };
    if name.is_empty() {
        return bad("no name");
    }
    check_room(client, calls.len())?;
    match arguments(text) {
        Ok(arguments) => calls.push(ToolCall { call_id, name, arguments }),
        Err(what) => return bad(&what),
    }
    Ok(())
}

/// Refuses one more call than [`CALLS_MAX`].
pub(super) fn check_room(client: &Client, calls: usize) -> Result<(), Failure> {
    if calls < CALLS_MAX {
        return Ok(());
    }
    let what = format!("more than {CALLS_MAX} tool calls in one answer");
    Err(client.failed(FailureKind::BadToolCall, &what))
}

/// A frame that is none.
pub(super) fn malformed(client: &Client, what: &str, frame: &str) -> Failure {
    client.failed(FailureKind::Protocol, &format!("{what}: {:?}", client.quote(frame)))
}

/// A comma, unless the list that `out` ends with has just begun.
pub(super) fn comma(out: &mut String) {
    if !out.ends_with('[') {
        out.push(',');
    }
}

/// Tools as Ollama and OpenAI both declare them.
pub(super) fn write_tools(out: &mut String, tools: &[ToolDecl]) {
    out.push('[');
    for tool in tools {
        comma(out);
        let mut object = ObjectWriter::new(out);
        object.str("type", "function").object("function", |function| {
            function.str("name", &tool.name).str("description", &tool.description).raw("parameters", &tool.parameters);
        });
        object.finish();
    }
    out.push(']');
}

/// What a call has for arguments: an empty object if there are none.
pub(super) fn arguments_of(call: &ToolCall) -> &str {
    if call.arguments.is_empty() { "{}" } else { &call.arguments }
}

/// Appends a number as JSON; what JSON cannot say becomes `null`.
pub(super) fn write_f64(out: &mut String, number: f64) {
    if number.is_finite() {
        // The standard's writer is in the binary anyway; it writes no exponents, and 1 for 1.0, which JSON has too.
        let _ = write!(out, "{number}");
    } else {
        out.push_str("null");
    }
}

/// A field of any kind whose presence is all that matters; inside an `Option`, `null` counts as absent.
pub(super) struct Seen;

impl Deserialize for Seen {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        *out = Some(Self);
        <dyn Visitor>::ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, arguments, frame, write_f64};
    use miniserde::Deserialize;

    #[derive(Deserialize)]
    struct Frame {
        name: Option<String>,
        error: Option<Seen>,
    }

    #[test]
    fn presence_is_seen_whatever_the_kind() {
        for (text, seen) in [
            ("{}", false),
            (r#"{"error":null}"#, false),
            (r#"{"error":"x"}"#, true),
            (r#"{"error":{"a":[1,{"b":null}]},"name":"n"}"#, true),
            (r#"{"error":[]}"#, true),
            (r#"{"error":0}"#, true),
            (r#"{"error":-1.5}"#, true),
            (r#"{"error":false}"#, true),
        ] {
            let found: Frame = frame(text).unwrap();
            assert_eq!(found.error.is_some(), seen, "{text}");
            assert_eq!(found.name.is_some(), text.contains("name"), "{text}");
        }
    }

    #[test]
    fn a_bad_frame_says_what_is_wrong() {
        let error = |text: &str| frame::<Frame>(text).err().unwrap();
        assert_eq!(error(r#"{"name":7}"#), "JSON whose fields are not of the expected types");
        assert!(error(r#"{"name":"#).starts_with("malformed JSON: "));
        assert_eq!(error(&"[".repeat(129)), "nested deeper than 128 levels");
        assert!(error(&"[".repeat(128)).starts_with("malformed JSON: "));
        let strings = format!(r#"{{"name":"{}\"["}}"#, "[".repeat(1000));
        assert!(frame::<Frame>(&strings).is_ok(), "brackets in strings do not count");
    }

    #[test]
    fn arguments_are_compact_objects() {
        assert_eq!(arguments("").unwrap(), "{}");
        assert_eq!(arguments(" \n").unwrap(), "{}");
        assert_eq!(
            arguments("{ \"z\" : 18446744073709551616, \"a\":1.0 }").unwrap(),
            r#"{"z":18446744073709551616,"a":1.0}"#
        );
        assert_eq!(arguments("[1]").unwrap_err(), "arguments are not a JSON object");
        assert!(arguments("{\"a\":1").unwrap_err().starts_with("arguments are not JSON: "));
        assert!(arguments(r#"{"a":1,"a":2}"#).is_err());
    }

    #[test]
    fn numbers_are_written_as_json() {
        for (number, want) in
            [(0.7, "0.7"), (0.0, "0"), (1.0, "1"), (1e-7, "0.0000001"), (f64::NAN, "null"), (f64::INFINITY, "null")]
        {
            let mut out = String::new();
            write_f64(&mut out, number);
            assert_eq!(out, want);
        }
    }
}
