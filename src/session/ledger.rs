//! What all sessions spend in a day, for the budget of the day and for whoever asks; if nobody does, nothing is kept.
//!
//! The logs are the ledger: a [`Track`] is a fold over one of them, and the [`Ledger`] is the sum of those that had something to
//! do today. It is in memory only, read from the logs when it is first needed, and kept by the actors from then on, each
//! event as soon as it is decided: what is reserved for a request counts before the next session decides. If a commit fails
//! its events count until the session is opened again, which starts from what is on disk.
//!
//! A day is one of UTC. The day of an event is that of its time, or of an event before it in its log if that is later; live, it
//! is never earlier than that of any event in any session, or of the wall clock. So a clock that is set back does not begin a day
//! anew: the later day goes on until the clock has caught up. A clock before 2024 has not been set and is not believed;
//! then the day of the last event goes on. On a board whose clock is never set all is one day. A request that is under way at
//! midnight is of the day on which it was begun.
//!
//! Where there is no server several processes may have sessions at work, each its own. Then what is decided and committed is done
//! under a lock of the workspace, after a look at the logs that others have changed ([`Ledger::fill`]). A server does not look:
//! commands find it and work through it.
//!
//! Once it is wanted, about 400 bytes are held for each session that spends something, until midnight.

use super::api::ApiError;
use super::runtime::Runtime;
use super::setup::Agent;
use crate::store::StoreError;
use crate::store::file::FileStore;
use duragent_core::event::{Body, Event, Usage};
use duragent_core::session::{Budget, DAY_MS, Meter, Spent};
use duragent_platform::clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Milliseconds since the epoch before which a clock has not been set: the beginning of 2024, before this program was written.
const BELIEVED_MS: u64 = 1_704_067_200_000;

