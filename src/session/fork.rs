//! Forking: a new session whose log begins as another one did.

use crate::store::file::{FileStore, Tail};
use crate::store::{Batch, StoreError};
use duragent_core::event::{Body, Event, LOG_VERSION};

/// Events in one commit of the copy: bounds memory.
const BATCH_EVENTS: usize = 256;

/// Makes session `child` from the events of `parent` up to seq `limit`, cut back to the end of a turn.
pub(super) fn fork(store: &FileStore, parent: &str, child: &str, limit: u64) -> Result<(), StoreError> {
    let mut through = 1;
    let found = store.verify(parent, &mut |event| {
        if event.seq <= limit && matches!(event.body, Body::TurnFinished { .. }) {
            through = event.seq;
        }
    })?;
    match found.tail {
        Tail::Damaged(damage) => return Err(StoreError::Damaged(damage)),
        Tail::TooNew(found) => return Err(StoreError::TooNew { session: parent.to_owned(), found }),
        Tail::Clean | Tail::Torn { .. } => {}
    }
    let mut log = store.create(child)?;
    let (mut batch, mut next, mut failed) = (Batch::default(), 1, None);
    let mut copy = |event: Event, last: bool| {
        let body = match event.body {
            Body::SessionCreated { agent, title, .. } => {
                let parent = Some((parent.to_owned(), through));
                Body::SessionCreated { v: LOG_VERSION, session: child.to_owned(), agent, title, parent }
            }
            // Its fields are not known here; a fork is of what can be replayed.
            Body::Unknown { .. } | Body::SessionClosed { .. } => return,
            body => body,
        };
        batch.events.push(Event { seq: next, at_ms: event.at_ms, body });
        next += 1;
        if (last || batch.events.len() >= BATCH_EVENTS) && failed.is_none() {
            failed = log.commit(std::mem::take(&mut batch)).err();
        }
    };
    store.verify(parent, &mut |event| {
        if event.seq <= through {
            let last = event.seq == through;
            copy(event, last);
        }
    })?;
    failed.map_or(Ok(()), Err)
}
