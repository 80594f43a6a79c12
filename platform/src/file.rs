//! Durable file operations: what must be on disk is on disk when these return.
//!
//! A new name is durable once its directory is synced, and a new directory once its parent is. Replacing a file goes
//! through a temporary file in the same directory, so that a reader or a crash sees the old or the new, never a mix.
//!
//! Invariant: no sync result is dropped, and none is tried again on the same descriptor: after a failure the kernel has
//! marked the pages clean, and the next sync would lie.

use crate::wear::{self, What};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Syncs a directory, which makes names created, renamed or removed in it durable (fsync(2)).
///
/// # Errors
/// As open(2) and fsync(2).
pub fn sync_dir(path: &Path) -> io::Result<()> {
    sync_dir_of(What::Other, path)
}

/// The same, counted as what it is for.
///
/// # Errors
/// As [`sync_dir`].
pub fn sync_dir_of(what: What, path: &Path) -> io::Result<()> {
    wear::synced(what);
    File::open(path)?.sync_all()
}

/// Makes a directory and its missing parents, each with mode 0700 and durable in its own parent.
///
/// # Errors
/// As mkdir(2) and fsync(2).
pub fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_dir(&parent)?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }?;
    sync_dir(&parent)
}

/// Replaces the file at `path` by `contents`, whole or not at all, durable when it returns. Keeps the mode of an
/// existing file; a new one gets `mode` (less the umask).
///
/// # Errors
/// As open(2), write(2), fsync(2) and rename(2); the temporary file is removed then.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    put(What::Other, path, contents, mode, true)
}

/// The same, counted as what it is for.
///
/// # Errors
/// As [`replace`].
pub fn replace_of(what: What, path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    put(what, path, contents, mode, true)
}

/// As [`replace`], but without any sync: for caches. A crash of the process does not tear it; after a power cut the
/// name may lead to an empty file, so whoever reads it has to see that.
///
/// # Errors
/// As open(2), write(2) and rename(2); the temporary file is removed then.
pub fn replace_cache(what: What, path: &Path, contents: &[u8]) -> io::Result<()> {
    put(what, path, contents, 0o600, false)
}

fn put(what: What, path: &Path, contents: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_new(what, &temporary, path, contents, mode, sync).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: what is left is named so that nothing takes it for data.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    if sync { sync_dir_of(what, &parent_of(path)) } else { Ok(()) }
}

fn write_new(what: What, temporary: &Path, target: &Path, contents: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(temporary)?;
    if let Ok(existing) = fs::metadata(target) {
        file.set_permissions(existing.permissions())?;
    }
    file.write_all(contents)?;
    wear::wrote(what, contents.len());
    if !sync {
        return Ok(());
    }
    wear::synced(what);
    file.sync_all()
}

/// A name in the directory of `path` that no other thread or process uses: `.NAME.duragent-PID-N`.
///
/// # Errors
/// If `path` has no file name.
pub fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidInput))?.to_string_lossy();
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{name}.duragent-{}-{n}", std::process::id())))
}

/// The directory that holds `path`.
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

/// The exclusive right to write something, held as flock(2) on a file until dropped or the process ends, however it
/// ends. Unreliable on some network file systems.
#[derive(Debug)]
pub struct Lease {
    /// Held for its lock only.
    _file: File,
}

/// Why a lease was not given.
#[derive(Debug)]
pub enum LeaseError {
    /// Held by the process with this id, as far as it said.
    Held(Option<u32>),
    /// The file could not be opened or locked.
    Io(io::Error),
}

