//! The registry of live sessions, and everything front ends can ask for.

use super::actor::{Command, Handle};
use super::api::{
    Accepted, AgentInfo, ApiError, Approval, EventPage, Filter, NewMessage, NewSession, Status, Summary, TurnResult,
};
use super::follow::Follow;
use super::hub::Hub;
use super::ledger::{Ledger, Track};
use super::oneshot::{Giver, oneshot};
use super::pages::{Form, Pages};
use super::pool::Pool;
use super::prompt;
use super::registry::{Slot, is_open};
use super::setup::{Agent, Agents, DeviceLimits, Setup};
use super::tally::Tally;
use super::views;
use crate::store::StoreError;
use crate::store::file::FileStore;
use duragent_core::ids;
use duragent_core::session::{InputKind, State};
use duragent_platform::process;
use duragent_platform::reserve::Reserve;
use smol::channel::{self, Receiver, Sender};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

/// Bytes of log lines after which a page of events ends; it is longer by at most one line.
const EVENTS_BYTES_MAX: usize = 64 * 1024;
/// Longest title in characters: a line of a list.
const TITLE_CHARS_MAX: usize = 256;
/// Longest idempotency key in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The runtime. Clones share it.
#[derive(Clone)]
pub struct Runtime {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: FileStore,
    pub(super) agents: RwLock<Agents>,
    pub(super) reload: Box<dyn Fn() -> Result<Agents, String> + Send + Sync>,
    pub(super) limits: Arc<DeviceLimits>,
    pub(super) writers: Pool,
    pub(super) workers: Pool,
    pub(super) readers: Pool,
    pub(super) slots: Mutex<HashMap<String, Slot>>,
    pub(super) hubs: Mutex<HashMap<String, Arc<Hub>>>,
    pub(super) counters: Arc<Tally>,
    pub(super) ledger: Arc<Ledger>,
    /// When memory was given back to the system last.
    pub(super) released: Mutex<Instant>,
    pub(super) ready: AtomicBool,
    pub(super) draining: AtomicBool,
    /// Told when the disk is full.
    pub(super) low: (Sender<()>, Receiver<()>),
    /// Told when it is worth a look what may be removed.
    pub(super) tidy: (Sender<()>, Receiver<()>),
}

