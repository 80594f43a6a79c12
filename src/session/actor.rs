//! One task a session. It alone owns the state and the log: takes what waits in the mailbox, decides, commits all of it at
//! once, and only then publishes, acts and answers.

use super::api::{Accepted, ApiError, Approval, Published, Summary, TurnResult};
use super::ledger::{Ledger, Track};
use super::oneshot::Giver;
use super::prompt;
use super::runner::Runner;
use super::tally::{self, Tally};
use super::views;
use crate::store::file::FileStore;
use crate::store::{Batch, Committed, Log, StoreError};
use duragent_core::session::{self, DISK_FULL, Finished, Input, InputKind, State};
use duragent_platform::clock;
use duragent_platform::file::Lease;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Commands that wait for a session; whoever sends more waits. The places are allocated with the session.
pub const MAILBOX_MAX: usize = 16;
/// Commands that go into one commit at most: bounds the memory of a batch.
const BATCH_MAX: usize = 64;

/// Where an answer goes.
pub type Reply<T> = Giver<Result<Option<T>, ApiError>>;

/// What a session can be told or asked.
pub enum Command {
    /// Something to decide on.
    Input {
        /// What.
        kind: InputKind,
        /// Told after the commit.
        reply: Option<Reply<Accepted>>,
    },
    /// Answered when the turn has come to rest.
    Wait {
        /// Which turn.
        turn: u64,
        /// Told then; `None` if it is too long ago to be remembered.
        reply: Reply<TurnResult>,
    },
    /// What it looks like now.
    Summary(Giver<Summary>),
    /// What it waits for.
    Approvals(Giver<Vec<Approval>>),
    /// What its model would be asked now.
    Prompt(Giver<String>),
    /// Leave memory if nothing is going on.
    Evict,
    /// Stop in good order; a running turn is paused and goes on after the next start.
    Stop,
}

impl From<InputKind> for Command {
    fn from(kind: InputKind) -> Self {
        Self::Input { kind, reply: None }
    }
}

/// A live session, seen from outside.
pub struct Handle {
    pub(super) mailbox: Sender<Command>,
    /// True while something is under way: leaving memory would interrupt it.
    pub(super) busy: Arc<AtomicBool>,
    /// A [`super::api::Status`], for counting.
    pub(super) status: Arc<AtomicU8>,
    /// Closed when the log's lease has been given back.
    pub(super) gone: Receiver<()>,
    /// How often in a row the session's log has failed; how this life ended is counted before `gone` is closed.
    pub(super) failures: Arc<AtomicUsize>,
    /// The agent's `on_disconnect: pause`.
    pub(super) pause_on_disconnect: bool,
}

/// What ended an actor.
#[derive(Debug)]
pub enum End {
    /// Nothing to do for a while, or told to stop.
    Rest,
    /// Something came in while it was leaving: the session has to be opened again at once.
    Again,
    /// A commit failed: what is on disk has to be read again.
    Failed(StoreError),
}

pub(super) struct Actor {
    pub state: State,
    /// What it spends.
    pub track: Track,
    /// What all sessions spend.
    pub ledger: Arc<Ledger>,
    /// `None` while a commit is under way.
    pub log: Option<Box<dyn Log>>,
    pub runner: Runner,
    pub mailbox: Receiver<Command>,
    pub writers: super::pool::Pool,
    pub store: FileStore,
    /// Told when the disk is full.
    pub low: Sender<()>,
    pub counters: Arc<Tally>,
    pub busy: Arc<AtomicBool>,
    pub status: Arc<AtomicU8>,
    pub idle: Duration,
    /// Those who wait for a turn.
    pub waiters: Vec<(u64, Reply<TurnResult>)>,
    /// Of its [`Handle`].
    pub failures: Arc<AtomicUsize>,
    /// Something was written.
    pub progressed: bool,
    /// Told to stop: a running turn does not keep it.
    pub stopping: bool,
    /// Dropped last: tells the registry that the session may be opened again.
    pub gone: Sender<()>,
}

/// A commit in the making.
#[derive(Default)]
struct Work {
    batch: Batch,
    replies: Vec<(Reply<Accepted>, Option<Accepted>)>,
    asked: Vec<Command>,
    evict: bool,
}

