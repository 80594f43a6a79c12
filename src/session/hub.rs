//! Where a session's events go once they are durable: to whoever listens, shared between them.
//!
//! Invariants: an item is in memory once, however many listen, and no longer than until the last of them has taken it. One
//! that takes nothing holds back a named number of items and bytes; then it has lost its place and is told so. Nobody waits
//! for a listener.

use super::api::Published;
use crate::store::{Durable, Logged};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Items that wait for a slow listener before it is dropped: some seconds of a fast model's tokens.
pub const BACKLOG_ITEMS_MAX: usize = 512;

/// Bytes of them, for all listeners of a session together.
pub const BACKLOG_BYTES_MAX: usize = 512 * 1024;

/// Items that may wait whatever their size: what one commit publishes is one moment, and no reason to call anybody slow.
const BACKLOG_ITEMS_MIN: usize = 8;

/// Places of the backlog that are kept while it is empty.
const BACKLOG_KEPT: usize = 8;

/// The listeners of one session.
#[derive(Debug, Default)]
pub struct Hub {
    backlog: Mutex<Backlog>,
    listeners: AtomicUsize,
    durable_seq: AtomicU64,
}

/// Items that not all listeners have taken.
#[derive(Debug, Default)]
struct Backlog {
    items: VecDeque<Waiting>,
    /// Position of the first of them.
    first: u64,
    bytes: usize,
    /// Who waits for the next item, by listener; `None` in a place for one who does not, or that is free.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Waiting {
    item: Arc<Published>,
    /// Listeners that have not taken it.
    left: usize,
}

impl Hub {
    /// Last seq that is durable, as far as this process wrote or verified it.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    /// Says that everything up to `seq` is durable.
    pub(super) fn advance(&self, seq: u64) {
        self.durable_seq.fetch_max(seq, Ordering::AcqRel);
    }

