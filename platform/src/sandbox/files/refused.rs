//! What the policy says to the file tools, and the words for a refusal.

use super::super::policy::{Grant, NETWORK_READ, SYSTEM_READ, View, WORKSPACE_NAME};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Directories that a hint names; who needs to know more asks the user.
const NAMED_MAX: usize = 4;

const PROCESS: &str = "processes outside the sandbox are not seen from inside";
const HIDDEN: &str = "this belongs to the runtime and is never opened from inside the sandbox; ask the user";
const READ_ONLY: &str =
    "this is run or read outside the sandbox and is never changed from inside; ask the user to change it";

/// A file operation that the policy refuses, and that the kernel was not asked about. Found inside an [`io::Error`] of kind
/// `PermissionDenied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was to be opened: absolute, and as far as it may be told, with links resolved.
    pub path: PathBuf,
    /// What would have been needed: [`Grant::Read`] or [`Grant::Write`].
    pub access: Grant,
    /// What is allowed, and what to do, for the model and for people.
    pub hint: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.access == Grant::Write { "changed" } else { "read" };
        write!(f, "{:?} may not be {verb}: {}", self.path, self.hint)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refused)
    }
}

impl Refused {
    /// `path` is not granted.
    pub(super) fn new(view: &View, path: PathBuf, access: Grant) -> Self {
        let hint = if is_process(&path) {
            PROCESS.to_owned()
        } else if is_protected(view, &path, access) || is_behind_a_link(view, &path, access) {
            let hidden = access == Grant::Read || view.grant(&path) == Grant::None;
            if hidden { HIDDEN.to_owned() } else { READ_ONLY.to_owned() }
        } else {
            let (what, list) = if access == Grant::Write { ("changes", "write") } else { ("reading", "read") };
            let roots = allowed(view, access);
            format!(
                "the sandbox allows {what} only {roots}; use a path there, or ask the user to add it to sandbox.{list}"
            )
        };
        Self { path, access, hint }
    }

    /// `path` leads to somewhere else each time it is looked at.
    pub(super) fn changing(path: PathBuf, access: Grant) -> Self {
        let hint = "links on this path are being changed by something; try again when that has ended".to_owned();
        Self { path, access, hint }
    }
}

/// True if the file tools may do this with `path`, which is absolute and has neither links nor `..` in it.
///
/// Other than a shell, which has processes of its own or those of the same user to look at, file tools work in the runtime:
/// its environment and memory below `/proc` are secrets, even if `/proc` is listed.
pub(super) fn grants(view: &View, path: &Path, needed: Grant) -> bool {
    let confined = || view.grant(path) >= needed && !is_process(path) && !is_behind_a_link(view, path, needed);
    !view.is_confined() || confined()
}

/// `/proc/<number>`, and what is below.
fn is_process(path: &Path) -> bool {
    let mut parts = path.strip_prefix("/proc").unwrap_or(Path::new("")).as_os_str().as_encoded_bytes().iter();
    parts.next().is_some_and(u8::is_ascii_digit)
}

/// True if `path` is refused wherever it is: adding it to a list would not help.
fn is_protected(view: &View, path: &Path, needed: Grant) -> bool {
    path.components().any(|part| part == Component::Normal(OsStr::new(WORKSPACE_NAME)))
        || view.entries().iter().any(|entry| entry.limits && entry.grant < needed && path.starts_with(&entry.path))
}

/// True if a protected name is a symbolic link, and leads to `path` or to what holds it: who starts `.bashrc` starts that.
/// Of a hidden name the last part may be a link, which is cheap to find out for every file of a search; above it none is
/// expected.
fn is_behind_a_link(view: &View, path: &Path, needed: Grant) -> bool {
    let protected = view.entries().iter().filter(|entry| entry.limits && entry.grant < needed);
    let mut links = protected.filter(|entry| needed == Grant::Write || fs::read_link(&entry.path).is_ok());
    let roots = || view.entries().iter().filter(|entry| !entry.limits && path.starts_with(&entry.path));
    links.any(|entry| {
        let real = fs::canonicalize(&entry.path).ok().filter(|real| path.starts_with(real));
        // What is granted further down is granted, as without a link: a service works inside its workspace.
        real.is_some_and(|real| !roots().any(|root| root.path.starts_with(&real)))
    })
}

/// `below /w, /data and …`: the working directory first, the system's own directories in a word.
fn allowed(view: &View, needed: Grant) -> String {
    let system = |path: &Path| SYSTEM_READ.iter().chain(NETWORK_READ).any(|known| path == Path::new(known));
    let lists = view.entries().iter().filter(|entry| !entry.limits && entry.grant >= needed).map(|entry| &*entry.path);
    let mut roots: Vec<&Path> = vec![view.workdir()];
    roots.extend(lists.filter(|root| !system(root) && *root != view.workdir()));
    let named: Vec<_> = roots.iter().take(NAMED_MAX).map(|root| root.to_string_lossy()).collect();
    let more = if roots.len() > NAMED_MAX { ", …" } else { "" };
    let system = if needed == Grant::Read { ", and in the system's own directories" } else { "" };
    format!("below {}{more}{system}", named.join(", "))
}
