//! What is kept of sessions, and what is removed, as the configuration says.
//!
//! Invariants: nothing is removed that nobody asked to have removed. A session goes only if it is at rest: no turn, nothing that
//! waits, no pause, no client that follows it, not in memory, its log whole, its lease to be had; and not if it has an event
//! of today, which budgets have to know. While the clock is not to be believed, everything is kept.
//!
//! Absent: how files go ([`crate::store::file`]), and damaged sessions, which are for people to look at.

use super::api::{ApiError, Status};
use super::registry::is_open;
use super::runtime::Runtime;
use super::tally::Count;
use super::views;
use crate::store::StoreError;
use crate::store::file::{Artifact, FileStore};
use duragent_core::session::{DAY_MS, State};
use duragent_platform::clock;
use duragent_platform::log::{self, Level, Value};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two rounds: what has to go after days may take an hour.
const ROUND: Duration = Duration::from_secs(3600);
/// Before the first: whoever starts a server wants it to answer.
const FIRST: Duration = Duration::from_secs(60);
/// Between two removals: others want the disk too.
const PACE: Duration = Duration::from_millis(20);
/// An event may be so much later than the time at which it is looked at.
const SLACK_MS: u64 = 60_000;
/// A clock that moves by more than that between two rounds, beside the time that has passed, is waited for.
const JUMP_MS: u64 = 3_600_000;

/// What is kept; 0 is everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Days that a closed session is kept.
    pub closed_days: u64,
    /// Days that any session at rest is kept.
    pub idle_days: u64,
    /// Sessions that are kept.
    pub sessions_max: u64,
    /// Days that artifacts are kept.
    pub artifacts_days: u64,
    /// Bytes of all sessions.
    pub bytes_max: u64,
}

/// A session, as far as it matters here.
struct Seen {
    id: String,
    /// Number of its last event.
    seq: u64,
    closed: bool,
    /// It may go: at rest, and without an event of today.
    may_go: bool,
    rests: bool,
    at_ms: u64,
    bytes: u64,
    artifacts: Vec<Artifact>,
}

/// What is to go of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Going {
    /// The session.
    pub session: String,
    /// Number of its last event; with another one it stays.
    pub seq: u64,
    /// These files of it; all of it if there are none.
    pub artifacts: Vec<Artifact>,
    /// Bytes that are free then.
    pub bytes: u64,
    /// The key that says so.
    pub why: &'static str,
}

impl Going {
    /// Takes it off the disk.
    ///
    /// # Errors
    /// As [`FileStore::remove`].
    pub fn remove(&self, store: &FileStore) -> Result<(), StoreError> {
        match self.artifacts.as_slice() {
            [] => store.remove(&self.session, self.seq),
            files => store.remove_artifacts(&self.session, self.seq, files).map(drop),
        }
    }
}

/// What is to go at `now_ms`, sessions in the order of their ids. Why everything is kept, if the clock is not to be believed.
///
/// # Errors
/// If the sessions cannot be listed.
pub fn plan(store: &FileStore, keep: &Keep, now_ms: u64) -> Result<Result<Vec<Going>, String>, StoreError> {
    if *keep == Keep::default() {
        return Ok(Ok(Vec::new()));
    }
    if !clock::is_set(now_ms) {
        return Ok(Err("the clock is not set".to_owned()));
    }
    let mut seen = Vec::new();
    for id in store.list()? {
        seen.extend(look(store, id, now_ms));
    }
    let late = seen.iter().find(|session| session.at_ms > now_ms.saturating_add(SLACK_MS));
    if let Some(late) = late {
        return Ok(Err(["session ", &late.id, " has an event that is later than the clock"].concat()));
    }
    Ok(Ok(choose(seen, keep, now_ms)))
}

