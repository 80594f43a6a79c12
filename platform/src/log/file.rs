//! A log file that never grows beyond its cap, and the thread that writes it.
//!
//! Invariants: whoever has a line to log puts it into a queue and goes on; a disk that hangs makes us drop lines, which are
//! counted, and never makes anybody wait. A file that is long enough is never appended to, whatever fails meanwhile:
//! rotation is a `Stage`, and after a failure it goes on where it was. What a file holds is on disk before the file gets
//! another name. Lines that the file does not take go to standard error. The last bytes of a disk are left to sessions.
//!
//! Absent: compression, and times of day at which a file is closed. Whoever wants that has `logrotate` rename the file and
//! send USR1 ([`reopen`]).

use super::{Level, Out, Style, Value, dropped, missed};
use crate::file;
use crate::wear::{self, What};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of lines that wait for the disk: a card that hangs for a second, and no memory to speak of.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// How long a failed stage, or a disk without room, is left alone: a line a millisecond must not mean as many tries.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes that are written between two looks at the free space.
const LOOK_BYTES: u64 = 4096;
/// Mode of a new file: a group may read what has no secrets.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file. Its directory is made if it is missing.
    pub path: PathBuf,
    /// Bytes of it, at most; a single line is at most [`super::LINE_BYTES_MAX`].
    pub bytes_max: u64,
    /// Older files beside it: `PATH.1` is the newest of them.
    pub files_max: u32,
}

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The file takes lines.
    Write,
    /// It is long enough. What is in it has to be on disk before it gets another name.
    Sync,
    /// The file of this number gets the next one; 0 is the file itself. What has the last number is gone then.
    Shift(u32),
    /// A file has to be opened under the name.
    Open,
}

/// The file, as its thread sees it.
struct LogFile {
    settings: Settings,
    file: Option<File>,
    stage: Stage,
    /// Nothing is tried before.
    not_before: Option<Instant>,
    /// Bytes since the last look at the free space.
    unseen: u64,
}

impl LogFile {
    fn new(settings: Settings) -> Self {
        Self { settings, file: None, stage: Stage::Open, not_before: None, unseen: LOOK_BYTES }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If the file did not take it; nothing of it is in the file then.
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let waits = |at: &Instant| at.checked_duration_since(Instant::now()).is_some();
        if self.not_before.as_ref().is_some_and(waits) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = self.try_put(line);
        self.not_before = result.is_err().then(|| Instant::now() + RETRY_AFTER);
        result
    }

    fn try_put(&mut self, line: &[u8]) -> io::Result<()> {
        let mut length = self.opened()?;
        if length > 0 && length + line.len() as u64 > self.settings.bytes_max {
            self.stage = Stage::Sync;
            length = self.opened()?;
        }
        self.unseen += line.len() as u64;
        if self.unseen >= LOOK_BYTES {
            file::has_room(&file::parent_of(&self.settings.path))?;
            self.unseen = 0;
        }
        let Some(file) = &mut self.file else { return Err(ErrorKind::NotFound.into()) };
        wear::wrote(What::Other, line.len());
        file.write_all(line).inspect_err(|_| {
            // Half a line would run into the next one.
            file.set_len(length).ok();
        })
    }

    /// Goes through the stages until the file takes lines; its length is the value.
    fn opened(&mut self) -> io::Result<u64> {
        let Settings { path, files_max, .. } = &self.settings;
        loop {
            self.stage = match self.stage {
                Stage::Write => match self.file.as_ref().map(File::metadata).transpose()? {
                    Some(meta) if is_linked(&meta) => return Ok(meta.len()),
                    // Somebody has deleted it: what goes into it, nobody would ever read.
                    _ => Stage::Open,
                },
                Stage::Sync => {
                    // Taken: after a failure the next sync of the same descriptor would lie.
                    if let Some(file) = self.file.take() {
                        wear::synced(What::Other);
                        file.sync_all()?;
                    }
                    Stage::Shift(files_max.saturating_sub(1))
                }
                Stage::Shift(number) => {
                    match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                    number.checked_sub(1).map_or(Stage::Open, Stage::Shift)
                }
                Stage::Open => {
                    self.file = None;
                    self.file = Some(open(path)?);
                    Stage::Write
                }
            };
        }
    }

    /// Opens what has the name now. A rotation that is under way goes on instead, and ends with that.
    fn reopen(&mut self) {
        if self.stage == Stage::Write {
            self.stage = Stage::Open;
        }
        self.not_before = None;
    }
}

fn is_linked(meta: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(meta) > 0
}

