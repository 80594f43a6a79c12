//! What happens when the disk takes nothing more, and when it does again.
//!
//! Invariants: nothing new is begun while the disk is full; what was begun comes to its end, is written down with the help of the
//! reserve ([`duragent_platform::reserve`]), and is parked. Reading goes on. Nobody has to do anything but make room.
//!
//! Absent: making room. What may be deleted is said in the configuration ([`super::retention`]).

use super::actor::Command;
use super::api::ApiError;
use super::oneshot::oneshot;
use super::runtime::Runtime;
use duragent_core::session::{DISK_FULL, InputKind};
use duragent_platform::log::{self, Level, Value};
use duragent_platform::reserve::Reserve;
use std::io;
use std::time::Duration;

/// Pauses before the first looks at a full disk.
const LOOK_AFTER: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];
/// Between all others, for as long as it lasts.
const LOOK_LAST: Duration = Duration::from_secs(30);

/// Why nothing new is begun.
pub(super) fn no_space() -> ApiError {
    ApiError::DiskFull("the disk takes nothing at the moment; nothing new is begun until it does".to_owned())
}

impl Runtime {
    /// Fails if nothing new may be begun, because the disk is full or nearly so.
    pub(super) fn need_space(&self) -> Result<(), ApiError> {
        let low = self.shared.store.reserve().is_some_and(Reserve::is_low);
        self.note_space();
        if low { Err(no_space()) } else { Ok(()) }
    }

    /// Wakes whoever keeps the reserve if it is needed.
    pub(super) fn note_space(&self) {
        if self.shared.store.is_full() {
            // Told already is as good.
            self.shared.low.0.try_send(()).ok();
        }
    }

    /// True while the disk takes nothing.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shared.store.is_full()
    }

    /// Makes the reserve, if there is to be one; before sessions are taken up, so that they find it.
    ///
    /// # Errors
    /// If the disk does not take it: then it counts as full, and [`Runtime::keep_reserve`] has to do.
    pub async fn make_reserve(&self) -> io::Result<()> {
        let store = self.shared.store.clone();
        let made = self.write(move || Ok(store.reserve().map_or(Ok(()), Reserve::make))).await;
        made.unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
    }

    /// Makes the reserve again as soon as there is space, whenever it was given up, and goes on with what had to wait. Ends with
    /// the server.
    pub async fn keep_reserve(self) {
        while self.shared.low.1.recv().await.is_ok() && !self.is_draining() {
            let text = "the disk is full: nothing new is begun, what is under way comes to its end and waits";
            log::line(Level::Warn, text, &[]);
            self.shared.tidy.0.try_send(()).ok();
            let mut looks = LOOK_AFTER.iter();
            loop {
                let pause = looks.next().copied().unwrap_or(LOOK_LAST);
                self.pause(pause).await;
                if self.is_draining() {
                    return;
                }
                match self.make_reserve().await {
                    Ok(()) => break,
                    Err(error) if looks.len() + 1 == LOOK_AFTER.len() => {
                        let error = error.to_string();
                        log::line(Level::Warn, "the reserve is not made", &[&[("error", Value::Text(&error))]]);
                    }
                    Err(_) => {}
                }
            }
            // What was said meanwhile is old.
            self.shared.low.1.try_recv().ok();
            log::line(Level::Info, "the disk takes something again", &[]);
            self.go_on().await;
        }
    }

    /// Goes on with what was paused because the disk was full.
    async fn go_on(&self) {
        for handle in self.handles() {
            let (reply, answer) = oneshot();
            handle.mailbox.send(Command::Summary(reply)).await.ok();
            if answer.wait().await.is_some_and(|summary| summary.detail.as_deref() == Some(DISK_FULL)) {
                let resume = Command::from(InputKind::Resume { reason: "space".to_owned() });
                handle.mailbox.send(resume).await.ok();
            }
        }
        let unfinished = self.unfinished().await;
        let waiting = self.take_up(unfinished).await;
        self.take_up_in_time(waiting).await;
    }
}