    /// A new listener. It hears everything that is published from now on.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        let mut backlog = self.lock();
        let place = backlog.free.pop().unwrap_or_else(|| {
            backlog.wakers.push(None);
            backlog.wakers.len() - 1
        });
        self.listeners.fetch_add(1, Ordering::AcqRel);
        Subscription { hub: Arc::clone(self), place, position: backlog.end(), left: false }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Acquire)
    }

    /// Tells everybody of a durable event.
    pub(super) fn publish(&self, event: Durable<Logged>) {
        let Logged { seq, kind, line } = event.into_inner();
        self.advance(seq);
        self.send(Published::Event { seq, kind, line });
    }

    /// Tells everybody of something that is not in the log.
    pub(super) fn send(&self, item: Published) {
        if self.listeners() > 0 {
            let size = item.size();
            let item = Arc::new(item);
            self.lock().push(item, size, self.listeners());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog {
    /// Position behind the last item.
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn push(&mut self, item: Arc<Published>, size: usize, listeners: usize) {
        self.bytes += size;
        self.items.push_back(Waiting { item, left: listeners });
        while self.items.len() > BACKLOG_ITEMS_MAX
            || (self.bytes > BACKLOG_BYTES_MAX && self.items.len() > BACKLOG_ITEMS_MIN)
        {
            self.drop_first();
        }
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn drop_first(&mut self) {
        if let Some(dropped) = self.items.pop_front() {
            self.bytes -= dropped.item.size();
            self.first += 1;
        }
        if self.items.is_empty() && self.items.capacity() > BACKLOG_KEPT {
            self.items = VecDeque::new();
        }
    }

    /// Takes the item at `position` and moves on. `None` at the end.
    fn take(&mut self, position: &mut u64) -> Option<Result<Arc<Published>, Lost>> {
        if *position < self.first {
            return Some(Err(Lost));
        }
        let index = usize::try_from(*position - self.first).ok()?;
        let waiting = self.items.get_mut(index)?;
        waiting.left = waiting.left.saturating_sub(1);
        let item = Arc::clone(&waiting.item);
        *position += 1;
        self.drop_taken();
        Some(Ok(item))
    }

    fn drop_taken(&mut self) {
        while self.items.front().is_some_and(|waiting| waiting.left == 0) {
            self.drop_first();
        }
    }

    /// Counts one that will not come any more out of everything from `position` on.
    fn leave(&mut self, position: u64) {
        let from = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.items.iter_mut().skip(from).for_each(|waiting| waiting.left = waiting.left.saturating_sub(1));
        self.drop_taken();
    }
}

/// A listener's place. It listens until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    place: usize,
    position: u64,
    left: bool,
}

/// The listener was too slow: the item that it should have heard next is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Subscription {
    /// The next item.
    ///
    /// # Errors
    /// [`Lost`], again and again until [`Subscription::renew`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Published>, Lost>> {
        let mut backlog = self.hub.lock();
        if let Some(item) = backlog.take(&mut self.position) {
            return Poll::Ready(item);
        }
        if let Some(slot) = backlog.wakers.get_mut(self.place) {
            match slot {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *slot = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }

    /// The next item, if it is there already.
    pub fn ready(&mut self) -> Option<Arc<Published>> {
        self.hub.lock().take(&mut self.position)?.ok()
    }

    /// Forgets what was published so far.
    pub fn renew(&mut self) {
        let mut backlog = self.hub.lock();
        backlog.leave(self.position);
        self.position = backlog.end();
    }

    /// Stops listening, and says how many go on. Nothing can be asked of it afterwards.
    pub fn leave(&mut self) -> usize {
        let mut backlog = self.hub.lock();
        if std::mem::replace(&mut self.left, true) {
            return self.hub.listeners();
        }
        backlog.leave(self.position);
        if let Some(waker) = backlog.wakers.get_mut(self.place) {
            *waker = None;
        }
        backlog.free.push(self.place);
        let others = self.hub.listeners.fetch_sub(1, Ordering::AcqRel) - 1;
        if others == 0 {
            *backlog = Backlog::default();
        }
        others
    }

    /// What it listens to.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKLOG_BYTES_MAX, BACKLOG_ITEMS_MAX, BACKLOG_ITEMS_MIN, Hub, Lost, Subscription};
    use crate::session::api::Published;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    fn next(subscription: &mut Subscription) -> Poll<Result<usize, Lost>> {
        let mut cx = Context::from_waker(Waker::noop());
        subscription.poll_next(&mut cx).map_ok(|item| item.size())
    }

    /// Items and bytes that wait.
    fn held(hub: &Hub) -> (usize, usize) {
        let backlog = hub.lock();
        (backlog.items.len(), backlog.bytes)
    }

    fn token(bytes: usize) -> Published {
        Published::Token { data: "x".repeat(bytes) }
    }

    #[test]
    fn everybody_hears_everything_once_and_nothing_is_kept() {
        let hub = Arc::new(Hub::default());
        hub.send(token(1));
        let (mut a, mut b) = (hub.subscribe(), hub.subscribe());
        assert_eq!(next(&mut a), Poll::Pending, "what was said before is not heard");
        hub.send(token(2));
        let mut c = hub.subscribe();
        hub.send(token(3));
        for (subscription, expected) in [(&mut a, &[2, 3][..]), (&mut b, &[2, 3]), (&mut c, &[3])] {
            for size in expected {
                assert_eq!(next(subscription), Poll::Ready(Ok(*size)));
            }
            assert_eq!(next(subscription), Poll::Pending);
        }
        assert_eq!(held(&hub), (0, 0));
        hub.send(token(4));
        drop((a, b));
        assert_eq!((held(&hub), hub.listeners()), ((1, 4), 1), "one has not heard it");
        drop(c);
        assert_eq!((held(&hub), hub.listeners()), ((0, 0), 0));
    }

    #[test]
    fn who_takes_nothing_is_lost_and_holds_nobody_up() {
        let hub = Arc::new(Hub::default());
        let (mut slow, mut quick) = (hub.subscribe(), hub.subscribe());
        for _ in 0..=BACKLOG_ITEMS_MAX {
            hub.send(token(1));
            assert_eq!(next(&mut quick), Poll::Ready(Ok(1)));
        }
        assert_eq!(next(&mut slow), Poll::Ready(Err(Lost)));
        assert_eq!(next(&mut slow), Poll::Ready(Err(Lost)), "and stays so");
        slow.renew();
        assert_eq!(held(&hub), (0, 0));
        hub.send(token(7));
        assert_eq!((next(&mut slow), next(&mut quick)), (Poll::Ready(Ok(7)), Poll::Ready(Ok(7))));
    }

    #[test]
    fn large_items_count_by_their_bytes() {
        let hub = Arc::new(Hub::default());
        let (mut slow, half) = (hub.subscribe(), BACKLOG_BYTES_MAX / 2);
        for _ in 0..BACKLOG_ITEMS_MIN {
            hub.send(token(half));
        }
        assert_eq!(next(&mut slow), Poll::Ready(Ok(half)), "so many are kept whatever their size");
        for _ in 0..3 {
            hub.send(token(half));
        }
        assert_eq!(next(&mut slow), Poll::Ready(Err(Lost)));
        assert!(held(&hub).1 <= BACKLOG_ITEMS_MIN * half);
    }

    #[test]
    fn whoever_waits_is_woken() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (hub, count) = (Arc::new(Hub::default()), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&count));
        let mut subscription = hub.subscribe();
        let mut cx = Context::from_waker(&waker);
        for expected in 1..4 {
            // Twice, as a task that is woken by something else does.
            assert!(subscription.poll_next(&mut cx).is_pending() && subscription.poll_next(&mut cx).is_pending());
            hub.send(token(1));
            assert_eq!(count.0.load(Ordering::SeqCst), expected);
            assert!(subscription.poll_next(&mut cx).is_ready());
        }
    }
}
