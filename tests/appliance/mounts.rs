//! A test in a mount namespace of its own, with small file systems that are gone when it ends, however it ends.

use crate::house::require;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// Set where the namespace is entered already.
const INSIDE: &str = "DURAGENT_TEST_MOUNTS";

/// Runs `test`, which is the test `name` of this program, where temporary files are in a tmpfs of so many kilobytes.
pub fn on_disk(name: &str, kilobytes: u64, test: impl FnOnce()) {
    alone(name, kilobytes, "", test);
}

/// The same, with everything else read-only.
pub fn read_only(name: &str, kilobytes: u64, test: impl FnOnce()) {
    // What cannot be mounted read-only is not writable by files either: /proc and what is like it.
    let script = "while read -r _ _ _ _ point _; do case $point in \"$0\"|/proc*|/sys*|/dev*) ;; \
                  *) mount -o remount,bind,ro \"$point\" 2>/dev/null ;; esac; done < /proc/self/mountinfo;";
    alone(name, kilobytes, script, test);
}

/// The same in a network namespace in which there is nothing but a loopback device that is down.
pub fn off_network(name: &str, kilobytes: u64, test: impl FnOnce()) {
    alone(name, kilobytes, "net", test);
}

fn alone(name: &str, kilobytes: u64, script: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    require("unshare", "util-linux");
    require("mount", "mount");
    // Short: the path of a socket has a hundred bytes.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let place = std::env::temp_dir().join(format!("duragent-mount-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a mount point");
    let (net, script) = if script == "net" { (true, "") } else { (false, script) };
    let script = format!("mount -t tmpfs -o size={kilobytes}k,mode=0700 none \"$0\" && {{ {script} exec \"$@\"; }}");
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new("unshare");
    // Root needs no user namespace; others get one in which they may mount.
    let root =
        std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).expect("proc") == 0;
    command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command.args(if net { &["--net"][..] } else { &[] });
    command.args(["--propagation", "private", "sh", "-c", &script]).arg(&place).arg(own);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    let status = command.env(INSIDE, "1").env("TMPDIR", &place).status().expect("unshare starts");
    std::fs::remove_dir(&place).ok();
    assert!(status.success(), "{name} in a mount namespace of its own: {status}");
}

/// The small file system.
pub fn disk() -> PathBuf {
    std::env::temp_dir()
}