impl Actor {
    /// Lives until the session is at rest for long enough, is told to stop, or its log fails.
    pub async fn run(mut self, first: Command) -> End {
        let (mut work, mut held) = (Work::default(), self.hold_day().await);
        self.take(first, &mut work);
        let end = loop {
            // Before anybody is answered: who hears that a turn runs must not find the session idle.
            self.note_work();
            if let Err(error) = self.settle(&mut work, held).await {
                break End::Failed(error);
            }
            self.note_work();
            let leaving = self.stopping || work.evict || self.mailbox.is_closed();
            if leaving && self.leave() {
                break if self.is_at_work() && !self.stopping { End::Again } else { End::Rest };
            }
            work = Work::default();
            let next = self.next().await;
            held = self.hold_day().await;
            match next {
                Some(command) => self.take(command, &mut work),
                None => work.evict = true,
            }
            while work.batch.events.len() + work.asked.len() < BATCH_MAX {
                let Ok(command) = self.mailbox.try_recv() else { break };
                self.take(command, &mut work);
            }
        };
        self.runner.stop_work();
        self.finish(end).await
    }

    /// Where other processes may spend as well: keeps them from it until the commit, and looks at what they have spent.
    async fn hold_day(&mut self) -> Result<Option<Lease>, StoreError> {
        let Runner { limits, agent, .. } = &self.runner;
        if limits.alone || agent.rules.budgets.day.is_unlimited() {
            return Ok(None);
        }
        let (ledger, store) = (Arc::clone(&self.ledger), self.store.clone());
        let job = move || {
            let lease = store.day_lease()?;
            ledger.fill(&store, clock::wall_ms())?;
            Ok(Some(lease))
        };
        self.writers.run(job).await.unwrap_or_else(|| Err(StoreError::Poisoned(self.state.id.clone())))
    }

    fn note_work(&self) {
        self.busy.store(self.is_at_work(), Ordering::Release);
        self.status.store(views::status(&self.state) as u8, Ordering::Relaxed);
        self.counters.active();
    }

    /// The next command, what a due timer says, or `None` after a time of rest.
    async fn next(&mut self) -> Option<Command> {
        let resting = !self.is_busy() && self.runner.timers.is_empty();
        let rest = resting.then(|| Instant::now() + self.idle);
        let due = self.runner.timers.iter().map(|(at, _)| *at).chain(rest).min();
        let Some(due) = due else { return self.mailbox.recv().await.ok() };
        let received = async { self.mailbox.recv().await.ok() };
        let timed = async {
            async_io::Timer::at(due).await;
            None
        };
        if let Some(command) = received.or(timed).await {
            return Some(command);
        }
        let now = Instant::now();
        let at = self.runner.timers.iter().position(|(at, _)| *at <= now)?;
        let (_, timer) = self.runner.timers.swap_remove(at);
        Some(Command::from(InputKind::Timer(timer)))
    }

    /// True while somebody would miss the session.
    fn is_busy(&self) -> bool {
        self.is_at_work() || !self.waiters.is_empty()
    }

    /// True while something is under way. A turn that waits for a person is not: it can wait on disk as well.
    fn is_at_work(&self) -> bool {
        (self.state.turn.is_some() && !self.state.is_waiting()) || !self.mailbox.is_empty()
    }

    /// True if the session leaves memory now; from then on nobody can send to it. What came in before that is taken first.
    fn leave(&mut self) -> bool {
        if self.is_busy() && !self.stopping && !self.mailbox.is_closed() {
            return false;
        }
        self.mailbox.close();
        self.mailbox.is_empty()
    }

    /// Decides on a command. Applies what follows to the state at once, so that the next command of the same commit
    /// sees it; if the commit fails, the state is thrown away with the actor.
    fn take(&mut self, command: Command, work: &mut Work) {
        match command {
            Command::Input { kind, reply } => self.input(kind, reply, work),
            Command::Stop => {
                self.stopping = true;
                if self.state.turn.is_some() && !self.state.is_waiting() {
                    self.input(InputKind::Pause { reason: "shutdown".to_owned() }, None, work);
                }
            }
            Command::Evict => work.evict = true,
            question => work.asked.push(question),
        }
    }

    fn input(&mut self, kind: InputKind, reply: Option<Reply<Accepted>>, work: &mut Work) {
        let at_ms = clock::after(self.state.last_at_ms, clock::wall_ms());
        let today = self.ledger.today(at_ms);
        let (rules, input) = (&self.runner.agent.rules, Input { at_ms, today, kind });
        let stepped = match self.store.is_full() {
            false => session::step(&mut self.state, rules, input),
            true => session::hold(&mut self.state, rules, input, DISK_FULL),
        };
        let stepped = match stepped {
            Ok(stepped) => stepped,
            Err(rejection) => {
                if let Some(reply) = reply {
                    reply.give(Err(rejection.into()));
                }
                return;
            }
        };
        // Before any other session decides, and not only when it is durable.
        stepped.events.iter().for_each(|event| self.ledger.take(&mut self.track, event));
        work.batch.events.extend(stepped.events);
        work.batch.effects.extend(stepped.effects);
        if let Some(reply) = reply {
            let accepted = stepped.accepted.map(|a| Accepted { seq: a.seq, turn: a.turn });
            work.replies.push((reply, accepted));
        }
    }

