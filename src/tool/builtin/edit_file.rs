//! `edit_file`: replaces a piece of text in a file.
//!
//! Effect `idempotent`, which an edit is not by itself: after `a → ab`, the file holds an `a` again, and after `a → ` it
//! does not tell whether there ever was one. So an intent is made durable before the file is: a digest of the call, of the
//! file before and of the file after. A call that runs again finds its intent and compares: the file is as after → done,
//! say so; as before → do it; neither → somebody else changed it, say that and touch nothing.

use super::{Watch, declare, refused, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::json::{self, ObjectWriter};
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::file;
use duragent_platform::sandbox::Access;
use duragent_platform::wear::{self, What};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Largest file that is edited, in bytes: it is in memory twice.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Intents kept for a session, at least; twice as many at most. Only calls that were in flight at a crash are looked up again, and those are few.
const INTENTS_MAX: usize = 32;

/// Lines that are named when a text is found more than once.
const LINES_NAMED_MAX: usize = 8;

/// File of the intents in the session's `artifacts/`, JSON lines.
const INTENTS_NAME: &str = "edits.jsonl";

const FIELDS: [Field; 4] = [
    Field::required("path", Kind::Text),
    Field::required("old", Kind::Text),
    Field::required("new", Kind::Text),
    Field::optional("all", Kind::Flag),
];

/// The tool.
pub(super) struct EditFile {
    decl: ToolDecl,
}

impl EditFile {
    pub(super) fn new() -> Self {
        let description = "Replace old by new in a file. old must occur exactly once, unless all is true.";
        let effect = EffectClass::Idempotent;
        Self { decl: declare("edit_file", description, &FIELDS, effect, PolicyArgument::Path("path")) }
    }
}

impl Tool for EditFile {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        match Arguments::read(arguments, &FIELDS) {
            Ok(read) => {
                let key = digest(&[context.call_id.as_bytes(), b"\0", arguments.as_bytes()]);
                edit(&read, &key, context).unwrap_or_else(|refusal| *refusal)
            }
            Err(wrong) => said(wrong),
        }
    }
}

/// What is said instead of an edit. Boxed: it is much larger than what else is returned here.
type Refusal = Box<ToolOutcome>;

fn edit(arguments: &Arguments, key: &str, context: &Context<'_>) -> Result<ToolOutcome, Refusal> {
    let (path, old, new) = (arguments.text("path"), arguments.text("old"), arguments.text("new"));
    if old.is_empty() {
        return refuse(said("wrong arguments: old is empty; write_file makes new files"));
    }
    if old == new {
        return refuse(said("wrong arguments: old and new are the same"));
    }
    let text = read(path, context)?;
    let before = digest(&[text.as_bytes()]);
    let intents = Intents { directory: context.artifacts };
    let earlier = intents.find(key).map_err(|e| Box::new(trouble("look up earlier edits of", path, &e)))?;
    match earlier {
        Some(intent) if intent.after == before => return Ok(done(intent.count, path)),
        Some(intent) if intent.before != before => {
            return refuse(said(format!(
                "{path:?} was changed by something else while this edit was interrupted; read it, and edit again if needed"
            )));
        }
        _ => {}
    }
    let count = count(&text, old, arguments.flag("all"), path)?;
    let changed = text.replace(old, new);
    let intent = Intent { key: key.into(), before, after: digest(&[changed.as_bytes()]), count };
    if let Some(why) = Watch::new(context).stop() {
        return refuse(Watch::new(context).stopped(why, String::new(), "try again"));
    }
    intents.add(intent).map_err(|error| Box::new(trouble("note the edit of", path, &error)))?;
    context
        .view
        .replace(Path::new(path), changed.as_bytes())
        .map_err(|error| Box::new(trouble("write", path, &error)))?;
    Ok(done(count, path))
}

fn refuse<T>(outcome: ToolOutcome) -> Result<T, Refusal> {
    Err(Box::new(outcome))
}

fn done(count: u64, path: &str) -> ToolOutcome {
    let places = if count == 1 { "place" } else { "places" };
    said(format!("replaced {count} {places} in {path}"))
}

