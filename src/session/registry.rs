//! The registry of live sessions: who is in memory, bringing a session there, and seeing to it that it leaves.
//!
//! Invariant: a session's slot is locked while it is opened, and its successor waits until the predecessor has given the
//! lease back. So one process never opens a session twice.

use super::Gauges;
use super::actor::{Actor, Command, End, Handle, MAILBOX_MAX};
use super::api::{Accepted, ApiError, Published, Status};
use super::hub::Hub;
use super::ledger::Track;
use super::oneshot::oneshot;
use super::runner::Runner;
use super::runtime::{Runtime, Shared, going_down};
use super::setup::Agent;
use super::space::no_space;
use super::tally::Tally;
use crate::store::file::FileStore;
use crate::store::{Log, StoreError};
use duragent_core::event::Event;
use duragent_core::session::{DISK_FULL, InputKind, OFFLINE, State};
use duragent_platform::cancel::Cancel;
use duragent_platform::log::{self, Level, Value};
use duragent_platform::process::release_memory;
use smol::channel;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pauses before a session is opened again whose log failed, or for which there was no room; the last one repeats for as
/// long as that lasts.
const REOPEN_AFTER: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
/// How soon somebody who pauses notices that the server goes down.
const PAUSE_LOOK: Duration = Duration::from_millis(250);
/// How long an idle session may take to leave memory: a write of its cache on a slow card.
const EVICT_TIME_MAX: Duration = Duration::from_secs(2);

/// How often memory is given back while sessions are at work: it takes a millisecond.
const RELEASE_EVERY: Duration = Duration::from_secs(5);

/// A place in the table of live sessions; locked while its session is opened.
pub(super) type Slot = Arc<smol::lock::Mutex<Option<Arc<Handle>>>>;

impl Runtime {
    /// Finds sessions with an unfinished turn and takes them up. Ready when all have been looked at; those for which there
    /// is no room yet, or whose disk is bad, are taken up when that has passed.
    pub async fn recover(&self) {
        let unfinished = self.unfinished().await;
        if !unfinished.is_empty() {
            let count = Value::Number(unfinished.len() as u64);
            log::line(Level::Info, "unfinished sessions are taken up", &[&[("count", count)]]);
        }
        let waiting = self.take_up(unfinished).await;
        self.shared.ready.store(true, Ordering::Release);
        if !waiting.is_empty() {
            let count = Value::Number(waiting.len() as u64);
            let text = "unfinished sessions wait for room (sessions_live_max)";
            log::line(Level::Info, text, &[&[("count", count)]]);
            let runtime = self.clone();
            smol::spawn(async move { runtime.take_up_in_time(waiting).await }).detach();
        }
    }

    /// Sessions on disk that have something to do.
    pub(super) async fn unfinished(&self) -> Vec<String> {
        let store = self.shared.store.clone();
        let unfinished = self
            .read(move || {
                let mut found = store.list()?;
                found.retain(|id| !store.at_rest(id) && is_unfinished(&store, id));
                Ok(found)
            })
            .await;
        unfinished.unwrap_or_else(|error| {
            let error = error.to_string();
            log::line(Level::Warn, "unfinished turns are not taken up", &[&[("error", Value::Text(&error))]]);
            Vec::new()
        })
    }

    /// Opens sessions that have something to do, and returns those for which there is no room.
    pub(super) async fn take_up(&self, sessions: Vec<String>) -> Vec<String> {
        if self.is_disk_full() {
            // All of them are looked for again when it is not.
            return Vec::new();
        }
        let mut sessions = sessions.into_iter();
        while let Some(id) = sessions.next() {
            match self.live(&id).await {
                Ok(_) => {}
                Err(ApiError::Busy(_)) => return std::iter::once(id).chain(sessions).collect(),
                Err(error) if may_pass(&error) => {
                    let runtime = self.clone();
                    let task = async move {
                        let failures = Arc::new(AtomicUsize::new(1));
                        runtime.reopen(&id, &runtime.slot(&id), &failures, error.to_string()).await;
                    };
                    smol::spawn(task).detach();
                }
                Err(error) => untaken(&id, &error),
            }
        }
        Vec::new()
    }

    /// The same as soon as there is room; asks less often the longer there is none.
    pub(super) async fn take_up_in_time(&self, mut waiting: Vec<String>) {
        let mut failures = 1;
        while !waiting.is_empty() && !self.is_draining() {
            self.pause(pause_after(failures)).await;
            let before = waiting.len();
            waiting = self.take_up(waiting).await;
            failures = if waiting.len() < before { 1 } else { failures + 1 };
        }
    }

