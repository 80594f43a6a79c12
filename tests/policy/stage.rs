//! A workspace with a policy and a recorded model, and a few ways to ask about it.

use super::house::{House, until};
use duragent::http::client::Client;
use duragent_core::json::{self, ObjectWriter, Value};
use std::fs;
use std::os::unix::net::UnixStream;

/// An answer that asks for these calls: tool and arguments.
pub fn calls(list: &[(&str, &str)]) -> String {
    let call = |(name, arguments): &(&str, &str)| format!("{{\"name\":\"{name}\",\"arguments\":{arguments}}}");
    format!("{{\"tool_calls\":[{}]}}\n", list.iter().map(call).collect::<Vec<_>>().join(","))
}

/// An answer that asks for one shell command.
pub fn bash(command: &str) -> String {
    calls(&[("bash", &command_json(command))])
}

/// Arguments of `bash`.
pub fn command_json(command: &str) -> String {
    let mut out = String::new();
    let mut object = ObjectWriter::new(&mut out);
    object.str("command", command);
    object.finish();
    out
}

/// An answer that ends a turn.
pub fn says(text: &str) -> String {
    format!("{{\"deltas\":[\"{text}\"]}}\n")
}

/// A workspace with this policy, whose agent plays `tape` and has all tools.
pub fn stage(policy: &str, tape: &str) -> House {
    let house = House::new(tape);
    house.write(".duragent/policy.yaml", policy);
    house.write(
        ".duragent/agents/bot/agent.yaml",
        "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: bot}\nspec:\n  model: {provider: tape, name: m}\n  \
         tools: [bash, read_file, list_dir, write_file]\n",
    );
    house.write("secret.txt", "the secret\n");
    house
}

/// Sets a limit of the workspace.
pub fn limit(house: &House, limit: &str) {
    let file = house.dir().join("duragent.yaml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, format!("{text}limits: {{{limit}}}\n")).expect("the configuration");
}

/// Asks the server: status and body.
pub fn ask(house: &House, method: &str, path: &str, body: &str) -> (u16, Value) {
    let socket = house.dir().join("duragent.sock");
    let client = Client::new(Box::new(move || UnixStream::connect(&socket)));
    let answer = client.request(method, path, &[("Content-Type", "application/json")], body.as_bytes());
    let answer = answer.expect("the server answers");
    (answer.status, json::parse(std::str::from_utf8(&answer.body).expect("UTF-8")).expect("JSON"))
}

/// What waits for a decision.
pub fn waiting(house: &House, session: &str) -> Vec<Value> {
    let (status, answer) = ask(house, "GET", &format!("/api/v1/sessions/{session}/approvals"), "");
    assert_eq!(status, 200, "{answer}");
    match answer.get("approvals") {
        Some(Value::Array(list)) => list.clone(),
        _ => panic!("{answer}"),
    }
}

/// Decides on an approval over HTTP: the status.
pub fn decide(house: &House, session: &str, approval: &str, body: &str) -> u16 {
    ask(house, "POST", &format!("/api/v1/sessions/{session}/approvals/{approval}"), body).0
}

/// Waits until the session does this.
pub fn until_is(house: &House, session: &str, status: &str) {
    until(&format!("{session} to be {status}"), || {
        let (_, now) = ask(house, "GET", &format!("/api/v1/sessions/{session}"), "");
        (text(&now, "status") == status).then_some(())
    });
}

/// The events of this type.
pub fn events(house: &House, session: &str, kind: &str) -> Vec<Value> {
    let parsed = house.log(session).lines().map(|line| json::parse(line).expect("JSON")).collect::<Vec<_>>();
    parsed.into_iter().filter(|event| text(event, "type") == kind).collect()
}

/// The shell commands that ran, in order.
pub fn ran(house: &House, session: &str) -> Vec<String> {
    let commands = events(house, session, "tool_started");
    let commands = commands.iter().filter(|event| text(event, "name") == "bash");
    commands.map(|event| text(event.get("arguments").expect("arguments"), "command")).collect()
}

/// A field as text; empty if it is not there.
pub fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// SHA-256 of the exact call, as docs/formats.md has it.
pub fn digest(name: &str, arguments: &str) -> String {
    let hash = hmac_sha256::Hash::hash(&[name.as_bytes(), b"\0", arguments.as_bytes()].concat());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
