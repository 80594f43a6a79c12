//! `AGENTS.md`: what people have written for whoever works in a directory, from its root down to the working directory.
//!
//! They are read with the agents, at start and at reload, so that the beginning of every request stays the same, byte for
//! byte. What may be read next time is protected as well: what instructs the runtime is never writable from inside.
//!
//! Invariants: a file is opened without following a link out of the root, or to what tools never see; of one directory one
//! file counts; nothing here keeps an agent from being used.

use super::problem::Problem;
use duragent_core::agent::Guide;
use duragent_platform::sandbox::{Access, Refused, View};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a directory's file is called; the second is read where the first is missing.
const NAMES: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];

/// Bytes of all of them together. 32 KiB: what does not fit the window of a small model helps nobody.
pub const BYTES_MAX: usize = 32 * 1024;

/// Directories that are looked at, from the working directory on up.
pub const DIRECTORIES_MAX: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What goes into the prompt, the outermost first.
    pub guides: Vec<Guide>,
    /// Paths that no tool may change, whether there is something at them or not.
    pub protected: Vec<PathBuf>,
    /// What was left out, and why.
    pub warnings: Vec<Problem>,
}

/// Reads what is said to those who work in `workdir`. The root is the nearest directory with a `.git`, else `folder`, which
/// holds the workspace, if that is above, else `workdir` itself. Nothing in `hidden` is read. All absolute, without symbolic
/// links.
#[must_use]
pub fn load(workdir: &Path, folder: &Path, hidden: &[PathBuf]) -> Found {
    let root = workdir.ancestors().find(|dir| dir.join(".git").symlink_metadata().is_ok());
    let root = root.or_else(|| Some(folder).filter(|folder| workdir.starts_with(folder))).unwrap_or(workdir);
    let view = View::only(root, hidden);
    let mut found = Found::default();
    let mut room = BYTES_MAX;
    let mut path = String::new();
    for (count, dir) in workdir.ancestors().take_while(|dir| dir.starts_with(root)).enumerate() {
        if count == DIRECTORIES_MAX {
            let below = format!("AGENTS.md is not looked for from here on up: {DIRECTORIES_MAX} directories were");
            found.warn(dir, below);
            break;
        }
        found.protected.extend(NAMES.map(|name| dir.join(name)));
        if let Some(name) = NAMES.into_iter().find(|name| dir.join(name).symlink_metadata().is_ok()) {
            let heading = [path.as_str(), name].concat();
            let file = dir.join(name);
            match read(&view, &file) {
                Ok(bytes) => found.take(heading, &file, bytes, &mut room),
                Err(error) => found.warn(&file, format!("left out: {}", said(&error))),
            }
        }
        path.push_str("../");
    }
    found.guides.reverse();
    found
}

/// The first bytes of a file, one more than is taken at most.
fn read(view: &View, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    view.open(path, Access::Read)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn said(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        Some(_) => "a symbolic link leads out of the root, or to what tools never see".to_owned(),
        None => error.to_string(),
    }
}

impl Found {
    /// Takes a file as far as there is room. Once one did not fit, those further out do not either: the nearest counts most.
    fn take(&mut self, path: String, file: &Path, bytes: Vec<u8>, room: &mut usize) {
        let nearest = *room == BYTES_MAX;
        let whole = bytes.len() <= BYTES_MAX;
        let Some(mut text) = text_of(bytes, whole) else {
            return self.warn(file, "left out: not UTF-8; save the file as UTF-8".to_owned());
        };
        if text.len() <= *room && whole {
            *room -= text.len();
        } else if nearest {
            text.truncate(text.floor_char_boundary(BYTES_MAX));
            text.truncate(text.rfind('\n').map_or(text.len(), |at| at + 1));
            text.push_str("[the rest is left out: the file has more than 32 KiB]");
            self.warn(file, "cut: more than 32 KiB do not go into the prompt".to_owned());
            *room = 0;
        } else {
            "[left out: more than 32 KiB with those further down]".clone_into(&mut text);
            self.warn(file, "left out: more than 32 KiB with those further down".to_owned());
            *room = 0;
        }
        self.guides.push(Guide { path, text });
    }

    fn warn(&mut self, path: &Path, message: String) {
        self.warnings.push(Problem { warning: true, ..Problem::file(&path.display().to_string(), message) });
    }
}

/// Bytes as text. Of a file that was cut, the character that was cut with it is left out.
fn text_of(mut bytes: Vec<u8>, whole: bool) -> Option<String> {
    if !whole
        && let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
