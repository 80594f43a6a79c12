//! Server-sent events (WHATWG HTML section 9.2): those that are there at a moment in one write, from where they are in memory.
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
use std::sync::Arc;
use std::time::Instant;

/// Proxies neither keep events back nor change them.
const FIELDS: &str = "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n";

/// Events of one write, and bytes after which there are no more in it: enough to make system calls cheap, little enough for
/// other connections to have their turn.
const BATCH_ITEMS_MAX: usize = 16;
const BATCH_BYTES_MAX: usize = 16 * 1024;

/// Streams events, with a comment after so much silence: until their end, the end of the turn that is asked for, or until
/// the client goes, which is an error.
pub(super) async fn stream(io: &mut Io, stream: Stream, shared: &Shared, wire: Wire) -> Result<(), Lost> {
    let Stream { mut follow, until, _place } = stream;
    let mut body = Body::begin(io, "text/event-stream", FIELDS, wire).await?;
    if wire.head_only {
        return Ok(());
    }
    body.send(&["retry: 1000\n\n"]).await?;
    let is_last = |item: &Published| until.is_some_and(|turn| finishes(item, turn));
    loop {
        let first = {
            let mut next = pin!(follow.next());
            loop {
                match body.io().attend(next.as_mut(), Instant::now() + shared.limits().ping_time_max).await {
                    Ok(item) => break item,
                    Err(Lost::Late) => body.send(&[": ping\n\n"]).await?,
                    Err(Lost::Closed) => return Err(Lost::Closed),
                }
            }
        };
        let Some(first) = first else { return body.end().await };
        let mut last = is_last(&first);
        let (mut bytes, mut batch) = (first.size(), vec![first]);
        while !last && batch.len() < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(item) = follow.ready() else { break };
            last = is_last(&item);
            bytes += item.size();
            batch.push(item);
        }
        send(&mut body, &batch).await?;
        batch.iter().for_each(|_| shared.meter.event());
        if last {
            return body.end().await;
        }
    }
}

async fn send(body: &mut Body<'_>, batch: &[Arc<Published>]) -> Result<(), Lost> {
    let heads: Vec<String> = batch.iter().map(|item| head(item)).collect();
    let parts = batch.iter().zip(&heads).flat_map(|(item, head)| [head.as_str(), data(item), "\n\n"]);
    let parts: Vec<&str> = parts.collect();
    body.send(&parts).await
}

fn head(item: &Published) -> String {
    match item {
        Published::Event { seq, kind, .. } => ["id: ", &seq.to_string(), "\nevent: ", kind, "\ndata: "].concat(),
        Published::Token { .. } => "event: token\ndata: ".into(),
        Published::Status { .. } => "event: status\ndata: ".into(),
        Published::Lagged => "event: lagged\ndata: ".into(),
        Published::Shutdown => "event: shutdown\ndata: ".into(),
    }
}

fn data(item: &Published) -> &str {
    match item {
        Published::Event { line, .. } => line,
        Published::Token { data } | Published::Status { data } => data,
        // Browsers drop events without data.
        Published::Lagged | Published::Shutdown => "{}",
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
