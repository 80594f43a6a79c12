//! `SHA256SUMS` beside what was built, for `sha256sum --check`.

use crate::Result;
use crate::repo::{self, at};
use std::path::Path;
use std::process::{Command, Stdio};

/// The name of the file.
pub const NAME: &str = "SHA256SUMS";

/// Writes the sums of all files in `dir` whose names do not tell that they are sums themselves, sorted by name, and has
/// them checked.
///
/// # Errors
/// If a file cannot be read or the sums cannot be written.
pub fn write(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(|e| at(dir, &e))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).filter(|name| name != NAME).collect();
    names.sort();
    if names.is_empty() {
        return Ok(());
    }
    let text = repo::capture(sha256sum(dir).arg("--").args(names))?;
    let path = dir.join(NAME);
    std::fs::write(&path, text).map_err(|e| at(&path, &e))?;
    repo::capture(sha256sum(dir).args(["--check", "--strict", NAME])).map(drop)
}

fn sha256sum(dir: &Path) -> Command {
    let mut command = Command::new("sha256sum");
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_fit_and_a_changed_file_does_not() {
        let dir = std::env::temp_dir().join(format!("duragent-sums-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        for (name, text) in [("b", "b\n"), ("a", "a\n")] {
            std::fs::write(dir.join(name), text).expect("written");
        }
        write(&dir).expect("sums");
        write(&dir).expect("sums again, without those of the sums");
        let text = std::fs::read_to_string(dir.join(NAME)).expect("sums");
        let names: Vec<_> = text.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b"]);
        std::fs::write(dir.join("a"), "c\n").expect("written");
        let checked = repo::capture(sha256sum(&dir).args(["--check", NAME]));
        assert!(checked.is_err_and(|failure| failure.to_string().contains("did NOT match")));
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
