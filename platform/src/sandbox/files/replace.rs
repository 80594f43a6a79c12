//! Putting a file in its place, through descriptors of directories that were opened without following a link.

use super::super::policy::{Grant, View};
use super::at::{self, Lookup, Stat};
use super::refused::{Refused, grants};
use super::{Target, invalid, regular, settle};
use crate::process::random_u64;
use crate::wear::{self, What};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

/// Names tried for a temporary file. Each is random; a second try is a coincidence, a third never happens.
const TEMPORARY_NAMES_MAX: u32 = 8;

/// Bytes of the target's name that go into the temporary name, which must stay within 255.
const NAME_BYTES_MAX: usize = 180;

/// Replaces what is at `target`; `ELOOP` if something on the way is a symbolic link.
pub(super) fn replace(view: &View, lookup: Lookup, target: &Target, contents: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (target.path.parent(), target.path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let directory = &match at::open(lookup, parent, libc::O_RDONLY | libc::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !target.dangling => make(view, lookup, parent)?,
        opened => opened?,
    };
    let old = existing(directory, name)?;
    if old.is_none() && target.dangling {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (temporary, mut file) = create_temporary(directory, name.as_bytes(), old.is_some())?;
    let written = write(&mut file, contents, old).and_then(|()| at::rename(directory, &temporary, name));
    if let Err(error) = written {
        // The first error is the one to tell; what is left over is named so that it can be recognized.
        let _ = at::remove(directory, &temporary);
        return Err(error);
    }
    wear::synced(What::Tools);
    directory.sync_all()
}

/// Why no file can be put at `path`, which is written like a directory.
pub(super) fn no_file(view: &View, lookup: Lookup, path: &Path) -> io::Error {
    let found = settle(view, path, Grant::Write, |target| at::open(lookup, &target.path, at::STEP));
    match found {
        Ok(_) => io::ErrorKind::IsADirectory.into(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => invalid("the path does not end in a file name"),
        Err(error) => error,
    }
}

/// What `name` is, if it is there: a regular file that may be written to.
fn existing(directory: &File, name: &OsStr) -> io::Result<Option<Stat>> {
    let found = match at::stat(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if found.is_symlink() {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    regular(found.is_file(), found.is_dir())?;
    // A rename asks only the directory; a file that is write-protected is to stay as it is. Should the name be a link by
    // now, the answer is about another file, and the rename replaces the link.
    at::writable(directory, name)?;
    Ok(Some(found))
}

/// Makes `path` and what is missing above it, each durable before the next; the directory, opened.
fn make(view: &View, lookup: Lookup, path: &Path) -> io::Result<File> {
    if !grants(view, path, Grant::Write) {
        return Err(Refused::new(view, path.to_owned(), Grant::Write).into());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_DIRECTORY;
    let above = &match at::open(lookup, parent, FLAGS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(view, lookup, parent)?,
        opened => opened?,
    };
    match at::make_directory(above, name) {
        // Somebody else made it in the meantime, or it is a file: then what comes next says so.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            made?;
            wear::synced(What::Tools);
            above.sync_all()?;
        }
    }
    at::open_in(above, name, FLAGS)
}

/// `.name.duragent-<pid>-<random>` in `directory`. Private until the mode of the file it replaces is known to be set.
fn create_temporary(directory: &File, name: &[u8], private: bool) -> io::Result<(OsString, File)> {
    let mode = if private { 0o600 } else { 0o666 };
    let mut tries = 0;
    loop {
        tries += 1;
        let mut temporary = vec![b'.'];
        temporary.extend_from_slice(name.get(..NAME_BYTES_MAX).unwrap_or(name));
        temporary.extend_from_slice(format!(".duragent-{}-{:016x}", std::process::id(), random_u64()).as_bytes());
        let temporary = OsString::from_vec(temporary);
        match at::create(directory, &temporary, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TEMPORARY_NAMES_MAX => {}
            opened => return opened.map(|file| (temporary, file)),
        }
    }
}

fn write(file: &mut File, contents: &[u8], replaced: Option<Stat>) -> io::Result<()> {
    file.write_all(contents)?;
    wear::wrote(What::Tools, contents.len());
    if let Some(old) = replaced {
        let new = at::stat_of(file)?;
        if (new.uid, new.gid) != (old.uid, old.gid) {
            // Only root can give files away. For others the file becomes theirs, as with every editor that renames.
            let _ = fchown(&*file, Some(old.uid), Some(old.gid));
        }
        // Not the set-id bits: what an agent wrote is not to run as somebody else because a program was there before.
        file.set_permissions(Permissions::from_mode(old.mode & 0o777))?;
    }
    wear::synced(What::Tools);
    file.sync_all()
}
