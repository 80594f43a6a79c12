//! `duragent restore FILE|-`: a workspace out of a backup, whole or not at all.
//!
//! Everything is unpacked into a folder beside the new workspace, verified there (the list of files, every log and its checksums, the last
//! seq of each session), synced, and given its name at the very end.
//!
//! Invariants: nothing that is there is changed; a file can only come to be inside the new workspace; a backup of a later form
//! or log version is refused before anything of it is kept.
//!
//! Absent: single sessions (`session import`), and restoring into a workspace that is there.

use super::backup::{self, ABOUT, FORM, MANIFEST, SESSIONS, WORKSPACE, archive, cannot, is_kept, is_temporary};
use super::connect::Connection;
use super::{Common, Failure, args, print, text};
use crate::store::file::{FileStore, Tail};
use archive::{Entry, Reader};
use duragent_core::event::LOG_VERSION;
use duragent_core::ids::is_id;
use duragent_platform::{file, process};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most bytes of the texts that the backup adds: two hundred thousand names of three hundred bytes, and their hashes.
const TEXT_BYTES_MAX: u64 = 80 << 20;

pub fn run(mut common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut source = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("dir") => common.dir = Some(parser.value()?.into()),
            lexopt::Arg::Value(value) if source.is_none() => source = Some(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = || Failure { code: 2, error: "expected a file, found none".to_owned(), hint: None };
    let source = source.ok_or_else(missing)?;
    let target = common.workspace();
    let target = std::path::absolute(&target).map_err(cannot("find", &target))?;
    free(&target)?;
    let (name, mut from): (String, Box<dyn Read>) = if source.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let file = File::open(&source).map_err(cannot("read", &source))?;
        (source.display().to_string(), Box::new(BufReader::with_capacity(64 * 1024, file)))
    };
    sweep(&target);
    let stage = file::temporary_beside(&target).map_err(cannot("make", &target))?;
    file::create_dir(&stage).map_err(cannot("make", &stage))?;
    let restored = Restore { stage: &stage, name: &name, folders: BTreeSet::new() }.all(&mut from).and_then(|done| {
        // An empty folder gives way; anything else does not (rename(2)).
        fs::rename(&stage, &target).map_err(cannot("make", &target))?;
        let parent = file::parent_of(&target);
        file::sync_dir(&parent).map_err(cannot("sync", &parent))?;
        Ok(done)
    });
    if restored.is_err() {
        // What is left is hidden, and named so that the next one removes it.
        fs::remove_dir_all(&stage).ok();
    }
    let done = restored?;
    print(&format!("{}: {done}\nNext: duragent --dir {} check\n", target.display(), target.display()))
}

/// Nothing may be where the workspace is to be.
fn free(target: &Path) -> Result<(), Failure> {
    let hint = "a workspace that is there is not changed: move it away, or name another place with --dir";
    let entries = match fs::read_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("use", target)(error).hint(hint)),
        Ok(entries) => entries,
    };
    if Connection::server(target).is_some() {
        let error = format!("a server runs in {}: expected an empty place", target.display());
        return Err(Failure::new(error).hint("stop it with TERM, and move its workspace away"));
    }
    if entries.count() > 0 {
        return Err(Failure::new(format!("{} is there already: expected an empty place", target.display())).hint(hint));
    }
    Ok(())
}

/// Removes what restores to the same place have left that were killed.
fn sweep(target: &Path) {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let start = [".", &name, ".duragent-"].concat();
    for entry in fs::read_dir(file::parent_of(target)).into_iter().flatten().flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let pid = found.strip_prefix(&start).and_then(|rest| rest.split('-').next()?.parse().ok());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && pid.is_some_and(|pid| !process::is_alive(pid)) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

struct Restore<'r> {
    stage: &'r Path,
    /// Of the backup, for messages.
    name: &'r str,
    /// Folders that were made, to be synced.
    folders: BTreeSet<PathBuf>,
}

