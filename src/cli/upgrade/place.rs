//! The place of the binary on disk, and every change that is made there.
//!
//! | beside `duragent` | what |
//! |---|---|
//! | `duragent.old` | the binary that was replaced last |
//! | `duragent.upgrade` | the [`Marker`]: the binary was replaced and is on trial |
//! | `.duragent.new` | a binary that is being verified; what is left of it after a crash is removed by the next one |
//!
//! Invariants: at every moment there is a whole binary under the name itself, because names change by rename(2) alone; each step is
//! on disk before the next begins; what is installed is the very file that was verified, compared by inode.
//!
//! The order of a change: `.new` written, synced, verified, tried · `.old` linked, directory synced · marker written, directory
//! synced · `.new` renamed over the name, directory synced · restart · marker removed, directory synced. A crash before the last
//! rename leaves the old binary, whose next start takes the marker away; one after it leaves the new one on trial.

use crate::cli::Failure;
use duragent_platform::file;
use hmac_sha256::Hash;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes of a marker; ours have fewer than a hundred.
const MARKER_BYTES_MAX: u64 = 1024;

/// What stands in `duragent.upgrade`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The version that was replaced.
    pub from: String,
    /// The version that is on trial.
    pub to: String,
    /// Seconds that a server gets to be ready.
    pub seconds: u64,
    /// What is known of starts of a server with it: 0 none, [`Marker::ANNOUNCED`], [`Marker::STARTED`].
    pub tries: u64,
}

impl Marker {
    /// `--settle` has said that a server will be started.
    pub const ANNOUNCED: u64 = 1;
    /// A server was started and has not become ready, or not yet.
    pub const STARTED: u64 = 2;

    fn text(&self) -> String {
        let (seconds, tries) = (self.seconds.to_string(), self.tries.to_string());
        ["from ", &self.from, "\nto ", &self.to, "\nseconds ", &seconds, "\ntries ", &tries, "\n"].concat()
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(Self {
            from: field("from")?.to_owned(),
            to: field("to")?.to_owned(),
            seconds: field("seconds")?.parse().ok()?,
            tries: field("tries")?.parse().ok()?,
        })
    }
}

/// Where the binary of this process is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The binary itself, without symbolic links: a link to it stays as it is.
    pub binary: PathBuf,
}

impl Place {
    /// The place of the running binary.
    ///
    /// # Errors
    /// If there is no such file any more.
    pub fn own() -> Result<Self, Failure> {
        let binary = std::env::current_exe().and_then(|path| path.metadata().map(|_| path));
        let failed = |error| Failure::new(format!("cannot find the file of this binary: {error}"));
        Ok(Self { binary: binary.map_err(failed)? })
    }

    /// `duragent.old`.
    pub fn old(&self) -> PathBuf {
        self.with(".old")
    }

    fn marker_path(&self) -> PathBuf {
        self.with(".upgrade")
    }

    /// The file name with something behind it.
    fn with(&self, end: &str) -> PathBuf {
        let mut name = self.binary.file_name().unwrap_or_default().to_owned();
        name.push(end);
        self.binary.with_file_name(name)
    }

