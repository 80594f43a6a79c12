//! The least that an axum server can be: what our front door is measured beside (`cargo xtask bench`).
//!
//! Job: the same routes with the same bodies, on tokio's threads as many as there are cores (its default). A message is one
//! line appended to the session's file, with an fdatasync before the answer. Events go through one broadcast channel.
//!
//! Absent: everything else that makes a server. No limits, deadlines, tokens, turns, replay or checksums; nobody should take it
//! for an example.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast::{self, Sender, error::RecvError};

/// Events that wait for a slow subscriber: as many as ours.
const BACKLOG_ITEMS_MAX: usize = 512;

const USAGE: &str = "usage: duragent-peer-axum ADDRESS FOLDER SESSION_BYTES";

/// What all requests share.
struct Shared {
    folder: PathBuf,
    /// Length of what a session is shown as.
    session_bytes: usize,
    sessions: Mutex<HashMap<String, Arc<Mutex<Session>>>>,
    events: Sender<Arc<str>>,
}

/// One session's file.
struct Session {
    file: File,
    seq: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder, bytes] = args.as_slice() else { return failed(USAGE) };
    let Ok(session_bytes) = bytes.parse() else { return failed(USAGE) };
    let shared = Arc::new(Shared {
        folder: folder.into(),
        session_bytes,
        sessions: Mutex::default(),
        events: broadcast::channel(BACKLOG_ITEMS_MAX).0,
    });
    let run = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match run.and_then(|runtime| runtime.block_on(serve(address, shared))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

async fn serve(address: &str, shared: Arc<Shared>) -> io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/api/v1/sessions/{id}", get(show))
        .route("/api/v1/sessions/{id}/messages", post(append))
        .route("/api/v1/sessions/{id}/events", get(follow))
        .route("/publish", post(publish))
        .with_state(shared);
    let listener = tokio::net::TcpListener::bind(address).await?;
    // As ours does it: small answers do not wait for the acknowledgement of the one before.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // It cannot fail on a new socket.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes).await
}

/// What a session is shown as.
#[derive(Serialize)]
struct Shown {
    id: String,
    agent: &'static str,
    title: Option<&'static str>,
    status: &'static str,
    last_seq: u64,
    turns: u64,
    usage: Usage,
    /// Makes it as long as ours.
    detail: String,
}

#[derive(Serialize)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
}

async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Shown>, StatusCode> {
    let usage = Usage { input_tokens: 40, output_tokens: 25 };
    let (agent, status) = ("instant", "idle");
    let mut shown = Shown { id, agent, title: None, status, last_seq: 6, turns: 1, usage, detail: String::new() };
    // Everything but the filler and the id, whose length is the caller's.
    const FIXED: usize = r#"{"id":"","agent":"instant","title":null,"status":"idle","last_seq":6,"turns":1,"usage":{"input_tokens":40,"output_tokens":25},"detail":""}"#.len();
    let filler = shared.session_bytes.checked_sub(FIXED + shown.id.len());
    shown.detail = "x".repeat(filler.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?);
    Ok(Json(shown))
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at: &'a str,
    r#type: &'a str,
    turn: u64,
    source: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
struct Accepted {
    seq: u64,
    turn: u64,
}

async fn append(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Json(message): Json<Message>,
) -> Result<(StatusCode, Json<Accepted>), StatusCode> {
    let appended = tokio::task::spawn_blocking(move || shared.append(&id, &message.content)).await;
    match appended {
        Ok(Ok(seq)) => Ok((StatusCode::ACCEPTED, Json(Accepted { seq, turn: seq }))),
        Ok(Err(_)) | Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl Shared {
    /// Appends a line and syncs it.
    fn append(&self, id: &str, content: &str) -> io::Result<u64> {
        let session = self.session(id)?;
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.seq += 1;
        let seq = session.seq;
        let at = "2026-11-22T12:41:13.201Z";
        let line = Line { seq, at, r#type: "message_received", turn: seq, source: "http", content };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        session.file.write_all(&text)?;
        session.file.sync_data()?;
        Ok(seq)
    }

    fn session(&self, id: &str) -> io::Result<Arc<Mutex<Session>>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(id) {
            return Ok(Arc::clone(session));
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = OpenOptions::new().append(true).create(true).open(self.folder.join(id))?;
        let session = Arc::new(Mutex::new(Session { file, seq: 0 }));
        sessions.insert(id.to_owned(), Arc::clone(&session));
        Ok(session)
    }
}

#[derive(Deserialize)]
struct Publish {
    data: String,
    count: usize,
}

/// Sends an event to all subscribers, so many times.
async fn publish(State(shared): State<Arc<Shared>>, Json(publish): Json<Publish>) -> StatusCode {
    for _ in 0..publish.count {
        // An error means that nobody listens.
        let _ = shared.events.send(publish.data.as_str().into());
    }
    StatusCode::NO_CONTENT
}

async fn follow(State(shared): State<Arc<Shared>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events =
        stream::unfold((shared.events.subscribe(), 0_u64), async |(mut events, seq)| match events.recv().await {
            Ok(data) => Some((Ok(Event::default().id(seq.to_string()).event("token").data(&*data)), (events, seq + 1))),
            // Whoever lags is dropped, as by ours.
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        });
    Sse::new(events).keep_alive(KeepAlive::default())
}
