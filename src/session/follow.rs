//! Following a session: the log from a seq on, then live, without a gap and without a repetition.

use super::api::Published;
use super::hub::{Lost, Subscription};
use super::runtime::Runtime;
use smol::future::poll_fn;
use std::collections::VecDeque;
use std::sync::Arc;

/// Lines read from the log at a time, and bytes after which no more are: bound what a slow reader holds in memory.
const PAGE_LINES_MAX: usize = 64;
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// A place in a session. Dropping it detaches; that never cancels a turn.
pub struct Follow {
    runtime: Runtime,
    session: String,
    live: Subscription,
    /// Last seq that was handed out.
    after: u64,
    /// Last seq that comes from the log.
    through: u64,
    /// True until the first item that did not come from the log.
    catching_up: bool,
    page: VecDeque<Arc<Published>>,
    ended: bool,
    /// Ended because it read too slowly.
    lagged: bool,
}

impl Follow {
    pub(super) fn new(runtime: Runtime, session: String, live: Subscription, after: u64, through: u64) -> Self {
        runtime.tally().subscribed();
        let page = VecDeque::new();
        Self { runtime, session, live, after, through, catching_up: true, page, ended: false, lagged: false }
    }

    /// The next item. `None` after the last one: [`Published::Lagged`] or [`Published::Shutdown`].
    pub async fn next(&mut self) -> Option<Arc<Published>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(item) = self.page.pop_front() {
                return Some(item);
            }
            if self.after < self.through {
                if self.read_page().await {
                    continue;
                }
                return self.end(Published::Lagged);
            }
            // What the page took is given back: from here on most wait for hours.
            self.page = VecDeque::new();
            let item = match poll_fn(|cx| self.live.poll_next(cx)).await {
                Ok(item) => item,
                // A long log took its time to be read: what has come in meanwhile is in the log too.
                Err(Lost) if self.catching_up => {
                    self.live.renew();
                    self.through = self.live.hub().durable_seq();
                    continue;
                }
                Err(Lost) => {
                    self.lagged = true;
                    return self.end(Published::Lagged);
                }
            };
            if let Some(item) = self.heard(item) {
                return Some(item);
            }
        }
    }

    /// The next item, if nothing has to be waited for.
    pub fn ready(&mut self) -> Option<Arc<Published>> {
        if let Some(item) = self.page.pop_front() {
            return Some(item);
        }
        // What is in the log comes first, and has to be read.
        while !self.ended && self.after >= self.through {
            let item = self.live.ready()?;
            if let Some(item) = self.heard(item) {
                return Some(item);
            }
        }
        None
    }

    /// Moves on to `item`, which was published. `None` if it was read from the log already.
    fn heard(&mut self, item: Arc<Published>) -> Option<Arc<Published>> {
        match &*item {
            Published::Event { seq, .. } if *seq <= self.after => return None,
            Published::Event { seq, .. } => (self.after, self.catching_up) = (*seq, false),
            Published::Token { .. } | Published::Status { .. } => self.catching_up = false,
            Published::Lagged | Published::Shutdown => self.ended = true,
        }
        Some(item)
    }

    fn end(&mut self, last: Published) -> Option<Arc<Published>> {
        self.ended = true;
        Some(Arc::new(last))
    }

    /// False if the log could not be read: who comes back is told why.
    async fn read_page(&mut self) -> bool {
        let (store, session) = (self.runtime.shared.store.clone(), self.session.clone());
        let (after, through) = (self.after, self.through);
        let page = self
            .runtime
            .read(move || {
                let (mut page, mut bytes) = (VecDeque::new(), 0);
                store.read(&session, after, through, &mut |seq, line| {
                    let kind = duragent_core::line::peek_kind(line).unwrap_or_default().to_owned();
                    page.push_back((seq, Arc::new(Published::Event { seq, kind, line: line.to_owned() })));
                    bytes += line.len();
                    page.len() < PAGE_LINES_MAX && bytes < PAGE_BYTES_MAX
                })?;
                Ok(page)
            })
            .await;
        let Ok(page) = page else { return false };
        // An empty page: the log was cut by hand below what was promised.
        let Some((last, _)) = page.back() else { return false };
        self.after = *last;
        self.page = page.into_iter().map(|(_, item)| item).collect();
        true
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.runtime.tally().unsubscribed(self.lagged);
        if self.live.leave() == 0 {
            self.runtime.last_one_left(&self.session);
        }
    }
}
