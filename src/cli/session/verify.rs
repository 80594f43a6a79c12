//! `duragent session verify SESSION|--all`: reads every line of the log and its checksum, without taking the lease, so it
//! may run beside whoever has the session open.

use super::{named, store, stored, stored_id};
use crate::cli::{Common, Failure, args, print, text};
use crate::store::StoreError;
use crate::store::file::{Found, Tail};

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut all) = (None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("all") if session.is_none() => all = true,
            lexopt::Arg::Value(value) if session.is_none() && !all => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let session = if all { None } else { Some(named(session)?) };
    let store = store(&common.existing()?);
    let ids = match session {
        Some(prefix) => vec![stored_id(&store, &prefix)?],
        None => store.list().map_err(stored)?,
    };
    let (mut good, mut bad, mut checked) = (String::new(), Vec::new(), 0);
    for id in &ids {
        match store.verify(id, &mut |_| {}) {
            Ok(found) => match verdict(id, &found) {
                Ok(line) => good.push_str(&line),
                Err(error) => bad.push((id.as_str(), error)),
            },
            // A directory in which nothing was ever acknowledged is no session.
            Err(StoreError::NotFound(_)) if all => continue,
            Err(error) => bad.push((id.as_str(), error.to_string())),
        }
        checked += 1;
    }
    if bad.is_empty() {
        if checked == 0 {
            text::say("no sessions yet; begin one with: duragent run AGENT \"hello\"");
        }
        return print(&good);
    }
    let mut errors: Vec<&str> = bad.iter().map(|(_, error)| error.as_str()).collect();
    let sum = format!("{} of {} not intact", bad.len(), text::count(checked, "session"));
    if all {
        errors.push(&sum);
    }
    let remedy = bad
        .iter()
        .map(|(id, _)| format!("cut off what is broken, and keep the original, with: duragent session repair {id}"));
    Err(Failure::new(errors.join("\n")).hint(remedy.collect::<Vec<_>>().join("\n")))
}

/// One line for an intact log; what is wrong with another.
fn verdict(id: &str, found: &Found) -> Result<String, String> {
    let counts = format!(
        "{}, {}, {}",
        text::count(found.seq, "event"),
        text::count(found.bytes, "byte"),
        text::count(found.segments as u64, "segment")
    );
    match &found.tail {
        Tail::Clean => Ok(format!("{id}: intact, {counts}\n")),
        Tail::Torn { bytes, .. } => Ok(format!(
            "{id}: intact, {counts}; the last {} were never acknowledged and will be cut off, and kept, when it is opened\n",
            text::count(*bytes, "byte")
        )),
        Tail::Damaged(damage) => Err(damage.to_string()),
        Tail::TooNew(version) => Err(StoreError::TooNew { session: id.to_owned(), found: *version }.to_string()),
    }
}