    /// A name that is hidden, for what is not finished.
    fn hidden(&self, end: &str) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.binary.file_name().unwrap_or_default());
        name.push(end);
        self.binary.with_file_name(name)
    }

    fn folder(&self) -> PathBuf {
        file::parent_of(&self.binary)
    }

    fn sync(&self) -> Result<(), Failure> {
        file::sync_dir(&self.folder()).map_err(cannot("sync", &self.folder()))
    }

    /// Keeps other upgrades of this binary out until it is dropped: flock(2) on the directory, which leaves nothing behind. Then
    /// removes what a crash has left.
    ///
    /// # Errors
    /// If another one is at work.
    pub fn lock(&self) -> Result<File, Failure> {
        let folder = File::open(self.folder()).map_err(cannot("open", &self.folder()))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let error = format!("another upgrade is at work in {}", self.folder().display());
                return Err(Failure::new(error).hint("wait for its end"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &self.folder())(error)),
        }
        // Names of replaced markers and of unfinished binaries. Whether they can be removed shows soon enough.
        let (unfinished, marker) = (self.hidden(".new"), self.hidden(".upgrade.duragent-"));
        let marker = marker.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            if entry.path() == unfinished || entry.file_name().to_string_lossy().starts_with(&marker) {
                fs::remove_file(entry.path()).ok();
            }
        }
        fs::remove_file(self.hidden(".keep")).ok();
        Ok(folder)
    }

    /// Refuses a binary that a package manager has put there and would not know any more.
    ///
    /// # Errors
    /// If dpkg says that it is one of its own.
    pub fn refuse_managed(&self) -> Result<(), Failure> {
        let mut dpkg = Command::new("dpkg-query");
        dpkg.arg("--search").arg(&self.binary).stdin(Stdio::null()).stderr(Stdio::null());
        // Without dpkg there is no package of it.
        let Ok(output) = dpkg.output() else { return Ok(()) };
        if !output.status.success() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&output.stdout);
        let package = found.split(':').next().unwrap_or_default().trim().to_owned();
        let error = format!("{} belongs to the Debian package {package}", self.binary.display());
        Err(Failure::new(error).hint(format!("upgrade it with: apt install --only-upgrade {package}")))
    }

    /// Puts what `fill` writes into a file of its own beside the binary, which nobody else can open, and syncs it.
    ///
    /// # Errors
    /// As open(2), write(2) and fsync(2), and those of `fill`; nothing is left then.
    pub fn stage(&self, fill: &mut dyn FnMut(&mut File) -> Result<(), Failure>) -> Result<Staged, Failure> {
        let path = self.hidden(".new");
        let made = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        let mut file = made.map_err(cannot("make", &path))?;
        // From here on it is removed, whatever happens.
        let mut staged = Staged { path, file: None };
        fill(&mut file)?;
        file.sync_all().map_err(cannot("sync", &staged.path))?;
        // Nobody may have it open for writing when it is run (ETXTBSY, execve(2)), so what follows has a descriptor of its own.
        drop(file);
        staged.file = Some(File::open(&staged.path).map_err(cannot("open", &staged.path))?);
        Ok(staged)
    }

    /// Makes `staged` the binary, on trial as `marker` says; the present one becomes `duragent.old`.
    ///
    /// # Errors
    /// If any step cannot be done; the present binary is in its place then.
    pub fn put(&self, staged: Staged, marker: &Marker) -> Result<(), Failure> {
        let present = fs::metadata(&self.binary).map_err(cannot("stat", &self.binary))?;
        staged.take_after(&present)?;
        staged.check_is_the_same()?;
        self.keep()?;
        self.mark(marker)?;
        let replaced = staged
            .check_is_the_same()
            .and_then(|()| fs::rename(&staged.path, &self.binary).map_err(cannot("replace", &self.binary)));
        if replaced.is_err() {
            // Nothing is on trial. The first error says more than a second one would.
            self.unmark().ok();
            return replaced;
        }
        self.sync()
    }

    /// Keeps the present binary as `duragent.old`: a second name of the same file, or a copy where the file system has no links.
    fn keep(&self) -> Result<(), Failure> {
        let keep = self.hidden(".keep");
        let copied = fs::hard_link(&self.binary, &keep).or_else(|_| {
            fs::copy(&self.binary, &keep)?;
            File::open(&keep)?.sync_all()
        });
        let kept = copied.and_then(|()| fs::rename(&keep, self.old()));
        if kept.is_err() {
            fs::remove_file(&keep).ok();
        }
        // If both names are the same file already, rename(2) does nothing and leaves the other one.
        fs::remove_file(&keep).ok();
        kept.map_err(cannot("keep the present binary as", &self.old()))?;
        self.sync()
    }

    /// Puts `duragent.old` back and takes the marker away.
    ///
    /// # Errors
    /// If it cannot be done; what is in place then stays there.
    pub fn back(&self) -> Result<(), Failure> {
        fs::rename(self.old(), &self.binary).map_err(cannot("put back", &self.old()))?;
        self.sync()?;
        self.unmark()
    }

    /// What is on trial, if anything is. A marker that cannot be read counts as none.
    pub fn marker(&self) -> Option<Marker> {
        let file = File::open(self.marker_path()).ok()?;
        let mut text = String::new();
        file.take(MARKER_BYTES_MAX).read_to_string(&mut text).ok()?;
        Marker::parse(&text)
    }

    /// Writes the marker, durable when it returns.
    ///
    /// # Errors
    /// As [`file::replace`].
    pub fn mark(&self, marker: &Marker) -> Result<(), Failure> {
        let path = self.marker_path();
        file::replace(&path, marker.text().as_bytes(), 0o644).map_err(cannot("write", &path))
    }

    /// Takes the marker away: the binary has shown that it works, or is not there any more.
    ///
    /// # Errors
    /// As unlink(2) and fsync(2).
    pub fn unmark(&self) -> Result<(), Failure> {
        let path = self.marker_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map_err(cannot("remove", &path)).and_then(|()| self.sync()),
        }
    }
}

