//! `duragent session repair SESSION`: cuts a damaged log before the damage, keeps the original beside it, and says so in
//! the log.

use super::{only_session, store, stored, stored_id};
use crate::cli::{Common, Failure, print, text};
use crate::store::file::{FileStore, Repaired, Tail};
use crate::store::{Batch, StoreError};
use duragent_core::event::{Body, Event};
use duragent_platform::clock;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let session = only_session(&mut parser)?;
    let dir = common.existing()?;
    let store = store(&dir);
    let id = stored_id(&store, &session)?;
    // Nothing is cut before it is known that something will be left.
    let found = store.verify(&id, &mut |_| {}).map_err(stored)?;
    if let Tail::TooNew(found) = found.tail {
        return Err(stored(StoreError::TooNew { session: id, found }));
    }
    if found.seq == 0 {
        let error = format!("session {id:?} cannot be repaired: not even its first line is intact");
        let hint = format!("nothing was changed; to give the name free, move {} away", store.dir(&id).display());
        return Err(Failure::new(error).hint(hint));
    }
    let repaired = store.repair(&id).map_err(stored)?;
    let Some(damage) = &repaired.damage else {
        return print(&format!("session {id} is intact, nothing was changed\n"));
    };
    record(&store, &id, &repaired).map_err(stored)?;
    let mut out = format!("repaired {id}: {damage}\n");
    out.push_str(&format!("kept     {}\n", text::count(repaired.kept, "event")));
    out.push_str(&format!("dropped  {}\n", text::count(repaired.dropped_bytes, "byte")));
    for name in &repaired.saved_as {
        out.push_str(&format!("original {}\n", store.dir(&id).join(name).display()));
    }
    print(&out)
}

/// Writes down what was done, as the next event of the log.
fn record(store: &FileStore, id: &str, repaired: &Repaired) -> Result<(), StoreError> {
    let mut last = 0;
    let mut opened = store.open(id, &mut |event| last = event.seq)?;
    let body = Body::SessionRecovered {
        reason: "repaired".to_owned(),
        dropped_bytes: repaired.dropped_bytes,
        saved_as: Some(repaired.saved_as.join(", ")),
        turn: None,
        crashes: 0,
    };
    let event = Event { seq: last + 1, at_ms: clock::wall_ms(), body };
    opened.log.commit(Batch { events: vec![event], effects: Vec::new() })?;
    Ok(())
}
