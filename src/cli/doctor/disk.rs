//! What the disk under the workspace does with what it is given. Everything is tried in a folder of its own, gone
//! afterwards.

use super::{Check, size};
use duragent_platform::file::{self, Lease, LeaseError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Appends that are timed; the median of so many is steady, and a slow card is done in seconds.
const SYNCS: usize = 20;
/// Bytes of one: a usual log line.
const LINE_BYTES: usize = 256;
/// A slower sync is felt: each step of a turn waits for two or three.
const SYNC_SLOW: Duration = Duration::from_millis(100);
/// Free bytes below which a long turn may not fit.
const SPACE_LOW: u64 = 256 << 20;
/// Free bytes below which not even a few turns fit.
const SPACE_NONE: u64 = 1 << 20;
/// File systems that forget everything when the machine stops.
const IN_MEMORY: &[&str] = &["tmpfs", "ramfs"];
/// File systems of other machines, where locks and syncs mean what the other side makes of them.
const REMOTE: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"];

pub fn look(dir: &Path) -> Vec<Check> {
    let mut checks = vec![space(file::space(dir)), file_system(dir)];
    let scratch = Scratch(dir.join(format!(".doctor-{}", std::process::id())));
    match file::create_dir(&scratch.0) {
        Ok(()) => {
            checks.push(synced(&scratch.0));
            checks.push(locks(&scratch.0));
            checks.push(appends(&scratch.0));
        }
        Err(error) => {
            let evidence = format!("cannot make {}: {error}", scratch.0.display());
            checks.push(
                Check::fail("disk writes", evidence).hint("sessions are written there: give this user the right to"),
            );
        }
    }
    checks
}

/// Gone when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it stays, it takes a few kilobytes and its name says whose it was.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn space(found: io::Result<(u64, u64)>) -> Check {
    const NAME: &str = "disk space";
    let (free, all) = match found {
        Ok(found) => found,
        Err(error) => return Check::fail(NAME, format!("cannot ask: {error}")),
    };
    let evidence = format!("{} free of {}", size(free), size(all));
    match free {
        ..SPACE_NONE => Check::fail(NAME, evidence).hint("free some: what is not written is not acknowledged"),
        SPACE_NONE..SPACE_LOW => Check::warn(NAME, evidence).hint("free some, before turns have to stop"),
        SPACE_LOW.. => Check::ok(NAME, evidence),
    }
}

fn file_system(dir: &Path) -> Check {
    const NAME: &str = "file system";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let Some((kind, point)) = mounted(&mounts, &dir) else {
        return Check::warn(NAME, "the system does not tell which it is");
    };
    let evidence = format!("{kind}, mounted at {point}");
    match kind {
        kind if IN_MEMORY.contains(&kind) => {
            Check::warn(NAME, evidence).hint("it is gone when the machine stops; keep a workspace on a disk")
        }
        kind if REMOTE.contains(&kind) => Check::warn(NAME, evidence)
            .hint("locks and syncs are up to the other machine; keep a workspace on a local disk"),
        _ => Check::ok(NAME, evidence),
    }
}

/// Type and mount point of the file system that holds `dir` (proc_pid_mountinfo(5)): the longest mount point wins, of equal
/// ones the last.
fn mounted<'a>(mounts: &'a str, dir: &Path) -> Option<(&'a str, String)> {
    let entry = |line: &'a str| {
        let (left, right) = line.split_once(" - ")?;
        let point = unescape(left.split(' ').nth(4)?);
        let kind = right.split(' ').next()?;
        dir.starts_with(&point).then_some((kind, point))
    };
    mounts.lines().filter_map(entry).max_by_key(|(_, point)| point.len())
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

fn synced(dir: &Path) -> Check {
    const NAME: &str = "disk sync";
    let measured = || -> io::Result<Vec<Duration>> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(dir.join("sync"))?;
        let line = [b'x'; LINE_BYTES];
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let start = Instant::now();
            file.write_all(&line)?;
            file.sync_data()?;
            let took = start.elapsed();
            times.insert(times.partition_point(|time| *time <= took), took);
        }
        Ok(times)
    };
    match measured() {
        Ok(times) => sync_times(&times),
        Err(error) => {
            Check::fail(NAME, format!("append and fdatasync: {error}")).hint("nothing can be acknowledged here")
        }
    }
}

