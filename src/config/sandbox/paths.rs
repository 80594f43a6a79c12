//! Paths that tools may be given, and those that they never are.
//!
//! A path is judged twice, as it is written and as it is without symbolic links: a link must not lead around a rule.

use super::Protected;
use duragent_platform::sandbox::policy::WORKSPACE_NAME;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

/// Programs, and what runs or configures them for everybody: nothing in these is ever changed.
const SYSTEM: [&str; 11] =
    ["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/proc", "/sbin", "/usr"];

/// What is given away in parts, never as a whole.
const NEVER_WHOLE: [&str; 6] = ["/dev", "/home", "/run", "/sys", "/var", "/"];

/// The same for reading: sockets and devices of the machine, and the memory of other processes.
const NEVER_READ_WHOLE: [&str; 4] = ["/dev", "/proc", "/run", "/"];

/// Character devices that are memory of the machine (mem(4)).
const MEMORY_DEVICES: [&str; 3] = ["/dev/kmem", "/dev/mem", "/dev/port"];

/// Reads paths of a layer.
pub struct Paths<'r> {
    /// Where relative paths start; absolute.
    pub folder: &'r Path,
    /// What is never given away.
    pub protected: &'r Protected,
}

/// A path, written and real.
struct Found {
    written: PathBuf,
    real: PathBuf,
}

impl Paths<'_> {
    /// A path that may be read, with a warning if there is something to say.
    ///
    /// # Errors
    /// Why it must not be.
    pub fn read(&self, text: &str) -> Result<(PathBuf, Option<String>), String> {
        let found = self.resolve(text)?;
        for path in found.both() {
            self.refuse_protected(&found, path, "which tools never see")?;
            let process = |name: &str| name == "self" || name == "thread-self" || name.parse::<u32>().is_ok();
            let below_proc = path.strip_prefix("/proc").ok().and_then(|rest| rest.iter().next()?.to_str());
            if NEVER_READ_WHOLE.iter().any(|whole| path == Path::new(whole)) {
                return Err(format!("{} holds too much of the machine; name what is to be read in it", found.shown()));
            }
            if below_proc.is_some_and(process) {
                return Err(format!("{} shows what another process knows, secrets included", found.shown()));
            }
        }
        let warning = match fs::metadata(&found.real) {
            Ok(metadata) => socket(&found, &metadata),
            Err(error) => {
                Some(format!("{} cannot be read, and is not there for tools: {}", found.shown(), said(&error)))
            }
        };
        Ok((found.real, warning))
    }

    /// A path that may be changed, with a warning if there is something to say.
    ///
    /// # Errors
    /// Why it must not be.
    pub fn write(&self, text: &str) -> Result<(PathBuf, Option<String>), String> {
        let found = self.resolve(text)?;
        self.refuse_change(&found)?;
        let metadata = match fs::metadata(&found.real) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{0} does not exist; make it with: mkdir -p {0}", found.written.display()));
            }
            Err(error) => return Err(format!("{}: {}", found.shown(), said(&error))),
        };
        let kind = metadata.file_type();
        let in_dev = found.real.starts_with("/dev");
        let memory = MEMORY_DEVICES.iter().any(|device| found.real == Path::new(device));
        if kind.is_block_device() || (in_dev && !kind.is_char_device()) || memory {
            let what = "is more than one character device; name those one by one, never disks or memory";
            return Err(format!("{} {what}", found.shown()));
        }
        let warning = socket(&found, &metadata);
        Ok((found.real, warning))
    }

    /// The real path of a directory where tools are to work; it may be made later.
    ///
    /// # Errors
    /// Why it must not be.
    pub fn workdir(&self, dir: &Path) -> Result<PathBuf, String> {
        let written = normal(dir);
        let found = Found { real: canonical(&written), written };
        self.refuse_change(&found)?;
        if found.both().any(|path| path.starts_with("/dev")) {
            return Err(format!("{} holds devices", found.shown()));
        }
        Ok(found.real)
    }

    fn resolve(&self, text: &str) -> Result<Found, String> {
        if text.is_empty() {
            return Err("expected a path, found nothing".to_owned());
        }
        if text.contains('\0') {
            return Err("expected a path, found one with a NUL in it".to_owned());
        }
        if text == "~" || text.starts_with("~/") {
            return Err(format!("~ is not expanded; write ${{HOME}}{}", text.trim_start_matches('~')));
        }
        let written = normal(&self.folder.join(text));
        Ok(Found { real: canonical(&written), written })
    }

    fn refuse_change(&self, found: &Found) -> Result<(), String> {
        for path in found.both() {
            self.refuse_protected(found, path, "and what configures the runtime is never writable")?;
            if SYSTEM.iter().any(|system| path.starts_with(system)) {
                return Err(format!("{} belongs to the system, and what others run is never writable", found.shown()));
            }
            let whole = NEVER_WHOLE.iter().any(|whole| path == Path::new(whole));
            // Whoever can rename the folder around the workspace can put another one in its place.
            let around =
                self.protected.workspace.parent().is_some_and(|folder| folder != path && folder.starts_with(path));
            if whole || around {
                let why = if whole { "too much of the machine" } else { "the folder around the workspace" };
                return Err(format!("{} holds {why}; name what is to be changed in it", found.shown()));
            }
        }
        Ok(())
    }

    /// `what` says what follows from being in a workspace.
    fn refuse_protected(&self, found: &Found, path: &Path, what: &str) -> Result<(), String> {
        let named = path.iter().any(|part| part == WORKSPACE_NAME);
        if named || path.starts_with(&self.protected.workspace) {
            return Err(format!("{} is in a workspace, {what}", found.shown()));
        }
        if self.protected.hidden.iter().any(|hidden| path.starts_with(hidden)) {
            return Err(format!("{} is a secret of the runtime, or configures it", found.shown()));
        }
        Ok(())
    }
}

impl Found {
    fn both(&self) -> impl Iterator<Item = &Path> {
        [self.written.as_path(), self.real.as_path()].into_iter()
    }

    fn shown(&self) -> String {
        let written = self.written.display();
        if self.real == self.written { written.to_string() } else { format!("{written} ({})", self.real.display()) }
    }
}

fn socket(found: &Found, metadata: &fs::Metadata) -> Option<String> {
    metadata.file_type().is_socket().then(|| {
        format!("{} is a socket: who listens there works outside the sandbox, for whoever asks", found.shown())
    })
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

/// An absolute path without `.` and `..`, which are resolved as text.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// `path` without symbolic links as far as it exists; the rest as it is. `path` is absolute.
#[must_use]
pub fn canonical(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match existing {
        Some((above, real)) => match path.strip_prefix(above) {
            // Joining nothing would add a slash.
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_path_buf(),
    }
}
