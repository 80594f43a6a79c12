//! A provider that fails again and again is left alone for a while, by all sessions together: whoever would ask it hears at once
//! that it is not asked, and can turn to another model or wait.
//!
//! Closed: everybody asks. Open after [`FAILURES_MAX`] failures in a row: nobody does, for a time that doubles. Then one
//! call is let through: its end decides. Absent: what is on disk. After a start every provider is given a chance.

use crate::provider::Failure;
use duragent_core::event::FailureKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which nobody asks any more: more than one step tries by itself.
pub const FAILURES_MAX: u32 = 5;
/// How long it is left alone at first.
const OPEN: Duration = Duration::from_secs(15);
/// And at most, unless it asks for more.
const OPEN_MAX: Duration = Duration::from_secs(300);
/// What those hear who come while one call is let through.
const SOON: Duration = Duration::from_secs(2);

/// What is known of a provider's health.
#[derive(Debug, Default)]
pub struct Circuit {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failures: u32,
    open_until: Option<Instant>,
    /// One call is let through.
    trying: bool,
}

impl Circuit {
    /// Whether a call may be made at `now`. If so, [`Circuit::ended`] has to follow.
    ///
    /// # Errors
    /// A failure that says how long to wait, and why.
    pub fn admit(&self, now: Instant) -> Result<(), Failure> {
        let mut inner = self.lock();
        let Some(until) = inner.open_until else { return Ok(()) };
        let wait = until.saturating_duration_since(now);
        if wait.is_zero() && !inner.trying {
            inner.trying = true;
            return Ok(());
        }
        let wait = wait.max(SOON);
        let seconds = wait.as_millis().div_ceil(1000);
        let detail =
            format!("not asked: it failed {} times in a row; it is tried again in {seconds} s", inner.failures);
        let retry_after_ms = u64::try_from(wait.as_millis()).ok();
        Err(Failure { retry_after_ms, ..Failure::new(FailureKind::Connect, detail) })
    }

    /// A call that was let through has ended: with an answer, or with this failure.
    pub fn ended(&self, failure: Option<&Failure>, now: Instant) {
        let mut inner = self.lock();
        inner.trying = false;
        let Some(failure) = failure else {
            *inner = Inner::default();
            return;
        };
        match failure.kind {
            FailureKind::Connect | FailureKind::Timeout | FailureKind::Overloaded => {}
            // It works, and turned this request away; or somebody hung up on it.
            FailureKind::Truncated => return,
            _ => {
                *inner = Inner::default();
                return;
            }
        }
        inner.failures = inner.failures.saturating_add(1);
        if let Some(doublings) = inner.failures.checked_sub(FAILURES_MAX) {
            let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
            inner.open_until = Some(now + (OPEN * (1 << doublings.min(5))).min(OPEN_MAX).max(asked));
        }
    }

    /// It was seen to answer something: the next call is let through.
    pub fn seen(&self, now: Instant) {
        let mut inner = self.lock();
        if inner.open_until.is_some() {
            inner.open_until = Some(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Circuit, FAILURES_MAX, OPEN, OPEN_MAX};
    use crate::provider::Failure;
    use duragent_core::event::FailureKind::{self, Connect, Invalid, Overloaded, Truncated};
    use std::time::{Duration, Instant};

    fn fail(circuit: &Circuit, kind: FailureKind, times: u32, now: Instant) {
        for _ in 0..times {
            circuit.ended(Some(&Failure::new(kind, "x")), now);
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_call_tries_again() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        fail(&circuit, Connect, FAILURES_MAX - 1, now);
        assert!(circuit.admit(now).is_ok(), "not yet");
        fail(&circuit, Overloaded, 1, now);
        let refused = circuit.admit(now).expect_err("open");
        assert_eq!((refused.kind, refused.retry_after_ms, refused.worked), (Connect, Some(15_000), false));
        let later = now + OPEN;
        assert!(circuit.admit(later).is_ok(), "one is let through");
        assert!(circuit.admit(later).is_err(), "and no other meanwhile");
        fail(&circuit, Connect, 1, later);
        assert!(circuit.admit(later + OPEN).is_err(), "longer than before");
        assert!(circuit.admit(later + OPEN * 2).is_ok());
        circuit.ended(None, later);
        assert!(circuit.admit(later).is_ok() && circuit.admit(later).is_ok(), "closed again");
    }

    #[test]
    fn it_is_open_for_no_longer_than_it_asks_for_or_five_minutes() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        fail(&circuit, Connect, 40, now);
        assert!(circuit.admit(now + OPEN_MAX).is_ok());
        let wait = Failure { retry_after_ms: Some(1_000_000), ..Failure::new(Overloaded, "x") };
        circuit.ended(Some(&wait), now);
        assert!(circuit.admit(now + OPEN_MAX).is_err());
        circuit.seen(now + Duration::from_secs(1));
        assert!(circuit.admit(now + Duration::from_secs(1)).is_ok(), "seen to answer");
    }

    #[test]
    fn what_is_no_outage_does_not_count() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        fail(&circuit, Connect, FAILURES_MAX - 1, now);
        fail(&circuit, Truncated, 10, now);
        assert!(circuit.admit(now).is_ok(), "hanging up is none");
        fail(&circuit, Invalid, 1, now);
        fail(&circuit, Connect, FAILURES_MAX - 1, now);
        assert!(circuit.admit(now).is_ok(), "whoever refuses works: counted from the start");
    }
}
