//! One thing that is done to a machine or tree: how it is shown, and how it is done.

use super::plan::Place;
use super::{Failure, account};
use crate::config::init;
use duragent_core::crc::crc32c;
use duragent_platform::file;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a file of ours ends with: changed by nobody, if the checksum is that of what stands before.
const SEAL: &str = "# duragent service: crc32c ";

/// Mode of a workspace: conversations and keys are nobody else's.
const WORKSPACE_MODE: u32 = 0o700;

/// What is at the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Missing,
    /// What would be written.
    Same,
    /// Ours, and nobody has changed it.
    Older,
    /// Anything else.
    Foreign,
}

impl State {
    pub fn of(path: &Path, text: &str) -> Self {
        match fs::read_to_string(path) {
            Ok(found) if found == text => Self::Same,
            Ok(found) if is_sealed(&found) => Self::Older,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Foreign,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Same => "as it should be",
            Self::Older => "from another version or with other options, and unchanged",
            Self::Foreign => "changed by somebody, or of a package",
        }
    }
}

/// `text` with its checksum at the end.
pub fn sealed(text: String) -> String {
    let crc = format!("{:08x}", crc32c(text.as_bytes()));
    [&text, SEAL, &crc, "\n"].concat()
}

fn is_sealed(text: &str) -> bool {
    text.rfind(SEAL).is_some_and(|at| sealed(text[..at].to_owned()) == text)
}

/// One thing to do.
pub enum Step {
    /// Nothing: why, all in words.
    Kept(String),
    User,
    /// This binary, to a place where the service may run it.
    Binary(String),
    /// Where, and whose.
    Workspace(String, String),
    File {
        path: String,
        text: String,
        mode: u32,
    },
    Link(&'static str, &'static str),
    Line(&'static str, &'static str),
    NoLine(&'static str, &'static str),
    Unlink(String),
    Folder(&'static str),
    Run(&'static str),
}

impl Step {
    /// Something that stays as it is.
    pub fn kept(what: &str, which: &str, why: &str) -> Self {
        Self::Kept(["keep ", what, " ", which, ": ", why].concat())
    }

    pub fn is_to_do(&self) -> bool {
        !matches!(self, Self::Kept(_))
    }

    /// A line for people.
    pub fn text(&self) -> String {
        let said = match self {
            Self::Kept(text) => text.clone(),
            Self::User => "add the system user of the service, without a login".to_owned(),
            Self::Binary(to) => ["copy this binary to ", to].concat(),
            Self::Workspace(dir, user) => ["make the workspace ", dir, ", owner ", user, ", mode 0700"].concat(),
            Self::File { path, mode, .. } => format!("write {path}, mode {mode:04o}"),
            Self::Link(at, to) => ["link ", at, " to ", to].concat(),
            Self::Line(path, line) => ["append to ", path, ": ", line.trim_end()].concat(),
            Self::NoLine(path, line) => ["take out of ", path, ": ", line.trim_end()].concat(),
            Self::Unlink(path) => ["remove ", path].concat(),
            Self::Folder(path) => ["remove ", path, " and what is in it"].concat(),
            Self::Run(command) => ["run ", command].concat(),
        };
        ["  ", &said, "\n"].concat()
    }

    /// Does it.
    ///
    /// # Errors
    /// What could not be done, and where.
    pub fn run(&self, place: &Place) -> Result<(), Failure> {
        let cannot = |path: &str| {
            let path = path.to_owned();
            move |error: io::Error| Failure::new([&path, ": ", &error.to_string()].concat())
        };
        match self {
            Self::Kept(_) => Ok(()),
            Self::User => account::add(&place.root, &place.user, &place.dir).map(drop),
            Self::Binary(to) => {
                let bytes = std::env::current_exe().and_then(fs::read).map_err(cannot("this binary"))?;
                put(place, to, &bytes, 0o755).map_err(cannot(to))
            }
            Self::Workspace(dir, _) => workspace(place, dir),
            Self::File { path, text, mode } => put(place, path, text.as_bytes(), *mode).map_err(cannot(path)),
            Self::Link(at, to) => link(place, at, to).map_err(cannot(at)),
            Self::Line(path, line) => {
                inside(place, path).map_err(cannot(path))?;
                account::append(&place.root, path.trim_start_matches('/'), line)
            }
            Self::NoLine(path, line) => without(place, path, line).map_err(cannot(path)),
            Self::Unlink(path) => unlink(place, path).map_err(cannot(path)),
            Self::Folder(path) => {
                let at = inside(place, path).map_err(cannot(path))?;
                fs::remove_dir_all(&at).map_err(cannot(path))?;
                empty_parents(&at);
                Ok(())
            }
            Self::Run(command) => execute(command),
        }
    }
}

/// Runs a command of words without quoting. Its output is for the one who runs us.
fn execute(command: &str) -> Result<(), Failure> {
    let mut words = command.split(' ');
    let mut process = Command::new(words.next().unwrap_or_default());
    let status = process.args(words).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new([command, ": ", &status.to_string()].concat())),
        Err(error) => Err(Failure::new([command, ": ", &error.to_string()].concat())),
    }
}

