//! A server that speaks as much of Ollama's own API as a turn needs, keeps what it is sent, and answers as the test says.

use crate::house::PATIENCE;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it answers with.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Text, and the turn is over.
    Say(&'static str),
    /// One call: name and arguments.
    Call(&'static str, String),
    /// 503.
    Busy,
    /// Nothing, for as long as the client waits.
    Hang,
}

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Asked {
    pub body: String,
    /// Bytes of head and body together.
    pub bytes: usize,
}

/// A model that gives one answer to each request, in order, and then says `Done.`
pub struct Model {
    /// For `OLLAMA_HOST`.
    pub address: String,
    asked: Receiver<Asked>,
}

impl Model {
    pub fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, asked) = channel();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, sender, answers) = (stream.expect("a connection"), sender.clone(), Arc::clone(&answers));
                let next = move || answers.lock().expect("answers").next().unwrap_or(Answer::Say("Done."));
                thread::spawn(move || serve(stream, &sender, &next));
            }
        });
        Self { address, asked }
    }

    /// The next request for an answer that came.
    pub fn asked(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).expect("a request of the agent")
    }

    /// All that came and nobody asked about.
    pub fn rest(&self) -> usize {
        self.asked.try_iter().count()
    }
}

/// Answers until the connection ends.
fn serve(stream: TcpStream, sender: &Sender<Asked>, next: &dyn Fn() -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (line, request) = read(&mut reader)?;
        let out = reader.get_mut();
        if !line.starts_with("POST /api/chat ") {
            // What else Ollama is asked for is not known here.
            out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}").ok()?;
            continue;
        }
        sender.send(request).ok()?;
        match next() {
            Answer::Busy => {
                let head =
                    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n";
                out.write_all([head, r#"{"error":"busy"}"#].concat().as_bytes()).ok()?;
            }
            Answer::Hang => {
                out.read_exact(&mut [0]).ok()?;
            }
            Answer::Say(text) => frames(out, &format!(r#"{{"role":"assistant","content":"{text}"}}"#))?,
            Answer::Call(name, arguments) => {
                let call = format!(r#"{{"function":{{"name":"{name}","arguments":{arguments}}}}}"#);
                frames(out, &format!(r#"{{"role":"assistant","content":"","tool_calls":[{call}]}}"#))?;
            }
        }
    }
}

/// The head's first line, and the request.
fn read(reader: &mut BufReader<TcpStream>) -> Option<(String, Asked)> {
    let (mut line, mut bytes, mut length) = (String::new(), 0, 0);
    loop {
        let mut header = String::new();
        bytes += Some(reader.read_line(&mut header).ok()?).filter(|count| *count > 0)?;
        if line.is_empty() {
            line = header.trim_end().to_owned();
        } else if header.trim_end().is_empty() {
            break;
        } else if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((line, Asked { bytes: bytes + body.len(), body: String::from_utf8(body).ok()? }))
}

fn frames(out: &mut TcpStream, message: &str) -> Option<()> {
    let last = r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":900,"eval_count":20}"#;
    let body = format!("{{\"message\":{message},\"done\":false}}\n{last}\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    out.write_all(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).ok()
}
