//! Watching the executor: a task that is due and does not get to run says that another one holds the thread.
//!
//! Invariant: a server with nothing to do is not woken. The watch begins when something happens, and rests when nothing has
//! happened for a while; then free memory goes back to the system.

use super::runtime::Runtime;
use super::tally::{Operation, Tally};
use duragent_platform::process::release_memory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long the watch goes on after something happened: whoever holds the thread does it within that.
const WATCH: Duration = Duration::from_secs(2);

/// Whether something happens.
#[derive(Default)]
pub(super) struct Activity {
    /// Set by whatever happens, cleared by the watch.
    seen: AtomicBool,
    /// Of the watch while it rests.
    waker: Mutex<Option<Waker>>,
}

impl Activity {
    fn note(&self) {
        if !self.seen.swap(true, Ordering::SeqCst)
            && let Some(waker) = self.waker().take()
        {
            waker.wake();
        }
    }

    /// Ready once something happens.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        *self.waker() = Some(cx.waker().clone());
        // Looked at after it can be woken, so that nothing is missed in between.
        if self.seen.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Says that something happens on the executor.
    pub fn active(&self) {
        self.activity.note();
    }
}

impl Runtime {
    /// Reports stalls of the executor it is spawned on, for as long as that lives. Does nothing if stalls are not wanted.
    pub async fn watch_executor(self) {
        let tally = self.tally();
        let Some(max) = tally.stall_max() else { return };
        let step = (max / 2).max(Duration::from_millis(10));
        loop {
            smol::future::poll_fn(|cx| tally.activity.poll(cx)).await;
            let mut rest = Instant::now();
            while rest.elapsed() < WATCH {
                if tally.activity.seen.swap(false, Ordering::SeqCst) {
                    rest = Instant::now();
                }
                let due = Instant::now() + step;
                smol::Timer::at(due).await;
                tally.took(Operation::Stall, due.elapsed(), &[]);
            }
            // What it took is not needed again soon.
            release_memory();
        }
    }
}
