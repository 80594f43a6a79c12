//! An open approval as whoever decides has to see it: in short on a line, or all of it.
//!
//! Invariants: nothing of the call is left out without saying so, and what cannot be seen on a screen (control characters, marks
//! of direction, spaces without width) is shown by its number.

use super::connect::Connection;
use super::session::lines;
use super::{Failure, render, text};
use duragent_core::event::Body;
use duragent_core::json::Value;
use duragent_core::line;

/// A request on one line: its id, and the call.
pub fn short(request: &Value) -> String {
    let arguments = request.get("arguments").map(Value::to_string).unwrap_or_default();
    let call = render::call(&text::field(request, "name"), &arguments);
    [&text::field(request, "approval_id"), " ", &call].concat()
}

/// What is said of a request when a turn ends at it, and what to do about it.
pub fn waiting(session: &str, request: &Value) -> (String, String) {
    let short = short(request);
    let (id, call) = short.split_once(' ').unwrap_or(("", &short));
    let mut said = ["the turn waits for an approval of ", call].concat();
    let egress = is_egress(request);
    if egress {
        said.push_str("\nit may carry out what is private, and this session has read what strangers wrote");
    }
    let mut hint = String::new();
    if egress || short.ends_with(" more)") {
        hint = ["see all of it with: duragent approve ", session, " ", id, " --show\n"].concat();
    }
    hint.push_str(&["duragent approve ", session, " ", id].concat());
    (said, hint)
}

/// True if the policy would let the call run, and what the session has read does not.
fn is_egress(request: &Value) -> bool {
    text::field(request, "reason") == "egress"
}

/// All of a request: the whole call, argument by argument.
pub fn whole(request: &Value) -> String {
    let field = |key| text::field(request, key);
    let mut out = Shown::default();
    out.line(&[&field("approval_id"), ": ", &field("name")].concat());
    match request.get("arguments") {
        Some(Value::Object(fields)) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) => out.argument(key, text),
                    other => out.argument(key, &other.to_string()),
                }
            }
        }
        Some(other) => out.argument("arguments", &other.to_string()),
        None => {}
    }
    if out.numbered > 0 {
        let note = "  note: <U+…> stands for what cannot be seen: ";
        out.text.push_str(&[note, &text::count(out.numbered, "character"), "\n"].concat());
    }
    for (name, value) in [("sha256", field("digest")), ("open until", field("expires_at"))] {
        out.text.push_str(&["  ", name, " ", &text::clean(&value), "\n"].concat());
    }
    out.text
}

/// Why somebody is asked although the policy allows the call; empty if it is the policy that asks.
///
/// # Errors
/// If the log cannot be read.
pub fn why(connection: &Connection, id: &str, request: &Value) -> Result<String, Failure> {
    if !is_egress(request) {
        return Ok(String::new());
    }
    let (mut private, mut untrusted) = (Vec::new(), Vec::new());
    lines(connection, id, 0, &mut |text| {
        if line::peek_kind(text) == Some("tool_started")
            && let Ok(event) = line::parse(text)
            && let Body::ToolStarted { name, tags, .. } = event.body
        {
            for (set, names) in [(tags.private, &mut private), (tags.untrusted, &mut untrusted)] {
                if set && !names.contains(&name) {
                    names.push(name.clone());
                }
            }
        }
        Ok(true)
    })?;
    let names = |names: Vec<String>| render::clean_line(&names.join(", "), render::SUMMARY_CHARS_MAX);
    let (private, untrusted) = (names(private), names(untrusted));
    Ok(format!(
        "this session has read what is private ({private}) and what strangers wrote ({untrusted}); the call may carry \
         private data out, and strangers may have asked for it"
    ))
}

/// Text with everything in it to be seen.
#[derive(Default)]
struct Shown {
    text: String,
    /// Characters that are shown by their number.
    numbered: u64,
}

impl Shown {
    /// `key: value`, or below the key if the value has several lines. No line of a value looks like a key: all begin with `| `.
    fn argument(&mut self, key: &str, value: &str) {
        self.text.push_str("  ");
        self.push(key);
        if !value.contains('\n') {
            self.text.push_str(": ");
            return self.line(value);
        }
        self.text.push_str(":\n");
        for line in value.split('\n') {
            self.text.push_str("  | ");
            self.line(line);
        }
    }

    fn line(&mut self, text: &str) {
        self.push(text);
        self.text.push('\n');
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if c == '\t' || !(is_hidden(c) || text::is_unsafe(c) || c == '\n') {
                self.text.push(c);
            } else {
                self.numbered += 1;
                self.text.push_str(&format!("<U+{:04X}>", u32::from(c)));
            }
        }
    }
}

/// True for what takes no place on a screen, or looks like a blank and is none: format characters, fillers, variation selectors,
/// tags, and the spaces of Unicode.
fn is_hidden(c: char) -> bool {
    let spaces = c.is_whitespace() && c != ' ' && c != '\t';
    spaces
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::{Value, short, whole};
    use duragent_core::json::parse;

    fn request(name: &str, arguments: &str) -> Value {
        let text = format!(
            "{{\"approval_id\":\"a1-1-1\",\"call_id\":\"c1-1-1\",\"name\":{name:?},\"arguments\":{arguments},\"digest\":\"00ff\",\
             \"expires_at\":\"2026-11-23T09:27:59.445Z\"}}"
        );
        parse(&text).expect("JSON")
    }

    #[test]
    fn the_whole_call_is_shown_and_nothing_in_it_hides() {
        const END: &str = "  sha256 00ff\n  open until 2026-11-23T09:27:59.445Z\n";
        for (arguments, expected) in [
            (r#"{"command":"ls -l"}"#, "  command: ls -l\n"),
            (r#"{"command":"ls\nrm x","timeout_seconds":5}"#, "  command:\n  | ls\n  | rm x\n  timeout_seconds: 5\n"),
            (r#"{"content":"a\n  path: b\n","path":"c"}"#, "  content:\n  | a\n  |   path: b\n  | \n  path: c\n"),
            (r#"{"x":{"y":["\u001b[2J"]}}"#, "  x: {\"y\":[\"\\u001b[2J\"]}\n"),
            (r#""text""#, "  arguments: \"text\"\n"),
            ("{}", ""),
            (
                r#"{"command":"ls \u001b[8m; rm x\r\u202e\u200b\u00a0\u0000"}"#,
                "  command: ls <U+001B>[8m; rm x<U+000D><U+202E><U+200B><U+00A0><U+0000>\n  note: <U+…> stands for what cannot be \
                 seen: 6 characters\n",
            ),
            (
                r#"{"a\nb: c":"d\te"}"#,
                "  a<U+000A>b: c: d\te\n  note: <U+…> stands for what cannot be seen: 1 character\n",
            ),
        ] {
            assert_eq!(whole(&request("bash", arguments)), format!("a1-1-1: bash\n{expected}{END}"), "{arguments}");
        }
        let long = format!("{{\"command\":\"{}; rm x\"}}", " ".repeat(100_000));
        assert!(whole(&request("bash", &long)).contains(" ; rm x\n"), "nothing is cut");
        assert!(short(&request("bash", &long)).ends_with("… (96006 more)"), "what is cut is said to be");
    }
}
