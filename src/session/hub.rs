//! Where a session's events go once they are durable: to whoever listens, shared between them.

use super::api::Published;
use crate::store::{Durable, Logged};
use smol::channel::{self, Receiver, Sender};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Items that wait for a slow reader before it is dropped: some seconds of a fast model's tokens.
pub const SUBSCRIBER_QUEUE_MAX: usize = 512;

/// The listeners of one session.
#[derive(Debug, Default)]
pub struct Hub {
    senders: Mutex<Vec<Sender<Arc<Published>>>>,
    listeners: AtomicUsize,
    durable_seq: AtomicU64,
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
    pub fn subscribe(&self) -> Receiver<Arc<Published>> {
        // Not `bounded`, which allocates all its places at once: most subscribers of most sessions hear nothing for hours.
        let (sender, receiver) = channel::unbounded();
        let mut senders = self.lock();
        senders.retain(|s| !s.is_closed());
        senders.push(sender);
        self.listeners.store(senders.len(), Ordering::Release);
        receiver
    }

    /// How many listen. May count some that left since the last publication.
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Acquire)
    }

    /// Forgets listeners that left, and says how many are left.
    pub(super) fn sweep(&self) -> usize {
        let mut senders = self.lock();
        senders.retain(|s| !s.is_closed());
        self.listeners.store(senders.len(), Ordering::Release);
        senders.len()
    }

    /// Tells everybody of a durable event.
    pub(super) fn publish(&self, event: Durable<Logged>) {
        let Logged { seq, kind, line } = event.into_inner();
        self.advance(seq);
        if self.listeners() > 0 {
            self.send(&Arc::new(Published::Event { seq, kind, line }));
        }
    }

    /// Tells everybody of something that is not in the log.
    pub(super) fn send(&self, item: &Arc<Published>) {
        let mut senders = self.lock();
        senders.retain(|sender| {
            if sender.len() >= SUBSCRIBER_QUEUE_MAX {
                // What is queued can still be read: the reader finds the end and comes back by seq.
                sender.close();
            }
            sender.try_send(Arc::clone(item)).is_ok()
        });
        self.listeners.store(senders.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sender<Arc<Published>>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
