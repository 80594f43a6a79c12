//! What follows from a model call that came to nothing: the same model is asked again, the next one of the chain is, the turn is
//! parked until one can be reached, or it fails.

use super::ask::{Fit, place};
use super::decide::{DETAIL_BYTES_MAX, Draft, clip};
use super::input::{Effect, Timer};
use super::state::OFFLINE;
use super::turn::{Phase, Turn};
use crate::crc::crc32c;
use crate::event::{Body, FailureKind, TurnReason};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// First pause before a model is asked again, in milliseconds; doubles with each attempt.
const BACKOFF_MS: u64 = 500;
/// The same for a server that is there but not ready, as one that loads a model: that takes longer than a hiccup.
const BACKOFF_BUSY_MS: u64 = 2000;
/// Longest pause we choose ourselves. A server may ask for a longer one.
const BACKOFF_MS_MAX: u64 = 30_000;
/// Longest pause a server may ask for.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// A server that wants a longer pause than this is not waited for if there is another model to ask.
const PATIENCE_MS: u64 = 10_000;
/// Answers with a malformed call that are handed back to the model, one after the other.
const BAD_CALLS_MAX: u64 = 2;
/// Times that a prompt is made shorter in a turn because the model says that it is too long.
const TOO_LONG_MAX: u64 = 3;
/// First pause of a parked turn whose provider answers but does not work; doubles.
const PARKED_MS: u64 = 30_000;
/// Longest.
const PARKED_MS_MAX: u64 = 600_000;
/// Times that a turn is parked without an answer between; eight hours of a provider that answers and does not work.
const PARKS_MAX: u64 = 50;
/// First pause between two tries to reach a provider.
const REACH_MS: u64 = 2000;
/// Longest: what a person would wait who has plugged the cable in again.
const REACH_MS_MAX: u64 = 60_000;

/// A failure, as it came in.
pub(super) struct Failed<'a> {
    pub(super) kind: FailureKind,
    pub(super) detail: &'a str,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) context_tokens: Option<u64>,
    pub(super) worked: bool,
    pub(super) duration_ms: u64,
}