/// Something that was used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// What.
    pub spent: Spent,
    /// Requests in it that count as what was reserved for them, because nobody said what they cost.
    pub estimated: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.spent.add(&other.spent);
        self.estimated += other.estimated;
    }

    fn minus(&self, other: &Self) -> Self {
        Self { spent: self.spent.minus(&other.spent), estimated: self.estimated.saturating_sub(other.estimated) }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a session spends on one model; calls of tools are of the model that asked for them.
#[derive(Debug, Clone, Default)]
struct Share {
    provider: String,
    model: String,
    meter: Meter,
    /// Requests that nobody said the cost of.
    estimated: u64,
    /// What it had come to when the day began.
    before: Sum,
}

impl Share {
    fn total(&self) -> Sum {
        Sum { spent: self.meter.spent(), estimated: self.estimated }
    }
}

/// What one session spends, as a fold over its log.
#[derive(Debug, Clone, Default)]
pub struct Track {
    session: String,
    agent: String,
    /// Events up to here are another session's.
    inherited: u64,
    /// Day of the last event, since the epoch; 0 without a clock.
    day: u64,
    shares: Vec<Share>,
    /// Place of the model that was asked last.
    asked: usize,
    /// What is reserved for it while it is asked.
    reserved: Option<Usage>,
}

impl Track {
    /// Takes the next event of the session.
    pub fn take(&mut self, event: &Event) {
        self.roll(day_of(event.at_ms));
        let estimated = match &event.body {
            Body::SessionCreated { session, agent, parent, .. } => {
                (self.session, self.agent) = (session.clone(), agent.clone());
                self.inherited = parent.as_ref().map_or(0, |(_, seq)| *seq);
                return;
            }
            Body::ModelRequested { provider, model, reserved, .. } => {
                self.lost();
                self.ask(provider, model);
                self.reserved = Some(*reserved);
                false
            }
            Body::ModelResponded { usage, .. } | Body::SessionCompacted { usage, .. } => {
                self.settled(usage.is_unknown())
            }
            Body::ModelFailed { worked, .. } => self.settled(*worked),
            Body::TurnFinished { .. } => {
                self.lost();
                false
            }
            _ => false,
        };
        let Some(share) = self.shares.get_mut(self.asked) else { return };
        share.meter.take(event);
        share.estimated += u64::from(estimated);
        let total = share.total();
        // Less than was reserved yesterday, or somebody else's: nothing of today.
        share.before = if event.seq <= self.inherited { total } else { total.minus(&total.minus(&share.before)) };
    }

    /// What was under way has come to an end; true if it counts as what was reserved for it.
    fn settled(&mut self, unknown: bool) -> bool {
        self.reserved.take().is_some_and(|reserved| unknown && !reserved.is_unknown())
    }

    /// What was under way has come to no end.
    fn lost(&mut self) {
        if self.reserved.take().is_some_and(|reserved| !reserved.is_unknown())
            && let Some(share) = self.shares.get_mut(self.asked)
        {
            share.estimated += 1;
        }
    }

    fn ask(&mut self, provider: &str, model: &str) {
        let known = self.shares.iter().position(|s| s.provider == provider && s.model == model);
        self.asked = known.unwrap_or(self.shares.len());
        if known.is_none() {
            self.shares.push(Share { provider: provider.to_owned(), model: model.to_owned(), ..Share::default() });
        }
    }

    /// Begins `day`, if that is later.
    fn roll(&mut self, day: u64) {
        if day > self.day {
            self.day = day;
            self.shares.iter_mut().for_each(|share| share.before = share.total());
        }
    }

    /// Brings `entry` up to date. Allocates only for what is new in it: this is done with every event.
    fn tell(&self, entry: &mut Entry) {
        (entry.today, entry.total) = (Sum::default(), Sum::default());
        for (at, share) in self.shares.iter().enumerate() {
            let known = entry.models.get(at).is_some_and(|of| of.provider == share.provider && of.model == share.model);
            if !known {
                // Beyond this were others, if a commit failed.
                entry.models.truncate(at);
                entry.models.reserve_exact(1);
                let (provider, model) = (share.provider.clone(), share.model.clone());
                entry.models.push(OfModel { provider, model, today: Sum::default() });
            }
            let all = share.total();
            let since = all.minus(&share.before);
            entry.today.add(&since);
            entry.total.add(&all);
            if let Some(model) = entry.models.get_mut(at) {
                model.today = since;
            }
        }
        entry.models.truncate(self.shares.len());
    }

    fn entry(&self) -> Entry {
        let mut entry = Entry { session: self.session.clone(), agent: self.agent.clone(), ..Entry::default() };
        self.tell(&mut entry);
        entry
    }
}

/// What was spent on one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfModel {
    /// Provider name.
    pub provider: String,
    /// Model name.
    pub model: String,
    /// Of today.
    pub today: Sum,
}

/// What was spent by one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Id.
    pub session: String,
    /// Its agent.
    pub agent: String,
    /// Today.
    pub today: Sum,
    /// In its whole life.
    pub total: Sum,
    /// Today, by model.
    pub models: Vec<OfModel>,
}

/// What was spent today.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Today {
    /// Which day that is, since the epoch; 0 without a clock.
    pub day: u64,
    /// By all sessions.
    pub total: Sum,
    /// By agent, in the order of their names.
    pub agents: Vec<(String, Sum)>,
    /// By provider and model, in their order.
    pub models: Vec<OfModel>,
    /// By session, in the order of their ids: those asked for.
    pub sessions: Vec<Entry>,
    /// What may be spent in a day.
    pub budget: Budget,
    /// What money is called, if somebody said so.
    pub currency: Option<String>,
}

#[derive(Debug, Default)]
struct Book {
    day: u64,
    total: Sum,
    /// In the order of their ids.
    entries: Vec<Entry>,
    /// Logs that were read, in the order of their ids, and what they looked like then: only where others write logs too.
    seen: Vec<(String, (u64, i64))>,
    /// Sessions that have been at work in this process, likewise.
    own: Vec<String>,
}

impl Book {
    fn roll(&mut self, day: u64) {
        if day > self.day {
            (self.day, self.total) = (day, Sum::default());
            self.entries.clear();
        }
    }

