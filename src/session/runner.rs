//! Running effects: models and tools on the worker threads, timers in the actor. What they bring back enters the same
//! mailbox as everything else.

use super::actor::Command;
use super::api::Published;
use super::hub::Hub;
use super::pool::Pool;
use super::prompt;
use super::setup::{Agent, DeviceLimits, Workdir};
use super::tally::{Count, Tally};
use crate::provider::{Delta, Failure};
use crate::store::Durable;
use crate::tool::Context;
use duragent_core::event::{FailureKind, ToolOutcome};
use duragent_core::session::{CallStatus, Effect, Fit, InputKind, Phase, State, Timer};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use duragent_platform::file;
use duragent_platform::sandbox::Place;
use smol::channel::Sender;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A result may fill this part of what the window leaves to the conversation; the whole is kept as an artifact.
const OUTPUT_PARTS: usize = 2;
/// Bytes of a result that go to the model however small the window is.
const OUTPUT_BYTES_MIN: usize = 512;
/// Why there is no answer when the machine has nothing left to ask with.
const NO_THREAD: &str = "no thread could be started for it, the machine is out of memory or processes";

/// Does what the session decided. Takes durable effects only.
pub struct Runner {
    pub(super) session: String,
    /// `sessions/<id>`.
    pub(super) dir: PathBuf,
    pub(super) agent: Arc<Agent>,
    pub(super) limits: Arc<DeviceLimits>,
    pub(super) workers: Pool,
    pub(super) mailbox: Sender<Command>,
    pub(super) hub: Arc<Hub>,
    pub(super) counters: Arc<Tally>,
    /// Raised when nobody waits for the work under way any more.
    pub(super) cancel: Cancel,
    /// When what comes back.
    pub(super) timers: Vec<(Instant, Timer)>,
}

impl Runner {
    /// Runs one effect. `state` is the session as it is now: an effect that a later event of the same commit made
    /// pointless is not run.
    pub fn run(&mut self, effect: Durable<Effect>, state: &State) {
        match effect.into_inner() {
            Effect::CallModel { turn, step, attempt } => {
                let wanted = state
                    .turn
                    .as_ref()
                    .is_some_and(|t| t.turn == turn && t.step == step && is_attempt(&t.phase, attempt));
                if wanted && state.paused.is_none() {
                    self.call_model((turn, step, attempt), state);
                }
            }
            Effect::RunTool { call } => {
                let calls = state.turn.iter().flat_map(|t| &t.calls);
                let running = |c: &duragent_core::session::Call| matches!(c.status, CallStatus::Running(_));
                if calls.into_iter().any(|c| c.call == call && running(c)) && state.paused.is_none() {
                    self.run_tool(call, state);
                }
            }
            Effect::SetTimer { after_ms, timer } => {
                self.timers.push((Instant::now() + Duration::from_millis(after_ms), timer));
            }
            Effect::Reach { turn } => self.reach(turn),
            Effect::StopWork => self.stop_work(),
            Effect::AllowAlways { call } => {
                let (agent, hub) = (Arc::clone(&self.agent), Arc::clone(&self.hub));
                self.workers.spawn(move || {
                    // The grant itself is in the log and holds for the session. People are told why it will be asked again.
                    if let Err(error) = (agent.allow_always)(&call) {
                        let text = format!("\n[the rule was not written to policy.yaml: {error}]\n");
                        hub.send(Published::token(0, 0, &text, false));
                    }
                });
            }
        }
    }

    /// Stops what is under way; what comes next gets a flag of its own.
    pub(super) fn stop_work(&mut self) {
        std::mem::take(&mut self.cancel).raise();
    }

    /// Forgets timers that no longer matter, so that an idle session has none.
    pub(super) fn prune_timers(&mut self, state: &State) {
        let turn = state.turn.as_ref();
        self.timers.retain(|(_, timer)| match timer {
            Timer::Retry { turn: n, .. } | Timer::TurnLimit { turn: n } => turn.is_some_and(|t| t.turn == *n),
            Timer::Online { turn: n } | Timer::Offline { turn: n } => {
                state.offline_until_ms.is_some() && turn.is_some_and(|t| t.turn == *n)
            }
            Timer::Approval { approval_id } => {
                turn.is_some_and(|t| t.calls.iter().any(|c| c.status.approval_id() == Some(approval_id)))
            }
        });
    }

