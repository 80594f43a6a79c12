//! Watching the executor: a task that is due and does not get to run says that another one holds the thread.
//!
//! Invariant: a server with nothing to do is not woken. The watch begins when something happens, and rests when nothing has
//! happened for a while.

use super::runtime::Runtime;
use super::tally::{Operation, Tally};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the watch goes on after something happened: whoever holds the thread does it within that.
const WATCH: Duration = Duration::from_secs(2);

/// Whether something happens.
pub(super) struct Activity {
    /// Set by whatever happens, cleared by the watch.
    seen: AtomicBool,
    /// A word here when it was not set.
    word: (smol::channel::Sender<()>, smol::channel::Receiver<()>),
}

impl Default for Activity {
    fn default() -> Self {
        Self { seen: AtomicBool::new(false), word: smol::channel::bounded(1) }
    }
}

impl Activity {
    fn note(&self) {
        if !self.seen.swap(true, Ordering::Relaxed) {
            // Full means that the word is there already.
            let _ = self.word.0.try_send(());
        }
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
        while tally.activity.word.1.recv().await.is_ok() {
            let mut rest = Instant::now() + WATCH;
            while Instant::now() < rest {
                let due = Instant::now() + step;
                smol::Timer::at(due).await;
                tally.took(Operation::Stall, due.elapsed(), &[]);
                if tally.activity.seen.swap(false, Ordering::Relaxed) {
                    rest = Instant::now() + WATCH;
                }
            }
            tally.activity.seen.store(false, Ordering::Relaxed);
        }
    }
}
