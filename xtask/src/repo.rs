//! The repository on disk and the programs that are run on it.

use crate::{Failure, Result};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directories that hold what tools made, not what people wrote; names are relative to the root.
const GENERATED: [&str; 8] = [
    ".git",
    ".duragent",
    "target",
    "benches/peers/axum/target",
    "fuzz/target",
    "fuzz/corpus",
    "fuzz/artifacts",
    "fuzz/coverage",
];

/// Where everything is.
pub struct Repo {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
}

impl Repo {
    /// Finds it from where this crate was compiled.
    ///
    /// # Errors
    /// If the source is not there any more.
    pub fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        match here.parent().filter(|root| root.join("Cargo.toml").is_file()) {
            Some(root) => Ok(Self { root: root.to_path_buf() }),
            None => Err(Failure::new(format!("expected the workspace above {}, found no Cargo.toml", here.display()))),
        }
    }

    /// `cargo` with these arguments, to be run at the root.
    #[must_use]
    pub fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// Where cargo puts what it builds.
    ///
    /// # Errors
    /// If cargo cannot say.
    pub fn target_dir(&self) -> Result<PathBuf> {
        let text = capture(&mut self.cargo(["metadata", "--no-deps", "--format-version", "1"]))?;
        let found = text.split("\"target_directory\":\"").nth(1).and_then(|rest| rest.split('"').next());
        found.map(PathBuf::from).ok_or_else(|| Failure::new("cargo metadata: expected a target_directory, found none"))
    }

    /// Builds the `duragent` binary and returns where it is.
    ///
    /// # Errors
    /// If it does not build.
    pub fn build(&self, release: bool) -> Result<PathBuf> {
        let mut command = self.cargo(["build", "--quiet", "--package", "duragent", "--bin", "duragent"]);
        if release {
            command.arg("--release");
        }
        run(&mut command)?;
        Ok(self.target_dir()?.join(if release { "release" } else { "debug" }).join("duragent"))
    }

    /// Every file that people wrote, as sorted paths relative to the root with `/` between the parts.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut open = vec![String::new()];
        while let Some(dir) = open.pop() {
            let path = self.root.join(&dir);
            let entries = std::fs::read_dir(&path).map_err(|e| at(&path, &e))?;
            for entry in entries {
                let entry = entry.map_err(|e| at(&path, &e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let kind = entry.file_type().map_err(|e| at(&entry.path(), &e))?;
                // `.git` is a directory, or in a worktree a file.
                if GENERATED.contains(&name.as_str()) {
                    continue;
                }
                if kind.is_dir() {
                    open.push(name);
                } else if kind.is_file() {
                    files.push(name);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// Reads a file given relative to the root.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.root.join(path);
        std::fs::read(&path).map_err(|e| at(&path, &e))
    }

    /// Reads a text file given relative to the root.
    ///
    /// # Errors
    /// If it cannot be read or is not UTF-8.
    pub fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).map_err(|e| Failure::new(format!("{path}: expected UTF-8: {e}")))
    }

    /// Replaces a file given relative to the root.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        std::fs::write(&path, text).map_err(|e| at(&path, &e))
    }
}

/// An error of the file system with its place.
#[must_use]
pub fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Runs `command` with our own output.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| not_started(command, &e))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{}: {status}", line(command)))) }
}

/// Runs `command` and returns what it wrote to its standard output.
///
/// # Errors
/// If it cannot be started or fails, with what it wrote to standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| not_started(command, &e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(format!("{}: {}\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr))))
}

/// Runs `command` and returns what it wrote to its standard error.
///
/// # Errors
/// As [`capture`].
pub fn capture_errors(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| not_started(command, &e))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(Failure::new(format!("{}: {}\n{text}", line(command), output.status)))
    }
}

/// True where nobody is there to install anything.
#[must_use]
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Installs Debian packages, with spaces between the names, if that is allowed and this is root.
///
/// # Errors
/// If it is not, with what root would do, or it does not work.
pub fn install_packages(packages: &str, allowed: bool) -> Result<()> {
    let install = format!("apt-get install -y --no-install-recommends {packages}");
    if !allowed || !std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        return Err(Failure::new(format!("expected these packages; as root: apt-get update && {install}")));
    }
    for command in ["apt-get update", &install] {
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        run(command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))?;
    }
    Ok(())
}

/// Runs `command`, passes each line of its standard output on, and shows it to `on_line` as well. True if it succeeds.
///
/// # Errors
/// If it cannot be started or read from.
pub fn tee(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| not_started(command, &e))?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.map_err(|e| Failure::new(format!("{}: {e}", line(command))))?;
            let text = String::from_utf8_lossy(&text);
            println!("{text}");
            on_line(&text);
        }
    }
    Ok(child.wait().map_err(|e| not_started(command, &e))?.success())
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", line(command)))
}

/// The command as one would type it, without quoting.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// True if a program of this name is in `PATH`.
#[must_use]
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has servers, and ordinary users do not look.
    let servers = std::iter::once(PathBuf::from("/usr/sbin"));
    std::env::split_paths(&path).chain(servers).any(|dir| dir.join(program).is_file())
}
