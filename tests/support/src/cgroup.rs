//! A control group that bounds memory, for proofs that something fits: of version 1 or 2, whichever has the memory controller.
//!
//! Interfaces: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst` in Linux. What counts is anonymous memory,
//! page cache, tmpfs, and what the kernel holds for the processes in it: theirs and their children's.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Where each version is mounted.
const ROOT_1: &str = "/sys/fs/cgroup/memory";
const ROOTS_2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Tries to remove a group whose processes have ended, 50 ms apart: the kernel lets go of them a little later.
const REMOVE_TRIES_MAX: u32 = 100;

/// A group; what is left in it is killed, and it is removed, when it is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// A group for at most so many bytes, swap included.
    ///
    /// # Errors
    /// What is missing, and what would help.
    pub fn new(bytes: u64) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("duragent-memory-{}-{number}", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut tried = Vec::new();
        for (parent, is_v2) in parents(&own) {
            match Self::make(parent.join(&name), is_v2, bytes) {
                Ok(group) => return Ok(group),
                Err(why) => tried.push(why),
            }
        }
        Err(format!(
            "expected a control group with the memory controller (run as root, cgroup v1 or v2): {}",
            tried.join("; ")
        ))
    }

    fn make(path: PathBuf, is_v2: bool, bytes: u64) -> Result<Self, String> {
        if is_v2 && let Some(parent) = path.parent() {
            // Refused where processes are in the parent, unless it is the top; then it is perhaps on already.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Self { path, is_v2 };
        let bytes = bytes.to_string();
        if is_v2 {
            group.set("memory.max", &bytes)?;
            // Without swap there is nothing to bound.
            let _ = group.set("memory.swap.max", "0");
        } else {
            group.set("memory.limit_in_bytes", &bytes)?;
            // The kernel may not count swap.
            let _ = group.set("memory.memsw.limit_in_bytes", &bytes);
        }
        Ok(group)
    }

    /// A command that runs `program` in the group. Arguments may be added.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs")).arg(program);
        command
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it now.
    #[must_use]
    pub fn usage(&self) -> u64 {
        self.number(if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" })
    }

    /// The most bytes there ever were in it; 0 where a kernel before 5.19 does not say.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.number(if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" })
    }

    /// Bytes of anonymous memory in it: what no file gives back.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        if self.is_v2 { self.of("memory.stat", "anon ") } else { self.of("memory.stat", "total_rss ") }
    }

    /// How many of its processes the kernel has killed for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.of(if self.is_v2 { "memory.events" } else { "memory.oom_control" }, "oom_kill ")
    }

    /// The processes in it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn number(&self, file: &str) -> u64 {
        fs::read_to_string(self.path.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn of(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_TRIES_MAX {
            for process in self.processes() {
                // It may have ended by itself.
                let _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
            }
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("warning: {} is left", self.path.display());
    }
}

/// Where a group may be made: below our own, else at the top of the hierarchy.
fn parents(own: &str) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            found.extend([Path::new(ROOT_1).join(path), ROOT_1.into()].map(|path| (path, false)));
        } else if controllers.is_empty() {
            let has_memory = |root: &&&str| {
                let file = Path::new(root).join("cgroup.controllers");
                fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
            };
            for root in ROOTS_2.iter().filter(has_memory) {
                found.extend([Path::new(root).join(path), root.into()].map(|path| (path, true)));
            }
        }
    }
    found
}
