//! The example agents run as they are: their folders are copied unchanged into a workspace made by `duragent init`, and the
//! binary is used as their READMEs say. Their model is the transcript beside them; one test talks to a model server.

mod stage;

use duragent_core::json::{self, Value};
use duragent_testkit::{Answer, Fake};
use stage::{Stage, examples, field, text};
use std::fs;

const AGENTS: [&str; 3] = ["assistant", "gateway-watcher", "note-keeper"];

/// Most bytes of the first request, head included: on a small board reading the prompt is what people wait for.
const FIRST_REQUEST_BYTES_MAX: usize = 6000;

fn owned(calls: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    calls
        .iter()
        .map(|(name, effect, arguments)| (name.to_string(), effect.to_string(), arguments.to_string()))
        .collect()
}

#[test]
fn every_example_is_tested_here_and_passes_the_check_without_a_warning() {
    let mut found: Vec<String> = fs::read_dir(examples())
        .expect("the folder of examples")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    found.sort();
    assert_eq!(found, AGENTS);
    for agent in AGENTS {
        let stage = Stage::new(agent);
        stage.duragent(&["check"]).check(0, "configuration ok\n");
        stage.with_transcript().duragent(&["check"]).check(0, "configuration ok\n");
    }
}

#[test]
fn the_commands_in_the_readmes_name_what_is_there() {
    for agent in AGENTS {
        let readme = fs::read_to_string(examples().join(agent).join("README.md")).expect("a README");
        assert!(readme.contains(&format!("duragent run {agent} ")), "{agent}: how it is run");
        assert!(readme.contains("transcript.jsonl"), "{agent}: what the transcript is");
    }
}

#[test]
fn init_writes_the_assistant_of_the_examples() {
    let stage = Stage::new("note-keeper");
    for file in ["agent.yaml", "SYSTEM_PROMPT.md"] {
        let written = fs::read(stage.workspace().join("agents/assistant").join(file)).expect("written by init");
        assert_eq!(written, fs::read(examples().join("assistant").join(file)).expect("an example"), "{file}");
    }
}

