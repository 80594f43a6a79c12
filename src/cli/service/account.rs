//! The system user of a service: found in, or added to, the files of a tree.

use crate::cli::Failure;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

/// Ids of system users on Debian and most others (login.defs(5)).
const IDS: Range<u32> = 100..1000;

/// User and group id of `name` in the tree at `root`.
pub fn find(root: &Path, name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let ours = fields.next() == Some(name);
        // After the name comes the password.
        let mut number = || fields.nth(1)?.parse().ok().filter(|_| ours);
        let uid = number()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

/// Adds the system user `name` with a group of its own, home `home` and no login. The tools of the system do it, if it has
/// any and is the one that runs; else it is written into its files.
///
/// # Errors
/// If a file cannot be written, or no number is free.
pub fn add(root: &Path, name: &str, home: &str) -> Result<(u32, u32), Failure> {
    if root == Path::new("/") {
        let mut command = Command::new("useradd");
        command.args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/bin/false",
            "--home-dir",
            home,
            name,
        ]);
        let done = command.stdin(Stdio::null()).status().is_ok_and(|status| status.success());
        if let (true, Some(ids)) = (done, find(root, name)) {
            return Ok(ids);
        }
    }
    let taken = |file: &str, field: usize| -> Vec<u32> {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.split(':').nth(field)?.parse().ok()).collect()
    };
    let (users, groups) = (taken("etc/passwd", 2), taken("etc/group", 2));
    let free = IDS.rev().find(|id| !users.contains(id) && !groups.contains(id));
    let Some(id) = free else { return Err(Failure::new("no number of a system user is free")) };
    let number = id.to_string();
    append(root, "etc/group", &[name, ":x:", &number, ":\n"].concat())?;
    if root.join("etc/shadow").exists() {
        append(root, "etc/shadow", &[name, ":!:0:0:99999:7:::\n"].concat())?;
    }
    append(root, "etc/passwd", &[name, ":x:", &number, ":", &number, "::", home, ":/bin/false\n"].concat())?;
    Ok((id, id))
}

/// Appends a line, in one write.
pub fn append(root: &Path, file: &str, line: &str) -> Result<(), Failure> {
    let path = root.join(file);
    let cannot = |error: std::io::Error| {
        Failure::new(["cannot write ", &path.to_string_lossy(), ": ", &error.to_string()].concat())
    };
    let unfinished = fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|byte| *byte != b'\n'));
    let line = if unfinished { ["\n", line].concat() } else { line.to_owned() };
    let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(cannot)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)
}
