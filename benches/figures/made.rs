//! Sessions written straight to disk, in the words of real conversations: a message, a tool call, its result, an answer.

use crate::failure::{Result, at};
use crate::scene::{MESSAGE, PIECES, go_on};
use duragent::store::file::{Cached, FileStore, LOG_NAME};
use duragent_core::event::{Body, Event, LOG_VERSION, SandboxReport, ToolOutcome, TurnReason, Usage};
use duragent_core::line::{self, CRC_START};
use duragent_core::tool::{EffectClass, Tags, ToolCall};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Events of one turn.
const TURN_EVENTS: u64 = 9;
/// Wall-clock time of the first event, in milliseconds; the rest follow a millisecond apart.
const BEGIN_MS: u64 = 1_790_000_000_000;

/// A session that was made.
pub struct Made {
    /// Events in its log.
    pub events: u64,
    /// Bytes of its log.
    pub bytes: u64,
}

/// Writes a session at rest after `turns` turns of one tool call each. Nothing is synced.
pub fn session(sessions: &Path, id: &str, turns: u64) -> Result<Made> {
    let dir = sessions.join(id);
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    let path = dir.join(LOG_NAME);
    let mut file = BufWriter::new(File::create(&path).map_err(at(&path))?);
    let (mut seq, mut crc, mut bytes, mut text) = (0, CRC_START, 0, String::new());
    let mut put = |body: Body| {
        seq += 1;
        text.clear();
        crc = line::encode(&Event { seq, at_ms: BEGIN_MS + seq, body }, crc, &mut text);
        bytes += text.len() as u64;
        file.write_all(text.as_bytes()).map_err(at(&path))
    };
    put(created(id))?;
    for turn in 1..=turns {
        turn_bodies(turn).into_iter().try_for_each(&mut put)?;
    }
    file.flush().map_err(at(&path))?;
    Ok(Made { events: 1 + turns * TURN_EVENTS, bytes })
}

/// Writes `count` sessions of three turns each, with the summary that a session at rest has beside its log.
pub fn sessions(root: &Path, count: usize) -> Result<()> {
    let store = FileStore::new(root.to_path_buf(), u64::MAX);
    for number in 0..count {
        go_on()?;
        let id = format!("made-{number:04}");
        let made = session(root, &id, 3)?;
        let summary = Cached {
            agent: "instant".into(),
            status: "idle".into(),
            created_at_ms: BEGIN_MS + 1,
            last_at_ms: BEGIN_MS + made.events,
            last_seq: made.events,
            turns: 3,
            ..Cached::default()
        };
        store.cache(&id, &summary);
    }
    Ok(())
}

/// The first event of every log.
pub fn created(session: &str) -> Body {
    Body::SessionCreated { v: LOG_VERSION, session: session.into(), agent: "instant".into(), title: None, parent: None }
}

/// The message that begins a turn.
pub fn message(turn: u64, content: String) -> Body {
    Body::MessageReceived { turn, source: "http".into(), content, idempotency_key: None, steps_max: None }
}

/// A turn with one tool call; texts have about 300 bytes each.
fn turn_bodies(turn: u64) -> [Body; TURN_EVENTS as usize] {
    let usage = Usage { input_tokens: 900, output_tokens: 60, ..Usage::default() };
    let call_id = format!("t{turn}s1c1");
    let arguments = "{\"path\":\"readings/pump-north.csv\"}".to_owned();
    let requested = |step| Body::ModelRequested {
        turn,
        step,
        attempt: 1,
        provider: "ollama".into(),
        model: "qwen3:1.7b".into(),
        reserved: Usage { input_tokens: 1100, output_tokens: 1024, ..Usage::default() },
        summary: false,
    };
    let responded = |step, text: String, tool_calls: Vec<ToolCall>| {
        let finish_reason = "stop".into();
        let (thinking, blocks, duration_ms) = (None, None, 900);
        Body::ModelResponded { turn, step, text, thinking, blocks, tool_calls, usage, finish_reason, duration_ms }
    };
    let call = ToolCall { call_id: call_id.clone(), name: "read_file".into(), arguments: arguments.clone() };
    let sandbox = SandboxReport { backend: "trust".into(), enforcement: "none".into(), landlock_abi: None };
    let result = "00:00,3.1,\"ok\"\n01:00,3.0,\"ok\"\n02:00,1.9,\"stopped\"\n".repeat(6);
    let answer = format!("{}\n\n{}{}", PIECES.concat(), PIECES.concat(), PIECES.concat());
    [
        message(turn, format!("{MESSAGE} {}", PIECES.concat())),
        Body::TurnStarted { turn },
        requested(1),
        responded(1, "Let me look at the readings.".into(), vec![call]),
        Body::ToolStarted {
            call_id: call_id.clone(),
            name: "read_file".into(),
            arguments,
            effect: EffectClass::Pure,
            sandbox,
            tags: Tags::default(),
        },
        Body::ToolFinished {
            call_id,
            outcome: ToolOutcome { result, exit_code: None, duration_ms: 1, ..ToolOutcome::default() },
        },
        requested(2),
        responded(2, answer, Vec::new()),
        Body::TurnFinished { turn, reason: TurnReason::Completed, detail: None, usage },
    ]
}
