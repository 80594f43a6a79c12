//! Whether a new binary works: tried before it gets its place, and watched at its first start.
//!
//! A server that starts with a [`Marker`] for its own version is on trial. It notes the start, and takes the marker away once it is ready. If
//! it fails before that, takes longer than the marker allows, or finds that an earlier start was noted already (a crash, a hang, a
//! power cut), it puts the old binary back and becomes that: the same process, the same arguments, so that no service
//! manager has to know.
//!
//! Absent: a server that may not write beside its binary can neither note nor go back. `duragent upgrade --settle`, run as the owner
//! of the binary before and after the start, does it for that one.

use super::VERSION;
use super::place::{Marker, Place};
use crate::cli::Failure;
use crate::config::env;
use duragent_platform::log;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a binary that is tried gets to print its version, or to check a workspace: on a small board with a slow card the
/// canary of the sandbox takes seconds.
const TIME_MAX: Duration = Duration::from_secs(120);

/// How long the last lines of the log may take.
const LOG_TIME_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Tries the binary at `path`: it runs on this machine, is `version`, and takes the workspace at `dir`.
///
/// # Errors
/// What it did instead.
pub fn try_out(path: &Path, version: &str, dir: Option<&Path>) -> Result<(), Failure> {
    let found = version_of(path)?;
    if found != version {
        let error = format!("{}: expected it to be {version}, found {found:?}", path.display());
        return Err(Failure::new(error).hint("whoever made this release has to look at it"));
    }
    let Some(dir) = dir else { return Ok(()) };
    let mut check = Command::new(path);
    check.arg("--dir").arg(dir);
    if let Some(profile) = env::PROFILE.get() {
        check.arg("--profile").arg(profile);
    }
    let told = run(check.arg("check").stdout(Stdio::null()))?;
    if told.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&told.stderr);
    let lines: Vec<&str> = said.lines().map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect();
    let error = format!("{version} does not take the workspace {}: {}", dir.display(), lines.join("\n"));
    Err(Failure::config(error).hint("nothing was installed; change the configuration first"))
}

/// What the binary at `path` says that it is.
///
/// # Errors
/// If it does not run here.
pub fn version_of(path: &Path) -> Result<String, Failure> {
    let told = run(Command::new(path).arg("version"))?;
    let said = String::from_utf8_lossy(&told.stdout);
    match said.trim_end().strip_prefix("duragent ") {
        Some(version) if told.status.success() => Ok(version.to_owned()),
        _ => {
            let error = format!(
                "{}: expected it to print its version, found {:?} ({})",
                path.display(),
                said.trim_end(),
                told.status
            );
            Err(Failure::new(error).hint("it was not built for this machine"))
        }
    }
}

/// Runs a program that says little, with nothing to read, for a limited time.
fn run(command: &mut Command) -> Result<Output, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Failure::new(format!("cannot run {program}: {error}"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    if command.get_args().count() == 1 {
        command.stdout(Stdio::piped());
    }
    let mut child: Child = command.spawn().map_err(failed)?;
    let start = Instant::now();
    while child.try_wait().map_err(failed)?.is_none() {
        if start.elapsed() > TIME_MAX {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(Failure::new(format!("{program}: expected it to end within {} s", TIME_MAX.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
    child.wait_with_output().map_err(failed)
}

/// A server's trial. Over when it was confirmed.
#[derive(Debug)]
pub struct Trial {
    /// Where the old binary is; `None` when it is over.
    open: Mutex<Option<Place>>,
}

impl Trial {
    /// Looks whether this binary is on trial, and notes the start if so.
    #[must_use]
    pub fn begin(place: &Place) -> Option<Arc<Self>> {
        let mut marker = place.marker()?;
        if marker.to != VERSION {
            // The old one is in place: the change never came about, or was taken back.
            log::warn(&["the upgrade to ", &marker.to, " has not come about, this is ", VERSION].concat());
            told(place.unmark());
            return None;
        }
        if marker.tries >= Marker::STARTED {
            go_back(place, "was started before and did not become ready");
            // It could not be done. What is here is all there is.
            return None;
        }
        marker.tries = Marker::STARTED;
        log::info(&[VERSION, " is on trial; ", &marker.from, " comes back if it does not become ready"].concat());
        told(place.mark(&marker));
        let trial = Arc::new(Self { open: Mutex::new(Some(place.clone())) });
        let (watched, time) = (Arc::clone(&trial), Duration::from_secs(marker.seconds));
        let watch = move || {
            std::thread::sleep(time);
            watched.fail("did not become ready in time");
        };
        // Without the thread a server that hangs is the service manager's.
        if let Err(error) = std::thread::Builder::new().name("trial".into()).spawn(watch) {
            log::warn(&format!("no thread to watch the trial: {error}"));
        }
        Some(trial)
    }

    /// The server is ready: the trial is over.
    pub fn confirm(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.take() {
            told(place.unmark());
            log::info(&[VERSION, " is ready, its trial is over"].concat());
        }
    }

    /// It did not work: becomes the old binary. Returns if the trial is over, or that cannot be done.
    pub fn fail(&self, why: &str) {
        // Held to the end: who is about to confirm comes too late.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.take() {
            go_back(&place, why);
        }
    }
}

/// Puts the old binary back and becomes it.
fn go_back(place: &Place, why: &str) {
    log::warn(&[VERSION, " ", why, ": the old binary comes back"].concat());
    match place.back() {
        Ok(()) => told(Err(again(&place.binary))),
        Err(failure) => told(Err(failure.hint("as the owner of the binary: duragent upgrade --rollback"))),
    }
}

/// Becomes the binary that is at `path` now, with the same arguments. Returns only if that cannot be done.
#[must_use]
pub fn again(path: &Path) -> Failure {
    // What is said in a file is written by a thread, which ends here.
    log::file::flush(LOG_TIME_MAX);
    let error = Command::new(path).args(std::env::args_os().skip(1)).exec();
    Failure::new(format!("cannot start {} again: {error}", path.display()))
}

/// Says in the log what could not be done.
fn told(result: Result<(), Failure>) {
    if let Err(Failure { error, hint, .. }) = result {
        log::warn(&[&error, "; ", hint.as_deref().unwrap_or("see duragent upgrade")].concat());
    }
}