    fn place(&self, session: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.session.as_str().cmp(session))
    }

    fn put(&mut self, track: &Track) {
        match self.place(&track.session) {
            Ok(at) => {
                let Some(entry) = self.entries.get_mut(at) else { return };
                let before = entry.today;
                track.tell(entry);
                self.total.add(&entry.today);
                self.total = self.total.minus(&before);
            }
            Err(at) => {
                let entry = track.entry();
                if !entry.today.is_nothing() {
                    self.total.add(&entry.today);
                    self.entries.insert(at, entry);
                }
            }
        }
    }
}

/// The sum of a day.
pub struct Ledger {
    /// Nobody else writes logs.
    alone: bool,
    /// Somebody wants to know.
    wanted: AtomicBool,
    book: Mutex<Book>,
    /// True once the logs have been read; locked while they are.
    filled: smol::lock::Mutex<bool>,
}

impl Ledger {
    /// Of nothing yet. `alone`: as in [`super::DeviceLimits::alone`].
    pub fn new(alone: bool) -> Self {
        Self { alone, wanted: AtomicBool::new(false), book: Mutex::default(), filled: smol::lock::Mutex::new(false) }
    }

    /// Hands `event`, which was just decided, to the fold of its session, and counts what follows.
    pub fn take(&self, track: &mut Track, event: &Event) {
        if !self.wanted.load(Ordering::Acquire) {
            return track.take(event);
        }
        let mut book = self.book();
        track.roll(book.day);
        track.take(event);
        book.roll(track.day);
        book.put(track);
        if !self.alone && !book.own.contains(&track.session) {
            book.own.push(track.session.clone());
        }
    }

    /// What all sessions have spent on the day that it is at `now_ms` of the wall clock, as far as is known.
    pub fn today(&self, now_ms: u64) -> Spent {
        let mut book = self.book();
        book.roll(day_of(now_ms));
        book.total.spent
    }

