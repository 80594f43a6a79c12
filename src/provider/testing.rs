//! A server on loopback that says what a test tells it to, faults included, and a request to ask with.

use super::http::{Client, Settings, Timeouts};
use super::{Delta, Failure, Message, Provider, Reply, Request};
use duragent_core::tool::{EffectClass, PolicyArgument, Tags, ToolDecl};
use duragent_platform::cancel::Cancel;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One thing a server does with a request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Sends these bytes as they are.
    Send(Vec<u8>),
    /// Waits.
    Pause(Duration),
    /// Says nothing more until the client goes away.
    Hang,
    /// Closes the connection.
    Close,
}

/// A running server; its threads end with the connections.
pub(super) struct Server {
    pub(super) url: String,
    log: Arc<Mutex<Vec<String>>>,
    asides: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Does `scripts[n]` with the request number n, whichever connection it comes on, and the last one ever after. What
    /// Ollama is asked besides is not counted: it is not found.
    pub(super) fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::with_asides(vec![("/api/show", answer(404, "", "")), ("/api/ps", answer(404, "", ""))], scripts)
    }

    /// As [`Server::start`]; requests to these paths get these answers, and are not counted.
    pub(super) fn with_asides(answers: Vec<(&'static str, Vec<u8>)>, scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (log, asides) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let connections = Arc::new(AtomicUsize::new(0));
        let served = Arc::new(Served { log: Arc::clone(&log), asides: Arc::clone(&asides), answers, scripts });
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let served = Arc::clone(&served);
                thread::spawn(move || serve(stream.unwrap(), &served));
            }
        });
        Self { url, log, asides, connections }
    }

    /// Answers every request with `bytes`.
    pub(super) fn always(bytes: Vec<u8>) -> Self {
        Self::start(vec![vec![Act::Send(bytes)]])
    }

    /// The requests so far: head and body as text.
    pub(super) fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The paths of what was asked besides.
    pub(super) fn asides(&self) -> Vec<String> {
        self.asides.lock().unwrap().clone()
    }

    /// The body of the last request.
    pub(super) fn last_body(&self) -> String {
        let requests = self.requests();
        requests.last().unwrap().split_once("\r\n\r\n").unwrap().1.to_string()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn client(&self, timeouts: Timeouts) -> Client {
        client(&self.url, timeouts)
    }
}

/// A client without key, headers or anything else.
pub(super) fn client(url: &str, timeouts: Timeouts) -> Client {
    Client::new(&Settings::new(url, timeouts)).unwrap()
}

struct Served {
    log: Arc<Mutex<Vec<String>>>,
    asides: Arc<Mutex<Vec<String>>>,
    answers: Vec<(&'static str, Vec<u8>)>,
    scripts: Vec<Vec<Act>>,
}

fn serve(mut stream: TcpStream, served: &Served) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream) {
        let path = request.split(' ').nth(1).unwrap_or_default().to_string();
        if let Some((_, answer)) = served.answers.iter().find(|(known, _)| *known == path) {
            served.asides.lock().unwrap().push(path);
            drop(stream.write_all(answer));
            continue;
        }
        let number = {
            let mut log = served.log.lock().unwrap();
            log.push(request);
            log.len() - 1
        };
        for act in &served.scripts[number.min(served.scripts.len() - 1)] {
            match act {
                // The client may be gone: that is what some tests are about.
                Act::Send(bytes) => drop(stream.write_all(bytes)),
                Act::Pause(time) => thread::sleep(*time),
                Act::Hang => drop(stream.read_to_end(&mut Vec::new())),
                Act::Close => return,
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

/// An answer with a length.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The head of a chunked answer.
pub(super) fn chunked_head(content_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes()
}

/// One chunk.
pub(super) fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// A whole chunked answer.
pub(super) fn chunked(content_type: &str, pieces: &[&str]) -> Vec<u8> {
    let mut bytes = chunked_head(content_type);
    for piece in pieces {
        bytes.extend(chunk(piece));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// An address that nothing listens on.
pub(super) fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub(super) fn tool(name: &str) -> ToolDecl {
    ToolDecl {
        name: name.into(),
        description: format!("the \"{name}\" tool"),
        parameters: r#"{"type":"object"}"#.into(),
        effect: EffectClass::Once,
        policy: PolicyArgument::Whole,
        tags: Tags::default(),
    }
}

pub(super) fn user(content: &str) -> Message {
    Message::User { content: content.into() }
}

pub(super) fn request(messages: Vec<Message>, tools: Vec<ToolDecl>) -> Request {
    Request {
        model: "tiny".into(),
        system: "Be brief.".into(),
        messages,
        tools,
        temperature: None,
        max_output_tokens: None,
        context_tokens: 8192,
    }
}

/// One message, one tool.
pub(super) fn simple_request() -> Request {
    request(vec![user("hello")], vec![tool("bash")])
}

/// What a call showed live, pieces separated by `|` and thinking marked, and what came of it.
pub(super) fn ask(provider: &dyn Provider, request: &Request) -> (String, Result<Reply, Failure>) {
    let mut shown = Vec::new();
    let result = provider.complete(request, &Cancel::new(), &mut |delta| shown.push(show(delta)));
    (shown.join("|"), result)
}

/// A delta as text, thinking in brackets.
pub(super) fn show(delta: Delta<'_>) -> String {
    match delta {
        Delta::Text(text) => text.to_string(),
        Delta::Thinking(text) => format!("[{text}]"),
        Delta::Status(text) => format!("<{text}>"),
    }
}

/// A reply in one line: thinking, text, calls, usage, finish reason.
pub(super) fn line(reply: &Reply) -> String {
    let calls: Vec<String> =
        reply.tool_calls.iter().map(|call| format!("{}{}{}", call.call_id, call.name, call.arguments)).collect();
    let thinking = reply.thinking.as_ref().map_or(String::new(), |t| format!("[{t}]"));
    let usage = reply.usage;
    format!(
        "{thinking}{} <{}> {}+{} {}",
        reply.text,
        calls.join(" "),
        usage.input_tokens,
        usage.output_tokens,
        reply.finish_reason
    )
}

/// `kind: detail` of a failure, without the host.
pub(super) fn told(failure: &Failure) -> String {
    let detail = match failure.detail.split_once(": ") {
        Some((host, rest)) if host.contains("127.0.0.1") => rest,
        _ => &failure.detail,
    };
    format!("{}: {detail}", failure.kind.as_str())
}

/// A stream of lines or events cut into pieces in every way worth trying: whole, in two at every byte, byte by byte.
pub(super) fn all_cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuts: Vec<Vec<&[u8]>> = (1..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]).collect();
    cuts.push(vec![bytes]);
    cuts.push(bytes.chunks(1).collect());
    cuts
}
