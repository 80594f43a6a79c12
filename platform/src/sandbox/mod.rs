//! Where tools run. One trait, one file per backend; which one is taken is written in the configuration, and a backend
//! that cannot be had is an error, never a weaker one.
//!
//! Absent: policy on *which* calls may run (that is the core's), and any fallback.

mod files;
mod guard;
mod run;
mod tree;
mod trust;

pub use files::entries;
pub use guard::{GUARD_ARG, guard_main};
pub use trust::Trust;

use crate::cancel::Cancel;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel said it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// All that the policy asks for.
    Full,
    /// Some of it.
    Partial,
    /// Nothing: trust mode.
    None,
}

impl Enforcement {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// A process to run inside.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program, an absolute path or a name found in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Wall time after which the whole process tree is killed.
    pub deadline: Duration,
}

/// How a process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed with all its descendants at the deadline.
    Deadline,
    /// Killed with all its descendants because it was cancelled.
    Cancelled,
}

/// Which pipe a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading a file.
    Read,
    /// Listing a directory.
    List,
}

/// A place to run tools in. Implementations are shared by threads and used by blocking callers.
pub trait Sandbox: Send + Sync {
    /// `trust`, `bubblewrap`, `landlock`.
    fn backend(&self) -> &'static str;

    /// What is enforced, as the kernel reported it.
    fn enforcement(&self) -> Enforcement;

    /// Runs `command` to its end on the calling thread. Both pipes are drained as they fill; each chunk is handed to
    /// `sink`, which keeps what it wants. Returns after no process of the tree is left alive. A process that outlives the
    /// runtime is killed as well.
    ///
    /// # Errors
    /// If the process could not be started.
    fn run(&self, command: &Command, cancel: &Cancel, sink: &mut dyn FnMut(Stream, &[u8])) -> io::Result<Exit>;

    /// Opens `path` (relative to `base`, or absolute) as a tool may.
    ///
    /// # Errors
    /// As the file system says; `PermissionDenied` where the sandbox refuses.
    fn open(&self, base: &Path, path: &Path, access: Access) -> io::Result<File>;

    /// Puts `contents` at `path`, whole or not at all: temporary file in the same directory, fsync, rename, fsync of the
    /// directory. Missing parent directories are made. The mode of an existing file is kept.
    ///
    /// # Errors
    /// As the file system says; `PermissionDenied` where the sandbox refuses.
    fn replace(&self, base: &Path, path: &Path, contents: &[u8]) -> io::Result<()>;
}

/// This very binary, for guards: the one that runs, even if the file was replaced since.
///
/// # Errors
/// Where the target cannot tell.
pub fn own_binary() -> io::Result<PathBuf> {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        Ok(PathBuf::from("/proc/self/exe"))
    } else {
        std::env::current_exe()
    }
}
