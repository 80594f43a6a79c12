//! Following a session: the log from a seq on, then live, without a gap and without a repetition.

use super::api::Published;
use super::hub::Hub;
use super::runtime::Runtime;
use smol::channel::Receiver;
use std::collections::VecDeque;
use std::sync::Arc;

/// Lines read from the log at a time: bounds what a slow reader holds in memory.
const PAGE_LINES: usize = 64;

/// A place in a session. Dropping it detaches; that never cancels a turn.
pub struct Follow {
    runtime: Runtime,
    session: String,
    hub: Arc<Hub>,
    receiver: Receiver<Arc<Published>>,
    /// Last seq that was handed out.
    after: u64,
    /// Last seq that comes from the log.
    through: u64,
    page: VecDeque<Arc<Published>>,
    ended: bool,
    /// Ended because it read too slowly.
    lagged: bool,
}

impl Follow {
    pub(super) fn new(
        runtime: Runtime,
        session: String,
        hub: Arc<Hub>,
        receiver: Receiver<Arc<Published>>,
        after: u64,
        through: u64,
    ) -> Self {
        runtime.tally().subscribed();
        Self { runtime, session, hub, receiver, after, through, page: VecDeque::new(), ended: false, lagged: false }
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
                self.ended = true;
                return Some(Arc::new(Published::Lagged));
            }
            let Ok(item) = self.receiver.recv().await else {
                (self.ended, self.lagged) = (true, true);
                return Some(Arc::new(Published::Lagged));
            };
            match &*item {
                Published::Event { seq, .. } if *seq <= self.after => {}
                Published::Event { seq, .. } => {
                    self.after = *seq;
                    return Some(item);
                }
                Published::Token { .. } => return Some(item),
                Published::Lagged | Published::Shutdown => {
                    self.ended = true;
                    return Some(item);
                }
            }
        }
    }

    /// False if the log could not be read: who comes back is told why.
    async fn read_page(&mut self) -> bool {
        let (store, session) = (self.runtime.shared.store.clone(), self.session.clone());
        let (after, through) = (self.after, self.through);
        let page = self
            .runtime
            .read(move || {
                let mut page = VecDeque::with_capacity(PAGE_LINES);
                store.read(&session, after, through, &mut |seq, line| {
                    let kind = duragent_core::line::peek_kind(line).unwrap_or_default().to_owned();
                    page.push_back((seq, Arc::new(Published::Event { seq, kind, line: line.to_owned() })));
                    page.len() < PAGE_LINES
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
        self.receiver.close();
        if self.hub.sweep() == 0 {
            self.runtime.last_one_left(&self.session);
        }
    }
}