    /// Commits, then publishes, acts and answers, in this order.
    async fn settle(&mut self, work: &mut Work, held: Result<Option<Lease>, StoreError>) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut work.batch);
        let wrote = !batch.events.is_empty();
        let committed = match held {
            Ok(_held) => self.commit(batch).await,
            Err(error) => Err(error),
        };
        match committed {
            Ok(committed) => {
                // Published first, so that no token of an answer overtakes the event that caused it (docs/adr/0005).
                for event in committed.events {
                    self.runner.hub.publish(event);
                }
                for effect in committed.effects {
                    self.runner.run(effect, &self.state);
                }
            }
            Err(error) => {
                let told = ApiError::from(&error);
                for (reply, _) in work.replies.drain(..) {
                    reply.give(Err(told.clone()));
                }
                return Err(error);
            }
        }
        for (reply, accepted) in work.replies.drain(..) {
            reply.give(Ok(accepted));
        }
        for question in work.asked.drain(..) {
            self.answer(question);
        }
        if wrote {
            self.runner.prune_timers(&self.state);
            self.answer_waiters();
        }
        Ok(())
    }

    async fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        if batch.events.is_empty() && batch.effects.is_empty() {
            return Ok(Committed::default());
        }
        let lost = || StoreError::Poisoned(self.state.id.clone());
        let mut log = self.log.take().ok_or_else(lost)?;
        // Effects alone do not touch the disk.
        let writes = !batch.events.is_empty();
        let noted = tally::note(&batch.events);
        let job = move || {
            let result = log.commit(batch);
            (log, result)
        };
        let (log, result) = self.writers.run(job).await.ok_or_else(lost)?;
        self.log = Some(log);
        if self.store.is_full() {
            self.low.try_send(()).ok();
        }
        self.progressed |= writes && result.is_ok();
        if writes {
            self.counters.committed(&self.state.id, &noted, &result);
        }
        result
    }

    fn answer(&mut self, question: Command) {
        match question {
            Command::Summary(reply) => reply.give(views::summary(&self.state)),
            Command::Approvals(reply) => reply.give(views::approvals(&self.state)),
            Command::Prompt(reply) => reply.give(prompt::next_body(&self.runner.agent, &self.state, true)),
            Command::Wait { turn, reply } => {
                if turn == 0 || turn > self.state.turns {
                    let error = ApiError::NotFound(format!("turn {turn} of session {:?}", self.state.id));
                    reply.give(Err(error));
                } else {
                    self.waiters.push((turn, reply));
                    self.answer_waiters();
                }
            }
            Command::Input { .. } | Command::Evict | Command::Stop => {}
        }
    }

    fn answer_waiters(&mut self) {
        let state = &self.state;
        self.waiters.retain(|(turn, reply)| {
            let open =
                state.turn.as_ref().is_some_and(|t| t.turn == *turn) || state.queue.iter().any(|q| q.turn == *turn);
            if open {
                return !reply.is_unheard();
            }
            let finished = state.finished.iter().find(|f| f.turn == *turn);
            reply.give(Ok(finished.map(result_of)));
            false
        });
    }

    /// Gives the log back and says what ended it.
    async fn finish(mut self, end: End) -> End {
        if self.stopping {
            self.runner.hub.send(Published::Shutdown);
        }
        let log = self.log.take();
        let (store, id, cached) = (self.store.clone(), self.state.id.clone(), views::cached(&self.state));
        let failed = matches!(end, End::Failed(_));
        // Under the lease still, so that the cache is not written over that of the next owner.
        self.writers
            .run(move || {
                if !failed {
                    store.cache(&id, &cached);
                }
                drop(log);
            })
            .await;
        // What came too late was not taken: its sender hears that and asks the session's successor, or is told that the
        // disk is bad. Left in the closed mailbox it would wait for ever.
        self.mailbox.close();
        while let Ok(command) = self.mailbox.try_recv() {
            if let (Command::Input { reply: Some(reply), .. }, End::Failed(error)) = (command, &end) {
                reply.give(Err(ApiError::from(error)));
            }
        }
        // In this order: whoever sees the end of this life reads what it left.
        let before = self.failures.load(Ordering::Acquire);
        let failures = match end {
            End::Failed(_) if self.progressed => 1,
            End::Failed(_) => before + 1,
            End::Rest | End::Again => 0,
        };
        self.failures.store(failures, Ordering::Release);
        drop(self.gone);
        end
    }
}

fn result_of(f: &Finished) -> TurnResult {
    let (turn, reason, usage) = (f.turn, f.reason, f.usage);
    TurnResult { turn, reason, detail: f.detail.clone(), reply: f.reply.clone(), usage }
}