impl Restore<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{}: {what}", self.name)).hint("nothing was restored; take another backup")
    }

    fn io(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.wrong("expected a whole backup, found the end of the file"),
            io::ErrorKind::StorageFull => cannot("unpack into", self.stage)(io::Error::from(error.kind())),
            _ => self.wrong(error),
        }
    }

    /// Unpacks and verifies all of it, and says what it was.
    fn all(mut self, from: &mut dyn Read) -> Result<String, Failure> {
        let mut reader = Reader::new(from);
        let first = reader.next().map_err(|error| self.io(&error))?.filter(|entry| entry.name == ABOUT);
        let first = first.ok_or_else(|| self.wrong("expected a backup, found another archive"))?;
        let about = self.text(&mut reader, &first)?;
        self.check_form(&about)?;
        let (mut files, mut sessions) = (0, None);
        loop {
            let entry = reader.next().map_err(|error| self.io(&error))?;
            let entry = entry.ok_or_else(|| self.wrong(format!("expected {MANIFEST} at its end, found none")))?;
            match entry.name.strip_prefix(WORKSPACE) {
                Some(path) if sessions.is_none() => {
                    self.unpack(&mut reader, &entry, path)?;
                    files += 1;
                }
                None if entry.name == SESSIONS && sessions.is_none() => {
                    sessions = Some(self.text(&mut reader, &entry)?)
                }
                None if entry.name == MANIFEST && sessions.is_some() => {
                    let found = std::mem::take(&mut reader.list);
                    if self.text(&mut reader, &entry)? != found {
                        return Err(
                            self.wrong(format!("{MANIFEST} lists other files, or other contents, than there are"))
                        );
                    }
                    break;
                }
                _ => return Err(self.wrong(format!("{:?} is not expected there", entry.name))),
            }
        }
        if reader.next().map_err(|error| self.io(&error))?.is_some() {
            return Err(self.wrong(format!("expected nothing behind {MANIFEST}, found more")));
        }
        args::format_is_known(self.stage)?;
        let count = self.verify(&sessions.unwrap_or_default())?;
        for folder in &self.folders {
            file::sync_dir(folder).map_err(cannot("sync", folder))?;
        }
        file::sync_dir(self.stage).map_err(cannot("sync", self.stage))?;
        Ok(["restored ", &text::count(count, "session"), " and ", &text::count(files, "file")].concat())
    }

    /// The first lines say whether this build can understand the rest.
    fn check_form(&self, about: &str) -> Result<(), Failure> {
        let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
        let later = |what: String| {
            let hint = format!("nothing was restored; use duragent {} or later", field("version "));
            Err(Failure::new(format!("{}: {what}", self.name)).hint(hint))
        };
        match about.lines().next() {
            Some(FORM) => {}
            Some(found) if found.starts_with("duragent-backup ") => {
                return later(format!("expected {FORM}, found {found}"));
            }
            _ => return Err(self.wrong(format!("expected {FORM}, found something else"))),
        }
        match field("log ").parse::<u64>() {
            Ok(found) if found > LOG_VERSION => later(format!("expected log version {LOG_VERSION}, found {found}")),
            Ok(_) => Ok(()),
            Err(_) => Err(self.wrong(format!("expected a line \"log\" in {ABOUT}, found none"))),
        }
    }

    fn text(&self, reader: &mut Reader<'_>, entry: &Entry) -> Result<String, Failure> {
        if entry.size > TEXT_BYTES_MAX {
            return Err(
                self.wrong(format!("{}: expected at most {TEXT_BYTES_MAX} bytes, found {}", entry.name, entry.size))
            );
        }
        let mut bytes = Vec::new();
        reader.contents(entry, &mut bytes).map_err(|error| self.io(&error))?;
        String::from_utf8(bytes).map_err(|_| self.wrong(format!("{}: expected UTF-8", entry.name)))
    }

    /// Puts a file of the workspace into its place.
    fn unpack(&mut self, reader: &mut Reader<'_>, entry: &Entry, path: &str) -> Result<(), Failure> {
        if !is_expected(path) {
            return Err(self.wrong(format!("{path:?} is no part of a workspace that is restored")));
        }
        let target = self.stage.join(path);
        let folder = file::parent_of(&target);
        if self.folders.insert(folder.clone()) {
            file::create_dir(&folder)
                .map_err(|error| self.wrong(format!("{path:?}: cannot make its folder: {error}")))?;
        }
        let mut options = OpenOptions::new();
        // Never through what is there: a name that comes twice is an error.
        let made = options.write(true).create_new(true).mode(entry.mode).open(&target);
        let mut file = made.map_err(|error| self.wrong(format!("{path:?}: cannot be made: {error}")))?;
        reader.contents(entry, &mut file).map_err(|error| self.io(&error))?;
        file.flush().and_then(|()| file.sync_all()).map_err(cannot("sync", &target))
    }

    /// Reads every log as opening it would, and compares its end with what the backup says.
    fn verify(&self, list: &str) -> Result<u64, Failure> {
        let store = FileStore::new(self.stage.join("sessions"), u64::MAX);
        let mut expected = BTreeSet::new();
        for line in list.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (id, seq, damaged) = match words.as_slice() {
                [id, seq] => (*id, *seq, false),
                [id, seq, "damaged"] => (*id, *seq, true),
                _ => return Err(self.wrong(format!("{SESSIONS}: {line:?} cannot be understood"))),
            };
            let found = store.verify(id, &mut |_| {}).map_err(|error| self.wrong(error))?;
            if found.seq.to_string() != seq {
                return Err(self.wrong(format!("session {id}: expected {seq} as the last seq, found {}", found.seq)));
            }
            match &found.tail {
                Tail::Clean if !damaged => {}
                Tail::Damaged(damage) if damaged => {
                    text::say(&format!("warning: session {id} was damaged before it was copied: {damage}"));
                }
                Tail::Damaged(damage) => return Err(self.wrong(damage)),
                Tail::TooNew(version) => {
                    return Err(
                        self.wrong(format!("session {id}: expected log version {LOG_VERSION}, found {version}"))
                    );
                }
                Tail::Clean | Tail::Torn { .. } => {
                    return Err(self.wrong(format!("session {id}: its log does not end where the backup says")));
                }
            }
            expected.insert(id.to_owned());
        }
        let found = store.list().map_err(|error| self.wrong(error))?;
        if !found.iter().eq(expected.iter()) {
            return Err(self.wrong(format!("{SESSIONS}: expected the sessions {found:?}, found {expected:?}")));
        }
        Ok(expected.len() as u64)
    }
}

/// True for what a backup has: nothing that would be believed without being true, as a lock or a summary.
fn is_expected(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["sessions", id, name] => is_id(id) && (is_segment(name) || is_kept(name)),
        ["sessions", id, "artifacts", _] => is_id(id),
        ["sessions", ..] => false,
        [name] => !backup::LEFT_OUT.contains(name) && !is_temporary(name),
        parts => !parts.iter().any(|part| is_temporary(part)),
    }
}

/// True for `events.jsonl` and `events.000000000001.jsonl`.
fn is_segment(name: &str) -> bool {
    let number = name.strip_prefix("events.").and_then(|rest| rest.strip_suffix(".jsonl"));
    name == "events.jsonl" || number.is_some_and(|n| n.len() == 12 && n.bytes().all(|b| b.is_ascii_digit()))
}