    /// Reads what the logs say of today, as far as they have changed since they were read last. Sessions that are at work
    /// in this process are passed over.
    pub(super) fn fill(&self, store: &FileStore, now_ms: u64) -> Result<(), StoreError> {
        // First: what is decided from here on is handed to us. What was decided before, and is not on disk when its log is read,
        // counts from the next event of its session on.
        self.wanted.store(true, Ordering::Release);
        let mut last = Vec::new();
        for session in store.list()? {
            let stamp = store.stamp(&session);
            if self.is_known(&session, stamp) {
                continue;
            }
            if let Some(at_ms) = store.last_at_ms(&session) {
                self.book().roll(day_of(at_ms));
                last.push((session, stamp, at_ms));
            }
        }
        self.book().roll(day_of(now_ms));
        for (session, stamp, at_ms) in last {
            // By the file's time too: the last line may have been written with a clock that was set back.
            let changed_ms = u64::try_from(stamp.1 / 1_000_000).unwrap_or(0);
            let day = self.book().day;
            if day_of(at_ms) < day && at_ms >= BELIEVED_MS && day_of(changed_ms) < day {
                self.saw(session, stamp);
                continue;
            }
            let mut track = Track::default();
            match store.verify(&session, &mut |event| track.take(&event)) {
                Ok(_) | Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            // It may have come to life meanwhile: then it knows better.
            if !self.is_known(&session, (0, 0)) && !track.session.is_empty() {
                let mut book = self.book();
                track.roll(book.day);
                book.roll(track.day);
                book.put(&track);
            }
            self.saw(session, stamp);
        }
        Ok(())
    }

    /// True if there is nothing to be learned from the log of `session`, which looks like `stamp`.
    fn is_known(&self, session: &str, stamp: (u64, i64)) -> bool {
        let book = self.book();
        if self.alone {
            return book.place(session).is_ok();
        }
        let seen = book.seen.binary_search_by(|(seen, _)| seen.as_str().cmp(session)).ok();
        let same = seen.and_then(|at| book.seen.get(at)).is_some_and(|(_, seen)| *seen == stamp);
        same || book.own.iter().any(|own| own == session)
    }

    fn saw(&self, session: String, stamp: (u64, i64)) {
        if self.alone {
            return;
        }
        let mut book = self.book();
        match book.seen.binary_search_by(|(seen, _)| seen.cmp(&session)) {
            Ok(at) => book.seen.get_mut(at).into_iter().for_each(|(_, seen)| *seen = stamp),
            Err(at) => book.seen.insert(at, (session, stamp)),
        }
    }

    /// All that is known of today, with the sessions behind `after`, at most `limit`.
    fn told(&self, now_ms: u64, after: Option<&str>, limit: usize) -> Today {
        let mut book = self.book();
        book.roll(day_of(now_ms));
        let mut today = Today { day: book.day, total: book.total, ..Today::default() };
        for entry in &book.entries {
            let agent = today.agents.binary_search_by(|(name, _)| name.cmp(&entry.agent));
            let at = agent.unwrap_or_else(|at| {
                today.agents.insert(at, (entry.agent.clone(), Sum::default()));
                at
            });
            if let Some((_, sum)) = today.agents.get_mut(at) {
                sum.add(&entry.today);
            }
            for model in entry.models.iter().filter(|model| !model.today.is_nothing()) {
                let key = |m: &OfModel| (m.provider.cmp(&model.provider)).then_with(|| m.model.cmp(&model.model));
                match today.models.binary_search_by(key) {
                    Ok(at) => today.models.get_mut(at).into_iter().for_each(|sum| sum.today.add(&model.today)),
                    Err(at) => today.models.insert(at, model.clone()),
                }
            }
        }
        let from = after.map_or(0, |after| book.entries.partition_point(|entry| entry.session.as_str() <= after));
        today.sessions = book.entries.iter().skip(from).take(limit).cloned().collect();
        today
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The day of a time since the epoch; 0 if the clock had not been set.
fn day_of(at_ms: u64) -> u64 {
    if at_ms < BELIEVED_MS { 0 } else { at_ms / DAY_MS }
}

impl Runtime {
    /// Sees to it that the budget of the day of `agent` can be kept, if it has one.
    ///
    /// # Errors
    /// As [`Runtime::know_today`].
    pub(super) async fn know_budget(&self, agent: &Agent) -> Result<(), ApiError> {
        if agent.rules.budgets.day.is_unlimited() { Ok(()) } else { self.know_today().await }
    }

    /// Sees to it that the ledger knows what was spent today before this process began.
    ///
    /// # Errors
    /// If a log cannot be read: who does not know what was spent must not spend more.
    pub(super) async fn know_today(&self) -> Result<(), ApiError> {
        let mut filled = self.shared.ledger.filled.lock().await;
        if !*filled {
            let (ledger, store) = (Arc::clone(&self.shared.ledger), self.shared.store.clone());
            self.read(move || ledger.fill(&store, clock::wall_ms())).await?;
            *filled = true;
        }
        Ok(())
    }

    /// What was spent today, with the sessions behind `after`, at most `limit`.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub async fn usage(&self, after: Option<&str>, limit: usize) -> Result<Today, ApiError> {
        self.know_today().await?;
        let mut today = self.shared.ledger.told(clock::wall_ms(), after, limit);
        let agents = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.good.first() {
            (today.budget, today.currency) = (agent.rules.budgets.day, agent.about.currency.clone());
        }
        Ok(today)
    }

    /// What a session has spent, whether today or not.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or if it cannot be read.
    pub async fn usage_of(&self, id: &str) -> Result<Entry, ApiError> {
        let (ledger, store, id) = (Arc::clone(&self.shared.ledger), self.shared.store.clone(), id.to_owned());
        self.read(move || {
            let mut track = Track::default();
            store.verify(&id, &mut |event| track.take(&event))?;
            let book = ledger.book();
            track.roll(book.day);
            // What is decided and not on disk yet counts as well.
            Ok(book.place(&id).ok().and_then(|at| book.entries.get(at).cloned()).unwrap_or_else(|| track.entry()))
        })
        .await
    }

    /// What a session of `agent` may spend; nothing limits it if there is no such agent.
    #[must_use]
    pub fn session_budget(&self, agent: &str) -> Budget {
        let agents = self.shared.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents
            .good
            .iter()
            .find(|known| known.name == agent)
            .map(|known| known.rules.budgets.session)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
