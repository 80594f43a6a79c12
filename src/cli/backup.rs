//! `duragent backup -o FILE|- [--no-secrets]`: the workspace as one archive, while it is at work.
//!
//! Of every session there is what was acknowledged when its turn came, and perhaps more, never half a line. Of the rest of
//! the workspace there are the files as they are read. What can be made anew is left out: locks, leases, summaries, sockets; and what
//! tools have made in the folders that they work in, which are the user's own.
//!
//! | in the archive | |
//! |---|---|
//! | `backup.txt` | the form, who made it, when, and the log version |
//! | `workspace/…` | the files |
//! | `sessions.txt` | `ID SEQ`, or `ID SEQ damaged`, of each session |
//! | `manifest.txt` | `SHA-256  NAME` of everything above, for sha256sum(1) |
//!
//! Absent: encryption, compression (pipe it), increments.

pub mod archive;

use super::{Common, Failure, print, text};
use crate::config::{self, env};
use crate::store::StoreError;
use crate::store::file::FileStore;
use archive::{DEPTH_MAX, Writer};
use duragent_core::event::LOG_VERSION;
use duragent_core::time;
use duragent_platform::{clock, file, process};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First word of `backup.txt`, and the form that this build writes and reads.
pub const FORM: &str = "duragent-backup 1";
pub const ABOUT: &str = "backup.txt";
pub const SESSIONS: &str = "sessions.txt";
pub const MANIFEST: &str = "manifest.txt";
/// What files of the workspace are under.
pub const WORKSPACE: &str = "workspace/";

/// Files of a workspace that belong to those who have it open.
pub const LEFT_OUT: [&str; 3] = ["server.lock", "duragent.sock", "reserve"];

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut target, mut secrets) = (None, true);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('o') | lexopt::Arg::Long("output") => target = Some(PathBuf::from(parser.value()?)),
            lexopt::Arg::Long("no-secrets") => secrets = false,
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = || Failure::usage("expected -o FILE, found none", "-o - is standard output, to be piped on");
    let target = target.ok_or_else(missing)?;
    let dir = common.existing()?;
    owned(&dir)?;
    let hidden =
        if secrets { Vec::new() } else { config::secret_files(&dir, &env::process).map_err(Failure::config)? };
    let backup = Backup { dir: &dir, store: FileStore::new(dir.join("sessions"), u64::MAX), hidden: &hidden };
    if target.as_os_str() == "-" {
        if duragent_platform::terminal::is_terminal(io::stdout()) {
            return Err(Failure::usage(
                "-o -: expected a pipe or a file, found a terminal",
                "it is an archive, not text",
            ));
        }
        let mut out = BufWriter::new(io::stdout().lock());
        backup.write(&mut out)?;
        return Ok(0);
    }
    let done = to_file(&backup, &target)?;
    print(&done)
}

/// Only the user of the workspace makes copies of it: what others read of it for them, links included, they might not be meant to.
fn owned(dir: &Path) -> Result<(), Failure> {
    let owner = fs::metadata(dir).map_err(cannot("look at", dir))?.uid();
    if owner == process::uid() {
        return Ok(());
    }
    let error =
        format!("{}: expected a workspace of this user ({}), found one of user {owner}", dir.display(), process::uid());
    Err(Failure::new(error).hint(format!("do it as its user: sudo -u '#{owner}' duragent …")))
}