impl Draft<'_> {
    pub(super) fn failed(&mut self, asked: (u64, u64, u64), failure: &Failed<'_>) {
        let Some(turn) = self.asked(asked).cloned() else { return };
        let kind = failure.kind;
        let log = |draft: &mut Self, retry_at_ms: Option<u64>| {
            draft.event(Body::ModelFailed {
                turn: turn.turn,
                step: turn.step,
                attempt: asked.2,
                kind,
                detail: clip(failure.detail, DETAIL_BYTES_MAX).to_owned(),
                retry_at_ms,
                worked: failure.worked,
                context_tokens: failure.context_tokens,
                duration_ms: failure.duration_ms,
            });
        };
        if matches!(turn.phase, Phase::Model { summary: true, .. }) {
            // Not worth another try: the conversation goes on without it.
            log(self, None);
            let fit = Fit::new(self.state, self.rules, self.model(&turn));
            return match self.state.history.cut(fit.budget() / 2) {
                Some(cut) => self.leave_out(&fit, cut),
                None => self.ask(&turn, turn.step, asked.2 + 1),
            };
        }
        // Both are followed by another request at once: with the complaint, or with a shorter prompt.
        let mended = match kind {
            FailureKind::BadToolCall => turn.bad_calls < BAD_CALLS_MAX,
            FailureKind::TooLong => turn.too_long < TOO_LONG_MAX,
            _ => false,
        };
        if mended {
            return log(self, Some(self.at_ms));
        }
        let next = (kind != FailureKind::BadToolCall).then(|| self.next_model(&turn)).flatten();
        let pause = failure.retry_after_ms.unwrap_or_else(|| self.backoff(kind, turn.tries));
        let pause = pause.min(RETRY_AFTER_MS_MAX);
        let again = kind.is_retryable() && kind != FailureKind::BadToolCall;
        let patient = next.is_none() || pause <= PATIENCE_MS;
        if again && turn.tries + 1 < self.rules.limits.attempts_max && patient {
            log(self, Some(self.at_ms.saturating_add(pause)));
            let timer = Timer::Retry { turn: turn.turn, step: turn.step, attempt: asked.2 };
            return self.effect(Effect::SetTimer { after_ms: pause, timer });
        }
        log(self, None);
        if let Some((provider, model)) = next {
            let (from_provider, from_model) = turn.asked;
            let (turn, step, reason) = (turn.turn, turn.step, kind);
            return self.event(Body::ModelSwitched { turn, step, from_provider, from_model, provider, model, reason });
        }
        let away = matches!(kind, FailureKind::Connect | FailureKind::Timeout | FailureKind::Overloaded);
        if away && self.rules.limits.offline_ms_max > 0 && turn.parks < PARKS_MAX {
            return self.park(&turn, failure);
        }
        self.finish_turn(&turn, TurnReason::Failed, Some(failure.detail));
    }

    /// The model of the chain behind the one that `turn` asks.
    fn next_model(&self, turn: &Turn) -> Option<(String, String)> {
        let next = self.rules.fallbacks.get(place(self.rules, turn))?;
        Some((next.provider.clone(), next.name.clone()))
    }

    /// Doubles with each try. Spread over a quarter, by the session and the time: those that failed together do not come
    /// back together.
    fn backoff(&self, kind: FailureKind, tries: u64) -> u64 {
        let first = if kind == FailureKind::Overloaded { BACKOFF_BUSY_MS } else { BACKOFF_MS };
        let base = first.saturating_mul(1 << tries.min(10)).min(BACKOFF_MS_MAX);
        let seed = self.at_ms ^ u64::from(crc32c(self.state.id.as_bytes())) << 16;
        base - (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % (base / 4 + 1)
    }

    /// Nobody can be reached: the turn waits on disk until somebody can.
    fn park(&mut self, turn: &Turn, failure: &Failed<'_>) {
        let pause = match failure.kind {
            FailureKind::Overloaded => (PARKED_MS << turn.parks.min(5)).min(PARKED_MS_MAX),
            _ => REACH_MS,
        };
        let pause = pause.max(failure.retry_after_ms.unwrap_or(0)).min(RETRY_AFTER_MS_MAX);
        let retry_at_ms = Some(self.at_ms.saturating_add(pause));
        self.paused = true;
        self.event(Body::SessionPaused { reason: OFFLINE.to_owned(), retry_at_ms });
        self.watch(turn.turn, pause);
    }

    /// Looks for a provider after a while, and gives the turn up after a longer one.
    pub(super) fn watch(&mut self, turn: u64, after_ms: u64) {
        self.effect(Effect::SetTimer { after_ms, timer: Timer::Online { turn } });
        let after_ms = self.rules.limits.offline_ms_max;
        self.effect(Effect::SetTimer { after_ms, timer: Timer::Offline { turn } });
    }

    /// A provider answered, or none did.
    pub(super) fn reached(&mut self, turn: u64, back: bool) {
        let parked = self.state.turn.as_ref().is_some_and(|t| t.turn == turn) && self.state.offline_until_ms.is_some();
        if !parked {
            return;
        }
        if back {
            return self.unpause("online");
        }
        // The longer it has been away, the longer until the next look. The wall clock may have jumped: both ends are fixed.
        let away = self.at_ms.saturating_sub(self.state.last_at_ms);
        let after_ms = (away / 4).clamp(REACH_MS, REACH_MS_MAX);
        self.effect(Effect::SetTimer { after_ms, timer: Timer::Online { turn } });
    }

    /// It was parked for long enough.
    pub(super) fn given_up(&mut self, turn: &Turn) {
        let seconds = self.rules.limits.offline_ms_max / 1000;
        let (provider, model) = (&turn.asked.0, &turn.asked.1);
        let detail = format!("offline_seconds_max: {provider}/{model} could not be reached for {seconds} s");
        self.abort_turn(turn, TurnReason::Failed, Some(&detail), "offline");
    }
}