    /// True once [`Runtime::recover`] is done and until draining begins.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire) && !self.is_draining()
    }

    /// True once [`Runtime::drain`] has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// What has happened since the start.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.counters
    }

    /// What is there now. Looks at sessions in memory, one by one, and asks none of them anything.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let handles = self.handles();
        let with = |status: Status| {
            let same = |h: &&Arc<Handle>| h.status.load(Ordering::Relaxed) == status as u8;
            (status.as_str(), handles.iter().filter(same).count() as u64)
        };
        Gauges {
            sessions_live: handles.len() as u64,
            sessions: [Status::Idle, Status::Running, Status::Waiting, Status::Paused, Status::Closed].map(with),
            commands: handles.iter().map(|h| h.mailbox.len() as u64).sum(),
            pools: [
                ("writer", self.shared.writers.depth()),
                ("worker", self.shared.workers.depth()),
                ("reader", self.shared.readers.depth()),
            ],
        }
    }

    /// Makes room for the tools that agents have now.
    pub(super) fn know_tools(&self) {
        let agents = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner);
        for agent in &agents.good {
            self.shared.counters.know_tools(agent.rules.tools.iter().map(|tool| tool.name.as_str()));
        }
    }

    /// Stops in good order: takes no more messages, gives running turns `grace` to finish, pauses what is left, and waits
    /// until every log is closed.
    pub async fn drain(&self, grace: Duration) {
        self.shared.draining.store(true, Ordering::Release);
        let deadline = Instant::now() + grace;
        // A turn that is parked goes on after the next start as well.
        let works = |h: &Arc<Handle>| {
            h.busy.load(Ordering::Acquire) && h.status.load(Ordering::Relaxed) != Status::Paused as u8
        };
        while self.handles().iter().any(works) && Instant::now() < deadline {
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        for handle in self.handles() {
            handle.mailbox.send(Command::Stop).await.ok();
        }
        for handle in self.handles() {
            handle.gone.recv().await.ok();
        }
        for hub in self.shared.hubs().drain().map(|(_, hub)| hub) {
            hub.send(Published::Shutdown);
        }
    }

    /// The last client of a session left: its turn goes on, unless the agent wants it to pause.
    pub(super) fn last_one_left(&self, id: &str) {
        if let Some(handle) = self.live_now(id).filter(|h| h.pause_on_disconnect && h.busy.load(Ordering::Acquire)) {
            let pause = Command::from(InputKind::Pause { reason: "disconnected".to_owned() });
            let task = async move { drop(handle.mailbox.send(pause).await) };
            smol::spawn(task).detach();
        }
    }

    pub(super) fn handles(&self) -> Vec<Arc<Handle>> {
        let slots: Vec<Slot> = self.shared.slots().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.try_lock()?.clone()).filter(|h| !h.gone.is_closed()).collect()
    }

    /// Puts an input to a session and waits for the commit.
    pub(super) async fn input(&self, id: &str, kind: InputKind) -> Result<Option<Accepted>, ApiError> {
        if self.is_draining() {
            return Err(going_down());
        }
        loop {
            let handle = self.live(id).await?;
            let (reply, answer) = oneshot();
            let command = Command::Input { kind: kind.clone(), reply: Some(reply) };
            if handle.mailbox.send(command).await.is_ok()
                && let Some(answer) = answer.wait().await
            {
                return answer;
            }
            // It left memory before it took the input: nothing happened, and its successor is asked.
        }
    }

    pub(super) fn slot(&self, id: &str) -> Slot {
        let mut slots = self.shared.slots();
        if let Some(slot) = slots.get(id) {
            return Arc::clone(slot);
        }
        sweep(&mut slots);
        Arc::clone(slots.entry(id.to_owned()).or_default())
    }

    pub(super) fn hub(&self, id: &str) -> Arc<Hub> {
        let mut hubs = self.shared.hubs();
        hubs.retain(|_, hub| Arc::strong_count(hub) > 1);
        Arc::clone(hubs.entry(id.to_owned()).or_default())
    }

    /// The handle of a session that is in memory.
    pub(super) fn live_now(&self, id: &str) -> Option<Arc<Handle>> {
        let slot = self.shared.slots().get(id).cloned()?;
        let handle = slot.try_lock()?.clone()?;
        (!handle.mailbox.is_closed()).then_some(handle)
    }

    /// The handle of a session, brought into memory if it is not there.
    pub(super) async fn live(&self, id: &str) -> Result<Arc<Handle>, ApiError> {
        let slot = self.slot(id);
        let mut guard = slot.lock().await;
        // Whoever opens it, the session is told that its log failed and did not crash. So its last handle stays in the slot
        // until there is another.
        let mut failures = 0;
        if let Some(handle) = guard.as_ref() {
            if !handle.mailbox.is_closed() {
                return Ok(Arc::clone(handle));
            }
            // It is leaving: its lease is given back when this ends.
            handle.gone.recv().await.ok();
            failures = handle.failures.load(Ordering::Acquire);
        }
        if self.is_draining() {
            // Whoever still waits for a session that was just closed would bring it back.
            return Err(going_down());
        }
        self.make_room().await?;
        let (store, session) = (self.shared.store.clone(), id.to_owned());
        let (opened, state, track) = self
            .write(move || {
                let (mut state, mut track) = (State::default(), Track::default());
                let mut replay = |event: Event| {
                    state.apply(&event);
                    track.take(&event);
                };
                let opened = store.open(&session, &mut replay)?;
                Ok((opened, state, track))
            })
            .await?;
        if state.paused.as_deref() == Some(DISK_FULL) && self.shared.store.is_full() {
            return Err(no_space());
        }
        let agent = self.agent(&state.agent)?;
        self.know_budget(&agent).await?;
        // Held until the actor has it: a hub that nobody holds is forgotten, and with it what is durable.
        let hub = self.hub(id);
        let heard = hub.durable_seq();
        if heard > 0 && heard < state.last_seq {
            // A commit failed, was told to nobody, and is on disk all the same.
            let (store, session) = (self.shared.store.clone(), id.to_owned());
            for event in self.read(move || store.durable_after(&session, heard)).await? {
                hub.publish(event);
            }
        }
        hub.advance(state.last_seq);
        let first =
            InputKind::Opened { dropped_bytes: opened.dropped_bytes, saved_as: opened.saved_as, failed: failures > 0 };
        let life = (Arc::clone(&slot), opened.log, failures);
        let handle = self.start(hub, agent, (state, track), life, (id, Command::from(first)));
        *guard = Some(Arc::clone(&handle));
        Ok(handle)
    }

    /// Sees to it that one more session fits into memory.
    pub(super) async fn make_room(&self) -> Result<(), ApiError> {
        let handles = self.handles();
        if handles.len() < self.shared.limits.sessions_live_max {
            return Ok(());
        }
        for idle in handles.iter().filter(|h| !h.busy.load(Ordering::Acquire)) {
            idle.mailbox.send(Command::Evict).await.ok();
            let gone = async {
                idle.gone.recv().await.ok();
                true
            };
            let patience = async {
                smol::Timer::after(EVICT_TIME_MAX).await;
                false
            };
            if smol::future::or(gone, patience).await {
                return Ok(());
            }
            // Somebody spoke to it in the meantime: the next one.
        }
        let max = self.shared.limits.sessions_live_max;
        Err(ApiError::Busy(format!("{max} sessions are at work already (sessions_live_max)")))
    }

    /// Brings session `id` to life in its slot, on a log that has failed so many times in a row. `first` is decided first.
    pub(super) fn start(
        &self,
        hub: Arc<Hub>,
        agent: Arc<Agent>,
        (state, track): (State, Track),
        (slot, log, failures): (Slot, Box<dyn Log>, usize),
        (id, first): (&str, Command),
    ) -> Arc<Handle> {
        let (sender, mailbox) = channel::bounded(MAILBOX_MAX);
        let (gone_sender, gone) = channel::bounded(1);
        let (busy, failures) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(failures)));
        let status = Arc::new(AtomicU8::new(Status::Running as u8));
        let runner = Runner {
            session: id.to_owned(),
            dir: self.shared.store.dir(id),
            agent,
            limits: Arc::clone(&self.shared.limits),
            workers: self.shared.workers.clone(),
            mailbox: sender.clone(),
            hub,
            counters: Arc::clone(&self.shared.counters),
            cancel: Cancel::new(),
            timers: Vec::new(),
        };
        let pause_on_disconnect = runner.agent.pause_on_disconnect;
        let actor = Actor {
            state,
            track,
            ledger: Arc::clone(&self.shared.ledger),
            log: Some(log),
            runner,
            mailbox,
            writers: self.shared.writers.clone(),
            low: self.shared.low.0.clone(),
            store: self.shared.store.clone(),
            counters: Arc::clone(&self.shared.counters),
            busy: Arc::clone(&busy),
            status: Arc::clone(&status),
            idle: self.shared.limits.session_idle,
            waiters: Vec::new(),
            failures: Arc::clone(&failures),
            progressed: false,
            stopping: false,
            gone: gone_sender,
        };
        let (runtime, session, failed) = (self.clone(), id.to_owned(), Arc::clone(&failures));
        let task = async move {
            match actor.run(first).await {
                End::Rest => runtime.forget(slot, &failed),
                End::Again => {
                    let waiting = runtime.take_up(vec![session]).await;
                    runtime.take_up_in_time(waiting).await;
                }
                End::Failed(error) => runtime.reopen(&session, &slot, &failed, error.to_string()).await,
            }
        };
        smol::spawn(task).detach();
        Arc::new(Handle { mailbox: sender, busy, status, gone, failures, pause_on_disconnect })
    }

    /// Gives back what a session that has left memory in good order kept in the table.
    fn forget(&self, slot: Slot, failures: &Arc<AtomicUsize>) {
        // Locked, it is being opened again, and gets another handle by itself.
        if let Some(mut handle) = slot.try_lock()
            && handle.as_ref().is_some_and(|last| Arc::ptr_eq(&last.failures, failures))
        {
            *handle = None;
        }
        drop(slot);
        sweep(&mut self.shared.slots());
        // What a session took is in pieces between those of others: without this, memory creeps up for as long as somebody is
        // always at work.
        let mut released = self.shared.released.lock().unwrap_or_else(PoisonError::into_inner);
        if self.handles().is_empty() || released.elapsed() >= RELEASE_EVERY {
            *released = Instant::now();
            release_memory();
        }
    }

    /// Opens a session again whose log failed, for as long as it takes: a full disk gets space, a card comes back. Ends when
    /// another life has begun, by whomever. `failures` is the count of the one that ended, if there was any; `slot` is held
    /// so that it is not forgotten.
    async fn reopen(&self, id: &str, slot: &Slot, failures: &Arc<AtomicUsize>, mut why: String) {
        loop {
            let pause = pause_after(failures.load(Ordering::Acquire));
            let after = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            let about =
                [("session", Value::Text(id)), ("after_ms", Value::Number(after)), ("error", Value::Text(&why))];
            log::line(Level::Warn, "a session failed, it is opened again", &[&about]);
            self.pause(pause).await;
            let is_last = slot.lock().await.as_ref().is_none_or(|last| Arc::ptr_eq(&last.failures, failures));
            if self.is_draining() || !is_last {
                return;
            }
            match self.live(id).await {
                Err(error) if may_pass(&error) => why = error.to_string(),
                Err(error) => return untaken(id, &error),
                Ok(_) => return,
            }
            failures.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits before a session is asked again that left before it could answer: not at all, unless its log failed.
    pub(super) async fn pace(&self, left: &Handle) {
        left.gone.recv().await.ok();
        let failures = left.failures.load(Ordering::Acquire);
        if failures > 0 {
            self.pause(pause_after(failures)).await;
        }
    }

    /// Waits for so long, or until the server goes down.
    pub(super) async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !self.is_draining()) {
            smol::Timer::after(left.min(PAUSE_LOOK)).await;
        }
    }
}