impl Runtime {
    /// A runtime whose tasks run on the smol executor. Opens nothing yet: see [`Runtime::recover`].
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { sessions, agents, reload, limits } = setup;
        let reserve = limits.reserve.clone().map(|(path, bytes)| Arc::new(Reserve::new(path, bytes)));
        let shared = Shared {
            store: FileStore::new(sessions, limits.log_segment_bytes_max).with_reserve(reserve),
            agents: RwLock::new(agents),
            reload,
            writers: Pool::new("writer", limits.writers_max, limits.stack_bytes),
            workers: Pool::new("worker", limits.workers_max, limits.stack_bytes),
            counters: Arc::new(Tally::new(limits.slow)),
            readers: Pool::new("reader", limits.readers_max, limits.stack_bytes),
            ledger: Arc::new(Ledger::new(limits.alone)),
            limits: Arc::new(limits),
            slots: Mutex::default(),
            hubs: Mutex::default(),
            released: Mutex::new(Instant::now()),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            low: channel::bounded(1),
            tidy: channel::bounded(1),
        };
        let runtime = Self { shared: Arc::new(shared) };
        runtime.know_tools();
        runtime
    }

    /// Reads the agents anew; a configuration that is wrong keeps the old ones. Live sessions keep theirs until they rest.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] with what is wrong.
    pub async fn reload(&self) -> Result<(), ApiError> {
        let shared = Arc::clone(&self.shared);
        let loaded = self.shared.workers.run(move || (shared.reload)()).await;
        let loaded = loaded.ok_or_else(no_thread)?.map_err(ApiError::Invalid)?;
        *self.shared.agents.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.know_tools();
        self.shared.tidy.0.try_send(()).ok();
        Ok(())
    }

    /// Agents by name, broken ones with their error.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentInfo> {
        let agents = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner);
        let good = agents.good.iter().map(|a| AgentInfo {
            name: a.name.clone(),
            description: a.description.clone(),
            provider: a.rules.model.provider.clone(),
            model: a.rules.model.name.clone(),
            tools: a.rules.tools.iter().map(|t| t.name.clone()).collect(),
            error: None,
        });
        let broken = agents.broken.iter().map(|(name, error)| AgentInfo {
            name: name.clone(),
            error: Some(error.clone()),
            ..AgentInfo::default()
        });
        let mut all: Vec<AgentInfo> = good.collect();
        for one in broken {
            let at = all.partition_point(|other| other.name <= one.name);
            all.insert(at, one);
        }
        all
    }

    /// Makes a session.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] for the agent, [`ApiError::Conflict`] for the id, [`ApiError::Invalid`] for a bad one.
    pub async fn create(&self, new: NewSession) -> Result<Summary, ApiError> {
        let agent = self.agent(&new.agent)?;
        if new.title.as_ref().is_some_and(|t| t.chars().count() > TITLE_CHARS_MAX) {
            return Err(ApiError::Invalid(format!("title: expected at most {TITLE_CHARS_MAX} characters")));
        }
        let session = match new.id {
            Some(id) if ids::is_id(&id) => id,
            Some(id) => return Err(ApiError::Invalid(ids::InvalidId { found: id }.to_string())),
            None => random_id(),
        };
        self.know_budget(&agent).await?;
        self.need_space()?;
        let slot = self.slot(&session);
        let mut guard = slot.lock().await;
        if is_open(&guard) {
            return Err(ApiError::from(&StoreError::Exists(session)));
        }
        self.make_room().await?;
        let (store, id) = (self.shared.store.clone(), session.clone());
        let log = self.write(move || store.create(&id)).await?;
        let kind =
            InputKind::Create { session: session.clone(), agent: agent.name.clone(), title: new.title, parent: None };
        let (reply, answer) = oneshot();
        let first = Command::Input { kind, reply: Some(reply) };
        let state = (State { id: session.clone(), ..State::default() }, Track::default());
        let life = (Arc::clone(&slot), log, 0);
        let handle = self.start(self.hub(&session), agent, state, life, (&session, first));
        *guard = Some(Arc::clone(&handle));
        drop(guard);
        // Answered after the first commit.
        let lost = || ApiError::Internal(format!("session {session:?} was not written"));
        answer.wait().await.ok_or_else(lost)??;
        self.session(&session).await
    }

    /// Sessions that match, in order of id.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn sessions(&self, filter: &Filter) -> Result<Vec<Summary>, ApiError> {
        let store = self.shared.store.clone();
        let ids = self.read(move || store.list()).await?;
        let mut found = Vec::new();
        for id in ids {
            if filter.after.as_ref().is_some_and(|after| id <= *after) {
                continue;
            }
            if found.len() >= filter.limit {
                break;
            }
            // Gone in between, or never acknowledged.
            let Ok(summary) = self.session(&id).await else { continue };
            let agent = filter.agent.as_ref().is_none_or(|a| *a == summary.agent);
            if agent && filter.status.is_none_or(|s| s == summary.status) {
                found.push(summary);
            }
        }
        Ok(found)
    }

    /// One session. Does not bring it into memory.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]. A damaged session is found, with the damage in `detail`.
    pub async fn session(&self, id: &str) -> Result<Summary, ApiError> {
        if let Some(handle) = self.live_now(id)
            && let Some(summary) = ask(&handle, Command::Summary).await
        {
            return Ok(summary);
        }
        let (store, id) = (self.shared.store.clone(), id.to_owned());
        self.read(move || {
            if let Some(summary) = store.cached(&id).and_then(|c| views::from_cached(&id, c)) {
                return Ok(summary);
            }
            let mut state = State::default();
            let found = store.verify(&id, &mut |event| state.apply(&event))?;
            let mut summary = views::summary(&state);
            if let Some(damage) = views::damage(&found) {
                (summary.id, summary.status, summary.detail) = (id, Status::Damaged, Some(damage));
            } else {
                store.cache(&id, &views::cached(&state));
            }
            Ok(summary)
        })
        .await
    }

    /// Takes a message. Durable when this returns.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] for its size, [`ApiError::Conflict`] if the session is closed, [`ApiError::Busy`] if too many
    /// wait, [`ApiError::Damaged`], [`ApiError::Leased`], [`ApiError::DiskFull`].
    pub async fn send(&self, id: &str, message: NewMessage) -> Result<Accepted, ApiError> {
        let max = self.shared.limits.message_bytes_max;
        if message.content.trim().is_empty() || message.content.len() > max {
            let found = message.content.len();
            return Err(ApiError::Invalid(format!("content: expected 1 to {max} bytes of text, found {found}")));
        }
        if message.idempotency_key.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_BYTES_MAX) {
            return Err(ApiError::Invalid(format!("idempotency key: expected 1 to {KEY_BYTES_MAX} bytes")));
        }
        self.need_space()?;
        let NewMessage { content, source, idempotency_key, steps_max } = message;
        let kind = InputKind::Message { content, source, idempotency_key, steps_max };
        let accepted = self.input(id, kind).await?;
        accepted.ok_or_else(|| ApiError::Internal("the message was not placed".to_owned()))
    }

    /// As [`Runtime::send`], and follows the session from the message on: not one token of the answer is missed.
    ///
    /// # Errors
    /// As [`Runtime::send`].
    pub async fn send_and_follow(&self, id: &str, message: NewMessage) -> Result<(Accepted, Follow), ApiError> {
        let hub = self.hub(id);
        let heard = hub.subscribe();
        let before = hub.durable_seq();
        let accepted = self.send(id, message).await?;
        let after = accepted.seq.saturating_sub(1);
        // What came after `before` is heard. Only a message that was sent before lies further back.
        let through = before.max(after);
        Ok((accepted, Follow::new(self.clone(), id.to_owned(), heard, after, through)))
    }

    /// Waits until a turn has come to rest. Dropping the future stops the waiting and nothing else.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such turn.
    pub async fn turn_result(&self, id: &str, turn: u64) -> Result<TurnResult, ApiError> {
        let answer = loop {
            let handle = self.live(id).await?;
            if let Some(answer) = ask(&handle, |reply| Command::Wait { turn, reply }).await {
                break answer?;
            }
            // The session left memory, or its log failed, and is opened again: what is on disk decides.
            self.pace(&handle).await;
        };
        match answer {
            Some(result) => Ok(result),
            None => self.past_turn(id, turn).await,
        }
    }

    /// A turn that only the log remembers.
    async fn past_turn(&self, id: &str, turn: u64) -> Result<TurnResult, ApiError> {
        let (store, session) = (self.shared.store.clone(), id.to_owned());
        let (mut result, mut reply) = (None, String::new());
        let found = self
            .read(move || {
                store.verify(&session, &mut |event| views::find_turn(&event, turn, &mut reply, &mut result))?;
                Ok(result)
            })
            .await?;
        found.ok_or_else(|| ApiError::NotFound(format!("no turn {turn} in session {id:?}")))
    }

    /// Follows a session: everything after seq `after` from the log, then live.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or if it cannot be read.
    pub async fn follow(&self, id: &str, after: u64) -> Result<Follow, ApiError> {
        let hub = self.hub(id);
        let heard = hub.subscribe();
        // Whoever comes back to a paused turn wants it to go on; a session with an unfinished turn is brought to life.
        match self.session(id).await?.status {
            Status::Running | Status::Waiting => drop(self.live(id).await?),
            Status::Paused if self.shared.store.is_full() => {}
            Status::Paused => drop(self.input(id, InputKind::Resume { reason: "attached".to_owned() }).await?),
            Status::Idle | Status::Closed | Status::Damaged => {}
        }
        let through = if self.live_now(id).is_some() {
            hub.durable_seq()
        } else {
            let (store, session) = (self.shared.store.clone(), id.to_owned());
            self.read(move || store.settle(&session)).await?
        };
        Ok(Follow::new(self.clone(), id.to_owned(), heard, after, through))
    }

    /// At most `limit` events after seq `after`, and no more once they come to 64 KiB.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or if it cannot be read.
    pub async fn events(&self, id: &str, after: u64, limit: usize) -> Result<EventPage, ApiError> {
        let through = self.live_now(id).map(|_| self.hub(id).durable_seq());
        let (store, id) = (self.shared.store.clone(), id.to_owned());
        self.read(move || {
            let through = through.map_or_else(|| store.settle(&id), Ok)?;
            let (mut lines, mut last, mut bytes) = (Vec::new(), after, 0);
            store.read(&id, after, through, &mut |seq, line| {
                lines.push(Arc::from(line));
                last = seq;
                bytes += line.len();
                lines.len() < limit && bytes < EVENTS_BYTES_MAX
            })?;
            // A page that is not full ends at the end, or at damage: asked again, it would end there for ever.
            let more = (lines.len() >= limit || bytes >= EVENTS_BYTES_MAX) && last < through;
            Ok(EventPage { lines, next: more.then_some(last) })
        })
        .await
    }

    /// The conversation, `{"messages":[…]}`.
    #[must_use]
    pub fn messages(&self, id: &str) -> Pages {
        Pages::new(self.clone(), id.to_owned(), Form::Messages)
    }

    /// Ends the running turn; its number is the value, `None` if none runs.
    ///
    /// # Errors
    /// [`ApiError::NotFound`].
    pub async fn cancel(&self, id: &str) -> Result<Option<u64>, ApiError> {
        let summary = self.session(id).await?;
        if matches!(summary.status, Status::Idle | Status::Closed | Status::Damaged) {
            return Ok(None);
        }
        match self.input(id, InputKind::Cancel).await {
            Ok(cancelled) => Ok(cancelled.map(|c| c.turn)),
            // It came to rest in between.
            Err(ApiError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes a session; a running turn is cancelled.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if it is closed already.
    pub async fn close(&self, id: &str, by: &str) -> Result<Summary, ApiError> {
        self.input(id, InputKind::Close { reason: format!("closed by {by}") }).await?;
        self.session(id).await
    }

    /// Open approval requests.
    ///
    /// # Errors
    /// [`ApiError::NotFound`].
    pub async fn approvals(&self, id: &str) -> Result<Vec<Approval>, ApiError> {
        loop {
            if self.session(id).await?.status != Status::Waiting && self.live_now(id).is_none() {
                return Ok(Vec::new());
            }
            let handle = self.live(id).await?;
            if let Some(approvals) = ask(&handle, Command::Approvals).await {
                return Ok(approvals);
            }
            self.pace(&handle).await;
        }
    }

    /// The body of the session's next model call, byte for byte, as its provider would send it: for the running turn, else for
    /// the first message that waits, else the conversation as it is. Brings no session into memory, and changes none.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], [`ApiError::Damaged`]; [`ApiError::Invalid`] if the agent cannot be used.
    pub async fn prompt(&self, id: &str) -> Result<String, ApiError> {
        if let Some(handle) = self.live_now(id)
            && let Some(body) = ask(&handle, Command::Prompt).await
        {
            return Ok(body);
        }
        let (store, session) = (self.shared.store.clone(), id.to_owned());
        let (state, damage) = self
            .read(move || {
                let mut state = State::default();
                let found = store.verify(&session, &mut |event| state.apply(&event))?;
                Ok((state, views::damage(&found)))
            })
            .await?;
        match damage {
            Some(damage) => Err(ApiError::Damaged(damage)),
            None => Ok(prompt::next_body(&*self.agent(&state.agent)?, &state, false)),
        }
    }

    /// Makes a session that begins as `id` was after `seq`, or after its last finished turn before that.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], [`ApiError::Damaged`].
    pub async fn fork(&self, id: &str, seq: Option<u64>) -> Result<Summary, ApiError> {
        let (store, parent, child) = (self.shared.store.clone(), id.to_owned(), random_id());
        let new = child.clone();
        let live = self.live_now(id).map(|_| self.hub(id).durable_seq());
        self.read(move || {
            let durable = live.map_or_else(|| store.settle(&parent), Ok)?;
            super::fork::fork(&store, &parent, &new, seq.unwrap_or(u64::MAX).min(durable))
        })
        .await?;
        self.session(&child).await
    }

    /// The log as JSON lines.
    #[must_use]
    pub fn export(&self, id: &str) -> Pages {
        Pages::new(self.clone(), id.to_owned(), Form::Lines)
    }

    /// An agent that can be used.
    ///
    /// # Errors
    /// [`ApiError::NotFound`]; [`ApiError::Invalid`] with the reason why it cannot be used.
    pub fn agent(&self, name: &str) -> Result<Arc<Agent>, ApiError> {
        let agents = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner);
        let good = agents.good.iter().find(|agent| agent.name == name);
        let broken = agents.broken.iter().find(|(broken, _)| broken == name);
        match (good, broken) {
            (Some(agent), _) => Ok(Arc::clone(agent)),
            (None, Some((_, error))) => Err(ApiError::Invalid(format!("agent {name:?} cannot be used: {error}"))),
            (None, None) => {
                let names: Vec<&str> = agents.good.iter().map(|agent| agent.name.as_str()).collect();
                Err(ApiError::NotFound(format!("no agent {name:?}; there are: {}", names.join(", "))))
            }
        }
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let result = finished(self.shared.writers.run(job).await);
        self.note_space();
        result
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        finished(self.shared.readers.run(job).await)
    }
}

pub(super) fn going_down() -> ApiError {
    ApiError::Busy("the server is going down, come back after its restart".to_owned())
}

fn finished<T>(result: Option<Result<T, StoreError>>) -> Result<T, ApiError> {
    match result {
        Some(result) => result.map_err(|error| ApiError::from(&error)),
        None => Err(no_thread()),
    }
}

fn no_thread() -> ApiError {
    ApiError::Busy("no thread could be started, the machine is out of memory or processes".to_owned())
}

/// Asks a live session; `None` if it left before it could answer.
async fn ask<T>(handle: &Handle, question: impl FnOnce(Giver<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot();
    handle.mailbox.send(question(reply)).await.ok()?;
    answer.wait().await
}

/// Eight characters of 32: short enough to type, and a name that is taken is refused by the store, never overwritten.
fn random_id() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = process::random_u64();
    (0..8).map(|i| char::from(ALPHABET[(random >> (5 * i)) as usize & 31])).collect()
}
