//! `duragent init`: the first workspace, with one agent on local Ollama.
//!
//! Invariant: nothing that exists is changed, so it may be run twice, and a second run completes what a first one began.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is written, relative to the workspace. The agent is the example agent, so that there is one text to keep right.
const FILES: [(&str, &str); 4] = [
    ("duragent.yaml", include_str!("templates/duragent.yaml")),
    ("policy.yaml", include_str!("templates/policy.yaml")),
    ("agents/assistant/agent.yaml", include_str!("../../agents/assistant/agent.yaml")),
    ("agents/assistant/SYSTEM_PROMPT.md", include_str!("../../agents/assistant/SYSTEM_PROMPT.md")),
];

/// A file of the new workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Where it is.
    pub path: PathBuf,
    /// False if it was there, and was left alone.
    pub new: bool,
}

/// Why a workspace could not be written.
#[derive(Debug)]
pub struct InitError {
    /// The file or folder.
    pub path: PathBuf,
    /// What went wrong.
    pub error: io::Error,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot write: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for InitError {}

/// Writes the workspace `dir`, a folder named `.duragent` as a rule. What is there stays as it is.
///
/// # Errors
/// [`InitError`] at the first file that cannot be written; those before it are complete.
pub fn init(dir: &Path) -> Result<Vec<Created>, InitError> {
    let mut out = Vec::new();
    for (name, contents) in FILES {
        let path = dir.join(name);
        let new = write(&path, contents).map_err(|error| InitError { path: path.clone(), error })?;
        out.push(Created { path, new });
    }
    Ok(out)
}

/// False if there was a file (or anything else) of this name.
fn write(path: &Path, contents: &str) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    let written = file.write_all(contents.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a file would be kept by the next run. If even this fails, the first error says more.
        let _ = fs::remove_file(path);
    }
    written.and_then(|()| fs::File::open(parent)?.sync_all())?;
    Ok(true)
}