/// A binary that is not in its place yet; removed when it is dropped.
#[derive(Debug)]
pub struct Staged {
    /// Where it is.
    pub path: PathBuf,
    /// For reading only.
    file: Option<File>,
}

impl Staged {
    fn file(&self) -> Result<&File, Failure> {
        self.file.as_ref().ok_or_else(|| Failure::new("the new binary is not open"))
    }

    /// Its size and SHA-256, read back from the file that will be installed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn measure(&self) -> Result<(u64, [u8; 32]), Failure> {
        let (mut file, mut hash, mut size) = (self.file()?, Hash::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok((size, hash.finalize())),
                Ok(n) => {
                    hash.update(buffer.get(..n).unwrap_or_default());
                    size += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot("read", &self.path)(error)),
            }
        }
    }

    /// Gives it the mode and, as far as this user may, the owner of the binary that it replaces.
    fn take_after(&self, present: &fs::Metadata) -> Result<(), Failure> {
        let file = self.file()?;
        let own = file.metadata().map_err(cannot("stat", &self.path))?;
        if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
            // Whoever may not give files away keeps it; the directory is theirs.
            std::os::unix::fs::fchown(file, Some(present.uid()), Some(present.gid())).ok();
        }
        // No set-user-ID: nothing of ours needs it.
        let mode = Permissions::from_mode(present.mode() & 0o777);
        file.set_permissions(mode).and_then(|()| file.sync_all()).map_err(cannot("change the mode of", &self.path))
    }

    /// The name still leads to the file that was verified.
    fn check_is_the_same(&self) -> Result<(), Failure> {
        let verified = self.file()?.metadata().map_err(cannot("stat", &self.path))?;
        let named = fs::symlink_metadata(&self.path).map_err(cannot("stat", &self.path))?;
        if (verified.dev(), verified.ino(), verified.len()) == (named.dev(), named.ino(), named.len()) {
            return Ok(());
        }
        let error = format!("{} is not the file that was verified: somebody changes it", self.path.display());
        Err(Failure::new(error).hint("nothing was installed; see who can write to its folder"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already if it was installed.
        fs::remove_file(&self.path).ok();
    }
}

/// Says what was being done to which file, and what to do about it.
pub fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| {
        let failure = Failure::new(format!("cannot {what} {}: {error}", path.display()));
        match error.kind() {
            ErrorKind::PermissionDenied => {
                failure.hint("do it as the user to whom the binary belongs, mostly with sudo")
            }
            ErrorKind::ReadOnlyFilesystem => failure.hint("the file system is read-only: mount it writable meanwhile"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                failure.hint("free some space on the file system of the binary; the present one is untouched")
            }
            _ => failure,
        }
    }
}