/// A session on disk; `None` if it cannot be read: then it is nobody's to remove.
fn look(store: &FileStore, id: String, now_ms: u64) -> Option<Seen> {
    let taken = store.taken(&id);
    let (status, seq, last_at_ms) = match store.cached(&id) {
        Some(cached) => (Status::parse(&cached.status)?, cached.last_seq, cached.last_at_ms),
        None => {
            let mut state = State::default();
            let found = store.verify(&id, &mut |event| state.apply(&event)).ok()?;
            match views::damage(&found) {
                Some(_) => (Status::Damaged, state.last_seq, state.last_at_ms),
                None => {
                    store.cache(&id, &views::cached(&state));
                    (views::status(&state), state.last_seq, state.last_at_ms)
                }
            }
        }
    };
    let at_ms = last_at_ms.max(taken.at_ms);
    let rests = matches!(status, Status::Idle | Status::Closed);
    if rests && !clock::is_set(at_ms) {
        // It counts from the first time that it is seen by a clock that is set.
        store.date(&id, now_ms);
        return None;
    }
    let may_go = rests && at_ms / DAY_MS < now_ms / DAY_MS;
    let closed = status == Status::Closed;
    Some(Seen { id, seq, closed, may_go, rests, at_ms, bytes: taken.bytes, artifacts: taken.artifacts })
}

fn choose(mut seen: Vec<Seen>, keep: &Keep, now_ms: u64) -> Vec<Going> {
    let old = |at_ms: u64, days: u64| days > 0 && now_ms.saturating_sub(at_ms) >= days.saturating_mul(DAY_MS);
    let mut going = Vec::new();
    let whole = |session: &Seen, why| {
        let (session, seq, bytes) = (session.id.clone(), session.seq, session.bytes);
        Going { session, seq, artifacts: Vec::new(), bytes, why }
    };
    // Quiet for longest first.
    seen.sort_by_key(|session| session.at_ms);
    let mut count = seen.len() as u64;
    let mut bytes: u64 = seen.iter().map(|session| session.bytes).sum();
    let mut sessions_go =
        |seen: &mut Vec<Seen>, bytes: &mut u64, reason: &dyn Fn(&Seen, u64, u64) -> Option<&'static str>| {
            seen.retain(|session| {
                let Some(why) = reason(session, count, *bytes).filter(|_| session.may_go) else { return true };
                going.push(whole(session, why));
                (count, *bytes) = (count - 1, bytes.saturating_sub(session.bytes));
                false
            });
        };
    sessions_go(&mut seen, &mut bytes, &|session, _, _| match session.closed {
        true if old(session.at_ms, keep.closed_days) => Some("closed_days"),
        _ if old(session.at_ms, keep.idle_days) => Some("idle_days"),
        _ => None,
    });
    let crowded = |_: &Seen, count, _| (keep.sessions_max > 0 && count > keep.sessions_max).then_some("sessions_max");
    sessions_go(&mut seen, &mut bytes, &crowded);
    // Artifacts, the oldest of all first.
    let rests = seen.iter().enumerate().filter(|(_, session)| session.rests);
    let mut files: Vec<(usize, Artifact)> =
        rests.flat_map(|(at, session)| session.artifacts.iter().map(move |file| (at, file.clone()))).collect();
    files.sort_by_key(|(_, file)| file.at_ms);
    let mut parts: Vec<Going> = Vec::new();
    for (at, file) in files {
        let why = match () {
            () if clock::is_set(file.at_ms) && old(file.at_ms, keep.artifacts_days) => "artifacts_days",
            () if keep.bytes_max > 0 && bytes > keep.bytes_max => "bytes_max",
            () => continue,
        };
        let Some(session) = seen.get_mut(at) else { continue };
        bytes = bytes.saturating_sub(file.bytes);
        session.bytes = session.bytes.saturating_sub(file.bytes);
        match parts.iter_mut().find(|part| part.session == session.id) {
            Some(part) => {
                part.bytes += file.bytes;
                part.artifacts.push(file);
            }
            None => {
                let (id, seq, freed) = (session.id.clone(), session.seq, file.bytes);
                parts.push(Going { session: id, seq, artifacts: vec![file], bytes: freed, why });
            }
        }
    }
    sessions_go(&mut seen, &mut bytes, &|_, _, bytes| {
        (keep.bytes_max > 0 && bytes > keep.bytes_max).then_some("bytes_max")
    });
    // What goes whole needs not go in parts before.
    parts.retain(|part| !going.iter().any(|whole| whole.session == part.session));
    going.append(&mut parts);
    going.sort_by(|a, b| a.session.cmp(&b.session));
    going
}

