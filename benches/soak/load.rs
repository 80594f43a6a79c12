//! What goes on for an hour: people who talk, watch, fork and leave; tools that flood; a provider that fails; an operator who
//! rotates and reloads. Everything that is acknowledged is kept to be looked for afterwards.

use crate::house::Server;
use duragent_testkit::weather::{Model, Weather};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// People who talk at the same time.
const TALKERS: u64 = 4;
/// Turns after which a session is closed and another begun.
const SESSION_TURNS_MAX: u64 = 40;
/// The same where sessions never leave memory: so there are soon many.
const LEAK_TURNS_MAX: u64 = 3;
/// Watchers who come at once.
const WATCHERS: usize = 12;
/// One round of fair weather and foul.
const FAIR: Duration = Duration::from_secs(7);
const FOUL: Duration = Duration::from_millis(1800);

/// A message that the server said it has.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub session: String,
    pub seq: u64,
    pub mark: String,
}

/// What the load keeps of itself.
#[derive(Default)]
pub struct Kept {
    pub acknowledged: Mutex<Vec<Acknowledged>>,
    /// What should not have happened: answers that are wrong, not those that are refused.
    pub wrong: Mutex<Vec<String>>,
    pub turns: AtomicU64,
    pub floods: AtomicU64,
    pub attaches: AtomicU64,
    pub outages: AtomicU64,
    pub reloads: AtomicU64,
    pub rotations: AtomicU64,
    pub forks: AtomicU64,
    pub sessions: AtomicU64,
    pub refused: AtomicU64,
    ended: AtomicBool,
}

/// xorshift64*: the same seed, the same choices.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// What is shared by all who take part.
pub struct Stage<'s> {
    pub server: &'s Server,
    pub model: &'s Model,
    pub folder: &'s Path,
    pub kept: &'s Kept,
    pub seed: u64,
    /// Watchers never leave: what the judge has to find.
    pub leak: bool,
}

impl Kept {
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    pub fn wrong(&self, what: String) {
        let mut list = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        // The first few say it all.
        if list.len() < 20 {
            list.push(what);
        }
    }

    fn count(&self, what: &AtomicU64) {
        what.fetch_add(1, Ordering::Relaxed);
    }

    /// Sleeps, unless it is over.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.goes_on() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// Everything at once, until [`Kept::end`].
pub fn run(stage: &Stage<'_>) {
    thread::scope(|scope| {
        for number in 0..TALKERS {
            scope.spawn(move || Talker::new(stage, number).run());
        }
        scope.spawn(|| watch(stage));
        scope.spawn(|| weather(stage));
        scope.spawn(|| operate(stage));
    });
    stage.model.weather(Weather::Fair);
}

struct Talker<'s> {
    stage: &'s Stage<'s>,
    number: u64,
    dice: Dice,
    session: String,
    turns: u64,
    said: u64,
    begun: u64,
}

impl<'s> Talker<'s> {
    fn new(stage: &'s Stage<'s>, number: u64) -> Self {
        let dice = Dice::new(stage.seed + number);
        Self { stage, number, dice, session: String::new(), turns: 0, said: 0, begun: 0 }
    }

    fn run(mut self) {
        let turns_max = if self.stage.leak { LEAK_TURNS_MAX } else { SESSION_TURNS_MAX };
        while self.stage.kept.goes_on() {
            if self.session.is_empty() || self.turns >= turns_max {
                self.leave();
                self.begin();
                continue;
            }
            let dice = self.dice.below(100);
            self.said += 1;
            let mark = format!("t{}-{}", self.number, self.said);
            let commands = match dice {
                0..50 => String::new(),
                50..70 => format!("\nsh: echo {mark} >> once.log"),
                // More than goes to the model, and more than an artifact may have.
                70..80 => "\nsh: head -c 300000 /dev/zero | tr '\\\\0' x".to_owned(),
                80..88 => "\nsh: i=0; while [ $i -lt 12 ]; do sleep 0.1 & i=$((i+1)); done; wait".to_owned(),
                88..94 => "\nsh: seq 1 500\nsh: seq 1 40000\nsh: echo a\nsh: echo b".to_owned(),
                _ => "\nsh: head -c 200000 /dev/urandom; sleep 0.05; echo end >&2; exit 3".to_owned(),
            };
            if dice >= 70 {
                self.stage.kept.count(&self.stage.kept.floods);
            }
            let wait = self.dice.below(4) > 0;
            self.say(&mark, &commands, wait);
        }
        self.leave();
    }

    /// Says something; whether the turn is waited for or not, what is acknowledged is kept.
    fn say(&mut self, mark: &str, commands: &str, wait: bool) {
        let Stage { server, kept, .. } = self.stage;
        let content = format!("mark {mark} and some words to fill the window of a model with{commands}");
        let content = content.replace('\\', "\\\\").replace('\n', "\\n");
        let query = if wait { "?wait=20" } else { "" };
        let path = format!("/api/v1/sessions/{}/messages{query}", self.session);
        match server.ask("POST", &path, &format!("{{\"content\":\"{content}\"}}")) {
            Ok((status @ (200 | 202), body)) => {
                self.turns += 1;
                kept.count(&kept.turns);
                let Some(seq) = body.at("seq").u64() else {
                    return kept.wrong(format!("{status} without a seq: {body:?}"));
                };
                let acknowledged = Acknowledged { session: self.session.clone(), seq, mark: mark.to_owned() };
                kept.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(acknowledged);
            }
            // Too many at work, too many waiting: told, and tried again.
            Ok((409 | 429 | 503, _)) => {
                kept.count(&kept.refused);
                kept.rest(Duration::from_millis(100));
            }
            Ok((status, body)) => kept.wrong(format!("POST {path}: {status} {body:?}")),
            Err(error) => {
                kept.wrong(format!("POST {path}: {error}"));
                kept.rest(Duration::from_millis(200));
            }
        }
    }