/// `PATH.3`; `PATH` for 0.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(".");
        name.push(number.to_string());
    }
    PathBuf::from(name)
}

/// Opens a regular file and nothing else: where others can write too, a link would lead us to a file of theirs, and a
/// pipe would hold us up.
fn open(path: &Path) -> io::Result<File> {
    file::create_dir(&file::parent_of(path))?;
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, MODE);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
}

/// Lines on their way to the file.
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    /// Another file is wanted, or none.
    settings: Option<Option<Settings>>,
    reopen: bool,
    /// The thread runs.
    started: bool,
    /// It has taken something that it is not done with.
    busy: bool,
}

static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { lines: VecDeque::new(), bytes: 0, settings: None, reopen: false, started: false, busy: false });
/// Rung when there is something to do, and when it is done.
static BELL: Condvar = Condvar::new();
/// Lines go to a file.
static ACTIVE: AtomicBool = AtomicBool::new(false);

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has lines written to a file from now on, or to standard error again. Opening it is up to its thread; if that cannot be
/// done, standard error has the lines and says why.
///
/// # Errors
/// If there is no thread to be had.
pub fn to_file(settings: Option<Settings>) -> io::Result<()> {
    let mut queue = queue();
    let wanted = settings.is_some();
    if wanted && !queue.started {
        std::thread::Builder::new().name("log".into()).spawn(write_lines)?;
        queue.started = true;
    }
    queue.settings = Some(settings);
    ACTIVE.store(wanted, Ordering::Release);
    BELL.notify_all();
    Ok(())
}

/// Closes the log file and opens what has its name now.
pub fn reopen() {
    queue().reopen = true;
    BELL.notify_all();
}

/// Waits until all lines are written, at most so long: before the process ends.
pub fn flush(time_max: Duration) {
    let until = Instant::now() + time_max;
    let mut queue = queue();
    while queue.started && (queue.busy || !queue.lines.is_empty()) {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return };
        (queue, _) = BELL.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
    }
}

/// True if lines go to a file: then this one is queued, or dropped.
pub(super) fn takes(level: Level, style: Style, text: &str, fields: &[&[super::Field<'_>]]) -> bool {
    if !ACTIVE.load(Ordering::Acquire) {
        return false;
    }
    let line = Style { priorities: false, dated: true, ..style }.compose(level, text, fields);
    let mut queue = queue();
    if queue.bytes + line.len() > QUEUE_BYTES_MAX {
        missed();
    } else {
        queue.bytes += line.len();
        queue.lines.push_back(line);
        BELL.notify_all();
    }
    true
}

/// What the thread does.
fn write_lines() {
    let (mut file, mut told, mut failing) = (None, dropped(), false);
    loop {
        let mut queue = queue();
        while queue.lines.is_empty() && queue.settings.is_none() && !queue.reopen {
            queue.busy = false;
            BELL.notify_all();
            queue = BELL.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.busy = true;
        let (settings, again, line) =
            (queue.settings.take(), std::mem::take(&mut queue.reopen), queue.lines.pop_front());
        queue.bytes -= line.as_ref().map_or(0, String::len);
        drop(queue);
        if let Some(settings) = settings {
            let same = file.as_ref().map(|file: &LogFile| &file.settings) == settings.as_ref();
            if !same {
                file = settings.map(LogFile::new);
            }
        }
        if let Some(file) = file.as_mut().filter(|_| again) {
            file.reopen();
        }
        let Some(line) = line else { continue };
        let missing = dropped();
        if told < missing {
            let style = Style { json: line.starts_with('{'), priorities: false, dated: true };
            let count = [("count", Value::Number(missing - told))];
            put(&mut file, &mut failing, style.compose(Level::Warn, "lines of this log were dropped", &[&count]));
            told = missing;
        }
        put(&mut file, &mut failing, line);
    }
}

/// Into the file, or else to standard error, which is told why.
fn put(file: &mut Option<LogFile>, failing: &mut bool, line: String) {
    let result = file.as_mut().map(|file| file.put(line.as_bytes()));
    if let (Some(Err(error)), Some(file)) = (&result, file)
        && !*failing
    {
        *failing = true;
        let (path, error) = (file.settings.path.to_string_lossy(), error.to_string());
        let about = [("file", Value::Text(&path)), ("error", Value::Text(&error))];
        let style = Style { json: line.starts_with('{'), priorities: false, dated: true };
        Out::lock().put(style.compose(Level::Warn, "the log file takes no lines, they go here", &[&about]));
    }
    match result {
        Some(Ok(())) => *failing = false,
        _ => drop(Out::lock().put(line)),
    }
}

#[cfg(test)]
mod tests;
