//! A model server that answers at once, in Ollama's wire format: what is left of a turn over it is the price of HTTP.

use crate::failure::{Result, doing};
use crate::scene::PIECES;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;

/// A request as it came over the wire.
pub struct Asked {
    /// Up to the empty line.
    pub head: String,
    /// What follows it.
    pub body: Vec<u8>,
}

/// Starts it for the rest of the run: a thread that listens, and one for each connection, which stays open. What it is asked
/// goes to `kept`.
pub fn start(kept: Option<Sender<Asked>>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(doing("listening as a model"))?;
    let address = listener.local_addr().map_err(doing("listening as a model"))?;
    let answer = answer();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, kept) = (answer.clone(), kept.clone());
            thread::spawn(move || serve(stream, &answer, kept.as_ref()));
        }
    });
    Ok(address)
}

/// Head and body of every answer.
fn answer() -> Vec<u8> {
    let mut body = String::new();
    for piece in PIECES {
        body.push_str(&format!(
            "{{\"model\":\"m\",\"message\":{{\"role\":\"assistant\",\"content\":{piece:?}}},\"done\":false}}\n"
        ));
    }
    body.push_str(
        "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\
         \"prompt_eval_count\":40,\"eval_count\":25}\n",
    );
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
}

/// Answers until the connection ends.
fn serve(stream: TcpStream, answer: &[u8], kept: Option<&Sender<Asked>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let (mut length, mut head) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if kept.is_some() {
                head.push_str(&line);
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        if let Some(kept) = kept {
            kept.send(Asked { head, body: body.clone() }).ok()?;
        }
        reader.get_mut().write_all(answer).ok()?;
    }
}