/// Where `path` of the tree is, with its folder made. Refused if a symbolic link leads out of the tree, as absolute ones do.
fn inside(place: &Place, path: &str) -> io::Result<PathBuf> {
    let path = place.at(path);
    let (folder, name) = (file::parent_of(&path), path.file_name().unwrap_or(OsStr::new("")));
    // What is there already says where the rest would be made.
    let there = folder.ancestors().find(|folder| folder.symlink_metadata().is_ok()).unwrap_or(&place.root);
    let outside = || io::Error::other("a symbolic link leads out of the tree");
    if !there.canonicalize()?.starts_with(&place.root) {
        return Err(outside());
    }
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    if folder.starts_with(&place.root) { Ok(folder.join(name)) } else { Err(outside()) }
}

fn put(place: &Place, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let path = inside(place, path)?;
    file::replace(&path, bytes, mode)?;
    // Whatever the umask is: others have to read it, and some to run it.
    fs::set_permissions(&path, Permissions::from_mode(mode))
}

fn link(place: &Place, at: &str, to: &str) -> io::Result<()> {
    let at = inside(place, at)?;
    // Only a link: what else is there is somebody's.
    if at.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(&at)?;
    }
    symlink(to, at)
}

fn without(place: &Place, path: &str, line: &str) -> io::Result<()> {
    let path = inside(place, path)?;
    let text = fs::read_to_string(&path)?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    let kept: String = text.split_inclusive('\n').filter(|found| found.trim_end() != line.trim_end()).collect();
    file::replace(&path, kept.as_bytes(), mode)
}

fn unlink(place: &Place, path: &str) -> io::Result<()> {
    let path = inside(place, path)?;
    fs::remove_file(&path)?;
    empty_parents(&path);
    Ok(())
}

/// Folders of a service that are empty now; folders that have others in them stay, as rmdir(2) wants it.
fn empty_parents(path: &Path) {
    let ours = path.ancestors().skip(1).take_while(|dir| dir.ancestors().any(|d| d.ends_with("duragent")));
    for dir in ours {
        if fs::remove_dir(dir).is_err() {
            break;
        }
    }
}

/// A new workspace. Nobody but us can get at it until it is whole: the service's user could lead us elsewhere with links.
fn workspace(place: &Place, dir: &str) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::new([dir, ": ", &error.to_string()].concat());
    let (uid, gid) = account::find(&place.root, &place.user)
        .ok_or_else(|| Failure::new(["no user ", &place.user, " in /etc/passwd"].concat()))?;
    let path = inside(place, dir).map_err(cannot)?;
    if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        return Err(cannot(io::Error::other("is a symbolic link; name what it points to with --dir")));
    }
    fs::create_dir_all(&path).map_err(cannot)?;
    if place.live {
        lchown(&path, Some(0), Some(0)).map_err(cannot)?;
    }
    fs::set_permissions(&path, Permissions::from_mode(WORKSPACE_MODE)).map_err(cannot)?;
    let made = init::init(&path).map_err(|error| Failure::new(error.to_string()))?;
    let mut all: Vec<&Path> = made.iter().flat_map(|file| file.path.ancestors()).collect();
    all.retain(|made| made.starts_with(&path));
    all.sort_unstable();
    all.dedup();
    // The folder itself last.
    for each in all.into_iter().rev() {
        if let Err(error) = lchown(each, Some(uid), Some(gid)) {
            let hint = format!("give it to the service's user: chown -R {uid}:{gid} {}", path.display());
            return Err(cannot(error).hint(hint));
        }
    }
    Ok(())
}