    fn begin(&mut self) {
        let Stage { server, kept, .. } = self.stage;
        self.begun += 1;
        let id = format!("s{}-{}", self.number, self.begun);
        match server.ask("POST", "/api/v1/sessions", &format!("{{\"agent\":\"worker\",\"id\":\"{id}\"}}")) {
            Ok((201, _)) => {
                kept.count(&kept.sessions);
                (self.session, self.turns) = (id, 0);
            }
            Ok((429 | 503, _)) => {
                kept.count(&kept.refused);
                self.begun -= 1;
                kept.rest(Duration::from_millis(100));
            }
            found => kept.wrong(format!("a session {id}: {found:?}")),
        }
    }

    /// Closes the session; before that, now and then, forks it and closes the fork.
    fn leave(&mut self) {
        let Stage { server, kept, leak, .. } = self.stage;
        if self.session.is_empty() || *leak {
            self.session.clear();
            return;
        }
        if self.dice.below(2) == 0 {
            let path = format!("/api/v1/sessions/{}/fork", self.session);
            if let Ok((201, body)) = server.ask("POST", &path, "{}") {
                kept.count(&kept.forks);
                let fork = body.at("id").str().unwrap_or_default().to_owned();
                self.delete(&fork);
            }
        }
        let session = std::mem::take(&mut self.session);
        self.delete(&session);
    }

    fn delete(&self, session: &str) {
        let Stage { server, kept, .. } = self.stage;
        match server.ask("DELETE", &format!("/api/v1/sessions/{session}"), "") {
            // A turn may be under way still.
            Ok((200 | 202 | 204 | 409 | 503, _)) => {}
            found => kept.wrong(format!("DELETE {session}: {found:?}")),
        }
    }
}

/// Those who watch: they come in a crowd, read a little, and most go without a word.
fn watch(stage: &Stage<'_>) {
    let (kept, mut dice) = (stage.kept, Dice::new(stage.seed ^ 0xa77ac4));
    let mut never_leave = Vec::new();
    while kept.goes_on() {
        let known = kept.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
        let Some(last) = known else {
            kept.rest(Duration::from_millis(200));
            continue;
        };
        let mut crowd = Vec::new();
        for _ in 0..=dice.below(WATCHERS as u64) {
            let after = if dice.below(2) == 0 { 0 } else { last.seq };
            let Ok(mut stream) = TcpStream::connect(stage.server.address) else { continue };
            let request = format!(
                "GET /api/v1/sessions/{}/events?after={after} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
                last.session
            );
            let sent = stream
                .set_read_timeout(Some(Duration::from_millis(300)))
                .and_then(|()| stream.write_all(request.as_bytes()));
            if sent.is_ok() {
                kept.count(&kept.attaches);
                crowd.push(stream);
            }
        }
        let until = Instant::now() + Duration::from_millis(200 + dice.below(800));
        let mut bytes = [0; 4096];
        while kept.goes_on() && Instant::now() < until {
            // Some never read: what they are sent waits for them, and must not wait for ever.
            for stream in crowd.iter_mut().step_by(2) {
                let _ = stream.read(&mut bytes);
            }
            thread::sleep(Duration::from_millis(20));
        }
        if stage.leak && never_leave.len() < 40 {
            never_leave.append(&mut crowd);
        }
    }
    // Until it is judged.
    if !never_leave.is_empty() {
        std::mem::forget(never_leave);
    }
}

/// The provider fails in every way, one after the other.
fn weather(stage: &Stage<'_>) {
    let kept = stage.kept;
    for weather in Weather::BAD.into_iter().cycle() {
        kept.rest(FAIR);
        if !kept.goes_on() {
            break;
        }
        stage.model.weather(weather);
        kept.count(&kept.outages);
        kept.rest(FOUL);
        stage.model.weather(Weather::Fair);
    }
}

/// Somebody who looks after it: reads lists and metrics, rotates the log file, reloads.
fn operate(stage: &Stage<'_>) {
    let (kept, server, mut dice) = (stage.kept, stage.server, Dice::new(stage.seed ^ 0x09e7a7e));
    while kept.goes_on() {
        kept.rest(Duration::from_millis(500));
        let session =
            kept.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).last().map(|last| last.session.clone());
        let Some(session) = session else { continue };
        match dice.below(6) {
            0 => {
                let log = stage.folder.join(".duragent/duragent.log");
                // As logrotate does it. The server may be about to rotate it itself.
                let _ = std::fs::rename(&log, stage.folder.join("rotated.log"));
                if let Err(error) = server.signal("USR1") {
                    kept.wrong(error);
                }
                kept.count(&kept.rotations);
            }
            1 => {
                match server.ask("POST", "/api/admin/v1/reload", "") {
                    Ok((200 | 202 | 204 | 503, _)) => {}
                    found => kept.wrong(format!("reload: {found:?}")),
                }
                kept.count(&kept.reloads);
            }
            2 => look(stage, &format!("/api/v1/sessions/{session}/messages")),
            3 => look(stage, &format!("/api/v1/sessions/{session}/events?follow=false")),
            4 => look(stage, "/api/v1/sessions?limit=100"),
            _ => look(stage, "/metrics"),
        }
    }
}

fn look(stage: &Stage<'_>, path: &str) {
    match stage.server.get(path) {
        Ok((200 | 503, _)) => {}
        found => stage.kept.wrong(format!("GET {path}: {found:?}")),
    }
}