/// `times` in order, not empty.
fn sync_times(times: &[Duration]) -> Check {
    const NAME: &str = "disk sync";
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let median = times.get(times.len() / 2);
    let (fastest, slowest) = (ms(times.first()), ms(times.last()));
    let evidence = format!(
        "append and fdatasync take {:.2} ms in the median of {}, {fastest:.2} to {slowest:.2} ms",
        ms(median),
        times.len()
    );
    match median {
        Some(median) if *median > SYNC_SLOW => {
            Check::warn(NAME, evidence).hint("every step waits for the disk; a faster card or disk is felt")
        }
        _ => Check::ok(NAME, evidence),
    }
}

fn locks(dir: &Path) -> Check {
    const NAME: &str = "disk locks";
    let path = dir.join("lock");
    let first = match Lease::acquire(&path) {
        Ok(lease) => lease,
        Err(error) => {
            return Check::fail(NAME, format!("flock: {error:?}")).hint("two processes could write one session");
        }
    };
    let second = Lease::acquire(&path);
    drop(first);
    match (second, Lease::acquire(&path)) {
        (Err(LeaseError::Held(_)), Ok(_)) => Check::ok(NAME, "flock kept a second taker out, and let it in afterwards"),
        (Err(LeaseError::Held(_)), Err(error)) => Check::fail(NAME, format!("flock is not given back: {error:?}")),
        _ => Check::fail(NAME, "flock did not keep a second taker out").hint("two processes could write one session"),
    }
}

fn appends(dir: &Path) -> Check {
    const NAME: &str = "disk append";
    let tried = || -> io::Result<Vec<u8>> {
        let path = dir.join("append");
        let mut file: File = OpenOptions::new().append(true).create_new(true).open(&path)?;
        file.write_all(b"one")?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(b"two")?;
        fs::read(&path)
    };
    match tried() {
        Ok(found) if found == b"onetwo" => Check::ok(NAME, "O_APPEND wrote to the end from elsewhere"),
        Ok(found) => {
            let evidence = format!("O_APPEND: expected \"onetwo\", found {:?}", String::from_utf8_lossy(&found));
            Check::fail(NAME, evidence).hint("keep the workspace on another file system")
        }
        Err(error) => Check::fail(NAME, format!("O_APPEND: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounts = "\
            22 1 8:1 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
            23 22 0:5 / /home/a\\040b rw - btrfs /dev/sdb rw\n\
            24 22 0:6 / /home/a\\040b/x rw master:1 - tmpfs tmpfs rw\n\
            25 22 0:7 / /home/a\\040b/x rw - nfs4 host:/ rw\n\
            malformed\n";
        let check = |dir: &str, kind: &str, point: &str| {
            assert_eq!(mounted(mounts, Path::new(dir)), Some((kind, point.to_owned())), "{dir}");
        };
        check("/var", "ext4", "/");
        check("/home/a b", "btrfs", "/home/a b");
        check("/home/a bc", "ext4", "/");
        check("/home/a b/x/y", "nfs4", "/home/a b/x");
        assert_eq!(mounted("", Path::new("/")), None);
    }

    #[test]
    fn space_and_speed_have_three_answers() {
        let check = |found: io::Result<(u64, u64)>, status| assert_eq!(space(found).status, status);
        check(Ok((0, 1 << 40)), Status::Fail);
        check(Ok((SPACE_NONE, 1 << 40)), Status::Warn);
        check(Ok((SPACE_LOW, 1 << 40)), Status::Ok);
        check(Err(io::ErrorKind::NotFound.into()), Status::Fail);
        let times = |ms: u64| [Duration::from_millis(1), Duration::from_millis(ms), Duration::from_secs(1)];
        assert_eq!(sync_times(&times(100)).status, Status::Ok);
        assert_eq!(sync_times(&times(101)).status, Status::Warn);
    }

    #[test]
    fn a_folder_that_cannot_be_written_fails() {
        let checks = look(Path::new("/proc/self"));
        let writes = checks.iter().find(|check| check.name == "disk writes").expect("it is tried");
        assert_eq!(writes.status, Status::Fail, "{writes:?}");
    }

    #[test]
    fn this_disk_passes_and_nothing_is_left_behind() {
        let dir = std::env::temp_dir().join(format!("duragent-doctor-{}", std::process::id()));
        file::create_dir(&dir).expect("a temporary folder");
        let checks = look(&dir);
        let left = fs::read_dir(&dir).expect("it is there").count();
        fs::remove_dir_all(&dir).expect("it goes");
        assert_eq!(left, 0);
        for name in ["disk sync", "disk locks", "disk append"] {
            let found = checks.iter().find(|check| check.name == name).expect(name);
            assert_ne!(found.status, Status::Fail, "{found:?}");
        }
    }
}
