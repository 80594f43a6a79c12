//! A model server that does what it is told to by the message that it answers, and fails when the weather is bad. It keeps
//! nothing of what it was asked, so that an hour of it costs no memory.
//!
//! It speaks Ollama's API: `/api/show` and `/api/chat`.

use crate::Json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server that hangs keeps its client waiting.
const HANG: Duration = Duration::from_millis(1500);
/// Pause between the pieces of an answer.
const PIECE_PAUSE: Duration = Duration::from_millis(2);

/// What may be wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// Nobody listens.
    Away,
    /// 429 with `Retry-After`.
    Busy,
    /// 529.
    Overloaded,
    /// 500.
    Broken,
    /// Takes the request and says nothing for a while.
    Hangs,
    /// Ends the connection in the middle of an answer.
    Cut,
}

impl Weather {
    /// All that is bad.
    pub const BAD: [Self; 6] = [Self::Away, Self::Busy, Self::Overloaded, Self::Broken, Self::Hangs, Self::Cut];

    fn of(byte: u8) -> Self {
        Self::BAD.into_iter().find(|weather| *weather as u8 == byte).unwrap_or(Self::Fair)
    }
}

/// The server.
pub struct Model {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    weather: AtomicU8,
    answers: AtomicU64,
    failures: AtomicU64,
    ended: AtomicBool,
    /// Connections by their numbers.
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Model {
    /// Starts it.
    pub fn start() -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("the model: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("the model: {error}"))?;
        let shared = Arc::new(Shared {
            weather: AtomicU8::new(Weather::Fair as u8),
            answers: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || serving.listen(listener, address));
        Ok(Self { address, shared })
    }

    /// From now on it is like this.
    pub fn weather(&self, weather: Weather) {
        self.shared.weather.store(weather as u8, Ordering::SeqCst);
        if weather == Weather::Away {
            self.shared.hang_up();
            // Wakes the one that accepts, so that it sees that nobody is to listen.
            drop(TcpStream::connect(self.address));
        }
    }

    /// Answers given and refused so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.answers.load(Ordering::Relaxed), self.shared.failures.load(Ordering::Relaxed))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.weather(Weather::Away);
    }
}

impl Shared {
    fn weather(&self) -> Weather {
        Weather::of(self.weather.load(Ordering::SeqCst))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang_up(&self) {
        for (_, stream) in self.open().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn listen(self: Arc<Self>, listener: TcpListener, address: SocketAddr) {
        let (mut listener, mut number) = (Some(listener), 0);
        while !self.ended.load(Ordering::SeqCst) {
            if self.weather() == Weather::Away {
                // Closed: whoever connects is refused.
                listener = None;
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            if listener.is_none() {
                // Connections of before may keep the port for a moment.
                listener = TcpListener::bind(address).ok();
            }
            let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            number += 1;
            self.open().extend(stream.try_clone().map(|stream| (number, stream)));
            let serving = Arc::clone(&self);
            thread::spawn(move || {
                // Whoever asked hears it when the connection ends.
                let _ = serving.serve(stream);
                serving.open().remove(&number);
            });
        }
    }

    /// Answers until the connection ends.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
            loop {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let text = line.trim_end();
                if path.is_empty() {
                    path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                } else if text.is_empty() {
                    break;
                } else if let Some(value) = text.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.answer(reader.get_mut(), &path, &String::from_utf8_lossy(&body))?;
        }
    }

    fn answer(&self, stream: &mut TcpStream, path: &str, body: &str) -> std::io::Result<()> {
        let weather = self.weather();
        let refusal = match weather {
            Weather::Busy => Some("429 Too Many Requests\r\nRetry-After: 1"),
            Weather::Overloaded => Some("529 Overloaded"),
            Weather::Broken => Some("500 Internal Server Error"),
            Weather::Hangs => {
                let until = Instant::now() + HANG;
                while Instant::now() < until && self.weather() == Weather::Hangs {
                    thread::sleep(Duration::from_millis(50));
                }
                Some("503 Service Unavailable")
            }
            _ => None,
        };
        if let Some(status) = refusal {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return stream.write_all(
                format!("HTTP/1.1 {status}\r\nContent-Length: 16\r\n\r\n{{\"error\":\"away\"}}").as_bytes(),
            );
        }
        if path != "/api/chat" {
            let shown = "{\"model_info\":{\"m.context_length\":8192},\"capabilities\":[\"completion\",\"tools\"]}";
            let length = shown.len();
            return stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{shown}").as_bytes());
        }
        let pieces = pieces(&Json::parse(body).unwrap_or(Json::Null));
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        for (i, piece) in pieces.iter().enumerate() {
            if weather == Weather::Cut && i + 1 == pieces.len() {
                self.failures.fetch_add(1, Ordering::Relaxed);
                return stream.shutdown(Shutdown::Both);
            }
            stream.write_all(format!("{:x}\r\n{piece}\n\r\n", piece.len() + 1).as_bytes())?;
            thread::sleep(PIECE_PAUSE);
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"0\r\n\r\n")
    }
}

/// The lines of an answer: calls of `bash` if the last message is of the user and holds `sh: COMMAND`, as many as there are
/// lines of that kind; else words.
fn pieces(request: &Json) -> Vec<String> {
    let last = request.at("messages").items().last().cloned().unwrap_or(Json::Null);
    let content = last.at("content").str().unwrap_or_default();
    let commands: Vec<&str> = content.lines().filter_map(|line| line.strip_prefix("sh: ")).collect();
    let message =
        |inside: &str| format!("{{\"model\":\"m\",\"message\":{{\"role\":\"assistant\",{inside}}},\"done\":false}}");
    let mut out = Vec::new();
    if last.at("role").str() == Some("user") && !commands.is_empty() {
        for command in commands {
            let command = command.replace('\\', "\\\\").replace('"', "\\\"");
            out.push(message(&format!(
                "\"content\":\"\",\"tool_calls\":[{{\"function\":{{\"name\":\"bash\",\"arguments\":{{\"command\":\"{command}\"}}}}}}]"
            )));
        }
    } else {
        for word in ["The pressure ", "fell below ", "two bar; ", "check the ", "valve."] {
            out.push(message(&format!("\"content\":\"{word}\"")));
        }
    }
    out.push(
        "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\
         \"prompt_eval_count\":40,\"eval_count\":25}"
            .to_owned(),
    );
    out
}
