//! A control group that bounds the number of processes: for the runtime as root, whom `RLIMIT_NPROC` does not bind
//! (setrlimit(2)).
//!
//! Interfaces: cgroup v2 `pids.max`, and the `pids` hierarchy of v1 (Documentation/admin-guide/cgroup-v2.rst and
//! cgroup-v1/pids.rst in Linux).

use crate::process::random_u64;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Tries to remove a group whose processes have just ended, 5 ms apart: the kernel lets go of them a little later.
const REMOVE_TRIES_MAX: u32 = 40;

/// A group of its own; removed when it is dropped, if nothing is in it any more.
#[derive(Debug)]
pub(super) struct Group(PathBuf);

impl Group {
    /// Makes one for at most `processes` processes and threads.
    ///
    /// # Errors
    /// If there is no hierarchy that this process may make one in.
    pub(super) fn make(processes: u64) -> io::Result<Self> {
        // The number of this process may be that of another one in another namespace.
        let name = format!("duragent-{}-{:016x}", std::process::id(), random_u64());
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mut error = io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy with a pids controller");
        for parent in parents(&own) {
            match make_in(&parent, &name, processes) {
                Ok(path) => return Ok(Self(path)),
                Err(found) if parent.is_dir() => error = found,
                Err(_) => {}
            }
        }
        Err(error)
    }

    /// Its directory: a process that writes 0 to `cgroup.procs` in it joins.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes the group at `path`, as soon as it is empty.
pub(super) fn remove(path: &Path) {
    for _ in 0..REMOVE_TRIES_MAX {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}

/// Where a group may be made: below our own, else at the top of the hierarchy.
fn parents(own: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let mounts: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            other if other.split(',').any(|name| name == "pids") => &["/sys/fs/cgroup/pids"],
            _ => continue,
        };
        for mount in mounts {
            found.push(PathBuf::from(format!("{mount}{path}")));
            found.push(PathBuf::from(mount));
        }
    }
    found
}

fn make_in(parent: &Path, name: &str, processes: u64) -> io::Result<PathBuf> {
    let path = parent.join(name);
    fs::create_dir(&path)?;
    // Only a group that has the controller has the file: on any other file system this fails.
    match fs::OpenOptions::new().write(true).open(path.join("pids.max")) {
        Ok(mut file) => io::Write::write_all(&mut file, processes.to_string().as_bytes()).map(|()| path.clone()),
        Err(error) => Err(error),
    }
    .inspect_err(|_| remove(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_looked_for_in_both_versions() {
        let check = |own: &str, expected: &[&str]| {
            assert_eq!(parents(own), expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{own}");
        };
        check("", &[]);
        check("nonsense\n1:cpu:/a\n", &[]);
        check("8:pids:/a/b\n", &["/sys/fs/cgroup/pids/a/b", "/sys/fs/cgroup/pids"]);
        check(
            "0::/user.slice\n",
            &[
                "/sys/fs/cgroup/user.slice",
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/unified/user.slice",
                "/sys/fs/cgroup/unified",
            ],
        );
    }

    #[test]
    fn a_group_cannot_be_made_where_there_is_no_controller() {
        let dir = std::env::temp_dir();
        let name = format!("duragent-no-cgroup-{}", std::process::id());
        assert!(make_in(&dir, &name, 4).is_err());
        assert!(!dir.join(name).exists(), "what was made is removed");
    }
}