fn read(path: &str, context: &Context<'_>) -> Result<String, Refusal> {
    let opened = context.view.open(Path::new(path), Access::Read);
    let mut bytes = Vec::new();
    opened
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Box::new(trouble("edit", path, &error)))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let hint = "edit it with bash (sed)";
        let result = format!("{path:?} has more than {FILE_BYTES_MAX} bytes; {hint}");
        return refuse(refused(result, "limit", path, hint));
    }
    String::from_utf8(bytes).or_else(|_| refuse(said(format!("{path:?} is not UTF-8 text; edit it with bash (sed)"))))
}

/// How often `old` is there, if that is as often as it may be.
fn count(text: &str, old: &str, all: bool, path: &str) -> Result<u64, Refusal> {
    let places = text.matches(old).count();
    match places {
        0 => refuse(said(format!(
            "old was not found in {path:?}; it must match exactly, with white space and line ends: read_file shows the file"
        ))),
        1 => Ok(1),
        _ if all => Ok(places as u64),
        _ => {
            let line = |at: usize| text.bytes().take(at).filter(|&b| b == b'\n').count() + 1;
            let named = text.match_indices(old).take(LINES_NAMED_MAX).map(|(at, _)| line(at).to_string());
            let named = named.collect::<Vec<_>>().join(", ");
            let more = if places > LINES_NAMED_MAX { ", …" } else { "" };
            refuse(said(format!(
                "old was found {places} times in {path:?} (lines {named}{more}); make it longer until it is unique, or set all"
            )))
        }
    }
}

/// What an edit was about to do.
struct Intent {
    key: String,
    before: String,
    after: String,
    count: u64,
}

struct Intents<'a> {
    directory: &'a Path,
}

impl Intents<'_> {
    fn find(&self, key: &str) -> io::Result<Option<Intent>> {
        let _guard = lock();
        Ok(self.load()?.into_iter().rfind(|intent| intent.key == key))
    }

    /// Durable when it returns. Appended, since flash wears out by what is written; the oldest ones go, all at once, when there are
    /// twice as many as are kept.
    fn add(&self, intent: Intent) -> io::Result<()> {
        let _guard = lock();
        let mut all = self.load()?;
        let path = self.directory.join(INTENTS_NAME);
        file::create_dir(self.directory)?;
        if all.len() >= 2 * INTENTS_MAX || !path.exists() {
            all.push(intent);
            let kept = all.iter().skip(all.len().saturating_sub(INTENTS_MAX));
            return file::replace(&path, lines(kept).as_bytes(), 0o600);
        }
        // Behind half a line that a crash left there, it would be no line.
        let text = ["\n", &lines(std::iter::once(&intent))].concat();
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        wear::wrote(What::Other, text.len());
        wear::synced(What::Other);
        file.sync_data()
    }

    /// Lines that cannot be read are left out: what was not synced was not acted on.
    fn load(&self) -> io::Result<Vec<Intent>> {
        match std::fs::read_to_string(self.directory.join(INTENTS_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            text => Ok(text?.lines().filter_map(intent).collect()),
        }
    }
}

fn lines<'i>(intents: impl Iterator<Item = &'i Intent>) -> String {
    let mut text = String::new();
    for intent in intents {
        let mut object = ObjectWriter::new(&mut text);
        object.str("call", &intent.key).str("before", &intent.before).str("after", &intent.after);
        object.u64("count", intent.count);
        object.finish();
        text.push('\n');
    }
    text
}

fn intent(line: &str) -> Option<Intent> {
    let value = json::parse(line).ok()?;
    let text = |key| Some(value.get(key)?.as_str()?.to_owned());
    Some(Intent {
        key: text("call")?,
        before: text("before")?,
        after: text("after")?,
        count: value.get("count")?.as_u64()?,
    })
}

/// Calls of one session may run side by side; those of other sessions wait a moment too, which is cheaper than to tell them
/// apart.
fn lock() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first half of a SHA-256, in hex: 128 bits tell apart whatever a session edits.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = hmac_sha256::Hash::new();
    for part in parts {
        hash.update(part);
    }
    let mut out = String::with_capacity(32);
    for byte in hash.finalize().iter().take(16) {
        for half in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    out
}
