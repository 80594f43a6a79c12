//! A server that speaks as much of OpenAI's chat completions as these tests need, and counts what it is asked.
//!
//! Each turn goes the same way: so many calls of `bash`, one after the other, then an answer.

use duragent_core::json::{self, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How it answers.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Calls of a tool in each turn.
    pub calls: usize,
    /// Tokens of prompt and answer that it says; nothing if `None`.
    pub usage: Option<(u64, u64)>,
    /// How long it takes.
    pub pause: Duration,
    /// What it says that an answer costs, as OpenRouter does.
    pub cost: Option<&'static str>,
    /// False: it takes requests and does not answer before [`Model::go_on`].
    pub answers: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { calls: 0, usage: Some((100, 20)), pause: Duration::ZERO, cost: None, answers: true }
    }
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    moved: Condvar,
}

/// The server.
pub struct Model {
    /// Up to and including `/v1`.
    pub url: String,
    /// What the configuration calls it.
    pub kind: &'static str,
    asked: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

impl Model {
    /// Starts it; it ends with the test's process.
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Gate::default()));
        *gate.open.lock().expect("nobody panicked") = manner.answers;
        let kind = if manner.cost.is_some() { "openrouter" } else { "openai" };
        let model = Self { url, kind, asked: Arc::clone(&asked), gate: Arc::clone(&gate) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
                thread::spawn(move || serve(stream, manner, &asked, &gate));
            }
        });
        model
    }

    /// Requests that came, all in all.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Answers what it holds back, and everything from now on.
    pub fn go_on(&self) {
        *self.gate.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.gate.moved.notify_all();
    }
}

/// One connection, which may carry several requests.
fn serve(mut stream: TcpStream, manner: Manner, asked: &AtomicUsize, gate: &Gate) {
    while let Some(body) = read(&stream) {
        asked.fetch_add(1, Ordering::SeqCst);
        let open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate.moved.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
        thread::sleep(manner.pause);
        // Whoever asked may be dead by now.
        if stream.write_all(answer(&body, manner).as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 {
            return None;
        }
        if header.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn answer(body: &str, manner: Manner) -> String {
    let request = json::parse(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    let Some(Value::Array(messages)) = request.get("messages") else { panic!("no messages in {body}") };
    let role = |message: &&Value| message.get("role").and_then(Value::as_str).map(str::to_owned);
    let results = messages.iter().rev().take_while(|m| role(m).as_deref() != Some("user"));
    let results = results.filter(|m| role(m).as_deref() == Some("tool")).count();
    let (delta, reason) = if results < manner.calls {
        // Each call is another, so that no loop is seen.
        let call = format!(
            r#"{{"index":0,"id":"x{results}","type":"function","function":{{"name":"bash","arguments":"{{\"command\":\"echo {results}\"}}"}}}}"#
        );
        (format!(r#""tool_calls":[{call}]"#), "tool_calls")
    } else {
        (r#""content":"done""#.to_owned(), "stop")
    };
    let mut frames = vec![
        format!(r#"{{"choices":[{{"index":0,"delta":{{"role":"assistant",{delta}}},"finish_reason":null}}]}}"#),
        format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#),
    ];
    if let Some((input, output)) = manner.usage {
        let cost = manner.cost.map(|cost| format!(r#","cost":{cost}"#)).unwrap_or_default();
        frames.push(format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}{cost}}}}}"#,
            input + output
        ));
    }
    frames.push("[DONE]".to_owned());
    let text: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}