    fn call_model(&self, (turn, step, attempt): (u64, u64, u64), state: &State) {
        let agent = Arc::clone(&self.agent);
        let place = prompt::place(&agent, state);
        let (endpoint, model) = (agent.endpoint_at(place).clone(), agent.rules.model_at(place));
        let request = prompt::request(&agent, state, place);
        let (hub, mailbox, cancel) = (Arc::clone(&self.hub), self.mailbox.clone(), self.cancel.clone());
        let (counters, session, provider) = (Arc::clone(&self.counters), self.session.clone(), model.provider.clone());
        counters.one(Count::ModelCalls);
        // A summary is no answer: nobody is shown it as one.
        let summary = state.turn.as_ref().is_some_and(|t| matches!(t.phase, Phase::Model { summary: true, .. }));
        if summary {
            hub.send(Published::status(turn, step, "summing up the conversation"));
        }
        let started = self.workers.spawn(move || {
            let (asked, mut first) = (Instant::now(), None);
            let mut on_delta = |delta: Delta<'_>| {
                if !matches!(delta, Delta::Status(_)) {
                    first.get_or_insert_with(|| asked.elapsed());
                }
                if hub.listeners() > 0 && !cancel.is_raised() && !summary {
                    hub.send(match delta {
                        Delta::Text(text) => Published::token(turn, step, text, false),
                        Delta::Thinking(text) => Published::token(turn, step, text, true),
                        Delta::Status(text) => Published::status(turn, step, text),
                    });
                }
            };
            let answer = endpoint.circuit.admit(asked).and_then(|()| {
                let answer = endpoint.provider.complete(&request, &cancel, &mut on_delta);
                endpoint.circuit.ended(answer.as_ref().err(), Instant::now());
                answer
            });
            let duration_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            let kind = match answer {
                Ok(reply) => InputKind::Replied { turn, step, attempt, reply, duration_ms },
                Err(failure) => failed((turn, step, attempt), failure, duration_ms),
            };
            counters.model_took(&session, &provider, first, asked.elapsed());
            // The actor is gone: the answer is asked for again when the session is opened.
            mailbox.send_blocking(Command::from(kind)).ok();
        });
        if !started {
            self.back(failed((turn, step, attempt), Failure::new(FailureKind::Overloaded, NO_THREAD), 0));
        }
    }

    /// Looks whether any endpoint of the agent answers.
    fn reach(&self, turn: u64) {
        let (agent, mailbox, hub) = (Arc::clone(&self.agent), self.mailbox.clone(), Arc::clone(&self.hub));
        let started = self.workers.spawn(move || {
            let endpoints = std::iter::once(&agent.endpoint).chain(&agent.fallbacks);
            let mut failures = endpoints.map_while(|endpoint| match endpoint.provider.reach() {
                Ok(()) => {
                    endpoint.circuit.seen(Instant::now());
                    None
                }
                Err(failure) => Some(failure.detail),
            });
            let failed: Vec<String> = failures.by_ref().collect();
            let back = failed.len() <= agent.fallbacks.len();
            if !back {
                hub.send(Published::status(turn, 0, &format!("offline: {}", failed.join("; "))));
            }
            mailbox.send_blocking(Command::from(InputKind::Reached { turn, back })).ok();
        });
        if !started {
            self.back(InputKind::Reached { turn, back: false });
        }
    }

    /// Puts an input into the mailbox from the actor itself.
    fn back(&self, kind: InputKind) {
        let (mailbox, command) = (self.mailbox.clone(), Command::from(kind));
        // The actor reads the mailbox, so it must not wait for room in it.
        if let Err(smol::channel::TrySendError::Full(command)) = mailbox.try_send(command) {
            std::thread::spawn(move || mailbox.send_blocking(command).ok());
        }
    }

    fn run_tool(&self, call: ToolCall, state: &State) {
        let (agent, limits) = (Arc::clone(&self.agent), Arc::clone(&self.limits));
        let place = prompt::place(&agent, state);
        let window = Fit::new(state, &agent.rules, agent.rules.model_at(place)).budget();
        let output_max = (window / OUTPUT_PARTS).max(OUTPUT_BYTES_MIN);
        let (session, dir) = (self.session.clone(), self.dir.clone());
        let (mailbox, cancel) = (self.mailbox.clone(), self.cancel.clone());
        let counters = Arc::clone(&self.counters);
        counters.one(Count::ToolCalls);
        self.workers.spawn(move || {
            let started = Instant::now();
            let mut outcome = run_call(&agent, &limits, &session, &dir, &call, output_max, &cancel);
            let time = started.elapsed();
            outcome.duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            counters.tool_took(&session, &call.name, time);
            mailbox.send_blocking(Command::from(InputKind::ToolDone { call_id: call.call_id, outcome })).ok();
        });
    }
}

fn is_attempt(phase: &Phase, wanted: u64) -> bool {
    matches!(phase, Phase::Model { attempt, .. } if *attempt == wanted)
}

fn failed((turn, step, attempt): (u64, u64, u64), failure: Failure, duration_ms: u64) -> InputKind {
    let Failure { kind, detail, retry_after_ms, context_tokens, worked } = failure;
    InputKind::Failed { turn, step, attempt, kind, detail, retry_after_ms, context_tokens, worked, duration_ms }
}

fn run_call(
    agent: &Agent,
    limits: &DeviceLimits,
    session: &str,
    dir: &std::path::Path,
    call: &ToolCall,
    output_max: usize,
    cancel: &Cancel,
) -> ToolOutcome {
    let refused = |result: String| ToolOutcome { result, ..ToolOutcome::default() };
    let Some(tool) = agent.tools.get(&call.name) else {
        return refused(format!("the tool {:?} is no longer on offer", call.name));
    };
    let workdir = match &agent.workdir {
        Workdir::Shared(path) => path.clone(),
        Workdir::PerSession => {
            let path = dir.join("work");
            if let Err(error) = file::create_dir(&path) {
                return refused(format!("cannot make the working directory {}: {error}", path.display()));
            }
            path
        }
    };
    let artifacts = dir.join("artifacts");
    let context = Context {
        sandbox: &*agent.sandbox,
        view: &agent.sandbox.view(Place { workdir: &workdir, artifacts: &artifacts }),
        artifacts: &artifacts,
        call_id: &call.call_id,
        session,
        deadline: limits.tool_time_max.min(agent.tool_time_max.unwrap_or(Duration::MAX)),
        output_bytes_max: limits.output_bytes_max.min(agent.output_bytes_max.unwrap_or(usize::MAX)).min(output_max),
        artifact_bytes_max: limits.artifact_bytes_max,
        cancel,
    };
    tool.run(&call.arguments, &context)
}
