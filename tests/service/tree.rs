//! A machine of its own for a test: this system, or BusyBox alone, in namespaces, with a real init as its process 1. What is
//! written goes to memory and is gone with it. Takes root, as the other tests of what keeps processes apart.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be very busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
}

pub struct Tree {
    outer: Child,
    /// Process 1 of the tree, as it is numbered outside.
    init: String,
    /// Where it is mounted for itself; empty for all others.
    folder: PathBuf,
}

impl Tree {
    /// A tree of `kind`, `whole` or `bare`, in which `prepare` has run, with `init` as its process 1.
    pub fn start(kind: &str, prepare: &str, init: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/tree.sh");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net", "--"]);
        command.args(["sh", script, kind, env!("CARGO_BIN_EXE_duragent"), prepare]).args(init);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-tree-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        command.env("TREE", &folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut outer = command.spawn().expect("unshare (util-linux) can be run");
        let pid = outer.id().to_string();
        let start = Instant::now();
        loop {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let init = children.split_whitespace().next().unwrap_or_default().to_owned();
            // Its root is the tree only after it has become the tree's.
            if !init.is_empty() && std::fs::exists(format!("/proc/{init}/root/run/tree-is-up")).unwrap_or(false) {
                return Self { outer, init, folder };
            }
            if outer.try_wait().expect("our child").is_some() || start.elapsed() > PATIENCE {
                outer.kill().ok();
                std::fs::remove_dir(&folder).ok();
                let mut said = String::new();
                outer.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
                panic!("no tree (these tests need root, overlayfs and cgroup v2): {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a line of shell in it.
    pub fn run(&self, line: &str) -> Ended {
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=5",
            "120",
            "nsenter",
            "-t",
            &self.init,
            "-m",
            "-p",
            "-u",
            "-i",
            "-n",
            "-C",
            "-r",
            "-w",
        ]);
        command.args(["sh", "-c", &format!("{{ {line}\n}} 2>&1")]).stdin(Stdio::null()).env_clear();
        let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().expect("nsenter can be run");
        Ended { code: output.status.code(), out: String::from_utf8_lossy(&output.stdout).into_owned() }
    }

    /// The same, and it has to succeed.
    pub fn ok(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.out);
        ended.out
    }

    /// Waits until a line of shell succeeds, and returns what it said then.
    pub fn until(&self, line: &str) -> String {
        let start = Instant::now();
        loop {
            let ended = self.run(line);
            if ended.code == Some(0) {
                return ended.out;
            }
            assert!(start.elapsed() < PATIENCE, "{line}: {}", ended.out);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // unshare dies, and by --kill-child process 1 of the tree with all that is in it.
        self.outer.kill().ok();
        self.outer.wait().ok();
        std::fs::remove_dir(&self.folder).ok();
    }
}
