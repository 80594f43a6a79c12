//! One value for one waiter, which is how an answer comes back from another thread or from a session.
//!
//! Made of a slot and a channel of nothing: a channel of values would be compiled anew for each of the many kinds, at 2 kB
//! each (docs/adr/0002).

use smol::channel;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the value is put. Dropping it tells the waiter that none will come.
pub struct Giver<T> {
    slot: Arc<Mutex<Option<T>>>,
    done: channel::Sender<()>,
}

/// Where the value is waited for.
pub struct Waiter<T> {
    slot: Arc<Mutex<Option<T>>>,
    done: channel::Receiver<()>,
}

/// The two ends.
#[must_use]
pub fn oneshot<T>() -> (Giver<T>, Waiter<T>) {
    let (slot, (sender, receiver)) = (Arc::default(), channel::bounded(1));
    (Giver { slot: Arc::clone(&slot), done: sender }, Waiter { slot, done: receiver })
}

impl<T> Giver<T> {
    /// Gives the value; that nobody waits for it any more does no harm. A second value is in vain.
    pub fn give(&self, value: T) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.done.close();
    }

    /// True if nobody waits.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.done.is_closed()
    }
}

impl<T> Waiter<T> {
    /// Waits for the value; `None` if it was never given.
    pub async fn wait(self) -> Option<T> {
        // Nothing is ever sent: the end of the channel is the word.
        let _ = self.done.recv().await;
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::oneshot;

    #[test]
    fn the_value_arrives_whichever_end_is_first_and_its_absence_too() {
        smol::block_on(async {
            let (giver, waiter) = oneshot();
            giver.give(7);
            assert_eq!(waiter.wait().await, Some(7));

            let (giver, waiter) = oneshot();
            let thread = std::thread::spawn(move || smol::block_on(waiter.wait()));
            giver.give("late".to_owned());
            assert_eq!(thread.join().unwrap(), Some("late".to_owned()));

            let (giver, waiter) = oneshot::<u8>();
            drop(giver);
            assert_eq!(waiter.wait().await, None);

            let (giver, waiter) = oneshot::<u8>();
            assert!(!giver.is_unheard(), "control");
            drop(waiter);
            assert!(giver.is_unheard());
            giver.give(1);
        });
    }
}
