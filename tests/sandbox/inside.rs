//! What an attempt knows of the house it is made in, and steps that several attempts share.

use crate::kernel::{Answer, Refused};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Before the names of the variables that tell an attempt where it is.
pub const PREFIX: &str = "ESCAPE_";

/// The house from inside.
pub struct Inside {
    pub root: PathBuf,
    pub project: PathBuf,
    pub workspace: PathBuf,
    pub outside: PathBuf,
    /// Where the runtime's own program is.
    pub bin: PathBuf,
    /// A file name that nobody else uses, and the name of the abstract socket.
    pub mark: String,
    /// Process number of the runtime.
    pub runtime: i32,
    /// Process number of the victim, where its secret is, and the number of its shared memory.
    pub victim: i32,
    pub victim_at: usize,
    pub victim_shared: usize,
    pub tcp: u16,
    pub udp: u16,
}

impl Inside {
    pub fn from_environment() -> Self {
        let root = PathBuf::from(variable("ROOT"));
        let project = root.join("project");
        Self {
            workspace: project.join(".duragent"),
            outside: root.join("outside"),
            bin: variable("BIN").into(),
            mark: variable("MARK"),
            runtime: number("RUNTIME"),
            victim: number("VICTIM"),
            victim_at: number("VICTIM_AT"),
            victim_shared: number("VICTIM_SHARED"),
            tcp: number("TCP"),
            udp: number("UDP"),
            project,
            root,
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(format!("{PREFIX}{name}")).unwrap_or_default()
}

fn number<T: std::str::FromStr + Default>(name: &str) -> T {
    variable(name).parse().unwrap_or_default()
}

/// Makes a new file in `directory` and removes it again.
pub fn create_in(directory: impl AsRef<Path>, mark: &str) -> Answer {
    let path = directory.as_ref().join(mark);
    File::create_new(&path)?;
    Ok(fs::remove_file(&path)?)
}

/// Reads a file that must not be empty.
pub fn read(path: impl AsRef<Path>) -> Answer {
    let mut bytes = [0; 64];
    match File::open(path)?.read(&mut bytes)? {
        0 => Err(Refused::Nothing("empty")),
        _ => Ok(()),
    }
}

/// Changes the contents of an existing file.
pub fn overwrite(path: impl AsRef<Path>) -> Answer {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    Ok(file.write_all(b"changed from inside\n")?)
}

/// Makes a new file with its missing directories.
pub fn create(path: impl AsRef<Path>) -> Answer {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::create_new(path)?;
    Ok(file.write_all(b"made from inside\n")?)
}

/// Opens for writing and writes nothing.
pub fn open_to_write(path: impl AsRef<Path>) -> Answer {
    OpenOptions::new().write(true).open(path)?;
    Ok(())
}
