//! Where tools run. One trait, one file per backend; which one is taken is written in the configuration, and a backend
//! that cannot be had is an error, never a weaker one.
//!
//! Absent: policy on *which* calls may run (that is the core's), and any fallback.

mod backend;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod bubblewrap;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod canary;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "backends use it"))]
mod cgroup;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "backends use it"))]
mod channel;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod confined;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "backends use it"))]
pub mod explain;
mod files;
mod guard;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod inside;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod landlock;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "backends use it"))]
mod layout;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod mounts;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod nowhere;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use nowhere::canary;
pub mod policy;
mod proxy;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod rules;
mod run;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod seccomp;
mod tree;
mod trust;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "backends use it"))]
mod watch;

pub use backend::{Backend, Mode, Unavailable, find};
pub use files::{Lookup, Refused, entries};
pub use policy::{Endpoint, Grant, Limits, Network, Place, Policy, View};
pub use trust::Trust;

use crate::cancel::Cancel;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What the kernel said it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcement {
    /// Nothing: trust mode.
    None,
    /// Some of it.
    Partial,
    /// All that the policy asks for.
    Full,
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

/// What a backend is, and what it was seen to enforce on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `trust`, `bubblewrap`, `landlock`.
    pub backend: &'static str,
    /// As tried out, not as hoped for.
    pub enforcement: Enforcement,
    /// Version of the kernel's Landlock interface, if the backend rests on it.
    pub landlock_abi: Option<u32>,
    /// What keeps it from [`Enforcement::Full`], each in a few words.
    pub missing: Vec<String>,
}

/// A process to run inside, in the working directory of the view.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program, an absolute path or a name found in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whole environment: nothing is inherited. Backends add to it what their insides need (`HTTP_PROXY`).
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

/// Something a process tried and was refused, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What stood in the way.
    pub kind: RefusalKind,
    /// The path, `host:port`, or limit.
    pub what: String,
    /// What to do about it, for the model and for people.
    pub hint: String,
}

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The files that may be read or changed.
    Fs,
    /// The places on the network that may be reached.
    Net,
    /// What a call may use.
    Limit,
}

impl RefusalKind {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fs => "fs",
            Self::Net => "net",
            Self::Limit => "limit",
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// What was refused on the way and seen from outside, at most a few.
    pub refusals: Vec<Refusal>,
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
    /// What it is and enforces.
    fn report(&self) -> &Report;

    /// What tools see at `place`. The files that tools work on in this process are opened through it.
    fn view(&self, place: Place<'_>) -> View;

    /// Runs `command` to its end on the calling thread. Both pipes are drained as they fill; each chunk is handed to
    /// `sink`, which keeps what it wants. Returns after no process of the tree is left alive. A process that outlives the
    /// runtime is killed as well.
    ///
    /// # Errors
    /// If the process could not be started, or not with all that [`Sandbox::report`] promises.
    fn run(
        &self,
        view: &View,
        command: &Command,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ended>;
}

/// Becomes what this process was started as, if a sandbox of another process of this program started it: `name` is the first
/// argument, `args` are the others. Whoever owns `main` calls this before anything else, and exits with the code.
#[must_use]
pub fn enter(name: &OsStr, args: &[OsString]) -> Option<i32> {
    let args = || args.iter().cloned();
    match name.to_str()? {
        guard::GUARD_ARG => Some(guard::guard_main(args())),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        inside::INSIDE_ARG => Some(inside::inside_main(args())),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        canary::CANARY_ARG => Some(canary::main(args())),
        _ => None,
    }
}

/// Becomes the inside: the arguments are those of an execution of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn become_inside(args: Vec<OsString>) -> i32 {
    inside::inside_main(args.into_iter().skip(1))
}

/// There is no such thing here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn become_inside(_args: Vec<OsString>) -> i32 {
    1
}

/// The system call filter with or without internet sockets, as bytes; `None` if there is none for this processor.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn filter(inet: bool) -> Option<Vec<u8>> {
    seccomp::Filter::new(seccomp::Sockets { inet, unix: true, others: true }).map(|filter| filter.to_bytes())
}

/// There is no such thing here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn filter(_inet: bool) -> Option<Vec<u8>> {
    None
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