#[test]
fn the_assistant_looks_around_and_asks_before_it_writes() {
    let stage = Stage::new("assistant").with_transcript();
    stage.run("what is in this folder?").check(0, "This folder holds a workspace, .duragent.\n");
    assert_eq!(stage.started(), owned(&[("list_dir", "pure", r#"{"path":"."}"#)]));
    assert_eq!(stage.results(), [(".duragent/\n".to_owned(), None)]);

    let asks = stage.run("make a file hello.txt");
    asks.check(4, "");
    assert!(asks.stderr.contains("hint: duragent approve s a2-1-1"), "{}", asks.stderr);
    assert_eq!(stage.file("hello.txt"), None, "nothing is written before somebody approves");
    let requested = stage.events("approval_requested");
    assert_eq!(requested.iter().map(|e| text(e, "name")).collect::<Vec<_>>(), ["write_file"]);
    // Whoever comes back without a decision is told the same again.
    assert_eq!(stage.duragent(&["run", "assistant", "--resume", "s"]).code, Some(4));

    let approved = stage.duragent(&["approve", "s"]);
    assert_eq!(approved.code, Some(0), "{}", approved.stderr);
    assert!(approved.stdout.ends_with("I made hello.txt.\n"), "{}", approved.stdout);
    assert_eq!(stage.file("hello.txt").as_deref(), Some("hello\n"));
    assert_eq!(stage.events("approval_decided").iter().map(|e| text(e, "decision")).collect::<Vec<_>>(), ["grant"]);
    let reasons: Vec<String> = stage.events("turn_finished").iter().map(|e| text(e, "reason")).collect();
    assert_eq!(reasons, ["completed", "completed"]);
    assert_eq!(stage.duragent(&["approve", "s"]).code, Some(1), "there is nothing left to approve");
}

#[test]
fn the_gateway_watcher_is_refused_a_command_that_writes() {
    const READ: &str = r#"{"command":"cat /proc/loadavg"}"#;
    const WRITE: &str = r#"{"command":"uptime > report.txt"}"#;
    let stage = Stage::new("gateway-watcher").with_transcript();
    stage.run("how is this machine?").check(0, "The load is normal. I cannot write a report file.\n");
    assert_eq!(stage.started(), owned(&[("bash", "once", READ)]));
    let results = stage.results();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0].1, None);
    assert_eq!(results[0].0.split_whitespace().count(), 5, "/proc/loadavg has five fields: {results:?}");
    assert_eq!(results[1], ("refused by policy".to_owned(), Some("policy".to_owned())));
    assert_eq!(stage.events("tool_finished").iter().filter(|e| e.get("denied").is_some()).count(), 1);
    assert_eq!(stage.events("approval_requested").len(), 0, "nobody is asked");
    assert_eq!(stage.file("report.txt"), None);

    // The control: it is the policy that refused it, and the command does write.
    let control = Stage::new("gateway-watcher").with_transcript();
    control.edit("agents/gateway-watcher/policy.yaml", |text| text.replace("mode: deny", "mode: allow"));
    control.edit("policy.yaml", |text| text.replace("mode: ask", "mode: allow"));
    assert_eq!(control.run("how is this machine?").code, Some(0));
    assert_eq!(control.started(), owned(&[("bash", "once", READ), ("bash", "once", WRITE)]));
    assert!(control.file("report.txt").is_some(), "{:?}", control.results());
}

/// What the watcher's policy says of commands, beyond the one in its transcript.
#[test]
fn the_gateway_watcher_runs_what_its_prompt_names_and_nothing_like_it() {
    const ALLOWED: [&str; 5] =
        ["cat /sys/class/thermal/thermal_zone0/temp", "cat /proc/meminfo", "df -h", "tail -n 1 log.txt", "uptime"];
    const REFUSED: [&str; 7] = [
        "tail -n 1 log.txt; touch x",
        "tail -n 1 -f log.txt",
        "tail -n 1 log.txt --follow",
        "cat /sys/class/thermal/../../../etc/passwd",
        "cat log.txt",
        "df -h > x",
        "echo x",
    ];
    let call =
        |command: &&str| format!(r#"{{"tool_calls":[{{"name":"bash","arguments":{{"command":"{command}"}}}}]}}"#);
    let mut transcript: Vec<String> = ALLOWED.iter().chain(&REFUSED).map(call).collect();
    transcript.push(r#"{"deltas":["done"]}"#.to_owned());
    let stage = Stage::new("gateway-watcher").with_transcript();
    stage.edit("agents/gateway-watcher/transcript.jsonl", |_| transcript.join("\n"));
    // One call a step, so more steps than the agent takes by itself.
    stage.edit("agents/gateway-watcher/agent.yaml", |text| {
        text.replace("max_tool_iterations: 8", "max_tool_iterations: 50")
    });
    fs::write(stage.folder.join("log.txt"), "line\n").expect("a log");
    stage.run("try them").check(0, "done\n");
    let ran: Vec<String> =
        stage.events("tool_started").iter().map(|e| text(field(e, "arguments"), "command")).collect();
    assert_eq!(ran, ALLOWED);
    let refusals: Vec<_> = stage.results().into_iter().filter_map(|(_, denied)| denied).collect();
    assert_eq!(refusals, ["policy"; REFUSED.len()]);
}

#[test]
fn the_note_keeper_writes_and_finds_notes_and_asks_before_it_writes_elsewhere() {
    let stage = Stage::new("note-keeper").with_transcript();
    stage.run("note: the boiler was serviced today").check(0, "Noted in notes/boiler.md.\n");
    assert_eq!(stage.file("notes/boiler.md").as_deref(), Some("# Boiler\n\n- serviced today\n"));
    stage.run("it is loud again").check(0, "Added to notes/boiler.md.\n");
    assert_eq!(stage.file("notes/boiler.md").as_deref(), Some("# Boiler\n\n- serviced today\n- loud again\n"));
    let answer = "The boiler: it is loud again (notes/boiler.md).\n";
    stage.run("what do you know about the boiler?").check(0, answer);
    let started = stage.started();
    let called: Vec<(&str, &str)> = started.iter().map(|(name, effect, _)| (name.as_str(), effect.as_str())).collect();
    let expected =
        [("list_dir", "pure"), ("write_file", "idempotent"), ("edit_file", "idempotent"), ("search_files", "pure")];
    assert_eq!(called, expected);

    stage.run("put milk on my list todo.md").check(4, "");
    let denied = stage.duragent(&["deny", "s"]);
    assert_eq!(denied.code, Some(0), "{}", denied.stderr);
    assert!(denied.stdout.ends_with("I left todo.md alone.\n"), "{}", denied.stdout);
    assert_eq!(stage.file("todo.md"), None);
    assert_eq!(stage.results().pop().and_then(|(_, denied)| denied).as_deref(), Some("approval"));

    // The control: the same call, approved, does write.
    let control = Stage::new("note-keeper").with_transcript();
    for prompt in ["note: the boiler was serviced today", "it is loud again", "what do you know about the boiler?"] {
        assert_eq!(control.run(prompt).code, Some(0));
    }
    assert_eq!(control.run("put milk on my list todo.md").code, Some(4));
    control.duragent(&["approve", "s"]);
    assert_eq!(control.file("todo.md").as_deref(), Some("- milk\n"));
}

#[test]
fn the_assistant_talks_to_a_model_server_and_its_first_request_is_small() {
    let model = Fake::ollama()
        .answer(Answer::call("list_dir", r#"{"path":"."}"#).usage(900, 20, 0))
        .answer(Answer::text("A workspace.").usage(950, 5, 0));
    let stage = Stage::new("assistant").with_variable("OLLAMA_HOST", model.address().to_string());
    stage.run("hello").check(0, "A workspace.\n");

    let calls = model.calls();
    let first = &calls[0];
    assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/api/chat"));
    let bytes = first.head.len() + first.body.len();
    assert!(bytes <= FIRST_REQUEST_BYTES_MAX, "the first request has {bytes} bytes");
    let body = json::parse(&first.body).expect("JSON");
    assert_eq!(text(&body, "model"), "qwen3:1.7b");
    assert_eq!(field(field(&body, "options"), "num_ctx").as_u64(), Some(8192));
    assert_eq!(field(&body, "stream").to_string(), "true");
    assert_eq!(text(&body, "keep_alive"), "10m");
    let tools: Vec<String> = items(&body, "tools").iter().map(|tool| text(field(tool, "function"), "name")).collect();
    assert_eq!(tools, ["bash", "edit_file", "list_dir", "read_file", "search_files", "write_file"]);
    let prompt = fs::read_to_string(examples().join("assistant/SYSTEM_PROMPT.md")).expect("a prompt");
    assert_eq!(said(&body), [("system".to_owned(), prompt.trim().to_owned()), ("user".to_owned(), "hello".to_owned())]);

    let second = json::parse(&calls[1].body).expect("JSON");
    let said = said(&second);
    assert_eq!(said.last(), Some(&("tool".to_owned(), ".duragent/\n".to_owned())));
    let last = items(&second, "messages").last().expect("a message");
    assert_eq!(text(last, "tool_name"), "list_dir");
    let usage = field(&stage.events("turn_finished")[0], "usage").to_string();
    assert_eq!(usage, r#"{"input_tokens":1850,"output_tokens":25}"#);
}

fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    match field(object, name) {
        Value::Array(items) => items,
        other => panic!("expected a list, found {other}"),
    }
}

/// Role and content of every message of a request.
fn said(body: &Value) -> Vec<(String, String)> {
    items(body, "messages").iter().map(|message| (text(message, "role"), text(message, "content"))).collect()
}
