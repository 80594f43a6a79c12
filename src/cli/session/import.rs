//! `duragent session import FILE [--id NEW]`: makes a session of an export.
//!
//! The file is read twice. First every line is checked: its checksum, its place, and that this build would write it the
//! same way; a line that it would not is refused, because importing it would lose something. Then the events are written to
//! a session of their own, which gets its name when all of it is on disk, so that a crash leaves all or nothing.
//!
//! Without `--id` the session has the id it had, and its log is the same byte for byte. With `--id` the first line carries
//! the new id and, as `parent`, the old one with its last seq; every other event is the same, and checksums are new.
//!
//! Absent: artifacts, which an export does not hold.

use super::{store, store_in, stored};
use crate::cli::{Common, Failure, args, print, text};
use crate::store::file::FileStore;
use crate::store::{Batch, StoreError};
use duragent_core::event::{Body, Event, LOG_VERSION};
use duragent_core::ids;
use duragent_core::line::{self, CRC_START, LINE_BYTES_MAX};
use duragent_platform::file;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Events in one commit: bounds memory.
const BATCH_EVENTS: usize = 256;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut source, mut new) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("id") => new = Some(id(args::text(parser.value()?)?)?),
            lexopt::Arg::Value(value) if source.is_none() => source = Some(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = || Failure { code: 2, error: "expected a file, found none".to_owned(), hint: None };
    let source = source.ok_or_else(missing)?;
    let dir = common.existing()?;
    let store = store(&dir);
    let (mut old, mut last) = (String::new(), 0);
    read(&source, &mut |event| {
        if let Body::SessionCreated { session, .. } = &event.body {
            old.clone_from(session);
        }
        last = event.seq;
        Ok(())
    })?;
    let parent = new.is_some().then(|| (old.clone(), last));
    let id = new.unwrap_or(old);
    if store.list().map_err(stored)?.contains(&id) {
        return Err(stored(StoreError::Exists(id)));
    }
    put(&store, &dir, &source, &id, parent)?;
    print(&format!("{id}: {} imported\n", text::count(last, "event")))
}

fn id(text: String) -> Result<String, Failure> {
    if ids::is_id(&text) {
        return Ok(text);
    }
    let error = ids::InvalidId { found: text }.to_string();
    Err(Failure::usage(format!("--id: {error}"), "leave --id out to keep the id it had"))
}

/// Writes the events under a name that no list shows, then gives the session its own.
fn put(store: &FileStore, dir: &Path, source: &Path, id: &str, parent: Option<(String, u64)>) -> Result<(), Failure> {
    let stage = dir.join("sessions").join(format!(".import-{}", std::process::id()));
    let written = write(&store_in(dir, stage.clone()), source, id, parent).and_then(|()| {
        let target = store.dir(id);
        let moved = fs::rename(stage.join(id), &target).and_then(|()| file::sync_dir(&file::parent_of(&target)));
        moved.map_err(|error| Failure::new(format!("cannot make {}: {error}", target.display())))
    });
    // Left behind, it would only take space: no list shows it.
    fs::remove_dir_all(&stage).ok();
    written
}

fn write(stage: &FileStore, source: &Path, id: &str, parent: Option<(String, u64)>) -> Result<(), Failure> {
    let mut log = stage.create(id).map_err(stored)?;
    let mut batch = Batch::default();
    let mut commit = |batch: &mut Batch| log.commit(std::mem::take(batch)).map(drop).map_err(stored);
    read(source, &mut |mut event| {
        if let Body::SessionCreated { session, parent: from, .. } = &mut event.body
            && parent.is_some()
        {
            id.clone_into(session);
            from.clone_from(&parent);
        }
        batch.events.push(event);
        if batch.events.len() >= BATCH_EVENTS { commit(&mut batch) } else { Ok(()) }
    })?;
    commit(&mut batch)
}

/// Hands every event of the file to `each`; stops at the first line that is not what it has to be.
fn read(source: &Path, each: &mut dyn FnMut(Event) -> Result<(), Failure>) -> Result<(), Failure> {
    let name = source.display();
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {name}: {error}"));
    let mut reader = BufReader::new(File::open(source).map_err(failed)?);
    let (mut text, mut again, mut crc) = (Vec::new(), String::new(), CRC_START);
    for seq in 1.. {
        text.clear();
        let n = (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut text).map_err(failed)?;
        if n == 0 && seq > 1 {
            break;
        }
        let wrong = |what: String| {
            Failure::new(format!("{name}:{seq}: {what}")).hint("nothing was imported; export the session once more")
        };
        if n > LINE_BYTES_MAX {
            return Err(wrong(format!("line longer than {LINE_BYTES_MAX} bytes")));
        }
        if text.pop_if(|last| *last == b'\n').is_none() {
            return Err(wrong("expected a line of the log with a line feed, found the end of the file".to_owned()));
        }
        let (event, next) = line::decode(&text, crc).map_err(|error| wrong(error.to_string()))?;
        if event.seq != seq {
            return Err(wrong(format!("expected seq {seq}, found {}", event.seq)));
        }
        match &event.body {
            Body::SessionCreated { v, .. } if *v != LOG_VERSION => {
                return Err(wrong(format!("expected log version {LOG_VERSION}, found {v}")));
            }
            Body::SessionCreated { session, .. } if seq == 1 && ids::is_id(session) => {}
            Body::SessionCreated { .. } => {
                return Err(wrong("expected one session_created, first, with an id".to_owned()));
            }
            body if seq == 1 => return Err(wrong(format!("expected session_created first, found {}", body.kind()))),
            _ => {}
        }
        again.clear();
        line::encode(&event, crc, &mut again);
        if again.trim_end_matches('\n').as_bytes() != text {
            let kind = event.body.kind();
            return Err(wrong(format!("this {kind} holds something that this build does not know and would lose")));
        }
        crc = next;
        each(event)?;
    }
    Ok(())
}