/// Writes the whole archive or nothing: a temporary file takes the place of `path` at the end.
fn to_file(backup: &Backup<'_>, path: &Path) -> Result<String, Failure> {
    let folder = file::parent_of(path);
    let inside = |dir: &Path| {
        folder.canonicalize().is_ok_and(|folder| dir.canonicalize().is_ok_and(|dir| folder.starts_with(dir)))
    };
    if inside(backup.dir) {
        let error = format!("-o {}: expected a place outside the workspace, found one inside", path.display());
        return Err(Failure::usage(error, "there it would be part of the next backup"));
    }
    let temporary = file::temporary_beside(path).map_err(cannot("write", path))?;
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(cannot("write", path))?;
    let mut out = BufWriter::new(made);
    let written = backup.write(&mut out).and_then(|done| {
        let whole = out.into_inner().map_err(|error| cannot("write", path)(error.into_error()))?;
        whole.sync_all().and_then(|()| fs::rename(&temporary, path)).map_err(cannot("write", path))?;
        file::sync_dir(&folder).map_err(cannot("sync", &folder))?;
        Ok(done)
    });
    if written.is_err() {
        // It is named so that nobody takes it for a backup; the first error says more than a second one would.
        fs::remove_file(&temporary).ok();
    }
    written.map(|done| format!("{}: {done}\n", path.display()))
}

struct Backup<'b> {
    dir: &'b Path,
    store: FileStore,
    /// Files that are left out, without links.
    hidden: &'b [PathBuf],
}

