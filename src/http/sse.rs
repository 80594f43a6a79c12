//! Server-sent events (WHATWG HTML section 9.2): one event, one write, from where the event is in memory.
//!
//! A durable event is `id:` its seq, `event:` its type, `data:` its log line. Tokens carry no id, so that a client that
//! comes back with its last id misses nothing and gets nothing twice.

use super::api::Stream;
use super::io::{Io, Lost};
use super::response::Wire;
use super::shared::Shared;
use super::stream::Body;
use crate::session::api::Published;
use duragent_core::json::Reader;
use std::pin::pin;
use std::time::Instant;

/// Proxies neither keep events back nor change them.
const FIELDS: &str = "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n";

/// Streams events, with a comment after so much silence: until their end, the end of the turn that is asked for, or until
/// the client goes, which is an error.
pub(super) async fn stream(io: &mut Io, stream: Stream, shared: &Shared, wire: Wire) -> Result<(), Lost> {
    let Stream { mut follow, until, _place } = stream;
    let mut body = Body::begin(io, "text/event-stream", FIELDS, wire).await?;
    if wire.head_only {
        return Ok(());
    }
    body.send(&["retry: 1000\n\n"], "", "").await?;
    loop {
        let mut next = pin!(follow.next());
        let item = loop {
            match body.io().attend(next.as_mut(), Instant::now() + shared.limits().ping_time_max).await {
                Ok(item) => break item,
                Err(Lost::Late) => body.send(&[": ping\n\n"], "", "").await?,
                Err(Lost::Closed) => return Err(Lost::Closed),
            }
        };
        let Some(item) = item else { return body.end().await };
        shared.meter.event();
        match &*item {
            Published::Event { seq, kind, line } => {
                body.send(&["id: ", &seq.to_string(), "\nevent: ", kind, "\ndata: "], line, "\n\n").await?;
            }
            Published::Token { data } => body.send(&["event: token\ndata: "], data, "\n\n").await?,
            // Browsers drop events without data.
            Published::Lagged => body.send(&["event: lagged\ndata: {}\n\n"], "", "").await?,
            Published::Shutdown => body.send(&["event: shutdown\ndata: {}\n\n"], "", "").await?,
        }
        if until.is_some_and(|turn| finishes(&item, turn)) {
            return body.end().await;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::finishes;
    use crate::session::api::Published;

    #[test]
    fn only_the_end_of_the_turn_ends_its_stream() {
        let event = |kind: &str, line: &str| Published::Event { seq: 1, kind: kind.into(), line: line.into() };
        assert!(finishes(&event("turn_finished", r#"{"seq":1,"x":{"turn":9},"turn":2}"#), 2));
        assert!(!finishes(&event("turn_finished", r#"{"seq":1,"turn":1}"#), 2));
        assert!(!finishes(&event("turn_started", r#"{"seq":1,"turn":2}"#), 2));
        assert!(!finishes(&event("turn_finished", "x"), 2));
    }
}
