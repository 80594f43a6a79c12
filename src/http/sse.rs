//! Server-sent events (WHATWG HTML section 9.2): one event, one write.
//!
//! A durable event is `id:` its seq, `event:` its type, `data:` its log line. Tokens carry no id, so that a client that
//! comes back with its last id misses nothing and gets nothing twice.

use super::io::{Io, Lost};
use super::json::object;
use super::response::Wire;
use super::shared::Shared;
use crate::session::Follow;
use crate::session::api::Published;
use duragent_core::json::Reader;
use std::pin::pin;
use std::time::Instant;

/// Buffer bytes that are kept between events; what a large event took is given back.
const BUFFER_BYTES_MAX: usize = 4096;

/// Room for the size of a chunk: eight hex digits and CR LF, filled in when the size is known.
const SIZE: &[u8; 10] = b"00000000\r\n";

/// Streams `follow`, with a comment after so much silence: until its end, the end of the turn `until`, or until the client goes, which is an error.
pub(super) async fn stream(
    io: &mut Io,
    mut follow: Follow,
    until: Option<u64>,
    shared: &Shared,
    wire: Wire,
) -> Result<(), Lost> {
    let mut frame = Frame { out: head(wire), chunked: wire.minor >= 1 };
    if wire.head_only {
        return io.write(&frame.out).await;
    }
    frame.text(&["retry: 1000\n\n"]);
    io.write(&frame.out).await?;
    loop {
        let mut next = pin!(follow.next());
        let item = loop {
            frame.clear();
            match io.attend(next.as_mut(), Instant::now() + shared.limits().ping_time_max).await {
                Ok(item) => break item,
                Err(Lost::Late) => frame.text(&[": ping\n\n"]),
                Err(Lost::Closed) => return Err(Lost::Closed),
            }
            io.write(&frame.out).await?;
        };
        let last = match item {
            Some(item) => {
                shared.meter.event();
                frame.item(&item) || until.is_some_and(|turn| finishes(&item, turn))
            }
            None => true,
        };
        if last {
            frame.end();
        }
        io.write(&frame.out).await?;
        if last {
            return Ok(());
        }
    }
}

fn head(wire: Wire) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(if wire.minor >= 1 { b"HTTP/1.1 200 OK\r\n" } else { b"HTTP/1.0 200 OK\r\n" });
    head.extend_from_slice(b"Server: duragent\r\nContent-Type: text/event-stream\r\n");
    head.extend_from_slice(b"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n");
    if wire.minor >= 1 {
        head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if wire.close || wire.minor == 0 {
        head.extend_from_slice(b"Connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// True if `item` says that `turn` came to rest.
fn finishes(item: &Published, turn: u64) -> bool {
    match item {
        Published::Event { kind, line, .. } if kind == "turn_finished" => turn_of(line) == Some(turn),
        _ => false,
    }
}

fn turn_of(line: &str) -> Option<u64> {
    let mut reader = Reader::new(line);
    reader.begin_object().ok()?;
    let mut first = true;
    while let Some(key) = reader.key(&mut first).ok()? {
        if key == "turn" {
            return reader.u64().ok();
        }
        reader.raw().ok()?;
    }
    None
}

/// What is written at once.
struct Frame {
    out: Vec<u8>,
    chunked: bool,
}

impl Frame {
    fn clear(&mut self) {
        self.out.clear();
        self.out.shrink_to(BUFFER_BYTES_MAX);
    }

    /// Adds an item. True if it is the last.
    fn item(&mut self, item: &Published) -> bool {
        match item {
            Published::Event { seq, kind, line } => {
                self.text(&["id: ", &seq.to_string(), "\nevent: ", kind, "\ndata: ", line, "\n\n"]);
                false
            }
            Published::Token { turn, step, text, thinking } => {
                let data = object(|json| {
                    json.u64("turn", *turn).u64("step", *step).str("text", text);
                    if *thinking {
                        json.bool("thinking", true);
                    }
                });
                self.text(&["event: token\ndata: ", &data, "\n\n"]);
                false
            }
            // Browsers drop events without data.
            Published::Lagged => {
                self.text(&["event: lagged\ndata: {}\n\n"]);
                true
            }
            Published::Shutdown => {
                self.text(&["event: shutdown\ndata: {}\n\n"]);
                true
            }
        }
    }

    /// Adds text, as one chunk if the connection is chunked.
    fn text(&mut self, parts: &[&str]) {
        let start = self.out.len();
        if self.chunked {
            self.out.extend_from_slice(SIZE);
        }
        for part in parts {
            self.out.extend_from_slice(part.as_bytes());
        }
        if self.chunked {
            let mut size = self.out.len() - start - SIZE.len();
            let digits = self.out.iter_mut().skip(start).take(SIZE.len() - 2).rev();
            for digit in digits {
                *digit = b"0123456789abcdef".get(size & 15).copied().unwrap_or(b'0');
                size >>= 4;
            }
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Adds the end of the body.
    fn end(&mut self) {
        if self.chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, finishes};
    use crate::session::api::Published;

    #[test]
    fn a_chunk_knows_its_size() {
        let mut frame = Frame { out: b"head".to_vec(), chunked: true };
        frame.text(&["0123456789", "abcdefgh"]);
        frame.end();
        assert_eq!(String::from_utf8_lossy(&frame.out), "head00000012\r\n0123456789abcdefgh\r\n0\r\n\r\n");
    }

    #[test]
    fn only_the_end_of_the_turn_ends_its_stream() {
        let event = |kind: &str, line: &str| Published::Event { seq: 1, kind: kind.into(), line: line.into() };
        assert!(finishes(&event("turn_finished", r#"{"seq":1,"x":{"turn":9},"turn":2}"#), 2));
        assert!(!finishes(&event("turn_finished", r#"{"seq":1,"turn":1}"#), 2));
        assert!(!finishes(&event("turn_started", r#"{"seq":1,"turn":2}"#), 2));
        assert!(!finishes(&event("turn_finished", "x"), 2));
    }
}
