//! A server that speaks as much of Ollama's own API as one turn needs: `POST /api/chat`, answered in JSON lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far above anything that works; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Asked {
    /// `POST /api/chat HTTP/1.1`
    pub line: String,
    pub body: String,
    /// Bytes of head and body together.
    pub bytes: usize,
}

/// A model that gives one answer a request, in order.
pub struct Ollama {
    /// For `OLLAMA_HOST`.
    pub address: String,
    asked: Receiver<Asked>,
}

impl Ollama {
    /// Each of `answers` is the frames of one answer.
    pub fn start(answers: &'static [&'static [&'static str]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, asked) = channel();
        // Ends with the test's process if nobody connects.
        thread::spawn(move || {
            let mut answers = answers.iter();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                // One connection may carry several requests.
                while let Some(request) = read(&mut stream) {
                    if request.line.contains("/api/show") {
                        stream.write_all(SHOWN.as_bytes()).expect("what the model is");
                        continue;
                    }
                    let frames = answers.next().expect("an answer for every request");
                    write(&mut stream, frames);
                    sender.send(request).expect("the test waits for it");
                }
            }
        });
        Self { address, asked }
    }

    /// The next request that came.
    pub fn asked(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).expect("a request of the agent")
    }
}

/// What a model can do, as it is asked for before the first call.
const SHOWN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 83\r\n\r\n\
{\"capabilities\":[\"completion\",\"tools\"],\"model_info\":{\"qwen3.context_length\":40960}}";

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut bytes, mut length) = (String::new(), 0, None);
    loop {
        let mut header = String::new();
        match reader.read_line(&mut header) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes += n,
        }
        if line.is_empty() {
            line = header.trim_end().to_owned();
        } else if header.trim_end().is_empty() {
            break;
        } else if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.expect("a request of known length")];
    reader.read_exact(&mut body).expect("the whole body");
    bytes += body.len();
    Some(Asked { line, body: String::from_utf8(body).expect("UTF-8"), bytes })
}

/// Every frame is a chunk and a write of its own, as Ollama streams.
fn write(stream: &mut TcpStream, frames: &[&str]) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head");
    for frame in frames {
        let chunk = format!("{:x}\r\n{frame}\n\r\n", frame.len() + 1);
        stream.write_all(chunk.as_bytes()).expect("a frame");
    }
    stream.write_all(b"0\r\n\r\n").expect("the end");
}
