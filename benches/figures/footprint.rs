//! What the first request of the default agent weighs. On a small board the model reads it for seconds before it says a word.

use crate::failure::{Failure, Result, at, doing, fail};
use crate::ollama::{self, Asked};
use crate::scene::Place;
use crate::table::{Aim, Row};
use duragent_core::json::{self, Value};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

/// What is said to the agent.
const MESSAGE: &str = "hello";

/// Figure 15: `duragent init`, a message, and what the model server is sent.
pub fn first_request(place: &Place) -> Result<Vec<Row>> {
    let folder = place.folder()?;
    // What is said to those who work on this repository is not the agent's.
    fs::create_dir(folder.join(".git")).map_err(at(&folder))?;
    let (sender, asked) = channel();
    let model = ollama::start(Some(sender))?.to_string();
    for args in [&["init"][..], &["run", "assistant", MESSAGE]] {
        let mut command = Command::new(&place.binary);
        command.args(args).current_dir(&folder).env("OLLAMA_HOST", &model).env_remove("DURAGENT_DIR");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.map_err(at(&place.binary))?;
        if !status.success() {
            return fail(format!("duragent {}: {status}", args.join(" ")));
        }
    }
    let asked = asked.try_iter().find(|asked| asked.head.starts_with("POST /api/chat "));
    let Asked { head, body } = asked.ok_or_else(|| Failure("the model was not asked".to_owned()))?;
    let text = std::str::from_utf8(&body).map_err(at(Path::new("the first request")))?;
    let request = json::parse(text).map_err(doing("reading the first request"))?;
    let messages = list(&request, "messages")?;
    let parts: Vec<usize> = messages.iter().map(|message| message.to_string().len()).collect();
    let [system, message] = parts[..] else { return fail(format!("expected two messages, found {}", parts.len())) };
    let tools: usize = list(&request, "tools")?.iter().map(|tool| tool.to_string().len() + 1).sum();
    let row = |name: &str, bytes: usize, aim| Row::one(name, bytes as f64, "bytes", aim);
    Ok(vec![
        row("first request of the default agent, on the wire", head.len() + body.len(), Aim::AtMost(6000.0)),
        row("of it: head", head.len(), Aim::Shown),
        row("of it: system prompt", system, Aim::Shown),
        row("of it: six tools", tools, Aim::Shown),
        row("of it: the message", message, Aim::Shown),
    ])
}

fn list<'v>(object: &'v Value, name: &str) -> Result<&'v [Value]> {
    match object.get(name) {
        Some(Value::Array(items)) => Ok(items),
        _ => fail(format!("the first request has no list {name:?}")),
    }
}