/// Forgets slots that nobody holds and nobody lives in, so that the table does not grow with the workspace.
fn sweep(slots: &mut HashMap<String, Slot>) {
    slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_none_or(|h| is_open(&h)));
}

/// How long to wait after so many failures in a row, at least one.
fn pause_after(failures: usize) -> Duration {
    REOPEN_AFTER[failures.clamp(1, REOPEN_AFTER.len()) - 1]
}

/// True if what keeps a session from being opened may pass by itself.
fn may_pass(error: &ApiError) -> bool {
    matches!(error, ApiError::Busy(_) | ApiError::DiskFull(_) | ApiError::Internal(_))
}

/// Says that an unfinished turn is left alone. In use elsewhere is no reason to say so: it goes on there.
fn untaken(id: &str, error: &ApiError) {
    if !matches!(error, ApiError::Leased(_)) {
        let error = error.to_string();
        let about = [("session", Value::Text(id)), ("error", Value::Text(&error))];
        log::line(Level::Warn, "a session failed, it is not opened before somebody asks for it", &[&about]);
    }
}

/// True if a session has something to do, or cannot be read: opening it says why.
fn is_unfinished(store: &FileStore, id: &str) -> bool {
    let mut state = State::default();
    match store.verify(id, &mut |event| state.apply(&event)) {
        Ok(_) => {
            (state.turn.is_some() || !state.queue.is_empty())
                && state.paused.as_deref().is_none_or(|why| matches!(why, "shutdown" | OFFLINE | DISK_FULL))
        }
        Err(StoreError::NotFound(_)) => false,
        Err(_) => true,
    }
}

pub(super) fn is_open(handle: &Option<Arc<Handle>>) -> bool {
    handle.as_ref().is_some_and(|h| !h.gone.is_closed())
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hubs(&self) -> MutexGuard<'_, HashMap<String, Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
