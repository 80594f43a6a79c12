//! Shared by the integration tests: a directory of its own for each, and eyes on the processes of the machine.

#![allow(dead_code, reason = "each test binary uses its part")]

use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Command, Exit, Place, Sandbox, Stream, Trust, View};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const TESTBED: &str = env!("CARGO_BIN_EXE_duragent-testbed");

/// `PATH` of what the tests start.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Far longer than anything here takes; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A text no other test of this machine has.
pub fn unique() -> String {
    format!("duragent-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that goes when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Processes that have `MARK=<mark>` in their environment, with their command lines; guards have it as `+MARK`. Zombies have
/// none.
pub fn marked(mark: &str) -> Vec<(i32, String)> {
    let wanted = format!("MARK={mark}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let of_guard = |v: &[u8]| v.strip_prefix(b"+").is_some_and(|v| v == wanted.as_bytes());
        if environ.split(|&b| b == 0).any(|v| v == wanted.as_bytes() || of_guard(v)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Trust mode with the test bed as its guard.
pub fn trust() -> Trust {
    Trust::new(PathBuf::from(TESTBED))
}

/// Everything, from `workdir` on.
pub fn everything(workdir: &Path) -> View {
    View::everything(Place { workdir, artifacts: workdir })
}

/// Runs `command` in trust mode, in the machine's directory for temporary files.
pub fn run(command: &Command, cancel: &Cancel, sink: &mut dyn FnMut(Stream, &[u8])) -> std::io::Result<Exit> {
    trust().run(&everything(&std::env::temp_dir()), command, cancel, sink).map(|ended| ended.exit)
}

/// A script that can be found by its mark.
pub fn bash(script: &str, mark: &str, deadline: Duration) -> Command {
    Command {
        program: "bash".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), PATH.into()), ("MARK".into(), mark.into())],
        deadline,
    }
}
