//! What all commands take.

use super::Failure;
use crate::config::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The format of workspaces that this build reads and writes.
const FORMAT: &str = "1";
/// Bytes of the file `format` that are read.
const FORMAT_BYTES_MAX: u64 = 64;

/// Options in front of the command.
#[derive(Debug, Default)]
pub struct Common {
    /// `--dir`.
    pub dir: Option<PathBuf>,
}

impl Common {
    /// `--profile`: a name, or a path from where we are.
    pub fn profile(&self, value: OsString) -> Result<(), Failure> {
        let name = text(value)?;
        let path = || std::path::absolute(&name).ok()?.into_os_string().into_string().ok();
        let name = if name.contains('/') { path().unwrap_or(name) } else { name };
        if env::PROFILE.set(name).is_err() {
            return Err(Failure::usage("--profile is there twice", "keep one of them"));
        }
        Ok(())
    }

    /// The workspace: `--dir`, else `DURAGENT_DIR`, else `./.duragent`.
    pub fn workspace(&self) -> PathBuf {
        let named = || env::process("DURAGENT_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.dir.clone().or_else(named).unwrap_or_else(|| PathBuf::from(".duragent"))
    }

    /// The workspace, which has to be there.
    pub fn existing(&self) -> Result<PathBuf, Failure> {
        let dir = self.workspace();
        if dir.is_dir() {
            // Absolute, so that messages and tools mean the same place whatever happens to the working directory.
            let dir = std::path::absolute(&dir)
                .map_err(|error| Failure::config(format!("cannot find {}: {error}", dir.display())))?;
            return format_is_known(&dir).map(|()| dir);
        }
        let error = format!("there is no workspace at {}", dir.display());
        Err(Failure::config(error).hint("make one with: duragent init, or name one with --dir or DURAGENT_DIR"))
    }
}

/// Refuses a workspace of a later format, before anything in it is looked at: its file `format` says so. This build knows
/// format 1, which has no such file.
pub fn format_is_known(dir: &Path) -> Result<(), Failure> {
    let path = dir.join("format");
    let mut found = String::new();
    match File::open(&path).and_then(|file| file.take(FORMAT_BYTES_MAX).read_to_string(&mut found)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(_) if found.trim() == FORMAT => Ok(()),
        result => {
            let found = result.map_or_else(|error| error.to_string(), |_| found.trim().to_owned());
            let error = format!("{}: expected format {FORMAT} of the workspace, found {found:?}", path.display());
            Err(Failure::config(error).hint("nothing was changed; use the version of duragent that wrote it"))
        }
    }
}

/// Fails if anything is left on the command line.
pub fn no_more(parser: &mut lexopt::Parser) -> Result<(), Failure> {
    match parser.next()? {
        None => Ok(()),
        Some(arg) => Err(arg.unexpected().into()),
    }
}

/// An argument as text.
pub fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| Failure::usage(format!("expected UTF-8, found {value:?}"), "retype the argument"))
}

/// An argument as a whole number.
pub fn number<T: std::str::FromStr>(value: OsString, option: &str) -> Result<T, Failure> {
    let text = text(value)?;
    text.parse()
        .map_err(|_| Failure::usage(format!("{option}: expected a whole number, found {text:?}"), "give a number"))
}

/// An argument as the place of one of `words`.
pub fn word(value: OsString, option: &str, words: &[&str]) -> Result<usize, Failure> {
    let place = words.iter().position(|word| value == *word);
    place.ok_or_else(|| lexopt::Error::UnexpectedValue { option: option.to_owned(), value }.into())
}
