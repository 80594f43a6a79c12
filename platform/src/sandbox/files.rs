//! File operations for tools, shared by the backends.

use super::{Access, View};
use crate::file::{parent_of, sync_dir};
use crate::process::random_u64;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Names tried for a temporary file. Each is random; a second try is a coincidence, a third never happens.
const TEMPORARY_NAMES_MAX: u32 = 8;

/// Bytes of the target's name that go into the temporary name, which must stay within 255.
const NAME_BYTES_MAX: usize = 180;

/// Entries of a directory that was opened with [`Access::List`], in no order, without `.` and `..`.
///
/// # Errors
/// As readdir(3).
pub fn entries(directory: &File) -> io::Result<fs::ReadDir> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const DESCRIPTORS: &str = "/proc/self/fd";
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const DESCRIPTORS: &str = "/dev/fd";
    fs::read_dir(format!("{DESCRIPTORS}/{}", directory.as_raw_fd()))
}

impl View {
    /// Opens `path` (absolute, or from the working directory on) as a tool may. Never waits: a pipe or a device is refused,
    /// not opened.
    ///
    /// # Errors
    /// As the file system says; `PermissionDenied` where the policy refuses.
    pub fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        open(&self.workdir().join(path), access)
    }

    /// Puts `contents` at `path`, whole or not at all: temporary file in the same directory, fsync, rename, fsync of the
    /// directory. Missing parent directories are made. The mode of an existing file is kept.
    ///
    /// # Errors
    /// As the file system says; `PermissionDenied` where the policy refuses.
    pub fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        replace(&self.workdir().join(path), contents)
    }
}

/// Opens an existing file or directory. Never waits: a pipe or a device is refused, not opened.
fn open(path: &Path, access: Access) -> io::Result<File> {
    let flags = match access {
        // Without NONBLOCK, opening a named pipe waits for its other end.
        Access::Read => libc::O_NONBLOCK | libc::O_NOCTTY,
        Access::List => libc::O_DIRECTORY,
    };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match access {
        Access::Read => regular(file.metadata()?.file_type()).map(|()| file),
        Access::List => Ok(file),
    }
}

/// Puts `contents` at `path`, whole or not at all, and durably: [`View::replace`]. A symbolic link stays one:
/// the file it leads to is replaced.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let existing = existing(path)?;
    let (target, metadata) = match &existing {
        Some((target, metadata)) => (target.as_path(), Some(metadata)),
        None => (path, None),
    };
    let name = target.file_name().ok_or_else(|| invalid("the path does not end in a file name"))?;
    let parent = &parent_of(target);
    make_directories(parent)?;
    let (temporary, mut file) = create_temporary(parent, name.as_bytes(), metadata.is_some())?;
    let written = write(&mut file, contents, metadata).and_then(|()| fs::rename(&temporary, target));
    if let Err(error) = written {
        // The first error is the one to tell; what is left over is named so that it can be recognized.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(parent)
}

/// What `path` leads to, if it is there: a regular file that may be written to.
fn existing(path: &Path) -> io::Result<Option<(PathBuf, fs::Metadata)>> {
    if let Err(error) = fs::symlink_metadata(path) {
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let target = fs::canonicalize(path)?;
    let metadata = fs::metadata(&target)?;
    regular(metadata.file_type())?;
    // A rename asks only the directory; a file that is write-protected is to stay as it is.
    let name = std::ffi::CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: `name` is NUL-terminated and lives through the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, libc::AT_EACCESS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Some((target, metadata)))
}

fn regular(kind: fs::FileType) -> io::Result<()> {
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Err(invalid("not a regular file"))
    }
}

/// Makes `directory` and what is missing above it, each durable before the next.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = &parent_of(directory);
    make_directories(parent)?;
    match DirBuilder::new().create(directory) {
        // Somebody else made it in the meantime, or it is a file: then what comes next says so.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    sync_dir(parent)
}

/// `.name.duragent-<pid>-<random>` in `parent`. Private until the mode of the file it replaces is known to be set.
fn create_temporary(parent: &Path, name: &[u8], private: bool) -> io::Result<(PathBuf, File)> {
    let mode = if private { 0o600 } else { 0o666 };
    let mut tries = 0;
    loop {
        tries += 1;
        let mut temporary = vec![b'.'];
        temporary.extend_from_slice(name.get(..NAME_BYTES_MAX).unwrap_or(name));
        temporary.extend_from_slice(format!(".duragent-{}-{:016x}", std::process::id(), random_u64()).as_bytes());
        let path = parent.join(OsString::from_vec(temporary));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TEMPORARY_NAMES_MAX => {}
            opened => return opened.map(|file| (path, file)),
        }
    }
}

fn write(file: &mut File, contents: &[u8], replaced: Option<&fs::Metadata>) -> io::Result<()> {
    file.write_all(contents)?;
    if let Some(old) = replaced {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            // Only root can give files away. For others the file becomes theirs, as with every editor that renames.
            let _ = fchown(&*file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.sync_all()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