impl Backup<'_> {
    /// Writes it, and says what is in it.
    fn write(&self, out: &mut dyn Write) -> Result<String, Failure> {
        let mut writer = Writer::new(out);
        let now = clock::wall_ms();
        let at = time::rfc3339(now);
        let about = format!("{FORM}\nversion {}\nlog {LOG_VERSION}\nat {at}\n", env!("CARGO_PKG_VERSION"));
        self.text(&mut writer, ABOUT, now, &about)?;
        self.folder(&mut writer, self.dir, WORKSPACE, 0)?;
        let (mut sessions, mut count) = (String::new(), 0);
        for id in self.store.list().map_err(super::session::stored)? {
            if let Some(line) = self.session(&mut writer, &id)? {
                sessions.push_str(&line);
                count += 1;
            }
        }
        self.text(&mut writer, SESSIONS, now, &sessions)?;
        let (files, manifest) = (writer.files, std::mem::take(&mut writer.list));
        self.text(&mut writer, MANIFEST, now, &manifest)?;
        let bytes = writer.end().map_err(|error| Failure::new(format!("cannot write the backup: {error}")))?;
        // Without those that the backup adds.
        Ok([
            &text::count(count, "session"),
            ", ",
            &text::count(files.saturating_sub(2), "file"),
            ", ",
            &text::count(bytes, "byte"),
        ]
        .concat())
    }

    fn text(&self, writer: &mut Writer<'_>, name: &str, now: u64, text: &str) -> Result<(), Failure> {
        let written = writer.file(name, 0o600, now / 1000, text.len() as u64, &mut text.as_bytes());
        written.map_err(cannot("write", Path::new(name)))
    }

    /// All files of a folder, but sessions and what is left out. Links are followed: a restored workspace stands by itself.
    fn folder(&self, writer: &mut Writer<'_>, folder: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        if depth >= DEPTH_MAX {
            let error = format!("{}: expected at most {DEPTH_MAX} folders in each other, found more", folder.display());
            return Err(Failure::new(error).hint("does a link lead back?"));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(cannot("list", folder))? {
            names.push(entry.map_err(cannot("list", folder))?.file_name());
        }
        names.sort_unstable();
        for file_name in names {
            let path = folder.join(&file_name);
            let Some(plain) = file_name.to_str() else {
                let error = format!("{}: expected a name in UTF-8", path.display());
                return Err(Failure::new(error).hint("give it another name, or move it out of the workspace"));
            };
            if depth == 0 && (plain == "sessions" || LEFT_OUT.contains(&plain)) || is_temporary(plain) {
                continue;
            }
            let Ok(found) = fs::metadata(&path) else { continue };
            let name = [name, plain].concat();
            if found.is_dir() {
                self.folder(writer, &path, &(name + "/"), depth + 1)?;
            } else if found.is_file() && !self.is_hidden(&path) {
                let file = File::open(&path).map_err(cannot("read", &path))?;
                self.file(writer, &name, file, &path)?;
            }
        }
        Ok(())
    }

    fn is_hidden(&self, path: &Path) -> bool {
        !self.hidden.is_empty() && path.canonicalize().is_ok_and(|path| self.hidden.contains(&path))
    }

    fn file(&self, writer: &mut Writer<'_>, name: &str, mut file: File, path: &Path) -> Result<(), Failure> {
        if let Some(what) = archive::forbidden(name) {
            let error = format!("{}: {what} in its name", path.display());
            return Err(Failure::new(error).hint("give it another name, or move it out of the workspace"));
        }
        let found = file.metadata().map_err(cannot("look at", path))?;
        let seconds = u64::try_from(found.mtime()).unwrap_or(0);
        writer.file(name, found.mode(), seconds, found.len(), &mut file).map_err(cannot("copy", path))
    }

    /// One session, and its line of `sessions.txt`. `None` if nothing in it was ever acknowledged, or it is gone.
    fn session(&self, writer: &mut Writer<'_>, id: &str) -> Result<Option<String>, Failure> {
        let frozen = match self.store.freeze(id) {
            Ok(Some(frozen)) => frozen,
            Ok(None) | Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(super::session::stored(error)),
        };
        let (dir, top) = (self.store.dir(id), [WORKSPACE, "sessions/", id, "/"].concat());
        for (name, mut file, bytes) in frozen.segments {
            let path = dir.join(&name);
            let found = file.metadata().map_err(cannot("look at", &path))?;
            let seconds = u64::try_from(found.mtime()).unwrap_or(0);
            let written = writer.file(&[&top, name.as_str()].concat(), found.mode(), seconds, bytes, &mut file);
            written.map_err(cannot("copy", &path))?;
        }
        for name in rest_of(&dir)? {
            self.own_file(writer, &dir.join(&name), &[&top, name.as_str()].concat())?;
        }
        // Retention may have taken them, and a name of a foreign log may be anything.
        let named = frozen.artifacts.iter().map(String::as_str).filter(|name| !name.contains('/') && *name != "..");
        for name in named.chain(["edits.jsonl"]) {
            self.own_file(writer, &dir.join("artifacts").join(name), &[&top, "artifacts/", name].concat())?;
        }
        let seq = frozen.seq.to_string();
        Ok(Some(match frozen.damage {
            None => [id, " ", &seq, "\n"].concat(),
            Some(damage) => {
                text::say(&format!("warning: session {id} is damaged and copied as it is: {damage}"));
                [id, " ", &seq, " damaged\n"].concat()
            }
        }))
    }

    /// A file of a session, if it is there and no link: tools work near it.
    fn own_file(&self, writer: &mut Writer<'_>, path: &Path, name: &str) -> Result<(), Failure> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            _ => return Ok(()),
        }
        match File::open(path) {
            Ok(file) => self.file(writer, name, file, path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(cannot("read", path)(error)),
        }
    }
}

/// What was cut off a log and kept beside it.
fn rest_of(dir: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot("list", dir))? {
        let name = entry.map_err(cannot("list", dir))?.file_name();
        if let Some(name) = name.to_str().filter(|name| is_kept(name)) {
            found.push(name.to_owned());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// True for names of what was cut off a log: `events.jsonl.torn-123`, `events.000000000001.jsonl.damaged-1`.
pub fn is_kept(name: &str) -> bool {
    let cut = [".jsonl.torn-", ".jsonl.damaged-"].iter().find_map(|mark| name.split_once(mark));
    cut.is_some_and(|(start, number)| start.starts_with("events") && number.bytes().all(|b| b.is_ascii_digit()))
}

/// True for names that [`file::temporary_beside`] gives.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(".duragent-")
}

/// Says what was being done to which file.
pub fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| {
        let failure = Failure::new(format!("cannot {what} {}: {error}", path.display()));
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                failure.hint("free some space; nothing is left of this")
            }
            _ => failure,
        }
    }
}