impl Runtime {
    /// Removes what is not to be kept, in rounds, for as long as the server lives.
    pub async fn keep_house(self) {
        let (mut before, mut told) = ((Instant::now(), clock::wall_ms()), String::new());
        let mut pause = FIRST;
        loop {
            let keep = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner).keep;
            let timer = async {
                match keep == Keep::default() {
                    true => std::future::pending().await,
                    false => drop(smol::Timer::after(pause).await),
                }
            };
            let woken = async {
                self.shared.tidy.1.recv().await.ok();
            };
            smol::future::or(timer, woken).await;
            pause = ROUND;
            if self.is_draining() {
                return;
            }
            let now = (Instant::now(), clock::wall_ms());
            let passed = u64::try_from(now.0.duration_since(before.0).as_millis()).unwrap_or(u64::MAX);
            let jumped = now.1.abs_diff(before.1.saturating_add(passed)) > JUMP_MS;
            before = now;
            // One that was just moved may be moved again.
            let held = if jumped { Some("the clock was moved".to_owned()) } else { self.round(now.1).await };
            match held {
                Some(why) if why != told => {
                    log::line(Level::Warn, "everything is kept for now", &[&[("why", Value::Text(&why))]]);
                    told = why;
                }
                Some(_) => {}
                None => told.clear(),
            }
        }
    }

    /// One round; why nothing was removed, if something keeps it from that.
    async fn round(&self, now_ms: u64) -> Option<String> {
        let keep = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner).keep;
        let store = self.shared.store.clone();
        let planned = self
            .read(move || {
                store.sweep()?;
                plan(&store, &keep, now_ms)
            })
            .await;
        let going = match planned {
            Ok(Ok(going)) => going,
            Ok(Err(why)) => return Some(why),
            Err(error) => return Some(error.to_string()),
        };
        let (mut sessions, mut artifacts, mut bytes) = (0, 0, 0);
        for one in going {
            if self.is_draining() {
                return None;
            }
            let (whole, files, freed) = (one.artifacts.is_empty(), one.artifacts.len() as u64, one.bytes);
            // What came to life or is in use stays until the next round.
            if self.let_go(one).await.is_ok() {
                sessions += u64::from(whole);
                artifacts += files;
                bytes += freed;
            }
            smol::Timer::after(PACE).await;
        }
        let tally = self.tally();
        tally.counts.add(Count::RetentionRemoved as usize, "session", sessions);
        tally.counts.add(Count::RetentionRemoved as usize, "artifact", artifacts);
        tally.counts.add(Count::RetentionBytes as usize, "", bytes);
        if sessions + artifacts > 0 {
            let about = [("sessions", sessions), ("artifacts", artifacts), ("bytes", bytes)];
            log::line(Level::Info, "removed what is not to be kept", &[&about.map(|(k, v)| (k, Value::Number(v)))]);
        }
        None
    }

    async fn let_go(&self, going: Going) -> Result<(), ApiError> {
        let slot = self.slot(&going.session);
        // Whoever wants it waits, and finds that it is gone.
        let guard = slot.lock().await;
        if is_open(&guard) || self.is_followed(&going.session) {
            return Err(ApiError::Busy(going.session));
        }
        let store = self.shared.store.clone();
        self.write(move || going.remove(&store)).await
    }

    /// True if somebody listens to it.
    fn is_followed(&self, id: &str) -> bool {
        self.shared.hubs().get(id).is_some_and(|hub| Arc::strong_count(hub) > 1)
    }
}

#[cfg(test)]
mod tests;