impl Lease {
    /// Takes the lease on the file at `path`, which is made if it is missing and then holds our process id.
    ///
    /// # Errors
    /// [`LeaseError::Held`] if another process or descriptor holds it.
    pub fn acquire(path: &Path) -> Result<Self, LeaseError> {
        let mut file = Self::file(path).map_err(LeaseError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.take(16).read_to_string(&mut text).ok();
                return Err(LeaseError::Held(text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(LeaseError::Io(error)),
        }
        // Whoever had it before may have removed the file, and somebody else made another one of that name.
        if !is_at(&file, path) {
            return Err(LeaseError::Held(None));
        }
        // Only for the message above: a full disk must not keep anybody from a session.
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).ok();
        let id = std::process::id().to_string();
        write!(file, "{id}").ok();
        wear::wrote(What::Other, id.len());
        Ok(Self { _file: file })
    }

    /// Waits for the lease on the file at `path`, which is made if it is missing: for those who hold it for a moment only.
    ///
    /// # Errors
    /// If the file cannot be opened or locked.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = Self::file(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }

    fn file(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }
}

/// True if `file` is what has that name.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    file.metadata().and_then(|held| Ok(id(held) == id(fs::metadata(path)?))).unwrap_or(false)
}

/// True for an error that says that the disk takes nothing: no space, no quota left, or mounted for reading only, as the kernel
/// does to a file system in which it has found an error (`errors=remount-ro` of ext4(5)). All of them may pass.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Free bytes of a file system that are not for what can do without, or a sixteenth of all of it where that is less.
const SPARE_BYTES: u64 = 256 * 1024;

/// Fails if so little is free in `dir` that it is to be left to sessions' logs: for logs of ours and outputs of tools.
///
/// # Errors
/// `StorageFull`, or as statvfs(3).
pub fn has_room(dir: &Path) -> io::Result<()> {
    let (free, all) = space(dir)?;
    if free < SPARE_BYTES.min(all / 16) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// Bytes that an ordinary user can still write on the file system of `path` (statvfs(3)), and its size. What is kept for root is not
/// counted for root either: `df` says 100 % then, and not all of it can be had (ext4 keeps some for itself).
///
/// # Errors
/// As statvfs(3).
#[cfg(unix)]
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL and `stat` is as large as the call expects; it is read only if the call succeeded.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the fields are 32 bits wide on some targets")]
    let (block, free, all) = (stat.f_frsize as u64, stat.f_bavail as u64, stat.f_blocks as u64);
    Ok((block * free, block * all))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("duragent-file-{name}-{}", std::process::id()));
            fs::remove_dir_all(&path).ok();
            create_dir(&path).expect("temporary directory");
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn replace_keeps_the_mode_and_leaves_nothing_else_behind() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Dir::new("replace");
        let path = dir.0.join("a");
        replace(&path, b"one", 0o600).expect("new");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        replace(&path, b"two", 0o600).expect("again");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o640);
        assert!(replace(&dir.0, b"x", 0o600).is_err(), "a directory is not replaced");
        let names: Vec<_> = fs::read_dir(&dir.0).expect("list").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn a_lease_is_held_by_one_and_says_by_whom() {
        let dir = Dir::new("lease");
        let path = dir.0.join("lease");
        let first = Lease::acquire(&path).expect("free");
        match Lease::acquire(&path) {
            Err(LeaseError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected it to be held, found {other:?}"),
        }
        drop(first);
        Lease::acquire(&path).expect("free again");
    }

    #[test]
    fn who_waits_for_a_lease_gets_it_when_it_is_given_back() {
        let dir = Dir::new("wait");
        let path = dir.0.join("lease");
        let (first, (sender, came)) = (Lease::wait(&path).expect("free"), std::sync::mpsc::channel());
        let waiting = std::thread::spawn(move || {
            let lease = Lease::wait(&path).expect("given back");
            sender.send(()).expect("somebody listens");
            drop(lease);
        });
        came.recv_timeout(std::time::Duration::from_millis(50)).expect_err("held");
        drop(first);
        came.recv_timeout(std::time::Duration::from_secs(60)).expect("given back");
        waiting.join().expect("it ends");
    }

    #[test]
    fn directories_are_made_with_their_parents() {
        let dir = Dir::new("dirs");
        let deep = dir.0.join("a/b/c");
        create_dir(&deep).expect("made");
        create_dir(&deep).expect("made before");
        fs::write(dir.0.join("file"), "").expect("write");
        assert!(create_dir(&dir.0.join("file/x")).is_err());
        assert!(space(&deep).expect("statvfs").1 > 0);
    }
}
