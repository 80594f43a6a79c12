//! The log that is open for writing: one write and one fdatasync a commit, rotation between commits.

use super::scan::{Found, Tail, segment_name};
use super::{LOG_NAME, StoreError, io_at};
use crate::store::{Batch, Committed, Durable, Log, Logged};
use duragent_core::event::{Body, Event};
use duragent_core::line::{self, CRC_START};
use duragent_platform::file::{self, Lease};
use duragent_platform::reserve::Reserve;
use duragent_platform::wear::{self, What};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct FileLog {
    dir: PathBuf,
    file: File,
    /// Length of the current segment: where the next line goes.
    length: u64,
    seq: u64,
    crc: u32,
    /// First seq of the current segment.
    segment_first: u64,
    segment_bytes_max: u64,
    /// Set before a commit begins and cleared when it has succeeded: whatever goes wrong in between, no later commit
    /// appends to an unknown tail.
    poisoned: bool,
    reserve: Option<Arc<Reserve>>,
    /// Given back when the log is dropped.
    _lease: Lease,
}

impl FileLog {
    /// An empty log in `dir`.
    pub(super) fn begin(dir: PathBuf, lease: Lease, segment_bytes_max: u64) -> Result<Self, StoreError> {
        let file = new_segment(&dir)?;
        let (length, seq, crc, segment_first) = (0, 0, CRC_START, 1);
        let (poisoned, reserve) = (false, None);
        Ok(Self { dir, file, length, seq, crc, segment_first, segment_bytes_max, poisoned, reserve, _lease: lease })
    }

    /// The same, with space for what has to be written on a full disk.
    pub(super) fn with_reserve(self, reserve: Option<Arc<Reserve>>) -> Self {
        Self { reserve, ..self }
    }

    /// The log that a scan found, with a torn tail moved to a file of its own, whose name is the second value.
    pub(super) fn resume(
        dir: PathBuf,
        lease: Lease,
        segment_bytes_max: u64,
        found: &Found,
    ) -> Result<(Self, Option<String>), StoreError> {
        let path = dir.join(LOG_NAME);
        let file = if path.exists() {
            OpenOptions::new().append(true).read(true).open(&path).map_err(io_at("cannot open", &path))?
        } else {
            new_segment(&dir)?
        };
        let mut saved_as = None;
        if let Tail::Torn { offset, bytes } = found.tail {
            saved_as = Some(save_tail(&dir, &file, offset, bytes)?);
            file.set_len(offset).map_err(io_at("cannot cut the torn tail off", &path))?;
        }
        // What was read may have been written by a process that died before its sync. It is acted on from here on.
        wear::synced(What::Log);
        file.sync_data().map_err(io_at("cannot sync", &path))?;
        file::sync_dir_of(What::Log, &dir).map_err(io_at("cannot sync", &dir))?;
        let Found { seq, crc, offset: length, segment_first, .. } = *found;
        let (poisoned, reserve) = (false, None);
        let log =
            Self { dir, file, length, seq, crc, segment_first, segment_bytes_max, poisoned, reserve, _lease: lease };
        Ok((log, saved_as))
    }

    /// How long the sync took is the value. `urgent` takes from the reserve if there is no space.
    fn append(&mut self, text: &str, urgent: bool) -> io::Result<Duration> {
        while let Err(error) = self.file.write_all(text.as_bytes()) {
            // Part of it may be there. Cut off, the tail is known again, or at least the next opening is spared a torn one.
            let known = self.file.set_len(self.length).is_ok();
            let given = |reserve: &Arc<Reserve>| reserve.give(text.len());
            if !known || !urgent || !file::is_full(&error) || !self.reserve.as_ref().is_some_and(given) {
                return Err(error);
            }
        }
        wear::wrote(What::Log, text.len());
        wear::synced(What::Log);
        let started = Instant::now();
        // On failure the pages may be lost although marked clean: never tried again on this descriptor.
        self.file.sync_data()?;
        Ok(started.elapsed())
    }

    /// Closes the current segment under its number and begins the next. All of it is synced already.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let closed = self.dir.join(segment_name(self.segment_first));
        fs::rename(self.dir.join(LOG_NAME), &closed).map_err(io_at("cannot rename to", &closed))?;
        self.file = new_segment(&self.dir)?;
        (self.length, self.segment_first) = (0, self.seq + 1);
        Ok(())
    }
}

impl Log for FileLog {
    fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        self.try_commit(batch).inspect_err(|error| {
            if let Some(reserve) = self.reserve.as_ref().filter(|_| error.is_disk_full()) {
                reserve.note_full();
            }
        })
    }
}

impl FileLog {
    fn try_commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        let path = self.dir.join(LOG_NAME);
        if self.poisoned {
            return Err(StoreError::Poisoned(path.display().to_string()));
        }
        if batch.events.is_empty() {
            // What causes these effects is in the log already.
            let effects = batch.effects.into_iter().map(Durable::mint).collect();
            return Ok(Committed { effects, ..Committed::default() });
        }
        self.poisoned = true;
        let (mut text, mut crc, mut seq) = (String::with_capacity(256 * batch.events.len()), self.crc, self.seq);
        let mut events = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            seq += 1;
            if event.seq != seq {
                let error = io::Error::other(format!("expected seq {seq}, found {}", event.seq));
                return Err(io_at("cannot append to", &path)(error));
            }
            let start = text.len();
            crc = line::encode(event, crc, &mut text);
            let (kind, line) = (event.body.kind().to_owned(), text[start..text.len() - 1].to_owned());
            events.push(Durable::mint(Logged { seq, kind, line }));
        }
        if self.length > 0 && self.length + text.len() as u64 > self.segment_bytes_max {
            self.rotate()?;
        }
        // What begins something can wait until there is space. What is told of something that has happened cannot.
        let begins = |event: &Event| matches!(event.body, Body::MessageReceived { .. } | Body::SessionCreated { .. });
        let urgent = !batch.events.iter().any(begins);
        let sync_time = self.append(&text, urgent).map_err(io_at("cannot append to", &path))?;
        (self.length, self.crc, self.seq, self.poisoned) = (self.length + text.len() as u64, crc, seq, false);
        let effects = batch.effects.into_iter().map(Durable::mint).collect();
        Ok(Committed { events, effects, bytes: text.len() as u64, sync_time })
    }
}

fn new_segment(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOG_NAME);
    let mut options = OpenOptions::new();
    options.append(true).read(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(io_at("cannot make", &path))?;
    wear::synced(What::Log);
    file.sync_all().map_err(io_at("cannot sync", &path))?;
    file::sync_dir_of(What::Log, dir).map_err(io_at("cannot sync", dir))?;
    Ok(file)
}

/// Copies the last `bytes` bytes of the log to a file beside it and returns its name.
fn save_tail(dir: &Path, log: &File, offset: u64, bytes: u64) -> Result<String, StoreError> {
    let name = format!("{LOG_NAME}.torn-{offset}");
    let path = dir.join(&name);
    let mut tail = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    std::os::unix::fs::FileExt::read_exact_at(log, &mut tail, offset).map_err(io_at("cannot read", dir))?;
    file::replace_of(What::Log, &path, &tail, 0o600).map_err(io_at("cannot save the torn tail as", &path))?;
    Ok(name)
}
