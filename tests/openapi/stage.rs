//! A workspace in which everything can happen that the description tells of, and the server on it.

use duragent_core::event::{Body, Event, Usage};
use duragent_core::line;
use duragent_core::tool::ToolCall;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const TOKEN: &str = "token-of-the-api";
pub const ADMIN_TOKEN: &str = "token-of-the-admin";

/// A running server in a folder of its own; both go when this is dropped.
pub struct Stage {
    pub folder: PathBuf,
    pub url: String,
    server: Child,
}

impl Stage {
    /// `assistant` answers at once, `asker` asks for a call first, which counts as denied after so many seconds, `slow` takes a
    /// minute, `broken` cannot be used. The session `damaged` is, and `lost` belongs to `broken`; `s0` to
    /// `s9` are new.
    pub fn new(name: &str, agents: &[&str], approval_seconds: u64) -> Self {
        let folder = std::env::temp_dir().join(format!("duragent-openapi-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        furnish(&folder.join(".duragent"), agents, approval_seconds);
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(&folder).env_remove("DURAGENT_DIR");
        let mut server = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut log = BufReader::new(server.stderr.take().expect("piped"));
        let (mut text, mut url) = (String::new(), None);
        while !text.ends_with("ready\n") {
            let start = text.len();
            assert!(log.read_line(&mut text).expect("UTF-8") > 0, "the server does not start: {text}");
            let address = text[start..].split("listening on ").nth(1).filter(|a| a.starts_with("127."));
            url = address.map(|address| format!("http://{}", address.trim_end())).or(url);
        }
        // What nobody reads would fill the pipe.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { folder, url: url.expect("an address"), server }
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        write(&self.folder, name, text)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(&path, text).expect("a file");
    path
}

const ASSISTANT: &str = r#"{"deltas":["It ","is."],"usage":{"input_tokens":3,"output_tokens":2}}"#;
const ASKER: &str = r#"{"deltas":["Let me."],"tool_calls":[{"name":"bash","arguments":{"command":"true"}}]}
{"deltas":["Done."]}"#;
const SLOW: &str = r#"{"deltas":["Well."],"delay_ms":60000}"#;

fn furnish(workspace: &Path, agents: &[&str], approval_seconds: u64) {
    let mut config = format!(
        "sandbox: {{mode: trust}}\nserver: {{api_token: {TOKEN}, admin_token: {ADMIN_TOKEN}, body_bytes_max: 65536}}\n\
         limits: {{approval_seconds_max: {approval_seconds}}}\nproviders:\n"
    );
    for agent in agents {
        let transcript = match *agent {
            "asker" => ASKER,
            "slow" => SLOW,
            _ => ASSISTANT,
        };
        let folder = workspace.join("agents").join(agent);
        write(&folder, "transcript.jsonl", &format!("{{\"repeat\":true}}\n{transcript}\n"));
        write(&folder, "SYSTEM_PROMPT.md", "Work.\n");
        let spec = if *agent == "broken" { "apiVersion: duragent/v9\n".to_owned() } else { spec(agent) };
        write(&folder, "agent.yaml", &spec);
        config.push_str(&format!("  {agent}: {{kind: replay, file: agents/{agent}/transcript.jsonl}}\n"));
    }
    write(workspace, "duragent.yaml", &config);
    if agents.contains(&"broken") {
        write(workspace, "sessions/lost/events.jsonl", &log("lost", "broken", usize::MAX));
    }
    for (number, agent) in (0..10).zip(agents.iter().cycle()) {
        let session = format!("s{number}");
        write(workspace, &format!("sessions/{session}/events.jsonl"), &log(&session, agent, 1));
    }
    let damaged = log("damaged", "assistant", usize::MAX).replacen("content\":\"x", "content\":\"y", 1);
    write(workspace, "sessions/damaged/events.jsonl", &damaged);
}

fn spec(name: &str) -> String {
    format!(
        "apiVersion: duragent/v1alpha1\nkind: Agent\n\
         metadata: {{name: {name}, description: For tests, version: \"1.2\", labels: {{'tier \"x\"': gold}}}}\n\
         spec:\n  model: {{provider: {name}, name: recorded, temperature: 0.5, max_output_tokens: 100, \
         base_url: \"http://user:password@127.0.0.1:9/v1\"}}\n  session: {{max_tool_iterations: 7}}\n  tools: [bash]\n"
    )
}

/// The first lines of the log of a session that waits for an approval.
fn log(session: &str, agent: &str, lines: usize) -> String {
    let (agent, session) = (agent.to_owned(), session.to_owned());
    let call = ToolCall { call_id: "c1-1-1".into(), name: "bash".into(), arguments: r#"{"command":"true"}"#.into() };
    let (turn, step) = (1, 1);
    let bodies = [
        Body::SessionCreated { v: 1, session, agent, title: None, parent: None },
        Body::MessageReceived {
            turn,
            source: "http".into(),
            content: "x".into(),
            idempotency_key: None,
            steps_max: None,
        },
        Body::TurnStarted { turn },
        Body::ModelRequested {
            turn,
            step,
            attempt: 1,
            provider: "p".into(),
            model: "m".into(),
            reserved: Usage::default(),
            summary: false,
        },
        Body::ModelResponded {
            turn,
            step,
            text: String::new(),
            thinking: None,
            blocks: None,
            duration_ms: 1,
            tool_calls: vec![call],
            usage: Usage::default(),
            finish_reason: "tool_calls".into(),
        },
        Body::ApprovalRequested {
            approval_id: "a1-1-1".into(),
            call_id: "c1-1-1".into(),
            name: "bash".into(),
            digest: "0".repeat(64),
            expires_at_ms: 4_000_000_000_000,
            reason: None,
        },
    ];
    let (mut out, mut crc) = (String::new(), line::CRC_START);
    for (seq, body) in (1..).zip(bodies).take(lines) {
        crc = line::encode(&Event { seq, at_ms: 1_795_338_074_801, body }, crc, &mut out);
    }
    out
}
